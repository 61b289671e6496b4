"""What udp_sendmsg puts on the wire, and what it refuses."""

from __future__ import annotations

import errno
import struct

import pytest

from kit.dgram_bed import DgramBed
from kit.netbed import OTHER, OURS, PEER
from ustack.lib.addresses import parse_ipv4
from ustack.native.checksum import csum_partial, csum_tcpudp_magic
from ustack.wire.ipv4 import IPPROTO_UDP

BROADCAST = parse_ipv4("10.0.0.255")
MSG_MORE = 0x8000
IP, TTL, TOS, PKTINFO, MTU_DISCOVER = 0, 2, 1, 8, 10


@pytest.fixture
def bed() -> DgramBed:
    return DgramBed()


def fails_with(expected: int, function, *args, **fields) -> None:
    with pytest.raises(OSError) as caught:
        function(*args, **fields)
    assert caught.value.errno == expected


def test_a_datagram_has_the_header_that_rfc_768_draws(bed):
    sock = bed.bound(5000)
    assert sock.sendmsg(b"hello", to=(PEER, 9)) == 5
    (ip,) = bed.sent_ip()
    udp = bytes(ip.data)
    assert struct.unpack("!HHH", udp[:6]) == (5000, 9, 13)
    assert (ip.ttl, ip.tos, bool(ip.df)) == (64, 0, True)
    assert csum_tcpudp_magic(OURS, PEER, 13, IPPROTO_UDP, csum_partial(udp)) == 0


def test_a_sum_of_zero_is_sent_as_all_ones(bed):
    """RFC 768: 0 would mean that there is none."""
    sock = bed.bound(5000)
    sock.sendmsg(b"\0\0", to=(PEER, 9))
    (zeros,) = bed.sent_ip()
    rest = int.from_bytes(bytes(zeros.data)[6:8], "big")
    sock.sendmsg(struct.pack("!H", rest), to=(PEER, 9))
    (ip,) = bed.sent_ip()
    assert bytes(ip.data)[6:8] == b"\xff\xff"


def test_without_a_port_one_is_chosen_at_the_first_datagram(bed):
    sock = bed.dgram()
    sock.sendmsg(b"x", to=(PEER, 9))
    sock.sendmsg(b"y", to=(OTHER, 9))
    assert sock.getsockname() == (0, bed.sent()[0][0])


def test_so_no_check_sends_no_sum(bed):
    sock = bed.dgram()
    sock.setsockopt(1, 11, 1)
    sock.sendmsg(b"x", to=(PEER, 9))
    assert bytes(bed.sent_ip()[0].data)[6:8] == b"\0\0"


def test_an_empty_datagram_is_sent_and_received(bed):
    sock = bed.bound()
    assert sock.sendmsg(b"", to=(PEER, 9)) == 0
    assert bed.sent() == [(53, 9, b"")]
    bed.comes(b"")
    assert sock.rcv_ready(1)
    assert sock.recv(10) == b""


def test_the_largest_datagram_goes_in_fragments_with_a_good_sum(bed):
    sock = bed.bound(5000)
    data = bytes(range(256)) * 255 + bytes(227)
    assert sock.sendmsg(data, to=(PEER, 9)) == 65507
    (ip,) = bed.sent_ip()
    udp = bytes(ip.data)
    assert (udp[8:], bool(ip.df)) == (data, False)
    assert csum_tcpudp_magic(OURS, PEER, len(udp), IPPROTO_UDP, csum_partial(udp)) == 0
    assert bed.net.mib.ip.FragOKs == 1


def test_one_byte_more_is_too_long(bed):
    sock = bed.dgram()
    fails_with(errno.EMSGSIZE, sock.sendmsg, bytes(65508), to=(PEER, 9))
    fails_with(errno.EMSGSIZE, sock.sendmsg, bytes(65536), to=(PEER, 9))
    assert (bed.take_sent(), bed.net.mib.udp.OutDatagrams) == ([], 0)


def test_with_pmtudisc_do_what_does_not_fit_the_mtu_is_too_long(bed):
    sock = bed.dgram()
    sock.setsockopt(IP, MTU_DISCOVER, 2)
    fails_with(errno.EMSGSIZE, sock.sendmsg, bytes(1473), to=(PEER, 9))
    assert sock.sendmsg(bytes(1472), to=(PEER, 9)) == 1472


def test_with_pmtudisc_dont_df_is_not_set(bed):
    sock = bed.dgram()
    sock.setsockopt(IP, MTU_DISCOVER, 0)
    sock.sendmsg(b"x", to=(PEER, 9))
    assert not bed.sent_ip()[0].df


def test_who_is_not_connected_must_say_where_to(bed):
    fails_with(errno.EDESTADDRREQ, bed.dgram().send, b"x")


def test_port_zero_is_nowhere(bed):
    fails_with(errno.EINVAL, bed.dgram().sendmsg, b"x", to=(PEER, 0))


def test_without_a_route_the_network_is_unreachable(bed):
    far = parse_ipv4("192.0.2.1")
    fails_with(errno.ENETUNREACH, bed.dgram().sendmsg, b"x", to=(far, 9))
    fails_with(errno.ENETUNREACH, bed.dgram().connect, far, 9)


def test_a_broadcast_needs_so_broadcast(bed):
    sock = bed.dgram()
    fails_with(errno.EACCES, sock.sendmsg, b"x", to=(BROADCAST, 9))
    fails_with(errno.EACCES, sock.connect, BROADCAST, 9)
    sock.setsockopt(1, 6, 1)
    sock.sendmsg(b"all", to=(BROADCAST, 9))
    assert bed.eth0.sent[0].data[:6] == b"\xff" * 6


