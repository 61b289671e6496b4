"""Every way to end a connection looks the same whether C ends it or Python does.

As ``test_fastpath.py``: two stacks on one wire, played twice, and what is on the wire and in
the counters compared, and all that mini-sockets and metrics say. Some connections each time,
one after the other, so that what one has taught (metrics, ports, TIME_WAIT) shows in the next.
"""

from __future__ import annotations

from socket import IP_TOS, IPPROTO_IP
from typing import Any

import pytest

from kit.c_fields import fields
from kit.host import Host, Impairment, two_hosts
from kit.tcp_invariants import check_stack, leftovers
from kit.transfer import connected
from kit.wire_trace import Trace, assert_same_frames
from sim.test_fastpath import BAD, DELAY, HOUR_US, NICS
from ustack.config import NicConfig, UstackConfig

ROUNDS = 6
MSL2_US = 61_000_000
SHUT_WR = 1


class End:
    """One end: what it sends, and when it says that this was all."""

    def __init__(self, sock: Any, text: int, when: str, how: str = "close") -> None:
        self.sock = sock
        self.left = bytes(text)
        self.when = when
        """``sent``: all is; ``acked``: nothing is in flight; ``eof``: the other end has ended."""
        self.how = how
        self.eof = False
        self.shut = False

    @property
    def closed(self) -> bool:
        return bool(self.sock.closed)

    def pump(self) -> bool:
        return not self.closed and (self._read() | self._write() | self._end())

    def _read(self) -> bool:
        moved = False
        while not self.eof:
            try:
                got = self.sock.recv(65536)
            except BlockingIOError:
                break
            moved = True
            self.eof = not got
        return moved

    def _write(self) -> bool:
        if not self.left or (self.when == "eof" and not self.eof):
            return False
        try:
            self.left = self.left[self.sock.send(self.left) :]
        except BlockingIOError:
            return False
        return True

    def _end(self) -> bool:
        if self.left or (self.when == "eof" and not self.eof):
            return False
        if self.when == "acked" and not self.sock.send_queue_empty():
            return False
        if self.how == "close" or self.eof:
            self.sock.close()
            return True
        if not self.shut:
            self.sock.shutdown(SHUT_WR)
            self.shut = True
            return True
        return False


class Silent(End):
    """It ends some seconds after it was last heard: cwnd has shrunk meanwhile."""

    def __init__(self, *how: Any) -> None:
        super().__init__(*how)
        self.until_us = 0

    def _end(self) -> bool:
        now_us = self.sock._prot.clock.now_us
        self.until_us = self.until_us or now_us + 2_000_000
        return now_us >= self.until_us and super()._end()


class Farewell:
    """Both ends of one connection."""

    def __init__(self, *ends: End) -> None:
        self.ends = ends

    @property
    def finished(self) -> bool:
        return all(end.closed for end in self.ends)

    def next_deadline_us(self) -> int | None:
        waits = [end.until_us for end in self.ends if isinstance(end, Silent) and not end.closed]
        return min(waits, default=0) or None

    def pump(self, now_us: int) -> bool:
        del now_us
        return any([end.pump() for end in self.ends])


ORDERS = {
    "at once": (End, (0, "sent"), (0, "eof")),
    "behind a message": (End, (64, "sent"), (0, "eof")),
    "after a message": (End, (64, "acked"), (0, "eof")),
    "an answer and the end": (End, (64, "sent", "shutdown"), (64, "eof")),
    "a long answer": (End, (3000, "sent", "shutdown"), (200_000, "eof")),
    "much and the end": (End, (300_000, "sent"), (0, "eof")),
    "both at once": (End, (0, "sent"), (0, "sent")),
    "after a long silence": (Silent, (64, "acked"), (0, "eof")),
    "both behind messages": (End, (100, "sent", "shutdown"), (100, "sent", "shutdown")),
    "an answer that nobody reads": (End, (64, "sent"), (64, "eof")),
}


def remains(host: Host) -> list[dict[str, Any]]:
    """What mini-sockets say of the connections that they stand for, and what they have taught."""
    tcp = host.stack.tcp
    waiting = [fields(tw.tw) for tw in tcp.twhash.values()]
    taught = [fields(block.c) for block in tcp.metrics.blocks.values()]
    return waiting + [block for block in taught if block["rtt"] or block["cwnd"]]


def play(
    fastpath: bool, order: str, impair: Impairment, nic: NicConfig, seed: int
) -> tuple[Trace, Any]:
    hosts = two_hosts(seed=seed, impair=impair, nic=nic, ustack=UstackConfig(tcp_fastpath=fastpath))
    trace = Trace(hosts)
    world = hosts[0].world
    make, near, far = ORDERS[order]
    states = []
    edges: list[dict[int, int]] = [{}, {}]
    for turn in range(ROUNDS):
        first, second = connected(*hosts, port=80 + turn)
        if turn % 2:
            first, second = second, first
        for sock in (first, second):
            sock.setsockopt(IPPROTO_IP, IP_TOS, 4 * turn)
        farewell = Farewell(make(first, *near), make(second, *far))
        world.moving.append(farewell)
        assert world.run_until(lambda farewell=farewell: farewell.finished, limit_us=HOUR_US)
        world.moving.remove(farewell)
        world.run_until(lambda: False, limit_us=5_000)
        for host, edge in zip(hosts, edges, strict=True):
            states.append(sorted(r["state"] + str(r["timer"]) for r in host.stack.tcp.diag()))
            states.append(remains(host))
            if turn == ROUNDS - 1:
                check_stack(host.stack, edge)
    world.run_until(lambda: False, limit_us=MSL2_US)
    for host in hosts:
        left = leftovers(host.stack)
        listeners = left.pop("listeners", [])
        assert len(left.pop("ports", [])) == left.pop("TCP", 0) == len(listeners)
        assert not left
    return trace, states


@pytest.mark.parametrize("nic", NICS)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("impair", "seed"), [(DELAY, 1), (BAD, 3)])
def test_the_wire_does_not_tell_who_has_ended_a_connection(impair, seed, order, nic):
    slow, slow_states = play(False, order, impair, NICS[nic], seed)
    fast, fast_states = play(True, order, impair, NICS[nic], seed)
    assert slow.fast == 0
    assert slow_states == fast_states
    assert_same_frames(slow, fast)
    assert slow.counters == fast.counters
