"""Loss recovery of the older kernel: RFC 6675 and early retransmit, no RACK (Linux 3.10)."""

from __future__ import annotations

import pytest

from kit.flight import Flight
from kit.host import host
from ustack.config import LINUX_310, StackConfig, TcpConfig
from ustack.core.sysctl import with_profile
from ustack.tcp.cong.ops import TCP_CA_DISORDER, TCP_CA_RECOVERY

OLD = TcpConfig(tcp_recovery=0)


@pytest.fixture
def f() -> Flight:
    return Flight(host(tcp=OLD))


def test_the_profile_turns_rack_off():
    config = with_profile(StackConfig(), LINUX_310)
    assert (config.tcp.tcp_recovery, config.tcp.tcp_max_reordering) == (0, 127)


@pytest.mark.rfc("6675", "4")
def test_three_segments_above_the_hole_make_it_lost(f):
    f.ack(0, (1, 3))
    assert f.segs() == []
    assert f.tp.ca_state == TCP_CA_DISORDER
    f.ack(0, (1, 4))
    assert f.segs() == [0]
    assert f.tp.ca_state == TCP_CA_RECOVERY


@pytest.mark.rfc("6675", "4")
def test_a_hole_with_fewer_above_it_waits(f):
    f.ack(0, (1, 4), (5, 6))
    f.wait(100_000)
    f.ack(0, (1, 4), (5, 6))
    assert f.tp.lost_out == 1


@pytest.mark.rfc("6675", "4")
def test_every_hole_below_enough_segments_is_lost(f):
    f.ack(0, (1, 2), (3, 4), (6, 9))
    assert f.tp.lost_out == 4


def test_time_alone_loses_nothing(f):
    f.ack(0, (1, 2))
    f.wait(100_000)
    assert f.segs() == []


@pytest.mark.rfc("5827", "2.1")
def test_of_three_in_flight_one_duplicate_and_a_pause_are_enough():
    f = Flight(host(tcp=OLD), 2)
    f.ack(0, (1, 2))
    assert f.segs() == []
    f.wait(30_000)
    assert f.segs() == [0]
    assert f.mib.TCPSackRecovery == 1


@pytest.mark.rfc("5827", "2.1")
def test_the_pause_forgives_reordering():
    f = Flight(host(tcp=OLD), 2)
    f.ack(0, (1, 2))
    f.wait(10_000)
    f.ack(2)
    f.wait(500_000)
    assert f.segs() == []


@pytest.mark.linux("net.ipv4.tcp_early_retrans")
def test_mode_1_does_not_pause():
    f = Flight(host(tcp=TcpConfig(tcp_recovery=0, tcp_early_retrans=1)), 2)
    f.ack(0, (1, 2))
    assert f.segs() == [0]


@pytest.mark.linux("net.ipv4.tcp_early_retrans")
def test_mode_0_waits_for_the_timeout():
    f = Flight(host(tcp=TcpConfig(tcp_recovery=0, tcp_early_retrans=0)), 2)
    f.ack(0, (1, 2))
    f.wait(100_000)
    assert f.segs() == []


def test_with_more_to_send_there_is_no_early_retransmit():
    f = Flight(host(tcp=OLD), 3, win=24)
    f.peer.send(". 1:1(0) ack 1 win 23")
    f.write(5)
    f.out()
    f.peer.send(". 1:1(0) ack 1 win 23 <nop,nop,sack 1001:2001>")
    f.wait(30_000)
    assert f.mib.TCPSackRecovery == 0


def test_a_lost_repetition_waits_for_the_timeout():
    f = Flight(host(tcp=OLD))
    f.write(10)
    f.ack(0, (1, 4))
    f.segs()
    f.wait(100_000)
    f.ack(0, (1, 10))
    f.wait(50_000)
    f.ack(0, (1, 12))
    assert 0 not in f.segs()
    f.wait(1_000_000)
    assert 0 in f.segs()
    assert f.mib.TCPTimeouts >= 1


def test_the_tail_probe_is_there():
    f = Flight(host(tcp=OLD), 5)
    f.wait(102_000)
    assert f.segs() == [4]
