"""Run as a program in a namespace: a server of kit.traffic on ``ustack.socket``, in process.

``ustack_traffic.py MODE TAP ADDRESS HOST_ADDRESS PORT``; prints "ready" and serves until killed.
"""

from __future__ import annotations

import sys

import ustack
from kit.traffic import pin, serve
from ustack import socket


def main(mode: str, tap: str, address: str, host_address: str, port: str) -> None:
    """Bring a stack up in this process and serve."""
    pin(0)
    ustack.up(tap=tap, address=f"{address}/24", host_address=f"{host_address}/24")
    serve(socket, mode, address, int(port))


if __name__ == "__main__":
    main(*sys.argv[1:])
