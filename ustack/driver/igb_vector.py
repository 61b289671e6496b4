"""One interrupt vector of the igb driver and the pair of rings that it serves (igb_q_vector).

Each has its own NAPI, so that its interrupt's affinity says which softnet context polls it.
``igb_msix_ring`` (the hard interrupt) only schedules NAPI. ``igb_poll`` (in the softirq)
cleans the transmit ring, then receives up to 64 frames; only when both are empty does it
set the moderation anew and enable the interrupt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ustack.core.gro import napi_gro_flush
from ustack.core.napi import Napi, napi_complete, napi_disable, napi_enable, napi_schedule
from ustack.driver.igb_ethtool import QueueStats
from ustack.driver.igb_rx import (
    IgbRxRing,
    igb_clean_rx_irq,
    igb_configure_rx,
    igb_free_rx_resources,
    igb_setup_rx_resources,
)
from ustack.driver.igb_tx import (
    IgbTxRing,
    igb_clean_tx_irq,
    igb_configure_tx,
    igb_free_tx_resources,
    igb_setup_tx_resources,
)
from ustack.native.lib import ffi, lib

if TYPE_CHECKING:
    from ustack.driver.igb import IgbAdapter

ADAPTIVE_SETTINGS = (1, 3)
"""Values of rx-usecs that mean a class, not a time (igb_set_coalesce)."""
_CNT_IGNR: int = lib.US_E1000_EITR_CNT_IGNR


class IgbQVector:
    """Vector ``index`` of an adapter, its rings absent while the interface is down."""

    def __init__(self, adapter: IgbAdapter, index: int) -> None:
        self.adapter = adapter
        self.index = index
        """Number of the vector and of both queues."""
        self.bit = 1 << index
        cpu = index % len(adapter.net.softnets)
        self.napi = Napi(adapter.net, adapter, self.igb_poll, cpu=cpu)
        napi_disable(self.napi)
        regs = adapter.nic.regs
        self.rxq: Any = regs.rxq + index
        self.txq: Any = regs.txq + index
        self.rx: IgbRxRing | None = None
        self.tx: IgbTxRing | None = None
        self.xmit_queue: Any = adapter.xmit_queues + index
        self.itr: Any = ffi.new("struct us_igb_itr *")
        self.is_adaptive = False
        self.rx_total = QueueStats()
        """What rings that no longer exist have counted."""
        self.tx_total = QueueStats()
        self._irqs_by_cpu = [0] * len(adapter.net.softnets)
        self._irqs_counted = 0

    # Up and down.

    def setup_resources(self) -> None:
        """Allocate both rings.

        Raises:
            MemoryError: The arena is too small; nothing is allocated.
        """
        adapter = self.adapter
        config, mem = adapter.config, adapter.net.mem
        self.tx = igb_setup_tx_resources(mem, config.tx_ring)
        try:
            self.rx = igb_setup_rx_resources(
                mem, config.rx_ring, adapter.has_large_buffers, config.queues
            )
        except (MemoryError, ValueError):
            igb_free_tx_resources(self.tx)
            self.tx = None
            raise
        self.xmit_queue.ring = self.tx.ring

    def up(self) -> None:
        """Hand the rings to the device and take interrupts."""
        igb_configure_tx(self)
        igb_configure_rx(self)
        nic = self.adapter.nic
        nic.regs.IVAR[self.index] = self.index
        nic.request_irq(self.index, self.igb_msix_ring)
        self.set_rx_usecs(self.adapter.config.rx_usecs)
        napi_enable(self.napi)

    def down(self) -> None:
        """Stop polling and interrupts; the device forgets the rings."""
        napi_disable(self.napi)
        self.adapter.nic.free_irq(self.index)
        self.rxq.RXDCTL = 0
        self.txq.TXDCTL = 0
        self.txq.TDH = self.txq.TDT = 0

    def free_resources(self) -> None:
        """Give the rings back; their counts stay."""
        self.xmit_queue.ring = ffi.NULL
        if self.rx is not None:
            igb_free_rx_resources(self.rx, self.rx_total)
        if self.tx is not None:
            igb_free_tx_resources(self.tx, self.tx_total)
        self.rx = self.tx = None

    # The path of packets.

    def igb_msix_ring(self, vector: int) -> None:
        """Handle the hard interrupt: schedule the poll and nothing else."""
        del vector
        napi_schedule(self.napi)

    def igb_poll(self, napi: Napi, budget: int) -> int:
        """Clean the transmit ring, then receive at most ``budget`` frames (igb_poll).

        Returns:
            Frames received; ``budget`` also if transmit cleaning was not finished. Less than
            that means that polling ended and the interrupt is enabled again.
        """
        tx_is_clean = igb_clean_tx_irq(self)
        work = igb_clean_rx_irq(self, budget)
        if work >= budget or not tx_is_clean:
            return budget
        napi_complete(napi)
        rx, tx = self.rx, self.tx
        if rx is None or tx is None:
            return work  # a packet has taken the interface down
        nic = self.adapter.nic
        if self.is_adaptive:
            itr = lib.us_igb_set_itr(self.itr, rx.ring, tx.ring)
            if itr >= 0:
                nic.write_eitr(self.index, itr | _CNT_IGNR)
        nic.write_eims(self.bit)
        return work

    def xmit_flush(self) -> None:
        """Tell the device of the descriptors that C has filled."""
        tx = self.tx
        if self.xmit_queue.doorbell and tx is not None:
            self.xmit_queue.doorbell = 0
            self.adapter.nic.write_tdt(self.index, tx.ring.next_to_use)
            if self.is_adaptive and tx.ring.stopped:
                self.end_moderation()

    def tx_is_above(self, owner: int, limit: int) -> bool:
        """Whether more than ``limit`` bytes of connection ``owner`` are in the ring unsent."""
        tx = self.tx
        return tx is not None and bool(lib.us_igb_tx_is_above(tx.ring, self.txq, owner, limit))

    def busy_poll(self) -> int:
        """Clean both rings once although nobody has interrupted; return the frames received."""
        if self.rx is None or self.tx is None:
            return 0  # a packet has taken the interface down
        igb_clean_tx_irq(self)
        work = igb_clean_rx_irq(self, self.napi.weight)
        if self.napi.gro_list:
            napi_gro_flush(self.napi)
        return work

    # Moderation.

    def set_rx_usecs(self, rx_usecs: int) -> None:
        """Take ethtool's rx-usecs: adaptive (1, 3), off (0) or a time (igb_set_coalesce)."""
        itr = self.itr
        itr.setting = rx_usecs
        self.is_adaptive = rx_usecs in ADAPTIVE_SETTINGS
        self.adapter.moderation_changed(self)
        itr.itr_val = lib.US_IGB_START_ITR if self.is_adaptive else rx_usecs << 2
        itr.rx_class = itr.tx_class = lib.US_IGB_LOWEST_LATENCY
        rx, tx = self.rx, self.tx
        if rx is not None and tx is not None:
            itr.rx_packets, itr.rx_bytes = rx.ring.packets, rx.ring.bytes
            itr.tx_packets, itr.tx_bytes = tx.ring.packets, tx.ring.bytes
            self.adapter.nic.write_eitr(self.index, itr.itr_val)

    def end_moderation(self) -> None:
        """Let a pending interrupt through now: descriptors are short, cleaning cannot wait."""
        self.adapter.nic.write_eitr(self.index, self.itr.itr_val)

    # Figures.

    @property
    def rx_stats(self) -> QueueStats:
        """The receive queue's counts since the adapter was made."""
        return self.rx_total.with_rx(self.rx.ring if self.rx is not None else None)

    @property
    def tx_stats(self) -> QueueStats:
        """The transmit queue's counts since the adapter was made."""
        return self.tx_total.with_tx(self.tx.ring if self.tx is not None else None)

    def irq_set_affinity(self, cpu: int) -> None:
        """Have softnet context ``cpu`` serve this vector from its next interrupt on."""
        self.irqs_by_cpu()
        self.napi.cpu = cpu

    def irqs_by_cpu(self) -> list[int]:
        """Return the vector's row of /proc/interrupts: interrupts by softnet context."""
        total = self.adapter.nic.irq_counts[self.index]
        self._irqs_by_cpu[self.napi.cpu] += total - self._irqs_counted
        self._irqs_counted = total
        return list(self._irqs_by_cpu)
