"""The thread that keeps a stack alive while no other thread waits in it.

It dozes for some milliseconds when the lead falls vacant, since callers mostly come back
sooner; leads when nobody has polled meanwhile; and sleeps as long as somebody else leads. So
it costs a busy program next to nothing, and an idle one has its timers and its ACKs.
"""

from __future__ import annotations

from threading import Lock, Thread
from typing import TYPE_CHECKING

from ustack.runtime.clock import monotonic_us
from ustack.runtime.waiter import Waiter
from ustack.runtime.wires import Doorbell

if TYPE_CHECKING:
    from ustack.runtime.threaded import ThreadedRuntime

DOZE_US = 2000
"""How long the lead may be vacant, in microseconds: a packet then waits no longer than this."""


class BackgroundThread:
    """The lowest follower of one runtime; its fields belong to the runtime's lock."""

    def __init__(self, runtime: ThreadedRuntime) -> None:
        self._runtime = runtime
        self.waiter = Waiter(runtime.crew, Doorbell(spin_max=0))
        self._turn = Lock()
        self._turn.acquire()
        self._sound_asleep = False
        self._thread = Thread(target=self._run, name="ustack-background", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def nudge(self) -> None:
        """The lead is vacant: begin to doze, if asleep."""
        if self._sound_asleep:
            self._sound_asleep = False
            self._turn.release()

    def stop(self) -> None:
        """End the thread, whose runtime is closed; called without the lock."""
        with self._runtime._lock:
            self.nudge()
            self.waiter.bell.ring()
        self._thread.join()
        self.waiter.bell.close()

    def _run(self) -> None:
        runtime = self._runtime
        try:
            with runtime._lock:
                while not runtime.closed:
                    self._take_turn()
        except BaseException as exc:  # a bug in the core: every caller must hear of it
            runtime.failure = exc
            runtime.closed = True
            for waiter in tuple(runtime._sleepers):
                waiter.rouse()
            raise

    def _take_turn(self) -> None:
        """Lead, doze or sleep once, as the lead demands."""
        runtime = self._runtime
        if runtime._leader is self.waiter:
            runtime.lead(self.waiter, None)
        elif runtime._leader is not None:
            self._sound_asleep = True
            self._sleep(-1)
        elif monotonic_us() - runtime._last_poll_us >= DOZE_US:
            runtime._leader = self.waiter
            runtime._clock.now_us = monotonic_us()
        else:
            self._sleep(DOZE_US / 1e6)

    def _sleep(self, timeout_s: float) -> None:
        lock = self._runtime._lock
        lock.release()
        try:
            self._turn.acquire(timeout=timeout_s)
        finally:
            lock.acquire()
