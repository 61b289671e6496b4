"""Explicit congestion notification: agreement, marks, echoes, reductions (RFC 3168)."""

from __future__ import annotations

from typing import Any

import pytest

from kit.host import Host, host
from kit.segment import pattern
from ustack.config import TcpConfig
from ustack.core.sysctl import sysctl_write
from ustack.tcp.cong.ops import (
    CA_EVENT_ECN_IS_CE,
    CA_EVENT_ECN_NO_CE,
    TCP_CONG_NEEDS_ECN,
    TCP_CONG_NON_RESTRICTED,
    CongestionOps,
)

ECT0, CE = 2, 3
CWR, ECE = 0x80, 0x40
OPTIONS = "mss 1000,nop,wscale 7"


def ecn_host(ecn=1, **tcp):
    return host(tcp=TcpConfig(tcp_ecn=ecn, **tcp))


def agreed(h, **fields):
    """Return an accepted socket whose peer asked for ECN, and that peer."""
    lsk = h.listen()
    peer = h.peer()
    peer.send(f"SEC 0:0(0) win 65535 <{OPTIONS}>", **fields)
    return lsk, peer


def established(h):
    lsk, peer = agreed(h)
    peer.expect("S.E 0:0(0) ack 1")
    peer.send(". 1:1(0) ack 1")
    return lsk.accept(), peer


# Agreement.


@pytest.mark.rfc("3168", "6.1.1")
@pytest.mark.parametrize(("ecn", "answer"), [(0, "S."), (1, "S.E"), (2, "S.E")])
def test_a_listener_agrees_unless_the_sysctl_forbids_it(ecn, answer):
    _, peer = agreed(ecn_host(ecn))
    peer.expect(f"{answer} 0:0(0) ack 1")


@pytest.mark.parametrize("syn", ["S", "SE", "SC"])
def test_a_listener_does_not_offer_what_was_not_asked_for(syn):
    h = ecn_host(1)
    h.listen()
    peer = h.peer()
    peer.send(f"{syn} 0:0(0) win 65535 <{OPTIONS}>")
    peer.expect("S. 0:0(0) ack 1")


@pytest.mark.linux("tcp_ecn_create_request")
def test_a_syn_that_is_itself_marked_is_not_believed():
    _, peer = agreed(ecn_host(1), tos=ECT0)
    peer.expect("S. 0:0(0) ack 1")


@pytest.mark.rfc("3168", "6.1.1")
@pytest.mark.parametrize(("ecn", "syn"), [(0, "S"), (1, "SEC"), (2, "S")])
def test_a_syn_asks_only_if_the_sysctl_says_so(ecn, syn):
    h = ecn_host(ecn)
    peer = h.peer(port=80, to=None)
    h.connect(peer.addr, 80)
    assert peer.expect(f"{syn} 0:0(0)").tos == 0


@pytest.mark.linux("net.ipv4.tcp_ecn_fallback")
@pytest.mark.parametrize(("fallback", "again"), [(True, "S"), (False, "SEC")])
def test_a_repeated_syn_asks_no_more(fallback, again):
    h = ecn_host(1, tcp_ecn_fallback=fallback)
    peer = h.peer(port=80, to=None)
    h.connect(peer.addr, 80)
    peer.expect("SEC 0:0(0)")
    peer.expect(f"{again} 0:0(0)", within_us=2_000_000)


@pytest.mark.parametrize(("answer", "tos"), [("S.E", ECT0), ("S.", 0), ("S.EC", 0)])
def test_a_client_marks_its_data_if_the_syn_ack_agrees(answer, tos):
    h = ecn_host(1)
    peer = h.peer(port=80, to=None)
    sk = h.connect(peer.addr, 80)
    peer.expect("SEC 0:0(0)")
    peer.send(f"{answer} 0:0(0) ack 1 win 65535 <{OPTIONS}>")
    assert peer.expect(". 1:1(0) ack 1").tos == 0
    sk.send(b"abc")
    assert peer.expect("P. 1:4(3) ack 1").tos == tos


# Marks of what we send.


@pytest.mark.rfc("3168", "6.1.2")
def test_new_data_is_ect_and_acks_are_not():
    sk, peer = established(ecn_host())
    sk.send(pattern(0, 3000))
    assert [s.tos for s in peer.drain()] == [ECT0] * 3
    peer.send("P. 1:101(100) ack 3001")
    assert peer.expect_next(within_us=500_000).tos == 0


@pytest.mark.rfc("3168", "6.1.5")
def test_repeated_data_is_not_ect():
    sk, peer = established(ecn_host())
    sk.send(pattern(0, 1000))
    assert peer.expect("P. 1:1001(1000) ack 1").tos == ECT0
    assert peer.expect("P. 1:1001(1000) ack 1", within_us=5_000_000).tos == 0


def test_without_agreement_nothing_is_marked(server):
    sk, peer = server.established(OPTIONS)
    sk.send(pattern(0, 3000))
    assert [s.tos for s in peer.drain()] == [0] * 3


# Marks of what comes in.


