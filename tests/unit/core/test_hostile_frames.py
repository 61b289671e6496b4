"""No frame, however mangled, raises anything or goes unaccounted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.netbed import (
    OUR_MAC,
    OURS,
    PEER,
    PEER_MAC,
    Bed,
    icmp_packet,
    udp_packet,
    with_checksum,
)
from ustack.wire.arp import ARPOP_REPLY, ARPOP_REQUEST, ArpPacket, build_arp
from ustack.wire.ethernet import ETH_P_ARP, ETH_P_IP, build_ethernet
from ustack.wire.ipv4 import build_ipv4

IP = build_ethernet(OUR_MAC, PEER_MAC, ETH_P_IP)
ARP = build_ethernet(OUR_MAC, PEER_MAC, ETH_P_ARP)
QUOTED = build_ipv4(OURS, PEER, 200, 20) + bytes(20)

SEEDS = [
    ARP + build_arp(ArpPacket(ARPOP_REQUEST, PEER_MAC, PEER, bytes(6), OURS)),
    ARP + build_arp(ArpPacket(ARPOP_REPLY, PEER_MAC, PEER, OUR_MAC, OURS)),
    IP + icmp_packet(8, payload=bytes(20)),
    IP + icmp_packet(3, 4, 1400, QUOTED),
    IP + icmp_packet(12, 0, 1 << 24, QUOTED),
    IP + udp_packet(b"datagram"),
    IP + build_ipv4(PEER, OURS, 200, 30) + bytes(30),
    IP
    + with_checksum(b"\x47" + build_ipv4(PEER, OURS, 200, 18)[1:] + b"\x44\x05\x05\0\0\0\0\0")
    + bytes(10),
]


def fixed_up(frame: bytes) -> bytes:
    """Put the IP header's checksum right again, so that mutations get past it."""
    end = 14 + (frame[14] & 15) * 4 if len(frame) > 14 else 0
    if frame[12:14] != b"\x08\x00" or end < 34 or len(frame) < end:
        return frame
    return frame[:14] + with_checksum(frame[14:end]) + frame[end:]


@pytest.mark.parametrize("repair", [False, True])
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 80), st.integers(0, 255)), max_size=6),
    st.integers(0, 90),
    st.binary(max_size=10),
)
def test_mangled_frames(repair, seed, changes, keep, tail):
    bed = Bed()
    taken: list[object] = []
    bed.ip.inet_add_protocol(200, taken.append, lambda *args: taken.append(args))
    frame = bytearray(seed[:keep])
    for at, value in changes:
        if at < len(frame):
            frame[at] = value
    frame += tail
    bed.receive(fixed_up(bytes(frame)) if repair else bytes(frame))
    answered = bed.net.mib.icmp.InEchos + bed.arp.table.stats.lookups
    assert taken or bed.drops or answered or bed.eth0.sent or len(bed.ip.frags)
    bed.mem.close()
