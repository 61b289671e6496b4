"""Proportional rate reduction (RFC 6937; tcp_cwnd_reduction)."""

from __future__ import annotations

import pytest

from kit.flight import Flight
from ustack.tcp.cong.ops import TCP_CA_CWR, TCP_CA_OPEN, TCP_CA_RECOVERY
from ustack.tcp.prr import tcp_enter_cwr
from ustack.tcp.send_window import tcp_packets_in_flight


@pytest.fixture
def f(server) -> Flight:
    one = Flight(server, 10)
    one.write(20)
    assert one.segs() == []
    return one


@pytest.mark.rfc("6937", "3")
def test_entering_recovery_sends_the_repetition_in_any_case(f):
    f.ack(0, (1, 2))
    f.ack(0, (1, 3))
    f.segs()
    f.ack(0, (1, 4))
    assert f.segs()[0] == 0
    assert f.recovery.prr_out == 1


@pytest.mark.linux("tcp_cwnd_reduction: Force a fast retransmit upon entering fast recovery")
def test_even_if_what_is_left_in_flight_is_ssthresh_already(f):
    f.ack(0, (1, 5))
    assert (f.tp.snd_ssthresh, f.segs()) == (5, [0])


@pytest.mark.rfc("6937", "3.1")
def test_above_ssthresh_one_is_sent_for_two_that_arrive(f):
    f.ack(0, (1, 2))
    f.ack(0, (1, 3))
    f.segs()
    f.ack(0, (1, 4))
    sent = len(f.segs())
    for end in range(5, 11):
        f.ack(0, (1, end))
        sent += len(f.segs())
    assert f.tp.ca_state == TCP_CA_RECOVERY
    delivered = 7
    assert sent in (delivered * 5 // 10, delivered * 5 // 10 + 1)


@pytest.mark.rfc("6937", "3")
def test_a_burst_of_deliveries_fills_up_to_ssthresh_alone(f):
    f.ack(0, (1, 7))
    assert f.recovery.prr_delivered == 6
    assert len(f.segs()) == f.recovery.prr_out == 2
    assert tcp_packets_in_flight(f.tp) == f.tp.snd_ssthresh == 5


@pytest.mark.rfc("6937", "3")
def test_below_ssthresh_it_grows_back_no_faster_than_slow_start(f):
    f.ack(0, (1, 2), (8, 10))
    f.wait(30_000)
    first = f.segs()
    in_flight = tcp_packets_in_flight(f.tp)
    assert in_flight <= f.tp.snd_ssthresh
    assert first[0] == 0


@pytest.mark.rfc("6937", "3")
def test_below_ssthresh_an_ack_that_advances_lets_one_more_go_than_arrived(f):
    f.ack(0, (1, 2), (8, 10))
    assert f.segs() == [0, 2, 3]
    f.wait(100_000)
    f.ack(2, (8, 10))
    assert f.segs() == [4, 5]


@pytest.mark.linux("tcp_cwnd_reduction: FLAG_SND_UNA_ADVANCED && !newly_lost")
def test_below_ssthresh_an_ack_that_shows_more_losses_lets_go_what_arrived(f):
    f.ack(0, (1, 2), (5, 7))
    assert f.segs() == [0, 2]
    f.ack(2, (5, 7), (9, 10))
    assert f.segs() == [3, 4, 7]


@pytest.mark.rfc("6937", "3")
def test_below_ssthresh_what_was_not_sent_before_is_made_up_for(f):
    f.ack(0, (1, 4))
    assert f.segs() == [0, 10]  # three have arrived, above ssthresh two may go for them
    f.ack(0, (1, 4), (9, 10))
    assert f.segs() == [4, 5]


def test_a_reduction_begins_to_count_anew(f):
    f.tp.snd_cwnd_cnt = 7
    f.ack(0, (1, 4))
    assert f.tp.snd_cwnd_cnt == 0


@pytest.mark.rfc("6937", "3")
def test_below_ssthresh_a_d_sack_lets_one_go_and_the_timer_alone(f):
    f.ack(0, (1, 2), (8, 10))
    assert f.segs() == [0, 2, 3]
    due_us = f.tp.icsk_timeout_us
    f.wait(50_000)
    f.ack(0, (1, 2), (1, 2), (8, 10))
    assert f.segs() == [4]
    assert f.tp.icsk_timeout_us == due_us


@pytest.mark.rfc("6937", "3")
def test_in_the_end_the_window_is_ssthresh(f):
    f.ack(0, (1, 4))
    f.wait(100_000)
    f.ack(10)
    assert f.tp.ca_state == TCP_CA_OPEN
    assert f.tp.snd_cwnd in (5, 6)  # the ACK that ends it counts for congestion avoidance


def test_in_flight_ends_at_ssthresh(f):
    f.ack(0, (1, 2))
    f.ack(0, (1, 3))
    for end in range(4, 11):
        f.ack(0, (1, end))
    f.segs()
    f.wait(1000)
    assert tcp_packets_in_flight(f.tp) <= f.tp.snd_ssthresh + 2


def test_an_ack_that_delivers_nothing_moves_nothing(f):
    f.ack(0, (1, 4))
    cwnd, out = f.tp.snd_cwnd, f.recovery.prr_out
    f.segs()
    f.ack(0, (1, 4))
    assert (f.tp.snd_cwnd, f.recovery.prr_out) == (cwnd, out)
    assert f.segs() == []


def test_ssthresh_is_set_once_in_a_recovery(f):
    f.ack(0, (1, 4))
    f.ack(0, (1, 4), (5, 10))
    assert f.tp.snd_ssthresh == 5
    assert f.mib.TCPSackRecovery == 1


def test_a_reduction_without_a_loss_ends_above_high_seq(f):
    tcp_enter_cwr(f.sk._sk)
    assert f.tp.ca_state == TCP_CA_CWR
    f.ack(10)
    assert f.tp.ca_state == TCP_CA_CWR
    f.segs()
    f.ack(11)
    assert f.tp.ca_state == TCP_CA_OPEN
    assert f.tp.snd_cwnd == f.tp.snd_ssthresh == 5


def test_cwr_comes_once_a_window(f):
    tcp_enter_cwr(f.sk._sk)
    tcp_enter_cwr(f.sk._sk)
    assert f.tp.snd_ssthresh == 5


def test_a_loss_during_cwr_keeps_its_ssthresh(f):
    tcp_enter_cwr(f.sk._sk)
    f.ack(0, (1, 4))
    assert f.tp.ca_state == TCP_CA_RECOVERY
    assert f.tp.snd_ssthresh == 5