def test_a_connected_socket_sends_to_its_peer_and_may_name_another(bed):
    sock = bed.bound(5000)
    sock.connect(PEER, 9)
    sock.send(b"peer")
    sock.sendmsg(b"other", to=(PEER, 10))
    assert bed.sent() == [(5000, 9, b"peer"), (5000, 10, b"other")]
    assert (sock.getsockname(), sock.getpeername()) == ((OURS, 5000), (PEER, 9))


def test_connect_again_and_disconnect(bed):
    sock = bed.dgram()
    sock.connect(PEER, 9)
    sock.connect(PEER, 10)
    assert sock.getpeername() == (PEER, 10)
    sock.disconnect()
    fails_with(errno.ENOTCONN, sock.getpeername)
    assert sock.getsockname() == (0, 0)
    assert len(bed.udp.table) == 0


def test_disconnecting_keeps_what_bind_named(bed):
    sock = bed.bound(5000, OURS)
    sock.connect(PEER, 9)
    sock.disconnect()
    assert sock.getsockname() == (OURS, 5000)


def test_connected_to_port_zero_there_is_no_peer(bed):
    sock = bed.dgram()
    sock.connect(PEER, 0)
    fails_with(errno.ENOTCONN, sock.getpeername)


def test_nothing_is_sent_after_shutdown(bed):
    sock = bed.dgram()
    sock.connect(PEER, 9)
    sock.shutdown(1)
    fails_with(errno.EPIPE, sock.send, b"x")


def test_shutdown_of_an_unconnected_socket_is_done_though_it_fails(bed):
    sock = bed.bound()
    fails_with(errno.ENOTCONN, sock.shutdown, 0)
    assert sock.recv(10) == b""
    fails_with(errno.EAGAIN, sock.recv, 10, 0x40)


def test_out_of_band_data_there_is_none(bed):
    fails_with(errno.EOPNOTSUPP, bed.dgram().sendmsg, b"x", 1, to=(PEER, 9))


def test_msg_more_joins_datagrams(bed):
    sock = bed.bound(5000)
    sock.sendmsg(b"one ", MSG_MORE, to=(PEER, 9))
    assert bed.sent() == []
    sock.sendmsg(b"two", to=(PEER, 10))
    assert bed.sent() == [(5000, 9, b"one two")]
    assert bed.net.mib.udp.OutDatagrams == 1


def test_udp_cork_joins_until_it_is_taken_out(bed):
    sock = bed.bound(5000)
    sock.connect(PEER, 9)
    sock.setsockopt(17, 1, 1)
    sock.send(b"a")
    sock.send(b"b")
    assert bed.sent() == []
    sock.setsockopt(17, 1, 0)
    assert bed.sent() == [(5000, 9, b"ab")]


def test_a_corked_datagram_that_grows_too_long_is_lost(bed):
    sock = bed.bound(5000)
    sock.connect(PEER, 9)
    sock.sendmsg(bytes(40_000), MSG_MORE)
    fails_with(errno.EMSGSIZE, sock.sendmsg, bytes(40_000))
    sock.send(b"next")
    assert bed.sent() == [(5000, 9, b"next")]


def test_options_and_ancillary_data_set_ttl_and_tos(bed):
    sock = bed.dgram()
    sock.setsockopt(IP, TTL, 7)
    sock.setsockopt(IP, TOS, 0x10)
    sock.sendmsg(b"x", to=(PEER, 9))
    sock.sendmsg(b"x", to=(PEER, 9), ancillary=[(IP, TTL, struct.pack("i", 3)), (IP, TOS, b"\x08")])
    assert [(ip.ttl, ip.tos) for ip in bed.sent_ip()] == [(7, 0x10), (3, 8)]
    fails_with(errno.EINVAL, sock.sendmsg, b"", to=(PEER, 9), ancillary=[(IP, TTL, b"")])


def test_pktinfo_names_the_source(bed):
    sock = bed.bound(5000)
    source = struct.pack("=i", 0) + PEER.to_bytes(4, "big") * 2
    fails_with(errno.EINVAL, sock.sendmsg, b"", to=(PEER, 9), ancillary=[(IP, PKTINFO, source)])
    source = struct.pack("=i", 0) + OURS.to_bytes(4, "big") * 2
    sock.sendmsg(b"x", to=(PEER, 9), ancillary=[(IP, PKTINFO, source)])
    assert bed.sent_ip()[0].src == OURS.to_bytes(4, "big")


def test_what_was_received_is_told_in_ancillary_data(bed):
    sock = bed.bound()
    for option in (PKTINFO, 12, 13):
        sock.setsockopt(IP, option, 1)
    bed.comes()
    index = struct.pack("=i", bed.eth0.ifindex)
    assert sock.recvmsg(10).ancillary == [
        (IP, PKTINFO, index + OURS.to_bytes(4, "big") * 2),
        (IP, TTL, struct.pack("i", 64)),
        (IP, TOS, b"\0"),
    ]


def test_a_datagram_that_its_queue_has_no_room_for_is_counted(bed):
    """A full qdisc is ENOBUFS, which only IP_RECVERR lets through (udp_send_skb)."""
    sock = bed.dgram()
    sock.connect(PEER, 9)
    bed.eth0.room = 0
    for _ in range(1000):
        sock.send(b"x")
    assert sock.send(b"x") == 1
    assert bed.net.mib.udp.SndbufErrors == 1
    sock.setsockopt(IP, 11, 1)
    fails_with(errno.ENOBUFS, sock.send, b"x")
