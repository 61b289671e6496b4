"""``ustack capacity``: how many connections a machine holds, from what one is measured to take.

A stack of this process's own connects to itself until nothing but control blocks is left of the
connections (``net.ustack.tcp_live_socks`` 0), and what the process has more in RAM is divided by
their number: Python, tables and allocators are in it. What data takes comes on top.
"""

from __future__ import annotations

import argparse
import contextlib
import random
from dataclasses import replace

from ustack.config import StackConfig, UstackConfig
from ustack.lib.addresses import parse_ipv4
from ustack.stack import Stack

PAIRS = 4000
ARENA_BYTES = 256 << 20
LOOPBACK = parse_ipv4("127.0.0.1")
PORT = 80
PORTS = (40_000, 40_099)
"""To connect from, on each address anew: a port is no connection's own."""
AT_ONCE = 50
STEP_US = 300_000
"""For those that were made to idle before the next ones: memory that objects had is used again."""
IDLE_US = 2_000_000
PAGE_BYTES = 4096
UNITS = {"K": 10, "M": 20, "G": 30, "T": 40}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare capacity's arguments."""
    parser.add_argument("--mem", type=size, default="128G", metavar="N[KMGT]", help="RAM (128G)")
    parser.add_argument(
        "--connections", type=int, default=5_000_000, metavar="N", help="of a machine (5000000)"
    )
    parser.add_argument(
        "--users", type=int, default=100_000_000, metavar="N", help="a connection each (100000000)"
    )


def size(text: str) -> int:
    """Return the bytes that ``text`` says, 128G for instance.

    Raises:
        ValueError: it says none.
    """
    shift = UNITS.get(text[-1:].upper(), 0)
    return int(float(text[:-1] if shift else text) * (1 << shift))


def run(args: argparse.Namespace) -> int:
    """Measure, then do the arithmetic."""
    print("\n".join(report(measure(PAIRS), args.mem, args.connections, args.users)))
    return 0


def report(each: float, mem: int, connections: int, users: int) -> list[str]:
    """Return the lines that say what connections of ``each`` bytes come to.

    Args:
        mem: bytes of a machine's RAM.
        connections: that it shall hold.
    """
    used = each * connections
    machines = -(-users // connections)
    return [
        f"an idle connection: {each:.0f} bytes",
        f"{_gib(mem)}: room for {int(mem / each):,} idle connections",
        f"{connections:,} connections: {_gib(used)}, {100 * used / mem:.1f} % of it;"
        f" {max(mem - used, 0) / connections / 1024:.1f} KiB for the data of each",
        f"{users:,} users: {machines:,} machine{'s' * (machines != 1)}",
    ]


def measure(pairs: int) -> float:
    """Return the bytes in RAM that an idle connection takes, of two for each of ``pairs``."""
    ends = _Loopback()
    ends.open(pairs // 4)  # what is needed once is there by then
    before = _rss_bytes()
    ends.open(pairs)
    return (_rss_bytes() - before) / (2 * pairs)


class _Loopback:
    """A stack in virtual time that connects to itself."""

    def __init__(self) -> None:
        config = StackConfig(ustack=UstackConfig(tcp_live_socks=0))
        tcp = replace(config.tcp, ip_local_port_range=PORTS)
        core = replace(config.core, arena_bytes=ARENA_BYTES, somaxconn=65535)
        self._now_us = 1
        self._addresses = 0
        self._stack = Stack(replace(config, core=core, tcp=tcp), rng=random.Random(1), now_us=1)
        self._listener = self._stack.socket()
        self._listener.bind(0, PORT)
        self._listener.listen(65535)

    def open(self, pairs: int) -> None:
        """Connect so many times, then idle."""
        for first in range(0, pairs, AT_ONCE):
            for _ in range(min(AT_ONCE, pairs - first)):
                with contextlib.suppress(BlockingIOError):
                    self._stack.socket().connect(LOOPBACK + self._addresses, PORT)
            self._addresses += 1
            self._run(STEP_US)
            while self._listener.poll():
                self._listener.accept()
        self._run(IDLE_US)

    def _run(self, us: int) -> None:
        end_us = self._now_us + us
        while self._now_us < end_us:
            while self._stack.poll(self._now_us):
                pass
            due_us = self._stack.next_deadline_us() or end_us
            self._now_us = min(max(due_us, self._now_us + 1), end_us)


def _gib(count: float) -> str:
    return f"{count / (1 << 30):.1f} GiB"


def _rss_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * PAGE_BYTES
