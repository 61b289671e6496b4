"""The reverse part of the bench: ustack opens connections, to itself over its loopback.

One stack without a device: a listener on some addresses of 127/8, and as many connections to each
as it has ports. Both ends are this process's, so that each connection is two control blocks. A
thousand of them at random echo a message, then all close, the client's end first; its TIME_WAITs
are waited for by putting the stack's clock forward.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import time
from array import array
from collections.abc import Iterable
from dataclasses import replace
from select import EPOLLIN
from typing import Any

from kit.crowd import rss_bytes
from ustack.config import StackConfig
from ustack.inet.sockets import InetSocket
from ustack.lib.addresses import parse_ipv4
from ustack.runtime.clock import monotonic_us
from ustack.stack import Stack

PORT = 8000
FIRST_ADDRESS = parse_ipv4("127.0.1.0")
PER_ADDRESS = 20_000
"""Connections to one address: there are 28,232 ports to connect from."""
AT_ONCE = 64
ECHOES = 1000
SIZE = 64
IDLE_US = 2_000_000
MSL2_US = 61_000_000


class BothEnds:
    """A stack that talks to itself, and what an application has of each connection: its number."""

    def __init__(self) -> None:
        core = replace(StackConfig().core, arena_bytes=3 << 30, somaxconn=65535)
        self._ahead_us = 0
        self.stack = Stack(StackConfig(core=core), rng=random.Random(1), now_us=monotonic_us())
        self.clients = array("Q")
        self._ready: dict[int, InetSocket] = {}
        self._buffer = bytearray(SIZE)
        self._listener = self.stack.socket()
        self._listener.bind(0, PORT)
        self._listener.listen(65535)

    def turn(self) -> None:
        """Let the stack do all that it has to do now, and the server answer."""
        while self.stack.poll(monotonic_us() + self._ahead_us):
            pass
        while self._listener.poll():
            self._listener.accept().set_upcall(self._is_ready)
        ready, self._ready = self._ready, {}
        for sock in ready.values():
            self._serve(sock)

    def _is_ready(self, sock: InetSocket, _events: int) -> None:
        self._ready[sock.handle] = sock

    def _serve(self, sock: InetSocket) -> None:
        try:
            count = sock.recv_into(self._buffer)
        except BlockingIOError:
            return
        if count:
            sock.send(memoryview(self._buffer)[:count])
        else:
            sock.close()

    def open(self, count: int) -> None:
        """Make ``count`` connections more, some at a time."""
        goal = len(self.clients) + count
        while len(self.clients) < goal:
            some = [self._connect(n) for n in range(min(AT_ONCE, goal - len(self.clients)))]
            while any(not sock.established for sock in some):
                self.turn()
            self.clients.extend(sock.handle for sock in some)
        self.turn()

    def _connect(self, ahead: int) -> InetSocket:
        sock = self.stack.socket()
        address = FIRST_ADDRESS + (len(self.clients) + ahead) // PER_ADDRESS
        with contextlib.suppress(BlockingIOError):
            sock.connect(address, PORT)
        return sock

    def echo(self, handles: Iterable[int]) -> None:
        """Have a message answered on each of some connections."""
        for handle in handles:
            sock = InetSocket(self.stack.tcp, handle)
            sock.send(bytes(SIZE))
            while not sock.poll() & EPOLLIN:
                self.turn()
            assert sock.recv_into(bytearray(SIZE)) == SIZE

    def close(self) -> None:
        """Close all, the clients first."""
        for first in range(0, len(self.clients), AT_ONCE):
            for handle in self.clients[first : first + AT_ONCE]:
                InetSocket(self.stack.tcp, handle).close()
            self.turn()
        del self.clients[:]
        while len(self.stack.tcp.ehash):
            self.turn()

    def skip(self, us: int) -> None:
        """Let that much time pass, in the stack."""
        end_us = monotonic_us() + self._ahead_us + us
        while (due := self.stack.next_deadline_us()) is not None and due <= end_us:
            self._ahead_us = max(due - monotonic_us(), self._ahead_us)
            self.turn()
        self._ahead_us = max(end_us - monotonic_us(), self._ahead_us)
        self.turn()

    def slabs(self) -> dict[str, int]:
        """Return the objects in use by cache."""
        return {name: info.active_objs for name, info in self.stack.memory_info().items()}


def measure(connections: int) -> dict[str, Any]:
    """Open, echo, close; return the figures by name. Times are the processor's."""
    ends = BothEnds()
    ends.open(1)
    ends.close()
    ends.skip(MSL2_US)
    before, rss = ends.slabs(), rss_bytes()
    began = time.monotonic()
    opened_s = _spent(ends.open, connections)
    opened_wall_s = time.monotonic() - began
    ends.skip(IDLE_US)
    held = rss_bytes() - rss
    objects = len(ends.stack.tcp.socks)
    some = random.Random(1).sample(ends.clients, min(ECHOES, connections))
    echo_s = _spent(ends.echo, some)
    closed_s = _spent(ends.close)
    timewaits = len(ends.stack.tcp.twhash)
    ends.skip(MSL2_US)
    return {
        "connections": connections,
        "seconds to open": opened_wall_s,
        "us a connection": 1e6 * opened_s / connections,
        "bytes each (RSS), both ends": held / connections,
        "Python objects": objects,
        "us a round trip, random": 1e6 * echo_s / len(some),
        "us a close, both ends": 1e6 * closed_s / connections,
        "TIME_WAITs afterwards": timewaits,
        "slabs as before": ends.slabs() == before,
        "Python objects at the end": len(ends.stack.tcp.socks),
    }


def _spent(do: Any, *args: Any) -> float:
    began = time.process_time()
    do(*args)
    return time.process_time() - began


def run(chosen: argparse.Namespace) -> dict[str, Any]:
    """Return the figures by name."""
    return measure(chosen.connections)
