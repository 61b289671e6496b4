"""The retransmission timeout (RFC 6298, RFC 5681 §3.1; tcp_retransmit_timer, tcp_enter_loss)."""

from __future__ import annotations

import copy
import errno
import itertools

import pytest

from kit.flight import Flight
from kit.host import host
from ustack.config import TcpConfig
from ustack.tcp.cong.ops import TCP_CA_LOSS, TCP_CA_OPEN

NO_PROBES = TcpConfig(tcp_early_retrans=0)
SECOND = 1_000_000


@pytest.fixture
def f() -> Flight:
    return Flight(host(tcp=NO_PROBES))


@pytest.mark.rfc("5681", "3.1")
def test_one_segment_goes_and_the_rest_as_the_window_grows(f):
    f.wait(250_000)
    assert f.segs() == [0]
    f.ack(1)
    assert f.segs() == [1, 2]
    f.ack(3)
    assert f.segs() == [3, 4, 5, 6]
    f.ack(7)
    assert f.segs() == [7, 8, 9]
    f.ack(10)
    assert f.tp.ca_state == TCP_CA_OPEN
    assert f.mib.TCPSlowStartRetrans == 9


@pytest.mark.rfc("6675", "5.1")
def test_what_was_selectively_acknowledged_is_not_repeated(f):
    f.ack(0, (5, 6))
    f.ack(0, (5, 7))
    f.wait(2 * SECOND)
    sent = f.segs()
    assert 5 not in sent and 6 not in sent


@pytest.mark.rfc("5681", "3.1")
def test_a_second_timeout_of_the_same_data_leaves_ssthresh(f):
    f.wait(250_000)
    assert f.tp.snd_ssthresh == 5
    f.wait(SECOND)
    assert f.mib.TCPTimeouts >= 2
    assert f.tp.snd_ssthresh == 5
    assert f.tp.snd_cwnd == 1


@pytest.mark.rfc("6298", "5.5")
def test_the_time_between_repetitions_doubles(f):
    times = []
    while len(times) < 6:
        f.wait(10_000)
        if f.segs():
            times.append(f.host.world.now_us)
    gaps = [b - a for a, b in itertools.pairwise(times)]
    for shorter, longer in itertools.pairwise(gaps):
        assert abs(longer - 2 * shorter) <= 20_000


@pytest.mark.rfc("6298", "5.7")
def test_a_sample_ends_the_back_off(f):
    f.wait(SECOND)
    assert f.tp.backoff == 2
    f.ack(10)
    f.write(1)
    f.wait(100_000)
    f.ack(11)
    assert f.tp.backoff == 0
    assert f.tp.rto_us <= 400_000


@pytest.mark.rfc("6298", "3")
def test_the_ack_of_a_repetition_leaves_the_back_off(f):
    f.wait(SECOND)
    f.ack(1)
    assert f.tp.backoff == 2


@pytest.mark.rfc("7323", "4.1")
def test_with_timestamps_a_repetition_is_a_sample():
    f = Flight(host(tcp=NO_PROBES), ts=True)
    f.wait(250_000)
    f.wait(100_000)
    f.ack(1)
    assert f.tp.backoff == 0


@pytest.mark.linux("net.ipv4.tcp_retries2")
def test_tcp_retries2_counts_timeouts_worth_of_time():
    f = Flight(host(tcp=TcpConfig(tcp_early_retrans=0, tcp_retries2=3)))
    f.wait(2 * SECOND)
    assert f.sk.getsockopt(1, 4) == 0
    f.wait(5 * SECOND)
    assert f.sk.getsockopt(1, 4) == errno.ETIMEDOUT
    assert f.mib.TCPAbortOnTimeout == 1


