"""CUBIC against RFC 9438's formulas, computed here in floating point, and Linux's rules.

The oracle shares nothing with ``ustack.tcp.cong.cubic``: it is the RFC's text.
"""

from __future__ import annotations

import itertools
import random

import pytest

from kit.ack_clock import AckClock
from ustack.tcp.cong.cubic import cubic_root
from ustack.tcp.cong.ops import CA_EVENT_TX_START

C = 0.4
BETA = 0.7
ALPHA = 3 * (1 - BETA) / (1 + BETA)
SECOND = 1_000_000


def w_cubic(t: float, w_max: float, cwnd_epoch: float) -> float:
    """RFC 9438 §4.2, figures 1 and 2."""
    k = ((w_max - cwnd_epoch) / C) ** (1 / 3)
    return C * (t - k) ** 3 + w_max


def w_est(t: float, rtt: float, cwnd_epoch: float) -> float:
    """RFC 9438 §4.3, figure 4, while every round trip acknowledges one window."""
    return cwnd_epoch + ALPHA * t / rtt


def after_a_loss(w_max: int, rtt_us: int) -> AckClock:
    """A connection that lost something at ``w_max`` and has recovered."""
    clock = AckClock("cubic", rtt_us=rtt_us)
    clock.tp.snd_ssthresh = 2
    clock.tp.snd_cwnd = w_max
    clock.ack()
    clock.tp.snd_cwnd = w_max
    clock.advance_us(SECOND)
    clock.fast_recovery()
    return clock


@pytest.mark.rfc("9438", "4.2")
@pytest.mark.parametrize("w_max", [100, 500, 2000])
@pytest.mark.parametrize("rtt_us", [50_000, 100_000, 250_000])
def test_the_window_follows_the_cubic_curve(w_max, rtt_us):
    clock = after_a_loss(w_max, rtt_us)
    start, epoch = clock.cwnd, clock.now_us
    assert start == int(w_max * BETA)
    k_us = ((w_max - start) / C) ** (1 / 3) * SECOND
    while clock.now_us - epoch < 1.5 * k_us:
        clock.round(4)
        t = (clock.now_us - epoch) / SECOND
        wanted = max(w_cubic(t, w_max, start), w_est(t, rtt_us / SECOND, start))
        assert clock.cwnd == pytest.approx(wanted, rel=0.03, abs=2.5), f"{t:.2f} s after the loss"


@pytest.mark.rfc("9438", "4.4")
def test_the_window_rises_fast_then_rests_at_the_old_maximum():
    """Concave: the first third of K gains more than the last third."""
    clock = after_a_loss(1000, 100_000)
    k_us = int((300 / C) ** (1 / 3) * SECOND)
    start_us, seen = clock.now_us, [clock.cwnd]
    for third in (1, 2, 3):
        while clock.now_us - start_us < third * k_us // 3:
            clock.round(4)
        seen.append(clock.cwnd)
    gains = [b - a for a, b in itertools.pairwise(seen)]
    assert gains[0] > 2 * gains[1] > 4 * gains[2]
    assert seen[-1] == pytest.approx(1000, abs=15)


@pytest.mark.rfc("9438", "4.5")
def test_beyond_the_old_maximum_growth_accelerates():
    clock = after_a_loss(400, 100_000)
    while clock.cwnd < 405:
        clock.round(4)
    gains = []
    for _ in range(6):
        before = clock.cwnd
        for _ in range(5):
            clock.round(4)
        gains.append(clock.cwnd - before)
    assert gains == sorted(gains) and gains[-1] > 3 * gains[0]


@pytest.mark.rfc("9438", "4.3")
@pytest.mark.parametrize("w_max", [10, 20, 40])
def test_on_short_paths_it_grows_as_reno_would(w_max):
    """RTT 5 ms: the curve is far slower than W_est."""
    clock = after_a_loss(w_max, 5_000)
    start, epoch = clock.cwnd, clock.now_us
    for _ in range(40):
        clock.round()
    t = (clock.now_us - epoch) / SECOND
    wanted = w_est(t, 0.005, start)
    assert wanted > 1.3 * w_cubic(t, w_max, start)
    assert clock.cwnd == pytest.approx(wanted, rel=0.15, abs=2)  # Linux's integers


