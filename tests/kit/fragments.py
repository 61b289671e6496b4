"""Cutting IP packets and joining them, independently of the stack's own code."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from kit.checksum import checksum

MF = 0x2000


def fragment(packet: bytes, mtu: int = 1500) -> list[bytes]:
    """Cut an IP packet into fragments for ``mtu``; all carry its whole header."""
    hlen = (packet[0] & 15) * 4
    room = (mtu - hlen) // 8 * 8
    total = len(packet) - hlen
    return [piece(packet, at, min(at + room, total)) for at in range(0, total, room)]


def piece(packet: bytes, start: int, end: int, *, more: bool | None = None) -> bytes:
    """Return bytes ``start`` to ``end`` of a packet's payload as a fragment.

    Args:
        more: The MF flag; by default whether the packet goes on.
    """
    hlen = (packet[0] & 15) * 4
    payload = packet[hlen + start : hlen + end]
    if more is None:
        more = end < len(packet) - hlen
    return rewritten(packet[:hlen], len(payload), start, more) + payload


def rewritten(header: bytes, payload_bytes: int, offset: int, more: bool) -> bytes:
    """Return the header of a fragment; ``offset`` may be anything below 65536."""
    frag = offset >> 3 | (MF if more else 0)
    flags = struct.unpack_from(">H", header, 6)[0] & 0x4000
    new = (
        header[:2] + struct.pack(">H", len(header) + payload_bytes) + header[4:6]
        + struct.pack(">H", frag | flags) + header[8:10] + b"\0\0" + header[12:]
    )  # fmt: skip
    return new[:10] + struct.pack(">H", checksum(new)) + new[12:]


def parts(packets: Iterable[bytes]) -> Iterator[tuple[int, int, bool, bytes]]:
    """Yield (identification, offset in bytes, MF, payload) of IP packets; checksums must hold."""
    for packet in packets:
        hlen = (packet[0] & 15) * 4
        assert checksum(packet[:hlen]) == 0, "the header's checksum is wrong"
        total, ident, frag = struct.unpack_from(">HHH", packet, 2)
        assert total == len(packet), f"length field {total}, packet of {len(packet)} bytes"
        yield ident, (frag & 0x1FFF) * 8, bool(frag & MF), packet[hlen:]


def join(packets: Iterable[bytes]) -> bytes:
    """Join all fragments of one packet to its payload; they must fit without gap or overlap."""
    pieces = sorted(parts(packets), key=lambda part: part[1])
    assert len({ident for ident, *_ in pieces}) == 1, "more than one identification"
    payload = b""
    for number, (_, offset, more, data) in enumerate(pieces):
        assert offset == len(payload), f"a fragment at {offset}, not {len(payload)}"
        assert more == (number < len(pieces) - 1), "MF where it does not belong"
        payload += data
    return payload