@pytest.mark.linux("net.ipv4.tcp_retries1")
def test_after_tcp_retries1_the_route_is_looked_up_again():
    f = Flight(host(tcp=TcpConfig(tcp_early_retrans=0, tcp_retries1=1)))
    stale = f.sk._sk.dst = copy.copy(f.sk._sk.dst)
    f.wait(SECOND // 4)
    assert f.sk._sk.dst is stale
    f.wait(5 * SECOND)
    assert f.sk._sk.dst is not stale
    assert f.segs()


def test_the_state_ends_with_what_was_out_at_the_timeout(f):
    f.wait(250_000)
    f.ack(1)
    assert f.tp.ca_state == TCP_CA_LOSS
    f.ack(9)
    assert f.tp.ca_state == TCP_CA_LOSS
    f.ack(10)
    assert f.tp.ca_state == TCP_CA_OPEN


def test_the_counters_of_the_three_kinds(f):
    f.wait(250_000)
    f.ack(1)
    mib = f.mib
    assert (mib.TCPTimeouts, mib.TCPSlowStartRetrans, mib.TCPFastRetrans) == (1, 2, 0)
    assert mib.RetransSegs == 3


def test_new_data_follows_the_repeated(f):
    f.write(3)
    f.wait(250_000)
    f.segs()
    f.ack(10)
    assert f.segs() == [10, 11, 12]


def test_a_closed_window_is_probed_with_the_first_segment(f):
    f.peer.send(". 1:1(0) ack 1 win 0")
    f.wait(SECOND)
    assert f.segs()[0] == 0
    for _ in range(30):
        f.wait(100 * SECOND)
        f.peer.send(". 1:1(0) ack 1 win 0")
    assert f.sk.getsockopt(1, 4) == 0  # the peer lives, so the connection does


@pytest.mark.linux("tcp_check_sack_reneging")
def test_a_peer_that_reneges_gets_all_again(f):
    f.ack(0, (1, 3))
    f.ack(1)
    f.wait(55_000)
    assert f.mib.TCPSACKReneging == 1
    assert f.tp.sacked_out == 0
    assert f.segs()[0] == 1


def test_reneging_is_given_half_a_round_trip(f):
    f.ack(0, (1, 3))
    f.ack(1)
    f.wait(45_000)
    f.ack(3)
    f.wait(50_000)
    assert f.mib.TCPSACKReneging == 0
    assert f.segs() == []


def test_after_reneging_every_segment_is_repeated(f):
    f.ack(0, (1, 3), (5, 8))
    f.segs()
    f.ack(1, (5, 8))
    f.wait(55_000)
    seen = set(f.segs())
    acked = 1
    for _ in range(8):
        acked = max(seen, default=acked) + 1 if seen else acked
        f.wait(50_000)
        f.ack(min(acked, 10))
        seen |= set(f.segs())
    assert seen >= {1, 2, 5, 6, 7}


def test_the_first_segment_out_is_never_marked_twice(f):
    f.wait(250_000)
    assert (f.tp.lost_out, f.tp.retrans_out) == (10, 1)
    f.wait(SECOND)
    assert f.tp.lost_out == 10 and f.tp.retrans_out == 1
    assert f.mib.TCPLostRetransmit >= 1


@pytest.mark.linux("tcp_enter_loss: the degree of reordering is over-estimated")
@pytest.mark.parametrize(("sacked", "reordering"), [(2, 10), (3, 3), (5, 3)])
def test_duplicates_that_a_timeout_follows_show_less_reordering(sacked, reordering):
    f = Flight(host(tcp=TcpConfig(tcp_early_retrans=0, tcp_recovery=0)))
    f.ack(0, (7, 8))
    f.ack(10)
    f.write(10)
    f.wait(100_000)
    assert f.recovery.reordering == 10
    f.ack(10, (11, 11 + sacked))
    f.wait(2 * SECOND)
    assert f.mib.TCPTimeouts and not f.mib.TCPSackRecovery
    assert f.recovery.reordering == reordering


@pytest.mark.linux("TCP_USER_TIMEOUT")
def test_the_user_timeout_ends_a_connection_when_it_is_over_not_at_the_next_repetition():
    f = Flight(host(tcp=NO_PROBES))
    f.sk.setsockopt(6, 18, 700)
    f.wait(SECOND * 13 // 10)
    assert f.sk.getsockopt(1, 4) == errno.ETIMEDOUT
    assert f.host.mib.TCPTimeouts == 3


@pytest.mark.linux("tcp_rtx_probe0_timed_out")
def test_the_user_timeout_of_a_closed_window_counts_from_the_first_transmission():
    f = Flight(host(tcp=NO_PROBES))
    f.sk.setsockopt(6, 18, 150)
    f.peer.send(". 1:1(0) ack 1 win 0")
    f.wait(SECOND // 2)
    assert f.sk.getsockopt(1, 4) == errno.ETIMEDOUT
    assert f.host.mib.TCPTimeouts == 1
    assert f.segs() == []


@pytest.mark.linux("tcp_enter_loss: icsk_ca_state == TCP_CA_Loss && !icsk_retransmits")
def test_a_timeout_of_other_data_reduces_ssthresh_again():
    f = Flight(host(tcp=TcpConfig(tcp_early_retrans=0, tcp_frto=0)))
    f.wait(250_000)
    assert f.tp.snd_ssthresh == 5
    f.ack(1)
    f.wait(1_000_000)
    assert (f.mib.TCPTimeouts, f.tp.snd_ssthresh) == (2, 2)


@pytest.mark.rfc("5681", "4.3")
def test_another_timeout_of_the_same_data_does_not():
    f = Flight(host(tcp=TcpConfig(tcp_early_retrans=0, tcp_frto=0)))
    f.wait(1_500_000)
    assert f.mib.TCPTimeouts > 1
    assert f.tp.snd_ssthresh == 5
