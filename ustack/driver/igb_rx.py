"""The receive half of the igb driver: from finished descriptors to packets.

``igb_poll`` calls ``igb_clean_rx_irq`` once per poll. One C call returns a batch of frames
(at most 64), each in one piece in the arena; each becomes an ``Skb`` that looks into its
receive buffer and goes to ``netif_receive_skb``. Only then are the buffers posted again,
so a packet that is kept must be copied (``Skb.own``).
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, Any

from ustack.core.ethernet import eth_type_trans
from ustack.core.gro import napi_gro_receive
from ustack.core.netdevice import NETIF_F_LRO
from ustack.core.skb import Skb
from ustack.driver.igb_ethtool import QueueStats
from ustack.native.lib import ffi, lib
from ustack.nic.igb import MAX_FRAME

if TYPE_CHECKING:
    from ustack.driver.igb import IgbAdapter
    from ustack.driver.igb_vector import IgbQVector
    from ustack.native.mem import Mem

_FRAME = Struct("=QIHHII8x")
"""struct us_igb_rx_frame: addr, len, gso_size, gso_segs, ip_summed, rss."""
_VLAN_HLEN = 4


@dataclass(slots=True)
class IgbRxRing:
    """One receive ring and what Python needs to read its batches."""

    ring: Any
    """``struct us_igb_rx_ring *``"""
    frames: Any
    """Buffer over ``ring.frames``; slices are copies."""


def igb_setup_rx_resources(mem: Mem, count: int, large_receive: bool, queues: int = 1) -> IgbRxRing:
    """Allocate a ring of ``count`` descriptors with their buffers.

    A ring gets small buffers if large ones in all ``queues`` would take more than half of
    the arena: super-frames then span descriptors and are copied into one piece.

    Raises:
        MemoryError: The arena is too small.
        ValueError: ``count`` is not a multiple of 8 from 64 to 4096.
    """
    check_ring_size(count)
    large = large_receive and queues * count << 16 <= mem.view.nbytes // 2
    size = lib.US_IGB_RXBUFFER_LARGE if large else lib.US_IGB_RXBUFFER_2048
    ring = lib.us_igb_setup_rx_resources(mem.ptr, count, size)
    if ring == ffi.NULL:
        raise MemoryError(f"no memory for a receive ring of {count}")
    return IgbRxRing(ring, ffi.buffer(ring.frames))


def check_ring_size(count: int) -> None:
    """Raise ValueError unless the hardware can have a ring of ``count`` descriptors."""
    if not 64 <= count <= 4096 or count % 8:
        raise ValueError(f"ring of {count}: not a multiple of 8 from 64 to 4096")


def igb_free_rx_resources(rx: IgbRxRing, total: QueueStats) -> None:
    """Give the ring back; its counts are added to ``total``."""
    total.add_rx(rx.ring)
    rx.frames = None
    lib.us_igb_free_rx_resources(rx.ring)


def igb_configure_rx(vector: IgbQVector) -> None:
    """Tell the device where a vector's ring is and post the first buffers."""
    rx, rxq = vector.rx, vector.rxq
    assert rx is not None
    ring = rx.ring
    rxq.RDBAL = ring.dma & 0xFFFFFFFF
    rxq.RDBAH = ring.dma >> 32
    rxq.RDLEN = ring.count * 16
    rxq.SRRCTL = ring.buffer_bytes
    rxq.RDH = rxq.RDT = 0
    rxq.RXDCTL = lib.US_E1000_RXDCTL_QUEUE_ENABLE
    lib.us_igb_alloc_rx_buffers(ring, rxq)


def igb_setup_rctl(adapter: IgbAdapter) -> None:
    """Tell the device which frames to accept and what to verify (igb_setup_rctl, igb_rlpml_set)."""
    regs = adapter.nic.regs
    large = adapter.features & NETIF_F_LRO
    regs.RLPML = MAX_FRAME if large else adapter.mtu + adapter.hard_header_len + _VLAN_HLEN
    regs.RXCSUM = 0
    if adapter.config.rx_checksum:
        regs.RXCSUM = lib.US_E1000_RXCSUM_IPOFL | lib.US_E1000_RXCSUM_TUOFL
    regs.CTRL = lib.US_E1000_CTRL_RFCE if adapter.config.pause else 0
    regs.RCTL = lib.US_E1000_RCTL_EN


def igb_clean_rx_irq(vector: IgbQVector, budget: int) -> int:
    """Hand at most ``budget`` received frames to the stack; return how many."""
    rx = vector.rx
    assert rx is not None
    count: int = lib.us_igb_clean_rx_irq(rx.ring, budget)
    if count:
        fast = vector.adapter.net.rx_fast
        left = count if fast is None else fast.rx(vector.adapter, rx.ring.frames, count)
        igb_receive(vector, rx, left)
    else:
        lib.us_igb_alloc_rx_buffers(rx.ring, vector.rxq)
    return count


def igb_receive(vector: IgbQVector, rx: IgbRxRing, left: int) -> None:
    """Hand the first ``left`` frames of a batch up, then post the buffers again."""
    adapter = vector.adapter
    net = adapter.net
    view, napi = net.mem.view, vector.napi
    # A frame that is alone in its poll has nothing to be merged with.
    alone = left == 1
    try:
        batch = rx.frames[: left * _FRAME.size]
        queue = vector.index
        for addr, length, gso_size, gso_segs, ip_summed, rss in _FRAME.iter_unpack(batch):
            skb = Skb(view[addr : addr + length], adapter)
            skb.ip_summed = ip_summed
            if rss:
                skb.hash = rss
                skb.queue_mapping = queue
            if gso_size:
                skb.gso_size = gso_size
                skb.gso_segs = gso_segs
            eth_type_trans(skb)
            if alone:
                net.netif_receive_skb(skb)
            else:
                napi_gro_receive(napi, skb)
    finally:
        if vector.rx is rx:
            lib.us_igb_alloc_rx_buffers(rx.ring, vector.rxq)
