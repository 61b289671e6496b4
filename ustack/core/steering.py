"""Which CPU receives and which queue sends: RPS, XPS and netdev_pick_tx (net/core/dev.c).

``netif_receive_skb`` asks ``get_rps_cpu``, ``dev_queue_xmit`` asks ``netdev_pick_tx``. A CPU
is a softnet context. Masks are set per queue, as /sys/class/net/DEV/queues shows them
(net/core/net-sysfs.c); a queue that goes takes its mask with it.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from ustack.core.flow import flow_hash, reciprocal_scale, skb_get_hash
from ustack.core.skb import Skb
from ustack.lib.socket_error import socket_error

if TYPE_CHECKING:
    from ustack.core.net import Net
    from ustack.core.netdevice import NetDevice


def get_rps_cpu(skb: Skb) -> int:
    """Return the context that is to receive ``skb``, -1 for the one it is on (get_rps_cpu)."""
    dev = skb.dev
    assert dev is not None
    cpus = dev.rps_maps.get(skb.queue_mapping)
    if not cpus:
        return -1
    return cpus[reciprocal_scale(skb_get_hash(skb), len(cpus))]


def netdev_pick_tx(net: Net, dev: NetDevice, skb: Skb) -> int:
    """Choose a packet's transmit queue: XPS says, else the flow's hash (skb_tx_hash)."""
    queue = get_xps_queue(net, dev, skb) if dev.xps_map else -1
    if queue < 0:
        queue = reciprocal_scale(skb_get_hash(skb), dev.real_num_tx_queues)
    skb.queue_mapping = queue
    return queue


def flow_queue_is_stopped(
    net: Net, dev: NetDevice, proto: int, saddr: int, sport: int, daddr: int, dport: int
) -> bool:
    """Whether the queue that a flow's packets would take now is stopped (sk_tx_queue_get).

    Another flow's full queue does not count: it holds nobody else up.
    """
    if not dev.queue_stopped:
        return False
    if dev.real_num_tx_queues == 1:
        return True
    skb = Skb(b"", dev)
    skb.hash = flow_hash(proto, saddr, sport, daddr, dport)
    return dev.tx_queue_stopped(netdev_pick_tx(net, dev, skb))


def get_xps_queue(net: Net, dev: NetDevice, skb: Skb) -> int:
    """Return one of the queues that the CPU we are on sends with, -1 if none is set."""
    queues = dev.xps_map.get(net.softnet.cpu)
    if not queues:
        return -1
    if len(queues) == 1:
        return queues[0]
    return queues[reciprocal_scale(skb_get_hash(skb), len(queues))]


def store_rps_map(dev: NetDevice, queue: int, mask: int) -> None:
    """Spread what receive queue ``queue`` gets over the CPUs of ``mask``; 0 switches RPS off.

    Raises:
        OSError: ENOENT, no such queue; EOVERFLOW, no such CPU.
    """
    cpus = _cpus(dev, mask)
    if not 0 <= queue < dev.real_num_rx_queues:
        raise socket_error(errno.ENOENT)
    dev.rps_maps.pop(queue, None)
    if cpus:
        dev.rps_maps[queue] = cpus
    _update_rps_needed(dev.net)


def rps_mask(dev: NetDevice, queue: int) -> int:
    """Return the mask of a receive queue (show_rps_map).

    Raises:
        OSError: ENOENT, no such queue.
    """
    if not 0 <= queue < dev.real_num_rx_queues:
        raise socket_error(errno.ENOENT)
    return sum(1 << cpu for cpu in dev.rps_maps.get(queue, ()))


def netif_set_xps_queue(dev: NetDevice, queue: int, mask: int) -> None:
    """Let the CPUs of ``mask`` send with transmit queue ``queue``; 0: none does.

    Raises:
        OSError: ENOENT, no such queue, or the device cannot have several; EOVERFLOW, no
            such CPU.
    """
    _cpus(dev, mask)
    _check_tx_queue(dev, queue)
    dev.xps_masks.pop(queue, None)
    if mask:
        dev.xps_masks[queue] = mask
    _build_xps_map(dev)


def xps_mask(dev: NetDevice, queue: int) -> int:
    """Return the mask of a transmit queue (xps_cpus_show).

    Raises:
        OSError: ENOENT, no such queue, or the device cannot have several.
    """
    _check_tx_queue(dev, queue)
    return dev.xps_masks.get(queue, 0)


def netif_set_real_num_queues(dev: NetDevice, count: int) -> None:
    """Have ``count`` queues each way from now on; the masks of the others go."""
    dev.real_num_tx_queues = dev.real_num_rx_queues = count
    dev.rps_maps = {queue: cpus for queue, cpus in dev.rps_maps.items() if queue < count}
    dev.xps_masks = {queue: mask for queue, mask in dev.xps_masks.items() if queue < count}
    _build_xps_map(dev)
    _update_rps_needed(dev.net)


def _check_tx_queue(dev: NetDevice, queue: int) -> None:
    if dev.num_queues == 1 or not 0 <= queue < dev.real_num_tx_queues:
        raise socket_error(errno.ENOENT)


def _cpus(dev: NetDevice, mask: int) -> tuple[int, ...]:
    if mask >> len(dev.net.softnets):
        raise socket_error(errno.EOVERFLOW)
    return tuple(cpu for cpu in range(len(dev.net.softnets)) if mask >> cpu & 1)


def _build_xps_map(dev: NetDevice) -> None:
    masks = sorted(dev.xps_masks.items())
    by_cpu = {
        cpu: tuple(queue for queue, mask in masks if mask >> cpu & 1)
        for cpu in range(len(dev.net.softnets))
    }
    dev.xps_map = {cpu: queues for cpu, queues in by_cpu.items() if queues}


def _update_rps_needed(net: Net) -> None:
    net.rps_needed = any(dev.rps_maps for dev in net.devices.values())
