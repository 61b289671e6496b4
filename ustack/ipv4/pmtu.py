"""What path MTU discovery has learnt, for ten minutes each (RFC 1191 §6.3).

In Linux these are the exceptions of a next hop (struct fib_nh_exception).
``ip_rt_update_pmtu`` (route.py) enters, every new route asks. An entry that expires makes the
routes to its destination invalid, so that sockets try the larger size again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ustack.core.timer import Timer

if TYPE_CHECKING:
    from ustack.core.net import Net

PMTU_CACHE_MAX = 4096
"""Destinations that are remembered; the oldest is forgotten for a new one."""


class PmtuCache:
    """The path MTUs of one stack.

    Args:
        forget_routes: Called with a destination whose MTU is no longer known.
    """

    def __init__(self, net: Net, forget_routes: Callable[[int], None]) -> None:
        self._net = net
        self._forget_routes = forget_routes
        self._learnt: dict[int, tuple[int, bool, int]] = {}
        """daddr -> (MTU, locked, when it expires); the first to expire is first."""
        self._timer = Timer(self._expire)

    def __len__(self) -> int:
        return len(self._learnt)

    def __contains__(self, daddr: int) -> bool:
        return daddr in self._learnt

    def learn(self, daddr: int, mtu: int, locked: bool) -> None:
        """Remember the MTU of the path to ``daddr``; ``locked``: do without DF from now on."""
        self._learnt.pop(daddr, None)
        if len(self._learnt) >= PMTU_CACHE_MAX:
            oldest = next(iter(self._learnt))
            del self._learnt[oldest]
            self._forget_routes(oldest)
        expires_us = self._net.clock.now_us + self._net.config.ip.mtu_expires_us
        self._learnt[daddr] = (mtu, locked, expires_us)
        if not self._timer.pending:
            self._net.timers.mod_timer(self._timer, expires_us)

    def lookup(self, daddr: int) -> tuple[int, bool] | None:
        """Return (MTU, locked), None if nothing is known."""
        learnt = self._learnt.get(daddr)
        return None if learnt is None else learnt[:2]

    def entry(self, daddr: int) -> tuple[int, bool, int] | None:
        """Return (MTU, locked, when it expires), None if nothing is known."""
        return self._learnt.get(daddr)

    def _expire(self, _arg: object) -> None:
        now_us = self._net.clock.now_us
        while self._learnt:
            daddr, (_, _, expires_us) = next(iter(self._learnt.items()))
            if expires_us > now_us:
                self._net.timers.mod_timer(self._timer, expires_us)
                return
            del self._learnt[daddr]
            self._forget_routes(daddr)
