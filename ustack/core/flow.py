"""Which flow a packet belongs to: one number for all packets of a connection, both ways.

RPS and the choice of a transmit queue ask (net/core/flow_dissector.c, skb_get_hash). The
device's own hash, if it has put one into the packet, is used as it is. Fragments are known
by their addresses alone, what is not IPv4 by its EtherType.
"""

from __future__ import annotations

from zlib import crc32

from ustack.core.skb import Skb
from ustack.wire.ethernet import ETH_HLEN
from ustack.wire.ipv4 import IPPROTO_TCP, IPPROTO_UDP

_ETH_P_IP = b"\x08\x00"
_GOLDEN_RATIO = 0x9E3779B1
"""Spreads neighbouring flows, which a CRC alone does not (GOLDEN_RATIO_32 in spirit)."""
_IP_AT = ETH_HLEN
_WITH_PORTS = (IPPROTO_TCP, IPPROTO_UDP)


def skb_get_hash(skb: Skb) -> int:
    """Return the hash of a frame's flow, from 1 to 2**32 - 1; it stays with the packet."""
    if not skb.hash:
        skb.hash = _hash(skb_flow_dissect(skb.data))
    return skb.hash


def flow_hash(proto: int, saddr: int, sport: int, daddr: int, dport: int) -> int:
    """Return what ``skb_get_hash`` gives for the whole packets of a TCP or UDP flow."""
    one = saddr.to_bytes(4, "big") + sport.to_bytes(2, "big")
    other = daddr.to_bytes(4, "big") + dport.to_bytes(2, "big")
    return _hash(_flow_keys(proto, one, other))


def _hash(keys: bytes) -> int:
    return crc32(keys) * _GOLDEN_RATIO & 0xFFFFFFFF or 1


def skb_flow_dissect(frame: bytes | memoryview) -> bytes:
    """Return what all packets of a flow have in common, whichever way they go.

    The two ends are put in order, lower address first (__flow_hash_consistentify).
    """
    ethertype = bytes(frame[12:14])
    if ethertype != _ETH_P_IP or len(frame) < _IP_AT + 20:
        return ethertype
    proto = frame[_IP_AT + 9]
    sport = dport = b""
    if proto in _WITH_PORTS and not (frame[_IP_AT + 6] & 0x3F or frame[_IP_AT + 7]):
        at = _IP_AT + (frame[_IP_AT] & 15) * 4
        sport, dport = bytes(frame[at : at + 2]), bytes(frame[at + 2 : at + 4])
    one = bytes(frame[_IP_AT + 12 : _IP_AT + 16]) + sport
    other = bytes(frame[_IP_AT + 16 : _IP_AT + 20]) + dport
    return _flow_keys(proto, one, other)


def _flow_keys(proto: int, one: bytes, other: bytes) -> bytes:
    return bytes((proto,)) + min(one, other) + max(one, other)


def reciprocal_scale(value: int, count: int) -> int:
    """Map 32 random bits to a number from 0 to ``count`` - 1 without dividing."""
    return value * count >> 32
