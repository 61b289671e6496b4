"""net_rx_action, the backlog and NAPI: budgets, weights and what is counted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kit.netbed import Bed, core_config
from ustack.config import LINUX_6, LINUX_310, UstackConfig
from ustack.core.backlog import netif_rx
from ustack.core.napi import (
    NET_RX_SOFTIRQ,
    NET_TX_BIT,
    NET_TX_SOFTIRQ,
    Napi,
    napi_complete,
    napi_disable,
    napi_enable,
    napi_schedule,
)
from ustack.core.skb import Skb
from ustack.core.softirq import do_softirq, net_rx_action
from ustack.core.sysctl import sysctl_values
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


def test_a_raised_vector_runs_once():
    bed = Bed()
    bed.net.softnet.softirq_pending |= NET_TX_BIT
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
    assert bed.net.loopback_dev is bed.lo
    with pytest.raises(KeyError):
        bed.net.register_netdev(LoopbackDevice(bed.net))


# Softnet contexts: what a CPU is here.


def test_a_source_is_polled_by_the_context_of_its_cpu():
    bed = Bed(core_config(nr_cpus=4))
    source = Source(bed, 5)
    source.napi.cpu = 2
    napi_schedule(source.napi)
    pending = [softnet.softirq_pending for softnet in bed.net.softnets]
    assert pending == [0, 0, 1 << NET_RX_SOFTIRQ, 0]
    assert bed.net.softirq_pending
    do_softirq(bed.net)
    runs = [softnet.softirq_counts[NET_RX_SOFTIRQ] for softnet in bed.net.softnets]
    assert runs == [0, 0, 1, 0]
    assert bed.net.softnet is bed.net.softnets[0]


def test_packets_count_and_replies_queue_where_they_were_received():
    bed = Bed(core_config(nr_cpus=2))

    def poll(napi: Napi, budget: int) -> int:
        netif_rx(bed.net, frame_for_lo(bed))  # what a protocol sends to its own host
        napi_complete(napi)
        return 1

    napi = Napi(bed.net, bed.eth0, poll, cpu=1)
    napi_schedule(napi)
    do_softirq(bed.net)
    assert [softnet.processed for softnet in bed.net.softnets] == [0, 1]


def test_work_raised_for_a_context_whose_turn_is_over_is_pending():
    bed = Bed(core_config(nr_cpus=2))
    first = Source(bed, 1)

    def poll(napi: Napi, budget: int) -> int:
        napi_schedule(first.napi)
        napi_complete(napi)
        return 0

    napi_schedule(Napi(bed.net, bed.eth0, poll, cpu=1))
    assert do_softirq(bed.net) is True
    assert do_softirq(bed.net) is False
    assert first.polls == [1]


def test_a_device_closed_by_the_poll_of_another_has_no_turn():
    bed = Bed()
    other = Source(bed, 1)

    def poll(napi: Napi, budget: int) -> int:
        napi_disable(other.napi)
        napi_complete(napi)
        return 0

    napi_schedule(Napi(bed.net, bed.eth0, poll))
    napi_schedule(other.napi)
    do_softirq(bed.net)
    assert other.polls == []


# Time limits: the fine clock is the edge's.


class FineClock:
    """Every look at it, and every poll that says so, takes time."""

    def __init__(self, bed: Bed) -> None:
        self.bed = bed
        self.us = bed.clock.now_us
        self.reads = 0
        bed.clock.fine_us = self.read

    def read(self) -> int:
        self.reads += 1
        return self.us


def slow_source(bed: Bed, clock: FineClock, left: int, poll_us: int) -> Source:
    source = Source(bed, left)
    fast = source.poll

    def poll(napi: Napi, budget: int) -> int:
        clock.us += poll_us
        return fast(napi, budget)

    source.napi.poll = poll
    return source


def test_a_poll_with_one_frame_does_not_read_the_fine_clock():
    bed = Bed()
    clock = FineClock(bed)
    napi_schedule(Source(bed, 1).napi)
    assert do_softirq(bed.net) is False
    assert clock.reads == 0


def test_net_rx_action_stops_when_netdev_budget_usecs_are_over():
    bed = Bed(core_config(netdev_budget_usecs=8000, netdev_budget=10_000))
    clock = FineClock(bed)
    sources = [slow_source(bed, clock, 64, 3000) for _ in range(8)]
    for source in sources:
        napi_schedule(source.napi)
    net_rx_action(bed.net, bed.clock.now_us)
    assert [len(source.polls) for source in sources] == [1, 1, 1, 0, 0, 0, 0, 0]
    assert bed.net.softnet.time_squeeze == 1


@pytest.mark.parametrize(("profile", "polls"), [(LINUX_6, 1), (LINUX_310, 3)])
def test_before_4_12_it_has_two_jiffies_and_no_knob(profile, polls):
    config = core_config(netdev_budget_usecs=1, netdev_budget=10_000)
    bed = Bed(replace(config, ustack=UstackConfig(profile=profile)))
    clock = FineClock(bed)
    sources = [slow_source(bed, clock, 64, 3000) for _ in range(8)]
    for source in sources:
        napi_schedule(source.napi)
    net_rx_action(bed.net, bed.clock.now_us)
    assert sum(len(source.polls) for source in sources) == polls
    names = dict(sysctl_values(bed.net.config))
    assert ("net.core.netdev_budget_usecs" in names) == (profile == LINUX_6)


def test_without_work_left_a_long_poll_is_no_squeeze():
    bed = Bed()
    clock = FineClock(bed)
    napi_schedule(slow_source(bed, clock, 1, 1_000_000).napi)
    do_softirq(bed.net)
    assert bed.net.softnet.time_squeeze == 0


def test_no_round_begins_after_two_milliseconds():
    bed = Bed()
    clock = FineClock(bed)
    source = slow_source(bed, clock, 64 * 8, 700)
    napi_schedule(source.napi)
    assert do_softirq(bed.net) is True
    assert len(source.polls) == 3  # at 700, 1400 and 2100 us
    assert bed.net.softnet.ksoftirqd_wakeups == 1


def test_ksoftirqd_is_woken_once_until_it_has_caught_up():
    bed = Bed()
    source = Source(bed, 64 * 25)
    napi_schedule(source.napi)
    rounds = []
    while do_softirq(bed.net):
        rounds.append(len(source.polls))
        assert bed.net.softnet.ksoftirqd_running
    assert rounds == [10, 20]  # the third run, of 6 rounds, empties the source
    assert len(source.polls) == 26
    assert not bed.net.softnet.ksoftirqd_running
    assert bed.net.softnet.ksoftirqd_wakeups == 1
    source.left = 64 * 10
    napi_schedule(source.napi)
    assert do_softirq(bed.net) is True
    assert bed.net.softnet.ksoftirqd_wakeups == 2


# Knobs turned while it runs.


def set_core(bed: Bed, **fields: int) -> None:
    bed.net.config = replace(bed.net.config, core=replace(bed.net.config.core, **fields))


def test_a_new_dev_weight_counts_from_the_next_poll_of_the_backlog_on():
    bed = Bed(core_config(dev_weight=4))
    for _ in range(20):
        netif_rx(bed.net, frame_for_lo(bed))
    set_core(bed, dev_weight=8)
    processed = []
    for _ in range(3):
        net_rx_action(bed.net, bed.clock.now_us)
        processed.append(bed.net.softnet.processed)
    assert processed == [4, 12, 20]
    bed.settle()


def test_a_new_backlog_limit_holds_at_once():
    bed = Bed()
    assert netif_rx(bed.net, frame_for_lo(bed)) is None
    set_core(bed, netdev_max_backlog=0)
    assert netif_rx(bed.net, frame_for_lo(bed)) is DropReason.CPU_BACKLOG
    assert bed.net.softnet.dropped == 1


# E-BUDGET: eight queues, each with 640 packets, on one CPU.


@pytest.mark.parametrize(
    ("budget", "rounds", "squeezed"),
    [(8, 81, 80), (300, 17, 16), (600, 11, 0)],
)
def test_the_budget_decides_how_often_a_flood_is_squeezed(budget: int, rounds: int, squeezed: int):
    """A poll takes 64 packets whatever is left of the budget, as in Linux.

    8: every full poll spends it. 300: every fifth does (5 * 64 = 320). 600: eight queues
    never do (8 * 64 = 512). The polls that find their queue empty cost nothing.
    """
    bed = Bed(core_config(netdev_budget=budget))
    sources = [Source(bed, 640) for _ in range(8)]
    for source in sources:
        napi_schedule(source.napi)
    bed.settle()
    softnet = bed.net.softnet
    assert sum(sum(source.polls) for source in sources) == 8 * 640
    assert (softnet.softirq_counts[NET_RX_SOFTIRQ], softnet.time_squeeze) == (rounds, squeezed)
