"""The stream behind ``ustack ping``: echo requests at an interval, and what becomes of each.

The stack's own timers pace it, so that a request leaves when the stack says it is time. It
ends when each of ``count`` requests has a result; once there was a reply, the last ones are
waited for no longer than twice the longest round trip (or an interval), as iputils does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ustack.core.timer import Timer
from ustack.daemon.messages import (
    Done,
    PingRequest,
    PingResult,
    PingSummary,
    Reply,
    Started,
    encode,
)
from ustack.ipv4.ping import ECHO_BYTES_MAX, Echo
from ustack.lib.addresses import format_ipv4, parse_ipv4

if TYPE_CHECKING:
    from ustack.stack import Stack

INTERVAL_MIN_US = 1000
"""A client asks for no more than a thousand requests a second."""
WAIT_MAX_US = 3_600_000_000


class PingStream:
    """One client's ping; ``messages`` yields what there is and returns."""

    def __init__(
        self,
        stack: Stack,
        call: Callable[[Callable[[], Any]], Any],
        request: PingRequest,
        notify: Callable[[], None],
    ) -> None:
        """Send the first request; ``call`` runs a function of the stack with fresh time.

        Raises:
            ValueError: the address is none, or a number is out of its range.
        """
        check(request)
        self._stack = stack
        self._call = call
        self._request = request
        self._notify = notify
        self._daddr = parse_ipv4(request.address)
        self._ident = stack.net.rng.getrandbits(16)
        self._waiting: dict[Echo, int] = {}
        self._queue: deque[Reply] = deque([Started()])
        self._timer = Timer(self._on_timer)
        self._sent = 0
        self._longest_rtt_us: int | None = None
        self._begin_us = 0
        self._stopped = False
        self.finished = False
        """Whether ``Done`` has been yielded."""
        call(self._begin)

    def stop(self) -> None:
        """Send no more and wait for no more."""
        self._call(self._end)

    def messages(self) -> Iterator[bytes]:
        """Yield what there is; the next call goes on where this one ended."""
        while self._queue:
            yield encode(self._queue.popleft())
        if self._stopped and not self.finished:
            self.finished = True
            yield encode(Done())

    def _begin(self) -> None:
        self._begin_us = self._stack.clock.now_us
        self._send()

    def _on_timer(self, _arg: object) -> None:
        if self._all_sent():
            self._end()
        else:
            self._send()

    def _all_sent(self) -> bool:
        return 0 < self._request.count <= self._sent

    def _send(self) -> None:
        request = self._request
        self._sent += 1
        seq = self._sent
        try:
            echo = self._stack.ip.icmp.ping.send_echo(
                self._daddr,
                size=request.size,
                ident=self._ident,
                seq=seq & 0xFFFF,
                ttl=request.ttl,
                tos=request.tos,
                df=request.df,
                timeout_us=request.timeout_us,
                on_done=self._done,
            )
        except OSError as error:
            self._tell(PingResult(seq, failure=error.strerror or str(error)))
        else:
            self._waiting[echo] = seq
        if self._all_sent():
            self._wait_for_the_last()
        else:
            self._arm(request.interval_us)

    def _wait_for_the_last(self) -> None:
        if not self._waiting:
            self._end()
        elif self._longest_rtt_us is not None:
            self._arm(max(2 * self._longest_rtt_us, self._request.interval_us))
        # Otherwise each request's own time ends it.

    def _arm(self, delay_us: int) -> None:
        self._stack.net.timers.mod_timer(self._timer, self._stack.clock.now_us + delay_us)

    def _done(self, echo: Echo) -> None:
        seq = self._waiting.pop(echo)
        if echo.rtt_us is not None:
            self._longest_rtt_us = max(echo.rtt_us, self._longest_rtt_us or 0)
        self._tell(
            PingResult(
                seq,
                rtt_us=echo.rtt_us,
                ttl=echo.ttl,
                length=echo.reply_bytes,
                intact=echo.intact or echo.rtt_us is None,
                error=echo.error,
                sender=format_ipv4(echo.error_from) if echo.error else "",
                mtu=echo.mtu,
            )
        )
        if self._all_sent() and not self._waiting:
            self._end()

    def _end(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        self._stack.net.timers.del_timer(self._timer)
        for echo in self._waiting:
            self._stack.ip.icmp.ping.cancel(echo)
        self._waiting.clear()
        self._tell(PingSummary(self._sent, self._stack.clock.now_us - self._begin_us))

    def _tell(self, reply: Reply) -> None:
        self._queue.append(reply)
        self._notify()


def check(request: PingRequest) -> None:
    """Refuse numbers that make no sense.

    Raises:
        ValueError: which one.
    """
    ranges = {
        "count": (0, 1 << 32),
        "size": (0, ECHO_BYTES_MAX),
        "interval_us": (INTERVAL_MIN_US, WAIT_MAX_US),
        "timeout_us": (INTERVAL_MIN_US, WAIT_MAX_US),
        "ttl": (0, 255),
        "tos": (0, 255),
    }
    for name, (least, most) in ranges.items():
        if not least <= getattr(request, name) <= most:
            raise ValueError(f"{name} must be from {least} to {most}")
