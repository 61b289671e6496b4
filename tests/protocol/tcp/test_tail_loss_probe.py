"""Tail loss probes (RFC 8985 §7; tcp_send_loss_probe, tcp_process_tlp_ack).

The probe timer of a flight of several segments is two round trips and 2 ms: 202 ms here, of
which ``Flight`` has let 100 pass.
"""

from __future__ import annotations

import pytest

from kit.flight import Flight
from kit.host import host
from ustack.config import TcpConfig
from ustack.tcp.cong.ops import TCP_CA_OPEN
from ustack.tcp.sock import ICSK_TIME_LOSS_PROBE, ICSK_TIME_RETRANS


@pytest.fixture
def f(server) -> Flight:
    return Flight(server, 5)


def probed(f: Flight) -> Flight:
    """The last segment has been sent again."""
    f.wait(102_000)
    assert f.segs() == [4]
    return f


@pytest.mark.rfc("8985", "7.3")
def test_after_two_round_trips_the_last_segment_goes_out_again(f):
    f.wait(101_000)
    assert f.segs() == []
    f.wait(1_000)
    assert f.segs() == [4]
    assert f.mib.TCPLossProbes == f.mib.RetransSegs == 1
    assert f.mib.TCPTimeouts == 0


@pytest.mark.rfc("8985", "7.3")
def test_new_data_is_a_better_probe(server):
    f = Flight(server)
    f.write(5)
    assert f.segs() == []
    f.wait(102_000)
    assert f.segs() == [10]
    assert (f.mib.TCPLossProbes, f.mib.RetransSegs) == (1, 0)


@pytest.mark.rfc("8985", "7.2")
def test_a_single_segment_gives_the_delayed_ack_its_time(server):
    f = Flight(server, 1)
    f.wait(190_000)
    assert f.segs() == []
    f.wait(20_000)
    assert f.segs() == [0]
    assert f.mib.TCPLossProbes == 1
    assert [rec.pcount for rec in f.sk._sk.rtx] == [1]


@pytest.mark.rfc("8985", "7.2")
def test_there_is_one_probe_and_then_the_timeout(f):
    probed(f)
    f.wait(290_000)
    assert f.segs() == []
    f.wait(20_000)
    assert f.segs() == [0]
    assert (f.mib.TCPLossProbes, f.mib.TCPTimeouts) == (1, 1)


def test_the_timeout_counts_from_the_probe(f):
    assert f.sk._sk.tp.icsk_pending == ICSK_TIME_LOSS_PROBE
    probed(f)
    assert f.sk._sk.tp.icsk_pending == ICSK_TIME_RETRANS
    left = f.sk._sk.tp.icsk_timeout_us - f.host.world.now_us
    assert left == f.tp.rto_us


@pytest.mark.rfc("8985", "7.4")
def test_a_probe_that_repaired_the_tail_costs_a_reduction(f):
    f.ack(4)
    f.wait(302_000)
    assert f.segs() == [4]
    f.wait(50_000)
    f.ack(5)
    cwnd = f.tp.snd_cwnd
    f.write(1)
    f.ack(6)
    assert f.mib.TCPLossProbeRecovery == 1
    assert f.tp.snd_cwnd == f.tp.snd_ssthresh == cwnd // 2
    assert f.tp.ca_state == TCP_CA_OPEN


@pytest.mark.rfc("8985", "7.4")
def test_a_d_sack_says_that_the_probe_was_superfluous(f):
    probed(f)
    f.wait(50_000)
    f.ack(5, (4, 5))
    cwnd = f.tp.snd_cwnd
    f.write(1)
    f.ack(6)
    assert f.mib.TCPLossProbeRecovery == 0
    assert f.tp.snd_cwnd >= cwnd


@pytest.mark.rfc("8985", "7.4")
def test_a_duplicate_ack_says_so_as_well(f):
    probed(f)
    f.ack(5)
    f.ack(5)
    f.write(1)
    f.ack(6)
    assert f.mib.TCPLossProbeRecovery == 0


@pytest.mark.rfc("8985", "7.4")
def test_an_acknowledged_probe_of_new_data_is_no_loss(server):
    f = Flight(server)
    f.write(2)
    f.wait(102_000)
    f.segs()
    f.ack(11)
    assert f.recovery.tlp_high_seq is None
    assert f.mib.TCPLossProbeRecovery == 0
    assert f.tp.snd_cwnd >= 10


@pytest.mark.rfc("8985", "7.3")
def test_the_sack_of_a_probe_shows_what_else_is_lost(f):
    probed(f)
    f.wait(100_000)
    f.ack(0, (4, 5))
    f.wait(30_000)
    assert f.segs()[0] == 0
    assert f.mib.TCPTimeouts == 0


@pytest.mark.linux("net.ipv4.tcp_early_retrans")
def test_tcp_early_retrans_0_means_no_probes():
    f = Flight(host(tcp=TcpConfig(tcp_early_retrans=0)), 5)
    f.wait(150_000)
    assert f.segs() == []
    f.wait(100_000)
    assert f.segs() == [0]


def test_without_sack_there_are_no_probes(server):
    f = Flight(server, 5, sack=False)
    f.wait(150_000)
    assert f.segs() == []
    assert f.mib.TCPLossProbes == 0


def test_in_disorder_there_are_no_probes(server):
    f = Flight(server, 5)
    f.ack(0, (1, 2))
    assert f.sk._sk.tp.icsk_pending != ICSK_TIME_LOSS_PROBE


def test_an_ack_starts_the_probe_timer_anew(f):
    f.ack(2)
    f.wait(200_000)
    assert f.segs() == []
    f.wait(5_000)
    assert f.segs() == [4]


def test_the_last_segment_of_a_super_frame_goes_alone(server):
    f = Flight(server)
    f.wait(102_000)
    assert f.segs() == [9]
    assert f.tp.packets_out == 10 and f.tp.retrans_out == 0


def test_karn_holds_for_a_probe(f):
    probed(f)
    srtt = f.tp.srtt_us
    f.wait(1_000)
    f.ack(5)
    assert f.tp.srtt_us == srtt


def test_when_all_is_acknowledged_no_timer_is_left(f):
    f.ack(5)
    assert not f.sk._sk.tp.icsk_timeout_us
    f.wait(1_000_000)
    assert f.segs() == []


@pytest.mark.linux("tcp_snd_wnd_test")
def test_a_window_with_room_for_less_than_a_segment_makes_the_last_one_the_probe(server):
    f = Flight(server, 5, win=43)  # 5504 bytes
    f.write(1)
    assert f.segs() == []
    f.wait(102_000)
    assert f.segs() == [4]
    assert f.mib.TCPLossProbes == 1


@pytest.mark.linux("tcp_process_tlp_ack: FLAG_DATA_SACKED")
def test_a_sack_of_data_beyond_the_probe_does_not_say_that_it_was_superfluous(f):
    f.wait(2 * 100_000 + 2_000)
    assert f.segs() == [4]
    f.wait(100_000)
    f.ack(5)
    f.write(3)
    f.wait(100_000)
    f.ack(5, (6, 7))
    assert f.recovery.tlp_high_seq is not None
    f.ack(8)
    assert f.mib.TCPLossProbeRecovery == 1
