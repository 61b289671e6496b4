"""Wires that write down what passes, and that play back what was written down.

``RecordingWire`` hands every frame that crosses it to a sink, such as the writers of
``wire/pcap.py``; between two wrappers it shows what the outer one lets through and the inner one
has not seen yet. ``ReplayWire`` lets the frames of a capture arrive at their own distances in
time, beside what the inner wire brings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from ustack.lib.clock import StackClock
from ustack.nic.wire import VNET_HDR_LEN, VNET_HDR_NONE, Wire
from ustack.nic.wrapped import WrappedWire, earlier

NEVER_US = 1 << 62
"""A time that does not come."""


class PacketSink(Protocol):
    """What a recorder writes to."""

    def packet(
        self, ts_us: int, length: int, data: bytes, *, device: str = "", outgoing: bool = False
    ) -> None:
        """Take one frame of ``length`` bytes."""


class RecordingWire(WrappedWire):
    """``inner``, with a copy of each frame for ``sink``.

    Args:
        inner: The wire; it becomes this one's to close.
        clock: The stack's clock.
        sink: Written to at once; stays the caller's to close.
        epoch_us: Added to stack time: the wall clock's microseconds at stack time 0.
        device: The interface's name in the recording.
    """

    def __init__(
        self,
        inner: Wire,
        clock: StackClock | Any,
        sink: PacketSink,
        *,
        epoch_us: int = 0,
        device: str = "eth0",
    ) -> None:
        super().__init__(inner)
        self._clock = clock
        self._sink = sink
        self._epoch_us = epoch_us
        self._device = device

    def recv_frame(self) -> bytes | None:
        """Return the inner wire's next unit, recorded."""
        unit = self.inner.recv_frame()
        if unit is not None:
            self._record(unit, outgoing=False)
        return unit

    def send_frame(self, unit: bytes) -> bool:
        """Send; what the inner wire has no room for is not recorded yet."""
        sent = self.inner.send_frame(unit)
        if sent:
            self._record(unit, outgoing=True)
        return sent

    def _record(self, unit: bytes, *, outgoing: bool) -> None:
        frame = unit[VNET_HDR_LEN:]
        ts_us = self._epoch_us + self._clock.now_us
        self._sink.packet(ts_us, len(frame), frame, device=self._device, outgoing=outgoing)


class ReplayWire(WrappedWire):
    """``inner``, with the frames of a capture arriving as well.

    Args:
        inner: The wire; a bare ``Wire()`` for a replay alone.
        clock: The stack's clock; the first frame arrives at its present time.
        packets: (time in microseconds, frame) in order, read as they are needed.
        speed: Captured seconds per second; 0: all at once.
        paused: Nothing arrives before ``resume``, which is the first frame's time then.
    """

    is_timed = True

    def __init__(
        self,
        inner: Wire,
        clock: StackClock | Any,
        packets: Iterable[tuple[int, bytes]],
        *,
        speed: float = 1.0,
        paused: bool = False,
    ) -> None:
        super().__init__(inner)
        self._clock = clock
        self._packets: Iterator[tuple[int, bytes]] = iter(packets)
        self._speed = speed
        self._start_us = NEVER_US if paused else clock.now_us
        self._first_us: int | None = None
        self._due_us = 0
        self._next: bytes | None = None
        self.replayed = 0
        self._fetch()

    def resume(self) -> None:
        """Begin what was made ``paused``."""
        if self._start_us == NEVER_US:
            self._start_us = self._due_us = self._clock.now_us

    @property
    def finished(self) -> bool:
        """Whether every frame has been played."""
        return self._next is None

    def recv_frame(self) -> bytes | None:
        """Return the captured frame that is due, else the inner wire's next unit."""
        frame = self._next
        if frame is None or self._due_us > self._clock.now_us:
            return self.inner.recv_frame()
        self.replayed += 1
        self._fetch()
        return VNET_HDR_NONE + frame

    def next_deadline_us(self) -> int | None:
        """Return when the next frame of the capture is due."""
        waits = self._next is None or self._start_us == NEVER_US
        own = None if waits else self._due_us
        return earlier(own, self.inner.next_deadline_us())

    def _fetch(self) -> None:
        entry = next(self._packets, None)
        if entry is None:
            self._next = None
            return
        ts_us, self._next = entry
        if self._first_us is None:
            self._first_us = ts_us
        offset = (ts_us - self._first_us) / self._speed if self._speed else 0
        self._due_us = self._start_us + max(0, int(offset))
