"""Run as a program in a namespace: a client on ``ustack.socket``, in process.

``fetch.py TAP get PORT PATH``: fetch from 10.0.6.1, print count and SHA-256 of the body.
``fetch.py TAP connect ADDRESS PORT [TIMEOUT]``: print the error that connect() gives.
"""

from __future__ import annotations

import errno
import hashlib
import sys

import ustack
from ustack import socket


def get(port: str, path: str) -> None:
    """Fetch with HTTP/1.0 and hash the body."""
    try:
        sk = socket.create_connection(("10.0.6.1", int(port)), timeout=60)
    except OSError as error:
        print(type(error).__name__)
        return
    with sk, sk.makefile("rb") as reply:
        sk.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        while reply.readline().strip():
            pass
        digest, total = hashlib.sha256(), 0
        while data := reply.read(65536):
            digest.update(data)
            total += len(data)
    print(total, digest.hexdigest())


def connect(address: str, port: str, timeout: str = "60") -> None:
    """Connect and say what went wrong."""
    try:
        socket.create_connection((address, int(port)), timeout=float(timeout)).close()
    except OSError as error:
        print(type(error).__name__, errno.errorcode.get(error.errno or 0, ""))


def main(tap: str, what: str, *arguments: str) -> None:
    """Bring a stack up, do one thing, take it down."""
    ustack.up(tap=tap, address="10.0.6.2/24", host_address="10.0.6.1/24")
    {"get": get, "connect": connect}[what](*arguments)
    ustack.down()


if __name__ == "__main__":
    main(*sys.argv[1:])
