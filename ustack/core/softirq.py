"""The softirq: where packets are processed, outside of interrupts and of system calls.

``softnet_data`` is one CPU's state; a stack has ``nr_cpus`` of them and one thread, which
runs them in turn. ``Stack.poll`` calls ``do_softirq``: NET_RX polls the scheduled devices
and the backlog within a budget of packets and of time, NET_TX runs the transmit queues that
ran out of quota or of descriptors. Time is ``clock.now_us`` at first and ``clock.fine_us``
where there is more to do. References: net/core/dev.c (net_rx_action, net_tx_action,
process_backlog) and kernel/softirq.c (__do_softirq, run_ksoftirqd) of Linux 6.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from ustack.config import LINUX_310
from ustack.core.gro import napi_gro_flush
from ustack.core.napi import (
    NET_RX_BIT,
    NET_RX_SOFTIRQ,
    NET_TX_BIT,
    NET_TX_SOFTIRQ,
    Napi,
    napi_complete,
)
from ustack.core.receive import __netif_receive_skb
from ustack.core.skb import Skb
from ustack.core.transmit import net_tx_action

if TYPE_CHECKING:
    from ustack.config import StackConfig
    from ustack.core.net import Net
    from ustack.core.qdisc import Qdisc

MAX_SOFTIRQ_RESTART = 10
"""Rounds of one do_softirq before ksoftirqd is woken for the rest."""
TWO_JIFFIES_US = 8000
"""At HZ=250."""
MAX_SOFTIRQ_TIME_US = 2000
"""Microseconds of one do_softirq after which no further round begins (2 ms)."""
SOFTIRQ_NAMES = (
    "HI", "TIMER", "NET_TX", "NET_RX", "BLOCK", "IRQ_POLL", "TASKLET", "SCHED", "HRTIMER", "RCU",
)  # fmt: skip
"""The vectors, in the order of /proc/softirqs."""


class SoftnetData:
    """One CPU's packet processing state (struct softnet_data)."""

    __slots__ = (
        "backlog",
        "cpu",
        "dropped",
        "input_pkt_queue",
        "ksoftirqd_running",
        "ksoftirqd_wakeups",
        "output_queue",
        "poll_list",
        "process_queue",
        "processed",
        "received_rps",
        "softirq_counts",
        "softirq_pending",
        "time_squeeze",
    )

    def __init__(self, net: Net, cpu: int) -> None:
        self.cpu = cpu
        """Its index in ``net.softnets``."""
        self.poll_list: deque[Napi] = deque()
        self.input_pkt_queue: deque[Skb] = deque()
        self.process_queue: deque[Skb] = deque()
        self.output_queue: deque[Qdisc] = deque()
        self.backlog = Napi(net, None, process_backlog, net.config.core.dev_weight, cpu)
        self.softirq_pending = 0
        """A bit for each raised vector; non-zero means that do_softirq has work."""
        self.softirq_counts = [0] * len(SOFTIRQ_NAMES)
        """Runs of each vector, the columns of /proc/softirqs."""
        self.processed = 0
        """Packets through netif_receive_skb (/proc/net/softnet_stat column 1)."""
        self.dropped = 0
        """Packets refused by a full backlog (column 2)."""
        self.time_squeeze = 0
        """Times net_rx_action ran out of budget or time with work left (column 3)."""
        self.received_rps = 0
        """Times that another CPU's RPS woke this one (column 10)."""
        self.ksoftirqd_running = False
        """Whether ksoftirqd/N has been woken and not yet caught up: the next do_softirq is
        its run."""
        self.ksoftirqd_wakeups = 0
        """Times that do_softirq left work to it."""


