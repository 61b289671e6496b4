"""Segments out of order: kept, reported with SACK (RFC 2018), put together."""

from __future__ import annotations

import itertools
import random

import pytest

from kit.segment import pattern
from ustack.lib.seqnum import after

SACK = "mss 1460,nop,nop,sackOK"


@pytest.mark.rfc("9293", "MUST-31")
def test_what_lies_beyond_a_hole_is_kept_until_the_hole_is_filled(server):
    sk, peer = server.established()
    peer.send("P. 101:201(100) ack 1")
    peer.expect(". 1:1(0) ack 1")
    with pytest.raises(BlockingIOError):
        sk.recv(10)
    peer.send("P. 1:101(100) ack 1")
    peer.expect(". 1:1(0) ack 201")
    assert sk.recv(1000) == pattern(0, 200)
    assert server.mib.TCPOFOQueue == 1


@pytest.mark.rfc("5681", "4.2")
def test_every_segment_out_of_order_gets_a_duplicate_ack(server):
    _, peer = server.established()
    for i in range(1, 6):
        peer.send(f". {1 + 100 * i}:{101 + 100 * i}(100) ack 1")
        peer.expect(". 1:1(0) ack 1")


@pytest.mark.rfc("2018", "4")
def test_the_first_sack_block_is_the_latest_segment(server):
    _, peer = server.established(SACK)
    peer.send(". 101:201(100) ack 1")
    peer.expect(". 1:1(0) ack 1 <nop,nop,sack 101:201>")
    peer.send(". 301:401(100) ack 1")
    peer.expect(". 1:1(0) ack 1 <nop,nop,sack 301:401 101:201>")
    peer.send(". 501:601(100) ack 1")
    peer.expect(". 1:1(0) ack 1 <nop,nop,sack 501:601 301:401 101:201>")
    peer.send(". 201:301(100) ack 1")
    peer.expect(". 1:1(0) ack 1 <nop,nop,sack 101:401 501:601>")
    peer.send(". 1:101(100) ack 1")
    peer.expect(". 1:1(0) ack 401 <nop,nop,sack 501:601>")
    peer.send(". 401:501(100) ack 1")
    peer.expect(". 1:1(0) ack 601 <>")


@pytest.mark.rfc("2018", "3")
def test_beside_timestamps_three_blocks_fit(server):
    _, peer = server.established("mss 1460,sackOK,TS val 1 ecr 0")
    for i in range(1, 6):
        peer.send(f". {200 * i}:{200 * i + 10}(10) ack 1 <nop,nop,TS val 2 ecr *>")
    last = peer.drain()[-1]
    assert [n for n, _ in last.options] == ["nop", "nop", "TS", "nop", "nop", "sack"]
    assert len(last.option("sack")) == 6


def test_no_blocks_are_sent_to_a_peer_that_did_not_permit_them(server):
    _, peer = server.established("mss 1460")
    peer.send(". 101:201(100) ack 1")
    peer.expect(". 1:1(0) ack 1 <>")


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_any_order_of_four_segments_and_a_fin_gives_the_same_stream(server, order):
    sk, peer = server.established(SACK)
    pieces = [(1, 101), (101, 201), (201, 301), (301, 401)]
    for index in order:
        start, end = pieces[index]
        fin = "F" if index == 3 else ""
        peer.send(f"{fin}P. {start}:{end}({end - start}) ack 1")
    assert sk.recv(1000) == pattern(0, 400)
    assert sk.recv(1000) == b""
    server.advance_us(1_000_000)
    assert peer.drain()[-1].ack == (peer.iss + 402) & 0xFFFFFFFF


@pytest.mark.parametrize("seed", range(20))
def test_overlapping_pieces_in_any_order_give_the_stream(server, seed):
    rng = random.Random(seed)
    sk, peer = server.established(SACK)
    total = 3000
    cuts = [(a, min(a + rng.randrange(50, 400), total)) for a in range(0, total, 50)]
    rng.shuffle(cuts)
    for start, end in cuts:
        peer.send(f". {1 + start}:{1 + end}({end - start}) ack 1")
    got = b""
    while len(got) < total:
        got += sk.recv(700)
    assert got == pattern(0, total)
    last = peer.drain()[-1]
    edges = [edge for name, values in last.options if name == "sack" for edge in values]
    assert not [edge for edge in edges if after(edge, last.ack)]  # nothing but duplicates


def test_what_is_beyond_the_window_is_cut_off(server):
    sk, peer = server.established(SACK)
    peer.send(". 1000001:1000101(100) ack 1")
    peer.expect(". 1:1(0) ack 1 <>")
    with pytest.raises(BlockingIOError):
        sk.recv(1)


@pytest.mark.rfc("2883", "4")
def test_what_comes_twice_is_reported_once(server):
    """tcp_dsack_set: the first block of the next ACK is the duplicate, the one after has none."""
    sk, peer = server.established(SACK)
    peer.send("P. 1:101(100) ack 1")
    peer.expect(". 1:1(0) ack 101")
    peer.send("P. 1:101(100) ack 1")
    peer.expect(". 1:1(0) ack 101 <nop,nop,sack 1:101>")
    assert server.stack.tcp.mib_ext.TCPDSACKOldSent == 1
    peer.send("P. 101:201(100) ack 1")
    peer.expect(". 1:1(0) ack 201")
    assert sk.recv(1000) == pattern(0, 200)


def test_close_keeps_what_waits_behind_a_hole_and_reports_it(server):
    sk, peer = server.established("mss 1460,nop,nop,sackOK")
    peer.send("P. 101:201(100) ack 1")
    peer.expect(". 1:1(0) ack 1 <nop,nop,sack 101:201>")
    sk.close()
    peer.expect("F. 1:1(0) ack 1 <nop,nop,sack 101:201>")
    peer.send(". 1:1(0) ack 2")
    peer.send("P. 1:101(100) ack 2")
    peer.expect("R 2:2(0)")
