"""Delayed ACKs as Linux has them: quick at first, patient later, none beside an answer.

RFC 9293 §3.8.6.3, RFC 5681 §4.2; tcp_event_data_recv, __tcp_ack_snd_check, tcp_send_delayed_ack.
"""

from __future__ import annotations

import pytest

from kit.host import TEST_CONFIG, Host, host
from kit.peer import Peer
from ustack.config import TcpConfig, UstackConfig

MS = 1000
IPPROTO_TCP, TCP_QUICKACK = 6, 12


def patient(server: Host, gap_us: int = 60 * MS):
    """Return a socket, its peer and the next number once the quick ACKs are used up.

    Small segments, read at once, ``gap_us`` apart.
    """
    sk, peer = server.established()
    at = 1
    for _ in range(80):
        peer.send(f". {at}:{at + 100}(100) ack 1")
        at += len(sk.recv(1000))
        if not peer.drain():
            break
        server.advance_us(gap_us)
    else:
        pytest.fail("quick ACKs without end")
    peer.expect(f". 1:1(0) ack {at}", within_us=500 * MS)
    return sk, peer, at


def delay_of_next(peer: Peer, at: int, size: int = 100) -> int:
    """Send a segment and return after how many microseconds its ACK comes."""
    peer.send(f". {at}:{at + size}({size}) ack 1")
    begin = peer.host.world.now_us
    return peer.expect(f". 1:1(0) ack {at + size}", within_us=500 * MS).time_us - begin


@pytest.mark.linux("TCP_MAX_QUICKACKS")
def test_the_first_sixteen_or_so_are_acknowledged_at_once(server):
    sk, peer = server.established()
    at = 1
    quick = 0
    while True:
        peer.send(f". {at}:{at + 100}(100) ack 1")
        at += len(sk.recv(1000))
        if not peer.drain():
            break
        quick += 1
    assert 16 <= quick <= 18


@pytest.mark.linux("tcp_incr_quickack: half a window of segments")
def test_a_small_window_has_fewer_quick_acks():
    server = host(TEST_CONFIG, tcp=TcpConfig(tcp_rmem=(4096, 8192, 8192)))
    sk, peer = server.established()
    at = 1
    quick = 0
    while True:
        peer.send(f". {at}:{at + 100}(100) ack 1")
        at += len(sk.recv(1000))
        if not peer.drain():
            break
        quick += 1
    assert quick <= 4


@pytest.mark.linux("TCP_ATO_MIN")
def test_a_single_segment_then_waits_40_ms(server):
    _sk, peer, at = patient(server, 1 * MS)
    server.advance_us(10 * MS)
    delay = delay_of_next(peer, at)
    assert 39 * MS <= delay <= 80 * MS


@pytest.mark.rfc("5681", "4.2")
def test_never_longer_than_200_ms(server):
    sk, peer, at = patient(server)
    for gap in (50, 100, 150, 190, 150, 190, 190, 190):
        server.advance_us(gap * MS)
        assert delay_of_next(peer, at) <= 200 * MS
        at += len(sk.recv(1000))
        peer.drain()


@pytest.mark.linux("tcp_delack_timer_handler: the ACK was late, ato doubles")
def test_an_ack_that_had_to_be_sent_alone_makes_the_next_wait_longer(server):
    sk, peer, at = patient(server, 1 * MS)
    tp = sk._sk.tp
    before = tp.ack_ato_us
    peer.send(f". {at}:{at + 100}(100) ack 1")
    waited = tp.ack_ato_us
    peer.expect_next(within_us=500 * MS)
    assert tp.ack_ato_us == min(2 * waited, tp.rto_us) and before <= 2 * waited
    assert server.mib.DelayedACKs >= 1


@pytest.mark.linux("tcp_event_data_recv: ato follows the gaps")
def test_segments_in_quick_succession_bring_the_time_down_to_40_ms(server):
    sk, peer, at = patient(server)
    tp = sk._sk.tp
    tp.ack_ato_us = 160 * MS
    for _ in range(6):
        peer.send(f". {at}:{at + 100}(100) ack 1")
        at += len(sk.recv(1000))
        server.advance_us(MS)
    assert tp.ack_ato_us <= 45 * MS


@pytest.mark.linux("tcp_event_data_recv: m > icsk_rto")
def test_after_a_silence_longer_than_an_rto_acks_are_quick_again(server):
    _sk, peer, at = patient(server)
    server.advance_us(5_000 * MS)
    assert delay_of_next(peer, at) == 0


@pytest.mark.rfc("9293", "MUST-58")
def test_more_than_one_full_segment_is_acknowledged_at_once(server):
    sk, peer, at = patient(server)
    sk._sk.tp.ack_rcv_mss = 1460
    peer.send(f". {at}:{at + 1460}(1460) ack 1")
    sk.recv(5000)
    at += 1460
    peer.drain()
    sk._sk.tp.ack_quick = 0
    peer.send(f". {at}:{at + 1460}(1460) ack 1")
    at += len(sk.recv(5000))
    first = peer.drain()
    peer.send(f". {at}:{at + 1460}(1460) ack 1")
    at += len(sk.recv(5000))
    assert len(first + peer.drain()) >= 1