@pytest.mark.rfc("3168", "6.1.3")
def test_a_mark_is_echoed_until_the_peer_says_that_it_has_reduced():
    _, peer = established(ecn_host())
    peer.send("P. 1:101(100) ack 1", tos=CE)
    peer.expect(".E 1:1(0) ack 101")
    peer.send("P. 101:201(100) ack 1", tos=ECT0)
    peer.expect(".E 1:1(0) ack 201", within_us=500_000)
    peer.send("P.C 201:301(100) ack 1", tos=ECT0)
    peer.expect(". 1:1(0) ack 301")
    peer.send("P. 301:401(100) ack 1", tos=ECT0)
    peer.expect(". 1:1(0) ack 401", within_us=500_000)


def test_data_carries_the_echo_too():
    sk, peer = established(ecn_host())
    peer.send("P. 1:101(100) ack 1", tos=CE)
    peer.expect(".E 1:1(0) ack 101")
    sk.send(b"abc")
    peer.expect("P.E 1:4(3) ack 101")


def test_a_mark_on_the_segment_that_says_cwr_starts_a_new_echo():
    _, peer = established(ecn_host())
    peer.send("P. 1:101(100) ack 1", tos=CE)
    peer.expect(".E 1:1(0) ack 101")
    peer.send("P.C 101:201(100) ack 1", tos=CE)
    peer.expect(".E 1:1(0) ack 201")


def test_a_mark_on_data_beyond_a_hole_is_echoed():
    _, peer = established(ecn_host())
    peer.send("P. 101:201(100) ack 1", tos=CE)
    peer.expect(".E 1:1(0) ack 1")


def test_a_mark_without_agreement_means_nothing(server):
    _, peer = server.established(OPTIONS)
    peer.send("P. 1:101(100) ack 1", tos=CE)
    peer.expect(". 1:1(0) ack 101", within_us=500_000)


# Echoes.


def window(sk) -> int:
    return sk._sk.tp.snd_cwnd


@pytest.mark.rfc("3168", "6.1.2")
def test_an_echo_reduces_the_window_and_the_next_new_data_says_so():
    sk, peer = established(ecn_host())
    sk.setsockopt(6, 13, b"reno")
    sk.send(pattern(0, 12_000))
    assert len(peer.drain()) == 10
    peer.send(".E 1:1(0) ack 1001")
    assert sk._sk.tp.snd_ssthresh == 5
    peer.send(".E 1:1(0) ack 10001")
    flags = [s.flags & CWR for s in peer.drain()]
    assert flags == [CWR, 0]
    assert window(sk) == 5


def test_echoes_of_one_round_trip_reduce_it_once():
    sk, peer = established(ecn_host())
    sk.setsockopt(6, 13, b"reno")
    sk.send(pattern(0, 10_000))
    peer.drain()
    for n in range(1, 11):
        peer.send(f".E 1:1(0) ack {n * 1000 + 1}")
    assert sk._sk.tp.snd_ssthresh == 5


def test_an_echo_in_the_next_round_trip_reduces_it_again():
    sk, peer = established(ecn_host())
    sk.setsockopt(6, 13, b"reno")
    sk.send(pattern(0, 10_000))
    peer.drain()
    peer.send(".E 1:1(0) ack 10001")
    sk.send(pattern(10_000, 5_000))
    at = 10_001 + sum(len(s.payload) for s in peer.drain())
    peer.send(f". 1:1(0) ack {at}")
    sk.send(pattern(15_000, 5_000))
    peer.drain()
    peer.send(f".E 1:1(0) ack {at + 1000}")
    assert sk._sk.tp.snd_ssthresh <= 3


def test_nothing_is_repeated_for_an_echo():
    sk, peer = established(ecn_host())
    sk.send(pattern(0, 10_000))
    peer.drain()
    peer.send(".E 1:1(0) ack 1001")
    peer.expect_nothing()


def test_an_echo_without_agreement_means_nothing(server):
    sk, peer = server.established(OPTIONS)
    sk.send(pattern(0, 5_000))
    peer.drain()
    peer.send(".E 1:1(0) ack 5001")
    assert window(sk) >= 10


@pytest.mark.rfc("3168", "6.1.2")
def test_fast_retransmit_says_cwr_too():
    sk, peer = established(ecn_host())
    sk.send(pattern(0, 10_000))
    peer.drain()
    for _ in range(3):
        peer.send(". 1:1(0) ack 1")
    peer.drain()
    peer.send(". 1:1(0) ack 10001")
    sk.send(pattern(10_000, 1_000))
    assert any(s.flags & CWR for s in peer.drain())


# SYN cookies.


def test_a_cookie_without_timestamps_agrees_to_nothing():
    """There is nowhere to remember it until the third ACK."""
    _, peer = agreed(ecn_host(1, tcp_syncookies=2))
    peer.expect("S. 0:0(0) ack 1")


