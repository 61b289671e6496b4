"""ICMP: whom we answer, what we tell the transports, when we are silent."""

from __future__ import annotations

import random
import struct

import dpkt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.fragments import fragment, join
from kit.netbed import OURS, PEER, Bed, icmp_packet, ip_config, udp_packet, with_checksum
from ustack.core.skb import Skb
from ustack.lib.addresses import ETH_BROADCAST, parse_ipv4
from ustack.native.checksum import csum_fold, csum_partial
from ustack.wire.ipv4 import IPPROTO_ICMP, build_ipv4

ECHO = 8
FAR = parse_ipv4("192.0.2.7")


def bed(**fields) -> Bed:
    one = Bed(ip_config(**fields))
    one.know_peer()
    return one


def replies(one: Bed) -> list[dpkt.ip.IP]:
    packets = [dpkt.ip.IP(frame[14:]) for frame in one.take_sent()]
    for packet in packets:
        assert csum_fold(csum_partial(bytes(packet)[20:])) == 0
    return packets


@pytest.mark.rfc("1122", "3.2.2.6")
@given(payload=st.binary(max_size=1472), info=st.integers(0, 0xFFFFFFFF))
def test_an_echo_comes_back_as_it_was(payload, info):
    one = bed()
    one.receive_ip(icmp_packet(ECHO, 0, info, payload))
    (packet,) = replies(one)
    assert (packet.src, packet.dst) == (OURS.to_bytes(4, "big"), PEER.to_bytes(4, "big"))
    assert bytes(packet.data)[:2] == b"\0\0"
    assert bytes(packet.data)[4:] == struct.pack("!I", info) + payload
    one.mem.close()


def test_an_echo_of_64_kib_is_answered_where_a_frame_holds_it():
    one = bed()
    one.eth0.mtu = 65535
    one.receive_ip(icmp_packet(ECHO, payload=bytes(65507)))
    (packet,) = replies(one)
    assert len(packet.data) == 65515


def test_an_echo_is_counted_and_its_type_of_service_kept():
    one = bed()
    message = icmp_packet(ECHO)[20:]
    one.receive_ip(build_ipv4(PEER, OURS, IPPROTO_ICMP, len(message), tos=0x10) + message)
    (packet,) = replies(one)
    assert (packet.tos, packet.df, packet.ttl) == (0x10, 0, 64)
    mib = one.net.mib.icmp
    assert (mib.InMsgs, mib.InEchos, mib.OutMsgs, mib.OutEchoReps) == (1, 1, 1, 1)
    assert one.drops == {}


def test_echoes_can_be_ignored():
    one = bed(icmp_echo_ignore_all=True)
    one.receive_ip(icmp_packet(ECHO))
    assert replies(one) == []
    assert one.drops == {"ICMP_IGNORED": 1}


@pytest.mark.parametrize("daddr", ["10.0.0.255", "255.255.255.255", "224.0.0.1"])
def test_an_echo_to_many_is_not_answered(daddr):
    one = bed()
    one.receive_ip(icmp_packet(ECHO, daddr=parse_ipv4(daddr)), dest=ETH_BROADCAST)
    assert replies(one) == []
    assert one.drops == {"ICMP_IGNORED": 1}
    assert one.net.mib.icmp.InErrors == 1


def test_an_echo_from_where_no_route_leads_is_counted():
    one = bed()
    one.receive_ip(icmp_packet(ECHO, saddr=FAR))
    assert replies(one) == []
    assert one.net.mib.icmp.OutErrors == 1
    assert one.net.mib.ip.OutNoRoutes == 1


def test_a_wrong_checksum_is_counted():
    one = bed()
    data = bytearray(icmp_packet(ECHO, payload=b"abc"))
    data[-1] ^= 1
    one.receive_ip(bytes(data))
    assert replies(one) == []
    mib = one.net.mib.icmp
    assert (mib.InCsumErrors, mib.InErrors, mib.InEchos) == (1, 1, 0)
    assert one.drops == {"ICMP_CSUM": 1}


def test_a_truncated_message_is_malformed():
    one = bed()
    one.receive_ip(build_ipv4(PEER, OURS, IPPROTO_ICMP, 4) + b"\x08\x00\xf7\xff")
    assert one.drops == {"ICMP_MALFORMED": 1}
    assert one.net.mib.icmp.InErrors == 1


