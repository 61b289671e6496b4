"""UDP headers (RFC 768)."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from ustack.lib.drop_reason import DropReason
from ustack.wire.errors import WireError

UDP_HLEN = 8
"""Bytes of a header."""

_HEADER = Struct("!HHHH")


@dataclass(frozen=True, slots=True)
class UdpHeader:
    """Ports, length (header included) and checksum; 0 means that there is none."""

    source: int
    dest: int
    length: int
    csum: int


def parse_udp(data: bytes | memoryview, offset: int = 0) -> UdpHeader:
    """Read the header at ``offset``; the datagram may be followed by padding.

    Raises:
        WireError: PKT_TOO_SMALL, the datagram is shorter than its length field or that is
            below eight.
    """
    room = len(data) - offset
    if room < UDP_HLEN:
        raise WireError(DropReason.PKT_TOO_SMALL)
    header = UdpHeader(*_HEADER.unpack_from(data, offset))
    if not UDP_HLEN <= header.length <= room:
        raise WireError(DropReason.PKT_TOO_SMALL)
    return header


def build_udp(source: int, dest: int, payload_bytes: int, csum: int = 0) -> bytes:
    """Write a header."""
    return _HEADER.pack(source, dest, UDP_HLEN + payload_bytes, csum)
