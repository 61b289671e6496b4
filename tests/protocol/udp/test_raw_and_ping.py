"""Raw sockets see whole packets; ping sockets send echo requests and have the replies."""

from __future__ import annotations

import errno
import struct
from dataclasses import replace

import pytest

from kit.dgram_bed import GROUPS, DgramBed
from kit.netbed import OTHER, OURS, PEER, TEST_CONFIG, icmp_packet, udp_packet
from ustack.config import IpConfig
from ustack.native.checksum import ip_fast_csum
from ustack.wire.ipv4 import IPPROTO_ICMP, IPPROTO_UDP, build_ipv4

SOCK_DGRAM, SOCK_RAW = 2, 3
IPPROTO_RAW = 255
PROTO = 200
ECHO = struct.pack("!BBHHH", 8, 0, 0, 0, 7) + b"payload"
PINGS_ALLOWED = replace(TEST_CONFIG, ip=IpConfig(ping_group_range=(GROUPS[0], GROUPS[0])))


@pytest.fixture
def bed() -> DgramBed:
    return DgramBed(PINGS_ALLOWED)


def fails_with(expected: int, function, *args, **fields) -> None:
    with pytest.raises(OSError) as caught:
        function(*args, **fields)
    assert caught.value.errno == expected


def test_a_raw_socket_has_the_packet_with_its_header_and_udp_has_it_too(bed):
    raw, udp = bed.dgram(SOCK_RAW, IPPROTO_UDP), bed.bound()
    packet = udp_packet(b"hi", dport=53)
    bed.receive_ip(packet)
    assert raw.recvmsg(100)[:3] == (packet, len(packet), (PEER, 0))
    assert udp.recv(10) == b"hi"


def test_every_raw_socket_has_a_copy_and_a_connected_one_only_its_peers(bed):
    free, bound, connected = (bed.dgram(SOCK_RAW, PROTO) for _ in range(3))
    bound.bind(OURS, 0)
    connected.connect(OTHER, 0)
    bed.receive_ip(build_ipv4(PEER, OURS, PROTO, 4) + b"data")
    assert [sock.rcv_ready(1) for sock in (free, bound, connected)] == [True, True, False]


def test_a_raw_socket_makes_its_protocol_reachable(bed):
    packet = build_ipv4(PEER, OURS, PROTO, 4) + b"data"
    raw = bed.dgram(SOCK_RAW, PROTO)
    bed.receive_ip(packet)
    assert bed.take_sent() == []
    raw.close()
    bed.receive_ip(packet)
    assert len(bed.take_sent()) == 1  # protocol unreachable


def test_what_a_raw_socket_sends_gets_a_header(bed):
    raw = bed.dgram(SOCK_RAW, PROTO)
    assert raw.sendmsg(b"data", to=(PEER, 0)) == 4
    (ip,) = bed.sent_ip()
    assert (ip.p, bytes(ip.data), ip.src) == (PROTO, b"data", OURS.to_bytes(4, "big"))


def test_with_ip_hdrincl_the_application_writes_the_header(bed):
    raw = bed.dgram(SOCK_RAW, IPPROTO_RAW)
    assert raw.getsockopt(0, 3) == 1
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, 9, PROTO, 0, bytes(4), bytes(4))
    raw.sendmsg(header + b"data", to=(PEER, 0))
    frame = bed.take_sent()[0][14:]
    assert ip_fast_csum(frame[:20]) == 0
    assert (frame[2:4], frame[8], frame[9]) == (b"\0\x18", 9, PROTO)
    assert (frame[12:16], frame[16:20]) == (OURS.to_bytes(4, "big"), bytes(4))


def test_a_header_that_is_none_or_too_large_is_refused(bed):
    raw = bed.dgram(SOCK_RAW, IPPROTO_RAW)
    fails_with(errno.EINVAL, raw.sendmsg, b"E" * 10, to=(PEER, 0))
    fails_with(errno.EMSGSIZE, raw.sendmsg, b"E" + bytes(1500), to=(PEER, 0))


def test_a_raw_sockets_port_is_its_protocol(bed):
    raw = bed.dgram(SOCK_RAW, IPPROTO_ICMP)
    assert raw.getsockname() == (0, 1)
    raw.bind(OURS, 0)
    assert raw.getsockname() == (OURS, 1)


def test_icmp_filter_keeps_types_away(bed):
    raw = bed.dgram(SOCK_RAW, IPPROTO_ICMP)
    raw.setsockopt(255, 1, 1 << 8)
    bed.receive_ip(icmp_packet(8))
    assert not raw.rcv_ready(1)
    bed.receive_ip(icmp_packet(0))
    assert raw.rcv_ready(1)


