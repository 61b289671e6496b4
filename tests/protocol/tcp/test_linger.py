"""close() and what is left behind: SO_LINGER, orphans and their limits, resets of close()."""

from __future__ import annotations

import errno
import socket
import struct
from typing import Any

import pytest

from kit.host import TEST_CONFIG, Host, host
from ustack.config import TcpConfig
from ustack.tcp.diag import tcp_diag
from ustack.tcp.release import tcp_close

SECOND = 1_000_000
SHUT_RD, SHUT_WR, SHUT_RDWR = 0, 1, 2


def states(h: Host) -> list[str]:
    return sorted(str(r["state"]) for r in tcp_diag(h.stack.tcp) if r["state"] != "LISTEN")


def with_tcp(**tcp: Any) -> Host:
    return host(TEST_CONFIG, tcp=TcpConfig(**tcp))


def linger(sk: Any, seconds: int, *, on: bool = True) -> None:
    sk.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", on, seconds))


# A reset instead of a FIN.


@pytest.mark.rfc("2525", "2.17")
def test_unread_text_makes_close_a_reset(server):
    sk, peer = server.established()
    peer.send("P. 1:6(5) ack 1")
    peer.drain()
    sk.close()
    server.settle()
    peer.expect("R. 1:1(0) ack 6")
    assert server.mib.TCPAbortOnClose == 1
    assert states(server) == []


@pytest.mark.rfc("2525", "2.17")
def test_so_does_text_that_the_daemons_client_has_not_read(server):
    sk, peer = server.established()
    tcp_close(sk._sk, unread=True)
    server.settle()
    peer.expect("R. 1:1(0) ack 1")


def test_half_of_it_read_is_not_enough(server):
    sk, peer = server.established()
    peer.send("P. 1:6(5) ack 1")
    peer.drain()
    assert len(sk.recv(4)) == 4
    sk.close()
    server.settle()
    peer.expect("R. 1:1(0) ack 6")


def test_unread_text_loses_what_was_not_sent(server):
    sk, peer = server.established(win=0)
    sk.send(b"never arrives")
    peer.send("P. 1:6(5) ack 1 win 0")
    peer.drain()
    sk.close()
    server.settle()
    (rst,) = peer.drain()
    assert rst.flags & 4


@pytest.mark.linux("unread text in FIN_WAIT2: TCPAbortOnClose")
def test_unread_text_counts_after_shutdown_too(server):
    sk, peer = server.established()
    sk.shutdown(SHUT_WR)
    peer.expect("F. 1:1(0) ack 1")
    peer.send("P. 1:6(5) ack 2")
    peer.drain()
    sk.close()
    server.settle()
    peer.expect("R. 2:2(0) ack 6")
    assert server.mib.TCPAbortOnClose == 1


def test_unread_text_of_a_connection_that_is_over_resets_nothing(server):
    sk, peer = server.established()
    sk.shutdown(SHUT_WR)
    peer.expect("F. 1:1(0) ack 1")
    peer.send("FP. 1:6(5) ack 2")
    peer.expect(". 2:2(0) ack 7")
    assert states(server) == ["TIME-WAIT"]
    sk.close()
    peer.expect_nothing()
    assert server.mib.TCPAbortOnClose == 0


