"""Urgent data (RFC 9293 §3.8.5, RFC 6093): the mark, the byte beside the stream, the sender."""

from __future__ import annotations

import pytest

from kit.host import TEST_CONFIG, host
from kit.segment import URG, pattern
from ustack.config import TcpConfig

SOL_SOCKET, SO_OOBINLINE = 1, 10
MSG_OOB, MSG_PEEK = 1, 2
EPOLLIN, EPOLLPRI = 1, 2


def test_the_urgent_byte_is_read_beside_the_stream(server):
    sk, peer = server.established()
    peer.send("PU. 1:6(5) ack 1 urg 5", data=b"abcde")
    assert sk.recv(1, MSG_OOB) == b"e"
    assert sk.recv(100) == b"abcd"
    with pytest.raises(BlockingIOError):
        sk.recv(1)


@pytest.mark.rfc("6093", "2")
@pytest.mark.linux("net.ipv4.tcp_stdurg")
def test_by_the_rfc_the_pointer_is_the_urgent_byte_itself():
    server = host(TEST_CONFIG, tcp=TcpConfig(tcp_stdurg=True))
    sk, peer = server.established()
    peer.send("PU. 1:6(5) ack 1 urg 3", data=b"abcde")
    assert sk.recv(1, MSG_OOB) == b"d"


@pytest.mark.linux("tcp_recvmsg_locked: at urgent data")
def test_a_read_stops_at_the_mark_and_steps_over_the_byte(server):
    sk, peer = server.established()
    peer.send("PU. 1:9(8) ack 1 urg 4", data=b"abcdefgh")
    assert not sk.at_mark()
    assert sk.recv(100) == b"abc"
    assert sk.at_mark()
    assert sk.recv(100) == b"efgh"
    assert not sk.at_mark()


def test_in_line_the_byte_is_read_with_the_rest_behind_the_mark(server):
    sk, peer = server.established()
    sk.setsockopt(SOL_SOCKET, SO_OOBINLINE, 1)
    assert sk.getsockopt(SOL_SOCKET, SO_OOBINLINE) == 1
    peer.send("PU. 1:9(8) ack 1 urg 4", data=b"abcdefgh")
    assert sk.recv(100) == b"abc"
    assert sk.at_mark()
    with pytest.raises(OSError, match="Invalid"):
        sk.recv(1, MSG_OOB)
    assert sk.recv(100) == b"defgh"


def test_a_child_inherits_in_line_from_its_listener(server):
    lsk = server.listen()
    lsk.setsockopt(SOL_SOCKET, SO_OOBINLINE, 1)
    server.peer().handshake()
    assert lsk.accept().getsockopt(SOL_SOCKET, SO_OOBINLINE) == 1


def test_epollpri_is_there_until_the_byte_is_read(server):
    sk, peer = server.established()
    peer.send("PU. 1:2(1) ack 1 urg 1", data=b"!")
    assert sk.poll() & EPOLLPRI and not sk.poll() & EPOLLIN
    assert sk.recv(1, MSG_OOB | MSG_PEEK) == b"!"
    assert sk.poll() & EPOLLPRI
    assert sk.recv(1, MSG_OOB) == b"!"
    assert not sk.poll() & EPOLLPRI


def test_a_waiter_is_woken_with_epollpri(server):
    from ustack.sock.wait import WaitEntry

    sk, peer = server.established()
    events: list[int] = []
    sk.wq.add(WaitEntry(lambda mask: events.append(mask) is None))
    peer.send("PU. 1:2(1) ack 1 urg 1", data=b"!")
    assert any(mask & EPOLLPRI for mask in events)


def test_the_byte_is_read_once(server):
    sk, peer = server.established()
    peer.send("PU. 1:2(1) ack 1 urg 1", data=b"!")
    sk.recv(1, MSG_OOB)
    with pytest.raises(OSError, match="Invalid"):
        sk.recv(1, MSG_OOB)
    with pytest.raises(BlockingIOError):
        sk.recv(1)


