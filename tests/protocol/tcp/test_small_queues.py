"""A sender that outruns its device waits for it instead of overflowing the qdisc (TSQ)."""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import Any

import pytest

from kit.host import PLAIN_NIC, Host, Impairment, host, two_hosts
from kit.transfer import Transfer, connected
from ustack.config import NicConfig, TcpConfig, UstackConfig
from ustack.core.flow import flow_hash, reciprocal_scale
from ustack.core.steering import netif_set_xps_queue
from ustack.lib.drop_reason import DropReason

SMALL = NicConfig(tx_ring=64, rx_ring=4096, tso=False, large_receive=False)


@pytest.mark.linux("tcp_small_queue_check")
def test_a_large_window_over_a_small_ring_drops_nothing():
    a, b = two_hosts(nic=SMALL, impair=Impairment(delay_us=10_000))
    near, far = connected(a, b)
    growing = Transfer(near, far, 16 << 20, finish=False)
    a.world.moving.append(growing)
    assert a.world.run_until(lambda: growing.received == growing.total)
    burst = Transfer(near, far, 4 << 20, chunk=4 << 20)
    a.world.moving[a.world.moving.index(growing)] = burst
    assert a.world.run_until(lambda: burst.finished)
    assert burst.equal
    assert a.adapter.ethtool_stats()["tx_queue_0_restart"] > 0  # the ring was full at times
    assert a.stack.net.drops[DropReason.QDISC_DROP] == 0
    assert a.mib.RetransSegs == 0
    assert not a.stack.tcp.tsq


def two_flows_on_two_queues() -> tuple[Host, Any, Any, int]:
    """A host with four queues, two connections that use different ones, and the first's queue."""
    h = host(nic=replace(PLAIN_NIC, queues=4))
    lsk = h.listen()
    socks: dict[int, Any] = {}
    while len(socks) < 2:
        peer = h.peer()
        peer.handshake()
        queue = reciprocal_scale(flow_hash(6, h.addr, 80, peer.addr, peer.port), 4)
        socks.setdefault(queue, lsk.accept())
    (queue, busy), (_, free) = socks.items()
    return h, busy, free, queue


def sent_segments(h: Host, sk: Any) -> int:
    """Write a little, and say how many segments have left TCP at once."""
    before = h.mib.OutSegs
    sk.send(b"abc")
    return h.mib.OutSegs - before


@pytest.mark.linux("tcp_small_queue_check")
def test_a_stopped_queue_holds_back_its_own_flows():
    h, busy, _, queue = two_flows_on_two_queues()
    h.adapter.q_vectors[queue].tx.ring.stopped = 1
    assert sent_segments(h, busy) == 0
    assert list(h.stack.tcp.tsq) == [busy._sk]
    h.adapter.q_vectors[queue].tx.ring.stopped = 0
    before = h.mib.OutSegs
    h.settle()
    assert (h.mib.OutSegs - before, len(h.stack.tcp.tsq)) == (1, 0)


@pytest.mark.linux("tcp_small_queue_check")
def test_a_stopped_queue_does_not_hold_back_the_flows_of_others():
    h, _, free, queue = two_flows_on_two_queues()
    h.adapter.q_vectors[queue].tx.ring.stopped = 1
    assert sent_segments(h, free) == 1
    assert not h.stack.tcp.tsq


@pytest.mark.linux("tcp_should_autocork")
def test_autocorking_asks_for_the_flows_own_queue():
    h, busy, free, queue = two_flows_on_two_queues()
    for sk in (busy, free):
        sk.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sk.send(b"in flight")
    h.adapter.q_vectors[queue].tx.ring.stopped = 1
    assert (sent_segments(h, free), h.mib.TCPAutoCorking) == (1, 0)
    assert (sent_segments(h, busy), h.mib.TCPAutoCorking) == (0, 1)


@pytest.mark.linux("netdev_pick_tx")
def test_xps_decides_which_queue_a_flow_waits_for():
    h, busy, free, queue = two_flows_on_two_queues()
    other = (queue + 1) % 4
    netif_set_xps_queue(h.adapter, other, 0b1)
    h.adapter.q_vectors[queue].tx.ring.stopped = 1
    assert sent_segments(h, busy) == 1
    h.adapter.q_vectors[other].tx.ring.stopped = 1
    assert sent_segments(h, free) == 0


# What the device has not taken yet, with a wire that takes nothing for a while.

BOTH_WAYS = pytest.mark.parametrize("fastpath", [True, False], ids=["C", "Python"])


