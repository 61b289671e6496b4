"""An echo server with one thread for each client: the blocking style.

It knows nothing of ustack: what ``socket`` is decides which stack it runs on.
"""

import socket
import sys
import threading


def main(host: str, port: int, clients: int = 1) -> None:
    threads = []
    with socket.create_server((host, port)) as listener:
        print("listening", flush=True)
        for _ in range(clients):
            connection, _ = listener.accept()
            threads.append(threading.Thread(target=echo, args=(connection,)))
            threads[-1].start()
    for thread in threads:
        thread.join()


def echo(connection: socket.socket) -> None:
    with connection:
        while data := connection.recv(65536):
            connection.sendall(data)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