@pytest.mark.parametrize("icmp_type", [1, 9, 30, 255])
def test_an_unknown_type_is_ignored_and_an_error(icmp_type):
    one = bed()
    one.receive_ip(icmp_packet(icmp_type))
    assert one.drops == {"ICMP_IGNORED": 1}
    assert one.net.mib.icmp.InErrors == 1


@pytest.mark.parametrize(
    ("icmp_type", "counter"),
    [
        (4, "InSrcQuenchs"),
        (5, "InRedirects"),
        (14, "InTimestampReps"),
        (17, "InAddrMasks"),
        (18, "InAddrMaskReps"),
    ],
)
def test_what_we_do_not_act_on_is_counted(icmp_type, counter):
    one = bed()
    one.receive_ip(icmp_packet(icmp_type))
    assert getattr(one.net.mib.icmp, counter) == 1
    assert one.drops == {"ICMP_IGNORED": 1}
    assert one.net.mib.icmp.InErrors == 0


@pytest.mark.rfc("792", "timestamp")
def test_a_timestamp_request_is_answered_with_the_time_since_some_moment():
    one = bed()
    one.receive_ip(icmp_packet(13, 0, 0x00010002, struct.pack("!III", 77, 0, 0)))
    (packet,) = replies(one)
    assert bytes(packet.data)[:2] == b"\x0e\x00"
    now_ms = 0x80000000 + 1000
    assert struct.unpack("!IIII", bytes(packet.data)[4:]) == (0x00010002, 77, now_ms, now_ms)
    mib = one.net.mib.icmp
    assert (mib.InTimestamps, mib.OutTimestampReps, mib.OutMsgs) == (1, 1, 1)


def test_a_timestamp_request_without_a_time_is_malformed():
    one = bed()
    one.receive_ip(icmp_packet(13, 0, 0, b"abc"))
    assert replies(one) == []
    assert one.drops == {"ICMP_MALFORMED": 1}
    assert one.net.mib.icmp.InErrors == 1


def echo_with_options(options: bytes) -> bytes:
    message = icmp_packet(ECHO, payload=b"abc")[20:]
    header = bytearray(build_ipv4(PEER, OURS, IPPROTO_ICMP, len(options) + len(message)))
    header[0] = 0x45 + len(options) // 4
    return with_checksum(bytes(header) + options) + message


@pytest.mark.rfc("1122", "3.2.2.6")
def test_the_reply_to_a_recorded_route_records_us_twice_as_linux_does():
    one = bed()
    one.receive_ip(echo_with_options(b"\x07\x0f\x04" + bytes(13)))
    (frame,) = one.take_sent()
    ours = OURS.to_bytes(4, "big")
    assert frame[34:50] == b"\x07\x0f\x0c" + ours + ours + bytes(5)
    assert frame[50:52] == b"\0\0"
    assert csum_fold(csum_partial(frame[14:50])) == 0


def test_an_option_without_room_for_our_entry_gets_no_reply():
    one = bed()
    one.receive_ip(echo_with_options(b"\x07\x09\x04" + bytes(9)))
    assert one.take_sent() == []


def test_a_reply_that_its_options_make_too_large_is_an_error():
    one = bed()
    payload = bytes(65_507 - 8)
    message = icmp_packet(ECHO, payload=payload)[20:]
    options = b"\x44\x08\x05\x00" + bytes(4)
    header = bytearray(build_ipv4(PEER, OURS, IPPROTO_ICMP, len(options) + len(message)))
    header[0] = 0x47
    for piece in fragment(with_checksum(bytes(header) + options) + message):
        one.receive_ip(piece)
    assert len(one.take_sent()) == 45  # that one just fits
    mib = one.net.mib.icmp
    assert (mib.OutErrors, mib.OutMsgs, mib.OutEchoReps) == (0, 1, 1)
    assert not one.ip.icmp.icmp_xmit(bytes(65_508), OURS, PEER, options=options)
    assert (mib.OutErrors, mib.OutMsgs) == (1, 1)


def test_an_error_about_a_later_fragment_of_ours_names_no_socket():
    one = bed()
    told = []
    one.ip.inet_add_protocol(200, lambda skb: None, lambda *args: told.append(args))
    quoted = build_ipv4(OURS, PEER, 200, 100, frag=185) + bytes(8)
    one.receive_ip(icmp_packet(3, 1, 0, quoted))
    assert told == []
    assert one.drops == {"ICMP_IGNORED": 1}


