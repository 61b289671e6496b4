"""A thread that sleeps in a call, as the softirq sees it.

A waiter is the leader, asleep on the wires and called by its doorbell, or a follower, asleep
on a lock of its own that is released to wake it. All fields belong to the runtime's lock.
"""

from __future__ import annotations

from threading import Lock
from typing import Any, Final, Protocol

from ustack.lib.trace import TracePoint
from ustack.runtime.clock import monotonic_us
from ustack.runtime.wires import Doorbell
from ustack.sock.wait import WaitEntry, WaitQueue


class NotYet:
    """The type of ``NOT_YET``."""

    def __repr__(self) -> str:
        return "NOT_YET"


NOT_YET: Final[Any] = NotYet()
"""What an attempt returns when it has to be made again later."""


class Waitable(Protocol):
    """Something that a thread can sleep on."""

    @property
    def wq(self) -> WaitQueue:
        """Woken when it is worth another attempt."""

    def hold(self) -> None:
        """A sleeper begins to use it (fget): it must not go away."""

    def release(self) -> None:
        """The sleeper is done with it (fput)."""


class Crew:
    """What the waiters of one runtime share."""

    __slots__ = ("roused", "trace_wakeup")

    def __init__(self) -> None:
        self.roused = 0
        """Followers that were woken and have not come to the lock yet."""
        self.trace_wakeup = TracePoint("wakeup")
        """A thread runs that another has woken: microseconds since it went to sleep, and since
        it was woken."""


class Waiter:
    """One thread, for the length of one blocking call."""

    __slots__ = ("asleep", "bell", "crew", "entry", "events", "fired", "roused_us", "turn")

    def __init__(self, crew: Crew, bell: Doorbell, *, exclusive: bool = False) -> None:
        self.crew = crew
        self.bell = bell
        self.entry = WaitEntry(self.wake, exclusive=exclusive)
        self.events = 0
        """What the last wake-up said."""
        self.fired = False
        """The wait queue has woken it; it has not yet tried again."""
        self.asleep = False
        self.roused_us = 0
        """When it was woken, while somebody wants to know."""
        self.turn: Lock | None = None
        """Held while it sleeps as a follower; None while it leads."""

    def wake(self, events: int) -> bool:
        """Wake the thread (autoremove_wake_function): once, until it sleeps again."""
        if self.fired:
            return False
        self.fired = True
        self.events = events
        self.rouse()
        return True

    def rouse(self) -> None:
        """End the thread's sleep, for whatever reason."""
        if not self.asleep:
            return
        self.asleep = False
        if self.crew.trace_wakeup.on:
            self.roused_us = monotonic_us()
        if self.turn is not None:
            self.crew.roused += 1
            self.turn.release()
        else:
            self.bell.ring()

    def runs(self, slept_us: int, now_us: int) -> None:
        """It was woken, and sleeps no more, as it did since ``slept_us``: tell who listens."""
        self.crew.trace_wakeup(now_us - slept_us, now_us - self.roused_us)
        self.roused_us = 0
