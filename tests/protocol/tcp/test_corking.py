"""Small writes: Nagle with Minshall's change, TCP_CORK, MSG_MORE, TCP_NODELAY, autocorking."""

from __future__ import annotations

import socket

import pytest

from kit.host import PLAIN_NIC, host
from ustack.config import TcpConfig

TCP = socket.IPPROTO_TCP
MORE = socket.MSG_MORE
PSH = 8


def cork(sk, on=True):
    sk.setsockopt(TCP, socket.TCP_CORK, int(on))


def nodelay(sk, on=True):
    sk.setsockopt(TCP, socket.TCP_NODELAY, int(on))


def lengths(peer):
    return [len(s.payload) for s in peer.drain()]


@pytest.fixture
def pair(server):
    return server.established("mss 1000,nop,wscale 7")


def in_flight(pair):
    """One byte is out and not acknowledged: Nagle's condition holds."""
    sk, peer = pair
    sk.send(b"a")
    peer.expect("P. 1:2(1) ack 1")
    return sk, peer


# Nagle.


@pytest.mark.rfc("9293", "SHLD-7")
def test_a_small_segment_goes_at_once_when_nothing_is_in_flight(pair):
    sk, peer = pair
    sk.send(b"a")
    assert lengths(peer) == [1]


@pytest.mark.linux("tcp_minshall_check")
def test_a_small_segment_behind_full_ones_goes_at_once(pair):
    """Minshall: only one small segment may be unacknowledged, full ones do not matter."""
    sk, peer = pair
    sk.send(bytes(3000))
    assert lengths(peer) == [1000] * 3
    sk.send(bytes(10))
    assert lengths(peer) == [10]
    sk.send(bytes(10))
    assert lengths(peer) == []


@pytest.mark.linux("tcp_minshall_check")
def test_the_ack_of_the_small_segment_lets_the_next_one_go(pair):
    sk, peer = in_flight(pair)
    sk.send(b"bcd")
    sk.send(bytes(2000))
    assert lengths(peer) == [1000, 1000]
    peer.send(". 1:1(0) ack 2")
    assert lengths(peer) == [3]


def test_the_last_segment_with_the_fin_does_not_wait(pair):
    sk, peer = in_flight(pair)
    sk.send(b"b")
    peer.expect_nothing()
    sk.shutdown(socket.SHUT_WR)
    peer.expect("FP. 2:3(1) ack 1")


def test_writes_that_wait_leave_as_one_segment(pair):
    sk, peer = in_flight(pair)
    for _ in range(7):
        sk.send(b"xyz")
    peer.send(". 1:1(0) ack 2")
    peer.expect("P. 2:23(21) ack 1")


# TCP_NODELAY.


def test_setting_nodelay_sends_what_nagle_holds(pair):
    sk, peer = in_flight(pair)
    sk.send(b"b")
    peer.expect_nothing()
    nodelay(sk)
    peer.expect("P. 2:3(1) ack 1")


def test_setting_nodelay_sends_even_what_a_cork_holds_but_leaves_the_cork(pair):
    sk, peer = pair
    cork(sk)
    sk.send(b"ab")
    peer.expect_nothing()
    nodelay(sk)
    peer.expect("P. 1:3(2) ack 1")
    sk.send(b"cd")
    peer.expect_nothing()
    assert sk.getsockopt(TCP, socket.TCP_CORK) == 1


def test_nagle_is_back_when_nodelay_is_taken_away(pair):
    sk, peer = in_flight(pair)
    nodelay(sk)
    sk.send(b"b")
    peer.expect("P. 2:3(1) ack 1")
    nodelay(sk, on=False)
    sk.send(b"c")
    peer.expect_nothing()


def test_the_push_of_nodelay_outlasts_a_closed_window(server):
    """TCP_NAGLE_PUSH stays until a new packet is begun (tcp_skb_entail)."""
    sk, peer = server.established("mss 1000", win=2000)
    sk.send(bytes(2000))
    assert lengths(peer) == [1000, 1000]
    cork(sk)
    sk.send(bytes(10))
    peer.expect_nothing()
    nodelay(sk)
    peer.expect_nothing()
    peer.send(". 1:1(0) ack 2001 win 2000")
    assert lengths(peer) == [10]


# TCP_CORK and MSG_MORE.


def test_a_cork_holds_what_does_not_fill_a_segment(pair):
    sk, peer = pair
    cork(sk)
    sk.send(bytes(300))
    sk.send(bytes(300))
    peer.expect_nothing()
    sk.send(bytes(500))
    assert lengths(peer) == [1000]
    peer.expect_nothing()


