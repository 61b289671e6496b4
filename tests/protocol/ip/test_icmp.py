"""ICMP and IPv4's checks, from the wire: RFC 792, RFC 1122 §3.2, RFC 791."""

from __future__ import annotations

import struct

import pytest

from kit.checkers import check
from kit.checksum import checksum
from kit.host import Host
from kit.segment import Segment, build_ip

PEER = 0x0A000001


def ip_packet(proto: int, payload: bytes, daddr: int = 0x0A000002, **fields: int) -> bytes:
    """Build an IPv4 packet; fields: ttl, tos, version_ihl, total, frag, saddr, wrong_checksum."""
    header = struct.pack(
        ">BBHHHBBHII", fields.get("version_ihl", 0x45), fields.get("tos", 0),
        fields.get("total", 20 + len(payload)), 7, fields.get("frag", 0), fields.get("ttl", 64),
        proto, 0, fields.get("saddr", PEER), daddr,
    )  # fmt: skip
    total = checksum(header) ^ fields.get("wrong_checksum", 0)
    return header[:10] + struct.pack(">H", total) + header[12:] + payload


def echo(body: bytes = b"0123456789", code: int = 0) -> bytes:
    """Build an echo request."""
    message = struct.pack(">BBHHH", 8, code, 0, 0x1234, 1) + body
    return message[:2] + struct.pack(">H", checksum(message)) + message[4:]


def answers(server: Host) -> list[bytes]:
    """Let the host answer; return its IPv4 frames to nobody in particular."""
    server.settle()
    frames = [c.frame for c in server.net.other if c.frame[12:14] == b"\x08\x00"]
    server.net.other.clear()
    return frames


@pytest.fixture
def known(server) -> Host:
    """A host that has 10.0.0.1 in its neighbour table."""
    server.peer(port=1)  # answers ARP for 10.0.0.1
    server.net.send_ip(ip_packet(1, echo()))
    answers(server)
    return server


@pytest.mark.rfc("792", "echo")
@pytest.mark.parametrize("size", [0, 1, 2, 31, 56, 1472])
def test_an_echo_comes_back_as_it_was(known, size):
    body = bytes(i & 255 for i in range(size))
    known.net.send_ip(ip_packet(1, echo(body), tos=0x10))
    (frame,) = answers(known)
    check(frame).ip(src="10.0.0.2", dst="10.0.0.1", tos=0x10).icmp(0).body(body)


def test_an_echo_to_the_broadcast_address_is_ignored(known):
    known.net.send_ip(ip_packet(1, echo(), daddr=0x0A0000FF))
    assert answers(known) == []


@pytest.mark.parametrize(
    ("damage", "counter"),
    [
        ({"wrong_checksum": 1}, "InHdrErrors"),
        ({"version_ihl": 0x65}, "InHdrErrors"),
        ({"version_ihl": 0x44}, "InHdrErrors"),
        ({"version_ihl": 0x4F}, "InHdrErrors"),
        ({"total": 19}, "InHdrErrors"),
        ({"total": 200}, "InTruncatedPkts"),
    ],
)
def test_a_bad_header_is_dropped_and_counted(known, damage, counter):
    before = getattr(known.mib, counter)
    known.net.send_ip(ip_packet(1, echo(), **damage))
    assert answers(known) == []
    assert getattr(known.mib, counter) == before + 1


@pytest.mark.parametrize("saddr", [0x7F000001, 0xFFFFFFFF, 0xE0000001, 0x0A000002])
def test_a_martian_source_is_dropped(known, saddr):
    known.net.send_ip(ip_packet(1, echo(), saddr=saddr))
    assert answers(known) == []


def test_a_packet_for_another_host_is_not_forwarded(known):
    known.net.send_ip(ip_packet(1, echo(), daddr=0x0A000009))
    assert answers(known) == []


def test_padding_behind_a_short_packet_is_cut_off(known):
    known.net.send_ip(ip_packet(1, echo(b"ab")) + bytes(16))
    (frame,) = answers(known)
    check(frame).ip().icmp(0).body(b"ab")


@pytest.mark.rfc("1122", "3.2.2.1")
def test_a_datagram_to_a_closed_udp_port_is_unreachable(known):
    packet = ip_packet(17, struct.pack(">HHHH", 5, 4242, 12, 0) + b"data")
    known.net.send_ip(packet)
    (frame,) = answers(known)
    check(frame).ip(dst="10.0.0.1").icmp(3, 3).about(packet)
    assert known.mib.NoPorts == 1


@pytest.mark.rfc("1122", "3.2.2.1")
def test_an_unknown_protocol_is_unreachable(known):
    packet = ip_packet(253, b"payload!")
    known.net.send_ip(packet)
    (frame,) = answers(known)
    check(frame).ip(dst="10.0.0.1").icmp(3, 2).about(packet)
    assert known.mib.InUnknownProtos == 1


@pytest.mark.rfc("1122", "3.2.2")
def test_an_error_about_an_error_is_never_sent(known):
    error = struct.pack(">BBHI", 3, 3, 0, 0) + ip_packet(17, bytes(8), daddr=PEER)
    error = error[:2] + struct.pack(">H", checksum(error)) + error[4:]
    known.net.send_ip(ip_packet(1, error))
    assert answers(known) == []


def test_a_wrong_icmp_checksum_is_counted_and_dropped(known):
    spoiled = bytearray(echo())
    spoiled[-1] ^= 1
    known.net.send_ip(ip_packet(1, bytes(spoiled)))
    assert answers(known) == []
    assert known.stack.net.mib.icmp.InCsumErrors == 1


@pytest.mark.rfc("1122", "4.2.3.9")
def test_port_unreachable_ends_a_connection_attempt(server):
    """RFC 1122: hard error in SYN-SENT; Linux gives ECONNREFUSED."""
    import errno

    peer = server.peer(port=80, to=None)
    sk = server.connect()
    syn = peer.expect("S 0:0(0)")
    quoted = build_ip(Segment(server.addr, peer.addr, syn.sport, 80, syn.seq, 0, 2, syn.window))
    error = struct.pack(">BBHI", 3, 3, 0, 0) + quoted[:28]
    error = error[:2] + struct.pack(">H", checksum(error)) + error[4:]
    server.net.send_ip(ip_packet(1, error))
    server.settle()
    assert sk.getsockopt(1, 4) == errno.ECONNREFUSED


@pytest.mark.rfc("5927", "4")
def test_an_icmp_error_with_a_wrong_sequence_number_changes_nothing(server):
    peer = server.peer(port=80, to=None)
    sk = server.connect()
    syn = peer.expect("S 0:0(0)")
    forged = (syn.seq + 100_000) & 0xFFFFFFFF
    quoted = build_ip(Segment(server.addr, peer.addr, syn.sport, 80, forged, 0, 2, syn.window))
    error = struct.pack(">BBHI", 3, 3, 0, 0) + quoted[:28]
    error = error[:2] + struct.pack(">H", checksum(error)) + error[4:]
    server.net.send_ip(ip_packet(1, error))
    server.settle()
    assert sk.getsockopt(1, 4) == 0
