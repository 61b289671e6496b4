"""Sleeping on a stack's wires: one descriptor to read, one event to be called by.

Before it sleeps a runtime looks at its wire for some tens of microseconds: the answer to a packet
that comes at once costs no wake-up of a CPU. ``Stack.busy_poll`` does so where it can, else
``us_wait``, which then blocks; both release the GIL. How long adapts: there is looking while waits
end that soon, and none while they do not.
"""

from __future__ import annotations

import os
import select

from ustack.native.lib import lib

SPIN_MAX = 100
"""Times that read(2) or poll(2) is tried, about 0.5 us each, before blocking."""
SPINS_PER_US = 2
SHORT_WAIT_US = 100
"""A wait that ends this soon, in microseconds, is worth spinning for next time."""


class WireSet:
    """The descriptor that is readable when any wire is; -1 without a wire."""

    def __init__(self, filenos: list[int]) -> None:
        self._epoll: select.epoll | None = None
        self.is_one = len(filenos) == 1
        """Whoever polls a device looks at all there is."""
        if len(filenos) > 1:
            self._epoll = select.epoll()
            for fd in filenos:
                self._epoll.register(fd, select.EPOLLIN)
        self.fd = self._epoll.fileno() if self._epoll else filenos[0] if filenos else -1

    def close(self) -> None:
        """Give back what watching several wires took."""
        if self._epoll is not None:
            self._epoll.close()
        self.fd = -1


class Spin:
    """How often to look at a wire before going to sleep: worth it as long as waits are short.

    Args:
        most: how often, when they are.
        least: ... and whatever they are (busy polling).
    """

    def __init__(self, most: int = SPIN_MAX, least: int = 0) -> None:
        self._most = max(most, least)
        self._least = least
        self.looks = least

    def learn(self, short: bool) -> None:
        """A wait is over, and it was short, or not."""
        self.looks = self._most if short else max(self.looks >> 1, self._least)


class Doorbell:
    """An eventfd by which other threads call a sleeper, who spins first as ``spin`` says."""

    def __init__(self, spin: Spin) -> None:
        self.spin = spin
        self.has_looked = False
        """Somebody has looked at the wire in vain just now: the next wait need not."""
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def ring(self) -> None:
        """Wake the sleeper, or keep the next one from falling asleep; callable from anywhere."""
        if self.fd >= 0:
            os.eventfd_write(self.fd, 1)

    def wait(self, wire_fd: int, timeout_us: int) -> None:
        """Sleep until the wire is readable, somebody rings or ``timeout_us`` (-1: none) is over."""
        looks = 0 if self.has_looked or not timeout_us else self.spin.looks
        self.has_looked = False
        ready = lib.us_wait(wire_fd, self.fd, looks, timeout_us)
        if ready > 0 and ready & 2:  # below 0: a signal, whose handler has run
            self._drain()

    def slept(self, elapsed_us: int) -> None:
        """Learn how long the last wait has taken."""
        self.spin.learn(elapsed_us < SHORT_WAIT_US)

    def close(self) -> None:
        """Close the descriptor."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _drain(self) -> None:
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return
