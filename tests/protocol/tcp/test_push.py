"""Which segments carry PSH: tcp_mark_push in net/ipv4/tcp.c."""

from __future__ import annotations

import pytest

from kit.host import host
from kit.segment import pattern
from ustack.config import NicConfig, TcpConfig

PSH = 8
MSG_MORE = 0x8000
SECOND = 1_000_000


@pytest.fixture
def server():
    one = host()
    one.adapter.set_offload(tso=False, gso=False)  # a packet of the queue is a segment
    return one


def pushes(peer):
    """Return the ends of the segments that have come with PSH."""
    return [
        s.seq - peer.host_iss + len(s.payload) & 0xFFFFFFFF for s in peer.drain() if s.flags & PSH
    ]


@pytest.mark.rfc("9293", "3.9.1")
def test_the_end_of_a_write_is_pushed(server):
    sk, peer = server.established("mss 1000", win=60_000)
    sk.send(pattern(0, 500))
    assert pushes(peer) == [501]


@pytest.mark.linux("tcp_sendmsg_locked: if (!copied) tcp_flags &= ~TCPHDR_PSH")
def test_a_mark_moves_to_the_end_of_what_is_added(server):
    sk, peer = server.established("mss 1000", win=60_000)
    sk.send(pattern(0, 100))
    sk.send(pattern(100, 100))  # Nagle
    sk.send(pattern(200, 100))
    assert pushes(peer) == [101]
    peer.send(". 1:1(0) ack 101 win 60000")
    assert pushes(peer) == [301]


@pytest.mark.linux("tcp_push: !(flags & MSG_MORE) || forced_push(tp)")
def test_announced_or_not_half_of_the_largest_window_is_pushed(server):
    sk, peer = server.established("mss 1000", win=60_000)
    sk._sk.tp.snd_cwnd = 100
    sk.send(pattern(0, 20_000), MSG_MORE)
    assert pushes(peer) == []
    sk.send(pattern(20_000, 11_000), MSG_MORE)
    assert pushes(peer) == [31_001]


@pytest.mark.linux("__tcp_retransmit_skb sends the skb's own tcp_flags")
def test_a_repeated_segment_keeps_its_mark_though_more_has_been_written(server):
    sk, peer = server.established("mss 1000", win=60_000)
    sk.send(pattern(0, 100))
    sk.send(pattern(100, 100))
    peer.expect("P. 1:101(100) ack 1")
    peer.expect("P. 1:101(100) ack 1", within_us=SECOND)


@pytest.mark.linux("tcp_fragment: flags & ~(TCPHDR_FIN | TCPHDR_PSH) for the first part")
def test_the_first_part_of_what_is_repeated_in_parts_is_not_pushed():
    one = host(nic=NicConfig())
    sk, peer = one.established("mss 1000,nop,wscale 7", win=60_000)
    sk.send(pattern(0, 3000))
    peer.expect("P. 1:3001(3000) ack 1")
    peer.expect(". 1:1001(1000) ack 1", within_us=SECOND)
    peer.send(". 1:1(0) ack 2001 win 60000")
    peer.expect("P. 2001:3001(1000) ack 1", within_us=SECOND)


def test_marks_survive_selective_acknowledgments(server):
    """Records that are joined by SACK (tcp_shifted_skb) and the log are one queue."""
    sk, peer = server.established("mss 1000,nop,nop,sackOK", win=60_000)
    for n in range(5):
        sk.send(pattern(1000 * n, 1000))
    peer.drain()
    peer.send(". 1:1(0) ack 1 win 60000 <nop,nop,sack 2001:5001>")
    assert pushes(peer) == [1001, 2001]
    peer.send(". 1:1(0) ack 5001 win 60000")
    sk.send(pattern(5000, 1000))
    peer.expect("P. 5001:6001(1000) ack 1")


@pytest.mark.linux("tcp_tso_autosize: bytes = sk->sk_pacing_rate >> sk_pacing_shift")
@pytest.mark.parametrize(("rtt_ms", "frames"), [(0, [5, 5]), (100, [2, 2, 2, 2, 2])])
def test_a_super_frame_is_what_the_pacing_rate_makes_in_a_millisecond(rtt_ms, frames):
    one = host(nic=NicConfig())
    lsk = one.listen()
    peer = one.peer()
    peer.send("S 0:0(0) win 60000 <mss 1000,nop,wscale 7>")
    one.advance_us(rtt_ms * 1000)
    peer.drain()
    peer.send(". 1:1(0) ack 1 win 60000")
    lsk.accept().send(pattern(0, 10_000))
    assert [len(s.payload) // 1000 for s in peer.drain()] == frames


@pytest.mark.linux("net.ipv4.tcp_tso_rtt_log, net.ipv4.tcp_min_tso_segs")
@pytest.mark.parametrize(
    ("config", "first"),
    [({}, 2), ({"tcp_tso_rtt_log": 20}, 5), ({"tcp_min_tso_segs": 3}, 3)],
)
def test_a_short_path_and_a_least_number_make_super_frames_larger(config, first):
    one = host(nic=NicConfig(), tcp=TcpConfig(**config))
    lsk = one.listen()
    peer = one.peer()
    peer.send("S 0:0(0) win 60000 <mss 1000,nop,wscale 7>")
    one.advance_us(100_000)
    peer.drain()
    peer.send(". 1:1(0) ack 1 win 60000")
    lsk.accept().send(pattern(0, 10_000))
    assert len(peer.drain()[0].payload) == first * 1000
