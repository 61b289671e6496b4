"""Every counter of the softirq and of the qdisc, and the devices' drop reasons, with their cause.

A counter that has no cause here fails, and so does a cause that misses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest

from kit.netbed import Bed, core_config
from ustack.core.backlog import netif_rx
from ustack.core.napi import (
    NET_RX_SOFTIRQ,
    NET_TX_BIT,
    NET_TX_SOFTIRQ,
    Napi,
    napi_complete,
    napi_schedule,
)
from ustack.core.netdevice import NETDEV_TX_BUSY
from ustack.core.qdisc import QdiscStats
from ustack.core.skb import Skb
from ustack.core.softirq import SOFTIRQ_NAMES, do_softirq, net_rx_action
from ustack.core.steering import store_rps_map
from ustack.core.transmit import dev_queue_xmit

Cause = Callable[[], Bed]


def frame(bed: Bed, dev: Any) -> Skb:
    """Return a frame of 60 bytes that nobody takes."""
    skb = Skb(bytes(12) + b"\x12\x34" + bytes(46), dev)
    skb.protocol = 0x1234
    return skb


def received(count: int = 1, **core: int) -> Cause:
    """Packets are put on the backlog and processed."""

    def cause() -> Bed:
        bed = Bed(core_config(**core))
        for _ in range(count):
            netif_rx(bed.net, frame(bed, bed.lo))
        bed.settle()
        return bed

    return cause


def sent(count: int = 1, room: int | None = None, limit: int = 1000) -> Cause:
    """Packets are given to a device with ``room`` for so many."""

    def cause() -> Bed:
        bed = Bed()
        bed.eth0.room = room
        assert bed.eth0.qdisc is not None
        bed.eth0.qdisc.limit = limit
        for _ in range(count):
            dev_queue_xmit(bed.net, frame(bed, bed.eth0))
        return bed

    return cause


def refused() -> Bed:
    """A device that has not stopped its queue says busy."""
    bed = Bed()
    bed.eth0.ndo_start_xmit = lambda skb: NETDEV_TX_BUSY  # type: ignore[method-assign]
    dev_queue_xmit(bed.net, frame(bed, bed.eth0))
    return bed


def squeezed() -> Bed:
    """Two packets wait, the budget is one."""
    bed = Bed(core_config(netdev_budget=1, dev_weight=1))
    for _ in range(2):
        netif_rx(bed.net, frame(bed, bed.lo))
    net_rx_action(bed.net, bed.clock.now_us)
    return bed


def endless() -> Bed:
    """A source has more than ten rounds of work."""
    bed = Bed()
    left = [64 * 11]

    def poll(napi: Napi, budget: int) -> int:
        left[0] -= budget
        if left[0] <= 0:
            napi_complete(napi)
            return 0
        return budget

    napi_schedule(Napi(bed.net, bed.eth0, poll))
    assert do_softirq(bed.net)
    return bed


def net_tx() -> Bed:
    """A queue is to be run."""
    bed = Bed()
    bed.net.softnet.softirq_pending |= NET_TX_BIT
    do_softirq(bed.net)
    return bed


def without_queue() -> Bed:
    """A device that has no queue is busy."""
    bed = Bed()
    bed.eth0.qdisc = None
    bed.eth0.room = 0
    dev_queue_xmit(bed.net, frame(bed, bed.eth0))
    return bed


def down() -> Bed:
    """The device is down."""
    bed = Bed(up=False)
    dev_queue_xmit(bed.net, frame(bed, bed.eth0))
    return bed


def steered() -> Bed:
    """RPS hands a packet to another CPU, which then is the one we look at."""
    bed = Bed(core_config(nr_cpus=2))
    store_rps_map(bed.eth0, 0, 0b10)
    bed.net.netif_receive_skb(frame(bed, bed.eth0))
    bed.net.softnet = bed.net.softnets[1]
    return bed


SOFTNET: dict[str, tuple[Cause, int]] = {
    "processed": (received(3), 3),
    "dropped": (received(3, netdev_max_backlog=1), 1),
    "time_squeeze": (squeezed, 1),
    "received_rps": (steered, 1),
    "ksoftirqd_wakeups": (endless, 1),
}
SOFTNET_STATE = {"cpu", "softirq_pending", "ksoftirqd_running"}
"""Numbers that count nothing."""
SOFTIRQS: dict[int, tuple[Cause, int]] = {
    NET_TX_SOFTIRQ: (net_tx, 1),
    NET_RX_SOFTIRQ: (received(), 1),
}
"""Linux's other vectors stand in /proc/softirqs for their columns; nothing here raises them."""
QDISC: dict[str, tuple[Cause, int]] = {
    "sent_bytes": (sent(), 60),
    "sent_packets": (sent(), 1),
    "dropped": (sent(3, room=0, limit=2), 1),
    "requeues": (refused, 1),
}
NOT_COUNTED_QDISC = {"overlimits": "tc prints it for every queue; pfifo_fast has no rate"}
DROPS: dict[str, tuple[Cause, int]] = {
    "DEV_READY": (down, 1),
    "FULL_RING": (without_queue, 1),
    "QDISC_DROP": (sent(3, room=0, limit=2), 1),
    "CPU_BACKLOG": (received(3, netdev_max_backlog=1), 1),
}


@pytest.mark.parametrize("name", SOFTNET)
def test_a_cause_raises_the_counter_of_softnet_data(name: str):
    cause, times = SOFTNET[name]
    assert getattr(cause().net.softnet, name) == times


@pytest.mark.parametrize("vector", SOFTIRQS)
def test_a_cause_runs_the_vector(vector: int):
    cause, times = SOFTIRQS[vector]
    counts = [0] * len(SOFTIRQ_NAMES)
    counts[vector] = times
    assert cause().net.softnet.softirq_counts == counts


@pytest.mark.parametrize("name", QDISC)
def test_a_cause_raises_the_counter_of_the_qdisc(name: str):
    cause, times = QDISC[name]
    qdisc = cause().eth0.qdisc
    assert qdisc is not None
    assert getattr(qdisc.stats, name) == times


@pytest.mark.parametrize("name", DROPS)
def test_a_device_drops_for_the_reason(name: str):
    cause, times = DROPS[name]
    assert cause().drops[name] == times


def test_every_counter_of_softnet_data_is_listed():
    softnet = Bed().net.softnet
    numbers = {name for name in type(softnet).__slots__ if isinstance(getattr(softnet, name), int)}
    assert numbers - SOFTNET_STATE == SOFTNET.keys()


def test_every_counter_of_the_qdisc_is_listed():
    assert {f.name for f in fields(QdiscStats)} == QDISC.keys() | NOT_COUNTED_QDISC.keys()
