"""The stream behind ``ustack lat handshake|connect``."""

from __future__ import annotations

import pytest

from kit.host import Host, host, two_hosts
from ustack.config import LINUX_6, LINUX_310, StackConfig, TcpConfig, UstackConfig
from ustack.daemon.latency import LatencyStream
from ustack.daemon.messages import Done, LatencyRequest, LatencyResult, Started, decode_reply
from ustack.lib.histogram import Log2Histogram

RTT_US = 20_000
RTT_BUCKETS = [0] * 14 + [1]
"""16384 to 32767 us."""


def stream(h: Host, what: str) -> LatencyStream:
    """Begin to count; the first answer has come."""
    counting = LatencyStream(h.stack, LatencyRequest(what), lambda: None)
    assert [decode_reply(m) for m in counting.messages()] == [Started()]
    return counting


def result(counting: LatencyStream) -> LatencyResult:
    """Stop, and return the histogram."""
    counting.stop()
    counting.stop()
    last, done = [decode_reply(m) for m in counting.messages()]
    assert counting.finished and done == Done()
    assert isinstance(last, LatencyResult)
    return last


def test_buckets_are_powers_of_two():
    histogram = Log2Histogram()
    for value in (-1, 0, 1, 2, 3, 4, 1023, 1024):
        histogram.add(value)
    assert histogram.buckets == [3, 2, 1, 0, 0, 0, 0, 0, 0, 1, 1]
    assert histogram.total == 2057


@pytest.mark.parametrize("profile", [LINUX_6, LINUX_310])
def test_a_server_counts_from_the_syn_to_the_third_ack(profile):
    h = host(StackConfig(ustack=UstackConfig(profile=profile)))
    h.listen()
    counting = stream(h, "handshake")
    peer = h.peer()
    peer.send("S 0:0(0)")
    h.advance_us(RTT_US)
    peer.expect("S. 0:0(0) ack 1")
    peer.send(". 1:1(0) ack 1")
    assert result(counting) == LatencyResult(RTT_BUCKETS, RTT_US)


def test_a_syn_ack_that_had_to_be_repeated_counts_with_its_second():
    h = host()
    h.listen()
    counting = stream(h, "handshake")
    peer = h.peer()
    peer.send("S 0:0(0)")
    h.advance_us(1_500_000)
    peer.send(". 1:1(0) ack 1")
    assert result(counting).total_us == 1_500_000


@pytest.mark.parametrize("wait_us", [RTT_US, 1_200_000])
def test_a_client_counts_from_its_first_syn(wait_us):
    h = host()
    peer = h.peer(port=80, to=None)
    counting = stream(h, "handshake")
    h.connect()
    peer.expect("S 0:0(0)")
    h.advance_us(wait_us)
    peer.send("S. 0:0(0) ack 1")
    assert result(counting).total_us == wait_us


def test_a_cookie_that_comes_back_tells_of_no_time():
    h = host(StackConfig(tcp=TcpConfig(tcp_syncookies=2)))
    h.listen()
    counting = stream(h, "handshake")
    h.peer().handshake()
    assert result(counting) == LatencyResult([], 0)


def test_nothing_counts_before_the_request_and_after_its_end():
    h = host()
    h.listen()
    h.peer().handshake()
    counting = stream(h, "handshake")
    assert result(counting) == LatencyResult([], 0)
    h.peer().handshake()
    assert not h.stack.tcp.trace_handshake.on
    assert list(counting.messages()) == []


def test_connect_counts_its_calls_those_that_find_no_port_too():
    a, b = two_hosts(tcp=TcpConfig(ip_local_port_range=(40000, 40000)))
    b.listen()
    counting = stream(a, "connect")
    ticks = iter(range(0, 10**9, 100))
    a.stack.clock.fine_us = lambda: next(ticks)
    a.connect(b.addr, 80)
    with pytest.raises(OSError):
        a.connect(b.addr, 80)
    assert sum(result(counting).buckets) == 2
