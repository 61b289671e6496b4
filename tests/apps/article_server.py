"""The classic first server: socket, bind, listen, accept, recv, send, close.

It knows nothing of ustack: what ``socket`` is decides which stack it runs on.
"""

import socket
import sys


def main(host: str, port: int, clients: int = 1) -> None:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(128)
    print("listening", flush=True)
    for _ in range(clients):
        connection, _address = listener.accept()
        while data := connection.recv(1024):
            connection.send(data)
        connection.close()
    listener.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
