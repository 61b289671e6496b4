"""The backlog: how a packet reaches a CPU other than by that CPU's own polling.

``netif_rx`` takes what has no ring (lo); ``netif_receive_skb`` steers packets to other CPUs
by RPS. Both end in ``enqueue_to_backlog``; ``process_backlog`` (in ``softirq.py``) is the
other end. Reference: net/core/dev.c of Linux 6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.core.napi import napi_schedule
from ustack.core.skb import Skb, kfree_skb
from ustack.core.steering import get_rps_cpu
from ustack.lib.drop_reason import DropReason

if TYPE_CHECKING:
    from ustack.core.net import Net
    from ustack.core.softirq import SoftnetData


def netif_rx(net: Net, skb: Skb) -> DropReason | None:
    """Queue a received packet that has no ring of its own, on this CPU unless RPS says another.

    Returns:
        None if it waits in input_pkt_queue; DEV_READY or CPU_BACKLOG if it was dropped.
    """
    if net.rps_needed:
        cpu = get_rps_cpu(skb)
        if cpu >= 0:
            return enqueue_to_backlog(net, skb, net.softnets[cpu])
    return enqueue_to_backlog(net, skb, net.softnet)


def enqueue_to_backlog(net: Net, skb: Skb, softnet: SoftnetData) -> DropReason | None:
    """Put ``skb``, whose data it owns, on ``softnet``'s queue and have it polled.

    Waking another CPU is what Linux sends an interrupt for: ``received_rps`` counts those,
    not the packets (rps_trigger_softirq).

    Returns:
        None if it waits in input_pkt_queue; DEV_READY or CPU_BACKLOG if it was dropped.
    """
    dev = skb.dev
    assert dev is not None
    if not dev.is_up:
        reason = DropReason.DEV_READY
    elif len(softnet.input_pkt_queue) > net.config.core.netdev_max_backlog:
        softnet.dropped += 1
        reason = DropReason.CPU_BACKLOG
    else:
        softnet.input_pkt_queue.append(skb)
        if napi_schedule(softnet.backlog) and softnet is not net.softnet:
            softnet.received_rps += 1
        return None
    dev.stats.rx_dropped += 1
    kfree_skb(net, skb, reason)
    return reason
