"""Sending by reference: lent buffers come back when the peer has them, pages are queued as read."""

from __future__ import annotations

import errno
import random
import sys
from dataclasses import replace
from typing import Any

import pytest

from kit.host import TEST_CONFIG, Host, Impairment, two_hosts
from kit.segment import pattern
from kit.tcp_invariants import pages_to_spare
from kit.transfer import Transfer, connected
from ustack.config import CoreConfig, NicConfig
from ustack.lib.addresses import INADDR_LOOPBACK
from ustack.native.lib import ffi, lib
from ustack.native.mem import NO_PAGE

SECOND = 1_000_000
MB = 1 << 20


class Lent:
    """A buffer, and how often it has come back."""

    def __init__(self, sk: Any, size: int, start: int = 0) -> None:
        self.data = bytearray(pattern(start, size))
        self.returned = 0
        self.taken, self.copied = sk.send_ref(self.data, self._back)

    def _back(self) -> None:
        self.returned += 1

    @property
    def is_fixed(self) -> bool:
        """Whether the buffer cannot be resized, because somebody holds it."""
        try:
            self.data.append(0)
        except BufferError:
            return True
        self.data.pop()
        return False


def sending(server: Host) -> tuple[Any, Any]:
    return server.established("mss 1000,nop,wscale 7")


def send_page(sk: Any, data: bytes) -> int:
    """Do what sendfile does: fill a page, queue it."""
    mem = sk._sk.prot.net.mem
    addr, size = sk.page_frag(len(data))
    mem.view[addr : addr + size] = data[:size]
    return int(sk.sendpage(addr, size))


def test_a_lent_buffer_comes_back_when_all_of_it_is_acknowledged(server):
    sk, peer = sending(server)
    lent = Lent(sk, 8000)
    assert (lent.taken, lent.copied) == (8000, False)
    peer.expect_data(1, 8001)
    server.advance_us(10_000)  # the NIC has sent it
    assert (lent.returned, lent.is_fixed) == (0, True)
    peer.send(". 1:1(0) ack 7001")
    assert lent.returned == 0
    peer.send(". 1:1(0) ack 8001")
    server.advance_us(10_000)
    assert (lent.returned, lent.is_fixed) == (1, False)


def test_what_is_lost_is_repeated_from_the_buffer(server):
    sk, peer = sending(server)
    lent = Lent(sk, 8000)
    peer.expect_data(1, 8001)
    again = peer.expect(". 1:1001(1000) ack 1", within_us=5 * SECOND)
    assert again.payload == pattern(0, 1000)
    assert lent.returned == 0
    peer.send(". 1:1(0) ack 8001")
    server.advance_us(10_000)
    assert lent.returned == 1


def test_buffers_come_back_in_the_order_in_which_they_were_lent(server):
    sk, peer = sending(server)
    order: list[int] = []
    for i in range(3):
        sk.send_ref(pattern(0, 5000), lambda i=i: order.append(i))
    peer.send(". 1:1(0) ack 5001")
    server.advance_us(10_000)
    assert order == [0]
    peer.drain()
    peer.send(". 1:1(0) ack 10001")
    server.advance_us(10_000)
    assert order == [0, 1]


def test_less_than_a_page_is_copied_and_back_at_once(server):
    sk, peer = sending(server)
    lent = Lent(sk, 4095)
    assert (lent.taken, lent.copied, lent.returned) == (4095, True, 1)
    assert not lent.is_fixed
    lent.data[:] = bytes(4095)
    assert b"".join(s.payload for s in peer.expect_data(1, 4096)) == pattern(0, 4095)


def test_copied_and_referenced_bytes_are_counted(server):
    sk, _ = sending(server)
    prot = server.stack.tcp
    sk.send(pattern(0, 3000))
    assert (prot.copied_bytes, prot.ref_bytes) == (3000, 0)
    Lent(sk, 5000)
    assert (prot.copied_bytes, prot.ref_bytes) == (3000, 5000)
    assert send_page(sk, pattern(0, 6000)) == 6000
    assert (prot.copied_bytes, prot.ref_bytes) == (3000, 11_000)
    Lent(sk, 10)
    assert (prot.copied_bytes, prot.ref_bytes) == (3010, 11_000)


