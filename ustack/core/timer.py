"""Kernel timers on stack time: ``mod_timer`` and ``del_timer`` on a heap.

A timer that is moved to a later time keeps its place in the heap and is put back when that
place comes up, so that re-arming on every ACK costs no heap operation. Called by
``Stack.poll``; the deadline of the first timer is the stack's ``next_deadline_us``.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any


class Timer:
    """One timer (struct timer_list): ``fn(arg)`` once ``expires_us`` has come."""

    __slots__ = ("_heap_us", "arg", "expires_us", "fn", "pending")

    def __init__(self, fn: Callable[[Any], None], arg: Any = None) -> None:
        self.fn = fn
        self.arg = arg
        self.expires_us = 0
        self.pending = False
        self._heap_us = -1


class TimerQueue:
    """All timers of one stack."""

    __slots__ = ("_heap", "_serial")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Timer]] = []
        self._serial = 0

    def mod_timer(self, timer: Timer, expires_us: int) -> None:
        """Arm ``timer`` for ``expires_us``, or move it there."""
        timer.expires_us = expires_us
        timer.pending = True
        if timer._heap_us < 0 or expires_us < timer._heap_us:
            self._push(timer, expires_us)

    def del_timer(self, timer: Timer) -> None:
        """Disarm ``timer``; its heap entry is dropped when it comes up."""
        timer.pending = False

    def next_us(self) -> int | None:
        """Return when the first armed timer is due, None if none is armed."""
        heap = self._heap
        while heap:
            when, _, timer = heap[0]
            if timer._heap_us == when and timer.pending and timer.expires_us == when:
                return when
            self._settle_first()
        return None

    def run(self, now_us: int, limit: int = 1024) -> int:
        """Fire at most ``limit`` timers that are due; return how many fired."""
        heap = self._heap
        if not heap or heap[0][0] > now_us:
            return 0
        fired = 0
        while fired < limit:
            due = self.next_us()
            if due is None or due > now_us:
                break
            _, _, timer = heapq.heappop(self._heap)
            timer._heap_us = -1
            timer.pending = False
            timer.fn(timer.arg)
            fired += 1
        return fired

    def _push(self, timer: Timer, when_us: int) -> None:
        timer._heap_us = when_us
        self._serial += 1
        heapq.heappush(self._heap, (when_us, self._serial, timer))

    def _settle_first(self) -> None:
        """Drop the first entry if it is stale, or put it where its timer now is."""
        when, _, timer = heapq.heappop(self._heap)
        if timer._heap_us != when:
            return  # a later mod_timer pushed an earlier entry
        timer._heap_us = -1
        if timer.pending:
            self._push(timer, timer.expires_us)
