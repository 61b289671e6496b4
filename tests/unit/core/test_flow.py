"""The flow's hash: one number for a connection, both ways."""

from __future__ import annotations

import struct
from collections import Counter

from ustack.core.flow import flow_hash, reciprocal_scale, skb_flow_dissect, skb_get_hash
from ustack.core.skb import Skb

US, THEM = 0x0A000002, 0x0A000001


def packet(
    saddr: int = THEM, daddr: int = US, sport: int = 4000, dport: int = 80, *,
    proto: int = 6, frag: int = 0, options: bytes = b"", ethertype: int = 0x0800,
) -> bytes:  # fmt: skip
    head = struct.pack(
        ">BBHHHBBHII", 0x45 + len(options) // 4, 0, 40, 0, frag, 64, proto, 0, saddr, daddr
    )
    mac = bytes(12) + ethertype.to_bytes(2, "big")
    return mac + head + options + struct.pack(">HH16x", sport, dport)


def flow(*args: int, **fields) -> bytes:
    return skb_flow_dissect(packet(*args, **fields))


def test_both_directions_are_one_flow():
    assert flow(THEM, US, 4000, 80) == flow(US, THEM, 80, 4000)


def test_both_directions_of_a_connection_to_oneself_are_one_flow():
    assert flow(US, US, 4000, 80) == flow(US, US, 80, 4000)


def test_another_port_is_another_flow():
    assert flow(sport=4000) != flow(sport=4001)


def test_another_protocol_is_another_flow():
    assert flow(proto=6) != flow(proto=17)


def test_ports_that_changed_places_are_another_flow():
    assert flow(THEM, US, 4000, 80) != flow(THEM, US, 80, 4000)


def test_the_ports_are_found_behind_options():
    assert flow(options=bytes(8)) == flow()


def test_all_fragments_of_a_packet_are_one_flow():
    first, middle, last = (flow(sport=n, frag=f) for n, f in ((1, 0x2000), (2, 0x2010), (3, 0x20)))
    assert first == middle == last


def test_what_forbids_fragmentation_is_no_fragment():
    assert flow(frag=0x4000, sport=1) != flow(frag=0x4000, sport=2)


def test_a_protocol_without_ports_is_known_by_its_addresses():
    assert flow(proto=1, sport=1) == flow(proto=1, sport=2) != flow(US + 7, US, proto=1)


def test_what_is_not_ipv4_is_known_by_its_ethertype():
    assert flow(ethertype=0x0806, sport=1) == flow(ethertype=0x0806, sport=2) == b"\x08\x06"


def test_a_frame_that_ends_in_the_header_is_known_by_its_ethertype():
    assert skb_flow_dissect(packet()[:33]) == b"\x08\x00"
    for length in range(40):
        skb_get_hash(Skb(packet()[:length]))


def test_the_hash_is_never_zero_and_kept():
    skb = Skb(packet())
    first = skb_get_hash(skb)
    skb.data = packet(sport=1)
    assert first == skb_get_hash(skb) != 0


def test_the_devices_hash_is_used():
    skb = Skb(packet())
    skb.hash = 77
    assert skb_get_hash(skb) == 77


def test_neighbouring_flows_spread_evenly():
    count = Counter(
        reciprocal_scale(skb_get_hash(Skb(packet(sport=port))), 4) for port in range(1024, 1424)
    )
    assert sorted(count) == [0, 1, 2, 3]
    assert max(count.values()) <= 2 * min(count.values())


def test_a_flows_hash_is_that_of_its_packets():
    frame = bytes(12) + b"\x08\x00" + bytes.fromhex("4500002800004000400600000a0000020a000001")
    frame += (80).to_bytes(2, "big") + (40_000).to_bytes(2, "big") + bytes(16)
    assert skb_get_hash(Skb(frame)) == flow_hash(6, 0x0A000002, 80, 0x0A000001, 40_000)
    assert skb_get_hash(Skb(frame)) == flow_hash(6, 0x0A000001, 40_000, 0x0A000002, 80)
