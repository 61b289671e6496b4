"""Virtual time: polls every stack and pumps every wire until nothing moves, then jumps.

Nothing here sleeps or reads a clock. ``run_until`` goes from deadline to deadline, so that
an hour of stack time with nothing to do costs nothing, and the same seed gives the same run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ustack.stack import Stack


class Moving(Protocol):
    """Something beside the stacks that moves frames or bytes."""

    def pump(self, now_us: int) -> bool:
        """Do what can be done now; return whether anything moved."""

    def next_deadline_us(self) -> int | None:
        """Return when there is something to do next, None if only when a frame comes."""


class Livelock(AssertionError):
    """A world that never comes to rest at one moment of virtual time."""


class World:
    """Stacks, wires and scripted ends that share one virtual clock."""

    def __init__(self, start_us: int = 1_000_000) -> None:
        self.now_us = start_us
        self.stacks: list[Stack] = []
        self.moving: list[Moving] = []

    def settle(self, max_rounds: int = 100_000) -> None:
        """Let everything happen that happens at this moment.

        Raises:
            Livelock: it did not come to rest within ``max_rounds`` rounds.
        """
        for _ in range(max_rounds):
            moved = False
            for stack in self.stacks:
                while stack.poll(self.now_us):
                    moved = True
            for thing in self.moving:
                moved |= thing.pump(self.now_us)
            if not moved:
                return
        raise Livelock(f"no rest at {self.now_us} us")

    def next_deadline_us(self) -> int | None:
        """Return the earliest deadline of anything in this world."""
        times = [s.next_deadline_us() for s in self.stacks]
        times += [m.next_deadline_us() for m in self.moving]
        return min((t for t in times if t is not None), default=None)

    def advance_us(self, delta_us: int) -> None:
        """Let ``delta_us`` pass, stopping at every deadline on the way."""
        self.run_until(lambda: False, limit_us=delta_us)

    def run_until(self, done: Callable[[], bool], *, limit_us: int = 60_000_000) -> bool:
        """Run until ``done()``; return False if ``limit_us`` passed first."""
        end_us = self.now_us + limit_us
        self.settle()
        while not done():
            deadline = self.next_deadline_us()
            if deadline is None or deadline > end_us:
                self.now_us = end_us
                self.settle()
                return done()
            self.now_us = max(deadline, self.now_us + 1)
            self.settle()
        return True
