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
