"""RTO estimation (RFC 6298) on numbers that can be followed by hand."""

from __future__ import annotations

import random

import pytest

from ustack.stack import Stack
from ustack.tcp.rtt import TCP_RTO_MAX_US, tcp_rtt_estimator, tcp_set_rto
from ustack.tcp.timeout import tcp_model_timeout_us


@pytest.fixture
def sk():
    stack = Stack(rng=random.Random(1))
    return stack.tcp.create()


@pytest.mark.rfc("6298", "2.2")
def test_the_first_sample_sets_srtt_and_a_variance_of_half_of_it(sk):
    tcp_rtt_estimator(sk, 1_000_000)
    tcp_set_rto(sk)
    assert sk.tp.srtt_us >> 3 == 1_000_000
    assert sk.tp.mdev_us >> 2 == 500_000
    assert sk.tp.rto_us == 3_000_000  # RTT + 4 * RTT/2


@pytest.mark.rfc("6298", "2.3")
@pytest.mark.linux("tcp_rtt_estimator")
def test_a_longer_rtt_moves_the_variance_by_a_quarter_a_shorter_one_by_a_thirty_second(sk):
    """The mean is kept in eighths, the deviation in quarters of a microsecond."""
    tcp_rtt_estimator(sk, 100_000)
    assert (sk.tp.srtt_us, sk.tp.mdev_us) == (800_000, 200_000)
    tcp_rtt_estimator(sk, 60_000)  # 40 ms off, less than the deviation: that falls
    assert (sk.tp.srtt_us, sk.tp.mdev_us) == (760_000, 190_000)
    tcp_rtt_estimator(sk, 15_000)  # 80 ms off
    assert (sk.tp.srtt_us, sk.tp.mdev_us) == (680_000, 190_000 + (80_000 - 47_500) // 8)
    tcp_rtt_estimator(sk, 185_000)  # 100 ms off
    assert (sk.tp.srtt_us, sk.tp.mdev_us) == (780_000, 194_062 + 100_000 - 48_515)
    assert sk.tp.mdev_max_us == sk.tp.rttvar_us == sk.tp.mdev_us


@pytest.mark.linux("tcp_rtt_estimator: tp->rttvar_us -= (tp->rttvar_us - tp->mdev_max_us) >> 2")
def test_once_a_round_trip_the_variance_falls_a_quarter_towards_that_rounds_largest(sk):
    tcp_rtt_estimator(sk, 1_000_000)
    falls = []
    for _ in range(4):
        sk.tp.snd_una = sk.tp.snd_nxt = sk.tp.snd_nxt + 1
        tcp_rtt_estimator(sk, 1_000_000)
        falls.append((sk.tp.rttvar_us, sk.tp.mdev_us))
    assert [mdev for _, mdev in falls] == [1_500_000, 1_125_000, 843_750, 632_813]
    assert falls[0][0] == 2_000_000  # the round of the first sample
    assert falls[1][0] == 2_000_000 - (2_000_000 - 1_125_000) // 4


@pytest.mark.rfc("6298", "2.4")
def test_a_steady_short_rtt_gives_linuxs_least_rto(sk):
    for _ in range(100):
        tcp_rtt_estimator(sk, 1000)
        sk.tp.snd_una = sk.tp.snd_nxt = sk.tp.snd_nxt + 1
    tcp_set_rto(sk)
    assert sk.tp.rto_us == pytest.approx(201_000, abs=100)


@pytest.mark.rfc("6298", "2.5")
def test_rto_never_exceeds_two_minutes(sk):
    tcp_rtt_estimator(sk, 3_000_000_000 >> 4)
    tcp_set_rto(sk)
    assert sk.tp.rto_us == TCP_RTO_MAX_US


@pytest.mark.rfc("9293", "MUST-20")
def test_fifteen_retries_last_as_long_as_linux_says():
    """tcp_retries2's documentation: 924.6 seconds at an RTO of 200 ms."""
    assert tcp_model_timeout_us(15) == 924_600_000
    assert tcp_model_timeout_us(8) == pytest.approx(102_200_000)
