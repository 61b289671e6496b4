"""The routing tables: local (255) before main (254), longest prefix first (net/ipv4/fib_*.c).

Addresses put their own entries in (``ipv4/devinet.py``); the rest comes from the user. A
table is one dict for each prefix length in use, tried from the longest: Linux's trie answers
the same questions for many routes, a host has a handful.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ustack.lib.addresses import prefix_mask

if TYPE_CHECKING:
    from ustack.core.netdevice import NetDevice

RT_TABLE_MAIN = 254
RT_TABLE_LOCAL = 255

RTN_UNICAST = 1
RTN_LOCAL = 2
RTN_BROADCAST = 3
RTN_MULTICAST = 5
RTN_UNREACHABLE = 7

RT_SCOPE_UNIVERSE = 0
RT_SCOPE_LINK = 253
RT_SCOPE_HOST = 254

RTPROT_KERNEL = 2
RTPROT_BOOT = 3
RTPROT_STATIC = 4

RTN_NAMES = {
    RTN_UNICAST: "unicast",
    RTN_LOCAL: "local",
    RTN_BROADCAST: "broadcast",
    RTN_MULTICAST: "multicast",
    RTN_UNREACHABLE: "unreachable",
}
SCOPE_NAMES = {RT_SCOPE_UNIVERSE: "global", RT_SCOPE_LINK: "link", RT_SCOPE_HOST: "host"}
PROTOCOL_NAMES = {RTPROT_KERNEL: "kernel", RTPROT_BOOT: "boot", RTPROT_STATIC: "static"}


@dataclass(frozen=True, slots=True)
class FibEntry:
    """One route, as ``ip route`` prints it; the names above translate its numbers."""

    network: int
    prefix_len: int
    rt_type: int
    dev: NetDevice | None
    """None for an unreachable route."""
    gateway: int = 0
    """0: the destination is on the link."""
    prefsrc: int = 0
    """The source address that packets take if the socket has none; 0: choose."""
    scope: int = RT_SCOPE_UNIVERSE
    protocol: int = RTPROT_BOOT
    metric: int = 0
    table: int = RT_TABLE_MAIN


class FibTable:
    """One table."""

    __slots__ = ("_prefixes",)

    def __init__(self) -> None:
        self._prefixes: list[tuple[int, int, dict[int, list[FibEntry]]]] = []
        """(prefix length, mask, network -> entries by metric), longest prefix first."""

    def insert(self, entry: FibEntry) -> None:
        """Add a route.

        Raises:
            KeyError: there is one with this prefix, device, gateway, type and metric.
        """
        if self.has_alike(entry):
            raise KeyError(entry)
        same = self._networks(entry.prefix_len).setdefault(entry.network, [])
        same.append(entry)
        same.sort(key=lambda e: e.metric)

    def has_alike(self, entry: FibEntry) -> bool:
        """Whether a route differs from ``entry`` in nothing that a lookup could tell."""
        same = self._networks(entry.prefix_len).get(entry.network, [])
        return any(_key(old) == _key(entry) for old in same)

    def remove(self, entry: FibEntry) -> None:
        """Take a route out.

        Raises:
            KeyError: it is not there.
        """
        networks = self._networks(entry.prefix_len)
        same = networks.get(entry.network, [])
        if entry not in same:
            raise KeyError(entry)
        same.remove(entry)
        if not same:
            del networks[entry.network]
        self._prefixes = [row for row in self._prefixes if row[2]]

    def lookup(self, addr: int) -> FibEntry | None:
        """Return the longest match for ``addr``, the lowest metric among equals."""
        for _, mask, networks in self._prefixes:
            found = networks.get(addr & mask)
            if found is not None:
                return found[0]
        return None

    def entries(self) -> list[FibEntry]:
        """Return all routes by network, then shortest prefix, then metric."""
        found = [e for _, _, networks in self._prefixes for same in networks.values() for e in same]
        return sorted(found, key=lambda e: (e.network, e.prefix_len, e.metric))

    def _networks(self, prefix_len: int) -> dict[int, list[FibEntry]]:
        for length, _, networks in self._prefixes:
            if length == prefix_len:
                return networks
        networks = {}
        self._prefixes.append((prefix_len, prefix_mask(prefix_len), networks))
        self._prefixes.sort(key=lambda row: -row[0])
        return networks


class Fib:
    """The tables of one namespace."""

    __slots__ = ("genid", "local", "main")

    def __init__(self) -> None:
        self.local = FibTable()
        self.main = FibTable()
        self.genid = 0
        """Counts changes: a route looked up at another number must be looked up again."""

    def table(self, number: int) -> FibTable:
        """Return a table by RT_TABLE_*."""
        return self.local if number == RT_TABLE_LOCAL else self.main

    def insert(self, entry: FibEntry) -> None:
        """Add a route to ``entry.table``; see ``FibTable.insert``."""
        self.table(entry.table).insert(entry)
        self.genid += 1

    def remove(self, entry: FibEntry) -> None:
        """Take a route out of ``entry.table``; see ``FibTable.remove``."""
        self.table(entry.table).remove(entry)
        self.genid += 1

    def lookup(self, addr: int) -> FibEntry | None:
        """Return the route for ``addr``: local first, then main (fib_lookup)."""
        return self.local.lookup(addr) or self.main.lookup(addr)

    def entries(self) -> list[FibEntry]:
        """Return the routes of both tables."""
        return self.local.entries() + self.main.entries()


def _key(entry: FibEntry) -> tuple[object, ...]:
    return (entry.rt_type, entry.dev, entry.gateway, entry.metric)
