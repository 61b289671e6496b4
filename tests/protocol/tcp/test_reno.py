"""Reno, which every congestion control answers as unless it says otherwise (RFC 5681 §3.1).

Reference: tcp_reno_cong_avoid, tcp_slow_start, tcp_cong_avoid_ai, tcp_is_cwnd_limited.
"""

from __future__ import annotations

import pytest

from kit.flight import Flight
from kit.host import host
from ustack.config import UstackConfig


@pytest.fixture
def f(server) -> Flight:
    """Ten segments are out, which is all that cwnd lets go."""
    return Flight(server)


def avoiding(f: Flight, ssthresh: int) -> Flight:
    """Slow start has ended, or will, at ``ssthresh``."""
    f.tp.snd_ssthresh = ssthresh
    return f


@pytest.mark.rfc("5681", "3.1")
def test_slow_start_adds_a_segment_for_each_that_is_acknowledged(f):
    f.ack(4)
    assert f.tp.snd_cwnd == 14


@pytest.mark.rfc("5681", "3.1")
def test_after_slow_start_a_window_of_segments_adds_one(f):
    avoiding(f, 10)
    f.ack(9)
    assert f.tp.snd_cwnd == 10
    f.ack(10)
    assert f.tp.snd_cwnd == 11


@pytest.mark.linux("tcp_slow_start")
def test_what_slow_start_leaves_over_counts_for_congestion_avoidance(f):
    avoiding(f, 12)
    f.ack(10)
    assert (f.tp.snd_cwnd, f.tp.snd_cwnd_cnt) == (12, 8)


@pytest.mark.linux("tcp_cong_avoid_ai")
def test_credits_from_a_larger_window_are_worth_one_segment(f):
    avoiding(f, 10).tp.snd_cwnd_cnt = 15
    f.ack(2)
    assert (f.tp.snd_cwnd, f.tp.snd_cwnd_cnt) == (11, 2)


@pytest.mark.linux("tcp_cong_avoid_ai")
def test_an_ack_of_two_windows_adds_two(f):
    avoiding(f, 4).tp.snd_cwnd = 4
    f.ack(9)
    assert (f.tp.snd_cwnd, f.tp.snd_cwnd_cnt) == (6, 1)


@pytest.mark.rfc("7661", "4.3")
@pytest.mark.linux("tcp_is_cwnd_limited: in slow start twice what was in flight")
@pytest.mark.parametrize(("segments", "cwnd"), [(3, 10), (5, 10), (6, 16)])
def test_in_slow_start_a_window_less_than_half_used_does_not_grow(server, segments, cwnd):
    f = Flight(server, segments)
    f.ack(segments)
    assert f.tp.snd_cwnd == cwnd


@pytest.mark.rfc("7661", "4.3")
@pytest.mark.linux("tcp_in_slow_start: cwnd < ssthresh")
@pytest.mark.parametrize("ssthresh", [9, 10])
@pytest.mark.parametrize("fastpath", [True, False])
def test_in_congestion_avoidance_a_window_not_used_up_does_not_grow(ssthresh, fastpath):
    server = host(ustack=UstackConfig(tcp_fastpath=fastpath))
    f = avoiding(Flight(server, 9), ssthresh)
    f.ack(9)
    assert (f.tp.snd_cwnd, f.tp.snd_cwnd_cnt) == (10, 0)
