"""What bounds the timers: tcp_rto_max_ms, tcp_rto_min_us, thin streams, TCP_USER_TIMEOUT."""

from __future__ import annotations

import errno
import itertools

import pytest

from kit.flight import Flight
from kit.host import host
from kit.segment import pattern
from ustack.config import TcpConfig, UstackConfig

SECOND = 1_000_000
TCP_THIN_LINEAR_TIMEOUTS, TCP_USER_TIMEOUT, TCP_RTO_MAX_MS, TCP_RTO_MIN_US = 16, 18, 44, 45


def gaps(f: Flight, count: int) -> list[int]:
    """Return the times between ``count`` repetitions that nobody answers, in microseconds."""
    times: list[int] = []
    while len(times) <= count:
        f.wait(10_000)
        if f.out():
            times.append(f.host.world.now_us)
    return [b - a for a, b in itertools.pairwise(times)]


def flight(segments: int = 2, **tcp: int) -> Flight:
    return Flight(host(tcp=TcpConfig(tcp_early_retrans=0, **tcp)), segments)


@pytest.mark.linux("net.ipv4.tcp_rto_max_ms")
def test_the_back_off_ends_at_tcp_rto_max_ms():
    assert gaps(flight(tcp_rto_max_us=SECOND), 6)[-3:] == [SECOND] * 3


def test_tcp_rto_max_ms_of_a_socket():
    f = flight()
    f.sk.setsockopt(6, TCP_RTO_MAX_MS, 2000)
    assert f.sk.getsockopt(6, TCP_RTO_MAX_MS) == 2000
    assert gaps(f, 6)[-2:] == [2 * SECOND] * 2


@pytest.mark.parametrize("value", [999, 120_001])
def test_it_is_from_one_second_to_two_minutes(value):
    with pytest.raises(OSError, match="Invalid"):
        host().socket().setsockopt(6, TCP_RTO_MAX_MS, value)


@pytest.mark.parametrize("value", [4000, 200_001])
def test_tcp_rto_min_us_of_a_socket_is_from_two_ticks_to_a_fifth_of_a_second(value):
    with pytest.raises(OSError, match="Invalid"):
        host().socket().setsockopt(6, TCP_RTO_MIN_US, value)


@pytest.mark.linux("net.ipv4.tcp_rto_min_us")
@pytest.mark.parametrize("fastpath", [False, True])
def test_tcp_rto_min_us_is_the_least_variance(fastpath):
    tcp = TcpConfig(tcp_rto_min_us=20_000)
    f = Flight(host(tcp=tcp, ustack=UstackConfig(tcp_fastpath=fastpath)), 0)
    for n in range(30):
        f.write(1)
        f.wait(100_000)
        f.ack(n + 1)
    assert 120_000 <= f.tp.rto_us < 150_000


def test_a_child_has_its_listeners_limits():
    one = host()
    lsk = one.listen(80)
    lsk.setsockopt(6, TCP_RTO_MAX_MS, 3000)
    lsk.setsockopt(6, TCP_RTO_MIN_US, 50_000)
    one.peer().handshake()
    child = lsk.accept()
    assert child.getsockopt(6, TCP_RTO_MAX_MS) == 3000
    assert child.getsockopt(6, TCP_RTO_MIN_US) == 50_000


@pytest.mark.linux("net.ipv4.tcp_thin_linear_timeouts")
def test_a_thin_stream_backs_off_only_after_six_repetitions():
    times = gaps(flight(tcp_thin_linear_timeouts=1), 8)
    assert max(times[:6]) - min(times[:6]) <= 20_000
    assert times[7] > 3 * times[5]


def test_tcp_thin_linear_timeouts_of_a_socket():
    f = flight()
    f.sk.setsockopt(6, TCP_THIN_LINEAR_TIMEOUTS, 1)
    assert f.sk.getsockopt(6, TCP_THIN_LINEAR_TIMEOUTS) == 1
    times = gaps(f, 4)
    assert max(times) - min(times) <= 20_000
    with pytest.raises(OSError, match="Invalid"):
        f.sk.setsockopt(6, TCP_THIN_LINEAR_TIMEOUTS, 2)


def test_a_stream_with_four_segments_out_is_not_thin():
    times = gaps(flight(4, tcp_thin_linear_timeouts=1), 3)
    assert times[1] > 1.8 * times[0]


# TCP_USER_TIMEOUT.


@pytest.mark.parametrize("answered", [False, True])
def test_the_user_timeout_ends_the_probing_of_a_closed_window(answered):
    one = host()
    sk, peer = one.established("mss 1000")
    sk.setsockopt(6, TCP_USER_TIMEOUT, 1500)
    peer.send(". 1:1(0) ack 1 win 0")
    sk.send(pattern(0, 1000))
    for _ in range(20):
        one.advance_us(100_000)
        if answered and peer.drain():
            peer.send(". 1:1(0) ack 1 win 0")
    assert sk.getsockopt(1, 4) == errno.ETIMEDOUT


def test_the_time_counts_from_the_first_probe_and_anew_once_the_window_was_open():
    one = host()
    sk, peer = one.established("mss 1000")
    sk.setsockopt(6, TCP_USER_TIMEOUT, 1500)
    for start in (0, 1000, 2000):
        peer.send(f". 1:1(0) ack {start + 1} win 0")
        sk.send(pattern(start, 1000))
        one.advance_us(1_400_000)
        peer.send(f". 1:1(0) ack {start + 1} win 1000")
        peer.drain()
        peer.send(f". 1:1(0) ack {start + 1001} win 1000")
    assert sk.getsockopt(1, 4) == 0


def test_a_window_that_shrinks_to_nothing_under_what_is_out_ends_with_the_user_timeout():
    f = flight()
    f.sk.setsockopt(6, TCP_USER_TIMEOUT, 1500)
    for _ in range(40):
        f.peer.send(". 1:1(0) ack 1 win 0")
        f.wait(100_000)
    assert f.sk.getsockopt(1, 4) == errno.ETIMEDOUT


def test_the_repetition_before_the_end_is_not_late():
    f = flight()
    f.sk.setsockopt(6, TCP_USER_TIMEOUT, 1000)
    f.wait(2 * SECOND)
    assert f.sk.getsockopt(1, 4) == errno.ETIMEDOUT
    assert f.mib.TCPTimeouts == 3