def test_bytes_that_nobody_can_change_are_sent_from_where_they_lie(server):
    sk, peer = sending(server)
    data = pattern(0, 70_000)
    holders = sys.getrefcount(data)
    taken = sk.send(data)
    prot = server.stack.tcp
    assert (prot.copied_bytes, prot.ref_bytes) == (0, taken)
    assert sys.getrefcount(data) > holders
    received = b"".join(segment.payload for segment in peer.expect_data(1, 10_001))
    assert received == data[:10_000]
    acked = 1
    while acked <= taken:
        acked = min(acked + 10_000, taken + 1)
        peer.send(f". 1:1(0) ack {acked}")
        server.advance_us(10_000)
        peer.drain()
    assert sys.getrefcount(data) == holders


def test_a_view_of_them_is_too(server):
    sk, _ = sending(server)
    taken = sk.send(memoryview(pattern(0, 90_000))[20_000:])
    assert (server.stack.tcp.copied_bytes, server.stack.tcp.ref_bytes) == (0, taken)


@pytest.mark.parametrize("kind", [bytearray, lambda data: memoryview(bytearray(data))])
def test_what_can_be_changed_is_copied(server, kind):
    sk, peer = sending(server)
    data = kind(pattern(0, 70_000))
    taken = sk.send(data)
    data[:] = bytes(70_000)
    assert (server.stack.tcp.copied_bytes, server.stack.tcp.ref_bytes) == (taken, 0)
    received = b"".join(segment.payload for segment in peer.expect_data(1, 10_001))
    assert received == pattern(0, 10_000)


def test_bytes_are_copied_when_too_many_buffers_are_lent(server):
    sk, _ = sending(server)
    lent = ffi.from_buffer(b"lent")
    while lib.us_dma_map(server.stack.net.mem.ptr, lent, 4) != NO_PAGE:
        pass
    taken = sk.send(pattern(0, 70_000))
    assert taken
    assert (server.stack.tcp.copied_bytes, server.stack.tcp.ref_bytes) == (taken, 0)


def test_copies_references_and_pages_keep_their_order(server):
    sk, peer = sending(server)
    at = 0
    for kind in ("copy", "ref", "copy", "page", "page", "ref", "copy"):
        size = 5000 if kind == "ref" else 700
        if kind == "copy":
            sk.send(pattern(at, size))
        elif kind == "ref":
            Lent(sk, size, at)
        else:
            send_page(sk, pattern(at, size))
        at += size
    got = b""
    while len(got) < at:
        got += b"".join(s.payload for s in peer.drain())
        peer.send(f". 1:1(0) ack {1 + len(got)}")
        server.advance_us(1000)
    assert got == pattern(0, at)


@pytest.mark.parametrize("end", ["RST", "abort", "timeout"])
def test_a_connection_that_ends_badly_gives_the_buffer_back(server, end):
    sk, peer = sending(server)
    lent = Lent(sk, 8000)
    peer.expect_data(1, 8001)
    if end == "RST":
        peer.send("R 1:1(0)")
    elif end == "abort":
        sk.setsockopt(1, 13, b"\x01\0\0\0\0\0\0\0")  # SO_LINGER 0
        sk.close()
    else:
        server.advance_us(3600 * SECOND)
    server.advance_us(1_000_000)
    assert lent.returned == 1
    assert not server.stack.net.mem.lent


def test_an_orphan_still_sends_from_the_buffer(server):
    sk, peer = sending(server)
    lent = Lent(sk, 8000)
    sk.close()
    segments = peer.expect_data(1, 8001)
    assert b"".join(s.payload for s in segments) == pattern(0, 8000)
    assert lent.returned == 0
    peer.send(". 1:1(0) ack 8002")
    server.advance_us(10_000)
    assert lent.returned == 1


def test_a_full_send_buffer_takes_a_part_and_then_nothing(server):
    sk, _ = sending(server)
    sk.setsockopt(1, 7, 10_000)  # SO_SNDBUF: 20000
    lent = [Lent(sk, 200_000)]
    assert 20_000 <= lent[0].taken < 200_000  # the packet that is begun is filled
    with pytest.raises(BlockingIOError):
        while len(lent) < 4:
            lent.append(Lent(sk, 200_000))
    with pytest.raises(BlockingIOError):
        sk.page_frag(1)
    assert len(server.stack.net.mem.lent) == len(lent)


