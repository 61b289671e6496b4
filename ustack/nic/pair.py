"""Two ends of a wire in memory, for tests and for two stacks in one process.

``a, b = wire_pair()``: what one end sends the other receives, in order, as units of virtio
header and frame. As between two virtio NICs, what one end accepts (``set_offloads``) is
what the other may send (``features``).
"""

from __future__ import annotations

from collections import deque

from ustack.nic.wire import VNET_CSUM, VNET_TSO4, Wire


class PairWire(Wire):
    """One end; made by ``wire_pair``."""

    def __init__(self, incoming: deque[bytes], outgoing: deque[bytes], limit: int | None) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._limit = limit
        self._other: PairWire | None = None
        self.features = VNET_CSUM | VNET_TSO4

    def join(self, other: PairWire) -> None:
        """Make ``other`` the far end of this one."""
        self._other = other

    @property
    def pending(self) -> int:
        """Units that wait to be received at this end."""
        return len(self._incoming)

    def set_offloads(self, rx_csum: bool, lro: bool) -> None:
        """Change what the other end may send."""
        other = self._other
        if other is None:
            return
        other.features = VNET_CSUM if rx_csum else 0
        if rx_csum and lro:
            other.features |= VNET_TSO4
        if other.features_changed is not None:
            other.features_changed()

    def recv_frame(self) -> bytes | None:
        """Return the oldest unit that the other end sent."""
        return self._incoming.popleft() if self._incoming else None

    def send_frame(self, unit: bytes) -> bool:
        """Queue a unit for the other end; False if ``limit`` units wait there."""
        if self._limit is not None and len(self._outgoing) >= self._limit:
            return False
        if self._other is not None:
            self._outgoing.append(unit)
        return True

    def close(self) -> None:
        """Unplug this end: what waits here is lost, as is what the other end sends."""
        if self._other is not None:
            self._other._other = None
            self._other = None
        self._incoming.clear()


def wire_pair(limit: int | None = None) -> tuple[PairWire, PairWire]:
    """Return both ends of a new wire that holds ``limit`` units each way (None: any number)."""
    there: deque[bytes] = deque()
    back: deque[bytes] = deque()
    a = PairWire(back, there, limit)
    b = PairWire(there, back, limit)
    a.join(b)
    b.join(a)
    return a, b
