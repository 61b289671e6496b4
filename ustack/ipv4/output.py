"""IPv4 output: a header, a neighbour, an Ethernet header (net/ipv4/ip_output.c).

The transports call ``ip_queue_xmit`` with a route that they have looked up. To a reachable
neighbour both headers are packed in one go and the frame goes to ``dev_queue_xmit``;
otherwise the neighbour layer takes the IP packet and decides.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from ustack.core.skb import Skb, kfree_skb
from ustack.core.transmit import dev_queue_xmit
from ustack.ipv4.fib import RTN_BROADCAST, RTN_MULTICAST
from ustack.ipv4.fragment import ip_fragment
from ustack.ipv4.route import Route, route_neigh
from ustack.lib.drop_reason import DropReason
from ustack.native.checksum import ip_fast_csum
from ustack.wire.ethernet import ETH_HLEN, ETH_P_IP
from ustack.wire.ipv4 import IP_DF, IP_HLEN, IP_MAX_LEN, IPV4_HEADER

if TYPE_CHECKING:
    from ustack.ipv4.protocol import Ipv4

_pack_frame = Struct("!14sBBHHHBBHII").pack
_pack_header = IPV4_HEADER.pack
_TRANSPORT_AT = ETH_HLEN + IP_HLEN

IP_TOS2PRIO = (0, 1, 0, 0, 2, 2, 2, 2, 6, 6, 6, 6, 4, 4, 4, 4)
"""skb.priority of each value of the four TOS bits (rt_tos2priority)."""


def ip_queue_xmit(
    ip: Ipv4,
    skb: Skb,
    rt: Route,
    saddr: int,
    daddr: int,
    protocol: int,
    *,
    tos: int = 0,
    ttl: int = 0,
    df: bool = True,
    options: bytes = b"",
    ident: int = -1,
) -> DropReason | None:
    """Send a transport segment; ``skb.data`` begins with its header. It is consumed.

    Args:
        ip: The stack's IPv4.
        skb: The segment, or a super-frame (``gso_size``) of up to 65515 bytes.
        rt: From ``ip_route_output``, and still valid.
        saddr: Source address, host order.
        daddr: Destination address, host order.
        protocol: IPPROTO_*.
        tos: The type of service byte.
        ttl: Time to live; 0 for ``ip_default_ttl``.
        df: Forbid fragmentation (path MTU discovery). Without it a packet larger than the
            MTU goes in fragments.
        options: The header's options, padded to a multiple of four bytes.
        ident: The identification, if the transport counts its own (a connected socket's).

    Returns:
        None if it is on its way or waits for its neighbour, otherwise why it was dropped:
        PKT_TOO_BIG if it is larger than a packet may be, or than the MTU with ``df``.
    """
    data = skb.data
    tot_len = IP_HLEN + len(data)
    for _, length in skb.frags:
        tot_len += length
    ip.mib.OutRequests += 1
    ttl = ttl or ip.config.ip_default_ttl
    frag = IP_DF if df and not rt.mtu_locked else 0
    if options or (tot_len > rt.mtu and (not skb.gso_size or tot_len > IP_MAX_LEN)):
        return _ip_output_slow(
            ip, skb, rt, tot_len, (tos, frag, ttl, protocol, saddr, daddr), options
        )
    if ident < 0:
        ident = rt.ident
        rt.ident = ident + skb.gso_segs & 0xFFFF
    # One's complement addition is addition modulo 0xffff: see wire/ipv4.py, header_csum.
    csum = -(0x4500 + tos + tot_len + ident + frag + (ttl << 8) + protocol + saddr + daddr) % 0xFFFF
    if tos:
        skb.priority = IP_TOS2PRIO[tos >> 1 & 15]
    skb.protocol = ETH_P_IP
    ip.mib.OutTransmits += 1
    ip.ext.OutOctets += tot_len
    neigh = rt.neigh
    if neigh is not None and neigh.hh is not None:
        skb.data = (
            _pack_frame(
                neigh.hh, 0x45, tos, tot_len, ident, frag, ttl, protocol, csum, saddr, daddr
            )
            + data
        )
        skb.network_offset = ETH_HLEN
        skb.transport_offset = _TRANSPORT_AT
        skb.dev = rt.dev
        return dev_queue_xmit(ip.net, skb)
    skb.data = (
        _pack_header(0x45, tos, tot_len, ident, frag, ttl, protocol, csum, saddr, daddr) + data
    )
    skb.network_offset = 0
    skb.transport_offset = IP_HLEN
    return _ip_finish_output2(ip, skb, rt)


def ip_send_hdrincl(ip: Ipv4, skb: Skb, rt: Route, ihl: int) -> DropReason | None:
    """Send a packet whose IP header, of ``ihl`` bytes, is the application's (IP_HDRINCL)."""
    skb.protocol = ETH_P_IP
    skb.network_offset = 0
    skb.transport_offset = ihl
    ip.mib.OutTransmits += 1
    ip.ext.OutOctets += len(skb.data)
    return _ip_finish_output2(ip, skb, rt)


def _ip_output_slow(
    ip: Ipv4,
    skb: Skb,
    rt: Route,
    tot_len: int,
    fields: tuple[int, int, int, int, int, int],
    options: bytes,
) -> DropReason | None:
    """Send a packet that has options or is larger than the MTU (ip_output)."""
    hlen = IP_HLEN + len(options)
    tot_len += len(options)
    if tot_len > IP_MAX_LEN:
        return _too_big(ip, skb)
    tos, frag, ttl, protocol, saddr, daddr = fields
    ident = rt.ident
    rt.ident = ident + skb.gso_segs & 0xFFFF
    header = [0x40 | hlen >> 2, tos, tot_len, ident, frag, ttl, protocol, 0, saddr, daddr]
    header[7] = ip_fast_csum(_pack_header(*header) + options)
    skb.priority = IP_TOS2PRIO[tos >> 1 & 15]
    skb.protocol = ETH_P_IP
    skb.data = _pack_header(*header) + options + skb.data
    skb.network_offset = 0
    skb.transport_offset = hlen
    ip.mib.OutTransmits += 1
    ip.ext.OutOctets += tot_len
    if tot_len > rt.mtu and not skb.gso_size:
        return ip_fragment(ip, skb, rt, _ip_finish_output2)
    return _ip_finish_output2(ip, skb, rt)


def _ip_finish_output2(ip: Ipv4, skb: Skb, rt: Route) -> DropReason | None:
    """Find the neighbour and let it send, or keep, the packet."""
    skb.dev = rt.dev
    skb.dst = rt
    if rt.rt_type == RTN_BROADCAST:
        ip.ext.OutBcastPkts += 1
        ip.ext.OutBcastOctets += len(skb)
    elif rt.rt_type == RTN_MULTICAST:
        ip.ext.OutMcastPkts += 1
        ip.ext.OutMcastOctets += len(skb)
    neigh = route_neigh(ip, rt)
    if neigh is None:
        ip.mib.OutDiscards += 1
        kfree_skb(ip.net, skb, DropReason.NEIGH_CREATEFAIL)
        return DropReason.NEIGH_CREATEFAIL
    return ip.arp.table.neigh_resolve_output(neigh, skb)


def _too_big(ip: Ipv4, skb: Skb) -> DropReason:
    ip.mib.OutDiscards += 1
    kfree_skb(ip.net, skb, DropReason.PKT_TOO_BIG)
    return DropReason.PKT_TOO_BIG
