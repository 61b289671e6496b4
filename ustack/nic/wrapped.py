"""A wire around another wire: the base of those that impair, record or replay.

What a subclass does not override reaches the inner wire unchanged, so wrappers compose in any
order, around a wire in memory as around a TAP. The NIC calls ``recv_frame`` and ``send_frame``
of the outermost one: a wrapped TAP has no ``dma_fd``, its frames pass through Python.
"""

from __future__ import annotations

from collections.abc import Callable

from ustack.nic.wire import Wire


class WrappedWire(Wire):
    """``inner``, as it is; ``close`` closes it too."""

    def __init__(self, inner: Wire) -> None:
        self.inner = inner

    @property
    def name(self) -> str:
        """The innermost wire's name, empty if it has none."""
        return getattr(self.inner, "name", "")

    @property
    def features(self) -> int:  # type: ignore[override]
        """What may be sent over the inner wire."""
        return self.inner.features

    @property
    def tx_lost(self) -> int:  # type: ignore[override]
        """Units that the inner wire lost."""
        return self.inner.tx_lost

    @property
    def is_timed(self) -> bool:  # type: ignore[override]
        """Whether the inner wire is."""
        return self.inner.is_timed

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

    def filenos(self) -> list[int]:
        """Return the inner wire's descriptors."""
        return self.inner.filenos()

    def set_offloads(self, rx_csum: bool, lro: bool) -> None:
        """Pass on what this end accepts."""
        self.inner.set_offloads(rx_csum, lro)

    def recv_frame(self) -> bytes | None:
        """Return the inner wire's next unit."""
        return self.inner.recv_frame()

    def send_frame(self, unit: bytes) -> bool:
        """Send over the inner wire."""
        return self.inner.send_frame(unit)

    def next_deadline_us(self) -> int | None:
        """Return the inner wire's deadline."""
        return self.inner.next_deadline_us()

    def flush(self, now_us: int) -> int:
        """Let the inner wire send what is due."""
        return self.inner.flush(now_us)

    def close(self) -> None:
        """Close the inner wire."""
        self.inner.close()


def earlier(a_us: int | None, b_us: int | None) -> int | None:
    """Return the earlier of two deadlines, None if there is neither."""
    if a_us is None:
        return b_us
    return a_us if b_us is None else min(a_us, b_us)
