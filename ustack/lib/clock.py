"""The one notion of time inside the core: a number that the edge sets.

The core never reads a clock. Whoever drives a stack (a runtime, a test) stores the present
into ``now_us`` before each call; everything inside reads it.
"""

from __future__ import annotations


class StackClock:
    """Stack time in int microseconds since an arbitrary start; never goes back."""

    __slots__ = ("now_us",)

    def __init__(self, now_us: int = 0) -> None:
        self.now_us = now_us
