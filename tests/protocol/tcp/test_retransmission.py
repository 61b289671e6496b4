"""Loss: timeouts (RFC 6298), fast retransmit and recovery (RFC 5681, RFC 6582), giving up."""

from __future__ import annotations

import errno
import itertools

import pytest

from kit.host import host
from kit.segment import pattern
from ustack.config import TcpConfig

SECOND = 1_000_000


def sending(server, segments=10, size=1000):
    """Return a socket with ``segments`` full segments in flight, and its peer."""
    sk, peer = server.established(f"mss {size},nop,wscale 7")
    sk.send(pattern(0, segments * size))
    peer.expect_data(1, 1 + segments * size)
    return sk, peer


@pytest.mark.rfc("6298", "5.5")
def test_the_timeout_doubles(server):
    _, peer = sending(server, 1)
    times = [server.world.now_us]
    for _ in range(5):
        times.append(peer.expect("P. 1:1001(1000) ack 1", within_us=60 * SECOND).time_us)
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert 200_000 <= gaps[0] <= 1_000_000
    for shorter, longer in itertools.pairwise(gaps):
        assert longer == pytest.approx(2 * shorter, rel=0.02)
    assert server.mib.RetransSegs == 5


@pytest.mark.rfc("5681", "3.1")
def test_after_a_timeout_slow_start_begins_with_one_segment(server):
    _, peer = sending(server)
    first = peer.expect(". 1:1001(1000) ack 1", within_us=5 * SECOND)
    peer.expect_nothing()
    assert len(first.payload) == 1000
    peer.send(". 1:1(0) ack 1001")
    assert len(peer.drain()) == 2
    assert server.mib.TCPTimeouts == 1


@pytest.mark.rfc("5681", "3.2")
def test_the_third_duplicate_ack_repeats_the_lost_segment(server):
    _, peer = sending(server)
    peer.send(". 1:1(0) ack 1001")
    for _ in range(2):
        peer.send(". 1:1(0) ack 1001")
    peer.expect_nothing()
    peer.send(". 1:1(0) ack 1001")
    peer.expect(". 1001:2001(1000) ack 1")
    peer.expect_nothing()
    assert server.mib.TCPFastRetrans == 1


@pytest.mark.rfc("6582", "3.2")
def test_a_partial_ack_repeats_the_next_hole_at_once(server):
    _, peer = sending(server)
    for _ in range(4):
        peer.send(". 1:1(0) ack 1")
    peer.expect(". 1:1001(1000) ack 1")
    peer.send(". 1:1(0) ack 3001")
    peer.expect(". 3001:4001(1000) ack 1")
    peer.send(". 1:1(0) ack 10001")
    peer.expect_nothing(for_us=10 * SECOND)
    assert server.mib.RetransSegs == 2


def test_an_ack_with_data_or_a_wider_window_is_no_duplicate(server):
    sk, peer = server.established("mss 1000,nop,wscale 7", win=1000)
    sk.send(pattern(0, 10_000))
    peer.expect_data(1, 10_001)
    for i in range(4):
        peer.send(f". 1:1(0) ack 1 win {1001 + i}")
    peer.expect_nothing()
    for i in range(4):
        peer.send(f"P. {1 + 10 * i}:{11 + 10 * i}(10) ack 1 win 1004")
    assert not [s for s in peer.drain() if s.payload]


@pytest.mark.rfc("6298", "3")
def test_a_repeated_segment_gives_no_rtt_sample(server):
    """Karn: an ACK soon after the repetition must not make the timeout short."""
    sk, peer = server.established("mss 1000")
    sk.send(pattern(0, 1000))
    peer.expect("P. 1:1001(1000) ack 1")
    again = peer.expect("P. 1:1001(1000) ack 1", within_us=5 * SECOND)
    server.advance_us(1000)
    peer.send(". 1:1(0) ack 1001")
    sk.send(pattern(1000, 1000))
    first = peer.expect("P. 1001:2001(1000) ack 1")
    second = peer.expect("P. 1001:2001(1000) ack 1", within_us=5 * SECOND)
    assert second.time_us - first.time_us >= 200_000
    assert again.time_us < first.time_us