@pytest.mark.rfc("9438", "4.6")
@pytest.mark.parametrize("cwnd", [2, 3, 10, 11, 100, 1000, 12345])
def test_a_loss_leaves_seven_tenths_of_the_window_and_at_least_two(cwnd):
    clock = AckClock("cubic")
    clock.tp.snd_cwnd = cwnd
    assert clock.sk.ca.ssthresh(clock.sk) == max(cwnd * 717 // 1024, 2)


@pytest.mark.rfc("9438", "4.7")
def test_a_second_loss_below_the_old_maximum_lowers_the_plateau():
    """Fast convergence: W_max is 0.85 of where the second loss was."""
    clock = after_a_loss(1000, 100_000)
    clock.round(4)
    second = clock.cwnd
    assert second < 1000
    clock.fast_recovery()
    assert clock.tp.bictcp.last_max_cwnd == pytest.approx(second * (1 + BETA) / 2, abs=1)


@pytest.mark.rfc("9438", "4.7")
def test_a_second_loss_above_the_old_maximum_does_not():
    clock = after_a_loss(100, 100_000)
    clock.tp.snd_cwnd = 150
    clock.fast_recovery()
    assert clock.tp.bictcp.last_max_cwnd == 150


@pytest.mark.rfc("9438", "4.8")
def test_a_timeout_forgets_the_curve_and_the_path():
    clock = after_a_loss(1000, 100_000)
    clock.advance_us(2 * SECOND)
    clock.round(4)
    assert clock.tp.bictcp.delay_min_us == 100_000
    clock.timeout()
    ca = clock.tp.bictcp
    assert (ca.last_max_cwnd, ca.delay_min_us, ca.epoch_start_us) == (0, 0, 0)


@pytest.mark.rfc("9438", "5.8")
def test_time_without_anything_to_send_does_not_count_on_the_curve():
    busy, idle = after_a_loss(1000, 100_000), after_a_loss(1000, 100_000)
    for clock in (busy, idle):
        for _ in range(5):
            clock.round(4)
    idle.tp.lsndtime_us = idle.now_us
    idle.advance_us(30 * SECOND)
    idle.event(CA_EVENT_TX_START)
    for clock in (busy, idle):
        for _ in range(5):
            clock.round(4)
    assert idle.cwnd == pytest.approx(busy.cwnd, abs=3)


def test_time_that_is_idle_without_the_event_would_count():
    """The control of the test above: half a minute up the curve is a large step."""
    busy, idle = after_a_loss(1000, 100_000), after_a_loss(1000, 100_000)
    idle.round(4)
    idle.advance_us(30 * SECOND)
    for clock in (busy, idle):
        for _ in range(5):
            clock.round(4)
    assert idle.cwnd > busy.cwnd + 200


@pytest.mark.linux("bictcp_update")
def test_without_a_known_maximum_a_round_trip_gains_a_twentieth():
    clock = AckClock("cubic")
    clock.tp.snd_ssthresh = 100
    clock.tp.snd_cwnd = 100
    assert clock.round() == pytest.approx(105, abs=1)


@pytest.mark.linux("bictcp_update")
def test_a_round_trip_never_gains_more_than_half():
    clock = after_a_loss(100, 100_000)
    clock.round()
    clock.advance_us(3600 * SECOND)  # an hour up the curve
    before = clock.cwnd
    assert clock.round() <= before * 1.7
    assert clock.tp.ca_cnt == 2


@pytest.mark.linux("bictcp_update")
def test_the_count_is_computed_once_while_cwnd_stays():
    """Within 31 ms and at the same cwnd an ACK only counts: the fast path needs no more."""
    clock = after_a_loss(2000, 20_000)
    clock.ack()
    clock.advance_us(1000)
    clock.ack()
    computed = clock.tp.bictcp.last_jiffy
    for _ in range(10):
        clock.advance_us(2000)
        clock.ack()
    assert clock.cwnd == 1400
    assert clock.tp.bictcp.last_jiffy == computed
    clock.advance_us(32_000)
    clock.ack()
    assert clock.tp.bictcp.last_jiffy > computed


def test_nothing_grows_while_cwnd_is_not_the_limit():
    clock = AckClock("cubic")
    clock.tp.is_cwnd_limited = 0
    clock.tp.max_in_flight = 3
    clock.tp.snd_ssthresh = 5
    clock.tp.snd_cwnd = 50
    assert clock.round() == 50


@pytest.mark.rfc("5681", "3.1")
def test_slow_start_adds_what_was_acknowledged():
    clock = AckClock("cubic", rtt_us=300_000)
    assert [clock.round() for _ in range(3)] == [20, 40, 80]


def test_slow_start_stops_at_ssthresh_and_the_rest_goes_up_the_curve():
    clock = AckClock("cubic")
    clock.tp.snd_ssthresh = 15
    clock.ack(10)
    assert clock.cwnd == 15


@pytest.mark.linux("cubictcp_acked")
def test_the_least_delay_is_kept_but_not_from_the_second_after_a_loss():
    clock = AckClock("cubic")
    clock.ack(rtt_us=90_000)
    clock.ack(rtt_us=70_000)
    clock.ack(rtt_us=80_000)
    assert clock.tp.bictcp.delay_min_us == 70_000
    clock.fast_recovery()
    clock.ack(rtt_us=70_000)
    clock.advance_us(500_000)
    clock.ack(rtt_us=20_000)
    assert clock.tp.bictcp.delay_min_us == 70_000
    clock.advance_us(600_000)
    clock.ack(rtt_us=20_000)
    assert clock.tp.bictcp.delay_min_us == 20_000


def test_an_idle_connection_holds_no_state_of_its_own():
    assert not AckClock("cubic").tp.bictcp


def test_the_cube_root_is_the_integer_one():
    rng = random.Random(9438)
    numbers = [0, 1, 7, 8, 26, 27, 63, 64, 2**40 // 410 * 4_000_000]
    numbers += [rng.getrandbits(rng.randrange(1, 64)) for _ in range(2000)]
    for a in numbers:
        x = cubic_root(a)
        assert x**3 <= a < (x + 1) ** 3, a


@pytest.mark.rfc("9438", "3.3")
def test_cubic_and_reno_that_lose_together_share_alike_on_a_short_path():
    """Two windows, one bottleneck of 100 segments, 10 ms: neither starves the other."""
    a, b = AckClock("cubic", rtt_us=10_000), AckClock("reno", rtt_us=10_000)
    for clock in (a, b):
        clock.tp.snd_ssthresh = 10
    total = {"cubic": 0, "reno": 0}
    for _ in range(1500):
        a.round()
        b.round()
        total["cubic"] += a.cwnd
        total["reno"] += b.cwnd
        if a.cwnd + b.cwnd > 100:
            a.fast_recovery()
            b.fast_recovery()
    assert 0.5 < total["cubic"] / total["reno"] < 2.5


def test_while_nothing_is_known_of_the_path_a_segment_costs_twenty_acks():
    clock = AckClock("cubic")
    clock.tp.snd_ssthresh = 2
    clock.tp.snd_cwnd = 500
    clock.ack()
    assert clock.tp.ca_cnt == 20


@pytest.mark.linux("bictcp_update: tcp_jiffies32 - ca->last_time <= HZ / 32")
def test_a_count_holds_31_milliseconds_while_cwnd_stays():
    clock = after_a_loss(2000, 20_000)
    clock.ack()
    reckoned = clock.tp.bictcp.last_jiffy
    clock.advance_us(31_000)
    clock.ack()
    assert clock.tp.bictcp.last_jiffy == reckoned
    clock.advance_us(1_000)
    clock.ack()
    assert clock.tp.bictcp.last_jiffy == reckoned + 32
