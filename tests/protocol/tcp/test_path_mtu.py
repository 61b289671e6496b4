"""Path MTU discovery: RFC 1191, and RFC 5927's care with who may say it."""

from __future__ import annotations

import pytest

from kit.host import host
from kit.icmp import frag_needed
from kit.segment import Segment, pattern
from ustack.config import TcpConfig


@pytest.mark.rfc("1191", "6")
def test_segments_shrink_to_the_mtu_that_a_router_reports(server):
    sk, peer = server.established("mss 1460,nop,wscale 7")
    sk.send(pattern(0, 6_000))
    first = peer.drain()[0]
    assert len(first.payload) == 1460
    frag_needed(server, first, 1000)
    again = peer.drain()
    assert again, "nothing was repeated at once"
    assert again[0].seq == first.seq
    assert all(s.df for s in again)
    peer.send(". 1:1(0) ack 6001")
    sk.send(pattern(6_000, 5_000))
    assert max(len(s.payload) for s in [*again, *peer.drain()]) == 960


@pytest.mark.rfc("1191", "6.3")
def test_ten_minutes_later_the_larger_size_is_tried_again(server):
    sk, peer = server.established("mss 1460,nop,wscale 7")
    sk.send(pattern(0, 6_000))
    frag_needed(server, peer.drain()[0], 1000)
    peer.send(". 1:1(0) ack 6001")
    peer.drain()
    server.advance_us(599_000_000)
    sk.send(pattern(6_000, 2_000))
    assert max(len(s.payload) for s in peer.drain()) == 960
    peer.send(". 1:1(0) ack 8001")
    server.advance_us(2_000_000)
    sk.send(pattern(8_000, 3_000))
    assert max(len(s.payload) for s in peer.drain()) == 1460


def test_a_second_connection_to_the_host_knows_what_the_first_has_learnt(server):
    lsk = server.listen(80)
    peers = [server.peer(port=port) for port in (40001, 40002)]
    for peer in peers:
        peer.handshake("mss 1460,nop,wscale 7")
    first, second = lsk.accept(), lsk.accept()
    first.send(pattern(0, 6_000))
    frag_needed(server, peers[0].drain()[0], 1000)
    second.send(pattern(0, 3_000))
    assert max(len(s.payload) for s in peers[1].drain()) == 960


@pytest.mark.rfc("5927", "4.1")
def test_an_error_about_a_segment_that_is_not_in_flight_is_ignored(server):
    sk, peer = server.established("mss 1460,nop,wscale 7")
    sk.send(pattern(0, 6_000))
    first = peer.drain()[0]
    forged = Segment(first.saddr, first.daddr, first.sport, first.dport, first.seq - 9, 0, 16, 0)
    frag_needed(server, forged, 600)
    peer.expect_nothing()
    sk.send(pattern(6_000, 5_000))
    assert max(len(s.payload) for s in peer.drain()) == 1460


@pytest.mark.parametrize("mtu", [0, 67, 552, 1500, 65535])
def test_senseless_mtus_do_no_harm(server, mtu):
    sk, peer = server.established("mss 1460,nop,wscale 7")
    sk.send(pattern(0, 6_000))
    first = peer.drain()[0]
    frag_needed(server, first, mtu)
    peer.drain()
    peer.send(". 1:1(0) ack 6001")
    sk.send(pattern(6_000, 6_000))
    segments = peer.drain()
    sent = b"".join(s.payload for s in segments)
    assert len(sent) >= 5_000 and sent == pattern(6_000, len(sent))
    assert min(len(s.payload) for s in segments[:-1]) >= 488


@pytest.mark.linux("tcp_simple_retransmit")
def test_only_what_is_too_large_for_the_path_is_repeated(server):
    sk, peer = server.established("mss 1460,nop,wscale 7")
    sk.setsockopt(6, 1, 1)
    for at, size in ((0, 1460), (1460, 100), (1560, 1460)):
        sk.send(pattern(at, size))
    sent = peer.drain()
    assert [len(s.payload) for s in sent] == [1460, 100, 1460]
    sk._sk.tp.snd_ssthresh = 4
    frag_needed(server, sent[0], 1000)
    peer.send(". 1:1(0) ack 1461")
    assert sum(len(s.payload) for s in peer.drain()) == 2 * 1460
    assert sk._sk.tp.snd_ssthresh == 7  # three quarters of cwnd: this is no congestion


@pytest.mark.linux("tcp_init_buffer_space: tcp_app_win")
@pytest.mark.parametrize(("app_win", "part"), [(31, 0), (2, 1 / 4), (1, 1 / 2)])
def test_a_part_of_the_buffer_may_be_kept_for_the_application(app_win, part):
    one = host(tcp=TcpConfig(tcp_app_win=app_win))
    sk, _ = one.established("mss 1460,nop,wscale 7")
    tp = sk._sk.tp
    most = tp.sk_rcvbuf * tp.scaling_ratio >> 8
    assert tp.window_clamp == most - max(int(most * part), tp.advmss)
