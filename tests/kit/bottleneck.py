"""The path that goodput is measured over: a bottleneck of 50 Mbit/s with a drop-tail queue.

The queue holds one bandwidth-delay product, the frame on the line included. What is lost is
lost before the queue, what is reordered is late behind it: ``REORDERED`` of the frames come
``LATE_US`` later. The way back only takes its half of the round trip. ``ImpairedWire`` does all
of it, for two stacks in memory as for two kernels (kit.relay).
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from ustack.nic.impair import Impairment

RATE_BPS = 50_000_000
REORDERED = 0.01
LATE_US = 3000


def chance(seed: int, way: int) -> random.Random:
    """Return what decides about each frame of one way: the same frames are lost, whoever sends."""
    return random.Random(seed * 1000 + way)


@dataclass(frozen=True, order=True)
class Path:
    """One path; its text, ``20 ms, 1 %, reordered``, is its name in tables."""

    rtt_ms: int
    loss_percent: float
    reordered: bool = False

    def __str__(self) -> str:
        text = f"{self.rtt_ms} ms, {self.loss_percent:g} %"
        return f"{text}, reordered" if self.reordered else text

    @classmethod
    def parse(cls, text: str) -> Path:
        """Return the path of this name."""
        rtt, loss, *reordered = text.split(", ")
        return cls(int(rtt.removesuffix(" ms")), float(loss.removesuffix(" %")), bool(reordered))

    @property
    def there(self) -> Impairment:
        """The way of the data."""
        return Impairment(
            loss=self.loss_percent / 100,
            reorder=REORDERED if self.reordered else 0,
            reorder_delay_us=LATE_US,
            delay_us=self.rtt_ms * 500,
            rate_bps=RATE_BPS,
            queue_bytes=RATE_BPS // 8 * self.rtt_ms // 1000,
        )

    @property
    def back(self) -> Impairment:
        """The way of the ACKs."""
        return Impairment(delay_us=self.rtt_ms * 500)
