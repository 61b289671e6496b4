"""With the shortcut between local sockets applications see what they see without it."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.host import host
from kit.segment import pattern
from kit.tcp_invariants import leftovers

TIMES = 30 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 1
MOST_UNREAD = 40_000
"""Less than any window or buffer: beyond that the two may differ in how much they take."""
pytestmark = pytest.mark.timeout(900)

ends = st.integers(0, 1)
ops = st.one_of(
    st.tuples(st.just("send"), ends, st.integers(1, 9000)),
    st.tuples(st.just("recv"), ends, st.integers(1, 20_000)),
    st.tuples(st.just("recv"), ends, st.just(MOST_UNREAD)),
    st.tuples(st.just("shutdown"), ends, st.sampled_from([0, 1, 2])),
    st.tuples(st.just("close"), ends, st.just(0)),
    st.tuples(st.just("wait"), ends, st.sampled_from([1000, 50_000, 300_000])),
    st.tuples(st.just("switch"), ends, ends),
)


class Run:
    """Two connected sockets and what calls on them have said."""

    def __init__(self, shortcut: bool) -> None:
        self.shortcut = shortcut
        self.host = host()
        lsk = self.host.listen(80)
        near = self.host.connect(self.host.addr, 80)
        self.socks = [near, lsk.accept()]
        for sk in self.socks:
            sk.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.host.advance_us(1_000_000)
        self.host.stack.redirect_sockmap(shortcut)
        self.unread = [0, 0]
        self.sent = 0
        self.closed = [False, False]

    def do(self, op: str, end: int, number: int) -> Any:
        """Make a call, let everything settle, and return what the call said."""
        if op == "switch":
            self.host.stack.redirect_sockmap(self.shortcut and bool(number))
            return None
        if op == "wait":
            self.host.advance_us(number)
            return None
        if self.closed[end] or (op == "send" and self.unread[1 - end] + number > MOST_UNREAD):
            return None
        try:
            return self._call(op, end, number)
        except OSError as error:
            return error.errno
        finally:
            self.host.settle()

    def _call(self, op: str, end: int, number: int) -> Any:
        sk = self.socks[end]
        if op == "send":
            taken = sk.send(pattern(self.sent, number))
            self.sent += taken
            self.unread[1 - end] += taken
            return taken
        if op == "recv":
            got = sk.recv(number)
            self.unread[end] -= len(got)
            return got
        if op == "close":
            self.closed[end] = True
            return sk.close()
        return sk.shutdown(number)

    def end(self) -> dict[str, Any]:
        """Close what is open; return what is left of the connection after all timers."""
        for end in (0, 1):
            self.do("close", end, 0)
        self.host.advance_us(200_000_000)
        return leftovers(self.host.stack)


@settings(max_examples=60 * TIMES)
@given(st.lists(ops, min_size=1, max_size=40))
def test_every_call_says_the_same(script):
    runs = [Run(False), Run(True)]
    for step in script:
        without, with_it = [run.do(*step) for run in runs]
        assert with_it == without, step
    assert runs[1].end() == runs[0].end()
