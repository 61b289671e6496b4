"""The send buffer: what a write may add, how it grows, when a writer is woken, notsent lowat."""

from __future__ import annotations

import errno
import socket

import pytest

from kit.host import host
from kit.segment import pattern
from ustack.config import CoreConfig, TcpConfig, UstackConfig
from ustack.sock.wait import EPOLLOUT
from ustack.tcp.sndbuf import sk_stream_room

TCP = socket.IPPROTO_TCP
SOL = socket.SOL_SOCKET
LOWAT = 25
PER_MSS = 4096 + 256
"""What one segment of 1460 bytes takes by Linux's reckoning (tcp_sndbuf_expand)."""


def sndbuf(sk) -> int:
    return sk.getsockopt(SOL, socket.SO_SNDBUF)


def fill(sk, chunk=1000) -> int:
    """Write until it would wait; return how many bytes were taken."""
    taken = 0
    try:
        while True:
            taken += sk.send(bytes(chunk))
    except BlockingIOError:
        return taken


def writable(sk) -> bool:
    return bool(sk.poll() & EPOLLOUT)


@pytest.mark.linux("sk_stream_memory_free")
def test_a_goal_that_changes_fills_the_buffer_no_further_than_one_packet(server):
    """Each new goal puts the last packet elsewhere; it is not begun anew each time."""
    sk, _ = server.established("mss 1460,nop,wscale 7")
    fill(sk)
    tp = sk._sk.tp
    for segs in range(40, 1, -1):
        goal = 1460 * segs + 7
        while room := sk_stream_room(sk._sk, goal):
            tp.write_seq += room
            tp.write_queue.len += room
        assert tp.write_queue.len <= tp.sk_sndbuf + 1467 * 40


@pytest.mark.linux("net.ipv4.tcp_wmem")
def test_before_a_connection_the_buffer_is_tcp_wmem(server):
    assert sndbuf(server.socket()) == 16_384


@pytest.mark.linux("tcp_sndbuf_expand")
def test_a_connection_has_room_for_two_initial_windows_of_packets(server):
    sk, _ = server.established("mss 1460")
    assert sndbuf(sk) == 2 * 10 * PER_MSS == 87_040


@pytest.mark.linux("tcp_sndbuf_expand")
def test_the_peers_segment_size_decides_what_a_packet_takes(server):
    sk, _ = server.established("mss 536")
    assert sndbuf(sk) == 2 * 10 * (2048 + 256)


@pytest.mark.linux("tcp_new_space")
def test_the_buffer_grows_with_cwnd_once_a_writer_has_waited(server):
    sk, peer = server.established("mss 1460,nop,wscale 7")
    at = 1
    for _ in range(4):
        fill(sk, 20_000)
        for seg in peer.drain():
            at += len(seg.payload)
            peer.send(f". 1:1(0) ack {at}")
    cwnd = sk._sk.tp.snd_cwnd
    assert cwnd > 20
    assert 87_040 < sndbuf(sk) <= 2 * cwnd * PER_MSS


@pytest.mark.linux("tcp_should_expand_sndbuf: If we filled the congestion window, do not expand")
@pytest.mark.parametrize("fastpath", [False, True])
@pytest.mark.parametrize(("win", "grows"), [(65_000, False), (5_000, True)])
def test_the_buffer_grows_only_where_cwnd_is_not_what_holds_the_writer_back(fastpath, win, grows):
    server = host(ustack=UstackConfig(tcp_fastpath=fastpath))
    sk, peer = server.established("mss 1460", win=win)
    tp = sk._sk.tp
    tp.snd_cwnd = 20
    tp.snd_ssthresh = 2  # so that it stays
    fill(sk, 20_000)
    before = sndbuf(sk)
    for acked in range(1, 40):
        peer.send(f". 1:1(0) ack {1 + 700 * acked} win {win}")
    assert (sndbuf(sk) > before) is grows


def test_the_buffer_does_not_grow_while_nobody_waits(server):
    sk, peer = server.established("mss 1460,nop,wscale 7")
    for i in range(5):
        sk.send(bytes(14_600))
        peer.drain()
        peer.send(f". 1:1(0) ack {1 + 14_600 * (i + 1)}")
    assert sndbuf(sk) == 87_040


def test_tcp_wmem_limits_growth():
    h = host(tcp=TcpConfig(tcp_wmem=(4096, 16_384, 60_000)))
    sk, _ = h.established("mss 1460")
    assert sndbuf(sk) == 60_000


@pytest.mark.parametrize(
    ("asked", "have"), [(1, 4608), (2304, 4608), (10_000, 20_000), (10**9, 2 * 4_194_304)]
)
def test_so_sndbuf_is_doubled_within_limits(server, asked, have):
    sk = server.socket()
    sk.setsockopt(SOL, socket.SO_SNDBUF, asked)
    assert sndbuf(sk) == have


@pytest.mark.linux("net.core.wmem_max")
def test_wmem_max_limits_so_sndbuf():
    h = host(core=CoreConfig(arena_bytes=32 << 20, wmem_max=30_000))
    sk = h.socket()
    sk.setsockopt(SOL, socket.SO_SNDBUF, 1_000_000)
    assert sndbuf(sk) == 60_000


@pytest.mark.linux("SOCK_SNDBUF_LOCK")
def test_a_buffer_that_was_set_does_not_grow(server):
    lsk = server.listen()
    lsk.setsockopt(SOL, socket.SO_SNDBUF, 8_000)
    peer = server.peer()
    peer.handshake("mss 1460,nop,wscale 7")
    sk = lsk.accept()
    at = 1
    for _ in range(3):
        fill(sk)
        for seg in peer.drain():
            at += len(seg.payload)
            peer.send(f". 1:1(0) ack {at}")
    assert sndbuf(sk) == 16_000


