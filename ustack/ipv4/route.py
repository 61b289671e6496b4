"""Where a packet goes, and whether one may come in (net/ipv4/route.c).

A ``Route`` (struct rtable) is what sockets cache: device, gateway, source address, MTU and
neighbour of one destination. It holds as long as its generation is the routing table's
(``route_is_valid``, dst_check). Routes are shared between sockets with the same addresses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ustack.core.netdevice import IFF_LOOPBACK, NetDevice
from ustack.ipv4.fib import (
    RTN_BROADCAST,
    RTN_LOCAL,
    RTN_MULTICAST,
    RTN_UNREACHABLE,
)
from ustack.lib.addresses import (
    INADDR_BROADCAST,
    INADDR_LOOPBACK,
    is_loopback,
    is_multicast,
    is_zeronet,
)
from ustack.lib.drop_reason import DropReason
from ustack.link.neighbour import Neigh
from ustack.native.lib import ffi

if TYPE_CHECKING:
    from ustack.ipv4.protocol import Ipv4

ROUTE_CACHE_MAX = 4096
"""Cached decisions of each direction; a full cache is emptied."""
INADDR_ALLHOSTS = 0xE0000001
"""224.0.0.1, the one group that every host is in (RFC 1112 §7.2)."""


class Route:
    """The way to one destination (struct rtable)."""

    __slots__ = (
        "daddr",
        "dev",
        "fast",
        "gateway",
        "genid",
        "ident",
        "mtu",
        "mtu_locked",
        "neigh",
        "rt_type",
        "saddr",
    )

    def __init__(self, dev: NetDevice, daddr: int, saddr: int, rt_type: int, gateway: int) -> None:
        self.dev = dev
        self.daddr = daddr
        self.gateway = gateway
        """0: ``daddr`` is on the link."""
        self.saddr = saddr
        """The source that packets take which have none yet."""
        self.rt_type = rt_type
        self.mtu = min(dev.mtu, 0xFFFF)
        """Bytes of the largest IP packet: the device's, or less by path MTU discovery."""
        self.mtu_locked = False
        """The path is narrower than we believe: leave fragmenting to it, without DF."""
        self.neigh: Neigh | None = None
        self.genid = 0
        self.ident = 0
        """The identification of the next packet."""
        self.fast: Any = None
        """TCP's own view of it (``struct us_tcp_dst *``), once a connection has asked."""

    def invalidate(self) -> None:
        """Whoever has cached it must look up again."""
        self.genid = -1
        if self.fast:
            self.fast.dst.hh = ffi.NULL


def route_is_valid(ip: Ipv4, rt: Route) -> bool:
    """Whether ``rt`` still says what the tables say (dst_check)."""
    return rt.genid == ip.fib.genid


def ip_route_output(ip: Ipv4, daddr: int, saddr: int = 0) -> Route | None:
    """Find the way to ``daddr`` (ip_route_output_key).

    Args:
        ip: The stack's IPv4.
        daddr: Host order; 0 means this host.
        saddr: The source address that is already chosen, 0 if none is.

    Returns:
        None if there is no way (ENETUNREACH, counted in OutNoRoutes), or if ``saddr`` is
        not ours.
    """
    rt = ip.routes_out.get((daddr, saddr))
    if rt is not None and rt.genid == ip.fib.genid:
        return rt
    rt = _route_output_slow(ip, daddr, saddr)
    if rt is None:
        ip.mib.OutNoRoutes += 1
        return None
    if len(ip.routes_out) >= ROUTE_CACHE_MAX:
        ip.routes_out.clear()
    ip.routes_out[daddr, saddr] = rt
    return rt


def ip_route_lookup(ip: Ipv4, daddr: int, saddr: int = 0) -> Route | None:
    """Find a way without taking or leaving anything in the cache or the counters."""
    return _route_output_slow(ip, daddr, saddr)


def _route_output_slow(ip: Ipv4, daddr: int, saddr: int) -> Route | None:
    if saddr and not ip.is_local_address(saddr):
        return None
    if daddr == 0:
        daddr = saddr or INADDR_LOOPBACK
    entry = ip.fib.lookup(daddr)
    if entry is None or entry.dev is None:
        return None
    rt_type, dev, gateway = entry.rt_type, entry.dev, entry.gateway
    if is_multicast(daddr):
        rt_type, gateway = RTN_MULTICAST, 0
    elif daddr == INADDR_BROADCAST:
        rt_type, gateway = RTN_BROADCAST, 0
    elif is_zeronet(daddr) or rt_type == RTN_UNREACHABLE:
        return None
    if rt_type == RTN_LOCAL:
        saddr = saddr or entry.prefsrc or daddr
        if ip.net.loopback_dev is None:
            return None
        dev = ip.net.loopback_dev
    elif is_loopback(saddr) and not dev.flags & IFF_LOOPBACK:
        return None  # RFC 1122 §3.2.1.3 (g): never outside of a host
    if not saddr:
        saddr = entry.prefsrc or ip.select_addr(dev, gateway or daddr)
    return _make_route(ip, dev, daddr, saddr, rt_type, gateway)


def _make_route(
    ip: Ipv4, dev: NetDevice, daddr: int, saddr: int, rt_type: int, gateway: int
) -> Route:
    rt = Route(dev, daddr, saddr, rt_type, gateway)
    rt.genid = ip.fib.genid
    rt.ident = ip.net.rng.getrandbits(16)
    learnt = ip.pmtu.lookup(daddr)
    if learnt is not None:
        rt.mtu = min(rt.mtu, learnt[0])
        rt.mtu_locked = learnt[1]
    return rt


