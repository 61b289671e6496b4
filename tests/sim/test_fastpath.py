"""With the fast path in C and without it the same frames leave at the same time.

Two stacks on one wire play the same traffic twice; what each puts on the wire, and what its
counters say afterwards, must not tell which way the segments took inside
(net.ustack.tcp_fastpath). Nor must the control blocks: whenever both runs come to rest at the
same time, every field has the same value.
"""

from __future__ import annotations

import random
import select
import socket
from typing import Any

import pytest

from kit.c_fields import control_block
from kit.host import Impairment, two_hosts
from kit.transfer import Transfer, connected
from kit.wire_trace import Trace, assert_same_frames
from ustack.config import NicConfig, UstackConfig
from ustack.tcp.joins import Joins

HOUR_US = 3_600_000_000
DELAY = Impairment(delay_us=700)
BAD = Impairment(loss=0.02, duplicate=0.02, reorder=0.02, delay_us=500, jitter_us=100)


Blocks = dict[int, list[dict[str, Any]]]
"""Both control blocks, by the time."""


class Chat:
    """Two ends that answer each other: messages of seeded sizes, one at a time."""

    def __init__(self, near: Any, far: Any, seed: int, rounds: int) -> None:
        rng = random.Random(seed)
        self.sizes = [rng.choice((1, 64, 500, 1448, 4000, 30_000)) for _ in range(rounds)]
        self.ends = [near, far]
        self.turn = 0
        self.due = 0
        self._say()

    def _say(self) -> None:
        self.due = self.sizes[self.turn]
        assert self.ends[self.turn % 2].send(bytes(self.due)) == self.due

    @property
    def finished(self) -> bool:
        return self.turn == len(self.sizes)

    def next_deadline_us(self) -> int | None:
        return None

    def pump(self, now_us: int) -> bool:
        del now_us
        if self.finished:
            return False
        try:
            self.due -= len(self.ends[1 - self.turn % 2].recv(self.due))
        except BlockingIOError:
            return False
        if not self.due:
            self.turn += 1
            if not self.finished:
                self._say()
        return True


class Joined:
    """An end whose application has a descriptor, as a daemon's clients have."""

    def __init__(self, core: Any) -> None:
        self._core = core
        self._scratch = bytearray(1 << 18)
        self._ours, self._theirs = socket.socketpair()
        self._fd = self._ours.fileno()
        for end in (self._ours, self._theirs):
            end.setblocking(False)

    def send(self, data: bytes) -> int:
        count = self._theirs.send(data)
        moved = self._core.splice_write_now(self._fd, self._scratch)
        if moved is None:
            room = self._core.send_room()
            moved = self._core.splice_write(self._fd, self._scratch, room)
        assert moved == (count, count)
        return count

    def recv(self, n: int) -> bytes:
        if not self._core.splice_read_now(self._fd):
            self._core.splice_read(self._fd)
        return self._theirs.recv(n)

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()


class JoinedInC(Joined):
    """The same, and C moves the bytes by itself whenever it can."""

    def __init__(self, core: Any) -> None:
        super().__init__(core)
        self._epoll = select.epoll()
        self._epoll.register(self._fd, select.EPOLLIN)
        self._joins = Joins(core._prot, self._epoll.fileno())
        self._joins.join(core.handle, self._fd)

    def send(self, data: bytes) -> int:
        count = self._theirs.send(data)
        if self._joins.poll():
            room = self._core.send_room()
            assert self._core.splice_write(self._fd, self._scratch, room) == (count, count)
        return count

    def recv(self, n: int) -> bytes:
        if self._core.rcv_ready(1):
            self._core.splice_read(self._fd)
        return self._theirs.recv(n)

    def close(self) -> None:
        self._joins.close()
        self._epoll.close()
        super().close()


class ClientsChat(Chat):
    """The same through descriptors."""

    def __init__(
        self, near: Any, far: Any, seed: int, rounds: int, joined: type[Joined] = Joined
    ) -> None:
        super().__init__(joined(near), joined(far), seed, rounds)

    def pump(self, now_us: int) -> bool:
        moved = super().pump(now_us)
        if self.finished:
            for end in self.ends:
                end.close()
        return moved


def play(
    fastpath: bool,
    impair: Impairment,
    make: Any,
    seed: int,
    nic: NicConfig,
    *,
    tapped: bool = False,
) -> tuple[Trace, Blocks]:
    hosts = two_hosts(seed=seed, impair=impair, nic=nic, ustack=UstackConfig(tcp_fastpath=fastpath))
    for host in hosts if tapped else ():
        host.stack.dev_add_pack(None, lambda skb, dev, outgoing: None)
    trace = Trace(hosts)
    ends = connected(*hosts)
    moving = make(*ends, seed)
    world = hosts[0].world
    world.moving += moving
    blocks: Blocks = {}

    def finished() -> bool:
        blocks[world.now_us] = [control_block(end._sk.tp) for end in ends]
        return all(m.finished for m in moving)

    assert world.run_until(finished, limit_us=HOUR_US)
    return trace, blocks


def one_way(near: Any, far: Any, seed: int) -> list[Any]:
    return [Transfer(near, far, 1_000_000, seed=seed)]


def both_ways(near: Any, far: Any, seed: int) -> list[Any]:
    return [
        Transfer(near, far, 400_000, seed=seed),
        Transfer(far, near, 400_000, seed=seed + 1),
    ]


def chat(near: Any, far: Any, seed: int) -> list[Any]:
    return [Chat(near, far, seed, 200)]


def clients(near: Any, far: Any, seed: int) -> list[Any]:
    return [ClientsChat(near, far, seed, 60)]


def joined_clients(near: Any, far: Any, seed: int) -> list[Any]:
    return [ClientsChat(near, far, seed, 60, JoinedInC)]


NICS = {"super-frames": NicConfig(), "frames": NicConfig(tso=False, large_receive=False)}


@pytest.mark.parametrize("nic", NICS)
@pytest.mark.parametrize("make", [one_way, both_ways, chat, clients])
@pytest.mark.parametrize(("impair", "seed"), [(DELAY, 1), (DELAY, 2), (BAD, 3), (BAD, 4)])
def test_the_wire_does_not_tell_whether_the_fast_path_was_on(impair, seed, make, nic):
    compare(impair, seed, make, NICS[nic], python_builds_headers=seed % 2 == 0)


@pytest.mark.parametrize("nic", NICS)
@pytest.mark.parametrize("seed", [1, 2])
def test_nor_whether_c_has_moved_the_bytes_of_clients(seed, nic):
    compare(DELAY, seed, joined_clients, NICS[nic])


def compare(
    impair: Impairment, seed: int, make: Any, nic: NicConfig, python_builds_headers: bool = False
) -> None:
    slow, slow_blocks = play(False, impair, make, seed, nic, tapped=python_builds_headers)
    fast, fast_blocks = play(True, impair, make, seed, nic)
    assert slow.fast == 0
    assert fast.fast > 0
    assert_same_frames(slow, fast)
    assert slow.counters == fast.counters
    common = slow_blocks.keys() & fast_blocks.keys()
    assert 10 * len(common) > 9 * len(slow_blocks)
    for time_us in sorted(common):
        assert slow_blocks[time_us] == fast_blocks[time_us], f"at {time_us} us"
