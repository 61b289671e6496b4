"""An arena that is full of data to be sent, and one that is too small for what goes on in it.

Whatever is full, ACKs make room in it, text is taken, writers are woken, and in the end every
page is back where it was.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from kit.host import PLAIN_NIC, TEST_CONFIG, Host, Impairment, host, two_hosts
from kit.peer import Peer
from kit.segment import MASK, pattern
from kit.tcp_invariants import check_stack
from kit.transfer import Transfer
from ustack.config import CoreConfig, StackConfig, TcpConfig, UstackConfig
from ustack.sock.wait import EPOLLOUT
from ustack.stack import Stack

MEGABYTE = 1 << 20
NO_LIMIT = (1 << 20, 1 << 20, 1 << 20)
WIDE = "mss 1460,sackOK,nop,wscale 7"
TINY = replace(
    TEST_CONFIG,
    nic=replace(PLAIN_NIC, rx_ring=64, tx_ring=64),
    core=CoreConfig(arena_bytes=MEGABYTE),
    tcp=TcpConfig(tcp_mem=NO_LIMIT),
)
"""256 pages, 32 of them kept back; the rings have some hundred. tcp_mem does not help."""


def full_of_data() -> tuple[Host, list[tuple[Any, Peer]]]:
    """A host whose arena has been filled by writers; their peers have open windows."""
    h = host(TINY)
    lsk = h.listen()
    pairs = []
    for _ in range(15):
        peer = h.peer()
        peer.handshake(WIDE)
        pairs.append((lsk.accept(), peer))
    for sk, _ in pairs:
        write_all(sk)
    mem = h.stack.net.mem
    assert mem.free_pages <= mem.min_free
    return h, pairs


def write_all(sk: Any) -> int:
    taken = 0
    try:
        while True:
            taken += sk.send(bytes(20_000))
    except BlockingIOError:
        return taken


def acknowledge(peer: Peer) -> None:
    """Have the peer acknowledge all that it has heard since it was last asked."""
    assert peer.host_iss is not None
    ends = [seg.seq + len(seg.payload) - peer.host_iss & MASK for seg in peer.drain()]
    if ends:
        peer.send(f". 1:1(0) ack {max(ends)}")


def test_every_writer_has_got_something_and_something_is_left():
    h, pairs = full_of_data()
    assert min(sk._sk.tp.write_queue.len for sk, _ in pairs) >= 2048
    mem = h.stack.net.mem
    assert 0 < mem.min_free // 2 <= mem.free_pages


def test_acknowledgments_make_room_and_wake_the_writer():
    h, pairs = full_of_data()
    free = h.stack.net.mem.free_pages
    sk, peer = max(pairs, key=lambda pair: pair[0]._sk.tp.write_queue.len)
    before = sk._sk.tp.bytes_acked
    for _ in range(6):
        acknowledge(peer)
    assert sk._sk.tp.bytes_acked > before
    assert h.stack.net.mem.free_pages > free
    h.advance_us(300_000)
    assert sk.poll() & EPOLLOUT


def test_text_is_taken_by_whoever_has_none():
    _, pairs = full_of_data()
    for sk, peer in pairs[:5]:
        peer.drain()
        peer.send("P. 1:1001(1000) ack 1")
        assert peer.drain()[-1].ack == peer.iss + 1001 & MASK
        assert sk.recv(2000) == pattern(0, 1000)


def test_connections_still_come_and_go():
    h, pairs = full_of_data()
    for _ in range(8):
        peer = h.peer()
        peer.handshake(WIDE)
        peer.send("R. 1:1(0) ack 1")
    assert h.mib.ListenDrops == 0
    for sk, peer in pairs:
        sk.close()
        peer.send("R. 1:1(0) ack 1")
    h.settle()
    assert h.stack.tcp.pressure.allocated == 0


@pytest.mark.parametrize("fastpath", [False, True])
@pytest.mark.parametrize("limits", [NO_LIMIT, (30, 40, 60)])
def test_nothing_hangs_and_nothing_is_lost_in_an_arena_that_is_too_small(
    limits: tuple[int, int, int], fastpath: bool
) -> None:
    assert play(limits, fastpath, 1) > 0


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100))
def test_nor_with_other_seeds_and_limits(seed: int) -> None:
    rng = random.Random(seed)
    pages = rng.randrange(1, 200)
    limits = rng.choice([NO_LIMIT, (pages, pages, pages), (pages // 2, pages, 2 * pages)])
    play(limits, rng.random() < 0.5, seed)


def play(limits: tuple[int, int, int], fastpath: bool, seed: int) -> int:
    """Return how often there was memory pressure."""
    tcp = replace(TINY.tcp, tcp_mem=limits)
    config = replace(TINY, tcp=tcp, ustack=UstackConfig(tcp_fastpath=fastpath))
    transfers, pressures = exchange(config, random.Random(seed))
    assert [one for one in transfers if not one.equal] == []
    return pressures


def exchange(config: StackConfig, rng: random.Random) -> tuple[list[Transfer], int]:
    """Six connections both ways over a bad wire, at any pace; all memory is back at the end."""
    wire = Impairment(loss=0.01, reorder=0.01, delay_us=3000)
    a, b = two_hosts(config, impair=wire, seed=rng.randrange(1000))
    first = [one.stack.net.mem.buddyinfo() for one in (a, b)]
    lsk = b.listen()
    ends = []
    for _ in range(6):
        near = a.connect(b.addr)
        assert a.world.run_until(lambda: bool(lsk.poll() & 1))
        ends.append((near, lsk.accept()))
    hoards = [hoard(one.stack, 30) for one in (a, b)]
    transfers = [
        Transfer(*way, rng.randrange(1, 60_000), seed=rng.randrange(99), chunk=rng.choice(SIZES),
                 read=rng.choice(SIZES))
        for near, far in ends for way in ((near, far), (far, near))
    ]  # fmt: skip
    a.world.moving += transfers
    edges: tuple[dict[int, int], ...] = ({}, {})
    for _ in range(1000):
        over = a.world.run_until(lambda: all(t.finished for t in transfers), limit_us=2_000_000)
        for one, known in zip((a, b), edges, strict=True):
            check_stack(one.stack, known)
        if over:
            break
    for one, pages in zip((a, b), hoards, strict=True):
        for page in pages:
            one.stack.net.mem.put_page(page)
    for near, far in ends:
        near.close()
        far.close()
    lsk.close()
    a.advance_us(200_000_000)
    for one, free_blocks in zip((a, b), first, strict=True):
        assert one.stack.tcp.pressure.allocated == 0
        one.stack.drop_slab()
        assert one.stack.net.mem.buddyinfo() == free_blocks
    return transfers, a.mib.TCPMemoryPressures + b.mib.TCPMemoryPressures


def hoard(stack: Stack, left: int) -> list[int]:
    """Take all pages but those that are kept back and ``left`` more."""
    mem = stack.net.mem
    return [mem.alloc_pages(0) for _ in range(mem.free_pages - mem.min_free - left)]


SIZES = (100, 1000, 5_000, 65_536)
