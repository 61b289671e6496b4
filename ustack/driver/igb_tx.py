"""The transmit half of the igb driver: from packets to descriptors, and cleaning up.

``dev_hard_start_xmit`` calls ``igb_xmit_frame``; one C call copies the headers and points
descriptors at the payload's pages, the doorbell sends. ``igb_poll`` calls
``igb_clean_tx_irq``, which gives the pages back and wakes the queue.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, Any

from ustack.core.netdevice import NETDEV_TX_BUSY, NETDEV_TX_OK
from ustack.core.skb import CHECKSUM_PARTIAL, Skb, kfree_skb, skb_linearize
from ustack.core.transmit import netif_wake_queue
from ustack.driver.igb_ethtool import QueueStats
from ustack.driver.igb_rx import check_ring_size
from ustack.lib.drop_reason import DropReason
from ustack.native.lib import ffi, lib

if TYPE_CHECKING:
    from ustack.driver.igb import IgbAdapter
    from ustack.driver.igb_vector import IgbQVector
    from ustack.native.mem import Mem

MAX_SKB_FRAGS: int = lib.US_MAX_SKB_FRAGS
TX_WORK_LIMIT: int = lib.US_IGB_TX_WORK
"""Packets that one poll cleans at most (IGB_DEFAULT_TX_WORK)."""

_FRAG = Struct("=QI4x")
"""struct us_frag: address, length."""
_FRAG_BYTES = _FRAG.size
_pack_frag = _FRAG.pack_into

_REFUSED = {
    -errno.EMSGSIZE: DropReason.PKT_TOO_BIG,
    -errno.ENOMEM: DropReason.NOMEM,
}


@dataclass(slots=True)
class IgbTxRing:
    """One transmit ring and where its caller puts the list of frags."""

    ring: Any
    """``struct us_igb_tx_ring *``"""
    frags: Any
    """Writable buffer over ``ring.frags``."""


def igb_setup_tx_resources(mem: Mem, count: int) -> IgbTxRing:
    """Allocate a ring of ``count`` descriptors with their header buffers.

    Raises:
        MemoryError: The arena is too small.
        ValueError: ``count`` is not a multiple of 8 from 64 to 4096.
    """
    check_ring_size(count)
    ring = lib.us_igb_setup_tx_resources(mem.ptr, count)
    if ring == ffi.NULL:
        raise MemoryError(f"no memory for a transmit ring of {count}")
    return IgbTxRing(ring, ffi.buffer(ring.frags))


def igb_free_tx_resources(tx: IgbTxRing, total: QueueStats | None = None) -> None:
    """Give the ring back with all that waits in it; its counts are added to ``total``."""
    if total is not None:
        total.add_tx(tx.ring)
    tx.frags = None
    lib.us_igb_free_tx_resources(tx.ring)


def igb_configure_tx(vector: IgbQVector) -> None:
    """Tell the device where a vector's ring is."""
    tx, txq = vector.tx, vector.txq
    assert tx is not None
    ring = tx.ring
    txq.TDBAL = ring.dma & 0xFFFFFFFF
    txq.TDBAH = ring.dma >> 32
    txq.TDLEN = ring.count * 16
    txq.TDH = txq.TDT = 0
    txq.TXDCTL = lib.US_E1000_TXDCTL_QUEUE_ENABLE


def igb_xmit_frame(adapter: IgbAdapter, skb: Skb, *, more: bool = False) -> int:
    """Map ``skb`` to descriptors and ring the doorbell.

    Args:
        more: Another packet follows at once: leave the doorbell to it (xmit_more).

    Returns:
        NETDEV_TX_OK: sent, or dropped and counted. NETDEV_TX_BUSY: no descriptors, the
        queue is stopped and ``skb`` is still the caller's.
    """
    vector = adapter.only_vector or adapter.q_vectors[skb.queue_mapping % len(adapter.q_vectors)]
    tx = vector.tx
    assert tx is not None
    frags = skb.frags
    if frags:
        if len(frags) > MAX_SKB_FRAGS:
            skb_linearize(adapter.net, skb)
            frags = skb.frags
        at = 0
        for addr, length in frags:
            _pack_frag(tx.frags, at, addr, length)
            at += _FRAG_BYTES
    data = skb.data
    if type(data) is not bytes:
        data = bytes(data)
    partial = skb.ip_summed == CHECKSUM_PARTIAL
    tail = lib.us_igb_xmit_frame(
        tx.ring,
        data,
        len(data),
        len(frags),
        skb.transport_offset if partial else 0,
        skb.csum_offset if partial else 0,
        skb.gso_size,
        skb.owner,
    )
    if tail < 0:
        return _refused(adapter, skb, tail)
    if not more:
        adapter.nic.write_tdt(vector.index, tail)
        if vector.is_adaptive and tx.ring.stopped:
            vector.end_moderation()
    return NETDEV_TX_OK


def _refused(adapter: IgbAdapter, skb: Skb, error: int) -> int:
    if error == -errno.EBUSY:
        return NETDEV_TX_BUSY
    adapter.stats.tx_dropped += 1
    kfree_skb(adapter.net, skb, _REFUSED.get(error, DropReason.NOT_SPECIFIED))
    return NETDEV_TX_OK


def igb_clean_tx_irq(vector: IgbQVector) -> bool:
    """Free what the device has sent and wake a stopped queue; False if more may be left."""
    tx = vector.tx
    assert tx is not None
    ring = tx.ring
    was_stopped = ring.stopped
    cleaned = lib.us_igb_clean_tx_irq(ring, TX_WORK_LIMIT)
    if was_stopped and not ring.stopped:
        netif_wake_queue(vector.adapter, vector.index)
    return bool(cleaned < TX_WORK_LIMIT)