@pytest.mark.linux("tcp_cleanup_rbuf: ICSK_ACK_PUSHED2")
def test_reading_two_pushed_segments_acknowledges_them(server):
    """A sender with two small messages in flight is not left waiting for Nagle's sake."""
    sk, peer, at = patient(server)
    sk.setsockopt(IPPROTO_TCP, TCP_QUICKACK, 0)  # in a dialogue one would wait for the answer
    peer.send(f"P. {at}:{at + 10}(10) ack 1")
    peer.send(f"P. {at + 10}:{at + 20}(10) ack 1")
    peer.expect_nothing()
    sk.recv(100)
    peer.expect(f". 1:1(0) ack {at + 20}")


@pytest.mark.linux("tcp_cleanup_rbuf: ICSK_ACK_PUSHED")
def test_reading_the_end_of_a_message_acknowledges_it(server):
    sk, peer, at = patient(server)
    peer.send(f"P. {at}:{at + 10}(10) ack 1")
    peer.expect_nothing()
    sk.recv(100)
    peer.expect(f". 1:1(0) ack {at + 10}")


def test_reading_only_a_part_of_it_does_not(server):
    sk, peer, at = patient(server)
    peer.send(f"P. {at}:{at + 10}(10) ack 1")
    sk.recv(4)
    peer.expect_nothing()


@pytest.mark.linux("__tcp_ack_snd_check: tp->rcv_nxt - tp->copied_seq < sk->sk_rcvlowat")
@pytest.mark.parametrize("fastpath", [False, True])
@pytest.mark.parametrize(("lowat", "at_once"), [(1, False), (12_000, True)])
def test_what_a_reader_waits_for_more_of_is_acknowledged_though_the_window_stays(
    fastpath, lowat, at_once
):
    tcp = TcpConfig(tcp_rmem=(4096, 32_768, 32_768))
    server = host(TEST_CONFIG, tcp=tcp, ustack=UstackConfig(tcp_fastpath=fastpath))
    sk, peer, at = patient(server)
    sk.setsockopt(1, 18, lowat)  # SO_RCVLOWAT
    for n in range(7):
        peer.drain()
        peer.send(f". {at}:{at + 1460}(1460) ack 1")
        at += 1460
        server.advance_us(60 * MS if n < 5 else 1 * MS)
    assert bool(peer.drain()) is at_once


@pytest.mark.linux("tcp_event_data_recv: icsk_ack.ato")
@pytest.mark.parametrize("fastpath", [False, True])
@pytest.mark.parametrize(
    ("gap_ms", "ato_ms"), [(1, 40), (15, 40), (20, 40), (25, 45), (39, 59), (41, 40)]
)
def test_the_time_that_an_ack_may_wait_follows_the_gaps(fastpath, gap_ms, ato_ms):
    server = host(TEST_CONFIG, ustack=UstackConfig(tcp_fastpath=fastpath))
    sk, peer = server.established()
    peer.send(". 1:101(100) ack 1")
    server.advance_us(gap_ms * MS)
    peer.send(". 101:201(100) ack 1")
    assert sk._sk.tp.ack_ato_us == ato_ms * MS


@pytest.mark.linux("tcp_send_delayed_ack: If delack timer is about to expire, send ACK now")
@pytest.mark.parametrize("fastpath", [False, True])
@pytest.mark.parametrize(("gap_ms", "acked_ms"), [(25, 40), (31, 31)])
def test_an_ack_that_is_nearly_due_goes_with_the_next_segment(fastpath, gap_ms, acked_ms):
    server = host(TEST_CONFIG, ustack=UstackConfig(tcp_fastpath=fastpath))
    _, peer, at = patient(server)
    begin = server.world.now_us
    peer.send(f". {at}:{at + 10}(10) ack 1")
    server.advance_us(gap_ms * MS)
    peer.expect_nothing()
    peer.send(f". {at + 10}:{at + 20}(10) ack 1")
    acked = peer.expect(f". 1:1(0) ack {at + 20}", within_us=100 * MS)
    assert acked.time_us - begin == acked_ms * MS


@pytest.mark.linux("inet_csk_in_pingpong_mode")
def test_in_a_dialogue_reading_does_not_acknowledge_but_the_answer_does(server):
    sk, peer, at = patient(server)
    peer.send(f"P. {at}:{at + 10}(10) ack 1")
    sk.send(b"yes")
    peer.expect(f"P. 1:4(3) ack {at + 10}")
    peer.send(f"P. {at + 10}:{at + 20}(10) ack 4")
    sk.recv(100)
    peer.expect_nothing()
    sk.send(b"no")
    peer.expect(f"P. 4:6(2) ack {at + 20}")
    peer.expect_nothing(for_us=100 * MS)


