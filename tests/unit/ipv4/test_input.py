"""ip_rcv: each way in which a packet can be wrong has its counter and its reason."""

from __future__ import annotations

import struct

import pytest

from kit.netbed import OTHER, OTHER_MAC, OUR_MAC, OURS, PEER, PEER_MAC, Bed, with_checksum
from ustack.core.skb import Skb
from ustack.ipv4.input import ip_addrs
from ustack.lib.addresses import ETH_BROADCAST, parse_interface, parse_ipv4
from ustack.wire.ethernet import ETH_P_IP, build_ethernet
from ustack.wire.icmp import parse_icmp
from ustack.wire.ipv4 import build_ipv4
from ustack.wire.ipv4 import parse_ipv4 as parse_header

PROTO = 200


def bed_with_handler() -> tuple[Bed, list[Skb]]:
    bed = Bed()
    bed.know_peer()
    got: list[Skb] = []
    bed.ip.inet_add_protocol(PROTO, got.append, None)
    return bed, got


def packet(payload: bytes = b"payload", *, saddr: int = PEER, daddr: int = OURS, **fields) -> bytes:
    return build_ipv4(saddr, daddr, PROTO, len(payload), **fields) + payload


def test_a_good_packet_reaches_its_handler_with_offsets_and_addresses():
    bed, got = bed_with_handler()
    bed.receive_ip(packet())
    (skb,) = got
    assert (skb.network_offset, skb.transport_offset) == (14, 34)
    assert ip_addrs(skb) == (PEER, OURS)
    assert bytes(skb.data[34:]) == b"payload"
    ip = bed.net.mib.ip
    assert (ip.InReceives, ip.InDelivers) == (1, 1)
    assert bed.net.mib.ip_ext.InOctets == 27
    assert bed.drops == {}


def test_ethernet_padding_is_trimmed():
    bed, got = bed_with_handler()
    bed.receive_ip(packet(b"tiny") + bytes(22))
    assert bytes(got[0].data[34:]) == b"tiny"


@pytest.mark.rfc("1122", "3.2.1.7")
def test_a_packet_for_us_may_arrive_with_ttl_zero():
    bed, got = bed_with_handler()
    bed.receive_ip(packet(ttl=0))
    assert len(got) == 1


def edited(at: int, value: int, size: str = "B") -> bytes:
    """A packet with one header field changed and the checksum put right again."""
    header = bytearray(packet()[:20])
    struct.pack_into("!" + size, header, at, value)
    return with_checksum(bytes(header)) + b"payload"


@pytest.mark.parametrize(
    ("data", "reason", "counters"),
    [
        (packet()[:19], "HDR_TRUNC", {"InHdrErrors"}),
        (b"", "HDR_TRUNC", {"InHdrErrors"}),
        (edited(0, 0x65), "IP_INHDR", {"InHdrErrors"}),
        (edited(0, 0x44), "IP_INHDR", {"InHdrErrors"}),
        (edited(0, 0x4F), "HDR_TRUNC", {"InHdrErrors"}),
        (edited(2, 19, "H"), "IP_INHDR", {"InHdrErrors"}),
        (edited(2, 28, "H"), "PKT_TOO_SMALL", {"InTruncatedPkts"}),
        (packet()[:10] + b"\0\0" + packet()[12:], "IP_CSUM", {"InHdrErrors", "InCsumErrors"}),
        (packet(daddr=OTHER), "IP_INADDRERRORS", {"InAddrErrors"}),
        (packet(daddr=parse_ipv4("10.9.9.9")), "IP_INADDRERRORS", {"InAddrErrors"}),
        (packet(daddr=parse_ipv4("127.0.0.1")), "IP_INADDRERRORS", {"InAddrErrors"}),
        (packet(daddr=0), "IP_INADDRERRORS", {"InAddrErrors"}),
        (packet(daddr=parse_ipv4("239.1.1.1")), "IP_INADDRERRORS", {"InAddrErrors"}),
        (packet(saddr=OURS), "IP_INVALID_SOURCE", set()),
        (packet(saddr=parse_ipv4("127.0.0.1")), "IP_INVALID_SOURCE", set()),
        (packet(saddr=0), "IP_INVALID_SOURCE", set()),
        (packet(saddr=parse_ipv4("0.1.2.3")), "IP_INVALID_SOURCE", set()),
        (packet(saddr=parse_ipv4("224.0.0.1")), "IP_INVALID_SOURCE", set()),
        (packet(saddr=0xFFFFFFFF), "IP_INVALID_SOURCE", set()),
        (packet(saddr=parse_ipv4("10.0.0.255")), "IP_INVALID_SOURCE", set()),
    ],
)
def test_a_bad_packet_is_dropped_counted_and_not_answered(data, reason, counters):
    bed, got = bed_with_handler()
    bed.receive_ip(data)
    assert got == []
    assert bed.drops == {reason: 1}
    counted = {
        name
        for table in ("Ip", "IpExt")
        for name, value in bed.net.mib.snapshot()[table].items()
        if value and name not in ("Forwarding", "DefaultTTL", "InReceives", "InOctets")
    }
    assert counted == counters
    assert bed.take_sent() == []


