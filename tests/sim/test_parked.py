"""Connections look the same on the wire whether their Python objects have gone meanwhile or not.

As ``test_fastpath.py``: two stacks on one wire, played more than once, what is on the wire and
in the counters compared. The ends talk, idle until nothing but C knows of them, and talk again.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from kit.host import two_hosts
from kit.transfer import connected
from kit.wire_trace import Trace, assert_same_frames
from sim.test_fastpath import BAD, DELAY, HOUR_US, NICS
from ustack.config import UstackConfig

MESSAGES = 16
PAUSES_US = (0, 10_000, 100_000, 2_000_000)
"""Between the last byte of a message and the next; after the last one of these both ends idle."""
BUFFER = bytearray(65536)


class End:
    """One end, which looks at its socket only when it is told to."""

    def __init__(self, sock: Any) -> None:
        self.sock = sock
        self.is_told = False
        self.left = b""
        """What it has still to send."""
        self.heard = 0
        sock.set_upcall(self._tell)

    def _tell(self, sock: Any, _events: int) -> None:
        assert sock.handle == self.sock.handle
        self.is_told = True

    def look(self) -> bool:
        """Read and write what goes, if it was told; close with the other end."""
        if not self.is_told or self.sock.closed:
            return False
        self.is_told = False
        try:
            while text := self.sock.recv_into(BUFFER):
                self.heard += text
            self.sock.close()
        except BlockingIOError:
            self.write()
        return True

    def write(self) -> None:
        """Send what the send buffer takes."""
        while self.left:
            try:
                self.left = self.left[self.sock.send(self.left) :]
            except BlockingIOError:
                break


class Talk:
    """Two ends that answer each other, until one has said all."""

    def __init__(self, near: Any, far: Any, seed: int) -> None:
        self.rng = random.Random(seed)
        self.ends = [End(near), End(far)]
        self.said = 0
        self.size = 0
        self.next_us: int | None = 1

    @property
    def finished(self) -> bool:
        return all(end.sock.closed for end in self.ends)

    def next_deadline_us(self) -> int | None:
        return self.next_us

    def pump(self, now_us: int) -> bool:
        moved = [end.look() for end in self.ends]
        if self.next_us is not None and now_us >= self.next_us:
            self.next_us = None
            self._say()
            return True
        listener = self.ends[self.said % 2]
        if self.size and listener.heard == self.size:
            listener.heard = self.size = 0
            self.next_us = now_us + self.rng.choice(PAUSES_US)
        return any(moved)

    def _say(self) -> None:
        speaker = self.ends[self.said % 2]
        if self.said == MESSAGES:
            speaker.sock.close()
            return
        self.said += 1
        self.size = self.rng.choice((1, 64, 1448, 4000, 120_000))
        speaker.left = bytes(self.size)
        speaker.write()


def play(fastpath: bool, live_socks: int, impair: Any, seed: int, nic: Any) -> tuple[Trace, int]:
    """Return what was seen, and how often nothing but C knew of the first end."""
    ustack = UstackConfig(tcp_fastpath=fastpath, tcp_live_socks=live_socks)
    hosts = two_hosts(seed=seed, impair=impair, nic=nic, ustack=ustack)
    trace = Trace(hosts)
    talk = Talk(*connected(*hosts), seed)
    world = hosts[0].world
    world.moving.append(talk)
    without = 0

    def done() -> bool:
        nonlocal without
        without += not talk.ends[0].sock.closed and not hosts[0].stack.tcp.socks
        return talk.finished

    assert world.run_until(done, limit_us=HOUR_US)
    world.run_until(lambda: False, limit_us=1_000_000)
    return trace, without


@pytest.mark.parametrize("nic", NICS)
@pytest.mark.parametrize(("impair", "seed"), [(DELAY, 1), (DELAY, 2), (BAD, 3)])
def test_the_wire_does_not_tell_whether_there_were_objects(impair, seed, nic):
    slow, _ = play(False, 1024, impair, seed, NICS[nic])
    for fastpath, live_socks in ((True, 1024), (True, 0), (False, 0)):
        other, without = play(fastpath, live_socks, impair, seed, NICS[nic])
        assert bool(without) == (live_socks == 0)
        assert bool(other.fast) == fastpath
        assert_same_frames(slow, other)
        assert slow.counters == other.counters