@pytest.mark.linux("net.ipv4.tcp_pingpong_thresh")
def test_a_higher_threshold_takes_more_answers_to_make_a_dialogue():
    server = host(TEST_CONFIG, tcp=TcpConfig(tcp_pingpong_thresh=3))
    sk, peer, at = patient(server)
    out = 1
    for answers in range(1, 4):
        peer.send(f"P. {at}:{at + 10}(10) ack {out}")
        sk.send(b"yes")
        at, out = at + 10, out + 3
        peer.expect(f"P. {out - 3}:{out}(3) ack {at}")
        interactive = sk.getsockopt(IPPROTO_TCP, TCP_QUICKACK) == 0
        assert interactive == (answers == 3)


@pytest.mark.linux("tcp_delack_timer_handler: leave ping-pong mode")
def test_a_question_that_is_not_answered_ends_the_dialogue(server):
    sk, peer, at = patient(server)
    peer.send(f"P. {at}:{at + 10}(10) ack 1")
    sk.send(b"yes")
    peer.expect(f"P. 1:4(3) ack {at + 10}")
    peer.send(f"P. {at + 10}:{at + 20}(10) ack 4")
    peer.expect(f". 4:4(0) ack {at + 20}", within_us=300 * MS)
    assert sk.getsockopt(IPPROTO_TCP, TCP_QUICKACK) == 1


@pytest.mark.linux("__tcp_sock_set_quickack")
def test_tcp_quickack_sends_the_ack_that_is_owed(server):
    sk, peer, at = patient(server)
    peer.send(f". {at}:{at + 10}(10) ack 1")
    sk.recv(100)
    peer.drain()
    peer.send(f". {at + 10}:{at + 20}(10) ack 1")
    peer.expect_nothing()
    sk.recv(100)
    peer.drain()
    sk.setsockopt(IPPROTO_TCP, TCP_QUICKACK, 0)
    peer.send(f". {at + 20}:{at + 30}(10) ack 1")
    sk.recv(100)
    peer.expect_nothing()
    sk.setsockopt(IPPROTO_TCP, TCP_QUICKACK, 1)
    peer.expect(f". 1:1(0) ack {at + 30}")
    assert sk.getsockopt(IPPROTO_TCP, TCP_QUICKACK) == 1


def test_an_even_tcp_quickack_holds_only_once(server):
    sk, peer, at = patient(server)
    sk.setsockopt(IPPROTO_TCP, TCP_QUICKACK, 0)
    peer.send(f". {at}:{at + 10}(10) ack 1")
    sk.recv(100)
    sk.setsockopt(IPPROTO_TCP, TCP_QUICKACK, 2)
    peer.expect(f". 1:1(0) ack {at + 10}")
    assert sk.getsockopt(IPPROTO_TCP, TCP_QUICKACK) == 0


def test_tcp_quickack_0_waits_for_data_from_the_first_segment_on(server):
    sk, peer = server.established()
    sk.setsockopt(IPPROTO_TCP, TCP_QUICKACK, 0)
    peer.send("P. 1:11(10) ack 1")
    peer.expect_nothing(for_us=30 * MS)
    peer.expect(". 1:1(0) ack 11", within_us=300 * MS)


@pytest.mark.linux("tcp_enter_quickack_mode: DelayedACKLost")
def test_a_repeated_segment_brings_quick_acks_back(server):
    """Our ACK was lost, or came too late: the peer must not time out again."""
    _sk, peer, at = patient(server)
    peer.send(f". {at - 100}:{at}(100) ack 1")
    peer.expect(f". 1:1(0) ack {at}")
    assert server.mib.DelayedACKLost == 1
    assert delay_of_next(peer, at) == 0


def test_a_fin_is_acknowledged_at_once_while_acks_are_quick(server):
    _sk, peer = server.established()
    peer.send("F. 1:1(0) ack 1")
    peer.expect(". 1:1(0) ack 2", within_us=40 * MS)


@pytest.mark.linux("__tcp_ack_snd_check: sk_rcvlowat")
def test_a_reader_that_waits_for_more_does_not_hold_up_the_acks(server):
    """The window cannot move on before it reads; it reads when there is more."""
    sk, peer, at = patient(server)
    tp = sk._sk.tp
    tp.ack_rcv_mss = 100
    tp.sk_rcvbuf = 2 * 40_000  # less than was offered: an ACK would bring no new window
    for lowat in (1, 50_000):
        sk._sk.rcvlowat = lowat
        for _ in range(2):
            peer.send(f". {at}:{at + 100}(100) ack 1")
            at += 100
        assert bool(peer.drain()) == (lowat > 1)
        server.advance_us(300 * MS)
        peer.drain()


@pytest.mark.linux("tcp_measure_rcv_mss: last_seg_size")
def test_two_segments_of_a_smaller_size_are_taken_for_the_peers_segment_size(server):
    sk, peer = server.established()
    tp = sk._sk.tp
    at = 1
    for size in (1460, 700, 700):
        peer.send(f". {at}:{at + size}({size}) ack 1")
        at += size
    assert tp.ack_rcv_mss == 700
    peer.send(f"P. {at}:{at + 100}(100) ack 1")
    peer.send(f"P. {at + 100}:{at + 200}(100) ack 1")
    assert tp.ack_rcv_mss == 700  # ends of messages say nothing
