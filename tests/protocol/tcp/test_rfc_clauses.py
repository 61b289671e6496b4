"""Clauses of RFC 9293 that no other topic has: addresses, ICMP, a closed window."""

from __future__ import annotations

import errno
import struct
from dataclasses import replace

import pytest

from kit.checksum import checksum
from kit.host import TEST_CONFIG, host
from kit.segment import build_ip
from ustack.config import IpConfig
from ustack.lib.addresses import parse_ipv4

SECOND = 1_000_000


def icmp_about(segment_ip: bytes, kind: int, code: int) -> bytes:
    """Build an ICMP error about a packet that the host sent, in IPv4 from its peer."""
    message = struct.pack(">BBHI", kind, code, 0, 0) + segment_ip[:28]
    message = message[:2] + struct.pack(">H", checksum(message)) + message[4:]
    head = struct.pack(
        ">BBHHHBBHII", 0x45, 0, 20 + len(message), 7, 0, 64, 1, 0,
        parse_ipv4("10.0.0.1"), parse_ipv4("10.0.0.2"),
    )  # fmt: skip
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + message


@pytest.mark.rfc("9293", "MUST-46")
@pytest.mark.parametrize("addr", ["10.0.0.255", "255.255.255.255", "224.0.0.1"])
def test_a_connect_to_many_hosts_at_once_is_refused(server, addr):
    with pytest.raises(OSError) as caught:
        server.socket().connect(parse_ipv4(addr), 80)
    assert caught.value.errno == errno.ENETUNREACH


@pytest.mark.rfc("9293", "MUST-57")
@pytest.mark.parametrize("addr", ["10.0.0.255", "255.255.255.255", "224.0.0.1"])
def test_a_syn_to_many_hosts_at_once_is_not_answered(server, addr):
    server.listen(80)
    peer = server.peer()
    peer.send("S 0:0(0) <mss 1460>", daddr=parse_ipv4(addr))
    peer.expect_nothing(for_us=3 * SECOND)


@pytest.mark.rfc("9293", "MUST-44")
@pytest.mark.rfc("9293", "MUST-45")
def test_every_segment_of_a_connection_has_the_address_of_its_syn(server):
    peer = server.peer(port=80, to=None)
    sk = server.connect()
    syn = peer.answer_syn()
    sk.send(b"x")
    data = peer.expect("P. 1:2(1) ack 1")
    sk.close()
    assert {syn.saddr, data.saddr, peer.expect_next().saddr} == {parse_ipv4("10.0.0.2")}


@pytest.mark.rfc("9293", "MUST-49")
def test_the_time_to_live_is_the_configured_one():
    server = host(replace(TEST_CONFIG, ip=IpConfig(ip_default_ttl=37)))
    sk, peer = server.established()
    sk.send(b"x")
    assert peer.expect("P. 1:2(1) ack 1").ttl == 37


@pytest.mark.rfc("9293", "MUST-56")
@pytest.mark.rfc("9293", "SHLD-25")
@pytest.mark.parametrize("kind, code", [(3, 0), (3, 1), (3, 5), (11, 0), (11, 1), (12, 0)])
def test_a_soft_error_ends_nothing_but_names_the_reason_of_a_timeout(server, kind, code):
    sk, peer = server.established()
    sk.send(b"x")
    sent = peer.expect("P. 1:2(1) ack 1")
    server.net.send_ip(icmp_about(build_ip(sent), kind, code))
    server.settle()
    assert sk.established
    for _ in range(40):
        server.advance_us(60 * SECOND)
        if not sk.established:
            break
    with pytest.raises(OSError) as caught:
        sk.recv(1)
    expected = {(3, 0): errno.ENETUNREACH, (3, 5): errno.EOPNOTSUPP, (12, 0): errno.EPROTO}
    assert caught.value.errno == expected.get((kind, code), errno.EHOSTUNREACH)


@pytest.mark.rfc("9293", "SHLD-26")
@pytest.mark.parametrize("code", [2, 3])
def test_a_hard_error_ends_an_attempt_but_not_a_connection(server, code):
    attempt_peer = server.peer(port=81, to=None)
    attempt = server.connect(port=81)
    syn = attempt_peer.expect("S 0:0(0)")
    server.net.send_ip(icmp_about(build_ip(syn), 3, code))
    server.settle()
    assert attempt.poll() & 8
    sk, peer = server.established()
    sk.send(b"x")
    server.net.send_ip(icmp_about(build_ip(peer.expect("P. 1:2(1) ack 1")), 3, code))
    server.settle()
    assert sk.established


@pytest.mark.rfc("9293", "MUST-55")
def test_a_source_quench_changes_nothing(server):
    sk, peer = server.established()
    sk.send(b"x")
    server.net.send_ip(icmp_about(build_ip(peer.expect("P. 1:2(1) ack 1")), 4, 0))
    server.settle()
    peer.send(". 1:1(0) ack 2")
    assert sk.established
    peer.expect_nothing(for_us=3 * SECOND)


@pytest.mark.rfc("9293", "MUST-66")
def test_a_reset_and_an_ack_are_taken_while_our_window_is_closed(server):
    sk, peer = server.established()
    at, window = 1, 65535
    while window:
        size = min(window, 1460)
        peer.send(f". {at}:{at + size}({size}) ack 1")
        at += size
        got = peer.drain() or [peer.expect_next(within_us=SECOND)]
        window = got[-1].window
    sk.send(b"x")
    peer.expect(f"P. 1:2(1) ack {at}")
    peer.send(f". {at}:{at}(0) ack 2")
    peer.expect_nothing(for_us=3 * SECOND)
    peer.send(f"R {at}:{at}(0)")
    assert not sk.established
