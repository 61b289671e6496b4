"""The stream behind ``ustack lat``: how long handshakes or calls of connect() take.

It listens at trace points of TCP while a client asks, and costs nothing otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ustack.daemon.messages import Done, LatencyRequest, LatencyResult, Started, encode
from ustack.lib.histogram import Log2Histogram

if TYPE_CHECKING:
    from ustack.stack import Stack
    from ustack.tcp.sock import TcpSock


class LatencyStream:
    """One client's histogram, sent when it is stopped."""

    def __init__(self, stack: Stack, request: LatencyRequest, notify: Callable[[], None]) -> None:
        """Start counting."""
        tcp = stack.tcp
        self._clock = stack.clock
        self._notify = notify
        self._started = False
        self._stopped = False
        self._histogram = Log2Histogram()
        handshakes = request.kind == "handshake"
        self._point = tcp.trace_handshake if handshakes else tcp.trace_connect
        self._probe: Callable[..., None] = self._handshake if handshakes else self._histogram.add
        self._point.attach(self._probe)
        self.finished = False
        """Whether ``Done`` has been yielded."""

    def stop(self) -> None:
        """Count no more; twice is once."""
        if not self._stopped:
            self._stopped = True
            self._point.detach(self._probe)
            self._notify()

    def messages(self) -> Iterator[bytes]:
        """Yield what there is; the next call goes on where this one ended."""
        if not self._started:
            self._started = True
            yield encode(Started())
        if self._stopped and not self.finished:
            self.finished = True
            yield encode(LatencyResult(self._histogram.buckets, self._histogram.total))
            yield encode(Done())

    def _handshake(self, _sk: TcpSock, began_us: int) -> None:
        self._histogram.add(self._clock.now_us - began_us)