def test_an_error_carries_the_options_of_the_packet_that_caused_it():
    one = bed()
    datagram = udp_packet(b"abc")[20:]
    options = b"\x07\x0b\x04" + bytes(9)
    header = bytearray(build_ipv4(PEER, OURS, 17, len(options) + len(datagram)))
    header[0] = 0x48
    one.receive_ip(with_checksum(bytes(header) + options) + datagram)
    (frame,) = one.take_sent()
    ours = OURS.to_bytes(4, "big")
    assert frame[34:46] == b"\x07\x0b\x0c" + ours + ours + b"\0"
    assert frame[46:48] == b"\x03\x03"


def test_an_echo_of_65507_bytes_comes_back_in_fragments_from_fragments_in_any_order():
    one = bed()
    payload = bytes(random.Random(4).randbytes(65_507))
    pieces = fragment(icmp_packet(ECHO, 0, 7, payload))
    random.Random(5).shuffle(pieces)
    for piece in pieces:
        one.receive_ip(piece)
    reply = join([frame[14:] for frame in one.take_sent()])
    assert reply[:2] == b"\0\0"
    assert reply[8:] == payload
    assert csum_fold(csum_partial(reply)) == 0


def test_an_echo_reply_that_nobody_waits_for_has_no_socket():
    one = bed()
    one.receive_ip(icmp_packet(0))
    assert one.net.mib.icmp.InEchoReps == 1
    assert one.drops == {"NO_SOCKET": 1}


# Errors about packets of ours.

TRANSPORT = struct.pack("!HHI", 40000, 80, 0x01020304)


def embedded(protocol: int = 200, payload: bytes = TRANSPORT) -> bytes:
    return build_ipv4(OURS, PEER, protocol, 1000) + payload


def bed_with_err() -> tuple[Bed, list]:
    one = bed()
    errors: list = []

    def err(icmp_type, code, info, saddr, daddr, payload):
        errors.append((icmp_type, code, info, saddr, daddr, bytes(payload)))

    one.ip.inet_add_protocol(200, lambda skb: None, err)
    return one, errors


@pytest.mark.parametrize(
    ("icmp_type", "code", "wire_info", "info", "counter"),
    [
        (3, 1, 0, 0, "InDestUnreachs"),
        (3, 3, 0, 0, "InDestUnreachs"),
        (3, 4, 1400, 1400, "InDestUnreachs"),
        (11, 0, 0, 0, "InTimeExcds"),
        (12, 0, 9 << 24, 9, "InParmProbs"),
    ],
)
def test_an_error_reaches_the_transport(icmp_type, code, wire_info, info, counter):
    one, errors = bed_with_err()
    one.receive_ip(icmp_packet(icmp_type, code, wire_info, embedded()))
    assert errors == [(icmp_type, code, info, OURS, PEER, TRANSPORT)]
    assert getattr(one.net.mib.icmp, counter) == 1
    assert one.drops == {}


def test_an_embedded_header_with_options_is_skipped_whole():
    one, errors = bed_with_err()
    inner = bytearray(embedded(payload=bytes(4) + TRANSPORT))
    inner[0] = 0x46
    one.receive_ip(icmp_packet(3, 1, 0, bytes(inner)))
    assert errors[0][5] == TRANSPORT


@pytest.mark.parametrize(
    "payload",
    [b"", embedded()[:19], embedded()[:27], b"\x65" + embedded()[1:], b"\x4f" + embedded()[1:]],
    ids=["nothing", "short header", "seven bytes of transport", "version 6", "options missing"],
)
def test_an_error_that_does_not_quote_enough_is_malformed(payload):
    one, errors = bed_with_err()
    one.receive_ip(icmp_packet(3, 1, 0, payload))
    assert errors == []
    assert one.drops == {"ICMP_MALFORMED": 1}
    assert one.net.mib.icmp.InErrors == 1


@pytest.mark.parametrize("protocol", [50, 99])
def test_an_error_for_a_protocol_without_handler_is_ignored(protocol):
    one, errors = bed_with_err()
    one.receive_ip(icmp_packet(3, 3, 0, embedded(protocol)))
    assert errors == []
    assert one.drops == {"ICMP_IGNORED": 1}


