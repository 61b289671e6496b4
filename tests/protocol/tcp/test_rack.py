"""RACK: losses by time (RFC 8985 §6; tcp_recovery.c)."""

from __future__ import annotations

import pytest

from kit.flight import Flight
from kit.host import host
from ustack.config import TcpConfig
from ustack.tcp.cong.ops import TCP_CA_DISORDER, TCP_CA_RECOVERY
from ustack.tcp.rack import tcp_rack_reo_wnd
from ustack.tcp.sock import ICSK_TIME_REO_TIMEOUT

QUARTER_US = 25_000


@pytest.fixture
def f(server) -> Flight:
    return Flight(server)


def reordered(f: Flight) -> Flight:
    """Reordering has been seen; nothing is in flight."""
    f.ack(0, (2, 3))
    f.ack(10)
    assert f.recovery.reord_seen == 1
    return f


@pytest.mark.rfc("8985", "6.2")
def test_one_segment_that_overtakes_is_waited_for_a_quarter_of_the_rtt(f):
    f.ack(0, (1, 2))
    assert f.tp.ca_state == TCP_CA_DISORDER
    assert f.sk._sk.tp.icsk_pending == ICSK_TIME_REO_TIMEOUT
    f.wait(QUARTER_US + 1_000)
    assert f.segs() == []
    f.wait(1_000)  # TCP_TIMEOUT_MIN is on top
    assert f.segs() == [0]
    assert f.mib.TCPSackRecovery == 1


@pytest.mark.linux("tcp_rack_mark_lost: !tp->rack.advanced")
def test_an_ack_that_delivers_nothing_is_no_occasion_to_look(f):
    f.ack(0, (1, 2))
    f.wait(QUARTER_US + 1_000)
    f.ack(0, (1, 2))
    assert f.segs() == []
    f.wait(1_000)
    assert f.segs() == [0]


@pytest.mark.linux("tcp_rack_reo_timeout")
def test_a_loss_found_by_the_timer_in_recovery_is_part_of_it(f):
    reordered(f)
    f.write(10)
    f.wait(100_000)
    f.ack(10, (11, 14))
    f.wait(QUARTER_US + 2_000)
    assert f.mib.TCPSackRecovery == 1
    ssthresh = f.tp.snd_ssthresh
    f.ack(10, (11, 14), (15, 16))
    f.wait(QUARTER_US + 2_000)
    assert 14 in f.segs()
    assert (f.mib.TCPSackRecovery, f.tp.snd_ssthresh) == (1, ssthresh)


@pytest.mark.linux("tcp_fastretrans_alert: FLAG_LOST_RETRANS in TCP_CA_Loss")
def test_a_repetition_lost_after_a_timeout_makes_it_a_recovery():
    f = Flight(host(tcp=TcpConfig(tcp_early_retrans=0, tcp_frto=0)))
    f.wait(250_000)
    f.ack(1)
    assert f.segs() == [0, 1, 2]
    f.wait(100_000)
    f.ack(1, (2, 3))
    assert f.tp.ca_state == TCP_CA_RECOVERY
    assert 1 in f.segs()
    assert f.mib.TCPLostRetransmit == 1


@pytest.mark.rfc("8985", "6.2")
def test_what_comes_within_the_window_was_reordered(f):
    f.ack(0, (1, 2))
    f.wait(10_000)
    f.ack(2)
    f.wait(50_000)
    assert f.segs() == []
    assert f.mib.TCPSACKReorder == 1


@pytest.mark.rfc("8985", "6.2")
def test_three_that_overtake_are_a_loss_at_once(f):
    f.ack(0, (1, 4))
    assert f.segs() == [0]


@pytest.mark.linux("net.ipv4.tcp_recovery")
def test_bit_2_makes_three_wait_as_one():
    f = Flight(host(tcp=TcpConfig(tcp_recovery=5)))
    f.ack(0, (1, 4))
    assert f.segs() == []
    f.wait(QUARTER_US + 2_000)
    assert f.segs() == [0]


@pytest.mark.rfc("8985", "6.2")
def test_once_reordering_was_seen_three_wait_too(f):
    reordered(f)
    f.write(10)
    f.segs()
    f.wait(100_000)
    f.ack(10, (11, 14))
    assert f.segs() == []
    f.wait(QUARTER_US + 2_000)
    assert f.segs() == [10]


def test_the_degree_of_reordering_is_learnt(f):
    f.ack(0, (7, 8))
    f.ack(8)
    assert f.recovery.reordering == 8


@pytest.mark.linux("net.ipv4.tcp_max_reordering")
def test_the_degree_has_a_limit():
    f = Flight(host(tcp=TcpConfig(tcp_max_reordering=5)))
    f.ack(0, (7, 8))
    f.ack(10)
    assert f.recovery.reordering == 5


@pytest.mark.rfc("8985", "6.2")
def test_a_repetition_that_is_lost_is_repeated_again(f):
    f.write(20)
    f.ack(0, (1, 4))
    assert f.segs() == [0, 10]
    f.wait(100_000)
    f.ack(0, (1, 11))
    assert 0 in f.segs()
    assert f.mib.TCPLostRetransmit == 1
    assert f.mib.TCPTimeouts == 0


