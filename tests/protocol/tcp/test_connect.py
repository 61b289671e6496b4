"""connect(): states and errors, how often the SYN is repeated, who answers it how."""

from __future__ import annotations

import errno
import socket
from dataclasses import replace
from typing import Any

import pytest

from kit.host import TEST_CONFIG, Host, host
from kit.netbed import icmp_packet
from kit.peer import Peer
from kit.segment import build_ip
from ustack.config import LINUX_6, LINUX_310, TcpConfig
from ustack.core.sysctl import with_profile
from ustack.tcp.states import TCP_FIN_WAIT2

SECOND = 1_000_000
IPPROTO_TCP, TCP_SYNCNT, TCP_QUICKACK = 6, 7, 12
PEER = 0x0A000001


def with_tcp(profile: str = LINUX_6, **tcp: Any) -> Host:
    config = with_profile(TEST_CONFIG, profile)
    return host(replace(config, tcp=replace(config.tcp, **tcp)))


def begin(h: Host) -> tuple[Any, Peer]:
    """A SYN is out."""
    peer = h.peer(port=80, to=None)
    sk = h.connect()
    peer.expect("S 0:0(0)")
    return sk, peer


def error_of(sk: Any, addr: int = PEER, port: int = 80) -> int:
    with pytest.raises(OSError) as caught:
        sk.connect(addr, port)
    return int(caught.value.errno or 0)


# Errors, each of which the kernel here was asked for.


def test_errors_at_once(server):
    assert error_of(server.listen()) == errno.EISCONN
    assert error_of(server.socket(), port=0) == errno.ECONNREFUSED
    assert error_of(server.socket(), addr=0xFFFFFFFF) == errno.ENETUNREACH
    assert error_of(server.socket(), addr=0xE0000001) == errno.ENETUNREACH
    assert error_of(server.socket(), addr=0xC0000201) == errno.ENETUNREACH


def test_states_of_an_attempt(server):
    sk = server.socket()
    assert error_of(sk) == errno.EINPROGRESS
    assert error_of(sk) == errno.EALREADY
    peer = server.peer(port=80, to=sk.getsockname()[1])
    server.settle()
    peer.answer_syn()
    sk.connect(PEER, 80)
    assert error_of(sk) == errno.EISCONN


def test_a_refused_attempt_is_reported_once_and_can_be_repeated(server):
    sk, peer = begin(server)
    peer.send("R. 0:0(0) ack 1")
    assert sk.poll() & 0x18 == 0x18  # EPOLLERR | EPOLLHUP
    assert error_of(sk) == errno.ECONNREFUSED
    assert sk.poll() == 0x114  # EPOLLHUP, but nothing to read: as a new socket
    peer.to = None
    assert error_of(sk) == errno.EINPROGRESS
    server.settle()
    peer.expect("S 0:0(0)")


def test_before_anything_send_and_recv_say_what_linux_says(server):
    sk = server.socket()
    with pytest.raises(OSError) as caught:
        sk.recv(1)
    assert caught.value.errno == errno.ENOTCONN


@pytest.mark.parametrize(
    ("kind", "code", "error"),
    [
        (3, 0, errno.ENETUNREACH), (3, 1, errno.EHOSTUNREACH), (3, 2, errno.ENOPROTOOPT),
        (3, 3, errno.ECONNREFUSED), (3, 13, errno.EHOSTUNREACH), (11, 0, errno.EHOSTUNREACH),
        (12, 0, errno.EPROTO),
    ],
)  # fmt: skip
@pytest.mark.linux("tcp_v4_err: in SYN_SENT every error ends the attempt")
def test_icmp_ends_an_attempt(server, kind, code, error):
    peer = server.peer(port=80, to=None)
    sk = server.connect()
    syn = peer.expect("S 0:0(0)")
    quoted = build_ip(replace(syn, payload=b""))
    icmp_error(server, kind, code, quoted)
    assert sk.getsockopt(1, 4) == error
    assert server.mib.AttemptFails == 1


def icmp_error(h: Host, kind: int, code: int, packet: bytes) -> None:
    """The peer complains of one of our packets."""
    h.net.send_ip(icmp_packet(kind, code, 0, packet[:28], saddr=PEER, daddr=h.addr))
    h.settle()


def test_icmp_about_another_sequence_number_is_ignored(server):
    peer = server.peer(port=80, to=None)
    sk = server.connect()
    syn = peer.expect("S 0:0(0)")
    quoted = build_ip(replace(syn, seq=syn.seq + 1000 & 0xFFFFFFFF))
    icmp_error(server, 3, 1, quoted)
    assert sk.getsockopt(1, 4) == 0


# How often, and when.


def syn_times(h: Host, sk: Any, peer: Peer, begin_us: int) -> tuple[list[int], int]:
    """When SYNs came, and when the attempt ended, in seconds."""
    while not sk.poll() & 8:
        h.advance_us(SECOND)
        assert h.world.now_us < begin_us + 1000 * SECOND
    end = (h.world.now_us - begin_us) // SECOND
    return [round((s.time_us - begin_us) / SECOND) for s in peer.drain()], end


