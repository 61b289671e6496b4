"""ip_queue_xmit: the header it writes, how it reaches the neighbour, what it refuses."""

from __future__ import annotations

import dpkt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.netbed import OUR_MAC, OURS, PEER, PEER_MAC, Bed, ip_config
from ustack.core.skb import Skb
from ustack.ipv4.output import ip_queue_xmit
from ustack.ipv4.route import Route, ip_route_output, ip_rt_update_pmtu
from ustack.lib.addresses import parse_ipv4
from ustack.lib.drop_reason import DropReason
from ustack.native.checksum import ip_fast_csum
from ustack.wire.arp import ARPOP_REPLY, ArpPacket
from ustack.wire.ethernet import build_ethernet


def bed_and_route(known: bool = True) -> tuple[Bed, Route]:
    bed = Bed()
    if known:
        bed.know_peer()
    rt = ip_route_output(bed.ip, PEER)
    assert rt is not None
    return bed, rt


def xmit(bed: Bed, rt: Route, payload: bytes = b"payload", **fields) -> DropReason | None:
    return ip_queue_xmit(bed.ip, Skb(payload), rt, OURS, PEER, 200, **fields)


def test_the_frame_to_a_reachable_neighbour():
    bed, rt = bed_and_route()
    for _ in range(2):  # the neighbour is looked up, then cached
        assert xmit(bed, rt) is None
    for frame in bed.take_sent():
        assert frame[:14] == build_ethernet(PEER_MAC, OUR_MAC, 0x0800)
        packet = dpkt.ip.IP(frame[14:])
        assert (packet.src, packet.dst) == (OURS.to_bytes(4, "big"), PEER.to_bytes(4, "big"))
        assert (packet.p, packet.ttl, packet.tos, packet.len) == (200, 64, 0, 27)
        assert (packet.df, packet.mf, packet.offset) == (1, 0, 0)
        assert packet.data == b"payload"
    ip = bed.net.mib.ip
    assert (ip.OutRequests, ip.OutTransmits, bed.net.mib.ip_ext.OutOctets) == (2, 2, 54)


def test_both_paths_write_the_same_headers():
    fast, rt = bed_and_route()
    xmit(fast, rt)
    fast.take_sent()
    rt.ident = 77
    xmit(fast, rt, tos=0x10, ttl=3, df=False)
    slow, slow_rt = bed_and_route(known=False)
    slow_rt.ident = 77
    xmit(slow, slow_rt, tos=0x10, ttl=3, df=False)
    slow.take_sent()
    slow.receive_arp(ArpPacket(ARPOP_REPLY, PEER_MAC, PEER, OUR_MAC, OURS))
    (sent,) = fast.eth0.sent
    (resolved,) = slow.eth0.sent
    assert bytes(sent.data) == bytes(resolved.data)
    for skb in (sent, resolved):
        assert (skb.network_offset, skb.transport_offset) == (14, 34)
        assert (skb.protocol, skb.priority) == (0x0800, 6)


@given(
    st.binary(max_size=100),
    st.integers(0, 255),
    st.integers(1, 255),
    st.booleans(),
    st.integers(0, 0xFFFF),
)
def test_the_checksum_is_always_right(payload, tos, ttl, df, ident):
    bed, rt = bed_and_route()
    rt.ident = ident
    xmit(bed, rt, payload, tos=tos, ttl=ttl, df=df)
    xmit(bed, rt, payload, tos=tos, ttl=ttl, df=df)
    for frame in bed.take_sent():
        assert ip_fast_csum(frame[14:34]) == 0
    bed.mem.close()


def test_the_identification_counts_packets_and_wraps():
    bed, rt = bed_and_route()
    rt.ident = 0xFFFF
    for _ in range(2):
        xmit(bed, rt)
    assert [dpkt.ip.IP(f[14:]).id for f in bed.take_sent()] == [0xFFFF, 0]


