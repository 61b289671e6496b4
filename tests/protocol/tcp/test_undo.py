"""Undoing a reduction: Eifel by timestamps (RFC 3522, RFC 4015), D-SACK (RFC 3708)."""

from __future__ import annotations

import pytest

from kit.flight import Flight
from kit.host import host
from ustack.config import TcpConfig
from ustack.tcp.cong.ops import TCP_CA_LOSS, TCP_CA_OPEN, TCP_CA_RECOVERY


@pytest.fixture
def ts(server) -> Flight:
    """In recovery, segment 0 repeated, timestamps in use."""
    f = Flight(server, ts=True)
    f.ack(0, (1, 4), ecr=f.first_ts)
    assert f.segs() == [0]
    assert f.tp.ca_state == TCP_CA_RECOVERY
    f.wait(2_000)
    return f


@pytest.fixture
def plain(server) -> Flight:
    """The same without timestamps."""
    f = Flight(server)
    f.ack(0, (1, 4))
    assert f.segs() == [0]
    f.wait(2_000)
    return f


@pytest.mark.rfc("4015", "3")
def test_the_echo_of_the_first_sending_undoes_the_whole_recovery(ts):
    ts.ack(10, ecr=ts.first_ts)
    assert ts.mib.TCPFullUndo == 1
    assert ts.tp.ca_state == TCP_CA_OPEN
    assert ts.tp.snd_cwnd >= 10
    assert ts.tp.snd_ssthresh > 1000


@pytest.mark.rfc("3522", "3.2")
def test_the_echo_of_the_repetition_undoes_nothing(ts):
    ts.ack(10)
    assert ts.mib.TCPFullUndo == 0
    assert ts.tp.snd_ssthresh == 5 and ts.tp.snd_cwnd <= 6


def test_without_timestamps_nothing_is_known(plain):
    plain.ack(10)
    assert plain.mib.TCPFullUndo == 0
    assert plain.tp.snd_ssthresh == 5 and plain.tp.snd_cwnd <= 6


@pytest.mark.rfc("4015", "3")
def test_a_hole_filled_by_the_original_undoes_early(ts):
    ts.ack(4, (5, 6), ecr=ts.first_ts)
    assert ts.mib.TCPPartialUndo == 1
    assert ts.mib.TCPTSReorder == 1
    assert ts.tp.snd_cwnd >= 10


def test_while_repetitions_are_out_a_partial_undo_waits(server):
    f = Flight(server, ts=True)
    f.write(10)
    f.ack(0, (1, 2), (3, 8), ecr=f.first_ts)
    assert f.tp.retrans_out == 2
    f.wait(2_000)
    f.ack(2, (3, 8), ecr=f.first_ts)
    assert f.mib.TCPPartialUndo == 0
    assert f.tp.ca_state == TCP_CA_RECOVERY


@pytest.mark.rfc("3708", "2")
def test_a_d_sack_of_every_repetition_undoes(plain):
    plain.ack(4, (0, 1))
    assert plain.mib.TCPDSACKUndo == 1
    assert plain.tp.snd_cwnd >= 10
    assert plain.tp.ca_state == TCP_CA_OPEN


@pytest.mark.rfc("3708", "2")
def test_a_d_sack_of_some_repetitions_does_not(server):
    f = Flight(server)
    f.write(10)
    f.ack(0, (1, 2), (3, 8))
    assert f.tp.retrans_out == 2
    f.wait(50_000)
    f.ack(2, (0, 1), (3, 8))
    assert f.mib.TCPDSACKUndo == 0
    f.wait(1_000)
    f.ack(8, (2, 3))
    assert f.mib.TCPDSACKUndo == 1


def test_a_d_sack_after_the_recovery_still_undoes(plain):
    plain.wait(100_000)
    plain.ack(10)
    assert plain.tp.snd_cwnd <= 6
    plain.ack(10, (0, 1))
    assert plain.mib.TCPDSACKUndo == 1
    assert plain.tp.snd_cwnd >= 10


