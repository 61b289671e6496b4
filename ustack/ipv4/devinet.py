"""Addresses of devices, and the routes that come with them (net/ipv4/devinet.c).

``ip addr add`` enters a local route for the address (to lo), broadcast routes and the route
of the connected network, as fib_add_ifaddr does; what ``ip route add`` does is here too.
``Stack`` and the daemon call it, by ``Ipv4``.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ustack.core.netdevice import IFF_LOOPBACK, NetDevice
from ustack.ipv4.fib import (
    RT_SCOPE_HOST,
    RT_SCOPE_LINK,
    RT_SCOPE_UNIVERSE,
    RT_TABLE_LOCAL,
    RT_TABLE_MAIN,
    RTN_BROADCAST,
    RTN_LOCAL,
    RTN_UNICAST,
    RTPROT_BOOT,
    RTPROT_KERNEL,
    FibEntry,
)
from ustack.lib.addresses import Ipv4Interface, prefix_mask

if TYPE_CHECKING:
    from ustack.ipv4.protocol import Ipv4


@dataclass(frozen=True, slots=True)
class AddressRecord:
    """One ``inet`` line of ``ip addr``."""

    dev: str
    interface: Ipv4Interface
    broadcast: int
    """0 if the prefix has none (/31, /32, loopback)."""
    scope: int
    secondary: bool
    """Whether an earlier address of the device lies in the same network."""


def add_address(ip: Ipv4, dev: NetDevice, interface: Ipv4Interface) -> None:
    """Give ``dev`` an address (``ip addr add``).

    Raises:
        OSError: EEXIST, the device has it; EADDRNOTAVAIL, no host can have it.
    """
    if interface.addr == 0 or interface.addr >> 28 >= 14:
        raise OSError(errno.EADDRNOTAVAIL, "not an address that a host can have")
    owned = ip.interfaces.setdefault(dev, [])
    if any(old.addr == interface.addr for old in owned):
        raise FileExistsError(errno.EEXIST, "the device has this address")
    owned.append(interface)
    _refresh_local(ip)
    _insert(ip, _local_entry(dev, interface))
    if dev.is_up:
        for entry in _link_entries(dev, interface):
            _insert(ip, entry)


def del_address(ip: Ipv4, dev: NetDevice, interface: Ipv4Interface) -> None:
    """Take an address from ``dev`` (``ip addr del``), with the routes that need it.

    With the first address of a network its secondary ones go too, unless
    ``promote_secondaries`` lets the next one take its place (__inet_del_ifa).

    Raises:
        OSError: EADDRNOTAVAIL, the device does not have it.
    """
    owned = ip.interfaces.get(dev, [])
    if interface not in owned:
        raise OSError(errno.EADDRNOTAVAIL, "the device does not have this address")
    network = [i for i in owned if _network(i) == _network(interface)]
    if network[0] == interface and not ip.config.promote_secondaries:
        for secondary in network[1:]:
            _del_one(ip, dev, secondary)
    _del_one(ip, dev, interface)


def _network(interface: Ipv4Interface) -> tuple[int, int]:
    return interface.network, interface.prefix_len


def _del_one(ip: Ipv4, dev: NetDevice, interface: Ipv4Interface) -> None:
    owned = ip.interfaces[dev]
    owned.remove(interface)
    _refresh_local(ip)
    gone = [_local_entry(dev, interface), *_link_entries(dev, interface)]
    kept = {e for other in owned for e in _link_entries(dev, other)}
    for entry in ip.fib.entries():
        of_address = entry.prefsrc == interface.addr and entry.dev is dev
        if (entry in gone or of_address) and entry not in kept:
            ip.fib.remove(entry)
    if dev.is_up:
        for entry in kept:  # a network that another address shares keeps its route
            _insert(ip, entry)


def address_records(ip: Ipv4, dev: NetDevice | None = None) -> list[AddressRecord]:
    """Return the addresses of ``dev``, or of all devices, in the order they were added."""
    records = []
    for owner, owned in ip.interfaces.items():
        if dev is not None and owner is not dev:
            continue
        seen: set[tuple[int, int]] = set()
        for interface in owned:
            network = _network(interface)
            loopback = bool(owner.flags & IFF_LOOPBACK)
            records.append(
                AddressRecord(
                    dev=owner.name,
                    interface=interface,
                    broadcast=0 if loopback else _broadcast(interface),
                    scope=RT_SCOPE_HOST if loopback else RT_SCOPE_UNIVERSE,
                    secondary=network in seen,
                )
            )
            seen.add(network)
    return records


def add_route(
    ip: Ipv4,
    network: int,
    prefix_len: int,
    *,
    gateway: int = 0,
    dev: NetDevice | None = None,
    prefsrc: int = 0,
    metric: int = 0,
    rt_type: int = RTN_UNICAST,
    protocol: int = RTPROT_BOOT,
) -> FibEntry:
    """Add a route to the main table (``ip route add``); 0/0 is the default route.

    Args:
        ip: The stack's IPv4.
        network: The destination's address, without bits below the prefix.
        prefix_len: 0 to 32.
        gateway: The next hop; 0 if the network is on the link of ``dev``.
        dev: May be left out with a gateway: the link that it is on.
        prefsrc: The source address for packets that have none.
        metric: The lowest is used.
        rt_type: RTN_UNICAST or RTN_UNREACHABLE.
        protocol: RTPROT_*, who added it.

    Raises:
        OSError: EINVAL, ``network`` has bits below the prefix, or neither device nor
            gateway is given, or ``prefsrc`` is not ours; ENETUNREACH, the gateway is not
            on a link of ours; ENETDOWN, the device is down; EEXIST, there is such a route.
    """
    if network & ~prefix_mask(prefix_len) & 0xFFFFFFFF:
        raise OSError(errno.EINVAL, "the network has bits below its prefix")
    if prefsrc and not ip.is_local_address(prefsrc):
        raise OSError(errno.EINVAL, "the source address is not ours")
    if rt_type == RTN_UNICAST:
        dev = _next_hop_dev(ip, gateway, dev)
    else:
        dev = None
    scope = RT_SCOPE_LINK if rt_type == RTN_UNICAST and not gateway else RT_SCOPE_UNIVERSE
    entry = FibEntry(network, prefix_len, rt_type, dev, gateway, prefsrc, scope, protocol, metric)
    for old in ip.fib.main.entries():
        if (old.network, old.prefix_len, old.metric) == (network, prefix_len, metric):
            raise FileExistsError(errno.EEXIST, "there is such a route")
    ip.fib.insert(entry)
    return entry


def del_route(ip: Ipv4, network: int, prefix_len: int, *, gateway: int = 0) -> None:
    """Take a route out of the main table (``ip route del``).

    Raises:
        OSError: ESRCH, there is none like it.
    """
    for entry in ip.fib.main.entries():
        same = (entry.network, entry.prefix_len) == (network, prefix_len)
        if same and gateway in (0, entry.gateway):
            ip.fib.remove(entry)
            return
    raise ProcessLookupError(errno.ESRCH, "no such route")


def select_addr(ip: Ipv4, dev: NetDevice, dest: int) -> int:
    """Return our address on ``dev`` for talking to ``dest`` (inet_select_addr).

    An address in the network of ``dest`` is best, then the device's first, then the first
    of any device but lo; 0 if we have none.
    """
    owned = ip.interfaces.get(dev, [])
    for interface in owned:
        if dest & interface.mask == interface.network:
            return interface.addr
    if owned:
        return owned[0].addr
    for other, interfaces in ip.interfaces.items():
        if interfaces and not other.flags & IFF_LOOPBACK:
            return interfaces[0].addr
    return 0


def netdev_event(ip: Ipv4, dev: NetDevice, up: bool) -> None:
    """Follow a device up or down (inetdev_event, fib_disable_ip).

    Down, its routes go, but those of the local table that say "this is us" stay: an address
    belongs to the host, not to the link (RFC 1122 §3.3.4.2, weak end system).
    """
    if up:
        for interface in ip.interfaces.get(dev, []):
            for entry in _link_entries(dev, interface):
                _insert(ip, entry)
        return
    for entry in ip.fib.entries():
        if entry.dev is dev and entry.rt_type != RTN_LOCAL:
            ip.fib.remove(entry)
    ip.fib.genid += 1


def _next_hop_dev(ip: Ipv4, gateway: int, dev: NetDevice | None) -> NetDevice:
    """Find and check the device of a unicast route (fib_check_nh)."""
    if gateway:
        via = ip.fib.lookup(gateway)
        if via is None or via.rt_type != RTN_UNICAST or via.gateway or via.dev is None:
            raise OSError(errno.ENETUNREACH, "the gateway is not on a link of ours")
        if dev is not None and dev is not via.dev:
            raise OSError(errno.ENETUNREACH, "the gateway is not on the link of this device")
        dev = via.dev
    if dev is None:
        raise OSError(errno.EINVAL, "a route needs a device or a gateway")
    if not dev.is_up:
        raise OSError(errno.ENETDOWN, "the device is down")
    return dev


def _refresh_local(ip: Ipv4) -> None:
    ip.local_addresses = frozenset(i.addr for owned in ip.interfaces.values() for i in owned)


def _insert(ip: Ipv4, entry: FibEntry) -> None:
    """Insert a route that the kernel makes, unless another address has made it."""
    if not ip.fib.table(entry.table).has_alike(entry):
        ip.fib.insert(entry)


def _broadcast(interface: Ipv4Interface) -> int:
    return interface.broadcast if interface.prefix_len < 31 else 0


def _local_entry(dev: NetDevice, interface: Ipv4Interface) -> FibEntry:
    return FibEntry(
        interface.addr,
        32,
        RTN_LOCAL,
        dev,
        prefsrc=interface.addr,
        scope=RT_SCOPE_HOST,
        protocol=RTPROT_KERNEL,
        table=RT_TABLE_LOCAL,
    )


def _link_entries(dev: NetDevice, interface: Ipv4Interface) -> list[FibEntry]:
    """The routes that exist while ``dev`` is up: its network, and broadcasts in it."""
    if interface.prefix_len == 32:
        return []
    loopback = bool(dev.flags & IFF_LOOPBACK)
    network = FibEntry(
        interface.network,
        interface.prefix_len,
        RTN_LOCAL if loopback else RTN_UNICAST,
        dev,
        prefsrc=interface.addr,
        scope=RT_SCOPE_HOST if loopback else RT_SCOPE_LINK,
        protocol=RTPROT_KERNEL,
        table=RT_TABLE_LOCAL if loopback else RT_TABLE_MAIN,
    )
    if interface.prefix_len == 31:  # RFC 3021: two hosts, no broadcast
        return [network]
    broadcast = FibEntry(
        interface.broadcast,
        32,
        RTN_BROADCAST,
        dev,
        prefsrc=interface.addr,
        scope=RT_SCOPE_LINK,
        protocol=RTPROT_KERNEL,
        table=RT_TABLE_LOCAL,
    )
    return [network, broadcast]
