"""Duplicate ACKs of one hole are held back for a moment (tcp_comp_sack_nr, Linux since 4.18)."""

from __future__ import annotations

import pytest

from kit.host import TEST_CONFIG, Host, host
from kit.peer import Peer
from ustack.config import TcpConfig

SACK = "mss 1460,nop,nop,sackOK"
MS = 1000


def quiet(server: Host, options: str = SACK) -> tuple[Peer, int]:
    """Return a peer far away whose quick ACKs are used up, and its next sequence number."""
    lsk = server.listen()
    peer = server.peer()
    peer.handshake(options)
    sk = lsk.accept()
    tp = sk._sk.tp
    at = 1
    while tp.ack_quick or at < 3000:
        server.advance_us(60 * MS)
        peer.send(f". {at}:{at + 100}(100) ack 1")
        at += len(sk.recv(1000))
    server.advance_us(300 * MS)
    peer.drain()
    tp.rcv_rtt_us = tp.srtt_us = 60 * MS << 3
    return peer, at


def beyond(peer: Peer, at: int, place: int) -> None:
    start = at + 100 * place
    peer.send(f". {start}:{start + 100}(100) ack 1")


@pytest.mark.linux("__tcp_ack_snd_check: dup_ack_counter")
def test_the_first_three_duplicate_acks_go_out_at_once(server):
    """Fast retransmit counts them."""
    peer, at = quiet(server)
    for place in range(1, 4):
        beyond(peer, at, place)
        peer.expect(f". 1:1(0) ack {at}")
    beyond(peer, at, 4)
    peer.expect_nothing()


@pytest.mark.linux("tcp_compressed_ack_kick")
def test_one_ack_stands_for_those_that_were_held_back(server):
    peer, at = quiet(server)
    for place in range(1, 8):
        beyond(peer, at, place)
    peer.drain()
    begin = server.world.now_us
    ack = peer.expect(f". 1:1(0) ack {at}", within_us=50 * MS)
    assert ack.time_us - begin == MS  # tcp_comp_sack_delay_ns
    assert ack.option("sack")[1] - ack.option("sack")[0] == 700
    assert server.mib.TCPAckCompressed == 3
    peer.expect_nothing(for_us=100 * MS)


@pytest.mark.linux("__tcp_ack_snd_check: the lesser of rcv_rtt_est and srtt")
@pytest.mark.parametrize(("rcv_ms", "srtt_ms"), [(4, 4), (4, 60), (60, 4), (4, 0)])
def test_on_a_short_path_they_wait_a_twentieth_of_its_rtt(server, rcv_ms, srtt_ms):
    peer, at = quiet(server)
    tp = next(iter(server.stack.tcp.ehash.values())).tp
    tp.rcv_rtt_us, tp.srtt_us = rcv_ms * MS << 3, srtt_ms * MS << 3
    for place in range(1, 5):
        beyond(peer, at, place)
    peer.drain()
    begin = server.world.now_us
    assert peer.expect_next(within_us=50 * MS).time_us - begin == 200


@pytest.mark.parametrize("most", [0, 2])
def test_no_more_are_held_back_than_tcp_comp_sack_nr(most):
    server = host(TEST_CONFIG, tcp=TcpConfig(tcp_comp_sack_nr=most))
    peer, at = quiet(server)
    for place in range(1, 4 + most):
        beyond(peer, at, place)
    assert len(peer.drain()) == 3
    beyond(peer, at, 4 + most)
    peer.expect(f". 1:1(0) ack {at}")


def test_filling_the_hole_ends_it(server):
    peer, at = quiet(server)
    for place in range(1, 6):
        beyond(peer, at, place)
    peer.drain()
    beyond(peer, at, 0)
    peer.expect(f". 1:1(0) ack {at + 600}")
    peer.expect_nothing(for_us=30 * MS)


@pytest.mark.linux("tcp_sack_new_ofo_skb: TCP_SACK_BLOCKS_EXPECTED")
def test_a_third_block_lets_what_was_held_back_go(server):
    """Before it would be pushed out of the option unseen."""
    peer, at = quiet(server)
    for place in (1, 2, 3, 4, 6):
        beyond(peer, at, place)
    assert len(peer.drain()) == 3
    beyond(peer, at, 8)
    assert len(peer.drain()) == 1


def test_without_sack_every_segment_gets_its_duplicate_ack(server):
    peer, at = quiet(server, "mss 1460")
    for place in range(1, 10):
        beyond(peer, at, place)
    assert len(peer.drain()) == 9


def test_a_connection_that_ends_leaves_no_timer(server):
    peer, at = quiet(server)
    for place in range(1, 6):
        beyond(peer, at, place)
    peer.send(f"R {at}:{at}(0)")
    peer.drain()
    peer.expect_nothing(for_us=100 * MS)
