"""A stack driven by the application's own asyncio or uvloop loop: no thread, no lock, no hop.

The loop watches the wires; ``_run`` polls the stack, then lets whoever was woken (transports,
servers) take what is theirs in the same iteration, and arms one loop timer for the stack's
next deadline. Used by ``ustack.aio`` and the daemon. Everything here runs in the loop's thread.
"""

from __future__ import annotations

import sys
from asyncio import AbstractEventLoop, TimerHandle, get_running_loop
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from ustack.runtime.clock import monotonic_us
from ustack.runtime.wires import SHORT_WAIT_US, SPINS_PER_US, Spin

if TYPE_CHECKING:
    from ustack.core.netdevice import NetDevice
    from ustack.stack import Stack

T = TypeVar("T")

NEVER_US = 1 << 62
RUN_LIMIT_US = 2000
"""How long one run may keep the loop from its other work, in microseconds."""
BUSY_SWITCH_S = 50e-6
"""How long a loop that never waits keeps other threads from the GIL: no call into C gives it up."""
READ_BUFFER_BYTES = 256 * 1024


class InlineRuntime:
    """Drives ``stack`` from ``loop`` (default: the running one).

    Args:
        stack: The stack.
        loop: The loop.
        busy_poll: Never wait: poll the stack all the time, between the loop's other work.
            It costs a processor, and no packet waits for a wake-up. For a stack whose NIC
            has ``busy_poll`` too.
        busy_poll_us: how long to look for the next frame, or for whatever else the loop waits
            for but its timers, in microseconds, before the loop sleeps (net.core.busy_poll); 0:
            for some tens of microseconds, once everybody has been answered, and only while the
            next frame comes that soon anyway.
    """

    def __init__(
        self,
        stack: Stack,
        loop: AbstractEventLoop | None = None,
        *,
        busy_poll: bool = False,
        busy_poll_us: int = 0,
    ) -> None:
        self.stack = stack
        self.send_posted = stack.send_posted
        self.busy_poll = busy_poll
        if busy_poll:
            sys.setswitchinterval(BUSY_SWITCH_S)
        stack.clock.fine_us = monotonic_us
        self.loop = loop or get_running_loop()
        self.closed = False
        self.wire_lost: Callable[[OSError], None] | None = None
        """Told that a wire is gone; the loop's exception handler is, if this is not set."""
        stack.wire_lost = self._on_wire_lost
        self.read_buffer = memoryview(bytearray(READ_BUFFER_BYTES))
        """Scratch space that transports receive into; its content lasts until they return."""
        self._ready: deque[Callable[[], None]] = deque()
        self.is_running = False
        """A poll, or what follows it, is under way: calls into the core need no ``call``."""
        self.answered = False
        """Somebody has sent in this turn: the next frame may come before the loop would sleep."""
        self._busy_polls = busy_poll_us > 0
        self._wake_fd = _descriptor_of(self.loop) if self._busy_polls else -1
        self._source_fd = -1
        self._serve_source: Callable[[], bool] | None = None
        self._spin = Spin(least=busy_poll_us * SPINS_PER_US)
        self._left_us = 0
        """When a turn that answered was over, 0 if the last did not."""
        self._scheduled = False
        self._settling = False
        self._timer: TimerHandle | None = None
        self._timer_us = NEVER_US
        self._filenos: list[int] = []
        self.watch_wires()
        stack.net.netdev_notifiers.append(self._netdev_event)
        self._schedule()

    def watch_wires(self) -> None:
        """Watch the stack's wires as they are now; call it again after adding one."""
        wanted = [] if self.busy_poll else self.stack.filenos()
        for fd in self._filenos:
            if fd not in wanted:
                self.loop.remove_reader(fd)
        for fd in wanted:
            if fd not in self._filenos:
                self.loop.add_reader(fd, self._on_wire)
        self._filenos = list(wanted)

    def _netdev_event(self, dev: NetDevice, up: bool) -> None:
        """A device goes up or down: its wire is to be watched, or not, once it has."""
        del dev, up
        if not self.closed:
            self.defer(self.watch_wires)

    def add_source(self, fd: int, serve: Callable[[], bool]) -> None:
        """Have each turn look at what else brings the stack work.

        Args:
            fd: readable when there is something.
            serve: Does it, with fresh time, and returns whether there was anything.
        """
        self._source_fd, self._serve_source = fd, serve
        if not self._busy_polls:
            self._wake_fd = fd
        self.loop.add_reader(fd, self._run)

    def remove_source(self) -> None:
        """Undo ``add_source``."""
        self.loop.remove_reader(self._source_fd)
        if not self._busy_polls:
            self._wake_fd = -1
        self._source_fd, self._serve_source = -1, None

    def call(self, fn: Callable[..., T], *args: Any) -> T:
        """Run a call into the core with fresh time, and see to the work that it leaves.

        Raises:
            OSError: whatever ``fn`` raises.
        """
        if self.is_running:
            self.send_posted()
            return fn(*args)
        self.stack.clock.now_us = monotonic_us()
        try:
            return fn(*args)
        finally:
            if not self._settling and not self._scheduled and not self.closed:
                self._settling = True
                self.loop.call_soon(self._settle)

    def defer(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` run once the present poll is over; it must not raise.

        This is what a wait queue entry does when it is woken in the middle of the softirq.
        """
        self._ready.append(callback)
        if not self.is_running and not self._scheduled:
            self._schedule()

    def close(self) -> None:
        """Stop driving the stack; the stack itself stays the caller's to close."""
        if self.closed:
            return
        self.closed = True
        for fd in self._filenos:
            self.loop.remove_reader(fd)
        self._filenos = []
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._ready.clear()

    def _on_wire_lost(self, error: OSError) -> None:
        """Called by the poll: a descriptor that is readable for ever must not be watched."""
        self.watch_wires()
        if self.wire_lost is not None:
            self.wire_lost(error)
        else:
            self.loop.call_exception_handler({"message": "a wire is gone", "exception": error})

    def _schedule(self) -> None:
        self._scheduled = True
        self.loop.call_soon(self._run)

    def _settle(self) -> None:
        """See to what the calls since the loop's last turn have left."""
        self._settling = False
        if self._scheduled or self.closed:
            return
        deadline_us = self.stack.next_deadline_us()
        if deadline_us is not None and deadline_us <= monotonic_us():
            self._run()
        else:
            self._rearm(deadline_us)

    def _on_timer(self) -> None:
        self._timer = None
        self._timer_us = NEVER_US
        self._run()

    def _on_wire(self) -> None:
        if self._left_us and monotonic_us() - self._left_us < SHORT_WAIT_US:
            self._spin.learn(True)
        self._run()

    def _run(self) -> None:
        """Poll and deliver until the stack is idle or the loop's other work has waited enough."""
        self._scheduled = False
        if self.closed or self.is_running:
            return
        self.is_running = True
        deadline_us: int | None = 0  # after a bug, too: the loop reports it, others go on
        try:
            deadline_us = self._poll_and_deliver()
        finally:
            self.is_running = False
            self._rearm(deadline_us)

    def _poll_and_deliver(self) -> int | None:
        """Return the stack's next deadline, 0: at once."""
        stack, clock, ready = self.stack, self.stack.clock, self._ready
        deliver = stack.deliver_text
        now_us = monotonic_us()
        limit_us = now_us + RUN_LIMIT_US
        self.answered = False
        self._left_us = 0
        while True:
            clock.now_us = now_us
            more = stack.poll(now_us)
            deliver()
            for _ in range(len(ready)):
                ready.popleft()()
            if self.closed:
                return None
            if self._serve_source is not None and self._serve_source():
                more = True
            if more or ready or self.busy_poll:
                now_us = monotonic_us()
                if now_us >= limit_us:
                    return 0
                continue
            deadline_us = stack.next_deadline_us()
            if deadline_us is None or deadline_us > now_us:
                if not (self.answered or self._busy_polls):
                    return deadline_us
                if not self._busy_poll(min(limit_us, deadline_us or limit_us)):
                    return stack.next_deadline_us()
            now_us = monotonic_us()
            if now_us >= limit_us:
                return 0

    def _busy_poll(self, until_us: int) -> bool:
        """Look for frames instead of going to sleep, as long as that is worth it.

        Returns:
            Whether there is something else to do than to sleep.
        """
        stack, clock, ready, spin = self.stack, self.stack.clock, self._ready, self._spin
        busy_poll, deliver, looks, wake_fd = (
            stack.busy_poll,
            stack.deliver_text,
            spin.looks,
            self._wake_fd,
        )
        more = None
        if looks and len(self._filenos) == 1:
            self.answered = False
            while (more := busy_poll(looks, wake_fd)) is not None:
                deliver()
                if more or ready or clock.now_us >= until_us or self.closed:
                    break
                if not (self.answered or self._busy_polls):
                    break
                self.answered = False
            if more is None and self._serve_source is not None:
                clock.now_us = monotonic_us()
                more = self._serve_source() or None
            spin.learn(more is not None)
        self._left_us = clock.now_us
        return more is not None

    def _rearm(self, deadline_us: int | None) -> None:
        """Come back when the stack wants to; a timer that fires early re-arms itself."""
        if self._scheduled or self.closed:
            return
        if self._ready or self.busy_poll:
            self._schedule()
            return
        if deadline_us is None or deadline_us >= self._timer_us:
            return
        delay_us = deadline_us - monotonic_us()
        if delay_us <= 0:
            self._schedule()
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_us = deadline_us
        self._timer = self.loop.call_later(delay_us / 1e6, self._on_timer)


def _descriptor_of(loop: AbstractEventLoop) -> int:
    """Return the epoll descriptor of a loop: readable when it has something to do; -1: unknown."""
    of_uvloop = getattr(loop, "_get_backend_id", None)
    if of_uvloop is not None:
        return int(of_uvloop())
    fileno = getattr(getattr(loop, "_selector", None), "fileno", None)
    return int(fileno()) if fileno is not None else -1
