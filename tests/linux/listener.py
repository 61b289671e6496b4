"""Run as a program in a namespace: a listener on 10.0.7.2:80 that does what stdin says.

``listener.py TAP BACKLOG NAME=VALUE...`` sets sysctls, listens and prints "ready". Each line of
JSON that follows is a call, ``["accept"]``, ``["opt", 6, 23, 5]``, and is answered by a line of
JSON. Written on ``ustack.socket`` in process.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import ustack
from ustack import socket
from ustack.config import StackConfig
from ustack.core.sysctl import sysctl_write

PORT = 80


class Listener:
    """The stack and its one listener."""

    def __init__(self, tap: str, backlog: int, *settings: str) -> None:
        self.handle = ustack.up(
            tap=tap, address="10.0.7.2/24", host_address="10.0.7.1/24", config=StackConfig()
        )
        for setting in settings:
            self.sysctl(*setting.split("="))
        self.lsk = socket.socket()
        self.lsk.settimeout(60)
        self.lsk.bind(("10.0.7.2", PORT))
        self.lsk.listen(backlog)

    def sysctl(self, name: str, value: str) -> None:
        """Change a knob."""
        stack = self.handle.stack
        config = sysctl_write(stack.config, name, value)
        self.handle.runtime.call(stack.set_config, config)

    def listen(self, backlog: int) -> None:
        """Change the accept queue's length."""
        self.lsk.listen(backlog)

    def opt(self, level: int, name: int, value: int) -> None:
        """Set an option of the listener."""
        self.lsk.setsockopt(level, name, value)

    def accept(self, answer: str = "") -> list[Any]:
        """Take a connection, read once, answer, close; return the peer's port and the text."""
        sk, (_, port) = self.lsk.accept()
        with sk:
            sk.settimeout(60)
            data = sk.recv(4096)
            sk.sendall(answer.encode())
        return [port, data.decode()]

    def counters(self) -> dict[str, int]:
        """Return the counters of TcpExt that are not zero."""
        table = self.handle.stack.net.mib.snapshot()["TcpExt"]
        return {name: value for name, value in table.items() if value}

    def queues(self) -> list[int]:
        """Return requests, children that wait, and their limit."""
        rows = self.handle.runtime.call(self.handle.stack.tcp.diag)
        (row,) = [row for row in rows if row["state"] == "LISTEN"]
        return [row["syn_queue"], row["recv_q"], row["send_q"]]


def main(tap: str, backlog: str, *settings: str) -> None:
    """Do what stdin says until it ends."""
    listener = Listener(tap, int(backlog), *settings)
    print("ready", flush=True)
    for line in sys.stdin:
        name, *args = json.loads(line)
        print(json.dumps(getattr(listener, name)(*args)), flush=True)
    ustack.down()


if __name__ == "__main__":
    main(*sys.argv[1:])
