"""Packets that wait for the device: pfifo_fast (net/sched/sch_generic.c) and mq (sch_mq.c).

``core/transmit.py`` puts packets in when the device is busy and takes them out when it can
send again. Of pfifo_fast's three bands 0 is emptied before 1, and 1 before 2. A device that
can have several transmit queues has mq at the root, which only holds a pfifo_fast for each.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, fields
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
    """What waits for one transmit queue of a device, at most ``limit`` packets."""

    __slots__ = (
        "_bands",
        "_requeued",
        "_stats",
        "dev",
        "limit",
        "qlen",
        "queue",
        "scheduled",
        "xmit_queue",
    )

    def __init__(self, dev: NetDevice, limit: int, queue: int = 0) -> None:
        self.dev = dev
        self.queue = queue
        """Number of the device's transmit queue."""
        self.limit = limit
        self.qlen = 0
        self.scheduled = False
        """Whether it is on softnet_data's output_queue."""
        self.xmit_queue = dev.ndo_xmit_queue(queue)
        """What C sends through when nothing waits (struct us_xmit_queue), or None."""
        self._stats = QdiscStats()
        self._bands: tuple[deque[Skb], ...] = (deque(), deque(), deque())
        self._requeued: deque[Skb] = deque()

    @property
    def stats(self) -> QdiscStats:
        """The figures, with what C has sent past an empty queue."""
        sent = self.xmit_queue
        if sent is not None and sent.packets:
            self._stats.sent_packets += sent.packets
            self._stats.sent_bytes += sent.bytes
            sent.packets = sent.bytes = 0
        return self._stats

    @property
    def leaves(self) -> list[Qdisc]:
        """Itself: what can be enqueued to."""
        return [self]

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
        self._add_qlen(1)
        return True

    def requeue(self, skbs: list[Skb]) -> None:
        """Put back, ahead of all, what the device refused (dev_requeue_skb)."""
        self._requeued.extendleft(reversed(skbs))
        self._add_qlen(len(skbs))
        self.stats.requeues += 1

    def dequeue(self) -> Skb | None:
        """Take the next packet; None if there is none."""
        for band in (self._requeued, *self._bands):
            if band:
                self._add_qlen(-1)
                return band.popleft()
        return None

    def _add_qlen(self, packets: int) -> None:
        self.qlen += packets
        if self.xmit_queue is not None:
            self.xmit_queue.qlen = self.qlen


class MqQdisc:
    """The root of a device with several transmit queues; its figures are its leaves' sums."""

    __slots__ = ("dev", "leaves")

    def __init__(self, dev: NetDevice) -> None:
        self.dev = dev
        self.leaves = [Qdisc(dev, dev.tx_queue_len, queue) for queue in range(dev.num_queues)]
        """One for each queue that the device can have; the first ones are in use."""

    @property
    def qlen(self) -> int:
        """Packets that wait."""
        return sum(leaf.qlen for leaf in self.leaves)

    @property
    def backlog_bytes(self) -> int:
        """Bytes that wait."""
        return sum(leaf.backlog_bytes for leaf in self.leaves)

    @property
    def stats(self) -> QdiscStats:
        """The figures of ``tc -s qdisc``, summed up anew (mq_dump)."""
        total = QdiscStats()
        for leaf in self.leaves:
            for field in fields(QdiscStats):
                value = getattr(total, field.name) + getattr(leaf.stats, field.name)
                setattr(total, field.name, value)
        return total
