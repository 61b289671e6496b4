"""ip_fragment: what leaves for a link that cannot carry it whole."""

from __future__ import annotations

import struct

import dpkt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.checksum import checksum
from kit.fragments import join, parts
from kit.netbed import OUR_MAC, OURS, PEER, PEER_MAC, Bed
from ustack.core.skb import CHECKSUM_PARTIAL, Skb
from ustack.ipv4.output import ip_queue_xmit
from ustack.ipv4.route import Route, ip_route_output, ip_rt_update_pmtu
from ustack.lib.drop_reason import DropReason
from ustack.native.checksum import csum_tcpudp_nofold
from ustack.wire.arp import ARPOP_REPLY, ArpPacket


def bed_and_route(mtu: int = 1500, known: bool = True) -> tuple[Bed, Route]:
    bed = Bed()
    bed.eth0.mtu = mtu
    if known:
        bed.know_peer()
    rt = ip_route_output(bed.ip, PEER)
    assert rt is not None
    return bed, rt


def xmit(bed: Bed, rt: Route, payload: bytes, **fields) -> DropReason | None:
    return ip_queue_xmit(bed.ip, Skb(payload), rt, OURS, PEER, 200, df=False, **fields)


def packets(bed: Bed) -> list[bytes]:
    return [frame[14:] for frame in bed.take_sent()]


@given(st.integers(0, 65_515), st.integers(68, 9000), st.integers(0, 10))
def test_fragments_join_to_what_was_sent(size, mtu, words):
    bed, rt = bed_and_route(mtu)
    options = bytes([0x94, 4, 0, 0]) + bytes([1] * 4 * (words - 1)) if words else b""
    payload = bytes(n * 7 & 255 for n in range(min(size, 65_515 - len(options))))
    assert xmit(bed, rt, payload, options=options) is None
    sent = packets(bed)
    assert join(sent) == payload
    assert max(len(p) for p in sent) <= mtu
    assert len({len(p) for p in sent[:-1]}) <= 1
    bed.mem.close()


@pytest.mark.parametrize("size", [1480, 1481, 2959, 2960, 2961])
def test_the_last_fragment_may_be_full(size):
    bed, rt = bed_and_route()
    xmit(bed, rt, bytes(size))
    sent = packets(bed)
    assert len(join(sent)) == size
    assert len(sent) == -(-size // 1480)


def test_fragments_are_counted_and_keep_the_headers_fields():
    bed, rt = bed_and_route()
    rt.ident = 77
    xmit(bed, rt, bytes(4000), tos=0x10, ttl=9)
    xmit(bed, rt, bytes(4000))
    sent = packets(bed)
    for packet in sent[:3]:
        header = dpkt.ip.IP(packet)
        assert (header.tos, header.ttl, header.p, header.id) == (0x10, 9, 200, 77)
    assert [ident for ident, *_ in parts(sent)] == [77] * 3 + [78] * 3
    assert [(at, more) for _, at, more, _ in parts(sent[:3])] == [
        (0, True),
        (1480, True),
        (2960, False),
    ]
    mib = bed.net.mib.ip
    assert (mib.FragOKs, mib.FragCreates, mib.FragFails) == (2, 6, 0)
    assert (mib.OutRequests, mib.OutTransmits) == (2, 2)


@pytest.mark.rfc("791", "3.1")
def test_only_options_with_the_copy_flag_are_in_every_fragment():
    bed, rt = bed_and_route()
    record_route, alert = bytes([7, 7, 4, 0, 0, 0, 0]), bytes([0x94, 4, 0, 0])
    xmit(bed, rt, bytes(3000), options=record_route + alert + b"\0")
    first, *others = packets(bed)
    assert first[20:32] == record_route + alert + b"\0"
    assert len(others) == 2
    for packet in others:
        assert packet[20:32] == b"\x01" * 7 + alert + b"\0"


def test_payload_in_pages_is_cut_too_and_the_pages_come_back():
    bed, rt = bed_and_route()
    free = bed.mem.free_pages
    page = bed.mem.alloc_pages(0)
    bed.mem.view[page : page + 3000] = b"p" * 3000
    skb = Skb(b"head")
    skb.frags = [(page, 3000)]
    ip_queue_xmit(bed.ip, skb, rt, OURS, PEER, 200, df=False)
    assert join(packets(bed)) == b"head" + b"p" * 3000
    assert bed.mem.free_pages == free


def test_a_checksum_left_to_the_device_is_summed_before_cutting():
    bed, rt = bed_and_route()
    datagram = struct.pack("!HHHH", 1, 2, 3008, 0) + bytes(range(250)) * 12
    pseudo = csum_tcpudp_nofold(OURS, PEER, len(datagram), 17, 0)
    skb = Skb(datagram[:6] + struct.pack("!H", pseudo) + datagram[8:])
    skb.ip_summed, skb.csum_offset = CHECKSUM_PARTIAL, 6
    ip_queue_xmit(bed.ip, skb, rt, OURS, PEER, 17, df=False)
    joined = join(packets(bed))
    assert checksum(struct.pack("!IIBBH", OURS, PEER, 0, 17, len(joined)) + joined) == 0


def test_a_learnt_path_mtu_cuts_smaller():
    bed, _ = bed_and_route()
    ip_rt_update_pmtu(bed.ip, PEER, 1000)
    xmit(bed, ip_route_output(bed.ip, PEER), bytes(2000))
    assert [len(p) for p in packets(bed)] == [996, 996, 68]


def test_fragments_wait_for_their_neighbour_in_order():
    bed, rt = bed_and_route(known=False)
    assert xmit(bed, rt, bytes(60_000)) is None
    assert len(bed.take_arp()) == 1
    bed.receive_arp(ArpPacket(ARPOP_REPLY, PEER_MAC, PEER, OUR_MAC, OURS))
    sent = packets(bed)
    assert [at for _, at, _, _ in parts(sent)] == list(range(0, 60_000, 1480))


def test_when_a_fragment_cannot_leave_those_behind_it_are_not_sent():
    bed, rt = bed_and_route()
    bed.eth0.tx_queue_len = 1
    bed.eth0.qdisc.limit = 1
    bed.eth0.room = 2
    assert xmit(bed, rt, bytes(15_000)) is DropReason.QDISC_DROP
    mib = bed.net.mib.ip
    assert (mib.FragOKs, mib.FragFails, mib.FragCreates) == (0, 1, 3)
    assert bed.drops == {"QDISC_DROP": 1}
