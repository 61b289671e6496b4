"""What the first fourteen bytes of a received frame say (net/ethernet/eth.c).

Every driver calls ``eth_type_trans`` on a frame before ``Net.netif_receive_skb``; from there
on the frame has an EtherType, a packet type (for us, for all, for somebody else) and a
network header offset.
"""

from __future__ import annotations

from struct import Struct

from ustack.core.skb import (
    PACKET_BROADCAST,
    PACKET_HOST,
    PACKET_MULTICAST,
    PACKET_OTHERHOST,
    Skb,
)
from ustack.lib.addresses import ETH_BROADCAST
from ustack.wire.ethernet import ETH_HLEN

_unpack = Struct("!6s6xH").unpack_from


def eth_type_trans(skb: Skb) -> None:
    """Classify a received frame; ``skb.dev`` must be set.

    A frame shorter than an Ethernet header gets protocol 0, which no handler takes.
    """
    if len(skb.data) < ETH_HLEN:
        skb.protocol = 0
        return
    dest, skb.protocol = _unpack(skb.data)
    skb.network_offset = ETH_HLEN
    dev = skb.dev
    assert dev is not None
    if dest == dev.dev_addr:
        skb.pkt_type = PACKET_HOST
    elif dest == ETH_BROADCAST:
        skb.pkt_type = PACKET_BROADCAST
    elif dest[0] & 1:
        skb.pkt_type = PACKET_MULTICAST
    else:
        skb.pkt_type = PACKET_OTHERHOST
