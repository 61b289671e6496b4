"""A stack for blocking calls from any thread: one lock, never held while waiting.

Leader and followers: the thread that has to wait drives the stack itself. It leads, asleep on
the wires, takes the packet in, and returns with its own data without another thread on the
way; threads that wait meanwhile follow, asleep until the leader's softirq wakes them, and one
of them leads when the leader leaves. A background thread polls only while nobody waits.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable
from threading import Lock, current_thread, get_ident, main_thread
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakMethod

from ustack.runtime.background import DOZE_US, BackgroundThread
from ustack.runtime.clock import monotonic_us
from ustack.runtime.exit_lock import ExitLock
from ustack.runtime.hostfiles import HostFile, HostFiles
from ustack.runtime.interrupt import exposed, guard, protected, unguard
from ustack.runtime.waiter import NOT_YET, Crew, Waitable, Waiter
from ustack.runtime.wires import SPINS_PER_US, Doorbell, Spin, WireSet

if TYPE_CHECKING:
    from ustack.stack import Stack

T = TypeVar("T")

NEVER_US = 1 << 62
NOBODY_SLEEPS_US = -1
POLL_EVERY_US = 200
"""A thread that calls without ever waiting polls this often, in microseconds ..."""
POLL_SELDOM_US = 2_000
"""... or this seldom, where polls take long: it is better to have many packets in one."""
POLL_PAUSE = 4
"""How many times as long as a poll has taken the next one waits, in between."""
YIELD_US = 50
"""How long a busy leader lets others have the lock, in microseconds."""
COMES_BACK_US = 200
"""A thread that waits again so soon, in microseconds, is worth being waited for."""
CROWDED_LOOKS = 64
"""Waits that begin without a look at the wire once a look has kept other threads from theirs."""
FLUSH_POLLS = 16
"""Bounded polls that one call makes for the work it caused; the leader does the rest."""


class ThreadedRuntime:
    """Drives ``stack`` for threads; ``close()`` ends it.

    Args:
        stack: The stack.
        busy_poll_us: how long a thread that waits looks for a frame before it sleeps, in
            microseconds; 0: as long as waits are short anyway. It costs a processor, and the
            answer finds nobody asleep (net.core.busy_poll).
    """

    def __init__(self, stack: Stack, *, busy_poll_us: int = 0) -> None:
        self.stack = stack
        self.closed = False
        """Calls fail: it was closed, or has failed."""
        self.interrupted = False
        """Ctrl-C came while the core ran; raised when the core is left."""
        self.failure: BaseException | None = None
        """A bug that ended the background thread."""
        self.wire_lost: OSError | None = None
        """Why the last wire is gone: every later call fails with it."""
        stack.wire_lost = self._on_wire_lost
        self.crew = Crew()
        self._stopped = False
        self._clock = stack.clock
        self._clock.fine_us = monotonic_us
        self._lock: Any = Lock()
        self._leader: Waiter | None = None
        self._sleepers: dict[Waiter, None] = {}
        """Followers asleep, longest first."""
        self._queueing: deque[None] = deque()
        """One item for each thread that waits for the lock (a deque counts atomically)."""
        self._leaver, self._left_us = 0, 0
        """The thread that ended its wait last, and when."""
        self._looking = False
        """The thread that has the lock looks at the wire (``_busy_wait``)."""
        self._crowded = 0
        """So many waits are to begin without."""
        self._comes_back = False
        """Threads wait again soon after they were woken, as servers of questions do."""
        self._asleep_until_us = NOBODY_SLEEPS_US
        """When the sleeping leader wakes by itself."""
        self._last_poll_us = 0
        self._poll_every_us = POLL_EVERY_US
        self._last_timers_us = 0
        self._last_call_us = 0
        self._deferred: deque[Callable[[], Any]] = deque()
        self._wires = WireSet(stack.filenos())
        self._host: HostFiles | None = None
        """The kernel's descriptors that eventpolls watch, once one does."""
        self._bell = Doorbell(Spin(least=busy_poll_us * SPINS_PER_US))
        self._background = BackgroundThread(self)
        self._background.start()
        guard(self)
        after_fork = WeakMethod(self._abandon_after_fork)
        os.register_at_fork(after_in_child=lambda: (after_fork() or _nothing)())

    # What callers use.

    def call(self, fn: Callable[..., T], *args: Any) -> T:
        """Run a call into the core, alone and with fresh time, and see to the work it leaves.

        Raises:
            OSError: ENETDOWN: the runtime is closed; otherwise whatever ``fn`` raises.
        """
        result: T = self._call_locked(fn, args)
        if self.interrupted:
            self._raise_interrupt()
        return result

    @protected
    def call_now(self, fn: Callable[[Any], T], arg: Any) -> T | None:
        """Run a short call into the core, if nobody else is in it: what ``call`` does, but quick.

        Returns:
            What ``fn`` returns; None: it was not called, and ``call`` or ``wait_for`` will wait
            for the lock, or tell why not.
        """
        lock = self._lock
        if self.closed or not lock.acquire(False):
            return None
        try:
            if self.closed:
                return None
            self._clock.now_us = now_us = monotonic_ns() // 1000
            result = fn(arg)
            if (
                self._leader is not None
                or now_us - self._last_poll_us >= self._poll_every_us
                or self._deferred
                or self.stack.is_pending
            ):
                self._flush()
            else:
                self._last_call_us = now_us  # there is nothing to do
        finally:
            lock.release()
        if self.interrupted:
            self._raise_interrupt()
        return result

    @protected
    def call_busy(self, fn: Callable[[Any, int, int], T], arg: Any) -> T | None:
        """``call_now`` for who would wait: ``fn(arg, looks, wakefd)`` may look at the wire first.

        Args:
            fn: looks ``looks`` times, until ``wakefd`` can be read.
        """
        if self.closed or not self._lock.acquire(False):
            return None
        try:
            if self.closed:
                return None
            self._clock.now_us = monotonic_ns() // 1000
            bell = self._bell
            looks = bell.spin.looks if self._begin_look() and self._wires.is_one else 0
            result = fn(arg, looks, bell.fd)
            self._end_look()
            if looks and result:
                self._looked()
            elif looks:
                bell.has_looked = True
            self._flush()
        finally:
            self._lock.release()
        if self.interrupted:
            self._raise_interrupt()
        return result

    def wait_for(
        self,
        target: Waitable,
        timeout_us: int | None,
        exclusive: bool,
        attempt: Callable[..., Any],
        *args: Any,
    ) -> Any:
        """Call ``attempt(*args)`` under the lock until it returns something but NOT_YET.

        Args:
            target: woken when a further attempt is worth making.
            timeout_us: how long at most in microseconds; None: for ever; 0: do not wait,
                but look at the wires once before giving up.
            exclusive: of several that wait so, an event wakes one.

        Returns:
            The attempt's result; NOT_YET when the time is over.

        Raises:
            OSError: ENETDOWN: the runtime is closed; otherwise whatever ``attempt`` raises.
            KeyboardInterrupt: Ctrl-C; the runtime goes on without this thread.
        """
        result = self._wait_locked(target, timeout_us, exclusive, attempt, args)
        if self.interrupted:
            self._raise_interrupt()
        return result

    def defer(self, fn: Callable[[], Any]) -> None:
        """Run ``fn`` under the lock soon; callable from finalizers, which may hold the lock."""
        self._deferred.append(fn)
        leader = self._leader
        if leader is not None:
            leader.bell.ring()

    def watch_wires(self) -> None:
        """Watch the stack's wires as they are now; call it after adding one."""
        with self._lock:
            self._renew_wires()

    def watch_host(self, fd: int, *, always_ready: bool = False) -> HostFile:
        """Return the kernel's descriptor ``fd`` as a file to watch; within ``call``.

        Raises:
            OSError: as ``HostFiles.watch``.
        """
        if self._host is None:
            self._host = HostFiles()
            self._renew_wires()
        return self._host.watch(fd, always_ready=always_ready)

    def unwatch_host(self, file: HostFile) -> None:
        """Undo one ``watch_host``; within ``call``."""
        if self._host is not None:
            self._host.unwatch(file)

    def host_file(self, fd: int) -> HostFile | None:
        """Return the file of a descriptor that is watched."""
        return None if self._host is None else self._host.find(fd)

    def _renew_wires(self) -> None:
        old, self._wires = self._wires, WireSet(self._filenos())
        if self._leader is not None:
            self._leader.bell.ring()
        old.close()

    def _filenos(self) -> list[int]:
        filenos = self.stack.filenos()
        return filenos if self._host is None else [*filenos, self._host.fileno()]

    def take_for_exit(self) -> None:
        """The process ends: other threads stop for good where they next need the stack.

        So it is with the kernel's; here they would hear of errors while the stack is closed.
        """
        self._enter()
        self._lock = ExitLock()
        self._leader = None
        self._sleepers.clear()

    def close(self) -> None:
        """Stop driving the stack; blocked calls end with ENETDOWN. The stack stays open."""
        with self._lock:
            if self._stopped:
                return
            self._stopped = True
            self._run_deferred()
            self._end_waits()
        if not isinstance(self._lock, ExitLock):
            self._background.stop()
        unguard(self)
        with self._lock:
            if self._leader is self._background.waiter:
                self._leader = None
            self._close_descriptors_if_unused()

    def fail(self, bug: BaseException) -> None:
        """The background thread met a bug in the core: every later call is told."""
        with self._lock:
            self.failure = bug
            self._end_waits()

    def _on_wire_lost(self, error: OSError) -> None:
        """Called by the poll, under the lock: without a wire nobody can be waited for."""
        old, self._wires = self._wires, WireSet(self._filenos())
        old.close()
        if not self.stack.filenos():
            self.wire_lost = error
            self._end_waits()

    def _end_waits(self) -> None:
        self.closed = True
        for waiter in self._sleepers:
            waiter.rouse()
        if self._leader is not None:
            self._leader.rouse()

    # The core's side of the lock. Ctrl-C waits for these functions to return.

    @protected
    def _call_locked(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        self._enter()
        try:
            self._check_open()
            self._clock.now_us = monotonic_us()
            try:
                return fn(*args)
            finally:
                self._flush()
        finally:
            self._lock.release()

    @protected
    def _wait_locked(
        self,
        target: Waitable,
        timeout_us: int | None,
        exclusive: bool,
        attempt: Callable[..., Any],
        args: tuple[Any, ...],
    ) -> Any:
        self._enter()
        try:
            if self.closed:
                self._check_open()
            self._clock.now_us = now_us = monotonic_us()
            try:
                result = attempt(*args)
                if result is not NOT_YET:
                    return result
                if timeout_us == 0:
                    self._poll()
                    return attempt(*args)
                deadline_us = None if timeout_us is None else now_us + timeout_us
                if self._bell.spin.looks and self._wires.is_one and not self._bell.has_looked:
                    result = self._busy_wait(deadline_us, attempt, args)
                    if result is not NOT_YET:
                        return result
                return self._sleep_until(target, deadline_us, exclusive, attempt, args)
            finally:
                self._flush()
        finally:
            self._lock.release()

    def _enter(self) -> None:
        """Take the lock, so that a busy leader sees that it is wanted."""
        if not self._lock.acquire(blocking=False):
            self._queueing.append(None)
            if self._looking:
                self._bell.ring()
            self._lock.acquire()
            self._queueing.pop()

    def _busy_wait(
        self, deadline_us: int | None, attempt: Callable[..., Any], args: tuple[Any, ...]
    ) -> Any:
        """Look at the wire before going to sleep, and attempt when something comes (sk_busy_loop).

        The lock is kept meanwhile, as long as nobody else wants it, leads or was woken.
        """
        stack, clock, bell = self.stack, self._clock, self._bell
        until_us = clock.now_us + POLL_EVERY_US
        if deadline_us is not None and deadline_us < until_us:
            until_us = deadline_us
        result, more = NOT_YET, None
        while result is NOT_YET and clock.now_us < until_us:
            may_look = self._begin_look()
            more = stack.busy_poll(bell.spin.looks, bell.fd) if may_look else None
            self._end_look()
            if more is None:
                bell.has_looked = may_look
                return NOT_YET
            if more:
                self._poll()
            result = attempt(*args)
        if result is not NOT_YET:
            self._looked()
        return result

    def _begin_look(self) -> bool:
        """Whether to look at the wire: nobody else leads, was woken or wants the lock."""
        self._looking = True
        if self._crowded:
            self._crowded -= 1
            return False
        return self._leader is None and not (
            self._queueing or self.crew.roused or self._deferred or self.closed
        )

    def _end_look(self) -> None:
        self._looking = False
        if self._queueing or self.crew.roused:
            self._crowded = CROWDED_LOOKS

    def _looked(self) -> None:
        """A thread that has waited has not slept: it was worth while, and it leaves."""
        self._bell.slept(0)
        self._leaver, self._left_us = get_ident(), self._clock.now_us

    def _sleep_until(
        self,
        target: Waitable,
        deadline_us: int | None,
        exclusive: bool,
        attempt: Callable[..., Any],
        args: tuple[Any, ...],
    ) -> Any:
        """Sleep and attempt until it succeeds or the deadline is over (sk_wait_event)."""
        waiter = Waiter(self.crew, self._bell, exclusive=exclusive)
        wq = target.wq
        target.hold()
        try:
            while True:
                wq.add(waiter.entry)
                try:
                    self._sleep(waiter, deadline_us)
                finally:
                    wq.remove(waiter.entry)
                if self.closed:
                    self._check_open()
                result = attempt(*args)
                if result is not NOT_YET:
                    waiter.fired = False
                    return result
                if deadline_us is not None and self._clock.now_us >= deadline_us:
                    return NOT_YET
                waiter.fired = False
        finally:
            if exclusive and waiter.fired:
                wq.wake_up(waiter.events)  # we leave without taking what we were woken for
            self._step_down(waiter)
            target.release()

    def _sleep(self, waiter: Waiter, deadline_us: int | None) -> None:
        """Sleep once, as the leader if there is none but the background thread."""
        if self._leaver == get_ident():
            self._comes_back = self._clock.now_us - self._left_us < COMES_BACK_US
        if not (self.crew.roused and self._comes_back):
            self._take_lead(waiter)
        elif self._leader is waiter:
            self._leader = None  # whoever was woken will be back to lead: its packets come next
        if self._leader is waiter:
            self.lead(waiter, deadline_us)
            return
        self._flush()  # what our attempt left to do may be what we wait for
        if not waiter.fired:
            self._follow(waiter, deadline_us)

    def _take_lead(self, waiter: Waiter) -> None:
        """Lead if nobody does but the background thread."""
        background = self._background.waiter
        if self._leader is background:
            background.rouse()
            self._leader = waiter
        elif self._leader is None:
            self._leader = waiter

    def lead(self, waiter: Waiter, deadline_us: int | None) -> None:
        """Wait for the wires, a timer, a ring or the deadline, then poll once.

        Called with the lock held by the leader, which the background thread may be; returns
        with it held, perhaps deposed.
        """
        if self._deferred:
            self._run_deferred()
        next_us = self.stack.next_deadline_us()
        if next_us is None or next_us > self._clock.now_us:
            if deadline_us is not None and (next_us is None or deadline_us < next_us):
                next_us = deadline_us
            self._sleep_as_leader(waiter, self._wires.fd, next_us)
        elif self.crew.roused or self._queueing:
            self._sleep_as_leader(waiter, -1, self._clock.now_us + YIELD_US)
        if self._leader is waiter and not self.closed:
            self._poll_once()

    def _sleep_as_leader(self, waiter: Waiter, wire_fd: int, until_us: int | None) -> None:
        now_us = self._clock.now_us
        timeout_us = -1 if until_us is None else max(0, until_us - now_us)
        self._asleep_until_us = NEVER_US if until_us is None else until_us
        waiter.asleep = True
        self._lock.release()
        try:
            self._sleep_on_wires(waiter.bell, wire_fd, timeout_us)
        finally:
            self._lock.acquire()
            waiter.asleep = False
            self._clock.now_us = woken_us = monotonic_us()
            waiter.bell.slept(woken_us - now_us)
            if waiter.roused_us:
                waiter.runs(now_us, woken_us)
            if self._leader is waiter:
                self._asleep_until_us = NOBODY_SLEEPS_US

    def _follow(self, waiter: Waiter, deadline_us: int | None) -> None:
        """Sleep until the leader's softirq wakes us, or we are to lead."""
        waiter.turn = turn = Lock()
        turn.acquire()
        waiter.asleep = True
        self._sleepers[waiter] = None
        now_us = self._clock.now_us
        timeout_us = -1 if deadline_us is None else max(0, deadline_us - now_us)
        self._lock.release()
        try:
            self._sleep_on_turn(turn, timeout_us)
        finally:
            self._lock.acquire()
            if waiter in self._sleepers:
                del self._sleepers[waiter]
            if not waiter.asleep:
                self.crew.roused -= 1
            waiter.asleep = False
            waiter.turn = None
            self._clock.now_us = monotonic_us()
            if waiter.roused_us:
                waiter.runs(now_us, self._clock.now_us)

    @exposed
    def _sleep_on_wires(self, bell: Doorbell, wire_fd: int, timeout_us: int) -> None:
        if self.interrupted:
            self._raise_interrupt()
        bell.wait(wire_fd, timeout_us)

    @exposed
    def _sleep_on_turn(self, turn: Lock, timeout_us: int) -> None:
        if self.interrupted:
            self._raise_interrupt()
        turn.acquire(timeout=-1 if timeout_us < 0 else timeout_us / 1e6)

    def _step_down(self, waiter: Waiter) -> None:
        """Leave; if nobody leads then, have a follower do it, or the background thread.

        The background thread does for the moment until a thread is back that mostly is at once.
        """
        self._leaver, self._left_us = get_ident(), self._clock.now_us
        if self._leader is waiter:
            self._leader = None
        if self.closed:
            self._close_descriptors_if_unused()
        elif self._leader is None and not self.crew.roused:
            if self._sleepers and not self._comes_back:
                next(iter(self._sleepers)).rouse()
            else:
                self._background.nudge()

    def _flush(self) -> None:
        """Do the work that a call left, poll now and then, call the leader for a new timer."""
        if self.closed:
            return
        if self._deferred:
            self._run_deferred()
        now_us, called_us = self._clock.now_us, self._last_call_us
        self._last_call_us = now_us
        if self._leader is self._background.waiter and now_us - called_us < DOZE_US:
            self._leader = None  # we come often: let it not contend with us
            self._background.waiter.rouse()
        overdue = busy = False
        if self._leader is None:
            polled_us = self.stack.net.busy_polled_us
            if polled_us > self._last_poll_us and self._wires.is_one:
                self._last_poll_us = polled_us  # a reader has looked at the wire: timers are left
                busy = polled_us - self._last_timers_us >= POLL_EVERY_US
            overdue = now_us - self._last_poll_us >= self._poll_every_us
            if not overdue and not busy and not self.stack.is_pending:
                return  # nobody sleeps too long, and who leads next looks at the timers
        self._last_timers_us = now_us
        next_us = self.stack.next_deadline_us()
        if overdue or (next_us is not None and next_us <= now_us):
            self._poll()
            next_us = self.stack.next_deadline_us()
        if next_us is not None and next_us < self._asleep_until_us and self._leader is not None:
            self._asleep_until_us = NOBODY_SLEEPS_US
            self._leader.bell.ring()

    def _poll(self) -> None:
        """Poll until there is nothing more to do, within bounds."""
        for _ in range(FLUSH_POLLS):
            if not self._poll_once():
                return
            self._clock.now_us = monotonic_us()

    def _poll_once(self) -> bool:
        if self._deferred:
            self._run_deferred()
        if self._host is not None:
            self._host.wake()
        now_us = self._clock.now_us
        is_more = self.stack.poll(now_us)
        self._last_poll_us = monotonic_us()
        pause_us = POLL_PAUSE * (self._last_poll_us - now_us)
        self._poll_every_us = min(max(pause_us, POLL_EVERY_US), POLL_SELDOM_US)
        return is_more

    def _run_deferred(self) -> None:
        while self._deferred:
            self._deferred.popleft()()

    def _check_open(self) -> None:
        if self.closed:
            if self.failure is not None:
                raise RuntimeError("the stack has failed") from self.failure
            if self.wire_lost is not None:
                raise OSError(self.wire_lost.errno, self.wire_lost.strerror)
            raise OSError(errno.ENETDOWN, os.strerror(errno.ENETDOWN))

    def _raise_interrupt(self) -> None:
        """Raise the Ctrl-C that came while the main thread was in the core."""
        if current_thread() is main_thread():
            self.interrupted = False
            raise KeyboardInterrupt

    def _close_descriptors_if_unused(self) -> None:
        if self._leader is None and not self._sleepers:
            self._close_descriptors()

    def _close_descriptors(self) -> None:
        self._wires.close()
        if self._host is not None:
            self._host.close()
            self._host = None
        self._bell.close()

    def _abandon_after_fork(self) -> None:
        """In a forked child: the stack is the parent's, let go of its wires."""
        self.closed = True
        self._lock = Lock()
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for fd in self.stack.filenos():
            os.dup2(null, fd, inheritable=False)  # the number stays the wire object's to close
        os.close(null)
        self._close_descriptors()


def _nothing() -> None:
    pass
