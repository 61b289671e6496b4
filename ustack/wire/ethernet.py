"""Ethernet II headers (IEEE 802.3 clause 3; RFC 894)."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from ustack.lib.drop_reason import DropReason
from ustack.wire.errors import WireError

ETH_HLEN = 14
"""Bytes of an Ethernet header."""
ETH_ZLEN = 60
"""Least bytes of a frame without FCS; shorter ones are padded."""
ETH_P_ALL = 0x0003
ETH_P_IP = 0x0800
ETH_P_ARP = 0x0806
ETH_P_IPV6 = 0x86DD

_HEADER = Struct("!6s6sH")


@dataclass(frozen=True, slots=True)
class EthernetHeader:
    """Destination, source and EtherType of a frame."""

    dest: bytes
    source: bytes
    proto: int


def parse_ethernet(frame: bytes | memoryview) -> EthernetHeader:
    """Read the header of ``frame``.

    Raises:
        WireError: PKT_TOO_SMALL, the frame has no room for a header.
    """
    if len(frame) < ETH_HLEN:
        raise WireError(DropReason.PKT_TOO_SMALL)
    return EthernetHeader(*_HEADER.unpack_from(frame))


def build_ethernet(dest: bytes, source: bytes, proto: int) -> bytes:
    """Write a header (eth_header)."""
    return _HEADER.pack(dest, source, proto)
