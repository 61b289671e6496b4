"""From the protocols to the driver: ``dev_queue_xmit`` and the qdisc (net/core/dev.c).

The neighbour layer calls it with complete frames. A packet that finds an empty queue and a
willing device bypasses the queue; a device without queue (lo) is called at once. What the
device cannot do, checksums and segmentation (GSO), is done here just before
``ndo_start_xmit``: a super-frame waits in the queue as one packet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.core.checksum import skb_checksum_help
from ustack.core.gso import skb_gso_segment
from ustack.core.napi import NET_TX_BIT
from ustack.core.netdevice import (
    IFF_UP,
    NETDEV_TX_BUSY,
    NETIF_F_IP_CSUM,
    NETIF_F_TSO,
    NetDevice,
)
from ustack.core.qdisc import Qdisc
from ustack.core.skb import CHECKSUM_PARTIAL, Skb, kfree_skb
from ustack.core.steering import netdev_pick_tx
from ustack.lib.drop_reason import DropReason

if TYPE_CHECKING:
    from ustack.core.net import Net

TIME_SLICE_US = 4000
"""Microseconds that the stack may run before ``need_resched``: a tick at HZ=250."""


def dev_queue_xmit(net: Net, skb: Skb) -> DropReason | None:
    """Send the frame ``skb`` through ``skb.dev``; it is consumed.

    Returns:
        None if it was sent or waits its turn, otherwise why it was dropped.
    """
    dev = skb.dev
    assert dev is not None
    if not dev.flags & IFF_UP:
        return _drop(net, dev, skb, DropReason.DEV_READY)
    root = dev.qdisc
    if root is None:
        return _xmit_noqueue(net, dev, skb)
    queue = 0 if dev.real_num_tx_queues == 1 else netdev_pick_tx(net, dev, skb)
    return __dev_xmit_skb(net, dev, root.leaves[queue], skb)


def __dev_xmit_skb(net: Net, dev: NetDevice, qdisc: Qdisc, skb: Skb) -> DropReason | None:
    """Bypass an empty queue, or join it and let it run."""
    if not qdisc.qlen and not dev.tx_queue_stopped(qdisc.queue):
        sch_direct_xmit(net, qdisc, skb)
        return None
    if not qdisc.enqueue(skb):
        return _drop(net, dev, skb, DropReason.QDISC_DROP)
    qdisc_run(net, qdisc)
    return None


def _xmit_noqueue(net: Net, dev: NetDevice, skb: Skb) -> DropReason | None:
    """Call a device that has no queue; what it refuses is lost."""
    skbs = [skb]
    if skb.gso_size and not dev.features & NETIF_F_TSO:
        skbs = skb_gso_segment(net, skb)
    result = None
    for one in skbs:
        if dev_hard_start_xmit(net, dev, one) == NETDEV_TX_BUSY:
            result = _drop(net, dev, one, DropReason.FULL_RING)
    return result


def sch_direct_xmit(net: Net, qdisc: Qdisc, skb: Skb) -> bool:
    """Give the device one packet, cut first if it is a super-frame that the device cannot cut.

    Returns:
        Whether the device took it; if not, it (or what is left of it) is at the queue's head.
    """
    dev = qdisc.dev
    stats = qdisc.stats
    if skb.gso_size and not dev.features & NETIF_F_TSO:
        return _xmit_segments(net, qdisc, skb_gso_segment(net, skb))
    length = qdisc_pkt_len(skb)
    if dev_hard_start_xmit(net, dev, skb) == NETDEV_TX_BUSY:
        _requeue(net, qdisc, [skb])
        return False
    stats.sent_packets += skb.gso_segs
    stats.sent_bytes += length
    return True


def qdisc_pkt_len(skb: Skb) -> int:
    """Return a packet's bytes as they will be on the wire, each segment with its headers."""
    length = len(skb)
    if skb.gso_size:
        tcp_at = skb.transport_offset
        headers = tcp_at + (skb.data[tcp_at + 12] >> 4) * 4
        length += (skb.gso_segs - 1) * headers
    return length


