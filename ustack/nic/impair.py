"""A wire that loses, duplicates, corrupts, delays, reorders and limits, all from one seed.

``ImpairedWire`` impairs one direction of another wire: what is sent, or with ``received`` what
comes in; two of them, one around the other, impair both. Frames that are held back lie in a
heap by due time (``Stack`` asks for the deadline and flushes). The same random generator and
the same calls give the same run. tc-netem and tc-tbf are the models.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

from ustack.lib.clock import StackClock
from ustack.nic.wire import VNET_HDR_LEN, Wire
from ustack.nic.wrapped import WrappedWire, earlier

RETRY_US = 1000
"""When to try again what the inner wire, being full, refused."""
RX_BURST = 4096
"""Units taken from the inner wire at a time: more than a TAP's own queue holds."""


@dataclass(frozen=True, slots=True)
class Impairment:
    """What happens to frames; probabilities from 0 to 1, times in microseconds."""

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    """Probability of waiting ``reorder_delay_us`` more, so that later frames overtake."""
    corrupt: float = 0.0
    """Probability that one bit of the frame is inverted."""
    delay_us: int = 0
    jitter_us: int = 0
    """Up to so much is added to the delay, evenly distributed."""
    reorder_delay_us: int = 1000
    rate_bps: int = 0
    """Bits per second of Ethernet frame; 0 for no limit."""
    queue_bytes: int = 256 * 1024
    """What may wait for ``rate_bps``; a frame that does not fit is dropped."""
    limit_pkts: int = 0
    """Frames held at a time (netem's ``limit``); 0 for any number."""


class ImpairedWire(WrappedWire):
    """``inner`` with faults on what is sent, or with ``received`` on what comes in.

    Every frame waits for its turn at ``rate_bps``, then ``delay_us`` plus up to ``jitter_us``.
    Equal due times keep their order. Where frames are corrupted, partial checksums and
    super-frames are neither offered nor accepted: nobody would notice the wrong bit.

    Args:
        inner: The wire; it becomes this one's to close.
        clock: The clock of the stack whose NIC is plugged in here.
        rng: ``random.Random`` or alike, seeded by the caller.
        received: Impair what comes in instead of what is sent.
        faults: The fields of ``Impairment``.
    """

    is_timed = True

    def __init__(
        self,
        inner: Wire,
        clock: StackClock | Any,
        rng: Any,
        *,
        received: bool = False,
        **faults: Any,
    ) -> None:
        super().__init__(inner)
        self.faults = Impairment(**faults)
        self.received = received
        self._clock = clock
        self._rng = rng
        self.lost = 0
        self.duplicated = 0
        self.reordered = 0
        self.corrupted = 0
        self.overlimits = 0
        """Frames dropped because ``queue_bytes`` or ``limit_pkts`` were full."""
        self._held: list[tuple[int, int, bytes]] = []
        self._count = 0
        self._line_free_us = 0
        self._waiting: deque[tuple[int, int]] = deque()
        """(departure, bytes) of frames that wait for the line."""
        self._waiting_bytes = 0
        self._retry_us = 0

    @property
    def features(self) -> int:  # type: ignore[override]
        """What may be sent over the inner wire."""
        return 0 if self.faults.corrupt and not self.received else self.inner.features

    @property
    def held(self) -> int:
        """Frames that wait."""
        return len(self._held)

    def set_offloads(self, rx_csum: bool, lro: bool) -> None:
        """Pass on what this end accepts."""
        takes = not (self.faults.corrupt and self.received)
        self.inner.set_offloads(rx_csum and takes, lro and takes)

    def recv_frame(self) -> bytes | None:
        """Return the next unit that is due."""
        if not self.received:
            return self.inner.recv_frame()
        for _ in range(RX_BURST):
            unit = self.inner.recv_frame()
            if unit is None:
                break
            self._take(unit)
        held = self._held
        if held and held[0][0] <= self._clock.now_us:
            return heappop(held)[2]
        return None

    def send_frame(self, unit: bytes) -> bool:
        """Lose, hold or send ``unit``; the sender always takes it for sent."""
        if self.received:
            return self.inner.send_frame(unit)
        self._take(unit)
        self.flush(self._clock.now_us)
        return True

    def next_deadline_us(self) -> int | None:
        """Return when the next held frame is due, None if none is held."""
        if not self._held:
            return self.inner.next_deadline_us()
        return earlier(max(self._held[0][0], self._retry_us), self.inner.next_deadline_us())

    def flush(self, now_us: int) -> int:
        """Send the held frames that are due; return how many."""
        count = 0
        self._retry_us = 0
        while not self.received and self._held and self._held[0][0] <= now_us:
            if not self.inner.send_frame(self._held[0][2]):
                self._retry_us = now_us + RETRY_US
                break
            heappop(self._held)
            count += 1
        return count + self.inner.flush(now_us)

    def close(self) -> None:
        """Drop what is held and close the inner wire."""
        self._held.clear()
        super().close()

    def _take(self, unit: bytes) -> None:
        faults = self.faults
        if self._happens(faults.loss):
            self.lost += 1
            return
        if self._happens(faults.corrupt):
            self.corrupted += 1
            unit = self._with_inverted_bit(unit)
        self._hold(unit)
        if self._happens(faults.duplicate):
            self.duplicated += 1
            self._hold(unit)

    def _hold(self, unit: bytes) -> None:
        faults = self.faults
        if faults.limit_pkts and len(self._held) >= faults.limit_pkts:
            self.overlimits += 1
            return
        due_us = self._clock.now_us
        if faults.rate_bps:
            departure_us = self._queue_for_line(due_us, len(unit) - VNET_HDR_LEN)
            if departure_us is None:
                self.overlimits += 1
                return
            due_us = departure_us
        due_us += faults.delay_us
        if faults.jitter_us:
            due_us += self._rng.randrange(faults.jitter_us + 1)
        if self._happens(faults.reorder):
            self.reordered += 1
            due_us += faults.reorder_delay_us
        heappush(self._held, (due_us, self._count, unit))
        self._count += 1

    def _queue_for_line(self, now_us: int, size: int) -> int | None:
        """Return when a frame will have left at ``rate_bps``, None if the queue is full."""
        waiting = self._waiting
        while waiting and waiting[0][0] <= now_us:
            self._waiting_bytes -= waiting.popleft()[1]
        if self._waiting_bytes + size > self.faults.queue_bytes:
            return None
        start_us = max(now_us, self._line_free_us)
        self._line_free_us = start_us + -(-size * 8_000_000 // self.faults.rate_bps)
        waiting.append((self._line_free_us, size))
        self._waiting_bytes += size
        return self._line_free_us

    def _with_inverted_bit(self, unit: bytes) -> bytes:
        bit = self._rng.randrange((len(unit) - VNET_HDR_LEN) * 8)
        spoiled = bytearray(unit)
        spoiled[VNET_HDR_LEN + bit // 8] ^= 1 << bit % 8
        return bytes(spoiled)

    def _happens(self, probability: float) -> bool:
        """Draw only when there is something to decide: unused faults cost no randomness."""
        return probability > 0 and bool(self._rng.getrandbits(32) < probability * 2**32)
