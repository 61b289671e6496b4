"""pfifo_fast: three bands of packets that wait for the device (net/sched/sch_generic.c).

``core/transmit.py`` puts packets in when the device is busy and takes them out when it can
send again. Band 0 is emptied before band 1, band 1 before band 2.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ustack.core.skb import Skb

if TYPE_CHECKING:
    from ustack.core.netdevice import NetDevice

PRIO2BAND = (1, 2, 2, 2, 1, 2, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1)
"""Band of each skb.priority (TC_PRIO_*), as ``tc qdisc show`` prints it."""


@dataclass(slots=True)
class QdiscStats:
    """The figures of ``tc -s qdisc``."""

    sent_bytes: int = 0
    sent_packets: int = 0
    dropped: int = 0
    overlimits: int = 0
    requeues: int = 0


class Qdisc:
    """The transmit queue of one device; at most ``limit`` packets wait."""

    __slots__ = ("_bands", "_requeued", "dev", "limit", "qlen", "scheduled", "stats")

    def __init__(self, dev: NetDevice, limit: int) -> None:
        self.dev = dev
        self.limit = limit
        self.qlen = 0
        self.scheduled = False
        """Whether it is on softnet_data's output_queue."""
        self.stats = QdiscStats()
        self._bands: tuple[deque[Skb], ...] = (deque(), deque(), deque())
        self._requeued: deque[Skb] = deque()

    @property
    def backlog_bytes(self) -> int:
        """Bytes that wait."""
        return sum(len(skb) for band in (self._requeued, *self._bands) for skb in band)

    def enqueue(self, skb: Skb) -> bool:
        """Let ``skb`` wait; False if the queue is full (the caller drops it)."""
        if self.qlen >= self.limit:
            self.stats.dropped += 1
            return False
        self._bands[PRIO2BAND[skb.priority & 15]].append(skb)
        self.qlen += 1
        return True

    def requeue(self, skbs: list[Skb]) -> None:
        """Put back, ahead of all, what the device refused (dev_requeue_skb)."""
        self._requeued.extendleft(reversed(skbs))
        self.qlen += len(skbs)
        self.stats.requeues += 1

    def dequeue(self) -> Skb | None:
        """Take the next packet; None if there is none."""
        for band in (self._requeued, *self._bands):
            if band:
                self.qlen -= 1
                return band.popleft()
        return None