@pytest.mark.linux("cookie_init_timestamp")
def test_a_cookie_with_timestamps_remembers_the_agreement():
    h = ecn_host(1, tcp_syncookies=2)
    lsk = h.listen()
    peer = h.peer()
    peer.send("SEC 0:0(0) win 65535 <mss 1000,sackOK,TS val 5 ecr 0,nop,wscale 7>")
    peer.expect("S.E 0:0(0) ack 1")
    peer.send(". 1:1(0) ack 1 <nop,nop,TS val 6 ecr *>")
    lsk.accept().send(b"abc")
    assert peer.expect("P. 1:4(3) ack 1").tos == ECT0


# A congestion control that needs it.


class Marked(CongestionOps):
    """Wants ECN whatever the sysctl says, as DCTCP does, and notes what it hears of marks."""

    name = "marked"
    flags = TCP_CONG_NON_RESTRICTED | TCP_CONG_NEEDS_ECN

    def __init__(self) -> None:
        self.events: list[int] = []

    def cwnd_event(self, sk: Any, event: int) -> None:
        self.events.append(event)


class Unmarked(Marked):
    """Does not need it."""

    name = "unmarked"
    flags = TCP_CONG_NON_RESTRICTED


def with_ops(ops: Marked, ecn: int = 0) -> Host:
    h = ecn_host(ecn)
    h.stack.register_congestion_control(ops)
    config = sysctl_write(h.stack.config, "net.ipv4.tcp_congestion_control", ops.name)
    h.stack.set_config(config)
    return h


@pytest.mark.linux("tcp_ecn_send_syn: tcp_ca_needs_ecn, INET_ECN_xmit")
def test_who_needs_it_asks_though_the_sysctl_says_never():
    h = with_ops(Marked())
    peer = h.peer(port=80, to=None)
    h.connect()
    assert peer.expect("SEC 0:0(0)").tos & 3 == ECT0


@pytest.mark.linux("tcp_ecn_create_request: tcp_ca_needs_ecn")
@pytest.mark.parametrize("tos", [0, ECT0])
def test_a_listener_that_needs_it_agrees_even_to_a_marked_syn(tos):
    _, peer = agreed(with_ops(Marked()), tos=tos)
    peer.expect("S.E 0:0(0) ack 1")


@pytest.mark.linux("tcp_ecn_send: INET_ECN_dontxmit unless tcp_ca_needs_ecn")
def test_who_needs_it_marks_acks_and_repetitions_too():
    h = with_ops(Marked())
    sk, peer = established(h)
    peer.send("P. 1:11(10) ack 1", tos=ECT0)
    assert peer.expect_next(within_us=500_000).tos & 3 == ECT0
    sk.send(pattern(0, 10))
    assert peer.expect_next().tos & 3 == ECT0
    assert peer.expect_next(within_us=5_000_000).tos & 3 == ECT0


@pytest.mark.linux("__tcp_ecn_check_ce: CA_EVENT_ECN_IS_CE, CA_EVENT_ECN_NO_CE")
def test_who_needs_it_hears_of_every_segment_whether_it_is_marked():
    ops = Marked()
    _, peer = established(with_ops(ops))
    for i, mark in enumerate((ECT0, CE, CE, 0)):
        peer.send(f"P. {1 + 10 * i}:{11 + 10 * i}(10) ack 1", tos=mark)
    assert ops.events == [CA_EVENT_ECN_NO_CE, CA_EVENT_ECN_IS_CE, CA_EVENT_ECN_IS_CE]


def test_who_does_not_need_it_hears_nothing_of_marks():
    ops = Unmarked()
    _, peer = established(with_ops(ops, 1))
    peer.send("P. 1:11(10) ack 1", tos=CE)
    assert ops.events == []


def interactive(ecn_tos: int = 0):
    """Return a peer whose text is acknowledged late, the last of it marked ``ecn_tos``."""
    sk, peer = established(ecn_host())
    for i in range(3):
        peer.send(f"P. {10 * i + 1}:{10 * i + 11}(10) ack {i + 1}", tos=ecn_tos)
        sk.recv(10)
        sk.send(b"x")
        peer.drain()
    return peer


def test_acknowledged_late_is_what_an_interactive_peer_sends():
    peer = interactive(ECT0)
    peer.send("P. 31:41(10) ack 4", tos=ECT0)
    peer.expect_nothing()


@pytest.mark.linux("tcp_ecn_accept_cwr: so we should ACK immediately")
def test_text_that_says_cwr_is_acknowledged_at_once():
    """The window of whoever sent it may be one segment."""
    peer = interactive(ECT0)
    peer.send("P.C 31:41(10) ack 4", tos=ECT0)
    peer.expect(". 4:4(0) ack 41")


@pytest.mark.linux("__tcp_ecn_check_ce: INET_ECN_NOT_ECT")
def test_text_without_a_mark_after_text_with_one_is_acknowledged_at_once():
    """It is probably a repetition."""
    peer = interactive(ECT0)
    peer.send("P. 31:41(10) ack 4")
    peer.expect(". 4:4(0) ack 41")
    peer = interactive()
    peer.send("P. 31:41(10) ack 4")
    peer.expect_nothing()
