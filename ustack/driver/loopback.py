"""lo: what is sent is received (drivers/net/loopback.c).

No ring, no interrupt and no queue: ``ndo_start_xmit`` puts the very packet on the CPU's
backlog (``netif_rx``), and NET_RX takes it from there. Nothing is copied: payload in frags
travels as page references, until TCP copies it once into the receive queue. Checksums are
never computed and super-frames never cut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.core.backlog import netif_rx
from ustack.core.ethernet import eth_type_trans
from ustack.core.netdevice import (
    ARPHRD_LOOPBACK,
    IFF_LOOPBACK,
    NETDEV_TX_OK,
    NETIF_F_GSO,
    NETIF_F_IP_CSUM,
    NETIF_F_LRO,
    NETIF_F_RXCSUM,
    NETIF_F_TSO,
    NetDevice,
)
from ustack.core.skb import CHECKSUM_PARTIAL, CHECKSUM_UNNECESSARY, Skb
from ustack.lib.addresses import ETH_ZERO

if TYPE_CHECKING:
    from ustack.core.net import Net

LOOPBACK_MTU = 65536


class LoopbackDevice(NetDevice):
    """The interface of 127.0.0.0/8 and of every address of our own."""

    type = ARPHRD_LOOPBACK
    qdisc_name = "noqueue"
    max_mtu = LOOPBACK_MTU

    def __init__(self, net: Net, name: str = "lo") -> None:
        super().__init__(net, name, ETH_ZERO, LOOPBACK_MTU)
        self.flags = IFF_LOOPBACK
        self.features = NETIF_F_IP_CSUM | NETIF_F_TSO | NETIF_F_GSO | NETIF_F_LRO | NETIF_F_RXCSUM

    def ndo_start_xmit(self, skb: Skb) -> int:
        """Turn the packet round (loopback_xmit)."""
        net = self.net
        skb.dst = None
        if skb.ip_summed == CHECKSUM_PARTIAL:
            skb.ip_summed = CHECKSUM_UNNECESSARY
        eth_type_trans(skb)
        length = len(skb)
        if netif_rx(net, skb) is None:
            stats = self.stats
            stats.tx_packets += 1
            stats.tx_bytes += length
            stats.rx_packets += 1
            stats.rx_bytes += length
        return NETDEV_TX_OK

    def ethtool_drvinfo(self) -> dict[str, str]:
        """Return nothing but the driver's name, as Linux does for lo."""
        return {"driver": "loopback"}
