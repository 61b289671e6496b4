"""recv() with its flags, SO_RCVLOWAT, shutdown(SHUT_RD): what Linux does in each case."""

from __future__ import annotations

import errno

import pytest

from kit.host import TEST_CONFIG, host
from kit.segment import pattern
from ustack.config import PROFILES, TcpConfig
from ustack.core.sysctl import with_profile
from ustack.sock.wait import WaitEntry
from ustack.tcp.data import tcp_epollin_ready

SOL_SOCKET, SO_RCVBUF, SO_RCVLOWAT = 1, 8, 18
MSG_PEEK, MSG_TRUNC, MSG_DONTWAIT = 2, 0x20, 0x40
EPOLLIN, EPOLLHUP, EPOLLRDHUP = 1, 0x10, 0x2000


def wakes(sk) -> list[int]:
    """Return the list that every wake-up of this socket's waiters goes to."""
    from ustack.sock.wait import WaitEntry

    events: list[int] = []
    sk.wq.add(WaitEntry(lambda mask: events.append(mask) is None))
    return events


def test_fewer_bytes_than_asked_for_are_returned_at_once(server):
    sk, peer = server.established()
    peer.send("P. 1:11(10) ack 1")
    assert sk.recv(1000) == pattern(0, 10)


def test_peeking_takes_nothing(server):
    sk, peer = server.established()
    peer.send("P. 1:11(10) ack 1")
    assert sk.recv(4, MSG_PEEK) == sk.recv(4, MSG_PEEK) == pattern(0, 4)
    assert sk.recv(100) == pattern(0, 10)


@pytest.mark.linux("tcp_recvmsg: MSG_TRUNC")
def test_msg_trunc_throws_bytes_away_and_says_how_many(server):
    sk, peer = server.established()
    peer.send("P. 1:11(10) ack 1")
    buffer = bytearray(b"unchanged.")
    assert sk.recv_into(buffer, 4, MSG_TRUNC) == 4
    assert buffer == b"unchanged."
    assert sk.recv(100) == pattern(4, 6)


def test_peeking_with_msg_trunc_only_counts(server):
    sk, peer = server.established()
    peer.send("P. 1:11(10) ack 1")
    assert sk.recv_into(bytearray(20), 20, MSG_PEEK | MSG_TRUNC) == 10
    assert sk.recv(100) == pattern(0, 10)


def test_an_empty_queue_is_eagain_a_fin_is_the_end_for_ever(server):
    sk, peer = server.established()
    with pytest.raises(BlockingIOError):
        sk.recv(10, MSG_DONTWAIT)
    peer.send("F. 1:1(0) ack 1")
    assert [sk.recv(10) for _ in range(3)] == [b"", b"", b""]


def test_text_before_a_reset_is_read_before_the_error(server):
    sk, peer = server.established()
    peer.send("P. 1:11(10) ack 1")
    peer.drain()
    peer.send("R 11:11(0)")
    assert len(sk.recv(100)) == 10
    with pytest.raises(ConnectionResetError):
        sk.recv(10)
    assert sk.recv(10) == b""


def test_a_socket_that_was_never_connected_is_enotconn(server):
    sk = server.socket()
    with pytest.raises(OSError, match="connected") as caught:
        sk.recv(1)
    assert caught.value.errno == errno.ENOTCONN


@pytest.mark.linux("sock_rcvlowat: 0 is stored as 1")
@pytest.mark.parametrize(("value", "stored"), [(0, 1), (1, 1), (20, 20), (-1, 3_145_728)])
def test_so_rcvlowat_is_at_least_one_and_at_most_half_the_largest_buffer(server, value, stored):
    sk, _ = server.established()
    sk.setsockopt(SOL_SOCKET, SO_RCVLOWAT, value)
    assert sk.getsockopt(SOL_SOCKET, SO_RCVLOWAT) == stored


@pytest.mark.linux("tcp_data_ready, tcp_poll")
def test_a_poller_is_told_only_when_there_is_as_much_as_it_asked_for(server):
    sk, peer = server.established()
    sk.setsockopt(SOL_SOCKET, SO_RCVLOWAT, 20)
    events = wakes(sk)
    peer.send("P. 1:11(10) ack 1")
    assert not sk.poll() & EPOLLIN and not events
    peer.send("P. 11:21(10) ack 1")
    assert sk.poll() & EPOLLIN and len(events) == 1


def test_a_reader_that_has_taken_ten_of_twenty_is_told_of_the_next_fifteen(server):
    """Not so in Linux 6.18, which waits for twenty more: the rule is what counts."""
    sk, peer = server.established()
    sk.setsockopt(SOL_SOCKET, SO_RCVLOWAT, 20)
    peer.send("P. 1:11(10) ack 1")
    assert not sk.rcv_ready(20)
    peer.send("P. 11:26(15) ack 1")
    assert sk.rcv_ready(20) and len(sk.recv(1000)) == 25


def test_a_call_that_does_not_wait_takes_what_there_is(server):
    sk, peer = server.established()
    sk.setsockopt(SOL_SOCKET, SO_RCVLOWAT, 20)
    peer.send("P. 1:11(10) ack 1")
    assert len(sk.recv(1000)) == 10


