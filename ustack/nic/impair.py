"""A wire that loses, duplicates, corrupts, delays and reorders, all from one seed.

``ImpairedWire`` wraps the sending side of another wire; wrap both ends to impair both ways.
Frames that are held back lie in a heap by due time until ``flush``. The same random
generator and the same calls give the same run (tc-netem is the model).
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from ustack.lib.clock import StackClock
from ustack.nic.wire import VNET_HDR_LEN, Wire


class ImpairedWire(Wire):
    """``inner`` with faults on what is sent; probabilities from 0 to 1, times in microseconds.

    Every frame waits ``delay_us`` plus up to ``jitter_us``; with probability ``reorder`` it
    waits ``reorder_delay_us`` more, so that later ones overtake it. Equal due times keep
    their order. ``corrupt`` inverts one bit of the frame.
    """

    dma_fd = -1

    def __init__(
        self,
        inner: Wire,
        clock: StackClock | Any,
        rng: Any,
        *,
        loss: float = 0.0,
        duplicate: float = 0.0,
        reorder: float = 0.0,
        corrupt: float = 0.0,
        delay_us: int = 0,
        jitter_us: int = 0,
        reorder_delay_us: int = 1000,
    ) -> None:
        self.inner = inner
        self._clock = clock
        self._rng = rng
        self.loss = loss
        self.duplicate = duplicate
        self.reorder = reorder
        self.corrupt = corrupt
        self.delay_us = delay_us
        self.jitter_us = jitter_us
        self.reorder_delay_us = reorder_delay_us
        self.lost = 0
        self.duplicated = 0
        self.reordered = 0
        self.corrupted = 0
        self._held: list[tuple[int, int, bytes]] = []
        self._sent = 0

    @property
    def features(self) -> int:  # type: ignore[override]
        """What may be sent over the inner wire."""
        return self.inner.features

    @property
    def features_changed(self) -> Callable[[], None] | None:
        """Called by the inner wire."""
        return self.inner.features_changed

    @features_changed.setter
    def features_changed(self, callback: Callable[[], None] | None) -> None:
        self.inner.features_changed = callback

    def fileno(self) -> int:
        """Return the inner wire's descriptor."""
        return self.inner.fileno()

    def set_offloads(self, rx_csum: bool, lro: bool) -> None:
        """Pass on what this end accepts."""
        self.inner.set_offloads(rx_csum, lro)

    def recv_frame(self) -> bytes | None:
        """Return the inner wire's next unit, unimpaired."""
        return self.inner.recv_frame()

    def send_frame(self, unit: bytes) -> bool:
        """Lose, hold or send ``unit``; the sender always takes it for sent."""
        if self._happens(self.loss):
            self.lost += 1
            return True
        if self._happens(self.corrupt):
            self.corrupted += 1
            unit = self._with_inverted_bit(unit)
        self._hold(unit)
        if self._happens(self.duplicate):
            self.duplicated += 1
            self._hold(unit)
        self.flush(self._clock.now_us)
        return True

    def next_deadline_us(self) -> int | None:
        """Return when the next held frame is due, None if none is held."""
        return self._held[0][0] if self._held else None

    def flush(self, now_us: int) -> int:
        """Send the held frames that are due; return how many."""
        count = 0
        while self._held and self._held[0][0] <= now_us:
            if not self.inner.send_frame(self._held[0][2]):
                break
            heappop(self._held)
            count += 1
        return count

    def close(self) -> None:
        """Drop what is held and close the inner wire."""
        self._held.clear()
        self.inner.close()

    def _hold(self, unit: bytes) -> None:
        due_us = self._clock.now_us + self.delay_us
        if self.jitter_us:
            due_us += self._rng.randrange(self.jitter_us + 1)
        if self._happens(self.reorder):
            self.reordered += 1
            due_us += self.reorder_delay_us
        heappush(self._held, (due_us, self._sent, unit))
        self._sent += 1

    def _with_inverted_bit(self, unit: bytes) -> bytes:
        bit = self._rng.randrange((len(unit) - VNET_HDR_LEN) * 8)
        spoiled = bytearray(unit)
        spoiled[VNET_HDR_LEN + bit // 8] ^= 1 << bit % 8
        return bytes(spoiled)

    def _happens(self, probability: float) -> bool:
        """Draw only when there is something to decide: unused faults cost no randomness."""
        return probability > 0 and bool(self._rng.getrandbits(32) < probability * 2**32)