def test_a_super_frame_takes_an_identification_for_each_segment():
    bed, rt = bed_and_route()
    rt.ident = 10
    skb = Skb(bytes(1000))
    skb.gso_segs = 5
    ip_queue_xmit(bed.ip, skb, rt, OURS, PEER, 200)
    assert rt.ident == 15


def test_payload_in_pages_counts_in_the_total_length():
    bed, rt = bed_and_route()
    skb = Skb(b"head")
    skb.frags = [(bed.mem.alloc_pages(0), 100), (bed.mem.alloc_pages(0), 50)]
    ip_queue_xmit(bed.ip, skb, rt, OURS, PEER, 200)
    (frame,) = bed.take_sent()
    assert dpkt.ip.IP(frame[14:]).len == 20 + 154


@pytest.mark.rfc("1191", "3")
def test_a_packet_larger_than_the_mtu_that_must_not_be_cut_is_refused_and_its_sender_told():
    bed, rt = bed_and_route()
    told = []
    bed.ip.inet_add_protocol(200, lambda skb: None, lambda *args: told.append(args[:5]))
    free = bed.mem.free_pages
    assert xmit(bed, rt, bytes(1480)) is None
    skb = Skb(bytes(1481 - 100))
    skb.frags = [(bed.mem.alloc_pages(0), 100)]
    assert ip_queue_xmit(bed.ip, skb, rt, OURS, PEER, 200) is DropReason.PKT_TOO_BIG
    bed.settle()
    assert told == [(3, 4, 1500, OURS, PEER)]
    assert bed.drops == {"PKT_TOO_BIG": 1}
    assert (bed.net.mib.ip.FragFails, bed.net.mib.ip.OutDiscards) == (1, 0)
    assert bed.mem.free_pages == free


def test_nothing_larger_than_the_length_field_is_sent_even_in_fragments():
    bed, rt = bed_and_route()
    assert xmit(bed, rt, bytes(65516), df=False) is DropReason.PKT_TOO_BIG
    assert bed.net.mib.ip.OutDiscards == 1
    assert bed.take_sent() == []


def test_a_packet_without_a_time_to_live_takes_the_default():
    bed = Bed(ip_config(ip_default_ttl=17))
    bed.know_peer()
    rt = ip_route_output(bed.ip, PEER)
    xmit(bed, rt)
    (frame,) = bed.take_sent()
    assert frame[22] == 17
    assert bed.net.mib.ip.DefaultTTL == 17


@pytest.mark.parametrize(
    ("daddr", "counter", "dest"),
    [("10.0.0.255", "Bcast", "ffffffffffff"), ("224.0.0.1", "Mcast", "01005e000001")],
)
def test_every_packet_to_many_is_counted(daddr, counter, dest):
    bed = Bed()
    bed.ip.add_default_gateway(PEER)
    rt = ip_route_output(bed.ip, parse_ipv4(daddr))
    for _ in range(3):
        assert xmit(bed, rt) is None
    assert {f[:6].hex() for f in bed.take_sent()} == {dest}
    ext = bed.net.mib.ip_ext
    assert getattr(ext, f"Out{counter}Pkts") == 3
    assert getattr(ext, f"Out{counter}Octets") == 81


def test_a_path_too_narrow_to_believe_gets_packets_that_may_be_cut():
    bed, rt = bed_and_route()
    ip_rt_update_pmtu(bed.ip, PEER, 200)
    rt = ip_route_output(bed.ip, PEER)
    xmit(bed, rt, bytes(400))
    (frame,) = bed.take_sent()
    assert not dpkt.ip.IP(frame[14:]).df


def test_a_super_frame_may_exceed_the_mtu_but_not_the_length_field():
    bed, rt = bed_and_route()
    bed.eth0.features |= 1 << 16  # TSO
    for payload_bytes, result in ((65515, None), (65516, DropReason.PKT_TOO_BIG)):
        skb = Skb(bytes(payload_bytes))
        skb.gso_size = 1460
        assert ip_queue_xmit(bed.ip, skb, rt, OURS, PEER, 200) is result
