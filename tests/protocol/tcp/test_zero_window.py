"""A closed window: probed, never forgotten, reopened in steps worth having (RFC 9293 §3.8.6)."""

from __future__ import annotations

import itertools

import pytest

from kit.segment import pattern

SECOND = 1_000_000


def closed(server):
    """Return a socket with data that its peer's closed window holds back."""
    sk, peer = server.established("mss 1000", win=1000)
    sk.send(pattern(0, 3000))
    peer.expect_data(1, 1001)
    peer.send(". 1:1(0) ack 1001 win 0")
    peer.expect_nothing()
    return sk, peer


@pytest.mark.rfc("9293", "MUST-35")
@pytest.mark.rfc("9293", "MUST-36")
def test_a_closed_window_is_probed_with_growing_pauses(server):
    _, peer = closed(server)
    times = [server.world.now_us]
    for _ in range(5):
        probe = peer.expect(". 1000:1000(0) ack 1", within_us=20 * SECOND)
        times.append(probe.time_us)
        peer.send(". 1:1(0) ack 1001 win 0")
    gaps = [(b - a) / SECOND for a, b in itertools.pairwise(times)]
    assert 0.2 <= gaps[0] <= 1.1
    for shorter, longer in itertools.pairwise(gaps):
        assert longer == pytest.approx(2 * shorter, rel=0.1)


@pytest.mark.rfc("9293", "MUST-37")
def test_a_peer_that_answers_probes_is_never_given_up(server):
    sk, peer = closed(server)
    for _ in range(40):
        if peer.expect(". 1000:1000(0) ack 1", within_us=130 * SECOND):
            peer.send(". 1:1(0) ack 1001 win 0")
    peer.send(". 1:1(0) ack 1001 win 65535")
    peer.expect_data(1001, 3001)
    sk.send(b"more")


@pytest.mark.linux("tcp_probe_timer: TCP_USER_TIMEOUT")
def test_unless_there_is_a_user_timeout(server):
    sk, peer = closed(server)
    sk.setsockopt(6, 18, 5_000)
    begin = server.world.now_us
    while not sk.getsockopt(1, 4):
        assert server.world.now_us - begin < 10 * SECOND
        server.advance_us(100_000)
        if peer.drain():
            peer.send(". 1:1(0) ack 1001 win 0")
    assert server.world.now_us - begin > 5 * SECOND


def test_the_window_update_is_enough(server):
    _, peer = closed(server)
    peer.send(". 1:1(0) ack 1001 win 2000")
    peer.expect_data(1001, 3001)
    peer.send(". 1:1(0) ack 3001 win 2000")
    peer.expect_nothing(for_us=300 * SECOND)


def test_close_while_the_window_is_closed_leaves_established_at_once(server):
    sk, peer = closed(server)
    sk.close()
    assert server.mib.CurrEstab == 0
    peer.send(". 1:1(0) ack 1001 win 65535")
    segments = peer.drain()
    assert sum(len(s.payload) for s in segments) == 2000
    assert segments[-1].flags & 1


@pytest.mark.rfc("9293", "MUST-36")
def test_our_own_window_closes_when_nobody_reads_and_its_probe_is_answered(server):
    sk, peer = server.established()
    at = 1
    room = 1000
    for _ in range(500):
        ack = fill(peer, at, room)
        at, room = (ack.ack - peer.iss) & 0xFFFFFFFF, ack.window
        if ack.window == 0:
            break
    else:
        pytest.fail("the window never closed")
    at = (ack.ack - peer.iss) & 0xFFFFFFFF
    peer.send(f". {at}:{at + 1}(1) ack 1")  # a probe with one byte
    peer.expect(f". 1:1(0) ack {at} win 0")
    peer.send(f". {at - 1}:{at - 1}(0) ack 1")  # a probe as Linux sends it
    peer.expect(f". 1:1(0) ack {at} win 0")
    got = 0
    while got < at - 1:
        got += len(sk.recv(4096))
    server.settle()
    update = peer.drain()[-1]
    assert update.window >= 1460
    assert server.mib.TCPFromZeroWindowAdv == 1


def fill(peer, at, room=1000):
    """Send 1000 bytes, or what there is room for, and return the last ACK."""
    size = min(1000, room)
    peer.send(f"P. {at}:{at + size}({size}) ack 1")
    segments = peer.drain()
    return segments[-1] if segments else peer.expect_next(within_us=SECOND)


@pytest.mark.rfc("9293", "MUST-39")
def test_the_window_does_not_open_by_a_few_bytes(server):
    sk, peer = server.established()
    at = 1
    room = 1000
    while True:
        ack = fill(peer, at, room)
        at, room = (ack.ack - peer.iss) & 0xFFFFFFFF, ack.window
        if ack.window == 0:
            break
    sk.recv(100)
    peer.expect_nothing()


def test_the_offered_right_edge_never_moves_back(server):
    sk, peer = server.established("mss 1460,nop,wscale 7")
    edge, at = 0, 1
    for i in range(200):
        peer.send(f"P. {at}:{at + 999}(999) ack 1")
        at += 999
        for seg in peer.drain():
            now = ((seg.ack - peer.iss) & 0xFFFFFFFF) + (seg.window << 7)
            assert now >= edge
            edge = now
        if i % 3 == 0:
            sk.recv(1500)
