"""Cutting a packet that its link cannot carry (RFC 791 §3.2; ip_fragment, ip_do_fragment).

``ip_queue_xmit`` calls ``ip_fragment`` with a complete IP packet. One that forbids it (DF) is
refused and its sender told by ICMP, over lo, what would fit (RFC 1191): that is how our own
sockets learn of a narrower path.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import TYPE_CHECKING

from ustack.core.checksum import skb_checksum_help
from ustack.core.skb import CHECKSUM_PARTIAL, Skb, kfree_skb, skb_linearize
from ustack.ipv4.options import ip_options_fragment
from ustack.lib.drop_reason import DropReason
from ustack.native.checksum import ip_fast_csum
from ustack.wire.icmp import ICMP_DEST_UNREACH, ICMP_FRAG_NEEDED
from ustack.wire.ipv4 import IP_DF, IP_HLEN, IP_MF

if TYPE_CHECKING:
    from ustack.ipv4.protocol import Ipv4
    from ustack.ipv4.route import Route

Output = Callable[["Ipv4", Skb, "Route"], "DropReason | None"]

_U16 = Struct("!H")
_TOT_LEN_AT, _FRAG_AT, _CSUM_AT = 2, 6, 10


def ip_fragment(ip: Ipv4, skb: Skb, rt: Route, output: Output) -> DropReason | None:
    """Send ``skb``, an IP packet larger than ``rt.mtu``, in fragments; it is consumed.

    Args:
        ip: The stack's IPv4.
        skb: ``data`` begins with the IP header, ``transport_offset`` is its length.
        rt: Where it goes.
        output: Sends each fragment (ip_finish_output2).

    Returns:
        None if all fragments are on their way. PKT_TOO_BIG: DF forbids it (EMSGSIZE). Else
        why a fragment was dropped; those behind it were not sent.
    """
    frag = _U16.unpack_from(skb.data, _FRAG_AT)[0]
    if not frag & IP_DF:
        return ip_do_fragment(ip, skb, rt, output)
    ip.mib.FragFails += 1
    ip.icmp.icmp_send(skb, ICMP_DEST_UNREACH, ICMP_FRAG_NEEDED, rt.mtu)
    kfree_skb(ip.net, skb, DropReason.PKT_TOO_BIG)
    return DropReason.PKT_TOO_BIG


def ip_do_fragment(ip: Ipv4, skb: Skb, rt: Route, output: Output) -> DropReason | None:
    """Cut ``skb`` into pieces of ``rt.mtu`` bytes and send them, first one first."""
    if skb.ip_summed == CHECKSUM_PARTIAL:
        skb_checksum_help(ip.net, skb)  # a device cannot sum what it sees in pieces
    else:
        skb_linearize(ip.net, skb)
    hlen = skb.transport_offset
    packet = memoryview(skb.data)
    left = len(packet) - hlen
    room = rt.mtu - hlen & ~7
    header = bytearray(packet[:hlen])
    for at in range(0, left, room):
        piece = packet[hlen + at : hlen + min(at + room, left)]
        _write_header(header, len(piece), at, more=at + room < left)
        reason = output(ip, _fragment_skb(skb, bytes(header) + piece), rt)
        if reason is not None:
            ip.mib.FragFails += 1
            return reason
        ip.mib.FragCreates += 1
        if not at and hlen > IP_HLEN:
            header[IP_HLEN:] = ip_options_fragment(bytes(header[IP_HLEN:]))
    ip.mib.FragOKs += 1
    return None


def _write_header(header: bytearray, payload_bytes: int, offset: int, *, more: bool) -> None:
    _U16.pack_into(header, _TOT_LEN_AT, len(header) + payload_bytes)
    _U16.pack_into(header, _FRAG_AT, offset >> 3 | (IP_MF if more else 0))
    _U16.pack_into(header, _CSUM_AT, 0)
    _U16.pack_into(header, _CSUM_AT, ip_fast_csum(header))


def _fragment_skb(whole: Skb, data: bytes) -> Skb:
    """Wrap one fragment with the metadata of the packet (ip_copy_metadata)."""
    skb = Skb(data, whole.dev)
    skb.protocol = whole.protocol
    skb.priority = whole.priority
    skb.transport_offset = whole.transport_offset
    return skb
