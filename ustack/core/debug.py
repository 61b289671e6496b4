"""Faults on purpose, each for a bounded time: a softirq that is held up, memory that is short.

``ustack debug`` ends here. Time is the stack's, so tests see the same in virtual time. Linux
has fault injection for the second (fail_page_alloc); the first is what a CPU that is busy
elsewhere looks like to the NIC: DMA goes on, nothing is polled.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from ustack.core.timer import Timer
from ustack.lib.socket_error import socket_error
from ustack.native.lib import lib

if TYPE_CHECKING:
    from ustack.core.net import Net

MAX_FAULT_US = 10_000_000
"""No fault lasts longer than ten seconds."""
MAX_FAIL_ALLOC = 1_000_000


class Faults:
    """The faults of one stack; none costs anything while it is not there."""

    def __init__(self, net: Net) -> None:
        self._net = net
        self._thaw = Timer(self._thaw_softirq)
        self._recover = Timer(self._end_fail_alloc)

    def freeze_softirq(self, duration_us: int) -> None:
        """Run no NET_RX and no NET_TX for so long; the NIC and the timers go on.

        Raises:
            OSError: EINVAL, not from 0 (ends it) to ten seconds.
        """
        self._check(duration_us)
        net = self._net
        net.softirq_frozen = True
        net.timers.mod_timer(self._thaw, net.clock.now_us + duration_us)

    def fail_alloc(self, count: int, duration_us: int) -> None:
        """Let the next ``count`` allocations of pages fail, those of so long at most.

        A receive ring takes a failure as a buffer that it cannot post, and tries again when
        it next receives; at the end every device is polled once, also one whose ring is empty.

        Raises:
            OSError: EINVAL, more than a million, or longer than ten seconds.
        """
        self._check(duration_us)
        if not 0 <= count <= MAX_FAIL_ALLOC:
            raise socket_error(errno.EINVAL)
        net = self._net
        lib.us_mem_fail_alloc(net.mem.ptr, count)
        net.timers.mod_timer(self._recover, net.clock.now_us + duration_us)

    @property
    def allocations_left(self) -> int:
        """Allocations that are still to fail."""
        count: int = lib.us_mem_fail_alloc_left(self._net.mem.ptr)
        return count

    def _check(self, duration_us: int) -> None:
        if not 0 <= duration_us <= MAX_FAULT_US:
            raise socket_error(errno.EINVAL)

    def _thaw_softirq(self, arg: object) -> None:
        del arg
        self._net.softirq_frozen = False

    def _end_fail_alloc(self, arg: object) -> None:
        del arg
        lib.us_mem_fail_alloc(self._net.mem.ptr, 0)
        for dev in self._net.devices.values():
            if dev.is_up:
                dev.ndo_poll_controller()