def test_taking_the_cork_out_sends_the_rest_when_nothing_is_in_flight(pair):
    sk, peer = pair
    cork(sk)
    sk.send(b"abc")
    cork(sk, on=False)
    peer.expect("P. 1:4(3) ack 1")


@pytest.mark.linux("__tcp_sock_set_cork")
def test_taking_the_cork_out_does_not_override_nagle(pair):
    sk, peer = in_flight(pair)
    cork(sk)
    sk.send(b"bc")
    cork(sk, on=False)
    peer.expect_nothing()
    peer.send(". 1:1(0) ack 2")
    peer.expect("P. 2:4(2) ack 1")


@pytest.mark.linux("__tcp_sock_set_cork")
def test_with_nodelay_taking_the_cork_out_pushes(pair):
    sk, peer = in_flight(pair)
    nodelay(sk)
    cork(sk)
    sk.send(b"bc")
    peer.expect_nothing()
    cork(sk, on=False)
    peer.expect("P. 2:4(2) ack 1")


def test_a_corked_write_is_marked_with_push_one_with_more_to_come_is_not(pair):
    sk, peer = pair
    sk.send(b"ab", MORE)
    cork(sk)
    cork(sk, on=False)
    assert not peer.expect_next().flags & PSH


def test_a_fin_takes_the_cork_out(pair):
    sk, peer = pair
    cork(sk)
    sk.send(b"abc")
    sk.shutdown(socket.SHUT_WR)
    peer.expect("FP. 1:4(3) ack 1")


def test_more_to_come_holds_only_until_a_segment_is_full(pair):
    sk, peer = pair
    sk.send(bytes(1500), MORE)
    assert lengths(peer) == [1000]
    sk.send(bytes(500))
    assert lengths(peer) == [1000]


def test_more_to_come_holds_even_with_nodelay(pair):
    sk, peer = pair
    nodelay(sk)
    sk.send(b"a", MORE)
    peer.expect_nothing()
    sk.send(b"b")
    peer.expect("P. 1:3(2) ack 1")


def test_an_ack_sends_what_more_to_come_held_the_flag_is_the_writes_not_the_sockets(pair):
    sk, peer = in_flight(pair)
    sk.send(b"b", MORE)
    peer.send(". 1:1(0) ack 2")
    peer.expect(". 2:3(1) ack 1")


@pytest.mark.linux("forced_push")
def test_more_than_half_of_the_window_is_marked_with_push_whatever_is_to_come(server):
    server.adapter.set_offload(gso=False)  # a super-frame is marked anyway
    sk, peer = server.established("mss 1000", win=8000)
    sk.send(bytes(5000), MORE)
    assert [bool(s.flags & PSH) for s in peer.drain()] == [False] * 4 + [True]


@pytest.mark.linux("TCP_CORK")
def test_children_inherit_cork_and_nodelay(server):
    lsk = server.listen()
    nodelay(lsk)
    cork(lsk)
    server.peer().handshake()
    child = lsk.accept()
    assert child.getsockopt(TCP, socket.TCP_CORK) == 1
    assert child.getsockopt(TCP, socket.TCP_NODELAY) == 1


# Autocorking.


def busy_device(**tcp):
    """A socket that has filled its device's ring; nothing has been polled since."""
    h = host(nic=PLAIN_NIC.__class__(**{**vars(PLAIN_NIC), "tx_ring": 64}), tcp=TcpConfig(**tcp))
    sk, peer = h.established("mss 1000,nop,wscale 7", win=60_000)
    sk.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    sk._sk.tp.snd_cwnd = 300
    sk.send(bytes(100_000))
    assert sk._sk.dst.dev.queue_stopped
    return h, sk, peer


@pytest.mark.linux("tcp_should_autocork")
def test_small_writes_are_put_together_while_the_device_is_busy():
    h, sk, peer = busy_device()
    nodelay(sk)
    h.stack.tcp.tsq.clear()
    for _ in range(5):
        sk.send(b"abc")
    assert h.mib.TCPAutoCorking == 1, "once, until the device has room again"
    sizes = lengths(peer)
    assert sum(sizes) == 100_015
    assert sizes[-1] == 15


@pytest.mark.linux("net.ipv4.tcp_autocorking")
def test_autocorking_can_be_switched_off():
    h, sk, peer = busy_device(tcp_autocorking=False)
    sk.send(b"abc")
    assert h.mib.TCPAutoCorking == 0
    assert sum(lengths(peer)) == 100_003


def test_an_idle_device_corks_nothing(pair, server):
    sk, peer = in_flight(pair)
    nodelay(sk)
    for _ in range(3):
        sk.send(b"x")
    assert lengths(peer) == [1] * 3
    assert server.mib.TCPAutoCorking == 0