def dev_hard_start_xmit(net: Net, dev: NetDevice, skb: Skb) -> int:
    """Show ``skb`` to the taps and give it to the driver; return its NETDEV_TX_*."""
    if skb.ip_summed == CHECKSUM_PARTIAL and not dev.features & NETIF_F_IP_CSUM:
        skb_checksum_help(net, skb)
    if net.ptype_all:
        for tap in net.ptype_all:
            tap(skb, dev, True)
    return dev.ndo_start_xmit(skb)


def qdisc_run(net: Net, qdisc: Qdisc) -> None:
    """Send waiting packets until the queue or the quota is exhausted or the device is busy.

    The quota is dev_weight (3.10's weight_p); when others want the thread it ends sooner.
    With packets left, NET_TX goes on (__netif_schedule); a busy device runs the queue again
    by ``netif_wake_queue``.
    """
    dev = qdisc.dev
    for _ in range(net.config.core.dev_weight):
        if dev.tx_queue_stopped(qdisc.queue):
            return
        skb = qdisc.dequeue()
        if skb is None:
            return
        if not sch_direct_xmit(net, qdisc, skb):
            return
        if need_resched(net):
            break
    if qdisc.qlen:
        netif_schedule(net, qdisc)


def need_resched(net: Net) -> bool:
    """Whether this run of the stack has lasted so long that others should have their turn."""
    return net.clock.fine_us() - net.clock.now_us >= TIME_SLICE_US


def netif_schedule(net: Net, qdisc: Qdisc) -> None:
    """Let the NET_TX softirq run ``qdisc`` (__netif_schedule)."""
    if not qdisc.scheduled:
        qdisc.scheduled = True
        net.softnet.output_queue.append(qdisc)
    net.softnet.softirq_pending |= NET_TX_BIT


def netif_wake_queue(dev: NetDevice, queue: int = 0) -> None:
    """The driver has descriptors again: what waits will be sent by NET_TX."""
    if dev.qdisc is not None:
        qdisc = dev.qdisc.leaves[queue]
        if qdisc.qlen:
            netif_schedule(dev.net, qdisc)


def net_tx_action(net: Net) -> None:
    """Run every queue on softnet_data's output_queue."""
    queue = net.softnet.output_queue
    for _ in range(len(queue)):
        qdisc = queue.popleft()
        qdisc.scheduled = False
        qdisc_run(net, qdisc)


def qdisc_purge(net: Net, qdisc: Qdisc) -> None:
    """Drop all that waits (dev_deactivate)."""
    while (skb := qdisc.dequeue()) is not None:
        _drop(net, qdisc.dev, skb, DropReason.DEV_READY)


def _requeue(net: Net, qdisc: Qdisc, skbs: list[Skb]) -> None:
    """The device refused ``skbs``: they go first when there is room (dev_requeue_skb)."""
    qdisc.requeue(skbs)
    if not qdisc.dev.tx_queue_stopped(qdisc.queue):
        netif_schedule(net, qdisc)


def _xmit_segments(net: Net, qdisc: Qdisc, segments: list[Skb]) -> bool:
    dev = qdisc.dev
    stats = qdisc.stats
    for number, segment in enumerate(segments):
        length = len(segment)
        if (
            dev.tx_queue_stopped(qdisc.queue)
            or dev_hard_start_xmit(net, dev, segment) == NETDEV_TX_BUSY
        ):
            _requeue(net, qdisc, segments[number:])
            return False
        stats.sent_packets += 1
        stats.sent_bytes += length
    return True


def _drop(net: Net, dev: NetDevice, skb: Skb, reason: DropReason) -> DropReason:
    dev.stats.tx_dropped += 1
    kfree_skb(net, skb, reason)
    return reason
