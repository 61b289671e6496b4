"""Fast retransmit and NewReno without SACK (RFC 5681 §3.2, RFC 6582; tcp_newreno_mark_lost)."""

from __future__ import annotations

import pytest

from kit.flight import Flight
from kit.host import host
from ustack.config import TcpConfig
from ustack.tcp.cong.ops import TCP_CA_DISORDER, TCP_CA_OPEN, TCP_CA_RECOVERY


@pytest.fixture
def f(server) -> Flight:
    return Flight(server, sack=False)


@pytest.mark.rfc("5681", "3.2")
def test_two_duplicates_are_no_loss(f):
    f.dup(2)
    assert f.segs() == []
    assert f.tp.ca_state == TCP_CA_DISORDER


@pytest.mark.rfc("5681", "3.2")
def test_the_third_duplicate_repeats_the_first_segment_alone(f):
    f.dup(3)
    assert f.segs() == [0]
    assert f.tp.ca_state == TCP_CA_RECOVERY
    assert f.mib.TCPRenoRecovery == f.mib.TCPFastRetrans == 1
    assert f.mib.TCPSackRecovery == 0


@pytest.mark.rfc("5681", "3.1")
def test_ssthresh_becomes_half_of_the_window(f):
    f.dup(3)
    assert f.tp.snd_ssthresh == 5
    assert f.tp.prior_cwnd == 10


@pytest.mark.rfc("6582", "3.2")
def test_a_partial_ack_shows_the_next_hole(f):
    f.dup(7)
    f.segs()
    f.wait(100_000)
    f.ack(3)
    assert f.segs() == [3]
    assert f.tp.ca_state == TCP_CA_RECOVERY


@pytest.mark.rfc("6582", "3.2")
def test_several_holes_are_repeated_one_a_round_trip(f):
    f.dup(7)
    assert f.segs() == [0]
    for hole, following in ((0, 3), (3, 6), (6, 10)):
        f.wait(100_000)
        f.ack(following)
        assert f.segs() == ([following] if following < 10 else [])
        assert f.tp.snd_una - f.tp.iss - 1 == 1000 * following
        del hole
    assert f.mib.RetransSegs == 3
    assert f.mib.TCPTimeouts == 0


@pytest.mark.rfc("6582", "4.1")
def test_without_sack_recovery_lasts_until_something_above_it_is_acknowledged(f):
    f.dup(3)
    f.wait(100_000)
    f.ack(10)
    assert f.tp.ca_state == TCP_CA_RECOVERY
    f.write(1)
    f.wait(100_000)
    f.ack(11)
    assert f.tp.ca_state == TCP_CA_OPEN
    assert f.tp.snd_cwnd == f.tp.snd_ssthresh == 5


@pytest.mark.rfc("6582", "4.1")
def test_duplicates_right_after_a_recovery_start_no_other_one(f):
    f.dup(3)
    f.wait(100_000)
    f.ack(10)
    f.write(4)
    f.segs()
    f.dup(4, segments=10)
    assert f.segs() == []
    assert f.mib.TCPRenoRecovery == 1


def test_a_new_loss_above_the_recovery_is_a_recovery_of_its_own(f):
    f.dup(3)
    f.wait(100_000)
    f.ack(10)
    f.write(5)
    f.wait(100_000)
    f.ack(11)
    f.segs()
    f.dup(3, segments=11)
    assert f.segs() == [11]
    assert f.mib.TCPRenoRecovery == 2


@pytest.mark.linux("net.ipv4.tcp_reordering")
def test_the_number_of_duplicates_is_tcp_reordering():
    f = Flight(host(tcp=TcpConfig(tcp_reordering=5)), sack=False)
    f.dup(4)
    assert f.segs() == []
    f.dup()
    assert f.segs() == [0]


def test_reordering_seen_without_sack_raises_the_threshold(server):
    f = Flight(server, 4, sack=False)
    f.dup(4)
    assert f.mib.TCPRenoReorder
    assert f.recovery.reordering == 4


def test_a_cumulative_ack_in_disorder_forgets_the_duplicates(f):
    f.dup(2)
    f.ack(1)
    assert f.tp.ca_state == TCP_CA_OPEN
    assert f.tp.sacked_out == 0
    f.dup(2, segments=1)
    assert f.segs() == []


def test_the_fin_behind_the_data_is_repeated_after_it(server):
    f = Flight(server, 4, sack=False)
    f.sk.shutdown(1)
    f.peer.drain()
    f.ack(3)
    f.wait(1_000_000)
    assert len(f.peer.drain()[0].payload) == 1000
    f.ack(4)
    (fin,) = f.peer.drain()
    assert fin.flags & 1 and not fin.payload


def test_a_lost_repetition_waits_for_the_timeout(f):
    f.dup(3)
    f.segs()
    f.wait(250_000)
    assert f.segs() == []
    f.wait(250_000)
    assert f.segs() == [0]
    assert f.mib.TCPTimeouts == 1


def test_a_partial_ack_takes_off_the_duplicates_that_it_explains(f):
    """One segment of it was the hole, the other one had sent a duplicate."""
    f.dup(5)
    f.ack(2)
    assert f.tp.sacked_out == 4
