"""The Internet checksum in the plainest way (RFC 1071): the oracle, not the subject."""

from __future__ import annotations

import struct


def ones_complement_sum(data: bytes) -> int:
    """Return the folded 16-bit sum of ``data``, padded with a zero byte if odd."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def checksum(data: bytes) -> int:
    """Return the checksum to store; 0 over data that already holds a right one."""
    return ~ones_complement_sum(data) & 0xFFFF


def pseudo_header(saddr: int, daddr: int, proto: int, length: int) -> bytes:
    """Return the twelve bytes that TCP and UDP add to their sum (RFC 9293 §3.1)."""
    return struct.pack(">IIBBH", saddr, daddr, 0, proto, length)
