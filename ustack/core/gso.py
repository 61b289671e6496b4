"""Software segmentation of TCP super-frames (skb_gso_segment, tcp_gso_segment).

Used when a device cannot cut them itself: ``dev_queue_xmit`` calls it on a complete frame
just before the queue, so that the layers above handle 64 KiB at a time all the same.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from ustack.core.skb import CHECKSUM_PARTIAL, Skb, skb_linearize
from ustack.native.checksum import csum_tcpudp_nofold, ip_fast_csum
from ustack.wire.ipv4 import IPPROTO_TCP

if TYPE_CHECKING:
    from ustack.core.net import Net

_TOT_LEN_ID = Struct("!HH")
_U16 = Struct("!H")
_U32 = Struct("!I")
_ADDRS = Struct("!II")
_IP_CSUM_AT = 10
_TCP_SEQ_AT = 4
_TCP_FLAGS_AT = 13
_TCP_CSUM_AT = 16
_FIN_PSH = 0x09
_CWR = 0x80


def skb_gso_segment(net: Net, skb: Skb) -> list[Skb]:
    """Cut an IPv4 TCP super-frame into frames of ``gso_size`` payload bytes.

    Sequence numbers and IP identifications count up, FIN and PSH stay with the last
    segment, CWR with the first (tcp_gso_segment). The segments are left CHECKSUM_PARTIAL.
    """
    skb_linearize(net, skb)
    frame = bytes(skb.data)
    ip_at, tcp_at = skb.network_offset, skb.transport_offset
    payload_at = tcp_at + (frame[tcp_at + 12] >> 4) * 4
    header = frame[:payload_at]
    payload = frame[payload_at:]
    ident = _U16.unpack_from(header, ip_at + 4)[0]
    seq = _U32.unpack_from(header, tcp_at + _TCP_SEQ_AT)[0]
    segments = []
    for number, at in enumerate(range(0, len(payload), skb.gso_size)):
        piece = payload[at : at + skb.gso_size]
        head = bytearray(header)
        tot_len = payload_at - ip_at + len(piece)
        _TOT_LEN_ID.pack_into(head, ip_at + 2, tot_len, ident + number & 0xFFFF)
        _ip_send_check(head, ip_at, tcp_at)
        _U32.pack_into(head, tcp_at + _TCP_SEQ_AT, seq + at & 0xFFFFFFFF)
        if at + len(piece) < len(payload):
            head[tcp_at + _TCP_FLAGS_AT] &= ~_FIN_PSH & 0xFF
        if number:
            head[tcp_at + _TCP_FLAGS_AT] &= ~_CWR & 0xFF
        _U16.pack_into(head, tcp_at + _TCP_CSUM_AT, _pseudo_sum(head, ip_at, tcp_at, len(piece)))
        segments.append(_segment(skb, bytes(head) + piece))
    return segments


def _segment(skb: Skb, frame: bytes) -> Skb:
    segment = Skb(frame, skb.dev)
    segment.protocol = skb.protocol
    segment.network_offset = skb.network_offset
    segment.transport_offset = skb.transport_offset
    segment.priority = skb.priority
    segment.ip_summed = CHECKSUM_PARTIAL
    segment.csum_offset = _TCP_CSUM_AT
    return segment


def _ip_send_check(head: bytearray, ip_at: int, tcp_at: int) -> None:
    _U16.pack_into(head, ip_at + _IP_CSUM_AT, 0)
    _U16.pack_into(head, ip_at + _IP_CSUM_AT, ip_fast_csum(head[ip_at:tcp_at]))


def _pseudo_sum(head: bytearray, ip_at: int, tcp_at: int, payload_bytes: int) -> int:
    """The pseudo-header's sum, which CHECKSUM_PARTIAL wants in the checksum field."""
    saddr, daddr = _ADDRS.unpack_from(head, ip_at + 12)
    return csum_tcpudp_nofold(saddr, daddr, len(head) - tcp_at + payload_bytes, IPPROTO_TCP, 0)
