"""What may be sent and when: initial window, slow start, Nagle, PSH, the peer's window."""

from __future__ import annotations

import socket

import pytest

from kit.segment import pattern
from ustack.tcp.diag import tcp_diag

BIG = "mss 1000,nop,wscale 7"
PSH = 8


def start(server, win=60_000, options=BIG):
    """Return a socket and its peer; windows in the script are << 7 after the SYN."""
    lsk = server.listen()
    peer = server.peer()
    peer.send(f"S 0:0(0) win {win} <{options}>")
    peer.expect("S. 0:0(0) ack 1")
    peer.send(f". 1:1(0) ack 1 win {win}")
    return lsk.accept(), peer


@pytest.mark.rfc("6928", "2")
def test_the_initial_window_is_ten_segments(server):
    sk, peer = start(server)
    sk.send(pattern(0, 15_000))
    assert [len(s.payload) for s in peer.drain()] == [1000] * 10


@pytest.mark.rfc("5681", "3.1")
def test_slow_start_doubles_the_window_each_round(server):
    sk, peer = start(server)
    total, written, at = 70_000, 0, 1
    rounds = []
    while at <= total:
        while written < total:
            try:
                written += sk.send(pattern(written, min(4000, total - written)))
            except BlockingIOError:
                break
        server.advance_us(50_000)
        segments = peer.drain()
        assert segments, f"nothing in flight at {at}"
        at += sum(len(s.payload) for s in segments)
        rounds.append(len(segments))
        peer.send(f". 1:1(0) ack {at} win 60000")
    assert rounds == [10, 20, 40]


@pytest.mark.rfc("9293", "3.8.6")
@pytest.mark.parametrize("win", [500, 999, 1000, 2500, 4000])
def test_no_byte_goes_past_the_peers_window(server, win):
    sk, peer = server.established("mss 1000", win=win)
    sk.send(pattern(0, 10_000))
    sent = 1 + sum(len(s.payload) for s in peer.drain())
    assert sent - 1 <= win
    peer.send(f". 1:1(0) ack {sent} win {win}")
    assert sum(len(s.payload) for s in peer.drain()) <= win


@pytest.mark.rfc("9293", "MUST-34")
def test_a_shrunken_window_is_obeyed_and_does_no_harm(server):
    sk, peer = server.established("mss 1000", win=5000)
    sk.send(pattern(0, 9_000))
    peer.expect_data(1, 5001)
    peer.send(". 1:1(0) ack 1001 win 1000")
    peer.expect_nothing()
    peer.send(". 1:1(0) ack 5001 win 4000")
    peer.expect_data(5001, 9001)


@pytest.mark.rfc("9293", "3.10.7.4")
def test_an_older_segment_does_not_shrink_the_window(server):
    """SND.WL1 and SND.WL2: Linux takes a smaller window only with newer numbers."""
    sk, peer = server.established("mss 1000", win=5000)
    peer.send(". 1:1(0) ack 1 win 1000")
    sk.send(pattern(0, 9_000))
    assert len(peer.drain()) == 5


@pytest.mark.rfc("9293", "SHLD-7")
def test_nagle_holds_a_second_small_segment_until_the_first_is_acknowledged(server):
    sk, peer = server.established()
    sk.send(b"a")
    peer.expect("P. 1:2(1) ack 1")
    sk.send(b"b")
    sk.send(b"c")
    peer.expect_nothing()
    peer.send(". 1:1(0) ack 2")
    peer.expect("P. 2:4(2) ack 1")


@pytest.mark.rfc("9293", "MUST-17")
def test_nodelay_switches_nagle_off(server):
    sk, peer = server.established()
    sk.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for index, char in enumerate((b"a", b"b", b"c")):
        sk.send(char)
        peer.expect(f"P. {1 + index}:{2 + index}(1) ack 1")


def test_nagle_lets_full_segments_through(server):
    sk, peer = server.established("mss 1000")
    sk.send(b"a")
    peer.expect("P. 1:2(1) ack 1")
    sk.send(bytes(2500))
    assert [len(s.payload) for s in peer.drain()] == [1000, 1000]
    peer.send(". 1:1(0) ack 2002")
    assert [len(s.payload) for s in peer.drain()] == [500]


@pytest.mark.linux("tcp_minshall_check")
def test_a_large_write_with_a_small_tail_is_not_held_by_a_full_segment(server):
    sk, peer = server.established("mss 1000")
    sk.send(bytes(1500))
    assert [len(s.payload) for s in peer.drain()] == [1000, 500]


@pytest.mark.rfc("9293", "MUST-60")
def test_the_last_segment_of_a_write_is_pushed(server):
    sk, peer = server.established("mss 1000")
    sk.send(bytes(2500))
    assert [bool(s.flags & PSH) for s in peer.drain()] == [False, False, True]


@pytest.mark.linux("MSG_MORE")
def test_more_to_come_holds_a_small_segment(server):
    sk, peer = server.established("mss 1000")
    sk.send(b"head", socket.MSG_MORE)
    peer.expect_nothing()
    sk.send(b"body")
    peer.expect("P. 1:9(8) ack 1")


def test_send_takes_only_what_the_buffer_holds(server):
    sk, peer = server.established(win=0)
    del peer
    taken = 0
    with pytest.raises(BlockingIOError):
        while True:
            taken += sk.send(bytes(4096))
            assert taken < 10_000_000
    assert taken >= 16_384


@pytest.mark.linux("tcp_cwnd_restart")
@pytest.mark.parametrize(("rtos", "cwnd"), [(1.5, 40), (2.5, 20), (3.5, 10), (9, 10)])
def test_each_rto_of_silence_halves_the_window_down_to_the_first_one(server, rtos, cwnd):
    sk, _ = start(server)
    tp = sk._sk.tp
    tp.snd_cwnd, tp.snd_ssthresh = 80, 5
    tp.lsndtime_us = server.world.now_us
    server.advance_us(int(rtos * tp.rto_us))
    sk.send(b"x")
    assert tp.snd_cwnd == cwnd
    assert tp.snd_ssthresh == 60  # three quarters of what it was


def test_idle_restarts_slow_start(server):
    """RFC 2861 / net.ipv4.tcp_slow_start_after_idle."""
    sk, peer = start(server)
    sk.send(pattern(0, 10_000))
    peer.expect_data(1, 10_001)
    peer.send(". 1:1(0) ack 10001 win 60000")
    server.advance_us(60_000_000)
    sk.send(pattern(10_000, 16_000))
    assert len(peer.drain()) == 10


@pytest.mark.linux("tcp_sendmsg returns what it has copied, whatever becomes of it")
def test_what_send_has_taken_waits_in_send_q_while_the_device_is_down(server):
    sk, peer = server.established()
    server.stack.net.dev_close(server.adapter)
    assert sk.send(bytes(1024)) == 1024
    peer.expect_nothing()
    (row,) = [row for row in tcp_diag(server.stack.tcp) if row["state"] == "ESTAB"]
    assert row["send_q"] == 1024
