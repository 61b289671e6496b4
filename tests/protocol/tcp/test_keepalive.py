"""Keep-alive: RFC 9293 §3.8.4, off unless asked for; Linux's two hours, nine probes."""

from __future__ import annotations

import errno
import socket

import pytest

SECOND = 1_000_000


@pytest.mark.rfc("9293", "MUST-25")
def test_an_idle_connection_is_left_alone_by_default(server):
    _, peer = server.established()
    peer.expect_nothing(for_us=100_000 * SECOND)


@pytest.mark.rfc("9293", "MUST-28")
@pytest.mark.linux("net.ipv4.tcp_keepalive_time")
def test_after_two_idle_hours_the_peer_is_asked(server):
    sk, peer = server.established()
    sk.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    peer.expect_nothing(for_us=7_190 * SECOND)
    peer.expect(". 0:0(0) ack 1", within_us=20 * SECOND)
    peer.send(". 1:1(0) ack 1")
    peer.expect_nothing(for_us=7_000 * SECOND)
    peer.expect(". 0:0(0) ack 1", within_us=300 * SECOND)


@pytest.mark.rfc("9293", "MUST-29")
@pytest.mark.linux("net.ipv4.tcp_keepalive_probes, tcp_keepalive_intvl")
def test_nine_unanswered_probes_end_it(server):
    sk, peer = server.established()
    sk.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    server.advance_us(7_201 * SECOND)
    server.advance_us(8 * 75 * SECOND)
    assert sk.getsockopt(1, 4) == 0
    server.advance_us(80 * SECOND)
    segments = peer.drain()
    assert [s.flags & 4 for s in segments] == [0] * 9 + [4]
    assert sk.getsockopt(1, 4) == errno.ETIMEDOUT