@pytest.mark.linux("E-RETRY; numbers C1, C2")
@pytest.mark.parametrize(
    ("profile", "retries", "times", "ends"),
    [
        (LINUX_310, 6, [0, 1, 3, 7, 15, 31, 63], 127),
        (LINUX_310, 2, [0, 1, 3], 7),
        (LINUX_6, 6, [0, 1, 2, 3, 4, 5, 7, 11, 19, 35, 67], 131),
        (LINUX_6, 2, [0, 1, 2, 3, 4, 5], 7),
        (LINUX_6, 1, [0, 1, 2], 3),
    ],
)
def test_syns_to_a_silent_host(profile, retries, times, ends):
    """In linux-6 the retries at a constant second take their share of the same time."""
    h = with_tcp(profile, tcp_syn_retries=retries)
    peer = h.peer(port=80, to=None)
    begin_us = h.world.now_us
    sk = h.connect()
    assert syn_times(h, sk, peer, begin_us) == (times, ends)
    assert sk.getsockopt(1, 4) == errno.ETIMEDOUT
    assert h.mib.TCPSynRetrans == len(times) - 1
    assert h.mib.TCPAbortOnTimeout == 1


@pytest.mark.linux("TCP_SYNCNT")
def test_a_socket_may_ask_for_less_patience():
    h = with_tcp(LINUX_310)
    peer = h.peer(port=80, to=None)
    sk = h.socket()
    sk.setsockopt(IPPROTO_TCP, TCP_SYNCNT, 3)
    begin_us = h.world.now_us
    error_of(sk)
    h.settle()
    assert syn_times(h, sk, peer, begin_us) == ([0, 1, 3, 7], 15)


@pytest.mark.parametrize("value", [0, 128])
def test_tcp_syncnt_has_a_range(server, value):
    sk = server.socket()
    assert sk.getsockopt(IPPROTO_TCP, TCP_SYNCNT) == 6
    with pytest.raises(OSError):
        sk.setsockopt(IPPROTO_TCP, TCP_SYNCNT, value)


def test_repeated_syns_carry_a_new_timestamp(server):
    _, peer = begin(server)
    first = peer.last_ts_val
    peer.expect("S 0:0(0)", within_us=2 * SECOND)
    assert (peer.last_ts_val - first) & 0xFFFFFFFF == 1000


@pytest.mark.rfc("5681", "3.1")
def test_after_two_lost_syns_one_segment_is_the_window(server):
    sk, peer = begin(server)
    for _ in range(2):
        peer.expect("S 0:0(0)", within_us=2 * SECOND)
    peer.send("S. 0:0(0) ack 1 win 65535 <mss 1000>")
    peer.expect(". 1:1(0) ack 1")
    sk.send(bytes(5000))
    assert len(peer.drain()) == 1


# The answer.


@pytest.mark.rfc("9293", "3.10.7.3")
def test_a_syn_ack_with_a_wrong_number_is_reset_and_the_syn_repeated_soon(server):
    """Its sender may be in an old connection's way: after the reset it is not."""
    _, peer = begin(server)
    peer.send("S. 0:0(0) ack 99 <mss 1460>")
    peer.expect("R 99:99(0)")
    peer.expect("S 0:0(0)", within_us=20_000)


@pytest.mark.rfc("7323", "5.4")
@pytest.mark.linux("PAWSActive")
def test_a_syn_ack_that_echoes_what_we_never_sent_is_reset(server):
    sk, peer = begin(server)
    peer.send("S. 0:0(0) ack 1 <mss 1460,sackOK,TS val 5 ecr 77>")
    peer.expect("R 1:1(0)")
    assert not sk.established
    assert server.mib.PAWSActive == 1


def test_a_syn_ack_may_echo_the_first_of_two_syns(server):
    sk, peer = begin(server)
    first = peer.last_ts_val
    peer.expect("S 0:0(0)", within_us=2 * SECOND)
    peer.send(f"S. 0:0(0) ack 1 <mss 1460,sackOK,TS val 5 ecr {first}>")
    assert sk.established


def test_without_quick_acks_the_request_carries_the_handshakes_ack(server):
    peer = server.peer(port=80, to=None)
    sk = server.socket()
    sk.setsockopt(IPPROTO_TCP, TCP_QUICKACK, 0)
    error_of(sk)
    server.settle()
    peer.expect("S 0:0(0)")
    peer.send("S. 0:0(0) ack 1 <mss 1460>")
    peer.expect_nothing(for_us=100_000)
    sk.send(b"GET")
    peer.expect("P. 1:4(3) ack 1")


def test_or_a_timer_sends_it(server):
    peer = server.peer(port=80, to=None)
    sk = server.socket()
    sk.setsockopt(IPPROTO_TCP, TCP_QUICKACK, 0)
    error_of(sk)
    server.settle()
    peer.expect("S 0:0(0)")
    peer.send("S. 0:0(0) ack 1 <mss 1460>")
    peer.expect(". 1:1(0) ack 1", within_us=210_000)


