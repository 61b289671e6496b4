"""A sender that outruns its device waits for it instead of overflowing the qdisc (TSQ)."""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import Any

import pytest

from kit.host import PLAIN_NIC, Host, Impairment, host, two_hosts
from kit.transfer import Transfer, connected
from ustack.config import NicConfig
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
