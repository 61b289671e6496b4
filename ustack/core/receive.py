"""From the driver to the protocols: ``netif_receive_skb`` (net/core/dev.c).

Drivers call it (as ``net.netif_receive_skb``) with frames that ``eth_type_trans`` has
classified. RPS may send them to another CPU's backlog first. Packet taps see the frame, then
the handler of its EtherType takes it; without one it is dropped as UNHANDLED_PROTO.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.core.backlog import enqueue_to_backlog
from ustack.core.skb import Skb, kfree_skb
from ustack.core.steering import get_rps_cpu
from ustack.lib.drop_reason import DropReason

if TYPE_CHECKING:
    from ustack.core.net import Net


def netif_receive_skb(net: Net, skb: Skb) -> None:
    """Hand one received frame up, on the CPU that RPS chooses; it is consumed."""
    if net.rps_needed:
        cpu = get_rps_cpu(skb)
        if cpu >= 0:
            skb.own()
            enqueue_to_backlog(net, skb, net.softnets[cpu])
            return
    __netif_receive_skb(net, skb)


def __netif_receive_skb(net: Net, skb: Skb) -> None:
    """Show a frame to the taps and give it to its protocol, on this CPU."""
    dev = skb.dev
    assert dev is not None
    net.softnet.processed += 1
    if net.ptype_all:
        for tap in net.ptype_all:
            tap(skb, dev, False)
    handler = net.ptype_base.get(skb.protocol)
    if handler is not None:
        handler(skb)
        return
    dev.stats.rx_dropped += 1
    kfree_skb(net, skb, DropReason.UNHANDLED_PROTO)
