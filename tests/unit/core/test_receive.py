"""netif_receive_skb: taps first, then the handler of the EtherType, else a drop."""

from __future__ import annotations

import pytest

from kit.netbed import OTHER_MAC, OUR_MAC, PEER_MAC, Bed, icmp_packet
from ustack.core.ethernet import eth_type_trans
from ustack.core.skb import (
    PACKET_BROADCAST,
    PACKET_HOST,
    PACKET_MULTICAST,
    PACKET_OTHERHOST,
    Skb,
    release_frags,
    skb_bytes,
    skb_clone,
)
from ustack.native.lib import lib
from ustack.wire.ethernet import ETH_P_ALL, ETH_P_IP, ETH_P_IPV6, build_ethernet


@pytest.mark.parametrize(
    ("dest", "pkt_type"),
    [
        (OUR_MAC, PACKET_HOST),
        (b"\xff" * 6, PACKET_BROADCAST),
        (bytes.fromhex("333300000001"), PACKET_MULTICAST),
        (OTHER_MAC, PACKET_OTHERHOST),
    ],
)
def test_eth_type_trans_says_whom_a_frame_is_for(dest, pkt_type):
    skb = Skb(build_ethernet(dest, PEER_MAC, 0x0800) + bytes(46), Bed().eth0)
    eth_type_trans(skb)
    assert (skb.pkt_type, skb.protocol, skb.network_offset) == (pkt_type, 0x0800, 14)


def test_an_ipv6_frame_is_counted_and_dropped():
    bed = Bed()
    bed.receive(build_ethernet(OUR_MAC, PEER_MAC, ETH_P_IPV6) + bytes(40))
    assert bed.drops == {"UNHANDLED_PROTO": 1}
    assert bed.eth0.stats.rx_dropped == 1


def test_a_frame_shorter_than_its_header_is_nobodys():
    bed = Bed()
    bed.receive(bytes(13))
    assert bed.drops == {"UNHANDLED_PROTO": 1}


def test_the_drop_trace_point_gets_packet_and_reason():
    bed = Bed()
    seen: list[str] = []
    bed.net.trace_drop.attach(lambda skb, reason: seen.append(reason.name))
    bed.receive(bytes(13))
    assert seen == ["UNHANDLED_PROTO"]


def test_a_tap_sees_what_comes_in_and_what_goes_out():
    bed = Bed()
    bed.know_peer()
    seen: list[tuple[str, bool, int]] = []

    def tap(skb, dev, outgoing):
        seen.append((dev.name, outgoing, len(skb_bytes(bed.net, skb))))

    bed.net.dev_add_pack(ETH_P_ALL, tap)
    bed.receive_ip(icmp_packet(8, payload=bytes(10)))
    bed.receive(build_ethernet(OTHER_MAC, PEER_MAC, 0x0800) + bytes(46))
    assert seen == [("eth0", False, 52), ("eth0", True, 52), ("eth0", False, 60)]
    bed.net.dev_remove_pack(None, tap)
    bed.receive_ip(icmp_packet(8))
    assert len(seen) == 3


def test_a_second_handler_of_an_ethertype_gets_a_packet_of_its_own():
    bed = Bed()
    bed.know_peer()
    seen: list[tuple[int, int]] = []
    before = icmp_packet(8)

    def look(skb: Skb) -> None:
        seen.append((skb.network_offset, len(skb)))
        skb.data = b""  # what one handler does to its packet is nothing to the other

    bed.net.dev_add_pack(ETH_P_IP, look)
    bed.receive_ip(before + bytes(18))
    assert seen == [(14, 14 + len(before) + 18)]
    assert len(bed.take_sent()) == 1  # the echo reply: IPv4 has had it too
    bed.net.dev_remove_pack(ETH_P_IP, look)
    bed.receive_ip(before)
    assert len(seen) == 1 and len(bed.take_sent()) == 1


def test_an_ethertype_of_ones_own_ends_with_its_handler():
    bed = Bed()
    taken: list[Skb] = []
    bed.net.dev_add_pack(0x88B5, taken.append)
    bed.receive(build_ethernet(OUR_MAC, PEER_MAC, 0x88B5) + bytes(46))
    assert len(taken) == 1
    bed.net.dev_remove_pack(0x88B5, taken.append)
    bed.receive(build_ethernet(OUR_MAC, PEER_MAC, 0x88B5) + bytes(46))
    assert bed.drops == {"UNHANDLED_PROTO": 1}


@pytest.mark.parametrize("ptype", [None, ETH_P_ALL, ETH_P_IP, 0x88B5])
def test_what_was_not_registered_cannot_be_removed(ptype: int | None):
    with pytest.raises(KeyError):
        Bed().net.dev_remove_pack(ptype, print)


def test_a_clone_holds_the_pages_of_its_payload():
    bed = Bed()
    addr = lib.us_alloc_pages(bed.mem.ptr, 0)
    skb = Skb(b"head", bed.eth0)
    skb.frags = [(addr, 100)]
    free = bed.mem.free_pages
    twin = skb_clone(bed.net, skb)
    release_frags(bed.net, skb)
    assert bed.mem.free_pages == free
    release_frags(bed.net, twin)
    assert bed.mem.free_pages == free + 1