def do_softirq(net: Net) -> bool:
    """Run what is raised, one CPU after the other.

    Returns:
        Whether something is still pending: the caller should poll again soon, after letting
        others run, and ksoftirqd will go on with it.
    """
    if net.softirq_frozen:
        return False
    softnets = net.softnets
    if len(softnets) == 1:
        softnet = softnets[0]
        return bool(softnet.softirq_pending) and __do_softirq(net, softnet, net.clock.now_us)
    start_us = net.clock.now_us
    for softnet in softnets:
        if softnet.softirq_pending:
            net.softnet = softnet
            __do_softirq(net, softnet, start_us)
            start_us = net.clock.fine_us()
    net.softnet = softnets[0]
    return net.softirq_pending


def __do_softirq(net: Net, softnet: SoftnetData, start_us: int) -> bool:
    """Run one CPU's softirqs until none is raised, or rounds or time are used up.

    Returns:
        Whether ksoftirqd has been left with the rest.
    """
    now_us = start_us
    counts = softnet.softirq_counts
    for _ in range(MAX_SOFTIRQ_RESTART):
        pending = softnet.softirq_pending
        softnet.softirq_pending = 0
        if pending & NET_TX_BIT:
            counts[NET_TX_SOFTIRQ] += 1
            net_tx_action(net)
        if pending & NET_RX_BIT:
            counts[NET_RX_SOFTIRQ] += 1
            net_rx_action(net, now_us)
        if not softnet.softirq_pending:
            softnet.ksoftirqd_running = False
            return False
        now_us = net.clock.fine_us()
        if now_us - start_us >= MAX_SOFTIRQ_TIME_US:
            break
    wakeup_softirqd(softnet)
    return True


def wakeup_softirqd(softnet: SoftnetData) -> None:
    """Leave the rest to ksoftirqd/N, which goes on at the next poll until it has caught up."""
    if not softnet.ksoftirqd_running:
        softnet.ksoftirqd_running = True
        softnet.ksoftirqd_wakeups += 1


def net_rx_time_us(config: StackConfig) -> int:
    """How long one net_rx_action may take: netdev_budget_usecs; before 4.12 two jiffies."""
    if config.ustack.profile == LINUX_310:
        return TWO_JIFFIES_US
    return config.core.netdev_budget_usecs


def net_rx_action(net: Net, start_us: int) -> None:
    """Poll each scheduled device once, until the budget or the time is spent.

    What GRO holds goes up after each poll. Devices that used up their weight come again in
    the next round, behind those that had no turn. That time is up is noticed only with work
    left: otherwise it changes nothing and the clock need not be read.

    Args:
        start_us: when this began.
    """
    core = net.config.core
    softnet = net.softnet
    budget = core.netdev_budget
    poll_list = softnet.poll_list
    repoll: list[Napi] = []
    for _ in range(len(poll_list)):
        if not poll_list:
            break  # a poll has closed other devices
        napi = poll_list.popleft()
        weight = napi.weight
        work = napi.poll(napi, weight)
        if napi.gro_list:
            napi_gro_flush(napi)
        if work >= weight and napi.scheduled:
            repoll.append(napi)
        budget -= work
        if budget <= 0 or (
            (poll_list or repoll) and net.clock.fine_us() - start_us >= net_rx_time_us(net.config)
        ):
            softnet.time_squeeze += 1
            break
    poll_list.extend(repoll)
    if poll_list:
        softnet.softirq_pending |= NET_RX_BIT


def process_backlog(napi: Napi, quota: int) -> int:
    """Receive up to ``quota`` packets of the backlog (its ``poll``)."""
    net = napi.net
    softnet = net.softnets[napi.cpu]
    napi.weight = net.config.core.dev_weight  # a new value counts from the next poll on
    work = 0
    while True:
        queue = softnet.process_queue
        while queue:
            __netif_receive_skb(net, queue.popleft())
            work += 1
            if work >= quota:
                return work
        if not softnet.input_pkt_queue:
            napi_complete(napi)
            return work
        softnet.process_queue = softnet.input_pkt_queue
        softnet.input_pkt_queue = queue
