"""The igb driver: opens the device, answers its interrupt, polls it (igb_main.c).

``igb_msix_ring`` (the hard interrupt) only schedules NAPI. ``igb_poll`` (in the softirq)
cleans the transmit ring, then receives up to 64 frames; it enables the interrupt again
only when both are empty. ``igb_rx`` and ``igb_tx`` hold the two halves, ``igb_ethtool``
the figures. The hardware behind is ``nic.igb.IgbNic``: registers, rings, one interrupt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ustack.core.napi import Napi, napi_complete, napi_disable, napi_enable, napi_schedule
from ustack.core.netdevice import (
    NETIF_F_IP_CSUM,
    NETIF_F_LRO,
    NETIF_F_RXCSUM,
    NETIF_F_TSO,
    NetDevice,
    NetDeviceStats,
)
from ustack.driver.igb_ethtool import (
    QueueStats,
    igb_get_drvinfo,
    igb_get_ethtool_stats,
    igb_get_ringparam,
    igb_update_stats,
)
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
    igb_xmit_frame,
)
from ustack.native.lib import lib
from ustack.nic.igb import IgbNic
from ustack.nic.wire import VNET_CSUM, VNET_TSO4, Wire

if TYPE_CHECKING:
    from ustack.config import NicConfig
    from ustack.core.net import Net
    from ustack.core.skb import Skb

VECTOR = 0
"""The interrupt of queue pair 0."""


class IgbAdapter(NetDevice):
    """One igb interface, down until ``Net.dev_open``.

    Args:
        net: The network namespace it will be registered in; its arena holds the rings.
        name: Interface name.
        wire: What the device is plugged into; ``close`` closes it.
        mac: Six bytes.
        config: Ring sizes, offloads, pause and MTU.
    """

    def __init__(self, net: Net, name: str, wire: Wire, mac: bytes, config: NicConfig) -> None:
        self._stats = NetDeviceStats()
        super().__init__(net, name, mac, config.mtu)
        self.config = config
        self.wire = wire
        self.nic = IgbNic(net.mem, wire)
        self.napi = Napi(net, self, self.igb_poll)
        napi_disable(self.napi)
        self.rx: IgbRxRing | None = None
        self.tx: IgbTxRing | None = None
        self.rx_total = QueueStats()
        """What rings that no longer exist have counted."""
        self.tx_total = QueueStats()
        self.rxq: Any = self.nic.regs.rxq + 0
        self.txq: Any = self.nic.regs.txq + 0
        self._set_features()
        wire.features_changed = self._set_features

    def _set_features(self) -> None:
        """Offer the stack what the configuration asks for and the wire can carry."""
        config, wire = self.config, self.wire
        features = NETIF_F_RXCSUM if config.rx_checksum else 0
        if config.rx_checksum and config.large_receive and wire.vnet_hdr:
            features |= NETIF_F_LRO
        if config.tx_checksum and wire.features & VNET_CSUM:
            features |= NETIF_F_IP_CSUM
            if config.tso and wire.features & VNET_TSO4:
                features |= NETIF_F_TSO
        self.features = features
        self.hw_features = NETIF_F_RXCSUM | NETIF_F_LRO | NETIF_F_IP_CSUM | NETIF_F_TSO

    # Bringing the interface up and down.

    def ndo_open(self) -> None:
        """Allocate the rings, request the interrupt, start the device (igb_open).

        Raises:
            MemoryError: The arena has no room for the rings; the device stays down.
            OSError: The wire is gone.
        """
        lro = bool(self.features & NETIF_F_LRO)
        self.wire.set_offloads(self.config.rx_checksum, lro)
        self.tx = igb_setup_tx_resources(self.net.mem, self.config.tx_ring)
        try:
            self.rx = igb_setup_rx_resources(self.net.mem, self.config.rx_ring, lro)
        except MemoryError:
            igb_free_tx_resources(self.tx)
            self.tx = None
            raise
        regs = self.nic.regs
        regs.RAL = int.from_bytes(self.dev_addr[:4], "little")
        regs.RAH = int.from_bytes(self.dev_addr[4:], "little")
        regs.CTRL = lib.US_E1000_CTRL_RFCE if self.config.pause else 0
        igb_configure_tx(self, self.tx)
        igb_configure_rx(self, self.rx)
        regs.IVAR[0] = VECTOR
        regs.EIAC = regs.EIAM = 1 << VECTOR
        self.nic.request_irq(VECTOR, self.igb_msix_ring)
        napi_enable(self.napi)
        self.nic.write_eims(1 << VECTOR)

    def ndo_stop(self) -> None:
        """Stop the device and give everything back (igb_close)."""
        if self.rx is None or self.tx is None:
            return
        self.nic.write_eimc(1 << VECTOR)
        napi_disable(self.napi)
        self.nic.free_irq(VECTOR)
        self.nic.regs.RCTL = 0
        self.nic.regs.TCTL = 0
        self.rxq.RXDCTL = 0
        self.txq.TXDCTL = 0
        igb_free_rx_resources(self.rx, self.rx_total)
        igb_free_tx_resources(self.tx, self.tx_total)
        self.rx = self.tx = None

    def close(self) -> None:
        """Take the interface down, switch the device off, unplug the wire."""
        self.net.dev_close(self)
        self.ndo_stop()
        self.nic.close()
        self.wire.features_changed = None
        self.wire.close()

    # The path of packets.

    def poll_hw(self) -> int:
        """Let the device do its DMA: frames in, and frames out that the wire refused before.

        Returns:
            Frames taken off the wire.
        """
        if self.rx is None:
            return 0
        txq = self.txq
        if txq.TDH != txq.TDT:
            self.nic.dma_tx()
        return self.nic.dma_rx()

    def wire_deadline_us(self) -> int | None:
        """Return when a timed wire has something to do; None while nothing could be taken."""
        if self.rx is None or self.rx_full or self.nic.wire_error:
            return None
        return self.wire.next_deadline_us()

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
        self.nic.write_eims(1 << VECTOR)
        return work

    def ndo_start_xmit(self, skb: Skb) -> int:
        """Send one frame (igb_xmit_frame)."""
        return igb_xmit_frame(self, skb)

    @property
    def queue_stopped(self) -> bool:
        """Whether transmit descriptors ran short (netif_tx_queue_stopped)."""
        return self.tx is None or self.tx.ring.stopped != 0

    @property
    def rx_full(self) -> bool:
        """Whether the device has no receive descriptor left: poll the softirq before waiting."""
        rxq = self.rxq
        return self.rx is not None and bool(rxq.RDH == rxq.RDT)

    def fileno(self) -> int:
        """Return the descriptor that is readable when frames wait; -1 if none, down or gone."""
        if self.rx is None or self.nic.wire_error:
            return -1
        return self.wire.fileno()

    # Figures.

    @property
    def stats(self) -> NetDeviceStats:
        """The interface's counters (ip -s link), brought up to date."""
        igb_update_stats(self, self._stats)
        return self._stats

    @stats.setter
    def stats(self, stats: NetDeviceStats) -> None:
        """Counters that the stack above keeps stay in this object."""
        self._stats = stats

    def ethtool_stats(self) -> dict[str, int]:
        """Return the statistics of ``ethtool -S``."""
        return igb_get_ethtool_stats(self)

    def ethtool_drvinfo(self) -> dict[str, str]:
        """Return the fields of ``ethtool -i``."""
        return igb_get_drvinfo(self)

    def ethtool_ringparam(self) -> dict[str, int]:
        """Return the figures of ``ethtool -g``."""
        return igb_get_ringparam(self)
