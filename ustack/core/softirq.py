"""The softirq: where packets are processed, outside of interrupts and of system calls.

``softnet_data`` is one CPU's state (a stack has one). ``Stack.poll`` calls ``do_softirq``;
NET_RX polls the scheduled devices and the backlog within a budget, NET_TX runs the
transmit queues that ran out of quota or of descriptors. References: net/core/dev.c
(net_rx_action, net_tx_action, process_backlog) and kernel/softirq.c (__do_softirq).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from ustack.core.napi import (
    NET_RX_BIT,
    NET_RX_SOFTIRQ,
    NET_TX_BIT,
    NET_TX_SOFTIRQ,
    Napi,
    napi_complete,
    napi_schedule,
)
from ustack.core.skb import Skb, kfree_skb
from ustack.core.transmit import net_tx_action
from ustack.lib.drop_reason import DropReason

if TYPE_CHECKING:
    from ustack.core.net import Net
    from ustack.core.qdisc import Qdisc

MAX_SOFTIRQ_RESTART = 10
"""Rounds of one do_softirq; Linux then wakes ksoftirqd, we tell the caller to come back."""


class SoftnetData:
    """One CPU's packet processing state (struct softnet_data)."""

    __slots__ = (
        "backlog",
        "dropped",
        "input_pkt_queue",
        "output_queue",
        "poll_list",
        "process_queue",
        "processed",
        "softirq_counts",
        "softirq_pending",
        "time_squeeze",
    )

    def __init__(self, net: Net) -> None:
        self.poll_list: deque[Napi] = deque()
        self.input_pkt_queue: deque[Skb] = deque()
        self.process_queue: deque[Skb] = deque()
        self.output_queue: deque[Qdisc] = deque()
        self.backlog = Napi(net, None, process_backlog, net.config.core.dev_weight)
        self.softirq_pending = 0
        """A bit for each raised vector; non-zero means that do_softirq has work."""
        self.softirq_counts = [0] * 10
        """Runs of each vector, the columns of /proc/softirqs."""
        self.processed = 0
        """Packets through netif_receive_skb (/proc/net/softnet_stat column 1)."""
        self.dropped = 0
        """Packets refused by a full backlog (column 2)."""
        self.time_squeeze = 0
        """Times net_rx_action ran out of budget with work left (column 3)."""


def raise_softirq(net: Net, vector: int) -> None:
    """Mark ``vector`` to be run by the next do_softirq."""
    net.softnet.softirq_pending |= 1 << vector


def do_softirq(net: Net) -> bool:
    """Run raised softirqs, at most MAX_SOFTIRQ_RESTART rounds.

    Returns:
        Whether something is still pending: the caller should poll again soon, as ksoftirqd
        would, after letting others run.
    """
    softnet = net.softnet
    for _ in range(MAX_SOFTIRQ_RESTART):
        pending = softnet.softirq_pending
        if not pending:
            return False
        softnet.softirq_pending = 0
        if pending & NET_TX_BIT:
            softnet.softirq_counts[NET_TX_SOFTIRQ] += 1
            net_tx_action(net)
        if pending & NET_RX_BIT:
            softnet.softirq_counts[NET_RX_SOFTIRQ] += 1
            net_rx_action(net)
    return softnet.softirq_pending != 0


def net_rx_action(net: Net) -> None:
    """Poll the scheduled devices in turn until they are empty or the budget is spent."""
    softnet = net.softnet
    budget = net.config.core.netdev_budget
    todo = softnet.poll_list
    softnet.poll_list = deque()
    repoll: list[Napi] = []
    while todo:
        if budget <= 0:
            softnet.time_squeeze += 1
            break
        napi = todo.popleft()
        budget -= napi.poll(napi, napi.weight)
        if napi.scheduled and napi not in softnet.poll_list:
            repoll.append(napi)
    # Devices that never had their turn come first, then new ones, then the busy ones.
    softnet.poll_list.extendleft(reversed(todo))
    softnet.poll_list.extend(repoll)
    if softnet.poll_list:
        softnet.softirq_pending |= NET_RX_BIT


def netif_rx(net: Net, skb: Skb) -> DropReason | None:
    """Queue a received packet that has no ring of its own (enqueue_to_backlog).

    Returns:
        None if it waits in input_pkt_queue; DEV_READY or CPU_BACKLOG if it was dropped.
    """
    dev = skb.dev
    assert dev is not None
    softnet = net.softnet
    if not dev.is_up:
        reason = DropReason.DEV_READY
    elif len(softnet.input_pkt_queue) > net.config.core.netdev_max_backlog:
        softnet.dropped += 1
        reason = DropReason.CPU_BACKLOG
    else:
        softnet.input_pkt_queue.append(skb)
        napi_schedule(softnet.backlog)
        return None
    dev.stats.rx_dropped += 1
    kfree_skb(net, skb, reason)
    return reason


def process_backlog(napi: Napi, quota: int) -> int:
    """Receive up to ``quota`` packets of the backlog (its ``poll``)."""
    net = napi.net
    softnet = net.softnet
    work = 0
    while True:
        queue = softnet.process_queue
        while queue:
            if work >= quota:
                return work
            net.netif_receive_skb(queue.popleft())
            work += 1
        if not softnet.input_pkt_queue:
            napi_complete(napi)
            return work
        softnet.process_queue = softnet.input_pkt_queue
        softnet.input_pkt_queue = queue
