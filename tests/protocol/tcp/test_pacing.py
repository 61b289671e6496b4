"""SO_MAX_PACING_RATE: no faster than a rate (tcp_pacing_check, tcp_update_skb_after_send)."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from kit.host import Host
from kit.peer import Peer
from kit.segment import pattern

SOL_SOCKET, SO_MAX_PACING_RATE = 1, 47
MS = 1000
RATE = 100_000
"""Bytes per second: a segment of 1000 bytes takes 10 ms."""


@pytest.fixture
def paced(server: Host) -> tuple[Any, Peer]:
    """A socket whose first ten segments, which are not paced, are out and acknowledged."""
    server.adapter.set_offload(tso=False, gso=False)  # one segment at a time
    sk, peer = server.established("mss 1000,nop,wscale 7")
    sk.setsockopt(SOL_SOCKET, SO_MAX_PACING_RATE, RATE)
    sk.send(pattern(0, 10_000))
    assert len(peer.drain()) == 10
    server.advance_us(100 * MS)
    peer.send(". 1:1(0) ack 10001")
    return sk, peer


def gaps_ms(peer: Peer) -> list[float]:
    """Return the time between the segments that have come."""
    times = [seg.time_us for seg in peer.drain()]
    return [(b - a) / MS for a, b in itertools.pairwise(times)]


@pytest.mark.linux("tcp_update_skb_after_send: data_segs_out >= 10")
def test_the_tenth_segment_is_the_first_that_another_waits_for(server):
    server.adapter.set_offload(tso=False, gso=False)
    sk, peer = server.established("mss 1000,nop,wscale 7")
    sk.setsockopt(SOL_SOCKET, SO_MAX_PACING_RATE, RATE)
    sk._sk.tp.snd_cwnd = 20
    sk.send(pattern(0, 12_000))
    server.advance_us(50 * MS)
    assert gaps_ms(peer) == [0] * 9 + [10, 10]


def test_the_first_ten_segments_leave_at_once_and_those_behind_them_at_the_rate(server, paced):
    sk, peer = paced
    sk.send(pattern(10_000, 5_000))
    server.advance_us(60 * MS)
    assert gaps_ms(peer) == [5, 10, 10, 10]


def test_a_pause_is_credit_for_half_a_segment_at_most(server, paced):
    sk, peer = paced
    sk.send(pattern(10_000, 1_000))
    server.advance_us(12 * MS)  # 2 ms later than the rate would have it
    sk.send(pattern(11_000, 3_000))
    server.advance_us(50 * MS)
    assert gaps_ms(peer) == [12, 5, 10]
    peer.send(". 1:1(0) ack 14001")
    sk.send(pattern(14_000, 1_000))
    server.advance_us(6 * MS)  # 5 ms are used up
    sk.send(pattern(15_000, 3_000))
    server.advance_us(50 * MS)
    assert gaps_ms(peer) == [6, 9, 10]


@pytest.mark.linux("sk_setsockopt: sk_pacing_rate = min(sk_pacing_rate, sk_max_pacing_rate)")
def test_a_lower_rate_holds_at_once_a_higher_one_from_the_next_ack_on(server, paced):
    sk, peer = paced
    sk.setsockopt(SOL_SOCKET, SO_MAX_PACING_RATE, RATE // 2)
    sk.send(pattern(10_000, 5_000))
    server.advance_us(1 * MS)
    sk.setsockopt(SOL_SOCKET, SO_MAX_PACING_RATE, 2 * RATE)
    server.advance_us(30 * MS)
    peer.send(". 1:1(0) ack 12001")
    server.advance_us(60 * MS)
    assert gaps_ms(peer) == [10, 20, 20, 5]


@pytest.mark.linux("tcp_reset_xmit_timer: pace_delay")
def test_the_timeout_counts_from_when_the_next_segment_may_go(server, paced):
    sk, peer = paced
    sk.setsockopt(SOL_SOCKET, SO_MAX_PACING_RATE, 2_000)
    rto_ms = sk._sk.tp.rto_us / MS
    sk.send(pattern(10_000, 1_000))
    peer.drain()
    server.advance_us(int(rto_ms + 400) * MS)  # half a second less the pause before it
    peer.expect_nothing()
    server.advance_us(20 * MS)
    peer.expect("P. 10001:11001(1000) ack 1")


@pytest.mark.linux("tcp_check_probe_timer: pace_delay")
def test_what_waits_for_its_turn_is_no_closed_window(server, paced):
    sk, peer = paced
    sk.setsockopt(SOL_SOCKET, SO_MAX_PACING_RATE, 500)
    sk.send(pattern(10_000, 1_000))
    peer.drain()
    peer.send(". 1:1(0) ack 11001")
    sk.send(pattern(11_000, 1_000))
    server.advance_us(1_890 * MS)
    peer.expect_nothing()
    server.advance_us(20 * MS)
    peer.expect("P. 11001:12001(1000) ack 1")
    assert server.mib.TCPWinProbe == 0


def test_a_connection_that_ends_takes_its_timer_along(server, paced):
    sk, peer = paced
    sk.send(pattern(10_000, 5_000))
    peer.drain()
    peer.send("R. 1:1(0) ack 11001")
    server.advance_us(100 * MS)
    peer.expect_nothing()


@pytest.mark.linux("sk_pacing_status: SK_PACING_NEEDED")
def test_without_it_nothing_is_paced(server):
    sk, peer = server.established("mss 1000,nop,wscale 7")
    sk._sk.tp.snd_cwnd = 100
    sk.send(pattern(0, 30_000))
    assert gaps_ms(peer) == [0] * 29