def route_neigh(ip: Ipv4, rt: Route) -> Neigh | None:
    """Return the neighbour that packets on ``rt`` go to, and remember it there.

    That of a broadcast or a multicast is not remembered: ``ip_queue_xmit`` must not take its
    short cut, which does not count them.

    Returns:
        None if the neighbour table is full.
    """
    neigh = rt.neigh
    if neigh is not None and not neigh.dead:
        return neigh
    table = ip.arp.table
    dev = rt.dev
    if dev.flags & IFF_LOOPBACK:
        neigh = table.create_noarp(dev, 0, dev.dev_addr)
    elif rt.rt_type == RTN_BROADCAST:
        return table.create_noarp(dev, rt.daddr, b"\xff" * 6)
    elif rt.rt_type == RTN_MULTICAST:
        return table.create_noarp(dev, rt.daddr, _multicast_mac(rt.daddr))
    else:
        neigh = table.create(dev, rt.gateway or rt.daddr)
    rt.neigh = neigh
    return neigh


def neigh_confirm(rt: Route | None) -> None:
    """A protocol made progress along ``rt``: its neighbour is there (dst_confirm_neigh)."""
    if rt is not None and rt.neigh is not None:
        rt.neigh.confirmed_us = rt.dev.net.clock.now_us


def ip_rt_update_pmtu(ip: Ipv4, daddr: int, mtu: int) -> int:
    """Path MTU discovery has found a narrower link (RFC 1191; ip_rt_update_pmtu).

    The caller has checked that the ICMP message is about a packet of its own. Routes to
    ``daddr`` become invalid, so that sockets look up again and see the new ``mtu``. Below
    ``min_pmtu`` we do not go: such a path gets packets without DF and cuts them itself.

    Returns:
        The MTU that holds from now on.
    """
    known = ip_route_output(ip, daddr)
    least = ip.config.min_pmtu
    if known is None:
        return max(mtu, least)
    locked = mtu < least
    if locked:
        mtu = min(known.mtu, least)
    if known.mtu < mtu or (known.mtu == mtu and not locked and daddr not in ip.pmtu):
        return known.mtu
    ip.pmtu.learn(daddr, mtu, locked)
    if known.mtu != mtu or known.mtu_locked != locked:
        forget_routes(ip, daddr)
    return mtu


def forget_routes(ip: Ipv4, daddr: int) -> None:
    """Make every cached route to ``daddr`` invalid."""
    for key in [key for key in ip.routes_out if key[0] == daddr]:
        ip.routes_out.pop(key).invalidate()


class InputRoute:
    """What becomes of a received packet: for us as ``rt_type``, or dropped for ``reason``."""

    __slots__ = ("reason", "rt_type")

    def __init__(self, rt_type: int, reason: DropReason | None = None) -> None:
        self.rt_type = rt_type
        self.reason = reason


INPUT_LOCAL = InputRoute(RTN_LOCAL)
INPUT_BROADCAST = InputRoute(RTN_BROADCAST)
INPUT_MULTICAST = InputRoute(RTN_MULTICAST)
INPUT_MARTIAN = InputRoute(RTN_UNREACHABLE, DropReason.IP_INVALID_SOURCE)
"""No honest host has this source address."""
INPUT_NOT_OURS = InputRoute(RTN_UNREACHABLE, DropReason.IP_INADDRERRORS)
"""Somebody else's packet; forwarding is off (net.ipv4.ip_forward 0)."""


def ip_route_input(ip: Ipv4, dev: NetDevice, saddr: int, daddr: int) -> InputRoute:
    """Decide about a packet received on ``dev`` (ip_route_input_noref).

    Returns:
        One of the INPUT_ constants.
    """
    if ip.routes_in_genid != ip.fib.genid or len(ip.routes_in) >= ROUTE_CACHE_MAX:
        ip.routes_in.clear()
        ip.routes_in_genid = ip.fib.genid
    key = (dev, saddr, daddr)
    verdict = ip.routes_in.get(key)
    if verdict is None:
        verdict = ip.routes_in[key] = _route_input_slow(ip, dev, saddr, daddr)
    return verdict


def _route_input_slow(ip: Ipv4, dev: NetDevice, saddr: int, daddr: int) -> InputRoute:
    on_loopback = bool(dev.flags & IFF_LOOPBACK)
    if _source_is_martian(ip, saddr, daddr, on_loopback):
        return INPUT_MARTIAN
    if is_multicast(daddr):
        return INPUT_MULTICAST if daddr == INADDR_ALLHOSTS else INPUT_NOT_OURS
    if daddr == INADDR_BROADCAST:
        return INPUT_BROADCAST
    if is_zeronet(daddr) or (is_loopback(daddr) and not on_loopback):
        return INPUT_NOT_OURS
    entry = ip.fib.local.lookup(daddr)
    if entry is not None and entry.rt_type == RTN_LOCAL:
        return INPUT_LOCAL
    if entry is not None and entry.rt_type == RTN_BROADCAST:
        return INPUT_BROADCAST
    return INPUT_NOT_OURS


def _source_is_martian(ip: Ipv4, saddr: int, daddr: int, on_loopback: bool) -> bool:
    """Whether no honest host sends from ``saddr`` (RFC 1122 §3.2.1.3, RFC 1812 §5.3.7)."""
    if is_multicast(saddr) or saddr == INADDR_BROADCAST:
        return True
    if is_zeronet(saddr):  # a host that does not know its address may broadcast (DHCP)
        return saddr != 0 or daddr != INADDR_BROADCAST
    if on_loopback:
        return False
    if is_loopback(saddr):
        return True
    entry = ip.fib.local.lookup(saddr)  # our own, or a directed broadcast
    return entry is not None


def _multicast_mac(addr: int) -> bytes:
    """RFC 1112 §6.4: the low 23 bits of the group address."""
    return b"\x01\x00\x5e" + (addr & 0x7FFFFF).to_bytes(3, "big")
