"""Software segmentation of TCP super-frames (skb_gso_segment, tcp_gso_segment).

TCP builds super-frames for every device with NETIF_F_GSO. Those for a device that cannot
cut them itself (no NETIF_F_TSO) are cut by ``core/transmit.py`` just before the driver, so
that all layers above, the queue among them, handle 64 KiB at a time all the same.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from ustack.core.skb import CHECKSUM_PARTIAL, Skb, skb_linearize
from ustack.wire.ipv4 import IPPROTO_TCP

if TYPE_CHECKING:
    from ustack.core.net import Net

_U16 = Struct("!H")
_U32 = Struct("!I")
_pack_u16 = _U16.pack_into
_pack_u32 = _U32.pack_into
_pack_tot_len_id = Struct("!HH").pack_into
_TOT_LEN_AT = 2
_IP_CSUM_AT = 10
_ADDRS_AT = 12
_TCP_SEQ_AT = 4
_TCP_OFFSET_AT = 12
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
    frame = skb.data
    ip_at, tcp_at = skb.network_offset, skb.transport_offset
    payload_at = tcp_at + (frame[tcp_at + _TCP_OFFSET_AT] >> 4) * 4
    head = bytearray(frame[:payload_at])
    ident = _U16.unpack_from(head, ip_at + 4)[0]
    seq = _U32.unpack_from(head, tcp_at + _TCP_SEQ_AT)[0]
    last_flags = head[tcp_at + _TCP_FLAGS_AT]
    flags = last_flags & ~_FIN_PSH
    # Sums modulo 0xffff of all that stays the same: see wire/ipv4.py, header_csum.
    _pack_tot_len_id(head, ip_at + _TOT_LEN_AT, 0, 0)
    _pack_u16(head, ip_at + _IP_CSUM_AT, 0)
    ip_sum = int.from_bytes(head[ip_at:tcp_at], "big")
    pseudo_sum = int.from_bytes(head[ip_at + _ADDRS_AT : ip_at + 20], "big") + IPPROTO_TCP
    segments: list[Skb] = []
    size, end = skb.gso_size, len(frame)
    for at in range(payload_at, end, size):
        piece_end = at + size
        if piece_end >= end:
            piece_end = end
            flags = last_flags if not segments else last_flags & ~_CWR
        tot_len = payload_at - ip_at + piece_end - at
        _pack_tot_len_id(head, ip_at + _TOT_LEN_AT, tot_len, ident)
        _pack_u16(head, ip_at + _IP_CSUM_AT, -(ip_sum + tot_len + ident) % 0xFFFF)
        _pack_u32(head, tcp_at + _TCP_SEQ_AT, seq)
        head[tcp_at + _TCP_FLAGS_AT] = flags
        csum = (pseudo_sum + tot_len - (tcp_at - ip_at)) % 0xFFFF
        _pack_u16(head, tcp_at + _TCP_CSUM_AT, csum or 0xFFFF)
        segments.append(_segment(skb, bytes(head) + frame[at:piece_end]))
        flags &= ~_CWR
        ident = ident + 1 & 0xFFFF
        seq = seq + size & 0xFFFFFFFF
    return segments


def _segment(skb: Skb, frame: bytes) -> Skb:
    segment = Skb(frame, skb.dev)
    segment.protocol = skb.protocol
    segment.network_offset = skb.network_offset
    segment.transport_offset = skb.transport_offset
    segment.owner = skb.owner
    segment.priority = skb.priority
    segment.queue_mapping = skb.queue_mapping
    segment.ip_summed = CHECKSUM_PARTIAL
    segment.csum_offset = _TCP_CSUM_AT
    return segment
