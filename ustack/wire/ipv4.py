"""IPv4 headers and their options (RFC 791 §3.1).

The receive and transmit paths unpack and pack the fixed part inline; this module is for
everything else: options, embedded headers, tests and tools.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from ustack.lib.drop_reason import DropReason
from ustack.wire.errors import WireError

IP_HLEN = 20
"""Bytes of a header without options."""
IP_MAX_LEN = 65535
"""Largest total length (RFC 791: 16 bits)."""
IP_DF = 0x4000
IP_MF = 0x2000
IP_OFFSET = 0x1FFF

IPPROTO_ICMP = 1
IPPROTO_TCP = 6
IPPROTO_UDP = 17

IPOPT_END = 0
IPOPT_NOOP = 1
IPOPT_RR = 7
IPOPT_TIMESTAMP = 68
IPOPT_LSRR = 131
IPOPT_SSRR = 137
IPOPT_RA = 148
IPOPT_COPY = 0x80
"""Set in the type of an option that every fragment carries."""
IPOPT_TS_TSONLY = 0
IPOPT_TS_TSANDADDR = 1
IPOPT_TS_PRESPEC = 3

IPV4_HEADER = Struct("!BBHHHBBHII")


@dataclass(frozen=True, slots=True)
class Ipv4Header:
    """The fields of a header, in host order; ``frag`` holds flags and offset as on the wire."""

    ihl: int
    """Header length in bytes, 20 to 60."""
    tos: int
    tot_len: int
    ident: int
    frag: int
    ttl: int
    protocol: int
    csum: int
    saddr: int
    daddr: int

    @property
    def dont_fragment(self) -> bool:
        """The DF flag."""
        return bool(self.frag & IP_DF)

    @property
    def is_fragment(self) -> bool:
        """Whether this is one piece of a larger packet."""
        return bool(self.frag & (IP_MF | IP_OFFSET))


def parse_ipv4(data: bytes | memoryview, offset: int = 0) -> Ipv4Header:
    """Read the header at ``offset``, without its checksum and without the payload's length.

    Raises:
        WireError: HDR_TRUNC, the header is not all there; IP_INHDR, it is not version 4 or
            its length is below 20.
    """
    if len(data) - offset < IP_HLEN:
        raise WireError(DropReason.HDR_TRUNC)
    vihl, *rest = IPV4_HEADER.unpack_from(data, offset)
    ihl = (vihl & 15) * 4
    if vihl >> 4 != 4 or ihl < IP_HLEN:
        raise WireError(DropReason.IP_INHDR)
    if len(data) - offset < ihl:
        raise WireError(DropReason.HDR_TRUNC)
    return Ipv4Header(ihl, *rest)


def header_csum(
    tos: int,
    tot_len: int,
    ident: int,
    frag: int,
    ttl: int,
    protocol: int,
    saddr: int,
    daddr: int,
) -> int:
    """Return the checksum of a header without options.

    One's complement addition of 16-bit words is addition modulo 65535, so that the 32-bit
    addresses need not be cut in two.
    """
    return -(0x4500 + tos + tot_len + ident + frag + (ttl << 8) + protocol + saddr + daddr) % 0xFFFF


def build_ipv4(
    saddr: int,
    daddr: int,
    protocol: int,
    payload_bytes: int,
    *,
    ident: int = 0,
    tos: int = 0,
    ttl: int = 64,
    frag: int = IP_DF,
) -> bytes:
    """Write a header without options, checksum included."""
    tot_len = IP_HLEN + payload_bytes
    csum = header_csum(tos, tot_len, ident, frag, ttl, protocol, saddr, daddr)
    return IPV4_HEADER.pack(0x45, tos, tot_len, ident, frag, ttl, protocol, csum, saddr, daddr)