def test_without_urgent_data_msg_oob_is_invalid(server):
    sk, peer = server.established()
    peer.send("P. 1:6(5) ack 1")
    with pytest.raises(OSError, match="Invalid"):
        sk.recv(1, MSG_OOB)


@pytest.mark.rfc("9293", "MUST-31")
def test_the_mark_may_come_before_its_byte(server):
    """The peer says that there is something urgent before the window lets it through."""
    sk, peer = server.established()
    peer.send("PU. 1:6(5) ack 1 urg 11", data=b"abcde")
    assert not sk.poll() & EPOLLPRI
    with pytest.raises(BlockingIOError):
        sk.recv(1, MSG_OOB)
    assert sk.recv(100) == b"abcde"
    peer.send("P. 6:16(10) ack 1", data=b"fghijklmno")
    assert sk.recv(1, MSG_OOB) == b"k"
    assert sk.recv(100) == b"fghij"
    assert sk.recv(100) == b"lmno"


def test_a_later_mark_takes_the_place_of_an_earlier_one(server):
    """The earlier urgent byte becomes an ordinary one, as its mark is forgotten."""
    sk, peer = server.established()
    peer.send("PU. 1:4(3) ack 1 urg 2", data=b"aXb")
    peer.send("PU. 4:7(3) ack 1 urg 2", data=b"cYd")
    assert sk.recv(1, MSG_OOB) == b"Y"
    assert sk.recv(100) == b"aXbc"
    assert sk.recv(100) == b"d"


def test_an_old_mark_is_ignored(server):
    sk, peer = server.established()
    peer.send("P. 1:11(10) ack 1")
    peer.send("PU. 1:6(5) ack 1 urg 3")
    assert not sk.poll() & EPOLLPRI
    assert sk.recv(100) == pattern(0, 10)


def test_a_mark_in_text_that_is_here_and_was_not_read_is_ignored(server):
    sk, peer = server.established()
    peer.send("P. 1:11(10) ack 1")
    peer.send("PU. 6:21(15) ack 1 urg 2")
    assert not sk.poll() & EPOLLPRI
    assert sk.recv(100) == pattern(0, 20)


def test_the_same_mark_twice_is_one(server):
    sk, peer = server.established()
    peer.send("PU. 1:4(3) ack 1 urg 3", data=b"abc")
    assert sk.recv(1, MSG_OOB) == b"c"
    peer.send("PU. 1:4(3) ack 1 urg 3", data=b"abc")
    with pytest.raises(OSError, match="Invalid"):
        sk.recv(1, MSG_OOB)


@pytest.mark.linux("tcp_check_urg: the last urgent byte was read")
def test_two_urgent_bytes_in_a_row_both_stay_out_of_the_stream(server):
    sk, peer = server.established()
    peer.send("PU. 1:2(1) ack 1 urg 1", data=b"A")
    assert sk.recv(1, MSG_OOB) == b"A"
    peer.send("PU. 2:3(1) ack 1 urg 1", data=b"B")
    assert sk.recv(1, MSG_OOB) == b"B"
    peer.send("P. 3:4(1) ack 1", data=b"c")
    assert sk.recv(10) == b"c"


def test_an_urgent_byte_beyond_a_hole_is_there_at_once(server):
    sk, peer = server.established()
    peer.send("PU. 11:16(5) ack 1 urg 5", data=b"vwxyz")
    assert sk.recv(1, MSG_OOB) == b"z"
    peer.send("P. 1:11(10) ack 1", data=b"0123456789")
    assert sk.recv(100) == b"0123456789vwxy"


@pytest.mark.linux("tcp_recvmsg_locked: tp->urg_data && after(tp->copied_seq, tp->urg_seq)")
def test_a_byte_that_the_reader_has_passed_is_urgent_no_more(server):
    sk, peer = server.established()
    peer.send("PU. 1:9(8) ack 1 urg 4", data=b"abcdefgh")
    assert sk.recv(3) == b"abc"
    assert sk.poll() & EPOLLPRI
    assert sk.recv(1) == b"e"
    assert not sk.poll() & EPOLLPRI
    with pytest.raises(OSError, match="Invalid"):
        sk.recv(1, MSG_OOB)