@pytest.mark.linux("tcp_init_undo: undo_retrans = -1")
def test_a_recovery_that_has_repeated_nothing_yet_is_not_undone(server):
    f = Flight(server)
    f.sk.setsockopt(1, 47, 1000)  # SO_MAX_PACING_RATE: the next segment may go in a second
    f.ack(1)
    f.write(1)
    assert f.segs() == [10]
    f.ack(1, (2, 5))
    f.ack(1, (2, 6))
    assert f.segs() == []
    assert f.tp.ca_state == TCP_CA_RECOVERY
    assert f.mib.TCPDSACKUndo == 0


def test_an_undo_happens_once(plain):
    plain.ack(4, (0, 1))
    plain.ack(4, (0, 1))
    assert plain.mib.TCPDSACKUndo == 1


@pytest.mark.rfc("4015", "3")
def test_a_spurious_timeout_is_undone_by_the_timestamp():
    f = Flight(host(tcp=TcpConfig(tcp_early_retrans=0)), ts=True)
    f.wait(250_000)
    assert f.segs() == [0]
    assert f.tp.ca_state == TCP_CA_LOSS
    f.ack(3, ecr=f.first_ts)
    assert f.mib.TCPLossUndo == 1
    assert f.mib.TCPSpuriousRTOs == 0
    assert f.tp.snd_cwnd >= 10
    assert f.tp.ca_state == TCP_CA_OPEN


def test_a_real_timeout_is_not_undone():
    f = Flight(host(tcp=TcpConfig(tcp_early_retrans=0)), ts=True)
    f.wait(250_000)
    f.segs()
    f.ack(1)
    assert f.mib.TCPLossUndo == 0
    assert f.tp.ca_state == TCP_CA_LOSS


def test_undone_losses_are_not_repeated(server):
    f = Flight(host(tcp=TcpConfig(tcp_early_retrans=0)), ts=True)
    f.wait(250_000)
    f.segs()
    f.ack(3, ecr=f.first_ts)
    assert f.tp.lost_out == 0
    assert f.segs() == []
    f.ack(10)
    f.wait(2_000_000)
    assert f.mib.RetransSegs == 1
    del server


def test_without_sack_timestamps_undo_as_well(server):
    f = Flight(server, 0, sack=False)
    lsk = server.listen(81)
    peer = server.peer(to=81)
    peer.send("S 0:0(0) win 65535 <mss 1012,nop,nop,TS val 1 ecr 0,nop,wscale 7>")
    peer.expect("S. 0:0(0) ack 1")
    peer.send(". 1:1(0) ack 1 win 65535 <nop,nop,TS val 1 ecr *>")
    sk = lsk.accept()
    sk.send(bytes(10_000))
    peer.drain()
    first = peer.last_ts_val
    server.advance_us(100_000)
    for _ in range(3):
        peer.send(f". 1:1(0) ack 1 <nop,nop,TS val 1 ecr {first}>")
    assert len(peer.drain()) == 1
    server.advance_us(2_000)
    peer.send(f". 1:1(0) ack 10001 <nop,nop,TS val 1 ecr {first}>")
    assert server.mib.TCPFullUndo == 1
    del f


@pytest.mark.linux("tcp_packet_delayed: no retransmission has happened yet")
@pytest.mark.parametrize("ts", [False, True])
def test_what_arrives_before_anything_was_repeated_was_merely_late(server, ts):
    f = Flight(server, ts=ts)
    f.sk.setsockopt(1, 47, 1000)  # SO_MAX_PACING_RATE: the next segment may go in a second
    f.ack(1)
    f.write(1)
    assert f.segs() == [10]
    f.ack(1, (2, 6))
    assert (f.tp.ca_state, f.segs()) == (TCP_CA_RECOVERY, [])
    f.ack(11)
    assert (f.tp.ca_state, f.mib.TCPFullUndo) == (TCP_CA_OPEN, 1)
    assert f.tp.snd_cwnd >= 10
