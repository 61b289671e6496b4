"""Software receive offload: consecutive segments of a flow go up as one (net/core/gro.c).

A driver's poll calls ``napi_gro_receive`` instead of ``netif_receive_skb`` with every frame;
``net_rx_action`` calls ``napi_gro_flush`` when the poll is over, so nothing is held longer.
Segments are merged if one follows the other and the headers are equal but for length, IP
identification, checksums, PSH and FIN (inet_gro_receive, tcp_gro_receive): the result could
be cut into the same segments again. What merges is counted by its effect: ``Tcp: InSegs``
against the device's ``rx_packets``.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from ustack.core.netdevice import NETIF_F_GRO
from ustack.core.receive import netif_receive_skb
from ustack.core.skb import CHECKSUM_UNNECESSARY, Skb
from ustack.native.checksum import csum_partial, csum_tcpudp_magic
from ustack.wire.ethernet import ETH_HLEN, ETH_P_IP
from ustack.wire.ipv4 import IP_DF, IPPROTO_TCP

if TYPE_CHECKING:
    from ustack.core.napi import Napi

MAX_GRO_SKBS = 8
"""Flows that one NAPI holds; the oldest goes up when another one comes (MAX_GRO_SKBS)."""
GRO_MAX_BYTES = 65535
"""Bytes of a merged packet from its IP header on; its length field holds no more."""

_IP_AT = ETH_HLEN
_TCP_AT = ETH_HLEN + 20
_OPTIONS_AT = _TCP_AT + 20
_PROTO_IN_WORD = 3

_unpack = Struct("!16sHH4sH12sI5sB2s").unpack_from
"""MAC header to TOS; total length; id; fragment word, TTL, protocol; IP checksum; addresses
and ports; sequence number; acknowledgment and data offset; flags; window."""
_Fields = tuple[bytes, int, int, bytes, int, bytes, int, bytes, int, bytes]
_VIHL_IN_HEAD = 14
_OFFSET_IN_ACK = 4
_unpack_addrs = Struct("!II").unpack_from
_pack_u16 = Struct("!H").pack_into

_FIN, _SYN, _RST, _PSH, _ACK, _URG, _CWR = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x80
_MAY_DIFFER = _FIN | _PSH | _CWR
_ENDS_A_PACKET = _FIN | _SYN | _RST | _PSH | _URG
_FRAGMENT = 0x3FFF


class GroHeld:
    """What a NAPI holds of one flow: a frame, or several joined (struct napi_gro_cb)."""

    __slots__ = (
        "ack",
        "buffer",
        "count",
        "flags",
        "head",
        "header_sum",
        "ident_step",
        "mss",
        "next_ident",
        "next_seq",
        "options",
        "payload_at",
        "skb",
        "window",
        "word",
    )

    def __init__(self, skb: Skb, payload_at: int, mss: int, next_seq: int) -> None:
        self.skb = skb
        self.buffer = bytearray(skb.data)
        """The first frame, and the payload of the others behind it."""
        self.count = 1
        self.payload_at = payload_at
        self.mss = mss
        """Payload of every segment but the last."""
        self.next_seq = next_seq
        self.flags = 0
        self.next_ident = 0
        """IP identification of the segment that may follow."""
        self.ident_step = 1
        """0 once DF has let the second segment have the identification of the first."""
        self.header_sum = 0
        """Total length, identification and checksum of a header that is right, modulo 0xffff:
        the sum of what may differ is the same for each of them."""
        self.options: bytes = bytes(skb.data[_OPTIONS_AT:payload_at])
        self.head = self.word = self.ack = self.window = b""
        """With ``options``, what all segments have in common: see ``_unpack``."""


def napi_gro_receive(napi: Napi, skb: Skb) -> None:
    """Take a frame that ``eth_type_trans`` has classified; it is consumed.

    It is merged, held, or handed to ``netif_receive_skb`` behind what is held of its flow.
    The data of a frame that is held is copied: its buffer may be posted again at once.
    """
    dev = skb.dev
    assert dev is not None
    if skb.protocol != ETH_P_IP or not dev.features & NETIF_F_GRO:
        netif_receive_skb(napi.net, skb)
        return
    if skb.gso_size or len(skb.data) < _OPTIONS_AT:
        if napi.gro_list:
            napi_gro_flush(napi)  # keeps a flow in order, whatever this belongs to
        netif_receive_skb(napi.net, skb)
        return
    fields = _unpack(skb.data)
    flow = fields[5]
    held = napi.gro_list.get(flow)
    if held is not None:
        follows = _follows(held, skb, fields)
        if follows and not _append(held, skb, fields):
            return
        del napi.gro_list[flow]
        _napi_gro_complete(napi, held)
        if follows:
            return
    if not _may_begin(skb, fields):
        netif_receive_skb(napi.net, skb)
        return
    if len(napi.gro_list) >= MAX_GRO_SKBS:
        _napi_gro_complete(napi, napi.gro_list.pop(next(iter(napi.gro_list))))
    napi.gro_list[flow] = _begin(skb, fields)


def _follows(held: GroHeld, skb: Skb, fields: _Fields) -> bool:
    """Whether ``skb`` is the next segment, its headers equal but for what may differ."""
    head, tot_len, ident, word, csum, _, seq, ack, flags, window = fields
    data = skb.data
    payload_at = held.payload_at
    length = len(data) - payload_at
    return (
        held.next_seq == seq
        and held.ack == ack
        and held.head == head
        and held.word == word
        and held.window == window
        and 0 < length <= held.mss
        and tot_len + ETH_HLEN == len(data)
        and (flags ^ held.flags) & ~_MAY_DIFFER == 0
        and flags < _CWR
        and (tot_len + ident + csum) % 0xFFFF == held.header_sum
        and (payload_at == _OPTIONS_AT or data[_OPTIONS_AT:payload_at] == held.options)
        and len(held.buffer) + length <= GRO_MAX_BYTES + ETH_HLEN
        and (held.next_ident == ident or _ident_is_fixed(held, ident))
        and (skb.ip_summed == CHECKSUM_UNNECESSARY or _checksum_is_good(data))
    )


def _append(held: GroHeld, skb: Skb, fields: _Fields) -> bool:
    """Add a segment that follows; return whether the packet ends with it."""
    _, _, ident, _, _, _, seq, _, flags, _ = fields
    held.buffer += skb.data[held.payload_at :]
    length = len(skb.data) - held.payload_at
    held.count += 1
    held.next_seq = seq + length & 0xFFFFFFFF
    held.next_ident = ident + held.ident_step & 0xFFFF
    if length == held.mss and not flags & _ENDS_A_PACKET:
        return False
    held.flags |= flags
    return True


def _may_begin(skb: Skb, fields: _Fields) -> bool:
    """Whether others could be joined to this frame: TCP text, whole, and its sums are right."""
    head, tot_len, _, word, _, _, _, ack, flags, _ = fields
    data = skb.data
    payload_at = _payload_at(ack)
    return (
        _OPTIONS_AT <= payload_at < len(data)
        and flags & (_ENDS_A_PACKET | _CWR | _ACK) == _ACK
        and head[_VIHL_IN_HEAD] == 0x45
        and word[_PROTO_IN_WORD] == IPPROTO_TCP
        and not (word[0] << 8 | word[1]) & _FRAGMENT
        and ETH_HLEN + tot_len == len(data)
        and not int.from_bytes(data[_IP_AT:_TCP_AT], "big") % 0xFFFF
        and (skb.ip_summed == CHECKSUM_UNNECESSARY or _checksum_is_good(data))
    )


def _begin(skb: Skb, fields: _Fields) -> GroHeld:
    """Hold the first frame of a packet."""
    head, tot_len, ident, word, csum, _, seq, ack, flags, window = fields
    payload_at = _payload_at(ack)
    length = len(skb.data) - payload_at
    held = GroHeld(skb, payload_at, length, seq + length & 0xFFFFFFFF)
    held.head, held.word, held.ack, held.window = head, word, ack, window
    held.flags = flags
    held.next_ident = ident + 1 & 0xFFFF
    held.header_sum = (tot_len + ident + csum) % 0xFFFF
    return held


def _payload_at(ack: bytes) -> int:
    """Return where the text begins, from the acknowledgment and data offset."""
    return _TCP_AT + (ack[_OFFSET_IN_ACK] >> 4) * 4


def napi_gro_flush(napi: Napi) -> None:
    """Hand up all that ``napi`` holds, the oldest first (napi_gro_flush)."""
    held_flows = napi.gro_list
    if held_flows:
        napi.gro_list = {}
        for held in held_flows.values():
            _napi_gro_complete(napi, held)


def _ident_is_fixed(held: GroHeld, ident: int) -> bool:
    """Whether the second segment may have the first's identification (DF set, RFC 6864)."""
    if held.count > 1 or held.next_ident != ident + 1 & 0xFFFF or not held.word[0] << 8 & IP_DF:
        return False
    held.ident_step = 0
    return True


