"""Clients of an echo server: each sends so many bytes and holds that they come back.

``echo_client.py HOST PORT CLIENTS BYTES``; exit status 0 if every byte did.
"""

import hashlib
import socket
import sys
import threading


def talk(host: str, port: int, size: int, seed: int) -> bool:
    block = hashlib.sha256(bytes([seed])).digest() * 1024
    sent, got = hashlib.sha256(), hashlib.sha256()
    with socket.create_connection((host, port), timeout=60) as connection:

        def send() -> None:
            left = size
            while left:
                piece = block[: min(left, len(block))]
                connection.sendall(piece)
                sent.update(piece)
                left -= len(piece)
            connection.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        while data := connection.recv(65536):
            got.update(data)
        sender.join()
    return sent.digest() == got.digest()


def main(host: str, port: int, clients: int, size: int) -> bool:
    results = []
    threads = [
        threading.Thread(target=lambda n=n: results.append(talk(host, port, size, n)))
        for n in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results == [True] * clients


if __name__ == "__main__":
    sys.exit(not main(sys.argv[1], *[int(argument) for argument in sys.argv[2:]]))
