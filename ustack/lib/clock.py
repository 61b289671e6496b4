"""The one notion of time inside the core: a number that the edge sets.

The core never reads a clock. Whoever drives a stack (a runtime, a test) stores the present
into ``now_us`` before each call; everything inside reads it.
"""

from __future__ import annotations

from collections.abc import Callable


class StackClock:
    """Stack time in int microseconds since an arbitrary start; never goes back."""

    __slots__ = ("fine_us", "now_us")

    def __init__(self, now_us: int = 0) -> None:
        self.now_us = now_us
        self.fine_us: Callable[[], int] = self._now_us
        """Tells how late it has become since ``now_us`` was stored: what limits the time of
        one softirq. The edge puts its clock here; without one, time stands still in a poll."""

    def _now_us(self) -> int:
        return self.now_us