def _checksum_is_good(data: bytes | memoryview) -> bool:
    """Verify TCP's checksum, which the device has not (skb_gro_checksum_validate)."""
    segment = data[_TCP_AT:]
    saddr, daddr = _unpack_addrs(data, _IP_AT + 12)
    csum = csum_tcpudp_magic(saddr, daddr, len(segment), IPPROTO_TCP, csum_partial(segment))
    return csum == 0


def _napi_gro_complete(napi: Napi, held: GroHeld) -> None:
    """Make one packet of what is held and hand it up (inet_gro_complete, tcp_gro_complete)."""
    skb, buffer = held.skb, held.buffer
    skb.ip_summed = CHECKSUM_UNNECESSARY
    if held.count > 1:
        _pack_u16(buffer, _IP_AT + 2, len(buffer) - ETH_HLEN)
        _pack_u16(buffer, _IP_AT + 10, 0)
        csum = -int.from_bytes(buffer[_IP_AT:_TCP_AT], "big") % 0xFFFF
        _pack_u16(buffer, _IP_AT + 10, csum)
        buffer[_TCP_AT + 13] = held.flags
        skb.gso_size = held.mss
        skb.gso_segs = held.count
    skb.data = memoryview(buffer)
    netif_receive_skb(napi.net, skb)