@pytest.mark.linux("tcp_sendmsg_locked")
def test_the_last_packet_may_go_beyond_the_limit_and_no_other_is_begun(server):
    """The limit is looked at when a packet is begun; one holds half the window here."""
    lsk = server.listen()
    lsk.setsockopt(SOL, socket.SO_SNDBUF, 8_000)
    peer = server.peer()
    peer.handshake("mss 1000", win=20_000)
    sk = lsk.accept()
    taken = fill(sk, 100_000)
    goal = 10_000
    sent = sum(len(s.payload) for s in peer.drain())
    assert sent == 10_000
    assert taken == 2 * goal


def test_what_waits_unsent_is_filled_up_even_in_a_full_buffer(server):
    sk, peer = server.established("mss 1000", win=20_000)
    sk.send(bytes(12_000))
    assert sum(len(s.payload) for s in peer.drain()) == 10_000
    sk.setsockopt(SOL, socket.SO_SNDBUF, 6_000)
    assert sk.send(bytes(500)) == 500
    assert fill(sk, 10_000) == 7_500


def test_a_full_buffer_is_eagain(server):
    sk, _ = server.established(win=0)
    fill(sk)
    with pytest.raises(BlockingIOError) as error:
        sk.send(b"x")
    assert error.value.errno == errno.EAGAIN


@pytest.mark.linux("sk_stream_write_space")
def test_a_writer_is_woken_when_a_third_of_the_buffer_is_free(server):
    sk, peer = server.established("mss 1000,nop,wscale 7")
    sk.setsockopt(SOL, socket.SO_SNDBUF, 30_000)
    sk._sk.tp.snd_cwnd = 200
    queued = fill(sk)
    assert queued >= 60_000 and not writable(sk)
    peer.drain()
    woken_at = None
    for acked in range(1000, queued + 1, 1000):
        peer.send(f". 1:1(0) ack {1 + acked}")
        if not sk._sk.nospace:
            woken_at = acked
            break
    assert woken_at is not None
    left = queued - woken_at
    assert left <= 40_000 < left + 1000


def test_poll_says_writable_by_the_same_rule(server):
    sk, peer = server.established("mss 1000,nop,wscale 7")
    sk.setsockopt(SOL, socket.SO_SNDBUF, 30_000)
    sk._sk.tp.snd_cwnd = 200
    queued = fill(sk)
    peer.drain()
    peer.send(f". 1:1(0) ack {1 + queued - 41_000}")
    assert not writable(sk)
    peer.send(f". 1:1(0) ack {1 + queued - 39_000}")
    assert writable(sk)


# TCP_NOTSENT_LOWAT.


def lowat(sk, value: int) -> None:
    sk.setsockopt(TCP, LOWAT, value)


def test_unsent_bytes_are_limited_not_those_in_flight(server):
    sk, peer = server.established("mss 1000", win=20_000)
    lowat(sk, 1)
    assert fill(sk, 1000) == 20_000  # ten segments in flight, and one packet of half the window
    assert sum(len(s.payload) for s in peer.drain()) == 10_000


def test_sent_bytes_make_room_for_unsent_ones(server):
    sk, peer = server.established("mss 1000", win=20_000)
    lowat(sk, 1)
    fill(sk)
    assert len(peer.drain()) == 10
    peer.send(". 1:1(0) ack 10001")
    assert len(peer.drain()) == 10
    assert fill(sk) > 0


@pytest.mark.linux("tcp_stream_memory_free")
def test_a_writer_is_woken_below_half_of_the_mark(server):
    sk, peer = server.established("mss 1000", win=60_000)
    lowat(sk, 8_000)
    sk.send(bytes(10_000))
    for wrote, can in ((3_000, True), (999, True), (1, False)):
        sk.send(bytes(wrote))
        assert writable(sk) is can
    peer.drain()


@pytest.mark.linux("tcp_event_new_data_sent")
def test_sending_wakes_a_writer_who_waits_for_the_mark(server):
    sk, peer = server.established("mss 1000", win=20_000)
    lowat(sk, 2_000)
    fill(sk)
    assert sk._sk.nospace
    peer.drain()
    peer.send(". 1:1(0) ack 10001")
    assert not sk._sk.nospace


@pytest.mark.linux("net.ipv4.tcp_notsent_lowat")
def test_the_sysctl_is_the_mark_of_all_sockets():
    h = host(tcp=TcpConfig(tcp_notsent_lowat=1))
    sk, _ = h.established("mss 1000", win=20_000)
    assert fill(sk) == 20_000
    assert sk.getsockopt(TCP, LOWAT) == 0


def test_setting_the_mark_higher_wakes_a_writer(server):
    sk, _ = server.established("mss 1000", win=20_000)
    lowat(sk, 1)
    fill(sk)
    assert sk._sk.nospace
    lowat(sk, 1 << 20)
    assert not sk._sk.nospace
    assert sk.getsockopt(TCP, LOWAT) == 1 << 20


def test_children_inherit_the_mark(server):
    lsk = server.listen()
    lowat(lsk, 4321)
    server.peer().handshake()
    assert lsk.accept().getsockopt(TCP, LOWAT) == 4321


def test_the_data_is_whole_whatever_the_mark(server):
    sk, peer = server.established("mss 1000,nop,wscale 7")
    lowat(sk, 3_000)
    at = written = 0
    while at < 60_000:
        try:
            while written < 60_000:
                written += sk.send(pattern(written, min(7_000, 60_000 - written)))
        except BlockingIOError:
            pass
        for seg in peer.drain():
            assert seg.payload == pattern(at, len(seg.payload))
            at += len(seg.payload)
        peer.send(f". 1:1(0) ack {at + 1}")
