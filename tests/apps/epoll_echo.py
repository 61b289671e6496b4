"""An echo server of one thread on epoll, edge-triggered, that ends after so many clients.

It knows nothing of ustack: what ``socket`` and ``select`` are decides which stack it runs on.
"""

import select
import socket
import sys


def main(host: str, port: int, clients: int = 1) -> None:
    listener = socket.create_server((host, port))
    listener.setblocking(False)
    epoll = select.epoll()
    epoll.register(listener.fileno(), select.EPOLLIN)
    connections = {}
    print("listening", flush=True)
    while clients:
        for fd, events in epoll.poll():
            if fd == listener.fileno():
                connection, _ = listener.accept()
                connection.setblocking(False)
                interest = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
                epoll.register(connection, interest)
                connections[connection.fileno()] = (connection, bytearray())
            elif not serve(*connections[fd], events):
                connections.pop(fd)[0].close()
                clients -= 1
    epoll.close()
    listener.close()


def serve(connection: socket.socket, unsent: bytearray, events: int) -> bool:
    """Read and write until nothing moves; return whether the connection goes on."""
    while True:
        try:
            while unsent:
                del unsent[: connection.send(unsent)]
        except BlockingIOError:
            return True
        try:
            data = connection.recv(65536)
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        if not data:
            return False
        unsent += data


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