@pytest.mark.rfc("6298", "2.4")
def test_the_timeout_is_never_below_200_ms(server):
    sk, peer = server.established("mss 1000")
    for i in range(20):
        sk.send(pattern(1000 * i, 1000))
        peer.drain()
        server.advance_us(100)
        peer.send(f". 1:1(0) ack {1001 + 1000 * i}")
    sk.send(pattern(20_000, 1000))
    first = peer.expect("P. 20001:21001(1000) ack 1")
    again = peer.expect("P. 20001:21001(1000) ack 1", within_us=5 * SECOND)
    assert 200_000 <= again.time_us - first.time_us <= 220_000


@pytest.mark.rfc("9293", "MUST-20")
@pytest.mark.linux("net.ipv4.tcp_retries2")
def test_a_silent_peer_is_given_up_after_a_quarter_of_an_hour(server):
    sk, peer = sending(server, 1)
    server.advance_us(800 * SECOND)
    assert sk.getsockopt(1, 4) == 0
    server.advance_us(400 * SECOND)
    assert sk.getsockopt(1, 4) == errno.ETIMEDOUT
    assert 14 <= len(peer.drain()) <= 17


def test_an_ack_stops_the_timer(server):
    _, peer = sending(server)
    peer.send(". 1:1(0) ack 10001")
    peer.expect_nothing(for_us=1000 * SECOND)


@pytest.mark.rfc("5681", "3.2")
def test_fast_recovery_halves_the_window(server):
    sk, peer = sending(server, 10)
    sk.setsockopt(6, 13, b"reno")  # TCP_CONGESTION: cubic leaves seven
    for _ in range(3):
        peer.send(". 1:1(0) ack 1")
    peer.expect(". 1:1001(1000) ack 1")
    sk.send(pattern(10_000, 12_000))
    peer.expect_nothing()  # ten in flight, three of them arrived, five may be
    peer.send(". 1:1(0) ack 10001")
    assert len(peer.drain()) == 5


def small_writes(server, *, sack="", fin=False):
    """Return the peer of a connection with five segments of 100 bytes in flight."""
    sk, peer = server.established(f"mss 400{sack}")
    sk.setsockopt(6, 1, 1)
    for i in range(5):
        sk.send(pattern(100 * i, 100))
        peer.expect(f"P. {1 + 100 * i}:{101 + 100 * i}(100) ack 1")
    if fin:
        sk.shutdown(1)
        peer.expect("F. 501:501(0) ack 1")
    return peer


@pytest.mark.rfc("9293", "3.8.1")
@pytest.mark.linux("net.ipv4.tcp_retrans_collapse")
def test_small_segments_are_repeated_as_one(server):
    peer = small_writes(server)
    peer.expect("P. 1:401(400) ack 1", within_us=SECOND)
    peer.send(". 1:1(0) ack 401")
    peer.expect("P. 401:501(100) ack 1", within_us=SECOND)
    peer.send(". 1:1(0) ack 501")
    peer.expect_nothing(for_us=5 * SECOND)


def test_a_fin_joins_the_data_before_it_when_that_is_repeated(server):
    peer = small_writes(server, fin=True)
    peer.send(". 1:1(0) ack 401")
    peer.expect("FP. 401:501(100) ack 1", within_us=SECOND)
    peer.send(". 1:1(0) ack 502")
    peer.expect_nothing(for_us=5 * SECOND)


def test_what_is_selectively_acknowledged_joins_nothing(server):
    peer = small_writes(server, sack=",nop,nop,sackOK")
    peer.send(". 1:1(0) ack 1 <nop,nop,sack 301:401>")
    peer.expect("P. 1:301(300) ack 1", within_us=5 * SECOND)


def test_nothing_joins_that_the_window_does_not_take(server):
    peer = small_writes(server)
    peer.send(". 1:1(0) ack 101 win 250")
    peer.expect("P. 101:301(200) ack 1", within_us=SECOND)


@pytest.mark.linux("net.ipv4.tcp_retrans_collapse")
def test_with_tcp_retrans_collapse_0_segments_are_repeated_as_they_were():
    peer = small_writes(host(tcp=TcpConfig(tcp_retrans_collapse=False)))
    peer.expect("P. 1:101(100) ack 1", within_us=SECOND)
