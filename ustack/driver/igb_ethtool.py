"""The figures of the igb driver under igb's own names (igb_ethtool.c, igb_update_stats).

Everything here is counted somewhere: by the device in its statistics registers or by the
C ring code. What igb lists and this device cannot have (collisions, alignment errors,
management packets) is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ustack.core.netdevice import NetDeviceStats
    from ustack.driver.igb import IgbAdapter

_REGISTERS = (
    ("rx_packets", "GPRC"),
    ("tx_packets", "GPTC"),
    ("rx_bytes", "GORC"),
    ("tx_bytes", "GOTC"),
    ("rx_broadcast", "BPRC"),
    ("tx_broadcast", "BPTC"),
    ("rx_multicast", "MPRC"),
    ("tx_multicast", "MPTC"),
    ("multicast", "MPRC"),
    ("rx_no_buffer_count", "RNBC"),
    ("rx_missed_errors", "MPC"),
    ("tx_carrier_errors", "TNCRS"),
    ("rx_long_length_errors", "ROC"),
    ("rx_short_length_errors", "RUC"),
    ("tx_tcp_seg_good", "TSCTC"),
    ("tx_flow_control_xon", "XONTXC"),
    ("tx_flow_control_xoff", "XOFFTXC"),
)
"""igb's name of each statistic (igb_gstrings_stats), and its register."""


@dataclass(slots=True)
class QueueStats:
    """What the rings of one queue have counted over their lives."""

    packets: int = 0
    bytes: int = 0
    restart: int = 0
    busy: int = 0
    csum_err: int = 0
    alloc_failed: int = 0
    errors: int = 0

    def add_rx(self, ring: Any) -> None:
        """Add a receive ring's counts (struct us_igb_rx_ring)."""
        self.packets += ring.packets
        self.bytes += ring.bytes
        self.csum_err += ring.csum_err
        self.alloc_failed += ring.alloc_failed
        self.errors += ring.errors

    def add_tx(self, ring: Any) -> None:
        """Add a transmit ring's counts (struct us_igb_tx_ring)."""
        self.packets += ring.packets
        self.bytes += ring.bytes
        self.restart += ring.restart
        self.busy += ring.busy


def rx_queue_stats(adapter: IgbAdapter) -> QueueStats:
    """Return receive queue 0's counts since the adapter was made."""
    total = QueueStats()
    total.add_rx(adapter.rx_total)
    if adapter.rx is not None:
        total.add_rx(adapter.rx.ring)
    return total


def tx_queue_stats(adapter: IgbAdapter) -> QueueStats:
    """Return transmit queue 0's counts since the adapter was made."""
    total = QueueStats()
    total.add_tx(adapter.tx_total)
    if adapter.tx is not None:
        total.add_tx(adapter.tx.ring)
    return total


def igb_update_stats(adapter: IgbAdapter, stats: NetDeviceStats) -> None:
    """Bring struct rtnl_link_stats64 up to date; rx_dropped and tx_dropped are not touched."""
    regs = adapter.nic.regs
    rx, tx = rx_queue_stats(adapter), tx_queue_stats(adapter)
    stats.rx_packets, stats.rx_bytes = rx.packets, rx.bytes
    stats.tx_packets, stats.tx_bytes = tx.packets, tx.bytes
    stats.rx_length_errors = regs.ROC + regs.RUC
    stats.rx_errors = stats.rx_length_errors + regs.RXERRC
    stats.rx_missed_errors = regs.MPC
    stats.rx_fifo_errors = regs.rxq[0].RQDPC
    stats.multicast = regs.MPRC
    stats.tx_errors = regs.TNCRS + regs.TXERRC


def igb_get_ethtool_stats(adapter: IgbAdapter) -> dict[str, int]:
    """Return ``ethtool -S``: registers, the interface's counters, the queues'."""
    regs = adapter.nic.regs
    figures: dict[str, int] = {name: getattr(regs, register) for name, register in _REGISTERS}
    net_stats = adapter.stats
    for name in ("rx_errors", "tx_errors", "tx_dropped", "rx_length_errors", "rx_fifo_errors"):
        figures[name] = getattr(net_stats, name)
    rx, tx = rx_queue_stats(adapter), tx_queue_stats(adapter)
    figures |= {
        "tx_queue_0_packets": tx.packets,
        "tx_queue_0_bytes": tx.bytes,
        "tx_queue_0_restart": tx.restart,
        "tx_queue_0_busy": tx.busy,
        "rx_queue_0_packets": rx.packets,
        "rx_queue_0_bytes": rx.bytes,
        "rx_queue_0_drops": regs.rxq[0].RQDPC,
        "rx_queue_0_csum_err": rx.csum_err,
        "rx_queue_0_alloc_failed": rx.alloc_failed,
    }
    return figures


def igb_get_drvinfo(adapter: IgbAdapter) -> dict[str, str]:
    """Return ``ethtool -i``; the bus is the wire."""
    return {"driver": "igb", "bus-info": getattr(adapter.wire, "name", "")}


def igb_get_ringparam(adapter: IgbAdapter) -> dict[str, int]:
    """Return ``ethtool -g``."""
    return {
        "rx_max_pending": 4096,
        "tx_max_pending": 4096,
        "rx_pending": adapter.config.rx_ring,
        "tx_pending": adapter.config.tx_ring,
    }
