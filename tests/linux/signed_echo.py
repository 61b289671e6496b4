"""Run as a program in a namespace: a signed echo between a socket of the kernel and one of ours.

``signed_echo.py kernel|ustack KEY``: who connects, and the key that the other end has (ours
is ``secret``). Prints whether what came back is what was sent, or the error.
"""

from __future__ import annotations

import hashlib
import socket
import struct
import sys
import threading
from pathlib import Path
from typing import Any

import ustack

sys.path.insert(0, str(Path(__file__).parents[1]))

from kit.lab import wait_for

TCP_MD5SIG = 14
KERNEL, OURS = "10.0.7.1", "10.0.7.2"
DATA = bytes(range(256)) * 1200


def keyed(module: Any, peer: str, key: str) -> Any:
    """Return a socket with a peer's key (struct tcp_md5sig)."""
    sk = module.socket()
    sk.settimeout(30)
    sin = struct.pack("=HH4s120x", socket.AF_INET, 0, socket.inet_aton(peer))
    value = sin + struct.pack("=BBHi80s", 0, 0, len(key), 0, key.encode())
    sk.setsockopt(socket.IPPROTO_TCP, TCP_MD5SIG, value)
    return sk


def echo(listener: Any) -> None:
    """Serve one connection, until it ends."""
    sk, _ = listener.accept()
    with sk:
        while data := sk.recv(65536):
            sk.sendall(data)


def main(who: str, key: str) -> None:
    """Bring a stack up, let one end send and the other echo."""
    stack = ustack.up(tap="tap7", address=f"{OURS}/24", host_address=f"{KERNEL}/24").stack
    ends = [(socket, KERNEL, OURS, key), (ustack.socket, OURS, KERNEL, "secret")]
    client, server = ends if who == "kernel" else ends[::-1]
    listener = keyed(server[0], client[1], server[3])
    listener.bind((server[1], 5000))
    listener.listen()
    threading.Thread(target=echo, args=(listener,), daemon=True).start()
    sk = keyed(client[0], server[1], client[3])
    if key != "secret":
        sk.settimeout(0.3)
    try:
        sk.connect((server[1], 5000))
    except TimeoutError:
        wait_for(lambda: stack.net.mib.tcp_ext.TCPMD5Failure, "a repeated SYN to be refused")
        print("TimeoutError")
        return
    threading.Thread(target=sk.sendall, args=(DATA,), daemon=True).start()
    got = bytearray()
    while len(got) < len(DATA):
        got += sk.recv(65536)
    sk.close()
    print(hashlib.sha256(got).hexdigest() == hashlib.sha256(DATA).hexdigest())
    ustack.down()


if __name__ == "__main__":
    main(*sys.argv[1:])
