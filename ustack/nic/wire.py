"""What a NIC can be plugged into: something that takes frames and gives frames.

A unit on a wire is a virtio header of 10 bytes (``struct virtio_net_hdr``, host byte
order) and an Ethernet frame, as on a TAP with IFF_VNET_HDR: the header says whether the
checksum is still partial and whether the frame is a TCP super-frame. ``IgbNic`` calls the
methods; a wire with a ``dma_fd`` it reads and writes itself, in C.
"""

from __future__ import annotations

from collections.abc import Callable

VNET_CSUM = 1
"""The far end takes frames whose transport checksum is partial."""
VNET_TSO4 = 2
"""The far end takes TCP over IPv4 super-frames."""

VNET_HDR_LEN = 10
VNET_HDR_NONE = bytes(VNET_HDR_LEN)
"""The header of a frame that is complete as it stands."""


class Wire:
    """One end of a wire; subclasses override what differs from a mute, deaf one."""

    features = 0
    """VNET_* bits: what may be sent. May change while the wire is in use."""
    vnet_hdr = True
    """Whether the header stands before each frame (False: a TAP without IFF_VNET_HDR)."""
    dma_fd = -1
    """Non-blocking descriptor on which each read and write is one unit, or -1."""
    more_fds: tuple[int, ...] = ()
    """Further descriptors like ``dma_fd``: the other queues of a wire that has several."""
    features_changed: Callable[[], None] | None = None
    """Called, if set, after ``features`` changed."""
    tx_lost = 0
    """Units that ``send_frame`` took and the far end refused for good."""
    is_timed = False
    """Whether time alone moves frames here: ``next_deadline_us`` and ``flush`` matter."""

    def fileno(self) -> int:
        """Return a descriptor that is readable when a frame waits, -1 if there is none."""
        return -1

    def filenos(self) -> list[int]:
        """Return every descriptor that is readable when a frame waits there."""
        return [fd for fd in (self.fileno(), *self.more_fds) if fd >= 0]

    def set_offloads(self, rx_csum: bool, lro: bool) -> None:
        """Say what this end accepts: partial checksums, super-frames (which need both)."""

    def recv_frame(self) -> bytes | None:
        """Return the next unit, None if nothing waits."""
        return None

    def send_frame(self, unit: bytes) -> bool:
        """Put one unit on the wire; False if it is full and the unit must be kept."""
        del unit
        return True

    def next_deadline_us(self) -> int | None:
        """Return the stack time at which ``flush`` or ``recv_frame`` has something to do."""
        return None

    def flush(self, now_us: int) -> int:
        """Send what was held back and is due; return how many units."""
        del now_us
        return 0

    def close(self) -> None:
        """Unplug. Nothing arrives any more, what is sent is lost."""
