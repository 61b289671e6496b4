"""net_rx_action, the backlog and NAPI: budgets, weights and what is counted."""

from __future__ import annotations

import pytest

from kit.netbed import Bed, core_config
from ustack.core.napi import (
    NET_RX_SOFTIRQ,
    NET_TX_SOFTIRQ,
    Napi,
    napi_complete,
    napi_disable,
    napi_enable,
    napi_schedule,
)
from ustack.core.skb import Skb
from ustack.core.softirq import do_softirq, net_rx_action, netif_rx, raise_softirq
from ustack.driver.loopback import LoopbackDevice
from ustack.lib.drop_reason import DropReason


class Source:
    """A device with ``left`` packets that its poll finds."""

    def __init__(self, bed: Bed, left: int, weight: int = 64) -> None:
        self.left = left
        self.polls: list[int] = []
        self.napi = Napi(bed.net, bed.eth0, self.poll, weight)

    def poll(self, napi: Napi, budget: int) -> int:
        work = min(budget, self.left)
        self.left -= work
        self.polls.append(work)
        if work < budget:
            napi_complete(napi)
        return work


def test_a_source_is_polled_until_it_finds_less_than_its_weight():
    bed = Bed()
    source = Source(bed, 130)
    assert napi_schedule(source.napi)
    assert not napi_schedule(source.napi)  # the interrupt is masked by the flag
    assert do_softirq(bed.net) is False
    assert source.polls == [64, 64, 2]
    assert not source.napi.scheduled
    assert bed.net.softnet.softirq_counts[NET_RX_SOFTIRQ] == 3


def test_the_budget_ends_a_round_and_counts_a_time_squeeze():
    bed = Bed(core_config(netdev_budget=8))
    sources = [Source(bed, 5, weight=4) for _ in range(4)]
    for source in sources:
        napi_schedule(source.napi)
    net_rx_action(bed.net, bed.clock.now_us)
    assert [source.polls for source in sources] == [[4], [4], [], []]
    assert bed.net.softnet.time_squeeze == 1
    net_rx_action(bed.net, bed.clock.now_us)  # those that had no turn come first
    assert [source.polls for source in sources] == [[4], [4], [4], [4]]


def test_do_softirq_gives_up_after_ten_rounds_and_says_so():
    bed = Bed()
    source = Source(bed, 64 * 100)
    napi_schedule(source.napi)
    assert do_softirq(bed.net) is True
    assert len(source.polls) == 10


def test_a_disabled_source_is_neither_polled_nor_scheduled():
    bed = Bed()
    source = Source(bed, 10)
    napi_schedule(source.napi)
    napi_disable(source.napi)
    do_softirq(bed.net)
    assert source.polls == []
    assert not napi_schedule(source.napi)
    napi_enable(source.napi)
    assert napi_schedule(source.napi)


def test_raise_softirq_runs_its_vector_once():
    bed = Bed()
    raise_softirq(bed.net, NET_TX_SOFTIRQ)
    do_softirq(bed.net)
    assert bed.net.softnet.softirq_counts[NET_TX_SOFTIRQ] == 1
    assert bed.net.softnet.softirq_pending == 0


def frame_for_lo(bed: Bed) -> Skb:
    skb = Skb(bytes(12) + b"\x12\x34" + bytes(50), bed.lo)
    skb.protocol = 0x1234
    return skb


def test_the_backlog_takes_one_more_than_its_limit_and_then_drops():
    bed = Bed(core_config(netdev_max_backlog=1))
    results = [netif_rx(bed.net, frame_for_lo(bed)) for _ in range(3)]
    assert results == [None, None, DropReason.CPU_BACKLOG]
    assert bed.net.softnet.dropped == 1
    assert bed.lo.stats.rx_dropped == 1
    assert bed.drops == {"CPU_BACKLOG": 1}


def test_the_backlog_is_processed_by_weight():
    bed = Bed(core_config(dev_weight=4))
    for _ in range(10):
        netif_rx(bed.net, frame_for_lo(bed))
    net_rx_action(bed.net, bed.clock.now_us)
    assert bed.net.softnet.processed == 4
    bed.settle()
    assert bed.net.softnet.processed == 10


def test_a_packet_for_a_device_that_is_down_is_dropped():
    bed = Bed(up=False)
    assert netif_rx(bed.net, frame_for_lo(bed)) is DropReason.DEV_READY
    assert bed.drops == {"DEV_READY": 1}


def test_devices_are_numbered_from_one_and_names_are_unique():
    bed = Bed()
    assert (bed.lo.ifindex, bed.eth0.ifindex) == (1, 2)
    assert bed.net.dev_by_index(2) is bed.eth0
    assert bed.net.dev_by_index(3) is None
    assert bed.net.loopback_dev is bed.lo
    with pytest.raises(KeyError):
        bed.net.register_netdev(LoopbackDevice(bed.net))
