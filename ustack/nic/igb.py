"""The emulated igb: registers, rings reached by DMA, and an interrupt line.

Hardware only: it knows no driver, no packet buffer and no protocol beyond the checksum
offload. ``dma_rx`` is the step that moves frames from the wire into free descriptors,
``write_tdt`` the doorbell that sends; both set an interrupt cause, and handlers run when
the cause is enabled and its moderation interval (EITR) is over. Which receive ring a frame
lands in is the device's own hash (RSS). The work is done in C (``us_nic_*``), once per call,
not per frame. Names and layouts are those of Intel's 82576 datasheet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ustack.native.lib import ffi, lib
from ustack.native.mem import Mem
from ustack.nic.wire import Wire

MAX_QUEUES: int = lib.US_IGB_MAX_QUEUES
ANY_BYTES = (1 << 32) - 1
MAX_FRAME: int = lib.US_MAX_FRAME
"""Bytes of the longest frame: Ethernet header and 65535 bytes of IPv4 packet."""
RX_LIMIT = 256
"""Frames that one DMA step takes at most: a poll stays bounded even with a wire that never ends."""

IRQ_HELD: int = lib.US_NIC_IRQ_HELD
_UNIT_BYTES: int = lib.US_VNET_HDR_LEN + lib.US_MAX_FRAME


class IgbNic:
    """One device on one wire, reset, with all queues and interrupts off.

    Raises:
        MemoryError: There is no memory for the device.
        ValueError: The wire has more queues than the device.
    """

    def __init__(self, mem: Mem, wire: Wire) -> None:
        nic = lib.us_nic_create(mem.ptr)
        if nic == ffi.NULL:
            raise MemoryError("no memory for a NIC")
        self._nic: Any = ffi.gc(nic, lib.us_nic_destroy)
        self.wire = wire
        self.regs: Any = lib.us_nic_regs(nic)
        """The register file (``struct us_igb_regs``). Masks change through the methods."""
        self.irq_counts = [0] * MAX_QUEUES
        """Interrupts delivered, by vector (/proc/interrupts)."""
        self.irq_held: Callable[[int], None] | None = None
        """Called with the time, in us, when moderation will let a pending interrupt through."""
        self._handlers: list[Callable[[int], None] | None] = [None] * MAX_QUEUES
        self._is_dma = wire.dma_fd >= 0
        self._unit: Any = None if self._is_dma else ffi.new("uint8_t[]", _UNIT_BYTES)
        lib.us_nic_attach(self._nic, wire.dma_fd, lib.US_VNET_HDR_LEN if wire.vnet_hdr else 0)
        for fd in wire.more_fds:
            if lib.us_nic_attach_queue(self._nic, fd):
                raise ValueError(f"a wire of more than {MAX_QUEUES} queues")

    @property
    def c_nic_on_descriptor(self) -> Any:
        """``struct us_nic *`` of a device whose wire is a descriptor, else None."""
        return self._nic if self._is_dma else None

    @property
    def wire_error(self) -> int:
        """errno of a wire that is gone (a TAP that was deleted: EBADFD), 0 while it works."""
        error: int = self.regs.WIREERR
        return error

    def request_irq(self, vector: int, handler: Callable[[int], None]) -> None:
        """Call ``handler(vector)`` whenever the vector is delivered.

        Raises:
            ValueError: The vector has a handler (the driver's bug).
        """
        if self._handlers[vector] is not None:
            raise ValueError(f"vector {vector} has a handler")
        self._handlers[vector] = handler

    def free_irq(self, vector: int) -> None:
        """Undo ``request_irq``."""
        self._handlers[vector] = None

    def write_eims(self, vectors: int) -> None:
        """Enable interrupts (bits); a cause that waited is delivered before this returns."""
        delivered = lib.us_nic_write_eims(self._nic, vectors)
        if delivered:
            self._interrupt(delivered)

    def write_eimc(self, vectors: int) -> None:
        """Disable interrupts (bits); their causes are kept."""
        lib.us_nic_write_eimc(self._nic, vectors)

    def write_eics(self, vectors: int) -> None:
        """Set interrupt causes by software."""
        delivered = lib.us_nic_write_eics(self._nic, vectors)
        if delivered:
            self._interrupt(delivered)

    def write_eitr(self, vector: int, value: int) -> None:
        """Set a vector's moderation: quarter microseconds, and CNT_IGNR to keep the interval."""
        delivered = lib.us_nic_write_eitr(self._nic, vector, value)
        if delivered:
            self._interrupt(delivered)

    def expire_itr(self, now_us: int) -> None:
        """Deliver what moderation held back until ``now_us``."""
        self.regs.SYSTIM = now_us
        delivered = lib.us_nic_deliver_irq(self._nic)
        if delivered:
            self._interrupt(delivered)

    def dma(self, now_us: int, limit: int = RX_LIMIT) -> int:
        """Do one step: send what a full wire refused, then receive (``dma_rx``).

        Returns:
            Frames taken off the wire; -1 if it is gone (``wire_error``).
        """
        if self._is_dma:
            taken: int = lib.us_nic_dma(self._nic, now_us, limit, ANY_BYTES)
        else:
            self.regs.SYSTIM = now_us
            pending = lib.us_nic_tx_pending(self._nic)
            if pending:
                for queue in range(MAX_QUEUES):
                    if pending >> queue & 1:
                        self._send_units(queue)
            taken = self._receive_units(limit)
            if not taken and self.wire_error:
                taken = -1
        delivered = lib.us_nic_deliver_irq(self._nic)
        if delivered:
            self._interrupt(delivered)
        return taken

    def dma_rx(self, limit: int = RX_LIMIT) -> int:
        """Move up to ``limit`` frames from the wire into the receive rings.

        Returns:
            Frames taken off the wire, including those that had to be dropped.
        """
        if self._is_dma:
            taken: int = lib.us_nic_dma_rx(self._nic, limit)
        else:
            taken = self._receive_units(limit)
        delivered = lib.us_nic_deliver_irq(self._nic)
        if delivered:
            self._interrupt(delivered)
        return taken

    def write_tdt(self, queue: int, tail: int) -> None:
        """Ring the doorbell: the descriptors before ``tail`` are to be sent, and are sent."""
        done = lib.us_nic_write_tdt(self._nic, queue, tail)
        if not self._is_dma:
            done = self._send_units(queue)
        if done:
            delivered = lib.us_nic_deliver_irq(self._nic)
            if delivered:
                self._interrupt(delivered)

    def dma_tx(self, queue: int = 0) -> int:
        """Try again to send what a full wire refused; return the frames done with."""
        done: int = lib.us_nic_dma_tx(self._nic, queue)
        if not self._is_dma:
            done = self._send_units(queue)
        delivered = lib.us_nic_deliver_irq(self._nic)
        if delivered:
            self._interrupt(delivered)
        return done

    def close(self) -> None:
        """Switch the device off and let go of the wire; it touches no memory afterwards."""
        lib.us_nic_attach(self._nic, -1, 0)
        self.regs.RCTL = 0
        self.regs.TCTL = 0
        self.regs.EIMS = 0

    def _receive_units(self, limit: int) -> int:
        nic, receive = self._nic, self.wire.recv_frame
        taken = 0
        while taken < limit and lib.us_nic_rx_ready(nic):
            try:
                unit = receive()
            except OSError as error:
                self.regs.WIREERR = error.errno
                break
            if unit is None:
                break
            lib.us_nic_rx_frame(nic, unit, len(unit))
            taken += 1
        return taken

    def _send_units(self, queue: int) -> int:
        nic, unit, send = self._nic, self._unit, self.wire.send_frame
        done = 0
        while length := lib.us_nic_tx_frame(nic, queue, unit, _UNIT_BYTES):
            if not send(ffi.buffer(unit, length)[:]):
                break
            done += lib.us_nic_tx_done(nic, queue)
        return done

    def _interrupt(self, delivered: int) -> None:
        if delivered & IRQ_HELD and self.irq_held is not None:
            self.irq_held(self.regs.ITRDUE)
        vectors = delivered & ~IRQ_HELD
        while vectors:
            vector = (vectors & -vectors).bit_length() - 1
            vectors &= vectors - 1
            handler = self._handlers[vector] if vector < MAX_QUEUES else None
            if handler is not None:
                self.irq_counts[vector] += 1
                handler(vector)


def toeplitz(key: bytes, data: bytes) -> int:
    """Return the hash of receive side scaling over ``data``, fields in network order."""
    value: int = lib.us_toeplitz(key, data, len(data))
    return value
