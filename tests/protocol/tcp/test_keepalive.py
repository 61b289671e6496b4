"""Keep-alive: RFC 9293 §3.8.4, off unless asked for; Linux's two hours, nine probes."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest

from kit.host import TEST_CONFIG, Host, host
from ustack.config import TcpConfig

SECOND = 1_000_000
SOL_SOCKET, IPPROTO_TCP = 1, 6
TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT = 4, 5, 6


def kept_alive(h: Host, idle: int = 0, interval: int = 0, count: int = 0) -> tuple[Any, Any]:
    """A connection with SO_KEEPALIVE and these options, in seconds."""
    sk, peer = h.established()
    for option, value in ((TCP_KEEPIDLE, idle), (TCP_KEEPINTVL, interval), (TCP_KEEPCNT, count)):
        if value:
            sk.setsockopt(IPPROTO_TCP, option, value)
    sk.setsockopt(SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return sk, peer


def seconds(h: Host, peer: Any, begin_us: int) -> list[float]:
    """When the host sent what it sent."""
    return [round((seg.time_us - begin_us) / SECOND, 1) for seg in peer.drain()]


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


@pytest.mark.linux("tcp_keepalive_timer: user_timeout and icsk_probes_out > 0")
def test_with_a_user_timeout_one_probe_is_enough_but_there_is_one(server):
    begin = server.world.now_us
    sk, peer = kept_alive(server, 10, 3, 9)
    sk.setsockopt(IPPROTO_TCP, 18, 5_000)
    server.advance_us(20 * SECOND)
    assert seconds(server, peer, begin) == [10.0, 13.0]  # the probe, the reset
    assert sk.getsockopt(SOL_SOCKET, 4) == errno.ETIMEDOUT


@pytest.mark.linux("E-KEEP: 2/1/3, ETIMEDOUT after 5 s")
def test_two_one_three_ends_after_five_seconds(server):
    begin = server.world.now_us
    sk, peer = kept_alive(server, 2, 1, 3)
    server.advance_us(4_900_000)
    assert sk.getsockopt(1, 4) == 0
    server.advance_us(200_000)
    assert seconds(server, peer, begin) == [2, 3, 4, 5]
    assert sk.getsockopt(1, 4) == errno.ETIMEDOUT
    assert server.mib.TCPAbortOnTimeout == 1
    assert server.mib.TCPKeepAlive == 3
    assert sk.recv(1) == b""


@pytest.mark.linux("E-KEEP by sysctl")
def test_the_knobs_are_the_stacks_defaults():
    config = TcpConfig(
        tcp_keepalive_time_us=2 * SECOND, tcp_keepalive_intvl_us=SECOND, tcp_keepalive_probes=3
    )
    h = host(TEST_CONFIG, tcp=config)
    sk, _ = kept_alive(h)
    h.advance_us(5_100_000)
    assert sk.getsockopt(1, 4) == errno.ETIMEDOUT


def test_an_answer_begins_it_all_anew(server):
    sk, peer = kept_alive(server, 2, 1, 3)
    server.advance_us(4_100_000)
    peer.drain()
    peer.send(". 1:1(0) ack 1")
    begin = server.world.now_us
    server.advance_us(4_900_000)
    assert sk.getsockopt(1, 4) == 0
    assert seconds(server, peer, begin) == [2, 3, 4]


@pytest.mark.rfc("9293", "MUST-26")
def test_it_counts_from_the_last_segment_of_the_peer(server):
    _, peer = kept_alive(server, 10)
    server.advance_us(7 * SECOND)
    peer.send("P. 1:6(5) ack 1")
    peer.drain()
    peer.expect_nothing(for_us=9_500_000)
    peer.expect(". 0:0(0) ack 6", within_us=SECOND)


def test_a_reset_that_answers_a_probe_ends_it(server):
    sk, peer = kept_alive(server, 2, 1, 3)
    peer.expect(". 0:0(0) ack 1", within_us=3 * SECOND)
    peer.send("R 1:1(0)")
    assert sk.getsockopt(1, 4) == errno.ECONNRESET


@pytest.mark.linux("It is alive without keepalive")
def test_while_something_is_unacknowledged_nothing_is_probed(server):
    sk, peer = kept_alive(server, 2, 1, 3)
    sk.send(b"data")
    peer.expect("P. 1:5(4) ack 1")
    server.advance_us(20 * SECOND)
    assert {len(seg.payload) for seg in peer.drain()} == {4}
    assert server.mib.TCPKeepAlive == 0


def test_switched_off_it_asks_no_more(server):
    sk, peer = kept_alive(server, 2, 1, 3)
    server.advance_us(2_100_000)
    peer.drain()
    sk.setsockopt(SOL_SOCKET, socket.SO_KEEPALIVE, 0)
    peer.expect_nothing(for_us=100 * SECOND)


@pytest.mark.linux("tcp_sock_set_keepidle: counts from the last segment")
def test_a_new_idle_time_counts_at_once(server):
    sk, peer = kept_alive(server, 100)
    server.advance_us(10 * SECOND)
    sk.setsockopt(IPPROTO_TCP, TCP_KEEPIDLE, 12)
    peer.expect_nothing(for_us=1_500_000)
    peer.expect(". 0:0(0) ack 1", within_us=SECOND)


def test_an_idle_time_that_is_over_asks_at_once(server):
    sk, peer = kept_alive(server, 100)
    server.advance_us(10 * SECOND)
    sk.setsockopt(IPPROTO_TCP, TCP_KEEPIDLE, 5)
    peer.expect(". 0:0(0) ack 1", within_us=10_000)


def test_set_before_connecting_it_begins_with_the_connection(server):
    peer = server.peer(port=80, to=None)
    sk = server.socket()
    sk.setsockopt(SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sk.setsockopt(IPPROTO_TCP, TCP_KEEPIDLE, 3)
    with pytest.raises(BlockingIOError):
        sk.connect(peer.addr, 80)
    server.settle()
    peer.answer_syn()
    peer.expect(". 0:0(0) ack 1", within_us=4 * SECOND)


def test_a_child_has_its_listeners_options(server):
    lsk = server.listen()
    lsk.setsockopt(SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    lsk.setsockopt(IPPROTO_TCP, TCP_KEEPIDLE, 3)
    peer = server.peer()
    peer.handshake()
    sk = lsk.accept()
    assert sk.getsockopt(IPPROTO_TCP, TCP_KEEPIDLE) == 3
    peer.expect(". 0:0(0) ack 1", within_us=4 * SECOND)


def test_in_close_wait_the_peer_is_asked_as_well(server):
    _, peer = kept_alive(server, 2, 1, 3)
    peer.send("F. 1:1(0) ack 1")
    peer.expect(". 1:1(0) ack 2", within_us=SECOND)
    peer.expect(". 0:0(0) ack 2", within_us=3 * SECOND)


def test_half_closed_in_fin_wait_2_too(server):
    sk, peer = kept_alive(server, 2, 1, 3)
    sk.shutdown(1)
    peer.expect("F. 1:1(0) ack 1")
    peer.send(". 1:1(0) ack 2")
    peer.expect(". 1:1(0) ack 1", within_us=3 * SECOND)
    server.advance_us(5 * SECOND)
    assert sk.getsockopt(1, 4) == errno.ETIMEDOUT


@pytest.mark.parametrize(
    ("option", "value"),
    [
        (TCP_KEEPIDLE, 0), (TCP_KEEPIDLE, 32768), (TCP_KEEPINTVL, 0), (TCP_KEEPINTVL, 32768),
        (TCP_KEEPCNT, 0), (TCP_KEEPCNT, 128),
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused(server, option, value):
    sk = server.socket()
    with pytest.raises(OSError) as caught:
        sk.setsockopt(IPPROTO_TCP, option, value)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    ("option", "default", "most"),
    [(TCP_KEEPIDLE, 7200, 32767), (TCP_KEEPINTVL, 75, 32767), (TCP_KEEPCNT, 9, 127)],
)
def test_options_read_what_holds(server, option, default, most):
    sk = server.socket()
    assert sk.getsockopt(IPPROTO_TCP, option) == default
    sk.setsockopt(IPPROTO_TCP, option, most)
    assert sk.getsockopt(IPPROTO_TCP, option) == most
