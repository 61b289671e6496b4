"""HyStart: what ends slow start before a loss does (hystart_update in tcp_cubic.c)."""

from __future__ import annotations

import pytest

from kit.ack_clock import AckClock
from ustack.tcp.cong.hystart import hystart_ack_delay_us, hystart_delay_thresh
from ustack.tcp.pacing import sk_set_max_pacing_rate

INFINITE = 0x7FFFFFFF

pytestmark = pytest.mark.linux("hystart_update")


def slow_start(rtt_us: int, rounds: int) -> AckClock:
    """A connection that has doubled ``rounds`` times; the next ACK begins a round."""
    clock = AckClock("cubic", rtt_us=rtt_us)
    for _ in range(rounds):
        for _ in range(clock.cwnd // 10):
            clock.advance_us(5000)
            clock.ack(10)
        clock.advance_us(rtt_us)
    clock.tp.bictcp.end_seq = clock.tp.snd_una
    return clock


def train(clock: AckClock, gap_us: int, limit: int = 1000) -> int:
    """Acknowledge every ``gap_us``; return how many ACKs until slow start ended, 0: it goes on."""
    for n in range(1, limit + 1):
        clock.advance_us(gap_us)
        clock.ack()
        if clock.tp.snd_ssthresh != INFINITE:
            return n
    return 0


@pytest.mark.parametrize("rtt_us", [20_000, 50_000, 100_000])
def test_a_train_of_acks_for_half_the_least_rtt_ends_slow_start(rtt_us):
    clock = slow_start(rtt_us, 4)
    took_us = train(clock, 1000) * 1000
    assert rtt_us / 2 < took_us < rtt_us / 2 + 3_000
    assert clock.mib_ext.TCPHystartTrainDetect == 1


def test_ssthresh_becomes_the_window_at_that_moment():
    clock = slow_start(50_000, 1)
    train(clock, 1000)
    assert clock.tp.snd_ssthresh == clock.mib_ext.TCPHystartTrainCwnd
    assert clock.tp.snd_ssthresh in (clock.cwnd, clock.cwnd - 1)


def test_acks_more_than_two_milliseconds_apart_are_no_train():
    assert train(slow_start(100_000, 1), 2_001, limit=200) == 0
    assert train(slow_start(100_000, 1), 2_000, limit=200) > 0


def test_a_gap_breaks_the_train_for_the_rest_of_the_round():
    clock = slow_start(100_000, 3)
    assert train(clock, 1000, limit=30) == 0
    clock.advance_us(3_000)
    assert train(clock, 1000, limit=30) == 0, "61 ms since the round began, but not in one train"


def test_below_sixteen_segments_nothing_ends_slow_start():
    clock = AckClock("cubic", rtt_us=4_000)
    clock.tp.snd_cwnd = 8
    for _ in range(8):
        clock.advance_us(1900)
        clock.ack(rtt_us=50_000)
    assert clock.cwnd == 16
    assert clock.tp.snd_ssthresh == INFINITE


@pytest.mark.parametrize(("cwnd", "ends"), [(15, False), (16, True)])
def test_sixteen_segments_are_enough(cwnd, ends):
    clock = AckClock("cubic", rtt_us=4_000)
    clock.ack()
    clock.tp.snd_cwnd = cwnd
    clock.tp.bictcp.end_seq = clock.tp.snd_una + (1 << 20) & 0xFFFFFFFF
    clock.tp.bictcp.last_ack_us = clock.now_us + 3_000
    clock.advance_us(3_000)
    clock.ack()
    assert (clock.tp.snd_ssthresh == cwnd) is ends


@pytest.mark.parametrize(
    ("least_us", "risen_us", "ends"),
    [
        (80_000, 90_001, True), (80_000, 90_000, False),  # an eighth
        (16_000, 20_001, True), (16_000, 20_000, False),  # at least 4 ms
        (400_000, 416_001, True), (400_000, 416_000, False),  # at most 16 ms
    ],
)  # fmt: skip
def test_the_least_rtt_of_a_round_may_rise_by_an_eighth(least_us, risen_us, ends):
    clock = slow_start(least_us, 2)
    clock.rtt_us = risen_us
    assert bool(train(clock, 3000, limit=25)) is ends
    assert clock.mib_ext.TCPHystartDelayDetect == ends
    assert clock.mib_ext.TCPHystartTrainDetect == 0


def test_one_short_rtt_in_the_round_says_that_there_is_no_queue():
    clock = slow_start(80_000, 3)
    clock.advance_us(3000)
    clock.ack(rtt_us=80_000)
    clock.rtt_us = 120_000
    assert train(clock, 3000, limit=30) == 0


def test_eight_samples_are_needed():
    """And a ninth, which finds eight there."""
    clock = slow_start(80_000, 3)
    clock.rtt_us = 120_000
    clock.advance_us(3000)
    clock.ack()  # it begins the round, and is the first
    assert train(clock, 3000, limit=60) == 8


def test_it_ends_slow_start_once():
    clock = slow_start(50_000, 1)
    train(clock, 1000)
    for _ in range(200):
        clock.advance_us(1000)
        clock.ack()
    assert clock.mib_ext.TCPHystartTrainDetect == 1


def test_after_a_timeout_it_looks_again():
    clock = slow_start(50_000, 1)
    train(clock, 1000)
    clock.timeout()
    clock.tp.snd_ssthresh = INFINITE
    clock.tp.snd_cwnd = 16
    clock.advance_us(100_000)
    clock.ack()
    assert train(clock, 1000) > 0


def test_an_ack_that_measures_nothing_says_nothing():
    clock = slow_start(50_000, 1)
    for _ in range(200):
        clock.advance_us(1000)
        clock.ack(rtt_us=-1)
    assert clock.tp.snd_ssthresh == INFINITE


def test_reno_has_no_such_thing():
    clock = AckClock("reno", rtt_us=20_000)
    assert train(clock, 1000, limit=300) == 0


@pytest.mark.linux("hystart_ack_delay")
@pytest.mark.parametrize(
    ("rate", "cushion_us"), [(0, 0), (125_000_000, 1000), (1_250_000_000, 209), (10**12, 0)]
)
def test_super_frames_are_allowed_for_by_the_rate_up_to_a_millisecond(rate, cushion_us):
    clock = AckClock("cubic")
    clock.tp.sk_pacing_rate = rate
    assert hystart_ack_delay_us(clock.sk) == cushion_us


def test_a_paced_socket_allows_the_train_a_whole_rtt():
    clock = slow_start(50_000, 4)
    sk_set_max_pacing_rate(clock.sk, 10**9)
    clock.tp.sk_pacing_rate = 0
    assert 50 < train(clock, 1000) < 54


@pytest.mark.parametrize(("delay", "wanted"), [(0, 4000), (5000, 5000), (40_000, 16_000)])
def test_the_rise_that_counts_is_four_to_sixteen_milliseconds(delay, wanted):
    assert hystart_delay_thresh(delay) == wanted
