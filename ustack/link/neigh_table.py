"""The neighbour table: who is asked, believed, probed, given up and forgotten.

``ipv4/output.py`` calls ``neigh_resolve_output`` for a neighbour that is not REACHABLE; what
is learnt comes from ``link/arp.py``, which also sends the probes. A neighbour that does not
answer is reported to the senders of what waited for it. Reference: net/core/neighbour.c.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from ustack.core.netdevice import NetDevice
from ustack.core.skb import Skb, kfree_skb
from ustack.core.timer import Timer
from ustack.core.transmit import dev_queue_xmit
from ustack.lib.drop_reason import DropReason
from ustack.link.neighbour import Neigh, NeighRecord, NeighStats
from ustack.link.nud import (
    NUD_CONNECTED,
    NUD_DELAY,
    NUD_FAILED,
    NUD_IN_TIMER,
    NUD_INCOMPLETE,
    NUD_NAMES,
    NUD_NOARP,
    NUD_NONE,
    NUD_PERMANENT,
    NUD_PROBE,
    NUD_REACHABLE,
    NUD_STALE,
    NUD_VALID,
    TRANSITIONS,
    NudEvent,
)

if TYPE_CHECKING:
    from ustack.config import NeighConfig
    from ustack.core.net import Net

SKB_TRUESIZE_OVERHEAD = 576
"""Bytes that Linux charges for a packet beside its data: struct sk_buff and its shared info."""
LOCKTIME_US = 1_000_000
"""How long a fresh address is not replaced by another reply (neigh locktime)."""
FORCED_GC_AGE_US = 5_000_000
"""A full table sacrifices entries that have not changed for this long (neigh_forced_gc)."""
FORCED_GC_INTERVAL_US = 100_000
"""Least time between two such searches: a flood must not buy one with each packet."""
FLUSH_INTERVAL_US = 5_000_000
"""Least time between two searches in a table that is not full yet (gc_thresh2)."""
RANDOM_INTERVAL_US = 300_000_000
"""How long one random reachable time is used (RFC 4861 §6.3.4: some hours; Linux 300 s)."""


class NeighTable:
    """All neighbours of a stack (arp_tbl).

    Args:
        solicit: Sends one probe for an entry: ``solicit(neigh, skb)``, with the packet that
            waits first, if any.
        error_report: Tells the sender of a packet that its neighbour does not answer.
    """

    def __init__(
        self,
        net: Net,
        config: NeighConfig,
        solicit: Callable[[Neigh, Skb | None], None],
        error_report: Callable[[Skb], None],
    ) -> None:
        self.net = net
        self.config = config
        self.stats = NeighStats()
        self._solicit = solicit
        self._error_report = error_report
        self._entries: dict[tuple[NetDevice, int], Neigh] = {}
        self._gc_timer = Timer(self._periodic_gc)
        self._permanent = 0
        self._last_flush_us = net.clock.now_us - FORCED_GC_INTERVAL_US
        self._last_rand_us = 0
        self.reachable_time_us = 0
        self._draw_reachable_time()

    def __len__(self) -> int:
        return len(self._entries)

    def lookup(self, dev: NetDevice, addr: int) -> Neigh | None:
        """Return the entry for ``addr`` on ``dev`` (neigh_lookup)."""
        self.stats.lookups += 1
        neigh = self._entries.get((dev, addr))
        if neigh is not None:
            self.stats.hits += 1
        return neigh

    def create(self, dev: NetDevice, addr: int) -> Neigh | None:
        """Return the entry for ``addr`` on ``dev``, a new one if need be (neigh_create).

        Returns:
            None if the table is full of entries that cannot go (table_fulls).
        """
        neigh = self.lookup(dev, addr)
        if neigh is not None:
            return neigh
        if not self._has_room():
            self.stats.table_fulls += 1
            return None
        return self._alloc(dev, addr)

    def _has_room(self) -> bool:
        """Make room if there is little (neigh_alloc); permanent entries take none."""
        entries = len(self._entries) - self._permanent
        if entries < self.config.gc_thresh2 and entries < self.config.gc_thresh3:
            return True
        if entries < self.config.gc_thresh3:
            if self.net.clock.now_us > self._last_flush_us + FLUSH_INTERVAL_US:
                self._forced_gc()
            return True
        return self._forced_gc()

    def _alloc(self, dev: NetDevice, addr: int) -> Neigh:
        now_us = self.net.clock.now_us
        neigh = Neigh(dev, addr, now_us, Timer(self._timer_handler))
        # Nobody has confirmed it: as old as it can be.
        neigh.confirmed_us = now_us - 2 * self.config.base_reachable_time_us
        self._entries[dev, addr] = neigh
        self.stats.allocs += 1
        if not self._gc_timer.pending and len(self._entries) >= self.config.gc_thresh1:
            self._arm_gc()
        return neigh

    def create_noarp(self, dev: NetDevice, addr: int, ha: bytes) -> Neigh | None:
        """Return an entry that needs no resolution: broadcast, multicast, loopback."""
        neigh = self.create(dev, addr)
        if neigh is not None and neigh.nud_state == NUD_NONE:
            neigh.set_state(NudEvent.SET_NOARP)
            neigh.set_lladdr(ha)
        return neigh

    def set_permanent(self, dev: NetDevice, addr: int, ha: bytes) -> Neigh:
        """Enter what the administrator knows, or replace what is there (NUD_PERMANENT)."""
        neigh = self.lookup(dev, addr) or self._alloc(dev, addr)
        had_no_address = not neigh.nud_state & NUD_VALID
        self.net.timers.del_timer(neigh.timer)
        if neigh.nud_state != NUD_PERMANENT:
            self._permanent += 1
        neigh.set_state(NudEvent.SET_PERMANENT)
        neigh.set_lladdr(ha)
        neigh.updated_us = self.net.clock.now_us
        if had_no_address:
            self._send_queue(neigh)
        return neigh

    def neigh_add(self, dev: NetDevice, addr: int, ha: bytes, *, replace: bool = False) -> Neigh:
        """Make a static entry (``ip neigh add ADDR lladdr HA nud permanent dev DEV``).

        Args:
            dev: An Ethernet device that is up.
            addr: The host's address, host order.
            ha: Its MAC address.
            replace: Take the place of an entry that is there (``ip neigh replace``).

        Raises:
            OSError: EINVAL, no host can have this address or this MAC; ENETDOWN, the device
                is down; EEXIST, there is an entry and ``replace`` is False.
        """
        host_part = addr >> 28 < 14 and addr >> 24 not in (0, 127)
        if not host_part or len(ha) != 6 or ha[0] & 1 or not any(ha):
            raise OSError(errno.EINVAL, "no host can have such an address")
        if not dev.is_up:
            raise OSError(errno.ENETDOWN, "the device is down")
        if not replace and (dev, addr) in self._entries:
            raise FileExistsError(errno.EEXIST, "there is such an entry")
        return self.set_permanent(dev, addr, ha)

    def neigh_delete(self, dev: NetDevice, addr: int) -> None:
        """Take an entry out (``ip neigh del``); what waits for it is dropped.

        Raises:
            OSError: ENOENT, there is none.
        """
        neigh = self._entries.get((dev, addr))
        if neigh is None:
            raise FileNotFoundError(errno.ENOENT, "there is no such entry")
        self.remove(neigh)

    def remove(self, neigh: Neigh) -> None:
        """Take an entry out; what waited for it is dropped as NEIGH_DEAD (neigh_destroy)."""
        if neigh.dead:
            return
        del self._entries[neigh.dev, neigh.addr]
        neigh.kill()
        if neigh.nud_state == NUD_PERMANENT:
            self._permanent -= 1
        self.net.timers.del_timer(neigh.timer)
        self.stats.destroys += 1
        self._drop_queue(neigh, DropReason.NEIGH_DEAD)
        if not self._entries:
            self.net.timers.del_timer(self._gc_timer)

    def flush_dev(self, dev: NetDevice) -> None:
        """Forget all neighbours on ``dev`` (neigh_ifdown)."""
        for neigh in [n for n in self._entries.values() if n.dev is dev]:
            self.remove(neigh)

    def records(self) -> list[NeighRecord]:
        """Return the table for ``ip neigh``, NOARP entries included."""
        now_us = self.net.clock.now_us
        return [
            NeighRecord(
                addr=n.addr,
                dev=n.dev.name,
                lladdr=n.ha if n.nud_state & NUD_VALID else None,
                state=NUD_NAMES[n.nud_state],
                used_us=now_us - n.used_us,
                confirmed_us=now_us - n.confirmed_us,
                updated_us=now_us - n.updated_us,
                probes=n.probes,
                queue_pkts=len(n.arp_queue),
            )
            for n in self._entries.values()
        ]

    # Sending.

    def neigh_resolve_output(self, neigh: Neigh, skb: Skb) -> DropReason | None:
        """Send ``skb``, an IP packet without Ethernet header, or let it wait.

        Returns:
            None if it went out or waits on arp_queue, otherwise why it was dropped.
        """
        if neigh.dead:
            kfree_skb(self.net, skb, DropReason.NEIGH_DEAD)
            return DropReason.NEIGH_DEAD
        if neigh.nud_state == NUD_FAILED and neigh.updated_us == self.net.clock.now_us:
            # It was given up at this very moment, and a retransmission timer of the same
            # moment must not begin anew before its socket has heard of it.
            self._error_report(skb)
            kfree_skb(self.net, skb, DropReason.NEIGH_FAILED)
            return DropReason.NEIGH_FAILED
        if not self._event_send(neigh, skb):
            return None
        skb.push(neigh.header)
        skb.dev = neigh.dev
        return dev_queue_xmit(self.net, skb)

    def _event_send(self, neigh: Neigh, skb: Skb) -> bool:
        """Whether ``skb`` may go now (neigh_event_send)."""
        now_us = self.net.clock.now_us
        neigh.used_us = now_us
        state = neigh.nud_state
        if state & (NUD_CONNECTED | NUD_DELAY | NUD_PROBE):
            return True
        if state == NUD_STALE:
            neigh.updated_us = now_us
            neigh.set_state(NudEvent.SEND)
            self._mod_timer(neigh, now_us + self.config.delay_first_probe_time_us)
            return True
        if state == NUD_INCOMPLETE:
            self._enqueue(neigh, skb)
            return False
        neigh.probes = self.config.ucast_solicit
        neigh.updated_us = now_us
        neigh.set_state(NudEvent.SEND)
        self._enqueue(neigh, skb)
        self._mod_timer(neigh, now_us + self.config.retrans_time_us)
        self._probe(neigh)
        return False

    def _enqueue(self, neigh: Neigh, skb: Skb) -> None:
        """Let ``skb`` wait; the oldest give way if there is too much."""
        skb.own()
        truesize = _truesize(skb)
        queue = neigh.arp_queue
        while queue and neigh.arp_queue_len_bytes + truesize > self.config.unres_qlen_bytes:
            oldest = queue.popleft()
            neigh.arp_queue_len_bytes -= _truesize(oldest)
            self.stats.unres_discards += 1
            kfree_skb(self.net, oldest, DropReason.NEIGH_QUEUEFULL)
        queue.append(skb)
        neigh.arp_queue_len_bytes += truesize

    def _send_queue(self, neigh: Neigh) -> None:
        while neigh.nud_state & NUD_VALID and neigh.arp_queue:
            skb = neigh.arp_queue.popleft()
            neigh.arp_queue_len_bytes -= _truesize(skb)
            self.neigh_resolve_output(neigh, skb)

    def _drop_queue(self, neigh: Neigh, reason: DropReason) -> None:
        queue, neigh.arp_queue = neigh.arp_queue, deque()
        neigh.arp_queue_len_bytes = 0
        for skb in queue:
            if reason is DropReason.NEIGH_FAILED:
                self._error_report(skb)
            kfree_skb(self.net, skb, reason)

    # Learning.

    def neigh_update(self, neigh: Neigh, ha: bytes, event: NudEvent, *, override: bool) -> None:
        """The neighbour has spoken (neigh_update).

        Args:
            neigh: The entry of whoever spoke.
            ha: The link-layer address that it names.
            event: REPLY or HEARD.
            override: Whether ``ha`` may replace a different address that is still valid.
        """
        now_us = self.net.clock.now_us
        if now_us > self._last_rand_us + RANDOM_INTERVAL_US:
            self._draw_reachable_time()
        old = neigh.nud_state
        if old & (NUD_NOARP | NUD_PERMANENT):
            return
        if event is NudEvent.REPLY:
            neigh.confirmed_us = now_us
        changes_address = not old & NUD_VALID or ha != neigh.ha
        if old & NUD_VALID:
            if changes_address and not override:
                return
            if not changes_address and event is NudEvent.HEARD:
                return
        if changes_address or TRANSITIONS[old, event] != old:
            neigh.updated_us = now_us
            self.net.timers.del_timer(neigh.timer)
        neigh.set_state(event)
        if neigh.nud_state == NUD_REACHABLE and not neigh.timer.pending:
            self._mod_timer(neigh, now_us + self.reachable_time_us)
        if changes_address:
            neigh.set_lladdr(ha)
            if event is NudEvent.HEARD:
                neigh.confirmed_us = now_us - 2 * self.config.base_reachable_time_us
        if not old & NUD_VALID:
            self._send_queue(neigh)

    # Time.

    def _mod_timer(self, neigh: Neigh, when_us: int) -> None:
        self.net.timers.mod_timer(neigh.timer, when_us)

    def _timer_handler(self, neigh: Neigh) -> None:
        """A time in the life of ``neigh`` is over (neigh_timer_handler)."""
        now_us = self.net.clock.now_us
        delay_us = self.config.delay_first_probe_time_us
        if neigh.nud_state == NUD_REACHABLE:
            self._reachable_timer(neigh, now_us, delay_us)
        elif neigh.nud_state == NUD_DELAY:
            self._delay_timer(neigh, now_us, delay_us)
        elif neigh.confirmed_us > neigh.updated_us:
            self._become_reachable(neigh, now_us)
        if neigh.nud_state & (NUD_INCOMPLETE | NUD_PROBE):
            self._probe_timer(neigh, now_us)

    def _reachable_timer(self, neigh: Neigh, now_us: int, delay_us: int) -> None:
        if now_us < neigh.confirmed_us + self.reachable_time_us:
            self._mod_timer(neigh, neigh.confirmed_us + self.reachable_time_us)
            return
        neigh.updated_us = now_us
        if now_us < neigh.used_us + delay_us:
            neigh.set_state(NudEvent.AGED_IN_USE)
            self._mod_timer(neigh, now_us + delay_us)
        else:
            neigh.set_state(NudEvent.AGED)

    def _delay_timer(self, neigh: Neigh, now_us: int, delay_us: int) -> None:
        if now_us <= neigh.confirmed_us + delay_us:
            self._become_reachable(neigh, now_us)
            return
        neigh.updated_us = now_us
        neigh.set_state(NudEvent.UNCONFIRMED)
        neigh.probes = 0

    def _become_reachable(self, neigh: Neigh, now_us: int) -> None:
        neigh.updated_us = now_us
        neigh.set_state(NudEvent.CONFIRMED)
        self._mod_timer(neigh, neigh.confirmed_us + self.reachable_time_us)

    def _probe_timer(self, neigh: Neigh, now_us: int) -> None:
        most = self.config.ucast_solicit
        if neigh.nud_state == NUD_INCOMPLETE:
            most += self.config.mcast_solicit
        if neigh.probes < most:
            self._mod_timer(neigh, now_us + self.config.retrans_time_us)
            self._probe(neigh)
            return
        neigh.updated_us = now_us
        neigh.set_state(NudEvent.GIVE_UP)
        self.stats.res_failed += 1
        self._drop_queue(neigh, DropReason.NEIGH_FAILED)

    def _probe(self, neigh: Neigh) -> None:
        neigh.probes += 1
        self._solicit(neigh, neigh.arp_queue[-1] if neigh.arp_queue else None)

    def _draw_reachable_time(self) -> None:
        """RFC 4861 §6.3.2: uniformly between half and one and a half times the base."""
        base = self.config.base_reachable_time_us
        self.reachable_time_us = base // 2 + self.net.rng.randrange(base)
        self._last_rand_us = self.net.clock.now_us

    # Forgetting.

    def _arm_gc(self) -> None:
        period_us = self.config.base_reachable_time_us // 2
        self.net.timers.mod_timer(self._gc_timer, self.net.clock.now_us + period_us)

    def _periodic_gc(self, _arg: object) -> None:
        """Forget failed and long unused entries (neigh_periodic_work).

        A table of fewer than gc_thresh1 entries keeps them, and needs no timer.
        """
        if len(self._entries) < self.config.gc_thresh1:
            return
        self.stats.periodic_gc_runs += 1
        stale_us = self.net.clock.now_us - self.config.gc_stale_time_us
        for neigh in list(self._entries.values()):
            if neigh.nud_state & (NUD_IN_TIMER | NUD_PERMANENT):
                continue
            last_us = max(neigh.used_us, neigh.confirmed_us)
            if neigh.nud_state == NUD_FAILED or last_us < stale_us:
                self.remove(neigh)
        if self._entries:
            self._arm_gc()

    def _forced_gc(self) -> bool:
        """Make room, down to gc_thresh2; return whether an entry has gone (neigh_forced_gc).

        What is being resolved or known to be reachable stays.
        """
        now_us = self.net.clock.now_us
        if now_us - self._last_flush_us < FORCED_GC_INTERVAL_US:
            return False
        self._last_flush_us = now_us
        self.stats.forced_gc_runs += 1
        before_us = now_us - FORCED_GC_AGE_US
        most = max(1, len(self._entries) - self._permanent - self.config.gc_thresh2)
        gone = 0
        for neigh in list(self._entries.values()):
            if neigh.nud_state & (NUD_IN_TIMER | NUD_PERMANENT):
                continue
            if neigh.nud_state in (NUD_FAILED, NUD_NOARP) or neigh.updated_us <= before_us:
                self.remove(neigh)
                gone += 1
                if gone == most:
                    break
        return gone > 0


def _truesize(skb: Skb) -> int:
    return len(skb) + SKB_TRUESIZE_OVERHEAD
