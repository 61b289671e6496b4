"""The stream behind ``ustack trace``: one packet's path, once such a packet has come by."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ustack.daemon.messages import (
    Done,
    HopRow,
    PacketTrace,
    Started,
    TraceRequest,
    encode,
)
from ustack.runtime.trace import PacketTracer, PathTrace

if TYPE_CHECKING:
    from ustack.stack import Stack


class TraceStream:
    """One client's trace; ``messages`` yields what there is and returns."""

    def __init__(
        self,
        stack: Stack,
        request: TraceRequest,
        notify: Callable[[], None],
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        """Start watching; ``notify`` is called when the packet has come.

        Raises:
            ValueError: another trace is running.
        """
        self._notify = notify
        self._started = False
        self._stopped = False
        self._trace: PathTrace | None = None
        self.finished = False
        """Whether ``Done`` has been yielded."""
        self._tracer = PacketTracer(stack, request.kind, clock_ns, self._traced)
        self._tracer.start()

    def stop(self) -> None:
        """Watch no more."""
        if not self._stopped:
            self._stopped = True
            self._tracer.stop()
            self._notify()

    def messages(self) -> Iterator[bytes]:
        """Yield what there is; the next call goes on where this one ended."""
        if not self._started:
            self._started = True
            yield encode(Started())
        if self._trace is not None:
            trace, self._trace = self._trace, None
            yield encode(trace_message(trace))
        if self._stopped and not self.finished:
            self.finished = True
            yield encode(Done())

    def _traced(self, trace: PathTrace) -> None:
        self._trace = trace
        self.stop()


def trace_message(trace: PathTrace) -> PacketTrace:
    """Return the reply for a complete trace."""
    begin_ns = trace.hops[0].at_ns
    return PacketTrace(
        trace.kind,
        trace.device,
        trace.length,
        trace.data,
        [HopRow(hop.stage, hop.function, hop.at_ns - begin_ns) for hop in trace.hops],
        trace.end_ns - begin_ns,
    )