def test_a_packet_for_another_station_is_not_even_counted_by_ip():
    bed, got = bed_with_handler()
    bed.receive_ip(packet(), dest=OTHER_MAC)
    assert got == []
    assert bed.drops == {"OTHERHOST": 1}
    assert bed.net.mib.ip.InReceives == 0


@pytest.mark.parametrize("daddr", ["10.0.0.255", "255.255.255.255"])
def test_broadcasts_are_delivered_and_counted(daddr):
    bed, got = bed_with_handler()
    bed.receive_ip(packet(daddr=parse_ipv4(daddr)), dest=ETH_BROADCAST)
    assert len(got) == 1
    assert bed.net.mib.ip_ext.InBcastPkts == 1


def test_a_host_without_address_may_broadcast():
    bed, got = bed_with_handler()
    bed.receive_ip(packet(saddr=0, daddr=0xFFFFFFFF), dest=ETH_BROADCAST)
    assert len(got) == 1


def test_the_all_hosts_group_is_ours():
    bed, got = bed_with_handler()
    bed.receive_ip(packet(daddr=parse_ipv4("224.0.0.1")), dest=bytes.fromhex("01005e000001"))
    assert len(got) == 1
    assert bed.net.mib.ip_ext.InMcastPkts == 1


def test_the_verdict_on_a_source_follows_the_tables():
    bed, got = bed_with_handler()
    bed.receive_ip(packet(daddr=parse_ipv4("10.0.0.3")))
    bed.ip.add_address(bed.eth0, parse_interface("10.0.0.3/24"))
    bed.receive_ip(packet(daddr=parse_ipv4("10.0.0.3")))
    assert len(got) == 1


@pytest.mark.rfc("1122", "3.2.2.1")
def test_an_unknown_protocol_is_answered_with_protocol_unreachable():
    bed = Bed()
    bed.know_peer()
    data = build_ipv4(PEER, OURS, 99, 8) + b"whatever"
    bed.receive_ip(data)
    (frame,) = bed.take_sent()
    assert parse_header(frame, 14).daddr == PEER
    message = parse_icmp(frame, 34)
    assert (message.type, message.code) == (3, 2)
    assert frame[42:] == data
    assert bed.net.mib.ip.InUnknownProtos == 1
    assert bed.drops == {"IP_NOPROTO": 1}


def with_options(options: bytes, payload: bytes = b"payload") -> bytes:
    ihl = 20 + len(options)
    header = bytearray(build_ipv4(PEER, OURS, PROTO, len(options) + len(payload)) + options)
    header[0] = 0x40 | ihl // 4
    return with_checksum(bytes(header)) + payload


def test_options_are_skipped():
    bed, got = bed_with_handler()
    bed.receive_ip(with_options(b"\x94\x04\x00\x00"))  # router alert
    (skb,) = got
    assert skb.transport_offset == 38
    assert bytes(skb.data[38:]) == b"payload"


@pytest.mark.parametrize("kind", [131, 137])
def test_source_routes_are_refused(kind):
    bed, got = bed_with_handler()
    bed.receive_ip(with_options(bytes([kind, 7, 4]) + bytes(5)))
    assert got == []
    assert bed.drops == {"IP_OPTIONS": 1}


@pytest.mark.rfc("1122", "3.2.1.8")
def test_a_malformed_option_is_answered_with_a_parameter_problem():
    bed, got = bed_with_handler()
    bed.receive_ip(with_options(b"\x01\x94\x09\x00"))
    assert got == []
    (frame,) = bed.take_sent()
    message = parse_icmp(frame, 34)
    assert (message.type, message.code, message.info >> 24) == (12, 0, 21)
    assert bed.drops == {"IP_INHDR": 1}
    assert bed.net.mib.icmp.OutParmProbs == 1


def test_a_bad_checksum_of_a_header_with_options_is_found():
    bed, got = bed_with_handler()
    data = bytearray(with_options(b"\x94\x04\x00\x00"))
    data[23] ^= 1
    bed.receive_ip(bytes(data))
    assert got == []
    assert bed.drops == {"IP_CSUM": 1}


def test_a_handler_is_registered_once():
    bed, _ = bed_with_handler()
    with pytest.raises(KeyError):
        bed.ip.inet_add_protocol(PROTO, lambda skb: None, None)


def test_every_single_changed_bit_of_a_header_is_noticed():
    good = packet()
    for bit in range(160):
        bed, got = bed_with_handler()
        data = bytearray(good)
        data[bit // 8] ^= 0x80 >> bit % 8
        bed.receive(build_ethernet(OUR_MAC, PEER_MAC, ETH_P_IP) + bytes(data))
        assert got == []
        assert sum(bed.drops.values()) == 1
        bed.mem.close()