def test_peeking_stops_at_the_mark_too(server):
    sk, peer = server.established()
    peer.send("PU. 1:9(8) ack 1 urg 4", data=b"abcdefgh")
    assert sk.recv(100, MSG_PEEK) == b"abc"
    assert sk.recv(100) == b"abc"


def test_after_the_end_msg_oob_finds_nothing(server):
    sk, peer = server.established()
    peer.send("PU. 1:6(5) ack 1 urg 50", data=b"abcde")
    peer.send("F. 6:6(0) ack 1")
    assert sk.recv(1, MSG_OOB) == b""


# The sender.


def test_the_last_byte_of_a_write_is_urgent(server):
    sk, peer = server.established()
    assert sk.send(b"abc", MSG_OOB) == 3
    peer.expect("PU. 1:4(3) ack 1 urg 3")


def test_until_it_is_acknowledged_every_segment_before_it_carries_the_mark(server):
    sk, peer = server.established("mss 100", win=250)
    sk.send(bytes(300), MSG_OOB)
    segments = peer.drain()
    assert [seg.urgent for seg in segments] == [300, 200]
    assert all(seg.flags & URG for seg in segments)
    peer.send(". 1:1(0) ack 201 win 1000")
    (last,) = peer.drain()
    assert (last.flags & URG, last.urgent) == (URG, 100)
    peer.send(". 1:1(0) ack 301 win 1000")
    sk.send(b"x")
    (calm,) = peer.drain()
    assert not calm.flags & URG and calm.urgent == 0


@pytest.mark.linux("tcp_nagle_test: urgent data")
def test_urgent_data_does_not_wait_for_nagle(server):
    sk, peer = server.established()
    sk.send(b"a")
    peer.expect("P. 1:2(1) ack 1")
    sk.send(b"b")
    peer.expect_nothing()
    sk.send(b"!", MSG_OOB)
    peer.expect("PU. 2:4(2) ack 1 urg 2")


def test_a_mark_further_than_the_pointer_reaches_is_announced_at_64_k():
    server = host(TEST_CONFIG, tcp=TcpConfig(tcp_wmem=(4096, 200_000, 400_000)))
    sk, peer = server.established("mss 1000,nop,wscale 7", win=3)
    sk.send(bytes(100_000), MSG_OOB)
    segments = peer.drain()
    assert segments and all(seg.urgent == 0xFFFF for seg in segments)


def test_a_probe_of_a_closed_window_carries_the_mark(server):
    sk, peer = server.established("mss 1000", win=0)
    sk.send(b"help", MSG_OOB)
    probe = peer.expect_next(within_us=2_000_000)
    assert probe.flags & URG and not probe.payload


def test_a_repeated_segment_carries_it_again(server):
    sk, peer = server.established()
    sk.send(b"abc", MSG_OOB)
    peer.expect("PU. 1:4(3) ack 1 urg 3")
    peer.expect("PU. 1:4(3) ack 1 urg 3", within_us=2_000_000)


@pytest.mark.linux("tcp_write_wakeup: between(tp->snd_up, tp->snd_una + 1, tp->snd_una + 0xFFFF)")
def test_a_closed_window_is_probed_twice_while_urgent_data_waits(server):
    sk, peer = server.established()
    peer.send(". 1:1(0) ack 1 win 0")
    sk.send(b"a", MSG_OOB)
    peer.expect(".U 1:1(0) ack 1 urg 1", within_us=1_000_000)
    peer.expect(".U 0:0(0) ack 1 urg 2")


@pytest.mark.linux("tcp_rcv_state_process: tcp_urg() comes before the text")
@pytest.mark.parametrize("ours", [False, True])
def test_an_urgent_byte_that_is_refused_has_been_seen(server, ours):
    sk, peer = server.established()
    if ours:
        sk.shutdown(2)
        peer.expect("F. 1:1(0) ack 1")
        peer.send("PU. 1:101(100) ack 1 urg 50")
    else:
        peer.send("F. 1:1(0) ack 1")
        peer.send("PU. 2:102(100) ack 1 urg 50")
    assert sk.poll() & EPOLLPRI
