"""The stream behind ``ustack trace``: the path of one packet, or of a request and its reply."""

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
from ustack.runtime.trace_conn import ConnTracer

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
        self._traces: tuple[PathTrace, ...] = ()
        self.finished = False
        """Whether ``Done`` has been yielded."""
        self._tracer: PacketTracer | ConnTracer
        if request.kind == "conn":
            self._tracer = ConnTracer(stack, clock_ns, self._traced)
        else:
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
        traces, self._traces = self._traces, ()
        for trace in traces:
            yield encode(trace_message(trace, traces[0].hops[0].at_ns))
        if self._stopped and not self.finished:
            self.finished = True
            yield encode(Done())

    def _traced(self, *traces: PathTrace) -> None:
        self._traces = traces
        self.stop()


def trace_message(trace: PathTrace, begin_ns: int) -> PacketTrace:
    """Return the reply for a complete trace, its times since ``begin_ns``."""
    return PacketTrace(
        trace.kind,
        trace.device,
        trace.length,
        trace.data,
        [HopRow(hop.stage, hop.function, hop.at_ns - begin_ns) for hop in trace.hops],
        trace.end_ns - begin_ns,
    )