def test_nothing_is_lent_to_a_stream_that_cannot_send(server):
    sk, _ = sending(server)
    sk.shutdown(1)
    for call in (lambda: Lent(sk, 8000), lambda: sk.page_frag(8000)):
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == errno.EPIPE
    assert not server.stack.net.mem.lent


def test_a_page_for_a_stream_that_was_closed_meanwhile_is_given_back(server):
    sk, _ = sending(server)
    free = server.stack.net.mem.free_pages
    addr, _ = sk.page_frag(100)
    sk.shutdown(1)
    with pytest.raises(OSError) as caught:
        sk.sendpage(addr, 100)
    assert caught.value.errno == errno.EPIPE
    assert server.stack.net.mem.free_pages == free


def test_without_memory_nothing_is_lent(server):
    sk, _ = sending(server)
    server.stack.net.faults.fail_alloc(1, SECOND)
    with pytest.raises(OSError) as caught:
        Lent(sk, 8000)
    assert caught.value.errno == errno.ENOBUFS
    assert not server.stack.net.mem.lent
    server.stack.net.faults.fail_alloc(20, SECOND)
    with pytest.raises(OSError) as caught:
        sk.page_frag(8000)
    assert caught.value.errno == errno.ENOBUFS


def test_many_small_pages_cost_bounded_memory(server):
    sk, peer = sending(server)
    for at in range(0, 4000, 10):
        send_page(sk, pattern(at, 10))
    queue = sk._sk.tp.write_queue
    assert queue.len == 4000
    assert queue.truesize <= 2 * 4000 + 17 * 4096
    got = b""
    while len(got) < 4000:
        server.advance_us(1000)
        got += b"".join(s.payload for s in peer.drain())
        peer.send(f". 1:1(0) ack {1 + len(got)}")
    assert got == pattern(0, 4000)


class Mixed:
    """A socket whose send() copies, lends and queues pages in turn."""

    def __init__(self, sk: Any) -> None:
        self.sk = sk
        self.lent = self.returned = 0
        self._rng = random.Random(1)
        self.shutdown = sk.shutdown

    def send(self, piece: memoryview) -> int:
        kind = self._rng.randrange(3)
        if kind == 0:
            return int(self.sk.send(piece[: self._rng.randrange(1, 9000)]))
        if kind == 1:
            return send_page(self.sk, bytes(piece[: self._rng.randrange(1, 70_000)]))
        self.lent += 1
        try:
            return int(self.sk.send_ref(bytes(piece), self._back)[0])
        except BlockingIOError:
            self.lent -= 1
            raise

    def _back(self) -> None:
        self.returned += 1


@pytest.mark.parametrize("loss", [0.0, 0.05])
@pytest.mark.parametrize("offloads", [True, False])
def test_any_mixture_arrives_over_a_bad_wire_and_every_buffer_comes_back(loss, offloads):
    nic = NicConfig(tx_checksum=offloads, tso=offloads, large_receive=offloads)
    config = replace(TEST_CONFIG, nic=nic, core=CoreConfig(arena_bytes=64 << 20))
    impair = Impairment(loss=loss, reorder=loss, delay_us=500) if loss else None
    a, b = two_hosts(config, impair=impair)
    near, far = connected(a, b)
    free = pages_to_spare(a.stack)
    mixed = Mixed(near)
    there = Transfer(mixed, far, 2 * MB)
    a.world.moving.append(there)
    assert a.world.run_until(lambda: there.finished, limit_us=600 * SECOND)
    assert there.equal
    a.world.advance_us(SECOND)
    assert mixed.lent == mixed.returned > 5
    assert not a.stack.net.mem.lent
    assert pages_to_spare(a.stack) == free


def test_over_lo_a_lent_buffer_is_read_where_it_lies(server):
    lsk = server.listen(81)
    near = server.connect(INADDR_LOOPBACK, 81)
    far = lsk.accept()
    lent = Lent(near, 60_000)
    server.settle()
    got = far.recv(100_000)
    server.advance_us(SECOND)
    assert got == pattern(0, 60_000)
    assert lent.returned == 1


def test_a_tap_sees_the_bytes_of_a_lent_buffer(server):
    from ustack.core.skb import skb_bytes

    sk, _ = sending(server)
    seen = []
    net = server.stack.net
    net.dev_add_pack(None, lambda skb, dev, outgoing: seen.append(skb_bytes(net, skb)))
    Lent(sk, 8000)
    server.settle()
    assert seen[0].endswith(pattern(0, 1000))