def test_the_last_segment_alone_proves_all_before_it_lost(f):
    f.ack(0, (9, 10))
    f.wait(QUARTER_US + 2_000)
    assert f.tp.lost_out == 9
    assert f.tp.ca_state == TCP_CA_RECOVERY


def test_what_was_sent_later_is_not_lost(f):
    f.write(5)
    f.ack(2)
    assert f.segs()
    f.wait(1000)
    f.ack(2, (3, 6))
    assert f.tp.lost_out == 1


def test_in_recovery_nothing_waits_while_no_reordering_was_seen(f):
    f.write(10)
    f.ack(0, (1, 4))
    f.ack(0, (1, 4), (5, 6))
    assert f.tp.lost_out == 2


def test_d_sacks_after_reordering_widen_the_window(f):
    reordered(f)
    f.write(10)
    f.wait(100_000)
    f.ack(10, (11, 14))
    f.wait(QUARTER_US + 2_000)
    assert 10 in f.segs()
    f.wait(50_000)
    f.ack(14, (10, 11))
    assert f.mib.TCPDSACKRecv == 1
    assert f.recovery.rack_reo_wnd_steps == 2
    assert f.recovery.rack_reo_wnd_persist


@pytest.mark.linux("net.ipv4.tcp_recovery")
def test_bit_1_keeps_the_window_as_it_is():
    f = reordered(Flight(host(tcp=TcpConfig(tcp_recovery=3))))
    f.write(10)
    f.wait(100_000)
    f.ack(10, (11, 14))
    f.wait(QUARTER_US + 2_000)
    f.wait(50_000)
    f.ack(14, (10, 11))
    assert f.recovery.rack_reo_wnd_steps == 1


def test_the_arrival_of_a_repetition_sooner_than_any_rtt_is_the_originals(f):
    f.ack(0, (1, 4))
    f.wait(1000)
    before = f.tp.rack_rtt_us
    f.ack(4)
    assert f.tp.rack_rtt_us == before


@pytest.mark.linux("tcp_timeout_mark_lost")
def test_a_timeout_spares_what_was_sent_just_now():
    f = Flight(host(tcp=TcpConfig(tcp_early_retrans=0)), 5)
    f.ack(1)
    f.wait(250_000)
    f.write(2)
    assert f.segs() == [5, 6]
    f.wait(55_000)
    assert f.mib.TCPTimeouts == 1
    assert f.tp.lost_out == 4 and f.tp.packets_out == 6


def test_in_the_middle_of_a_flight_a_loss_costs_no_timeout(f):
    f.ack(4)
    f.ack(4, (5, 6))
    f.ack(4, (5, 7))
    f.ack(4, (5, 8))
    assert f.segs() == [4]
    f.wait(100_000)
    f.ack(10)
    f.wait(10_000_000)
    assert f.segs() == []
    assert f.mib.TCPTimeouts == 0


def lost_and_late(f: Flight) -> Flight:
    """After reordering two segments of ten were repeated, 10 and 12, neither being lost."""
    reordered(f)
    f.write(10)
    f.wait(100_000)
    f.ack(10, (11, 12), (13, 15))
    f.wait(QUARTER_US + 2_000)
    f.ack(10, (11, 12), (13, 16))
    f.segs()
    assert f.tp.retrans_out == 2
    f.wait(50_000)
    return f


@pytest.mark.linux("tcp_rack_update_reo_wnd: before(rs->prior_delivered, tp->rack.last_delivered)")
def test_two_d_sacks_of_one_round_trip_widen_the_window_once(f):
    lost_and_late(f)
    f.ack(16, (10, 11))
    assert f.recovery.rack_reo_wnd_steps == 2
    f.ack(17, (12, 13))
    assert f.mib.TCPDSACKRecv == 2
    assert f.recovery.rack_reo_wnd_steps == 2


def test_a_d_sack_of_the_next_round_trip_widens_it_again(f):
    lost_and_late(f)
    f.ack(16, (10, 11))
    f.write(4)
    sent = f.segs()
    f.wait(100_000)
    f.ack(sent[-1] + 1, (12, 13))
    assert f.recovery.rack_reo_wnd_steps == 3


@pytest.mark.rfc("8985", "6.2")
def test_sixteen_recoveries_without_a_d_sack_make_it_narrow_again(f):
    lost_and_late(f)
    f.ack(16, (10, 11))
    f.ack(20)
    recoveries = [f.recovery.rack_reo_wnd_steps]
    for done in range(20, 100, 4):
        f.tp.snd_cwnd = 10
        f.write(4)
        f.wait(100_000)
        f.ack(done, (done + 1, done + 4))
        f.wait(100_000)
        f.ack(done + 4)
        recoveries.append(f.recovery.rack_reo_wnd_steps)
    assert recoveries == [2] * 16 + [1] * 5


@pytest.mark.rfc("8985", "6.2")
def test_the_window_is_a_round_trip_at_most(f):
    reordered(f)
    f.recovery.rack_reo_wnd_steps = 3
    assert tcp_rack_reo_wnd(f.sk._sk) == 3 * QUARTER_US
    f.recovery.rack_reo_wnd_steps = 200
    assert tcp_rack_reo_wnd(f.sk._sk) == f.tp.srtt_us >> 3
