"""Parsers refuse what is too short or wrong, and give back what the builders wrote."""

from __future__ import annotations

import dpkt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ustack.lib.drop_reason import DropReason
from ustack.native.checksum import ip_fast_csum
from ustack.wire.arp import ARP_LEN, ArpPacket, build_arp, parse_arp
from ustack.wire.errors import WireError
from ustack.wire.ethernet import build_ethernet, parse_ethernet
from ustack.wire.icmp import build_icmp, parse_icmp
from ustack.wire.ipv4 import build_ipv4, parse_ipv4
from ustack.wire.udp import build_udp, parse_udp

MACS = st.binary(min_size=6, max_size=6)
U8 = st.integers(0, 255)
U16 = st.integers(0, 0xFFFF)
U32 = st.integers(0, 0xFFFFFFFF)

ARP = build_arp(ArpPacket(1, b"\2\0\0\0\0\1", 0x0A000001, bytes(6), 0x0A000002))


def refused(parse, *args) -> DropReason:
    with pytest.raises(WireError) as caught:
        parse(*args)
    return caught.value.reason


@given(MACS, MACS, U16)
def test_an_ethernet_header_reads_back(dest, source, proto):
    header = parse_ethernet(build_ethernet(dest, source, proto) + b"payload")
    assert (header.dest, header.source, header.proto) == (dest, source, proto)


def test_a_frame_without_room_for_its_header_is_too_small():
    assert refused(parse_ethernet, bytes(13)) is DropReason.PKT_TOO_SMALL


@given(st.sampled_from([1, 2]), MACS, U32, MACS, U32, st.binary(max_size=20))
def test_an_arp_packet_reads_back_and_padding_is_ignored(op, sha, sip, tha, tip, padding):
    packet = ArpPacket(op, sha, sip, tha, tip)
    assert parse_arp(build_arp(packet) + padding) == packet


@pytest.mark.parametrize(
    "data",
    [
        ARP[: ARP_LEN - 1],
        b"\0\7" + ARP[2:],
        ARP[:2] + b"\x86\xdd" + ARP[4:],
        ARP[:4] + b"\x08" + ARP[5:],
        ARP[:5] + b"\x10" + ARP[6:],
        ARP[:6] + b"\0\3" + ARP[8:],
    ],
    ids=["short", "hardware", "protocol", "hardware length", "protocol length", "operation"],
)
def test_a_malformed_arp_packet_is_refused(data):
    assert refused(parse_arp, data) is DropReason.ARP_MALFORMED


@given(U32, U32, U8, st.integers(0, 65515), U16, U8, st.integers(1, 255))
def test_an_ip_header_reads_back_with_the_right_checksum(
    saddr, daddr, protocol, payload_bytes, ident, tos, ttl
):
    header = build_ipv4(saddr, daddr, protocol, payload_bytes, ident=ident, tos=tos, ttl=ttl)
    assert ip_fast_csum(header) == 0
    parsed = parse_ipv4(header)
    assert (parsed.saddr, parsed.daddr, parsed.protocol) == (saddr, daddr, protocol)
    assert (parsed.tot_len, parsed.ident, parsed.tos) == (20 + payload_bytes, ident, tos)
    assert (parsed.ttl, parsed.ihl) == (ttl, 20)
    assert parsed.dont_fragment and not parsed.is_fragment
    assert dpkt.ip.IP(header).sum == parsed.csum


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (bytes(19), DropReason.HDR_TRUNC),
        (b"\x65" + bytes(39), DropReason.IP_INHDR),
        (b"\x44" + bytes(39), DropReason.IP_INHDR),
        (b"\x46" + bytes(19), DropReason.HDR_TRUNC),
    ],
    ids=["short", "version 6", "header of 16 bytes", "options missing"],
)
def test_a_malformed_ip_header_is_refused(data, reason):
    assert refused(parse_ipv4, data) is reason


@given(U8, U8, U16, U32)
def test_an_icmp_header_reads_back(icmp_type, code, csum, info):
    header = parse_icmp(build_icmp(icmp_type, code, info, csum))
    assert (header.type, header.code, header.csum, header.info) == (icmp_type, code, csum, info)


def test_an_icmp_message_below_eight_bytes_is_malformed():
    assert refused(parse_icmp, bytes(7)) is DropReason.ICMP_MALFORMED


@given(U16, U16, st.binary(max_size=50), U16)
def test_a_udp_header_reads_back(source, dest, payload, csum):
    header = parse_udp(build_udp(source, dest, len(payload), csum) + payload)
    assert (header.source, header.dest, header.csum) == (source, dest, csum)
    assert header.length == 8 + len(payload)


@pytest.mark.parametrize(
    "data",
    [bytes(7), build_udp(1, 2, 5) + b"four", b"\0\1\0\2\0\7\0\0"],
    ids=["short", "payload missing", "length below eight"],
)
def test_a_truncated_datagram_is_refused(data):
    assert refused(parse_udp, data) is DropReason.PKT_TOO_SMALL


@pytest.mark.parametrize("parse", [parse_ethernet, parse_arp, parse_ipv4, parse_icmp, parse_udp])
@given(data=st.binary(max_size=80))
def test_no_parser_raises_anything_but_wire_error(parse, data):
    try:
        parse(data)
    except WireError as error:
        assert isinstance(error.reason, DropReason)
