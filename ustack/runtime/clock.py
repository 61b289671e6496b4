"""The real clock, as stack time: CLOCK_MONOTONIC in int microseconds.

Every runtime stores it into ``stack.clock.now_us`` before it calls into the core, which
never reads a clock itself.
"""

from __future__ import annotations

from time import monotonic_ns


def monotonic_us() -> int:
    """Return the monotonic clock in microseconds."""
    return monotonic_ns() // 1000
