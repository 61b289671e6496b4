"""ICMP messages (RFC 792; RFC 1191 for the next-hop MTU of "fragmentation needed")."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from ustack.lib.drop_reason import DropReason
from ustack.wire.errors import WireError

ICMP_HLEN = 8
"""Bytes before the payload."""

ICMP_ECHOREPLY = 0
ICMP_DEST_UNREACH = 3
ICMP_SOURCE_QUENCH = 4
ICMP_REDIRECT = 5
ICMP_ECHO = 8
ICMP_TIME_EXCEEDED = 11
ICMP_PARAMETERPROB = 12
ICMP_TIMESTAMP = 13
ICMP_TIMESTAMPREPLY = 14
ICMP_ADDRESS = 17
ICMP_ADDRESSREPLY = 18

ICMP_NET_UNREACH = 0
ICMP_HOST_UNREACH = 1
ICMP_PROT_UNREACH = 2
ICMP_PORT_UNREACH = 3
ICMP_FRAG_NEEDED = 4

ICMP_EXC_FRAGTIME = 1

ICMP_ERROR_TYPES = frozenset(
    {
        ICMP_DEST_UNREACH,
        ICMP_SOURCE_QUENCH,
        ICMP_REDIRECT,
        ICMP_TIME_EXCEEDED,
        ICMP_PARAMETERPROB,
    }
)
"""Messages about other packets: never answered with one (RFC 1122 §3.2.2)."""

_HEADER = Struct("!BBHI")


@dataclass(frozen=True, slots=True)
class IcmpHeader:
    """The eight bytes that every message begins with."""

    type: int
    code: int
    csum: int
    info: int
    """Bytes 4 to 7: identifier and sequence number, next-hop MTU, or pointer << 24."""


def parse_icmp(data: bytes | memoryview, offset: int = 0) -> IcmpHeader:
    """Read the header at ``offset``.

    Raises:
        WireError: ICMP_MALFORMED, fewer than eight bytes.
    """
    if len(data) - offset < ICMP_HLEN:
        raise WireError(DropReason.ICMP_MALFORMED)
    return IcmpHeader(*_HEADER.unpack_from(data, offset))


def build_icmp(icmp_type: int, code: int, info: int, csum: int = 0) -> bytes:
    """Write a header; the checksum covers the payload too, so the caller computes it."""
    return _HEADER.pack(icmp_type, code, csum, info)
