"""SACK blocks into the scoreboard (RFC 2018, RFC 2883, RFC 6675; tcp_sacktag_write_queue)."""

from __future__ import annotations

import pytest

from kit.flight import Flight
from ustack.tcp.cong.ops import TCP_CA_OPEN, TCP_CA_RECOVERY
from ustack.tcp.scoreboard import TCPCB_LOST, TCPCB_SACKED_ACKED


@pytest.fixture
def f(server) -> Flight:
    return Flight(server)


def marked(f: Flight, mark: int) -> list[tuple[int, int]]:
    """Return the ranges of segments with a mark."""
    iss = f.peer.host_iss
    assert iss is not None
    return [
        ((r.seq - iss - 1) // 1000, (r.end_seq - iss - 1) // 1000)
        for r in f.sk._sk.rtx
        if r.sacked & mark
    ]


def test_a_super_frame_is_split_at_the_edges_of_a_block(f):
    f.ack(0, (3, 5))
    assert marked(f, TCPCB_SACKED_ACKED) == [(3, 5)]
    assert f.tp.sacked_out == 2


def test_several_blocks_are_all_tagged(f):
    f.ack(0, (2, 3), (4, 5), (7, 9))
    assert marked(f, TCPCB_SACKED_ACKED) == [(2, 3), (4, 5), (7, 9)]


def test_neighbours_that_have_arrived_become_one_record(f):
    f.ack(0, (2, 3))
    f.ack(0, (4, 5), (2, 3))
    f.ack(0, (2, 5))
    assert marked(f, TCPCB_SACKED_ACKED) == [(2, 5)]


@pytest.mark.rfc("6675", "5")
def test_only_the_holes_are_repeated(f):
    f.ack(0, (1, 3), (4, 7))
    f.wait(100_000)
    f.ack(0, (1, 3), (4, 10))
    f.wait(100_000)
    assert sorted(f.segs()) == [0, 3]


def test_the_same_block_again_counts_once(f):
    for _ in range(3):
        f.ack(0, (5, 6))
    assert f.tp.sacked_out == 1


def test_a_cumulative_ack_takes_the_tagged_ones_off(f):
    f.ack(0, (2, 5))
    f.ack(3, (3, 5))
    assert f.tp.sacked_out == 2
    assert f.tp.packets_out == 7


@pytest.mark.parametrize(
    "block",
    ["10001:11001", "5001:4001", "3001:3001", "1:1001"],
    ids=["beyond SND.NXT", "reversed", "empty", "at SND.UNA"],
)
def test_a_block_that_makes_no_sense_is_ignored(f, block):
    f.peer.send(f". 1:1(0) ack 1 <nop,nop,sack {block}>")
    assert f.tp.sacked_out == 0
    assert f.mib.TCPSACKDiscard + f.mib.TCPDSACKIgnoredDubious >= 1


def test_a_block_of_less_than_a_segment_says_nothing(f):
    f.peer.send(". 1:1(0) ack 1 <nop,nop,sack 2101:2901>")
    assert f.tp.sacked_out == 0


def test_nor_does_it_where_a_segment_stands_alone(f):
    f.ack(0, (3, 4))
    f.peer.send(". 1:1(0) ack 1 <nop,nop,sack 3001:4001 9101:9901>")
    f.ack(0, (3, 4), (8, 9))
    f.peer.send(". 1:1(0) ack 1 <nop,nop,sack 9101:9901>")
    assert f.tp.sacked_out == 2


def test_a_block_that_ends_within_a_segment_covers_the_whole_ones(f):
    f.peer.send(". 1:1(0) ack 1 <nop,nop,sack 2001:4501>")
    assert marked(f, TCPCB_SACKED_ACKED) == [(2, 4)]


def test_without_permission_sack_is_not_looked_at(server):
    f = Flight(server, sack=False)
    f.ack(0, (4, 8))
    assert f.tp.sacked_out == 1  # as a duplicate ACK


def test_an_overtaken_ack_still_tells_what_has_come(f):
    f.ack(2)
    f.ack(1, (4, 6))
    assert marked(f, TCPCB_SACKED_ACKED) == [(4, 6)]


def test_when_all_is_acknowledged_the_scoreboard_is_gone(f):
    f.ack(0, (2, 5))
    assert f.sk._sk.rtx is not None
    f.ack(10)
    assert f.sk._sk.rtx is None
    assert f.tp.packets_out == f.tp.sacked_out == 0


def test_with_the_holes_filled_what_remains_is_a_plain_log_again(f):
    f.ack(0, (2, 5))
    f.ack(5)
    assert f.sk._sk.rtx is None
    assert f.tp.txlog.len and f.tp.packets_out == 5
    f.ack(10)
    assert f.tp.packets_out == 0


def test_a_connection_in_order_has_no_scoreboard(f):
    f.ack(5)
    f.ack(10)
    assert f.sk._sk.rtx is None and f.recovery is None


def test_lost_is_what_lies_below_what_has_arrived(f):
    f.ack(0, (4, 7))
    assert marked(f, TCPCB_LOST) == [(0, 1), (1, 4)] or f.tp.lost_out == 4


@pytest.mark.rfc("6675", "5")
def test_recovery_ends_when_all_that_was_out_is_acknowledged(f):
    f.ack(0, (1, 4))
    assert f.tp.ca_state == TCP_CA_RECOVERY
    f.wait(100_000)
    f.ack(9)
    assert f.tp.ca_state == TCP_CA_RECOVERY
    f.ack(10)
    assert f.tp.ca_state == TCP_CA_OPEN


def test_three_segments_arrived_are_one_recovery(f):
    f.ack(0, (1, 4))
    assert f.segs() == [0]
    assert (f.mib.TCPSackRecovery, f.mib.TCPRenoRecovery, f.mib.TCPFastRetrans) == (1, 0, 1)


def test_data_sent_during_recovery_is_tagged_too(f):
    f.write(10)
    f.ack(0, (1, 8))
    f.wait(100_000)
    new = [n for n in f.segs() if n >= 10]
    assert new
    f.ack(0, (1, 8), (10, 11))
    assert (10, 11) in marked(f, TCPCB_SACKED_ACKED)


def test_the_last_odd_segment_can_be_tagged(server):
    f = Flight(server, 0)
    f.sk.send(b"\0" * 0 + bytes(b"x" * 2500))
    f.peer.drain()
    f.peer.send(". 1:1(0) ack 1 <nop,nop,sack 2001:2501>")
    assert f.tp.sacked_out == 1


@pytest.mark.rfc("2883", "4")
def test_a_d_sack_below_the_ack_is_recognised(f):
    f.ack(0, (1, 4))
    f.ack(4, (0, 1))
    assert f.mib.TCPDSACKRecv == 1
    assert f.tp.sacked_out == 0


@pytest.mark.rfc("2883", "4.2")
def test_a_d_sack_above_the_ack_lies_within_the_second_block(f):
    f.ack(0, (1, 4))
    f.ack(0, (1, 2), (1, 5))
    assert f.mib.TCPDSACKOfoRecv == 1
    assert f.tp.sacked_out == 4


def test_d_sacks_for_more_than_was_repeated_are_not_believed(f):
    f.ack(2, (0, 1))
    assert f.mib.TCPDSACKIgnoredDubious == 1
    assert f.mib.TCPDSACKUndo == 0


@pytest.mark.rfc("6298", "3")
def test_a_sack_of_data_sent_once_is_an_rtt_sample(f):
    before = f.tp.srtt_us
    f.wait(100_000)
    f.ack(0, (2, 3))
    assert f.tp.srtt_us > before


def test_sequence_numbers_may_wrap_inside_the_flight(server):
    tcp = server.stack.tcp
    peer = server.peer()
    isn = tcp.secure_tcp_seq(server.addr, peer.addr, 80, peer.port + 1)
    server.advance_us(((-isn - 3500) & 0xFFFFFFFF) * 64 // 1000)
    f = Flight(server, rtt_us=1000)
    assert f.tp.iss > 0xFFFFF000 and f.tp.snd_nxt < 0x10000
    f.ack(0, (1, 8))
    assert f.segs() == [0]
    f.ack(10)
    assert f.tp.packets_out == 0
