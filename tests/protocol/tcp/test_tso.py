"""The size of super-frames, and those that wait (tcp_tso_autosize, tcp_tso_should_defer)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kit.flight import Flight
from kit.host import TEST_CONFIG, host
from kit.segment import pattern
from ustack.config import LINUX_6, LINUX_310, NicConfig, TcpConfig, UstackConfig
from ustack.tcp.tso import tcp_size_goal, tcp_tso_segs

FAR_US = 100_000
NEAR_US = 400


def flight(segments: int = 10, *, rtt_us: int = NEAR_US, **tcp: int) -> Flight:
    """A connection whose device takes super-frames."""
    return Flight(host(nic=NicConfig(), tcp=TcpConfig(**tcp)), segments, rtt_us=rtt_us)


def sizes(f: Flight) -> list[int]:
    """Return the lengths of the super-frames that came since the last look."""
    return [end - start for start, end in f.out()]


def several(rtt_us: int = NEAR_US, **tcp: int) -> Flight:
    """Ten segments are out, twenty wait, and a round trip is over."""
    f = flight(0, rtt_us=rtt_us, **tcp)
    f.write(30)
    assert sum(sizes(f)) == 10_000
    f.wait(rtt_us)
    return f


# How large.


def test_to_a_peer_far_away_a_super_frame_has_tcp_min_tso_segs():
    f = flight(0, rtt_us=FAR_US)
    f.write(10)
    assert sizes(f) == [2000] * 5


@pytest.mark.linux("net.ipv4.tcp_min_tso_segs")
@pytest.mark.parametrize(("least", "frames"), [(1, [1000] * 10), (4, [4000, 4000, 2000])])
def test_tcp_min_tso_segs_says_how_many(least, frames):
    f = flight(0, rtt_us=FAR_US, tcp_min_tso_segs=least)
    f.write(10)
    assert sizes(f) == frames


def test_to_a_near_peer_half_of_cwnd_goes_at_once():
    f = flight(0)
    f.write(10)
    assert sizes(f) == [5000, 5000]


@pytest.mark.linux("net.ipv4.tcp_tso_rtt_log")
def test_tcp_tso_rtt_log_says_what_is_near():
    f = flight(0, rtt_us=FAR_US, tcp_tso_rtt_log=17)
    f.write(10)
    assert sizes(f) == [5000, 5000]


@pytest.mark.parametrize(
    ("rtt_us", "segs"), [(511, 65), (512, 32), (1024, 16), (2048, 4), (9999, 2)]
)
def test_each_further_half_millisecond_halves_it(rtt_us, segs):
    sk = flight(0).sk._sk
    sk.tp.sk_pacing_rate, sk.tp.rtt_min_us = 0, rtt_us
    assert tcp_tso_segs(sk, 1000) == segs


@pytest.mark.parametrize(("rate", "segs"), [(10_000_000, 9), (40_000_000, 39), (1 << 40, 65)])
def test_otherwise_it_holds_a_millisecond_of_the_pacing_rate(rate, segs):
    sk = flight(0, rtt_us=FAR_US).sk._sk
    sk.tp.sk_pacing_rate = rate
    assert tcp_tso_segs(sk, 1000) == segs


@pytest.mark.linux("tcp_xmit_size_goal")
@pytest.mark.parametrize("mss", [1000, 1448, 9000])
def test_a_write_fills_whole_segments(mss):
    goal = tcp_size_goal(flight(0).sk._sk, mss)
    assert goal % mss == 0 and 65_536 - 321 - mss < goal <= 65_536 - 321


def test_a_device_that_takes_none_gets_single_segments():
    f = Flight(host(), 0)
    f.host.adapter.set_offload(gso=False)
    assert tcp_tso_segs(f.sk._sk, 1000) == 1


def test_what_is_repeated_is_no_larger():
    f = flight(0, rtt_us=FAR_US)
    f.write(10)
    f.out()
    f.wait(FAR_US)
    f.ack(0, (8, 10))
    f.wait(50_000)
    f.ack(6, (8, 10))
    assert max(sizes(f)) <= 2000


# What waits.


def test_a_small_super_frame_waits_for_the_next_ack():
    f = several()
    f.ack(1)
    assert sizes(f) == []
    f.ack(2)
    assert sizes(f) == [4000]


@pytest.mark.linux("net.ipv4.tcp_tso_win_divisor")
@pytest.mark.parametrize(("divisor", "first"), [(3, []), (6, [2000]), (0, [])])
def test_tcp_tso_win_divisor_says_what_is_small(divisor, first):
    f = several(tcp_tso_win_divisor=divisor)
    f.ack(1)
    assert sizes(f) == first


def test_with_tcp_tso_win_divisor_0_more_than_three_segments_go():
    f = several(tcp_tso_win_divisor=0)
    f.ack(1)
    f.ack(2)
    assert sizes(f) == [4000]


@pytest.mark.linux("tcp_max_tso_deferred_mss")
def test_with_tcp_tso_win_divisor_0_three_segments_wait():
    f = several(tcp_tso_win_divisor=0)
    f.ack(1)
    f.tp.snd_cwnd -= 1
    f.ack(2)
    assert sizes(f) == []


def test_nothing_waits_when_the_last_was_sent_a_millisecond_ago():
    f = several()
    f.wait(1000)
    f.ack(1)
    assert sizes(f) == [2000]


def test_nothing_waits_when_the_next_ack_is_not_near():
    f = flight(0, rtt_us=900)
    f.write(30)
    sizes(f)
    f.wait(300)
    f.ack(1)
    assert sizes(f) == [2000]


def test_while_cwnd_makes_it_wait_cwnd_may_grow():
    f = several()
    f.tp.is_cwnd_limited = 0
    f.ack(1)
    assert sizes(f) == []
    assert f.tp.is_cwnd_limited


def unfilled() -> Flight:
    """Ten segments are out, two and a half wait, and cwnd has room for four."""
    f = flight(0)
    f.write(10)
    sizes(f)
    f.wait(NEAR_US)
    f.tp.snd_cwnd = 14
    f.sk.send(pattern(10_000, 2500))
    return f


def test_what_the_application_may_yet_fill_up_waits():
    f = unfilled()
    assert sizes(f) == []
    f.ack(1)
    assert sum(sizes(f)) >= 2000


def test_what_nothing_can_follow_does_not_wait():
    f = unfilled()
    f.sk.shutdown(1)
    assert sum(sizes(f)) == 2500


# A FIN and cwnd.


def closing(profile: str) -> Flight:
    """All of cwnd is out when the application closes."""
    config = replace(TEST_CONFIG, ustack=UstackConfig(profile=profile))
    f = Flight(host(config, tcp=TcpConfig(tcp_early_retrans=3)))
    f.sk.shutdown(1)
    return f


def test_a_fin_waits_for_cwnd():
    f = closing(LINUX_6)
    f.peer.expect_nothing()
    f.ack(1)
    f.peer.expect("F. 10001:10001(0) ack 1")


def test_in_linux_310_it_does_not():
    closing(LINUX_310).peer.expect("F. 10001:10001(0) ack 1")


def test_a_fin_that_waits_is_the_tail_loss_probe():
    f = closing(LINUX_6)
    f.peer.expect("F. 10001:10001(0) ack 1", within_us=2 * FAR_US + 10_000)
    assert f.mib.TCPLossProbes == 1
