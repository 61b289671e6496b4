"""ARP packets for IPv4 over Ethernet (RFC 826)."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from ustack.lib.drop_reason import DropReason
from ustack.wire.errors import WireError

ARP_LEN = 28
"""Bytes of an ARP packet for Ethernet and IPv4."""
ARPOP_REQUEST = 1
ARPOP_REPLY = 2
ARPHRD_ETHER = 1
ARPHRD_IEEE802 = 6
_PROTO_IP = 0x0800

_PACKET = Struct("!HHBBH6sI6sI")


@dataclass(frozen=True, slots=True)
class ArpPacket:
    """The fields by the names of RFC 5227: sender and target, hardware and IP."""

    op: int
    sha: bytes
    sip: int
    tha: bytes
    tip: int


def parse_arp(data: bytes | memoryview, offset: int = 0) -> ArpPacket:
    """Read the packet at ``offset``; what follows it is padding.

    Raises:
        WireError: ARP_MALFORMED: too short, or not Ethernet and IPv4, or neither request
            nor reply.
    """
    if len(data) - offset < ARP_LEN:
        raise WireError(DropReason.ARP_MALFORMED)
    hrd, pro, hln, pln, op, sha, sip, tha, tip = _PACKET.unpack_from(data, offset)
    if hrd not in (ARPHRD_ETHER, ARPHRD_IEEE802) or pro != _PROTO_IP or (hln, pln) != (6, 4):
        raise WireError(DropReason.ARP_MALFORMED)
    if op not in (ARPOP_REQUEST, ARPOP_REPLY):
        raise WireError(DropReason.ARP_MALFORMED)
    return ArpPacket(op, sha, sip, tha, tip)


def build_arp(packet: ArpPacket) -> bytes:
    """Write the 28 bytes of ``packet`` (arp_create)."""
    return _PACKET.pack(
        ARPHRD_ETHER,
        _PROTO_IP,
        6,
        4,
        packet.op,
        packet.sha,
        packet.sip,
        packet.tha,
        packet.tip,
    )