@pytest.mark.parametrize("state", ["ESTAB", "CLOSE-WAIT", "FIN-WAIT-1", "FIN-WAIT-2"])
@pytest.mark.linux("tcp_disconnect, SO_LINGER 0: TCPAbortOnData")
def test_linger_zero_resets_from_every_state(server, state):
    sk, peer = server.established()
    if state == "CLOSE-WAIT":
        peer.send("F. 1:1(0) ack 1")
    elif state != "ESTAB":
        sk.shutdown(SHUT_WR)
        server.settle()
    if state == "FIN-WAIT-2":
        peer.send(". 1:1(0) ack 2")
    server.advance_us(SECOND // 10)
    peer.drain()
    assert states(server) == [state]
    linger(sk, 0)
    sk.close()
    server.settle()
    (rst,) = peer.drain()
    assert rst.flags & 4
    assert states(server) == []
    assert server.mib.TCPAbortOnData == 1
    assert server.stack.tcp.orphan_count == 0


def test_with_unread_text_linger_zero_is_counted_as_that(server):
    sk, peer = server.established()
    peer.send("P. 1:6(5) ack 1")
    linger(sk, 0)
    sk.close()
    assert (server.mib.TCPAbortOnClose, server.mib.TCPAbortOnData) == (1, 0)


def test_linger_zero_while_connecting_is_silent(server):
    peer = server.peer(port=80, to=None)
    sk = server.connect()
    peer.expect("S 0:0(0)")
    linger(sk, 0)
    sk.close()
    peer.expect_nothing(for_us=10 * SECOND)
    assert states(server) == []


def test_linger_that_is_off_closes_in_the_background(server):
    sk, peer = server.established()
    linger(sk, 0, on=False)
    sk.close()
    peer.expect("F. 1:1(0) ack 1")


@pytest.mark.linux("sk_stream_wait_close: until FIN is acknowledged, not until the peer's")
def test_a_lingering_close_waits_for_the_fins_acknowledgment(server):
    sk, peer = server.established()
    linger(sk, 2)
    assert sk.linger_s == 2
    sk.send(b"last words")
    sk.shutdown(SHUT_RDWR)
    peer.drain()
    assert not sk.send_queue_empty()
    peer.send(". 1:1(0) ack 11")
    assert not sk.send_queue_empty()
    peer.send(". 1:1(0) ack 12")
    assert sk.send_queue_empty()
    assert states(server) == ["FIN-WAIT-2"]


# Close in other states.


def test_close_while_connecting_is_silent_and_no_failed_attempt(server):
    peer = server.peer(port=80, to=None)
    sk = server.connect()
    peer.expect("S 0:0(0)")
    sk.close()
    peer.expect_nothing(for_us=10 * SECOND)
    assert server.mib.AttemptFails == 0


def test_a_syn_ack_after_that_is_reset(server):
    peer = server.peer(port=80, to=None)
    sk = server.connect()
    peer.expect("S 0:0(0)")
    sk.close()
    peer.send("S. 0:0(0) ack 1 <mss 1460>")
    peer.expect("R 1:1(0)")


@pytest.mark.rfc("9293", "3.10.4")
def test_close_in_syn_received_sends_a_fin(server):
    peer = server.peer(port=80, to=None)
    sk = server.connect()
    peer.expect("S 0:0(0)")
    peer.send("S 0:0(0) win 65535 <mss 1460>")
    peer.expect("S. 0:0(0) ack 1")
    sk.close()
    server.settle()
    seg = peer.expect_next()
    assert seg.flags & 1
    peer.send(". 1:1(0) ack 2")
    assert states(server) == ["FIN-WAIT-2"]


@pytest.mark.linux("close while the window is 0: FIN_WAIT1 at once (gVisor 13393)")
def test_close_with_a_closed_window_leaves_established_at_once(server):
    sk, peer = server.established("mss 1000", win=1000)
    sk.send(bytes(3000))
    peer.drain()
    peer.send(". 1:1(0) ack 1001 win 0")
    sk.close()
    server.settle()
    assert states(server) == ["FIN-WAIT-1"]
    peer.expect(". 1000:1000(0) ack 1", within_us=2 * SECOND)
    peer.send(". 1:1(0) ack 1001 win 65535")
    got = b"".join(seg.payload for seg in peer.drain())
    assert len(got) == 2000
    peer.send(". 1:1(0) ack 3002")
    assert states(server) == ["FIN-WAIT-2"]


def test_close_sends_a_small_rest_at_once(server):
    """Nagle's algorithm has nothing to wait for any more (TCP_NAGLE_OFF)."""
    sk, peer = server.established()
    sk.send(b"first")
    sk.send(b"second")
    peer.expect("P. 1:6(5) ack 1")
    peer.expect_nothing()
    sk.close()
    server.settle()
    seg = peer.expect_next()
    assert seg.payload == b"second"


# A listener that closes.


def test_children_in_the_accept_queue_are_reset(server):
    lsk = server.listen()
    accepted, waiting, embryo = server.peer(), server.peer(), server.peer()
    accepted.handshake()
    child = lsk.accept()
    waiting.handshake()
    embryo.send("S 0:0(0) <mss 1460>")
    embryo.expect("S. 0:0(0) ack 1")
    lsk.close()
    server.settle()
    waiting.expect("R. 1:1(0) ack 1")
    embryo.expect_nothing(for_us=5 * SECOND)
    accepted.expect_nothing()
    embryo.send(". 1:1(0) ack 1")
    embryo.expect("R 1:1(0)")
    child.send(b"still here")
    accepted.expect("P. 1:11(10) ack 1")
    late = server.peer()
    late.send("S 0:0(0) <mss 1460>")
    assert late.expect_next().flags == 0x14


def test_shut_rd_of_a_listener_does_the_same_and_it_can_listen_again(server):
    lsk = server.listen()
    waiting = server.peer()
    waiting.handshake()
    lsk.shutdown(SHUT_RD)
    server.settle()
    waiting.expect("R. 1:1(0) ack 1")
    lsk.listen(5)
    server.peer().handshake()
    assert lsk.accept().established


def test_shut_wr_of_a_listener_does_nothing(server):
    lsk = server.listen()
    lsk.shutdown(SHUT_WR)
    server.peer().handshake()
    assert lsk.accept().established


# Orphans.


@pytest.mark.linux("net.ipv4.tcp_max_orphans, tcp_check_oom")
def test_one_orphan_too_many_is_reset():
    h = with_tcp(tcp_max_orphans=2)
    lsk = h.listen()
    peers = []
    for _ in range(3):
        peer = h.peer()
        peer.handshake()
        lsk.accept().close()
        peer.expect("F. 1:1(0) ack 1")
        peers.append(peer)
    peers[2].expect("R. 2:2(0) ack 1")
    for peer in peers[:2]:
        peer.expect_nothing()
    assert h.mib.TCPAbortOnMemory == 1
    assert states(h) == ["FIN-WAIT-1"] * 2


def test_mini_sockets_are_no_orphans():
    h = with_tcp(tcp_max_orphans=1)
    lsk = h.listen()
    for _ in range(4):
        peer = h.peer()
        peer.handshake()
        lsk.accept().close()
        peer.expect("F. 1:1(0) ack 1")
        peer.send(". 1:1(0) ack 2")
        peer.expect_nothing()
    assert states(h) == ["FIN-WAIT-2"] * 4
    assert h.stack.tcp.orphan_count == 0


@pytest.mark.linux("tcp_v4_destroy_sock: skb_rbtree_purge(&tp->out_of_order_queue)")
def test_what_one_orphan_too_many_held_beyond_a_hole_counts_against_tcp_mem_no_more():
    h = with_tcp(tcp_max_orphans=0)
    sk, peer = h.established()
    peer.send(". 1001:2001(1000) ack 1")
    assert h.stack.tcp.fast.ptr.ofo_pages
    sk.close()
    assert h.mib.TCPAbortOnMemory == 1
    assert not h.stack.tcp.fast.ptr.ofo_pages


@pytest.mark.linux("tcp_out_of_resources: a silent peer's orphan counts double")
def test_under_pressure_a_silent_orphan_goes_early():
    h = with_tcp(tcp_max_orphans=1)
    sk, peer = h.established()
    sk.close()
    peer.drain()
    h.stack.tcp.orphan_count += 1  # as if another connection became one
    h.advance_us(2 * SECOND)
    assert peer.drain()[-1].flags & 4
    assert h.mib.TCPAbortOnMemory == 1


@pytest.mark.linux("net.ipv4.tcp_orphan_retries 0: 8")
def test_an_orphan_is_given_up_after_eight_retries(server):
    sk, peer = server.established()
    server.stack.tcp.ehash[(server.addr, 80, peer.addr, peer.port)].tp.rto_us = 200_000
    begin = server.world.now_us
    sk.close()
    server.advance_us(300 * SECOND)
    assert states(server) == []
    times = [(seg.time_us - begin) / SECOND for seg in peer.drain()]
    assert times == pytest.approx([0, 0.2, 0.6, 1.4, 3, 6.2, 12.6, 25.4, 51, 102.2], abs=0.1)
    assert server.mib.TCPAbortOnTimeout == 1


def test_tcp_orphan_retries_is_a_knob():
    h = with_tcp(tcp_orphan_retries=2)
    sk, peer = h.established()
    sk.close()
    h.advance_us(300 * SECOND)
    assert len(peer.drain()) <= 4
    assert states(h) == []


def test_an_orphan_with_a_closed_window_is_given_up_though_the_peer_answers(server):
    """RFC 9293 wants a closed window borne for ever, but nobody waits for an orphan."""
    sk, peer = server.established("mss 1000", win=1000)
    sk.send(bytes(2000))
    peer.drain()
    peer.send(". 1:1(0) ack 1001 win 0")
    sk.close()
    for _ in range(2000):
        server.advance_us(SECOND)
        if not states(server):
            break
        for _ in peer.drain():
            peer.send(". 1:1(0) ack 1001 win 0")
    assert states(server) == []


def test_orphans_are_counted_while_they_are(server):
    sk, peer = server.established()
    sk.close()
    peer.expect("F. 1:1(0) ack 1")
    assert server.stack.tcp.orphan_count == 1
    peer.send(". 1:1(0) ack 2")
    assert server.stack.tcp.orphan_count == 0


# Data after close, and shutdown's halves.


@pytest.mark.linux("RCV_SHUTDOWN in FIN_WAIT2, not closed: TCPAbortOnData")
@pytest.mark.parametrize("how", [(SHUT_RDWR,), (SHUT_RD, SHUT_WR)])
def test_text_after_both_halves_are_shut_is_reset(server, how):
    sk, peer = server.established()
    for half in how:
        sk.shutdown(half)
    peer.expect("F. 1:1(0) ack 1")
    peer.send(". 1:1(0) ack 2")
    peer.send("P. 1:6(5) ack 2")
    peer.expect("R 2:2(0)")
    assert server.mib.TCPAbortOnData == 1
    with pytest.raises(ConnectionResetError):
        sk.recv(1)


@pytest.mark.parametrize("win", [65535, 60_000])
def test_text_after_shut_rd_alone_is_acknowledged_and_readable(server, win):
    """Whether header prediction takes it or not."""
    sk, peer = server.established()
    sk.shutdown(SHUT_RD)
    assert sk.recv(5) == b""
    peer.send(f"P. 1:6(5) ack 1 win {win}", data=b"hello")
    peer.expect(". 1:1(0) ack 6", within_us=SECOND)
    assert sk.recv(5) == b"hello"
    assert sk.recv(5) == b""


def test_a_fin_after_both_halves_are_shut_is_welcome(server):
    sk, peer = server.established()
    sk.shutdown(SHUT_RDWR)
    peer.expect("F. 1:1(0) ack 1")
    peer.send("F. 1:1(0) ack 2")
    peer.expect(". 2:2(0) ack 2")
    assert states(server) == ["TIME-WAIT"]


@pytest.mark.parametrize("how", [SHUT_RD, SHUT_WR, SHUT_RDWR])
def test_shutdown_of_what_is_not_connected(server, how):
    sk = server.socket()
    with pytest.raises(OSError) as caught:
        sk.shutdown(how)
    assert caught.value.errno == errno.ENOTCONN


def test_shutdown_with_a_wrong_direction(server):
    sk, _ = server.established()
    with pytest.raises(OSError) as caught:
        sk.shutdown(7)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.linux("inet_shutdown in SYN_SENT: disconnect, ECONNRESET")
def test_shutdown_while_connecting_ends_it_silently(server):
    peer = server.peer(port=80, to=None)
    sk = server.connect()
    peer.expect("S 0:0(0)")
    sk.shutdown(SHUT_WR)
    peer.expect_nothing(for_us=5 * SECOND)
    assert sk.getsockopt(1, 4) == errno.ECONNRESET
    with pytest.raises(BlockingIOError):
        sk.connect(peer.addr, 80)


def test_a_second_shutdown_sends_no_second_fin(server):
    sk, peer = server.established()
    sk.shutdown(SHUT_WR)
    sk.shutdown(SHUT_WR)
    peer.expect("F. 1:1(0) ack 1")
    peer.expect_nothing()


def test_what_was_written_before_shutdown_is_sent_before_the_fin(server):
    sk, peer = server.established(win=1000)
    sk.send(bytes(2500))
    sk.shutdown(SHUT_WR)
    with pytest.raises(BrokenPipeError):
        sk.send(b"x")
    total = 0
    for _ in range(6):
        for seg in peer.drain():
            total += len(seg.payload)
            fin = seg.flags & 1
        peer.send(f". 1:1(0) ack {total + 1} win 1000")
        if fin:
            break
    assert (total, fin) == (2500, 1)


# Giving a connection up (connect() to AF_UNSPEC).


@pytest.mark.rfc("9293", "3.10.5")
@pytest.mark.linux("tcp_disconnect")
def test_disconnect_resets_and_the_socket_connects_again(server):
    peer = server.peer(port=80, to=None)
    sk = server.connect()
    peer.answer_syn()
    sk.disconnect()
    server.settle()
    peer.expect("R. 1:1(0) ack 1")
    with pytest.raises(ConnectionResetError):
        sk.recv(1)
    with pytest.raises(OSError) as caught:
        sk.getpeername()
    assert caught.value.errno == errno.ENOTCONN
    other = server.peer(port=81, to=None)
    with pytest.raises(BlockingIOError):
        sk.connect(other.addr, 81)
    server.settle()
    other.answer_syn()
    sk.send(b"new")
    other.expect("P. 1:4(3) ack 1")


def test_disconnect_keeps_a_port_that_bind_named(server):
    sk = server.socket()
    sk.bind(0, 7300)
    with pytest.raises(BlockingIOError):
        sk.connect(0x0A000001, 80)
    sk.disconnect()
    assert sk.getsockname()[1] == 7300
    other = server.socket()
    with pytest.raises(OSError):
        other.bind(0, 7300)


def test_disconnect_of_a_listener_ends_its_queues(server):
    lsk = server.listen()
    waiting = server.peer()
    waiting.handshake()
    lsk.disconnect()
    server.settle()
    waiting.expect("R. 1:1(0) ack 1")
    lsk.listen(3)


def test_disconnect_of_a_new_socket_does_nothing(server):
    sk = server.socket()
    sk.disconnect()
    assert sk.getsockopt(1, 4) == 0


@pytest.mark.parametrize("fin_queued", [False, True])
def test_disconnect_in_last_ack_resets_only_if_something_was_not_sent(server, fin_queued):
    sk, peer = server.established(win=0 if fin_queued else 65535)
    peer.send("F. 1:1(0) ack 1" + (" win 0" if fin_queued else ""))
    server.advance_us(SECOND)
    if fin_queued:
        sk.send(b"stuck")
    sk.shutdown(SHUT_WR)
    server.settle()
    peer.drain()
    sk.disconnect()
    server.settle()
    assert bool([s for s in peer.drain() if s.flags & 4]) is fin_queued
