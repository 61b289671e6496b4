"""The thread that keeps a stack alive while no other thread waits in it.

It dozes for some milliseconds when the lead falls vacant, since callers mostly come back
sooner, and the longer the busier they are; leads when nobody has polled meanwhile; and sleeps
when somebody else leads and nothing happens. So it costs a busy program next to nothing, and
one that computes has its timers and its ACKs.
"""

from __future__ import annotations

from threading import Lock, Thread
from typing import TYPE_CHECKING

from ustack.runtime.clock import monotonic_us
from ustack.runtime.waiter import Waiter
from ustack.runtime.wires import Doorbell, Spin

if TYPE_CHECKING:
    from ustack.runtime.threaded import ThreadedRuntime

DOZE_US = 2000
"""How long the lead may be vacant at first, in microseconds."""
LONG_DOZE_US = 8_000
"""How long at most when callers keep coming: a packet then waits at most twice this."""


class BackgroundThread:
    """The lowest follower of one runtime; its fields belong to the runtime's lock."""

    def __init__(self, runtime: ThreadedRuntime) -> None:
        self._runtime = runtime
        self.waiter = Waiter(runtime.crew, Doorbell(Spin(most=0)))
        self._turn = Lock()
        self._turn.acquire()
        self._sound_asleep = False
        self._doze_us = DOZE_US
        self._doze_began_us = 0
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
            runtime.fail(exc)
            raise

    def _take_turn(self) -> None:
        """Lead, doze or sleep once, as the lead demands."""
        runtime = self._runtime
        if runtime._leader is self.waiter:
            runtime.lead(self.waiter, None)
            return
        now_us = monotonic_us()
        if runtime._last_poll_us >= self._doze_began_us:  # somebody polls: not our turn yet
            self._doze_began_us = now_us
            self._sleep(self._doze_us / 1e6)
            self._doze_us = min(2 * self._doze_us, LONG_DOZE_US)
            return
        self._doze_us = DOZE_US
        if runtime._leader is None:
            runtime._leader = self.waiter
            runtime._clock.now_us = now_us
        else:
            self._sound_asleep = True
            self._sleep(-1)

    def _sleep(self, timeout_s: float) -> None:
        lock = self._runtime._lock
        lock.release()
        try:
            self._turn.acquire(timeout=timeout_s)
        finally:
            lock.acquire()