def test_a_full_raw_socket_drops_and_counts(bed):
    raw = bed.dgram(SOCK_RAW, PROTO)
    raw.setsockopt(1, 8, 1)
    for _ in range(5):
        bed.receive_ip(build_ipv4(PEER, OURS, PROTO, 4) + b"data")
    assert (len(raw._sk.receive_queue), raw._sk.drops) == (3, 2)


def test_an_error_reaches_a_connected_raw_socket(bed):
    raw = bed.dgram(SOCK_RAW, PROTO)
    raw.connect(PEER, 0)
    quoted = build_ipv4(OURS, PEER, PROTO, 8) + bytes(8)
    bed.receive_ip(icmp_packet(3, 2, payload=quoted))
    fails_with(errno.ENOPROTOOPT, raw.recv, 1)


def test_a_ping_socket_gives_its_requests_an_identifier_and_a_sum(bed):
    sock = bed.dgram(SOCK_DGRAM, IPPROTO_ICMP)
    assert sock.sendmsg(ECHO, to=(PEER, 0)) == len(ECHO)
    (ip,) = bed.sent_ip()
    ident = sock.getsockname()[1]
    assert struct.unpack("!BBxxHH", bytes(ip.data)[:8]) == (8, 0, ident, 7)
    assert (bed.net.mib.icmp.OutEchos, bed.net.mib.icmp.OutMsgs) == (1, 1)
    bed.receive_ip(icmp_packet(0, 0, ident << 16 | 7, b"payload"))
    message = sock.recvmsg(100)
    assert (message.address, message.data[8:]) == ((PEER, 0), b"payload")


def test_a_ping_socket_has_its_own_replies_only(bed):
    sock = bed.dgram(SOCK_DGRAM, IPPROTO_ICMP)
    sock.bind(0, 77)
    bed.receive_ip(icmp_packet(0, 0, 78 << 16 | 7))
    assert not sock.rcv_ready(1)
    assert bed.drops == {"NO_SOCKET": 1}
    bed.receive_ip(icmp_packet(0, 0, 77 << 16 | 7))
    assert sock.rcv_ready(1)


def test_a_ping_socket_sends_echo_requests_only(bed):
    sock = bed.dgram(SOCK_DGRAM, IPPROTO_ICMP)
    fails_with(errno.EINVAL, sock.sendmsg, b"\0" + ECHO[1:], to=(PEER, 0))
    fails_with(errno.EINVAL, sock.sendmsg, b"\x08", to=(PEER, 0))


def test_two_ping_sockets_do_not_share_an_identifier(bed):
    first, second = (bed.dgram(SOCK_DGRAM, IPPROTO_ICMP) for _ in range(2))
    first.bind(0, 77)
    fails_with(errno.EADDRINUSE, second.bind, 0, 77)
    first.close()
    second.bind(0, 77)


def test_a_ping_socket_is_told_of_an_unreachable_host(bed):
    sock = bed.dgram(SOCK_DGRAM, IPPROTO_ICMP)
    sock.setsockopt(0, 11, 1)
    sock.bind(0, 77)
    quoted = build_ipv4(OURS, PEER, IPPROTO_ICMP, 8) + struct.pack("!BBHHH", 8, 0, 0, 77, 7)
    bed.receive_ip(icmp_packet(3, 1, payload=quoted))
    fails_with(errno.EHOSTUNREACH, sock.recv, 1)
    assert sock.recvmsg(100, 0x2000).address == (PEER, 0)


@pytest.mark.linux("net.ipv4.ping_group_range")
def test_ping_group_range_says_who_may_have_a_ping_socket():
    for allowed, outcome in (((1, 0), errno.EACCES), ((101, 200), errno.EACCES)):
        bed = DgramBed(replace(TEST_CONFIG, ip=IpConfig(ping_group_range=allowed)))
        fails_with(outcome, bed.dgram, SOCK_DGRAM, IPPROTO_ICMP)


@pytest.mark.parametrize(
    ("kind", "protocol", "expected"),
    [(2, 6, errno.EPROTONOSUPPORT), (1, 17, errno.EPROTONOSUPPORT),
     (3, 0, errno.EPROTONOSUPPORT), (5, 0, errno.ESOCKTNOSUPPORT), (4, 0, errno.ESOCKTNOSUPPORT),
     (11, 0, errno.EINVAL), (3, 256, errno.EINVAL), (2, -1, errno.EINVAL)],
)  # fmt: skip
def test_sockets_that_there_are_not(bed, kind, protocol, expected):
    fails_with(expected, bed.dgram, kind, protocol)
