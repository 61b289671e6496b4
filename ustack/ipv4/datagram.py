"""Sending datagrams of UDP, raw and ping sockets (ip_make_skb, ip_send_skb; ip_output.c).

A datagram larger than the path's MTU goes in fragments, unless its socket forbids it
(IP_MTU_DISCOVER); one that fits says "don't fragment" as long as the path's MTU is believed.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ustack.core.skb import CHECKSUM_PARTIAL, Skb
from ustack.ipv4.fib import RTN_BROADCAST
from ustack.ipv4.output import ip_queue_xmit
from ustack.ipv4.route import Route, ip_route_output
from ustack.lib.addresses import INADDR_BROADCAST
from ustack.lib.drop_reason import DropReason
from ustack.lib.socket_error import socket_error
from ustack.wire.ipv4 import IP_HLEN, IP_MAX_LEN

if TYPE_CHECKING:
    from ustack.ipv4.protocol import Ipv4

IP_PMTUDISC_DONT = 0
"""Never set DF."""
IP_PMTUDISC_WANT = 1
"""Set DF on what fits, cut what does not: the default."""
IP_PMTUDISC_DO = 2
"""Always set DF; what does not fit is EMSGSIZE."""
IP_PMTUDISC_PROBE = 3
"""As DO, but the device's MTU counts, not the path's."""
IP_PMTUDISC_INTERFACE = 4
"""Never set DF, refuse what does not fit the device."""
IP_PMTUDISC_OMIT = 5
"""As INTERFACE, but cut what does not fit."""

CSUM_NONE_AT = -1


@dataclass(slots=True)
class IpCookie:
    """How one datagram is to be sent (struct ipcm_cookie)."""

    saddr: int = 0
    """0: the route's."""
    tos: int = 0
    ttl: int = 0
    """0: ip_default_ttl."""
    pmtudisc: int = IP_PMTUDISC_WANT
    broadcast: bool = False
    """SO_BROADCAST."""


def datagram_route(ip: Ipv4, daddr: int, cookie: IpCookie) -> Route:
    """Find the way for a datagram.

    Raises:
        OSError: ENETUNREACH; EACCES, a broadcast without SO_BROADCAST; EINVAL, a source
            address that is not ours.
    """
    if cookie.saddr and not ip.is_local_address(cookie.saddr):
        raise socket_error(errno.EINVAL)
    rt = ip_route_output(ip, daddr, cookie.saddr)
    to_many = daddr == INADDR_BROADCAST or (rt is not None and rt.rt_type == RTN_BROADCAST)
    if to_many and not cookie.broadcast:
        raise socket_error(errno.EACCES)
    if rt is None:
        raise socket_error(errno.ENETUNREACH)
    return rt


def datagram_mtu(rt: Route, pmtudisc: int) -> int:
    """Return the MTU that a socket goes by (ip_dst_mtu_maybe_forward)."""
    if pmtudisc in (IP_PMTUDISC_PROBE, IP_PMTUDISC_INTERFACE):
        return min(rt.dev.mtu, IP_MAX_LEN)
    return rt.mtu


def check_datagram_size(rt: Route, length: int, pmtudisc: int) -> bool:
    """Return whether ``length`` bytes of payload go in one packet.

    Raises:
        OSError: EMSGSIZE: more than a packet may have, or than the MTU where cutting is
            forbidden (__ip_append_data).
    """
    mtu = datagram_mtu(rt, pmtudisc)
    may_cut = pmtudisc in (IP_PMTUDISC_DONT, IP_PMTUDISC_WANT, IP_PMTUDISC_OMIT)
    if IP_HLEN + length > (IP_MAX_LEN if may_cut else mtu):
        raise socket_error(errno.EMSGSIZE)
    return IP_HLEN + length <= mtu


def ip_send_datagram(
    ip: Ipv4,
    rt: Route,
    daddr: int,
    protocol: int,
    payload: bytes,
    cookie: IpCookie,
    csum_at: int = CSUM_NONE_AT,
) -> int:
    """Send ``payload``, a transport header and what follows it.

    Args:
        csum_at: where the device is to put the transport checksum, whose place holds the
            pseudo-header's sum; CSUM_NONE_AT: nowhere.

    Returns:
        0, or ENOBUFS: it was dropped on its way out, by a full queue for instance.

    Raises:
        OSError: EMSGSIZE, see ``check_datagram_size``.
    """
    fits = check_datagram_size(rt, len(payload), cookie.pmtudisc)
    skb = Skb(payload)
    if csum_at != CSUM_NONE_AT:
        skb.ip_summed = CHECKSUM_PARTIAL
        skb.csum_offset = csum_at
    wants_df = cookie.pmtudisc in (IP_PMTUDISC_WANT, IP_PMTUDISC_DO, IP_PMTUDISC_PROBE)
    reason = ip_queue_xmit(
        ip, skb, rt, cookie.saddr or rt.saddr, daddr, protocol,
        tos=cookie.tos, ttl=cookie.ttl, df=wants_df and fits,
    )  # fmt: skip
    dropped = (DropReason.QDISC_DROP, DropReason.NOMEM)
    return errno.ENOBUFS if reason in dropped else 0