def test_data_in_the_syn_ack_is_not_taken_twice(server):
    sk, peer = begin(server)
    peer.send("S. 0:0(0) ack 1 <mss 1460>")
    peer.expect(". 1:1(0) ack 1")
    peer.send("S. 0:0(0) ack 1 <mss 1460>")  # repeated: our ACK was lost
    peer.expect(". 1:1(0) ack 1", within_us=SECOND)
    assert sk.established


@pytest.mark.linux("tcp_rcv_synsent_state_process: window of a SYN is not scaled")
def test_the_window_of_the_syn_ack_is_not_scaled(server):
    sk, peer = begin(server)
    peer.send("S. 0:0(0) ack 1 win 1000 <mss 1000,nop,wscale 7>")
    peer.expect(". 1:1(0) ack 1")
    sk.send(bytes(5000))
    assert sum(len(seg.payload) for seg in peer.drain()) == 1000


@pytest.mark.parametrize("option", ["tcp_timestamps", "tcp_sack", "tcp_window_scaling"])
def test_what_is_switched_off_is_not_offered(option):
    h = host(TEST_CONFIG, tcp=TcpConfig(**{option: False}))
    peer = h.peer(port=80, to=None)
    h.connect()
    names = [name for name, _ in peer.expect("S 0:0(0)").options]
    gone = {"tcp_timestamps": "TS", "tcp_sack": "sackOK", "tcp_window_scaling": "wscale"}[option]
    assert gone not in names
    assert len(set(names)) >= 3


# Both at once (RFC 9293 §3.5, figure 8).


def crossing(h: Host, options: str = "mss 1460") -> tuple[Any, Peer]:
    sk, peer = begin(h)
    peer.send(f"S 0:0(0) win 65535 <{options}>")
    peer.expect("S. 0:0(0) ack 1")
    return sk, peer


@pytest.mark.rfc("9293", "MUST-10")
def test_a_crossing_syn_is_answered_with_a_syn_ack(server):
    sk, peer = crossing(server)
    assert not sk.established
    peer.send(". 1:1(0) ack 1")
    assert sk.established


def test_the_syn_ack_of_a_crossing_is_repeated_by_the_same_timer(server):
    _, peer = crossing(server)
    peer.expect("S. 0:0(0) ack 1", within_us=2 * SECOND)


def test_a_crossing_that_is_never_finished_is_given_up():
    h = with_tcp(LINUX_310, tcp_syn_retries=2)
    sk, peer = crossing(h)
    h.advance_us(30 * SECOND)
    assert sk.getsockopt(1, 4) == errno.ETIMEDOUT
    assert 2 <= len(peer.drain()) <= 3


def test_a_reset_in_a_crossing_ends_it(server):
    sk, peer = crossing(server)
    peer.send("R 1:1(0)")
    assert sk.getsockopt(1, 4) in (errno.ECONNREFUSED, errno.ECONNRESET)


@pytest.mark.linux("tcp_syn_options: the SYN-ACK of a crossing is a SYN sent again")
def test_a_crossing_offers_everything_but_uses_only_what_both_offer(server):
    _sk, peer = begin(server)
    peer.send("S 0:0(0) win 65535 <mss 1460,nop,wscale 3>")
    peer.expect("S. 0:0(0) ack 1 <mss 1460,sackOK,TS val * ecr 0,nop,wscale 7>")
    peer.send("P. 11:16(5) ack 1", data=b"world")
    assert peer.expect(". 1:1(0) ack 1").options == ()


def test_text_may_follow_a_crossing_at_once(server):
    sk, peer = crossing(server)
    peer.send("P. 1:6(5) ack 1", data=b"hello")
    assert sk.recv(5) == b"hello"


@pytest.mark.linux("tcp_shutdown: not in TCP_SYN_RECV")
def test_a_shutdown_in_a_crossing_waits_until_it_is_open(server):
    sk, peer = crossing(server)
    sk.shutdown(socket.SHUT_WR)
    peer.expect_nothing()
    peer.send(". 1:1(0) ack 1")
    peer.expect("F. 1:1(0) ack 1")
    peer.send(". 1:1(0) ack 2")
    assert sk._sk.tp.state == TCP_FIN_WAIT2


def test_in_linux_3_10_it_does_not():
    sk, peer = crossing(with_tcp(LINUX_310))
    sk.shutdown(socket.SHUT_WR)
    peer.expect("F. 1:1(0) ack 1")


# A socket that is used again.


@pytest.mark.linux("tcp_disconnect: write_seq += max_window + 2")
def test_the_next_connection_of_a_socket_begins_beyond_the_last(server):
    peer = server.peer(port=80, to=None)
    sk = server.socket()
    sk.bind(0, 5000)
    error_of(sk)
    server.settle()
    peer.answer_syn(win=1000)
    sk.connect(PEER, 80)
    first = peer.host_iss
    peer.send("R 1:1(0)")
    assert sk.getsockopt(1, 4) == errno.ECONNRESET
    assert error_of(sk) == errno.EINPROGRESS
    server.settle()
    peer.expect("S 0:0(0)")
    assert (peer.host_iss - first) & 0xFFFFFFFF == 1 + 1000 + 2