class Wait:
    """A connection that has sent much, and a wire that can be told to take nothing."""

    def __init__(self, fastpath: bool, **tcp: Any) -> None:
        ustack = UstackConfig(tcp_fastpath=fastpath)
        self.host = host(ustack=ustack, tcp=TcpConfig(**tcp))
        self.sk, self.peer = self.host.established("mss 1000")
        self.sk.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.wire = self.host.adapter.wire
        self._take = self.wire.send_frame

    def take_nothing(self) -> None:
        self.wire.send_frame = lambda unit: False

    def take_all(self) -> None:
        self.wire.send_frame = self._take
        self.host.settle()

    def sent(self, size: int, times: int = 1) -> int:
        """Write ``times`` pieces of ``size`` bytes; return how many bytes have left TCP."""
        before = self.sk._sk.tp.snd_nxt
        for _ in range(times):
            self.sk.send(bytes(size))
        return int(self.sk._sk.tp.snd_nxt - before)

    def rate(self, bytes_per_s: int) -> None:
        self.sk._sk.tp.sk_pacing_rate = bytes_per_s


FRAME = 14 + 20 + 20 + 1000


@BOTH_WAYS
@pytest.mark.linux("tcp_small_queue_check")
def test_twice_the_next_packet_may_wait_for_the_device_whatever_the_rate(fastpath):
    w = Wait(fastpath)
    w.rate(1)
    w.take_nothing()
    assert w.sent(1000, times=3) == 2000  # 2108 bytes of frames: more than twice the payload
    assert w.sent(1000) == 2000  # which has become a packet of two segments
    assert w.sent(1000) == 0
    assert list(w.host.stack.tcp.tsq) == [w.sk._sk]


@BOTH_WAYS
@pytest.mark.linux("tcp_small_queue_check")
def test_a_millisecond_of_the_pacing_rate_may_wait_for_the_device(fastpath):
    w = Wait(fastpath)
    w.rate(5 * FRAME << 10)
    w.take_nothing()
    assert w.sent(1000, times=9) == 6000  # five frames are not more than the limit


@BOTH_WAYS
@pytest.mark.linux("net.ipv4.tcp_limit_output_bytes")
def test_tcp_limit_output_bytes_caps_that_and_may_change_at_any_time(fastpath):
    w = Wait(fastpath, tcp_limit_output_bytes=3 * FRAME)
    w.rate(1 << 40)
    w.take_nothing()
    assert w.sent(1000, times=7) == 4000
    w.host.stack.set_config(
        replace(w.host.stack.config, tcp=TcpConfig(tcp_limit_output_bytes=6 * FRAME))
    )
    assert w.sent(1000) == 4000  # one packet: there is no limit before it, only after
    assert w.sent(1000) == 0


@BOTH_WAYS
@pytest.mark.linux("net.ipv4.tcp_limit_output_bytes")
def test_a_negative_limit_is_none(fastpath):
    w = Wait(fastpath, tcp_limit_output_bytes=-1)
    w.rate(0)
    w.take_nothing()
    assert w.sent(1000, times=10) == 10_000


@BOTH_WAYS
@pytest.mark.linux("tcp_rtx_queue_empty_or_single_skb")
def test_the_second_packet_in_flight_waits_for_no_device(fastpath):
    w = Wait(fastpath, tcp_limit_output_bytes=0)
    w.take_nothing()
    assert w.sent(1000, times=4) == 2000


@BOTH_WAYS
@pytest.mark.linux("tcp_tsq_handler")
def test_a_throttled_socket_goes_on_once_the_device_has_sent(fastpath):
    w = Wait(fastpath, tcp_limit_output_bytes=0)
    w.take_nothing()
    w.sent(1000, times=4)
    w.host.settle()
    assert list(w.host.stack.tcp.tsq) == [w.sk._sk]
    w.take_all()
    assert [len(s.payload) for s in w.peer.drain()] == [1000] * 4
    assert not w.host.stack.tcp.tsq


@BOTH_WAYS
@pytest.mark.linux("tcp_small_queue_check")
def test_what_others_have_waiting_does_not_count(fastpath):
    w = Wait(fastpath, tcp_limit_output_bytes=3 * FRAME)
    lsk = w.host.listen(81)
    w.host.peer(to=81).handshake("mss 1000")
    other = lsk.accept()
    w.take_nothing()
    other.send(bytes(9000))
    assert w.host.mib.TCPOrigDataSent >= 9
    assert w.sent(1000, times=9) == 4000


@BOTH_WAYS
@pytest.mark.linux("tcp_small_queue_check")
def test_nothing_waits_for_a_device_that_takes_all(fastpath):
    w = Wait(fastpath, tcp_limit_output_bytes=0)
    assert w.sent(1000, times=10) == 10_000
    assert not w.host.stack.tcp.tsq
