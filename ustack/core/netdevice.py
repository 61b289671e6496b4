"""A network device as the stack above the drivers sees it (Linux's struct net_device).

Drivers subclass it and fill in the ``ndo_*`` operations and, where they have hardware, the
``ethtool_*`` ones. Feature bits are NETIF_F_*; statistics are struct rtnl_link_stats64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ustack.core.net import Net
    from ustack.core.qdisc import MqQdisc, Qdisc
    from ustack.core.skb import Skb

IFF_UP = 0x1
IFF_BROADCAST = 0x2
IFF_LOOPBACK = 0x8
IFF_RUNNING = 0x40
IFF_MULTICAST = 0x1000
IFF_LOWER_UP = 0x10000

NETIF_F_IP_CSUM = 1 << 1
NETIF_F_TSO = 1 << 16
NETIF_F_LRO = 1 << 15
NETIF_F_RXCSUM = 1 << 29
NETIF_F_GSO = 1 << 11
NETIF_F_GRO = 1 << 14
NETIF_F_SOFT_FEATURES = NETIF_F_GSO | NETIF_F_GRO
"""What the core does for any device; a driver that computes its features anew keeps them."""

NETDEV_TX_OK = 0
NETDEV_TX_BUSY = 0x10

ARPHRD_ETHER = 1
ARPHRD_LOOPBACK = 772


@dataclass(slots=True)
class NetDeviceStats:
    """Packet counts of one device, as ``ip -s link`` prints them."""

    rx_packets: int = 0
    rx_bytes: int = 0
    rx_errors: int = 0
    rx_dropped: int = 0
    rx_missed_errors: int = 0
    rx_fifo_errors: int = 0
    rx_crc_errors: int = 0
    rx_length_errors: int = 0
    multicast: int = 0
    tx_packets: int = 0
    tx_bytes: int = 0
    tx_errors: int = 0
    tx_dropped: int = 0


class NetDevice:
    """One interface of a stack; ``ifindex`` is given by ``Net.register_netdev``."""

    type = ARPHRD_ETHER
    hard_header_len = 14
    min_mtu = 68
    max_mtu = 65535
    qdisc_name = "pfifo_fast"

    def __init__(self, net: Net, name: str, dev_addr: bytes, mtu: int = 1500) -> None:
        self.net = net
        self.name = name
        self.dev_addr = dev_addr
        self.mtu = mtu
        self.ifindex = 0
        self.flags = IFF_BROADCAST | IFF_MULTICAST
        self.features = 0
        self.tx_queue_len = 1000
        self.gso_max_size = 65536
        self.stats = NetDeviceStats()
        self.qdisc: Qdisc | MqQdisc | None = None
        """The root, given by dev_open; None for a device without one (qdisc_name "noqueue")."""
        self.real_num_tx_queues = 1
        """Transmit queues in use."""
        self.real_num_rx_queues = 1
        """Receive queues in use."""
        self.rps_maps: dict[int, tuple[int, ...]] = {}
        """Receive queue -> the CPUs that its packets are spread over; see ``steering``."""
        self.xps_masks: dict[int, int] = {}
        """Transmit queue -> mask of the CPUs that send with it."""
        self.xps_map: dict[int, tuple[int, ...]] = {}
        """The same from the other side: CPU -> queues."""

    num_queues = 1
    """Queue pairs that the driver could have (numtxqueues, numrxqueues); beyond 1 the root
    qdisc is mq."""

    @property
    def is_up(self) -> bool:
        """Whether the interface is administratively up."""
        return bool(self.flags & IFF_UP)

    def ndo_open(self) -> None:
        """Bring the hardware up (called by dev_open)."""

    def ndo_stop(self) -> None:
        """Bring the hardware down (called by dev_close)."""

    def ndo_start_xmit(self, skb: Skb) -> int:
        """Hand a complete frame to the hardware.

        Returns:
            NETDEV_TX_OK: the driver owns ``skb`` now (sent or counted as dropped);
            NETDEV_TX_BUSY: no room, the caller still owns it and the queue is stopped.
        """
        raise NotImplementedError

    def ndo_xmit_queue(self, queue: int) -> Any:
        """Return what C may send through (``struct us_xmit_queue *``), None if it may not."""
        del queue
        return None

    def ndo_xmit_flush(self, queue: int) -> None:
        """Ring transmit queue ``queue``'s doorbell: C has filled descriptors."""

    def ndo_tx_is_above(self, owner: int, limit: int) -> bool:
        """Whether more than ``limit`` bytes of connection ``owner`` wait for the hardware."""
        del owner, limit
        return False

    def ndo_busy_recv(self, tp: Any, buffer: Any, length: int) -> int:
        """Read up to ``length`` bytes of a TCP connection that gets its packets from here.

        The device is polled for more of them as long as there is room (ndo_busy_poll).

        Args:
            tp: ``struct us_tcp_sock *``.

        Returns:
            How many bytes; 0: none, or the device cannot do that now.
        """
        del tp, buffer, length
        return 0

    def ndo_recv_wait(self, tp: Any, buffer: Any, length: int, looks: int, wakefd: int, /) -> int:
        """Read up to ``length`` bytes of a TCP connection, which may come while we look for them.

        Args:
            tp: ``struct us_tcp_sock *``.
            looks: how often to look at the wire; 0: only what is there is read.
            wakefd: a descriptor that ends it when it can be read.

        Returns:
            How many bytes; 0: none have come, or the device cannot do that now.
        """
        del tp, buffer, length, looks, wakefd
        return 0

    def ndo_poll_controller(self) -> None:
        """Have the rings looked at although no interrupt came (netpoll's, after a fault)."""

    @property
    def queue_stopped(self) -> bool:
        """Whether the driver has stopped its transmit queue for want of descriptors."""
        return False

    def tx_queue_stopped(self, queue: int) -> bool:
        """Whether transmit queue ``queue`` is stopped (netif_tx_queue_stopped)."""
        del queue
        return self.queue_stopped

    def interrupts(self) -> list[tuple[str, list[int]]]:
        """Return each vector's name in /proc/interrupts and its interrupts by softnet context."""
        return []

    def ethtool_stats(self) -> dict[str, int]:
        """Return the statistics of ``ethtool -S`` in the driver's order."""
        return {}

    def ethtool_drvinfo(self) -> dict[str, str]:
        """Return the fields of ``ethtool -i``."""
        return {}
