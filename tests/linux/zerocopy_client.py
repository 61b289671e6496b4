"""Run as a program in a namespace: ``zerocopy_client.py TAP PORT PATH`` sends a file twice.

By sendfile, then by send_ref, to 10.0.6.1; prints for each what rose: copied and referenced
bytes, and whether the lent buffer came back.
"""

from __future__ import annotations

import sys
from pathlib import Path

import ustack
from ustack import socket


def main(tap: str, port: str, path: str) -> None:
    """Bring a stack up, send, take it down."""
    handle = ustack.up(tap=tap, address="10.0.6.2/24", host_address="10.0.6.1/24")
    tcp = handle.stack.tcp
    for way in ("sendfile", "send_ref"):
        with socket.create_connection(("10.0.6.1", int(port)), timeout=120) as sk:
            copied, referenced = tcp.copied_bytes, tcp.ref_bytes
            if way == "sendfile":
                with open(path, "rb") as file:
                    sk.sendfile(file)
                done = True
            else:
                sk.settimeout(None)
                done = sk.send_ref(Path(path).read_bytes()).wait(120)
            print(way, tcp.copied_bytes - copied, tcp.ref_bytes - referenced, done, flush=True)
    ustack.down()


if __name__ == "__main__":
    main(*sys.argv[1:])