# Errors that we send.


def test_an_error_quotes_at_most_548_bytes_and_has_precedence():
    one = bed()
    data = udp_packet(bytes(1000))
    one.receive_ip(data)
    (packet,) = replies(one)
    assert len(bytes(packet)) == 576
    assert bytes(packet.data)[8:] == data[:548]
    assert packet.tos == 0xC0
    assert one.net.mib.icmp.OutDestUnreachs == 1


@pytest.mark.rfc("1122", "3.2.2")
@pytest.mark.parametrize(
    ("packet", "pkt_type"),
    [
        (icmp_packet(3, 1, 0, embedded()), 0),
        (icmp_packet(5), 0),
        (icmp_packet(200), 0),
        (build_ipv4(PEER, OURS, IPPROTO_ICMP, 0), 0),
        (build_ipv4(PEER, 0xE0000001, 200, 8) + bytes(8), 0),
        (build_ipv4(PEER, 0xFFFFFFFF, 200, 8) + bytes(8), 0),
        (build_ipv4(PEER, parse_ipv4("10.0.0.255"), 200, 8) + bytes(8), 0),
        (build_ipv4(PEER, OURS, 200, 8) + bytes(8), 1),
        (build_ipv4(PEER, OURS, 200, 8, frag=1) + bytes(8), 0),
        (build_ipv4(0, OURS, 200, 8) + bytes(8), 0),
        (build_ipv4(0xE0000001, OURS, 200, 8) + bytes(8), 0),
        (bytes(10), 0),
    ],
    ids=[
        "an ICMP error",
        "a redirect",
        "an unknown ICMP type",
        "an empty ICMP packet",
        "a multicast",
        "a broadcast",
        "a directed broadcast",
        "a link-layer broadcast",
        "a later fragment",
        "no source",
        "a multicast source",
        "no header",
    ],
)
def test_no_error_is_sent_about(packet, pkt_type):
    one = bed()
    skb = Skb(packet, one.eth0)
    skb.pkt_type = pkt_type
    assert not one.ip.icmp.icmp_send(skb, 3, 3, 0)
    assert one.net.mib.icmp.OutMsgs == 0


def test_an_error_about_an_echo_request_is_allowed():
    one = bed()
    assert one.ip.icmp.icmp_send(Skb(icmp_packet(ECHO), one.eth0), 3, 3, 0)


def test_an_error_to_where_no_route_leads_is_counted():
    one = bed()
    assert not one.ip.icmp.icmp_send(Skb(udp_packet(b"", saddr=FAR), one.eth0), 3, 3, 0)
    assert one.net.mib.icmp.OutErrors == 1


def test_one_host_gets_six_errors_at_once_and_then_one_a_second():
    one = bed()
    for _ in range(10):
        one.receive_ip(udp_packet(b"x"))
    assert len(replies(one)) == 6
    assert one.net.mib.icmp.OutRateLimitHost == 4
    for _ in range(3):
        one.advance_us(1_000_000)
        one.receive_ip(udp_packet(b"x"))
        one.receive_ip(udp_packet(b"x"))
    assert len(replies(one)) == 3


def test_all_hosts_together_get_fifty_errors_at_once_and_a_thousand_a_second():
    one = bed(icmp_ratelimit_us=0)
    for _ in range(60):
        one.receive_ip(udp_packet(b"x"))
    assert len(replies(one)) == 50
    assert one.net.mib.icmp.OutRateLimitGlobal == 10
    one.advance_us(10_000)
    for _ in range(20):
        one.receive_ip(udp_packet(b"x"))
    assert len(replies(one)) == 10


def test_path_mtu_discovery_is_not_limited():
    one = bed()
    skb = Skb(udp_packet(b"x"), one.eth0)
    assert all(one.ip.icmp.icmp_send(skb, 3, 4, 1400) for _ in range(100))


def test_the_limiter_remembers_a_bounded_number_of_hosts():
    one = bed(icmp_msgs_per_sec=1_000_000_000)
    one.ip.add_default_gateway(PEER)
    for n in range(5000):
        one.clock.now_us += 1
        one.ip.icmp.icmp_send(Skb(udp_packet(b"", saddr=0x0B000000 + n), one.eth0), 3, 3, 0)
    assert len(one.ip.icmp.limiter._peers) == 4096
