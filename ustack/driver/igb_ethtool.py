"""The figures of the igb driver under igb's own names (igb_ethtool.c, igb_update_stats).

Everything here is counted somewhere: by the device in its statistics registers or by the
C ring code. What igb lists and this device cannot have (collisions, alignment errors,
management packets) is left out. ``busy`` and ``descriptors`` of a transmit queue are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ustack.nic.igb import MAX_QUEUES

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
    ("rx_long_byte_count", "GORC"),
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
    descriptors: int = 0
    """Used, contexts included; transmit only."""

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
        self.descriptors += ring.descriptors

    def with_rx(self, ring: Any) -> QueueStats:
        """Return these counts and those of the present receive ring, if any."""
        total = replace(self)
        if ring is not None:
            total.add_rx(ring)
        return total

    def with_tx(self, ring: Any) -> QueueStats:
        """Return these counts and those of the present transmit ring, if any."""
        total = replace(self)
        if ring is not None:
            total.add_tx(ring)
        return total


def igb_update_stats(adapter: IgbAdapter, stats: NetDeviceStats) -> None:
    """Bring struct rtnl_link_stats64 up to date; rx_dropped and tx_dropped are not touched."""
    regs = adapter.nic.regs
    rx = [vector.rx_stats for vector in adapter.all_vectors]
    tx = [vector.tx_stats for vector in adapter.all_vectors]
    stats.rx_packets = sum([queue.packets for queue in rx])
    stats.rx_bytes = sum([queue.bytes for queue in rx])
    stats.tx_packets = sum([queue.packets for queue in tx])
    stats.tx_bytes = sum([queue.bytes for queue in tx])
    stats.rx_length_errors = regs.ROC + regs.RUC
    stats.rx_errors = stats.rx_length_errors + regs.RXERRC
    stats.rx_missed_errors = regs.MPC
    stats.rx_fifo_errors = sum([vector.rxq.RQDPC for vector in adapter.all_vectors])
    stats.multicast = regs.MPRC
    stats.tx_errors = regs.TNCRS + regs.TXERRC + adapter.wire.tx_lost


def igb_get_ethtool_stats(adapter: IgbAdapter) -> dict[str, int]:
    """Return ``ethtool -S``: registers, the interface's counters, the queues'."""
    regs = adapter.nic.regs
    figures: dict[str, int] = {name: getattr(regs, register) for name, register in _REGISTERS}
    net_stats = adapter.stats
    for name in ("rx_errors", "tx_errors", "tx_dropped", "rx_length_errors", "rx_fifo_errors"):
        figures[name] = getattr(net_stats, name)
    for vector in adapter.q_vectors:
        tx, queue = vector.tx_stats, f"tx_queue_{vector.index}"
        figures |= {
            f"{queue}_packets": tx.packets,
            f"{queue}_bytes": tx.bytes,
            f"{queue}_restart": tx.restart,
            f"{queue}_busy": tx.busy,
            f"{queue}_descriptors": tx.descriptors,
        }
    for vector in adapter.q_vectors:
        rx, queue = vector.rx_stats, f"rx_queue_{vector.index}"
        figures |= {
            f"{queue}_packets": rx.packets,
            f"{queue}_bytes": rx.bytes,
            f"{queue}_drops": vector.rxq.RQDPC,
            f"{queue}_csum_err": rx.csum_err,
            f"{queue}_alloc_failed": rx.alloc_failed,
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


def igb_get_channels(adapter: IgbAdapter) -> dict[str, int]:
    """Return ``ethtool -l``: queue pairs, and no vector for anything else."""
    return {
        "max_combined": MAX_QUEUES,
        "combined_count": adapter.config.queues,
    }


def igb_get_coalesce(adapter: IgbAdapter) -> dict[str, int | bool]:
    """Return ``ethtool -c``; transmit shares the vector, so it has no time of its own."""
    rx_usecs = adapter.config.rx_usecs
    return {
        "use_adaptive_rx": rx_usecs in (1, 3),
        "rx_coalesce_usecs": rx_usecs,
        "tx_coalesce_usecs": 0,
    }


def igb_get_pauseparam(adapter: IgbAdapter) -> dict[str, bool]:
    """Return ``ethtool -a``: rx and tx go together, since the wire itself does the pausing."""
    pause = adapter.config.pause
    return {"autoneg": False, "rx_pause": pause, "tx_pause": pause}


def igb_get_rxfh(adapter: IgbAdapter) -> dict[str, int | str]:
    """Return ``ethtool -x``: rings, the indirection table and the key, both as text."""
    return {
        "rings": adapter.config.queues,
        "indirection": " ".join(map(str, adapter.rss_indir_tbl)),
        "key": adapter.rss_key.hex(":"),
    }
