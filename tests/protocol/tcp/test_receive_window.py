"""The window we offer: how it begins, grows with what is read, closes and opens again.

RFC 9293 §3.8.6; tcp_select_window, tcp_grow_window, tcp_rcv_space_adjust, tcp_rcvbuf_grow.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from kit.host import TEST_CONFIG, Host, host
from kit.peer import Peer
from ustack.config import LINUX_310, TcpConfig, UstackConfig
from ustack.tcp.window import tcp_rcvbuf_grow

MS = 1000
SOL_SOCKET, SO_RCVBUF = 1, 8
IPPROTO_TCP, TCP_WINDOW_CLAMP = 6, 10
SCALED = "mss 1460,nop,wscale 7"


def edge(peer: Peer, seg, scale: int = 0) -> int:
    """The right edge that an ACK offers, as a relative number."""
    return (seg.ack - peer.iss & 0xFFFFFFFF) + (seg.window << scale)


def pour(server: Host, peer: Peer, at: int, rounds: int, rtt_us: int, read=None) -> int:
    """Fill the window once per round trip; return the next sequence number."""
    scale = next(iter(server.stack.tcp.ehash.values())).tp.rcv_wscale
    right = at + 64_000
    for _ in range(rounds):
        while at + 1460 <= right:
            peer.send(f". {at}:{at + 1460}(1460) ack 1")
            at += 1460
            if read is not None:
                read.recv(1 << 20)
        for seg in peer.drain():
            right = max(right, edge(peer, seg, scale))
        server.advance_us(rtt_us)
        for seg in peer.drain():
            right = max(right, edge(peer, seg, scale))
    return at


@pytest.mark.linux("tcp_select_initial_window: a multiple of the segment size")
@pytest.mark.parametrize(
    ("options", "window"), [("mss 1460", 64_240), ("mss 1460,sackOK,TS val 1 ecr 0", 65_160)]
)
def test_the_first_window_is_half_of_the_buffer_in_whole_segments(server, options, window):
    server.listen()
    peer = server.peer()
    peer.send(f"S 0:0(0) <{options}>")
    peer.expect(f"S. 0:0(0) ack 1 win {window}")


@pytest.mark.rfc("7323", "2.2")
@pytest.mark.parametrize(
    ("most", "scale"), [(65_536, 1), (131_072, 2), (6_291_456, 7), (33_554_432, 10)]
)
def test_the_scale_is_that_of_the_largest_buffer(most, scale):
    server = host(TEST_CONFIG, tcp=TcpConfig(tcp_rmem=(4096, 32_768, most)))
    server.listen()
    peer = server.peer()
    peer.send(f"S 0:0(0) <{SCALED}>")
    assert peer.expect("S. 0:0(0) ack 1").option("wscale") == (scale,)


@pytest.mark.linux("tcp_workaround_signed_windows")
def test_a_peer_that_takes_windows_for_signed_numbers_can_be_spared():
    server = host(TEST_CONFIG, tcp=TcpConfig(tcp_workaround_signed_windows=True))
    server.listen()
    peer = server.peer()
    peer.send("S 0:0(0) <mss 1460>")
    peer.expect("S. 0:0(0) ack 1 win 32767")


@pytest.mark.linux("tcp_measure_rcv_mss: scaling_ratio")
def test_full_segments_make_more_of_the_buffer_window(server):
    sk, peer = server.established(SCALED)
    tp = sk._sk.tp
    assert tp.scaling_ratio == 128
    peer.send(". 1:1461(1460) ack 1")
    assert tp.scaling_ratio == 1460 * 256 // 2176


def test_in_the_old_kernel_the_part_is_fixed_by_tcp_adv_win_scale():
    config = replace(TEST_CONFIG, ustack=UstackConfig(profile=LINUX_310))
    for scale, part in ((1, 2), (2, 4 / 3), (-2, 4)):
        server = host(config, tcp=TcpConfig(tcp_adv_win_scale=scale))
        sk, peer = server.established(SCALED)
        peer.send(". 1:1461(1460) ack 1")
        sk.recv(2000)
        full = int(131_072 / part)
        assert full - 2 * 1460 <= sk._sk.tp.window_clamp <= full


@pytest.mark.linux("tcp_grow_window: two segments a segment")
def test_the_offer_grows_by_two_segments_with_each_segment(server):
    """Linux 6.18 offered 67, 70, 73, 75, 78 units of 1024 to the same segments."""
    server = host(TEST_CONFIG, tcp=TcpConfig(tcp_rmem=(4096, 131_072, 33_554_432)))
    lsk = server.listen()
    peer = server.peer()
    peer.handshake("mss 1460,sackOK,TS val 1 ecr 0,nop,wscale 7", ts="nop,nop,TS val 1 ecr *")
    lsk.accept()
    windows = []
    for i in range(5):
        at = 1 + 1448 * i
        peer.send(f". {at}:{at + 1448}(1448) ack 1 <nop,nop,TS val 2 ecr *>")
        windows.append(peer.expect_next(within_us=50 * MS).window)
    assert windows == [67, 70, 73, 75, 78]


@pytest.mark.linux("__tcp_grow_window")
def test_tiny_segments_do_not_open_the_window_far():
    server = host(TEST_CONFIG, tcp=TcpConfig(tcp_rmem=(4096, 131_072, 131_072)))
    sk, peer = server.established(SCALED)
    before = sk._sk.tp.rcv_ssthresh
    for at in range(1, 4000, 130):
        peer.send(f". {at}:{at + 130}(130) ack 1")
        sk.recv(1000)
    assert sk._sk.tp.rcv_ssthresh == before


@pytest.mark.linux("__tcp_grow_window: truesize >>= 1, window >>= 1")
@pytest.mark.parametrize(("size", "grows"), [(1, False), (500, True)])
def test_how_small_may_be_depends_on_how_far_the_offer_is_from_the_largest(size, grows):
    server = host(TEST_CONFIG, tcp=TcpConfig(tcp_rmem=(4096, 1 << 20, 6 << 20)))
    sk, peer = server.established(SCALED)
    before = sk._sk.tp.rcv_ssthresh
    for i in range(4):
        peer.send(f". {1 + i * size}:{1 + (i + 1) * size}({size}) ack 1")
        sk.recv(1000)
    assert (sk._sk.tp.rcv_ssthresh > before) is grows


@pytest.mark.linux("tcp_rcv_space_adjust: dynamic right-sizing")
def test_the_buffer_grows_to_what_is_read_in_a_round_trip(server):
    sk, peer = server.established(SCALED)
    tp = sk._sk.tp
    first = tp.sk_rcvbuf
    pour(server, peer, 1, 6, 50 * MS, read=sk)
    assert tp.sk_rcvbuf > 4 * first
    assert tp.sk_rcvbuf <= server.stack.tcp.config.tcp_rmem[2]


def test_a_reader_that_does_not_read_gets_no_larger_buffer(server):
    sk, peer = server.established(SCALED)
    first = sk._sk.tp.sk_rcvbuf
    pour(server, peer, 1, 5, 50 * MS)
    assert sk._sk.tp.sk_rcvbuf == first


def test_it_never_grows_beyond_tcp_rmem():
    server = host(TEST_CONFIG, tcp=TcpConfig(tcp_rmem=(4096, 131_072, 300_000)))
    sk, peer = server.established(SCALED)
    pour(server, peer, 1, 10, 50 * MS, read=sk)
    assert sk._sk.tp.sk_rcvbuf == 300_000


@pytest.mark.linux("net.ipv4.tcp_moderate_rcvbuf")
def test_with_tcp_moderate_rcvbuf_0_it_stays_as_it_is():
    server = host(TEST_CONFIG, tcp=TcpConfig(tcp_moderate_rcvbuf=False))
    sk, peer = server.established(SCALED)
    pour(server, peer, 1, 8, 50 * MS, read=sk)
    assert sk._sk.tp.sk_rcvbuf == 131_072


@pytest.mark.linux("SOCK_RCVBUF_LOCK")
def test_a_size_that_the_application_has_set_stays(server):
    lsk = server.socket()
    lsk.setsockopt(SOL_SOCKET, SO_RCVBUF, 100_000)
    lsk.bind(0, 80)
    lsk.listen(1)
    peer = server.peer()
    peer.handshake(SCALED)
    sk = lsk.accept()
    pour(server, peer, 1, 8, 50 * MS, read=sk)
    assert sk._sk.tp.sk_rcvbuf == 200_000
    assert sk.getsockopt(SOL_SOCKET, SO_RCVBUF) == 200_000


@pytest.mark.rfc("9293", "MUST-34")
@pytest.mark.parametrize("options", ["mss 1460", SCALED])
def test_the_right_edge_never_moves_back(server, options):
    sk, peer = server.established(options)
    scale = sk._sk.tp.rcv_wscale
    at, right = 1, 0
    for i in range(200):
        size = (1460, 1, 700, 1460)[i % 4]
        if right and at + size > right:
            sk.recv(20_000)
            server.settle()
        peer.send(f". {at}:{at + size}({size}) ack 1")
        server.advance_us(50 * MS)
        for seg in peer.drain():
            now = edge(peer, seg, scale)
            assert now >= right
            right = now
            at = seg.ack - peer.iss & 0xFFFFFFFF


@pytest.mark.linux("tcp_shrink_window")
def test_a_scaled_window_may_be_taken_back_if_that_is_allowed():
    edges = {}
    for allowed in (False, True):
        config = TcpConfig(tcp_rmem=(4096, 65_536, 65_536), tcp_shrink_window=allowed)
        server = host(TEST_CONFIG, tcp=config)
        sk, peer = server.established(SCALED)
        at, seen = 1, []
        while at < 20_000:
            peer.send(f". {at}:{at + 1460}(1460) ack 1")
            at += 1460
            server.advance_us(50 * MS)
            seen += [edge(peer, seg, sk._sk.tp.rcv_wscale) for seg in peer.drain()]
        sk._sk.tp.sk_rcvbuf = 16_384  # memory has become scarce
        peer.send(f". {at}:{at + 1460}(1460) ack 1")
        server.advance_us(200 * MS)
        seen += [edge(peer, seg, sk._sk.tp.rcv_wscale) for seg in peer.drain()]
        edges[allowed] = seen
    assert edges[False] == sorted(edges[False])
    assert edges[True][-1] < max(edges[True])


@pytest.mark.linux("tcp_set_window_clamp")
def test_tcp_window_clamp_limits_the_first_window_and_its_scale(server):
    lsk = server.socket()
    lsk.setsockopt(IPPROTO_TCP, TCP_WINDOW_CLAMP, 10_000)
    lsk.bind(0, 80)
    lsk.listen(1)
    peer = server.peer()
    peer.send(f"S 0:0(0) <{SCALED}>")
    syn_ack = peer.expect("S. 0:0(0) ack 1 win 8760")
    assert syn_ack.option("wscale") == (0,)


def test_tcp_window_clamp_holds_in_an_established_connection(server):
    sk, peer = server.established()
    peer.send(". 1:1001(1000) ack 1")  # how much of the buffer is window is known now
    at = 1 + len(sk.recv(2000))
    sk.setsockopt(IPPROTO_TCP, TCP_WINDOW_CLAMP, 20_000)
    assert sk.getsockopt(IPPROTO_TCP, TCP_WINDOW_CLAMP) == 20_000
    for _ in range(60):
        peer.send(f". {at}:{at + 1000}(1000) ack 1")
        at += len(sk.recv(2000))
    server.advance_us(300 * MS)
    assert peer.drain()[-1].window <= 20_000


def test_tcp_window_clamp_has_a_least_value_and_0_only_before_connecting(server):
    sk = server.socket()
    sk.setsockopt(IPPROTO_TCP, TCP_WINDOW_CLAMP, 1)
    assert sk.getsockopt(IPPROTO_TCP, TCP_WINDOW_CLAMP) == 1152
    sk.setsockopt(IPPROTO_TCP, TCP_WINDOW_CLAMP, 0)
    assert sk.getsockopt(IPPROTO_TCP, TCP_WINDOW_CLAMP) == 0
    connected, _ = server.established()
    with pytest.raises(OSError, match="Invalid"):
        connected.setsockopt(IPPROTO_TCP, TCP_WINDOW_CLAMP, 0)


@pytest.mark.rfc("9293", "MUST-39")
@pytest.mark.linux("__tcp_select_window: free_space < mss")
def test_less_than_a_segment_of_room_is_not_offered(server):
    sk, peer = server.established()
    at, window = 1, 64_240
    while window:
        size = min(1000, window)
        peer.send(f". {at}:{at + size}({size}) ack 1")
        at += size
        got = peer.drain() or [peer.expect_next(within_us=500 * MS)]
        window = got[-1].window
    sk.recv(500)
    peer.expect_nothing()
    assert sk._sk.tp.rcv_wnd == 0


@pytest.mark.rfc("9293", "MUST-39")
@pytest.mark.linux("__tcp_select_window: rounddown(free_space, mss)")
@pytest.mark.parametrize("fastpath", [False, True])
def test_an_unscaled_window_is_whole_segments(fastpath):
    server = host(
        tcp=TcpConfig(tcp_rmem=(4096, 16_384, 16_384)),
        ustack=UstackConfig(tcp_fastpath=fastpath),
    )
    sk, peer = server.established("mss 1460")
    windows = []
    for at in range(1, 5000, 1460):
        peer.send(f"P. {at}:{at + 1460}(1460) ack 1")
        windows.append(peer.expect(f". 1:1(0) ack {at + 1460}", within_us=50 * MS).window)
        sk.recv(1460)
    assert windows == [6 * 1460] * 4


@pytest.mark.linux("__tcp_cleanup_rbuf: the window has doubled")
def test_a_window_that_has_doubled_is_announced_at_once(server):
    sk, peer = server.established()
    at, window = 1, 64_240
    while window:
        size = min(1000, window)
        peer.send(f". {at}:{at + size}({size}) ack 1")
        at += size
        got = peer.drain() or [peer.expect_next(within_us=500 * MS)]
        window = got[-1].window
    announced = []
    while sk.poll() & 1:
        sk.recv(1000)
        announced += [seg.window for seg in peer.drain()]
    assert announced and announced[0] >= 1460
    assert all(b >= 2 * a for a, b in itertools.pairwise(announced))


@pytest.mark.linux("tcp_select_window: ICSK_ACK_NOMEM")
def test_without_memory_the_window_is_closed_at_once(server):
    sk, peer = server.established()
    mem = server.stack.net.mem
    taken = []
    while mem.free_pages:
        taken.append(mem.alloc_pages(0))
    peer.send("P. 1:11(10) ack 1")
    peer.expect(". 1:1(0) ack 1 win 0")
    for page in taken:
        mem.put_page(page)
    peer.send(". 0:0(0) ack 1")  # a window probe
    assert peer.expect(". 1:1(0) ack 1").window > 10_000
    peer.send("P. 1:11(10) ack 1")
    assert len(sk.recv(20)) == 10


@pytest.mark.linux("tcp_rcv_rtt_update")
def test_the_receiver_measures_the_round_trip_by_echoed_timestamps(server):
    lsk = server.listen()
    peer = server.peer()
    peer.handshake("mss 1460,sackOK,TS val 1 ecr 0", ts="nop,nop,TS val 1 ecr *")
    sk = lsk.accept()
    at = 1
    for _ in range(20):
        server.advance_us(30 * MS)
        peer.send(f". {at}:{at + 1448}(1448) ack 1 <nop,nop,TS val 2 ecr *>")
        at += len(sk.recv(5000))
        peer.drain()
    assert 20 * MS <= sk._sk.tp.rcv_rtt_us >> 3 <= 40 * MS


@pytest.mark.linux("tcp_rcv_rtt_update: the receive queue is not empty")
def test_while_something_waits_to_be_read_a_longer_round_trip_is_not_believed(server):
    lsk = server.listen()
    peer = server.peer()
    peer.handshake("mss 1460,sackOK,TS val 1 ecr 0", ts="nop,nop,TS val 1 ecr *")
    sk = lsk.accept()
    tp = sk._sk.tp
    tp.rcv_rtt_us = 10 * MS << 3
    for i in range(3):
        server.advance_us(200 * MS)
        peer.send(f". {1 + 1448 * i}:{1449 + 1448 * i}(1448) ack 1 <nop,nop,TS val 2 ecr *>")
        if i == 0:
            smoothed = tp.rcv_rtt_us  # nothing waited: this one counted
    assert 10 * MS << 3 < smoothed == tp.rcv_rtt_us


@pytest.mark.linux("tcp_rcvbuf_grow: DRS is one round trip late")
def test_the_buffer_is_made_for_twice_what_was_read(server):
    sk, _ = server.established(SCALED)
    tp = sk._sk.tp
    tp.rcvq_space = 100_000
    tcp_rcvbuf_grow(sk._sk, 100_000)
    assert tp.sk_rcvbuf == 2 * 100_000 * 256 // tp.scaling_ratio
    tcp_rcvbuf_grow(sk._sk, 150_000)  # half as much again: the sender is in slow start
    assert tp.sk_rcvbuf == (300_000 + 2 * 150_000) * 256 // tp.scaling_ratio


@pytest.mark.linux("tcp_rcvbuf_grow: ooo_last_skb")
def test_and_for_what_lies_beyond_a_hole(server):
    sk, peer = server.established(SCALED)
    peer.send(". 50001:51461(1460) ack 1")
    tp = sk._sk.tp
    tp.rcvq_space = 100_000
    tcp_rcvbuf_grow(sk._sk, 100_000)
    assert tp.sk_rcvbuf == (2 * 100_000 + 51_460) * 256 // tp.scaling_ratio


def test_without_timestamps_it_takes_the_time_of_a_window(server):
    sk, peer = server.established(SCALED)
    pour(server, peer, 1, 6, 40 * MS, read=sk)
    assert 20 * MS <= sk._sk.tp.rcv_rtt_us >> 3 <= 90 * MS
