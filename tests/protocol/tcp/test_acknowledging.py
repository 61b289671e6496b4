"""When data is acknowledged: RFC 9293 §3.8.6.3, RFC 5681 §4.2, Linux's quick ACKs."""

from __future__ import annotations

import pytest

MS = 1000


@pytest.mark.linux("tcp_enter_quickack_mode")
def test_the_first_segments_are_acknowledged_at_once(server):
    _, peer = server.established()
    for i in range(4):
        start = 1 + 100 * i
        peer.send(f"P. {start}:{start + 100}(100) ack 1")
        peer.expect(f". 1:1(0) ack {start + 100}")


@pytest.mark.rfc("9293", "MUST-58")
def test_every_second_full_segment_is_acknowledged(server):
    sk, peer = server.established()
    at = 1
    for _ in range(40):
        peer.send(f". {at}:{at + 1460}(1460) ack 1")
        at += 1460
        sk.recv(10_000)
    peer.drain()
    for start in (at, at + 1460):
        peer.send(f". {start}:{start + 1460}(1460) ack 1")
        sk.recv(10_000)
    (ack,) = peer.drain()
    assert ack.ack == (peer.iss + at + 2920) & 0xFFFFFFFF


@pytest.mark.rfc("9293", "MUST-59")
def test_an_ack_is_never_delayed_by_half_a_second(server):
    sk, peer = server.established()
    sk.send(b"x")  # a dialogue: quick ACKs are over
    peer.expect("P. 1:2(1) ack 1")
    at = 1
    for _ in range(30):
        server.advance_us(300 * MS)
        peer.drain()
        peer.send(f"P. {at}:{at + 10}(10) ack 2")
        at += 10
        begin = server.world.now_us
        ack = peer.expect(f". 2:2(0) ack {at}", within_us=500 * MS)
        assert ack.time_us - begin < 500 * MS
        sk.recv(100)


@pytest.mark.linux("tcp_send_delayed_ack, ping-pong mode")
def test_an_answer_carries_the_ack(server):
    sk, peer = server.established()
    at = 1
    for i in range(10):
        peer.send(f"P. {at}:{at + 10}(10) ack {1 + 5 * i}")
        at += 10
        sk.recv(100)
        sk.send(b"reply")
        segments = peer.drain()
        if i > 2:
            assert len(segments) == 1 and len(segments[0].payload) == 5
        assert segments[-1].ack == (peer.iss + at) & 0xFFFFFFFF


def test_the_delayed_ack_comes_after_40_ms_in_a_dialogue(server):
    sk, peer = server.established()
    at = 1
    for i in range(5):
        peer.send(f"P. {at}:{at + 10}(10) ack {1 + 5 * i}")
        at += 10
        sk.recv(100)
        sk.send(b"reply")
        peer.drain()
    peer.send(f"P. {at}:{at + 10}(10) ack 26")
    begin = server.world.now_us
    peer.expect_nothing()
    ack = peer.expect(f". 26:26(0) ack {at + 10}", within_us=200 * MS)
    assert 35 * MS <= ack.time_us - begin <= 45 * MS
    assert server.mib.DelayedACKs == 1


@pytest.mark.rfc("5681", "4.2")
def test_old_data_is_acknowledged_at_once(server):
    _, peer = server.established()
    peer.send("P. 1:101(100) ack 1")
    peer.expect(". 1:1(0) ack 101")
    peer.send("P. 1:101(100) ack 1")
    peer.expect(". 1:1(0) ack 101")


@pytest.mark.rfc("9293", "3.10.7.4")
def test_a_segment_beyond_the_window_is_acknowledged_and_dropped(server):
    sk, peer = server.established()
    peer.send("P. 400000:400010(10) ack 1")
    peer.expect(". 1:1(0) ack 1")
    with pytest.raises(BlockingIOError):
        sk.recv(10)


def test_overlapping_data_is_taken_once(server):
    sk, peer = server.established()
    peer.send("P. 1:6(5) ack 1", data=b"abcde")
    peer.send("P. 3:9(6) ack 1", data=b"cdefgh")
    assert sk.recv(100) == b"abcdefgh"
    peer.drain()


def test_pure_acks_are_not_acknowledged(server):
    _, peer = server.established()
    for _ in range(5):
        peer.send(". 1:1(0) ack 1")
    peer.expect_nothing(for_us=1_000_000)