def test_a_fin_is_told_whatever_so_rcvlowat_says(server):
    sk, peer = server.established()
    sk.setsockopt(SOL_SOCKET, SO_RCVLOWAT, 20)
    peer.send("P. 1:11(10) ack 1")
    events = wakes(sk)
    peer.send("F. 11:11(0) ack 1")
    assert sk.poll() & EPOLLIN and events and sk.rcv_ready(20)


@pytest.mark.linux("tcp_epollin_ready: the window is used up")
def test_a_reader_that_waits_for_more_than_the_window_holds_is_told_when_it_is_full():
    server = host(TEST_CONFIG, tcp=TcpConfig(tcp_rmem=(4096, 16_384, 16_384)))
    sk, peer = server.established()
    sk._sk.rcvlowat = 60_000
    at = 1
    while not sk.poll() & EPOLLIN:
        size = min(1000, sk._sk.tp.rcv_wnd)
        assert size > 0, "a reader and a writer that wait for each other"
        peer.send(f". {at}:{at + size}({size}) ack 1")
        at += size
        server.advance_us(50_000)


@pytest.mark.linux("tcp_epollin_ready: tcp_rmem_pressure, tcp_receive_window(tp) <= rcv_mss")
@pytest.mark.parametrize(
    ("rcvbuf", "window", "ready"), [(12_000, 30_000, 0), (11_000, 30_000, 1), (90_000, 100, 1)]
)
def test_it_is_told_when_the_buffer_is_nearly_full_or_the_window_nearly_closed(
    server, rcvbuf, window, ready
):
    sk, peer = server.established()
    for at in range(1, 10_001, 1000):
        peer.send(f". {at}:{at + 1000}(1000) ack 1")
    tp = sk._sk.tp
    sk._sk.rcvlowat = 60_000
    tp.sk_rcvbuf, tp.rcv_wnd, tp.rcv_wup = rcvbuf, window, tp.rcv_nxt
    assert tcp_epollin_ready(sk._sk) == bool(ready)


@pytest.mark.linux("tcp_set_rcvlowat")
def test_asking_for_much_makes_the_buffer_large_enough(server):
    sk, _ = server.established()
    sk.setsockopt(SOL_SOCKET, SO_RCVLOWAT, 500_000)
    assert sk.getsockopt(SOL_SOCKET, SO_RCVBUF) == 1_000_000
    assert sk._sk.tp.window_clamp >= 500_000


def test_lowering_so_rcvlowat_tells_who_waits(server):
    sk, peer = server.established()
    sk.setsockopt(SOL_SOCKET, SO_RCVLOWAT, 20)
    peer.send("P. 1:11(10) ack 1")
    events = wakes(sk)
    sk.setsockopt(SOL_SOCKET, SO_RCVLOWAT, 10)
    assert events and sk.poll() & EPOLLIN


def test_a_child_inherits_so_rcvlowat(server):
    lsk = server.listen()
    lsk.setsockopt(SOL_SOCKET, SO_RCVLOWAT, 77)
    server.peer().handshake()
    assert lsk.accept().getsockopt(SOL_SOCKET, SO_RCVLOWAT) == 77


@pytest.mark.linux("inet_shutdown: SHUT_RD is local")
def test_after_shut_rd_the_peer_notices_nothing_and_its_text_is_still_read(server):
    sk, peer = server.established()
    events = wakes(sk)
    sk.shutdown(0)
    peer.expect_nothing()
    assert sk.recv(10) == b"" and events
    assert sk.poll() & EPOLLRDHUP and not sk.poll() & EPOLLHUP
    peer.send("P. 1:5(4) ack 1")
    peer.expect(". 1:1(0) ack 5")
    assert len(sk.recv(10)) == 4
    assert sk.recv(10) == b""


def test_after_shut_rd_no_window_update_is_sent_for_reading(server):
    sk, peer = server.established()
    at, window = 1, 64_240
    while window:
        size = min(1000, window)
        peer.send(f". {at}:{at + size}({size}) ack 1")
        at += size
        got = peer.drain() or [peer.expect_next(within_us=500_000)]
        window = got[-1].window
    sk.shutdown(0)
    while sk.recv(4096):
        pass
    peer.expect_nothing()


@pytest.mark.linux("tcp_low_latency: a prequeue till 4.14, then without effect")
@pytest.mark.parametrize("low_latency", [0, 1])
@pytest.mark.parametrize("profile", PROFILES)
def test_there_is_no_prequeue_in_either_profile(profile, low_latency):
    """What the book's figures show of it holds without: all that came is returned, in order."""
    h = host(with_profile(TEST_CONFIG, profile), tcp=TcpConfig(tcp_low_latency=low_latency))
    sk, peer = h.established()
    told: list[int] = []
    sk.wq.add(WaitEntry(lambda events: told.append(events) is None))
    peer.send(". 1:101(100) ack 1")
    peer.send(". 201:301(100) ack 1")
    peer.send(". 101:201(100) ack 1")
    assert told
    assert sk.recv(1000) == pattern(0, 300)
