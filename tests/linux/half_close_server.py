"""Run as a program in a namespace: greets, closes its sending side, then reads to the end.

Written on ``ustack.socket`` in process; prints "ready", then the count and SHA-256 of what came.
"""

from __future__ import annotations

import hashlib
import sys

import ustack
from ustack import socket


def main(tap: str) -> None:
    """Serve one connection on port 5000 of 10.0.5.2."""
    ustack.up(tap=tap, address="10.0.5.2/24", host_address="10.0.5.1/24")
    lsk = socket.create_server(("10.0.5.2", 5000))
    print("ready", flush=True)
    sk, _ = lsk.accept()
    with sk:
        sk.sendall(b"welcome")
        sk.shutdown(socket.SHUT_WR)
        digest, total = hashlib.sha256(), 0
        while data := sk.recv(65536):
            digest.update(data)
            total += len(data)
    print(total, digest.hexdigest(), flush=True)
    lsk.close()
    ustack.down()


if __name__ == "__main__":
    main(sys.argv[1])
