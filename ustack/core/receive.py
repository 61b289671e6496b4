"""From the driver to the protocols: ``netif_receive_skb`` (__netif_receive_skb_core).

Drivers call it (as ``net.netif_receive_skb``) with frames that ``eth_type_trans`` has
classified. Packet taps see the frame first, then the handler of its EtherType takes it;
without one it is dropped as UNHANDLED_PROTO.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.core.skb import Skb, kfree_skb
from ustack.lib.drop_reason import DropReason

if TYPE_CHECKING:
    from ustack.core.net import Net


def netif_receive_skb(net: Net, skb: Skb) -> None:
    """Hand one received frame up; it is consumed."""
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
