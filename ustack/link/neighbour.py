"""One neighbour: its link-layer address, its state, and packets that wait for it.

``ipv4/output.py`` sends through a ``Neigh``: while it is REACHABLE its ready-made Ethernet
header (``hh``, Linux's hh_cache) goes in front without further ado; otherwise
``link/neigh_table.py`` decides. States and transitions: ``link/nud.py``; reference:
include/net/neighbour.h.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from ustack.core.netdevice import NetDevice
from ustack.core.skb import Skb
from ustack.core.timer import Timer
from ustack.lib.addresses import ETH_ZERO
from ustack.lib.errors import StateError
from ustack.link.nud import (
    NUD_CONNECTED,
    NUD_NAMES,
    NUD_NONE,
    NUD_SENDS_AT_ONCE,
    TRANSITIONS,
    NudEvent,
)
from ustack.native.lib import ffi
from ustack.wire.ethernet import ETH_HLEN, ETH_P_IP, build_ethernet


@dataclass(slots=True)
class NeighStats:
    """/proc/net/stat/arp_cache, as far as something counts it."""

    allocs: int = 0
    destroys: int = 0
    lookups: int = 0
    hits: int = 0
    res_failed: int = 0
    rcv_probes_mcast: int = 0
    rcv_probes_ucast: int = 0
    periodic_gc_runs: int = 0
    forced_gc_runs: int = 0
    unres_discards: int = 0
    table_fulls: int = 0


@dataclass(frozen=True, slots=True)
class NeighRecord:
    """One line of ``ip neigh``."""

    addr: int
    dev: str
    lladdr: bytes | None
    """None while it is not known."""
    state: str
    used_us: int
    confirmed_us: int
    updated_us: int
    """Ages in microseconds, as ``ip -s neigh`` prints them in seconds."""
    probes: int
    queue_pkts: int


class Neigh:
    """One neighbour on one device (struct neighbour)."""

    __slots__ = (
        "addr",
        "arp_queue",
        "arp_queue_len_bytes",
        "dead",
        "dev",
        "ha",
        "header",
        "hh",
        "hh_cache",
        "nud_state",
        "probes",
        "timer",
        "updated_us",
        "used_us",
    )

    def __init__(self, dev: NetDevice, addr: int, now_us: int, timer: Timer) -> None:
        self.dev = dev
        self.addr = addr
        self.ha = ETH_ZERO
        self.header = b""
        """The Ethernet header of IPv4 packets to it, once ``ha`` is known."""
        self.hh: bytes | None = None
        """``header`` while the state is one of NUD_CONNECTED, else None."""
        self.hh_cache: Any = ffi.new("struct us_hh *")
        """``header`` for C, usable while packets are sent at once (NUD_SENDS_AT_ONCE)."""
        self.nud_state = NUD_NONE
        self.dead = False
        """Out of the table: whoever cached it must look up again."""
        self.probes = 0
        self.arp_queue: deque[Skb] = deque()
        self.arp_queue_len_bytes = 0
        self.updated_us = now_us
        self.used_us = now_us
        self.confirmed_us = now_us
        self.timer = timer
        timer.arg = self

    @property
    def confirmed_us(self) -> int:
        """When it was last seen to be there; C notes that, too."""
        return int(self.hh_cache.confirmed_us)

    @confirmed_us.setter
    def confirmed_us(self, now_us: int) -> None:
        self.hh_cache.confirmed_us = max(now_us, 0)

    def set_state(self, event: NudEvent) -> None:
        """Move as the transition table says.

        Raises:
            StateError: the table has no such transition; a bug.
        """
        state = TRANSITIONS.get((self.nud_state, event))
        if state is None:
            raise StateError(f"{NUD_NAMES[self.nud_state]}: {event.name}")
        self.nud_state = state
        self._update_hh()

    def set_lladdr(self, ha: bytes) -> None:
        """Learn the link-layer address and build the header."""
        self.ha = ha
        self.header = build_ethernet(ha, self.dev.dev_addr, ETH_P_IP)
        self._update_hh()

    def _update_hh(self) -> None:
        state = 0 if self.dead else self.nud_state
        self.hh = self.header if state & NUD_CONNECTED else None
        cache = self.hh_cache
        cache.usable = bool(state & NUD_SENDS_AT_ONCE and self.header)
        if cache.usable:
            cache.header[0:ETH_HLEN] = self.header

    def kill(self) -> None:
        """It is out of the table: nothing goes to it any more."""
        self.dead = True
        self._update_hh()
