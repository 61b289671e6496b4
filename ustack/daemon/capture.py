"""A packet tap for ``ustack tcpdump``: what ptype_all sees, queued for one client.

``dev_add_pack`` calls ``Capture.tap`` for each packet in and out, in the middle of the
packet's path; the tap runs the client's filter, copies what the client wants and returns. The
queue is limited, as a packet socket's receive buffer is: a client that reads too slowly loses
packets, which are counted and reported at the end ("packets dropped by kernel").
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ustack.daemon.bpf import PacketFilter, frame_bytes
from ustack.daemon.messages import CaptureRequest, Done, Started, encode, packet_messages

if TYPE_CHECKING:
    from ustack.core.net import Net
    from ustack.core.netdevice import NetDevice
    from ustack.core.skb import Skb

QUEUE_BYTES = 8 * 1024 * 1024
"""Captured bytes waiting for the client (tcpdump's default buffer is 2 MiB)."""
PACKET_OVERHEAD_BYTES = 256
"""Added to each packet's bytes, so that small packets have a limit too."""


class Capture:
    """One client's capture; ``messages`` yields what there is and returns."""

    def __init__(self, net: Net, request: CaptureRequest, notify: Callable[[], None]) -> None:
        """Start capturing; ``notify`` is called when the queue stops being empty.

        Raises:
            ValueError: no such device, a negative number, or no filter: the client's fault.
        """
        if request.device and request.device not in net.devices:
            raise ValueError(f"{request.device}: No such device exists")
        if request.snaplen <= 0 or request.count < 0:
            raise ValueError("snaplen must be positive and count not negative")
        self._filter = PacketFilter(request.filter) if request.filter else None
        self._unwanted = {"in": True, "out": False}.get(request.direction)
        """The ``outgoing`` of packets that were not asked for."""
        self._net = net
        self._request = request
        self._notify = notify
        self._queue: deque[tuple[int, int, bytes, bool, str]] = deque()
        self._queued_bytes = 0
        self._started = False
        self._stopped = False
        self._captured = 0
        self.received = 0
        """Packets that the filter let through."""
        self.dropped = 0
        """Packets for which the queue had no room."""
        self.finished = False
        """Whether ``Done`` has been yielded."""
        net.dev_add_pack(None, self.tap)

    def stop(self) -> None:
        """Capture no more; what is queued is still delivered."""
        if not self._stopped:
            self._stopped = True
            self._net.dev_remove_pack(None, self.tap)
            self._notify()

    def tap(self, skb: Skb, dev: NetDevice, outgoing: bool) -> None:
        """Queue a copy of one packet (packet_rcv)."""
        request = self._request
        if self._stopped or (request.device and dev.name != request.device):
            return
        if outgoing is self._unwanted:
            return
        length = len(skb)
        if self._filter is not None and not self._filter.matches(self._net, skb, length):
            return
        self.received += 1
        keep = min(length, request.snaplen)
        if self._queued_bytes + keep + PACKET_OVERHEAD_BYTES > QUEUE_BYTES:
            self.dropped += 1
            return
        was_empty = not self._queue
        data = frame_bytes(self._net, skb, keep)
        self._queue.append((time.time_ns() // 1000, length, data, outgoing, dev.name))
        self._queued_bytes += len(data) + PACKET_OVERHEAD_BYTES
        self._captured += 1
        if self._captured == request.count:
            self.stop()
        elif was_empty:
            self._notify()

    def messages(self) -> Iterator[bytes]:
        """Yield what is queued; the next call goes on where this one ended."""
        if not self._started:
            self._started = True
            yield encode(Started())
        while self._queue:
            ts_us, length, data, outgoing, device = self._queue.popleft()
            self._queued_bytes -= len(data) + PACKET_OVERHEAD_BYTES
            yield from packet_messages(ts_us, length, data, outgoing=outgoing, device=device)
        if self._stopped and not self.finished:
            self.finished = True
            yield encode(Done(self.received, self.dropped))
