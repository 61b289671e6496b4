"""Request and reply of one connection as one trace: what ``ustack trace --conn`` shows.

Three packet tracers share the profile hook, one for each way a packet can go. The first packet
with data that any of them has followed to its end is the request; the next one with data that
goes the other way on the same connection is the reply. Both are on one clock, so the time that
the application took in between is there as well.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from struct import unpack_from
from types import FrameType
from typing import TYPE_CHECKING, Any

from ustack.runtime.trace import KINDS, PacketTracer, PathTrace
from ustack.wire.ethernet import ETH_HLEN, ETH_P_IP
from ustack.wire.ipv4 import IPPROTO_TCP

if TYPE_CHECKING:
    from ustack.stack import Stack

Flow = tuple[int, int, int, int]
"""Source address and port, destination address and port."""
BACK = {"rx": "tx", "tx": "rx", "lo": "lo"}
"""The way that the reply to a packet takes."""


class ConnTracer:
    """Watches for one request and its reply in the thread that calls ``start``."""

    def __init__(
        self,
        stack: Stack,
        clock_ns: Callable[[], int],
        done: Callable[[PathTrace, PathTrace], None],
    ) -> None:
        """Prepare; ``done`` is called in the middle of the reply's way when it is complete."""
        self._done = done
        self._request: PathTrace | None = None
        self._tracers = [PacketTracer(stack, k, clock_ns, self._ended, go_on=True) for k in KINDS]
        self._on = False

    def start(self) -> None:
        """Begin to watch.

        Raises:
            ValueError: something else, perhaps another trace, profiles this thread.
        """
        if sys.getprofile() is not None:
            raise ValueError("another trace is running")
        self._on = True
        for tracer in self._tracers:
            tracer.watch()
        sys.setprofile(self._hook)

    def stop(self) -> None:
        """Watch no more; called in the thread that started."""
        if self._on:
            self._on = False
            sys.setprofile(None)
            for tracer in self._tracers:
                tracer.unwatch()

    def _hook(self, frame: FrameType, event: str, arg: Any) -> None:
        for tracer in self._tracers:
            tracer.profile(frame, event, arg)

    def _ended(self, trace: PathTrace) -> None:
        flow = tcp_data_flow(trace.data)
        if flow is None or not self._on:
            return
        request = self._request
        if request is None:
            self._request = trace
        elif trace.kind == BACK[request.kind] and flow == _reverse(request.data):
            self.stop()
            self._done(request, trace)


def tcp_data_flow(frame: bytes) -> Flow | None:
    """Return the flow of a frame that carries TCP data, None for any other."""
    if len(frame) < ETH_HLEN + 40:
        return None
    (ethertype,) = unpack_from("!H", frame, 12)
    vihl, _, length, _, _, _, proto, _, saddr, daddr = unpack_from("!BBHHHBBHII", frame, ETH_HLEN)
    tcp_at = ETH_HLEN + (vihl & 15) * 4
    if ethertype != ETH_P_IP or proto != IPPROTO_TCP or len(frame) < tcp_at + 20:
        return None
    sport, dport = unpack_from("!HH", frame, tcp_at)
    if ETH_HLEN + length <= tcp_at + (frame[tcp_at + 12] >> 4) * 4:
        return None
    return saddr, sport, daddr, dport


def _reverse(frame: bytes) -> Flow | None:
    flow = tcp_data_flow(frame)
    return None if flow is None else (*flow[2:], *flow[:2])
