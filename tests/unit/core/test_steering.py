"""RPS: which CPU receives. XPS and netdev_pick_tx: which queue sends."""

from __future__ import annotations

import errno

import pytest

from kit.netbed import Bed, core_config
from unit.driver.test_igb_settings import FlowRig, flow
from ustack.core.backlog import netif_rx
from ustack.core.napi import NET_RX_SOFTIRQ
from ustack.core.skb import Skb
from ustack.core.softirq import do_softirq
from ustack.core.steering import (
    netif_set_xps_queue,
    rps_mask,
    store_rps_map,
    xps_mask,
)
from ustack.core.transmit import dev_queue_xmit
from ustack.lib.drop_reason import DropReason

FLOWS = 64


def errno_of(change, *args) -> int:
    with pytest.raises(OSError) as caught:
        change(*args)
    assert caught.value.errno is not None
    return caught.value.errno


class Steered:
    """A bed with four CPUs that notes which one each packet is received on."""

    def __init__(self, mask: int = 0, **core: int) -> None:
        self.bed = Bed(core_config(nr_cpus=4, **core))
        self.net = self.bed.net
        self.cpus: dict[bytes, list[int]] = {}
        self.net.ptype_base[0x0800] = self._rcv
        if mask:
            store_rps_map(self.bed.eth0, 0, mask)

    def _rcv(self, skb: Skb) -> None:
        self.cpus.setdefault(bytes(skb.data), []).append(self.net.softnet.cpu)

    def receive(self, *frames: bytes, queue: int = 0) -> None:
        for frame in frames:
            skb = Skb(memoryview(frame), self.bed.eth0)
            skb.protocol = 0x0800
            skb.queue_mapping = queue
            self.net.netif_receive_skb(skb)

    def used(self) -> set[int]:
        return {cpu for cpus in self.cpus.values() for cpu in cpus}


def frames() -> list[bytes]:
    return [flow(4000 + i) for i in range(FLOWS)]


# Receiving.


def test_without_a_mask_packets_are_received_where_they_came_in():
    steered = Steered()
    steered.receive(*frames())
    assert steered.used() == {0}
    assert not steered.net.softirq_pending


def test_a_mask_sends_packets_to_its_cpu():
    steered = Steered(0b100)
    steered.receive(*frames())
    assert not steered.cpus
    do_softirq(steered.net)
    assert steered.used() == {2}
    assert [softnet.processed for softnet in steered.net.softnets] == [0, 0, FLOWS, 0]
    runs = [softnet.softirq_counts[NET_RX_SOFTIRQ] for softnet in steered.net.softnets]
    assert runs == [0, 0, 2, 0]  # 64 are a whole weight: the second finds nothing


def test_flows_are_spread_over_the_cpus_of_the_mask():
    steered = Steered(0b1110)
    steered.receive(*frames())
    steered.bed.settle()
    processed = [softnet.processed for softnet in steered.net.softnets]
    assert processed[0] == 0
    assert max(processed) <= 2 * min(processed[1:])


def test_a_flow_stays_on_one_cpu_and_in_order():
    steered = Steered(0b1111)
    for _ in range(3):
        steered.receive(*frames())
    steered.bed.settle()
    assert all(len(cpus) == 3 and len(set(cpus)) == 1 for cpus in steered.cpus.values())


def test_received_rps_counts_wake_ups_not_packets():
    """rps_trigger_softirq runs once for all that comes while the backlog is scheduled."""
    steered = Steered(0b10)
    steered.receive(*frames())
    assert steered.net.softnets[1].received_rps == 1
    steered.bed.settle()
    steered.receive(*frames())
    assert steered.net.softnets[1].received_rps == 2
    assert steered.net.softnets[0].received_rps == 0


def test_the_cpu_that_steers_to_itself_is_not_woken():
    steered = Steered(0b1)
    steered.receive(*frames())
    assert steered.net.softnets[0].received_rps == 0
    assert len(steered.net.softnets[0].input_pkt_queue) == FLOWS


def test_the_other_cpus_full_backlog_drops():
    steered = Steered(0b10, netdev_max_backlog=9)
    steered.receive(*frames())
    assert [softnet.dropped for softnet in steered.net.softnets] == [0, FLOWS - 10, 0, 0]
    assert steered.bed.drops == {DropReason.CPU_BACKLOG.name: FLOWS - 10}
    assert steered.bed.eth0.stats.rx_dropped == FLOWS - 10


def test_a_steered_packet_does_not_live_in_the_receive_ring():
    steered = Steered(0b10)
    ring = bytearray(flow(4000))
    skb = Skb(memoryview(ring), steered.bed.eth0)
    skb.protocol = 0x0800
    steered.net.netif_receive_skb(skb)
    ring[:] = bytes(len(ring))
    steered.bed.settle()
    assert list(steered.cpus) == [flow(4000)]


def test_only_the_queue_with_a_mask_is_steered():
    steered = Steered()
    steered.bed.eth0.real_num_rx_queues = 2
    store_rps_map(steered.bed.eth0, 1, 0b1000)
    steered.receive(flow(1), queue=0)
    steered.receive(flow(2), queue=1)
    steered.bed.settle()
    assert steered.cpus == {flow(1): [0], flow(2): [3]}


def test_los_packets_can_be_steered_too():
    steered = Steered()
    store_rps_map(steered.bed.lo, 0, 0b1000)
    skb = Skb(flow(1), steered.bed.lo)
    skb.protocol = 0x0800
    netif_rx(steered.net, skb)
    steered.bed.settle()
    assert steered.used() == {3}


def test_a_mask_of_zero_switches_rps_off():
    steered = Steered(0b10)
    assert steered.net.rps_needed
    store_rps_map(steered.bed.eth0, 0, 0)
    assert not steered.net.rps_needed
    steered.receive(flow(1))
    assert steered.used() == {0}


def test_masks_are_refused_as_linux_refuses_them():
    eth0 = Steered().bed.eth0
    assert errno_of(store_rps_map, eth0, 0, 0b10000) == errno.EOVERFLOW
    assert errno_of(store_rps_map, eth0, 1, 1) == errno.ENOENT
    assert errno_of(rps_mask, eth0, 1) == errno.ENOENT
    assert errno_of(netif_set_xps_queue, eth0, 0, 1) == errno.ENOENT  # but one queue
    assert errno_of(xps_mask, eth0, 0) == errno.ENOENT
    assert rps_mask(eth0, 0) == 0


# Sending.


class Sender(FlowRig):
    """An igb with four queues and CPUs."""

    def __init__(self, **nic) -> None:
        super().__init__(queues=4, nr_cpus=4, large_receive=False, **nic)

    def send(self, cpu: int = 0, flows: int = FLOWS) -> list[int]:
        """Send a frame of each of many flows from a CPU; return how many each queue sent."""
        before = [vector.tx_stats.packets for vector in self.dev.all_vectors]
        self.net.softnet = self.net.softnets[cpu]
        for i in range(flows):
            assert dev_queue_xmit(self.net, Skb(flow(4000 + i), self.dev)) is None
        self.net.softnet = self.net.softnets[0]
        self.settle()
        after = [vector.tx_stats.packets for vector in self.dev.all_vectors]
        return [b - a for a, b in zip(before, after, strict=True)]


def test_without_xps_flows_are_spread_by_their_hash():
    sent = Sender().send()
    assert sum(sent) == FLOWS
    assert max(sent) <= 3 * min(sent)


def test_a_flow_is_sent_by_one_queue():
    rig = Sender()
    assert sorted(rig.send(flows=1)) == [0, 0, 0, 1]
    assert rig.send(flows=1) == rig.send(flows=1)


def test_xps_sends_by_the_queue_of_the_cpu():
    rig = Sender()
    for queue in range(4):
        netif_set_xps_queue(rig.dev, queue, 1 << 3 - queue)
    for cpu in range(4):
        sent = [0] * 4
        sent[3 - cpu] = FLOWS
        assert rig.send(cpu) == sent


def test_a_cpu_with_several_queues_spreads_flows_over_them():
    rig = Sender()
    for queue in (1, 2):
        netif_set_xps_queue(rig.dev, queue, 0b1)
    sent = rig.send()
    assert sent[0] == sent[3] == 0
    assert max(sent) <= 2 * min(sent[1:3])


def test_a_cpu_that_no_mask_names_falls_back_to_the_hash():
    rig = Sender()
    netif_set_xps_queue(rig.dev, 0, 0b1)
    assert rig.send(0) == [FLOWS, 0, 0, 0]
    assert min(rig.send(1)) > 0


def test_a_mask_of_zero_takes_a_queue_out_of_xps():
    rig = Sender()
    netif_set_xps_queue(rig.dev, 2, 0b1)
    assert (xps_mask(rig.dev, 2), xps_mask(rig.dev, 1)) == (1, 0)
    netif_set_xps_queue(rig.dev, 2, 0)
    assert min(rig.send()) > 0


def test_queues_that_go_take_their_masks_with_them():
    rig = Sender()
    netif_set_xps_queue(rig.dev, 3, 0b1)
    store_rps_map(rig.dev, 3, 0b10)
    rig.dev.set_channels(2)
    assert not rig.net.rps_needed
    assert errno_of(xps_mask, rig.dev, 3) == errno.ENOENT
    assert sum(rig.send()[:2]) == FLOWS
    rig.dev.set_channels(4)
    assert (xps_mask(rig.dev, 3), rps_mask(rig.dev, 3)) == (0, 0)


def test_rss_and_rps_agree_on_the_devices_hash():
    """The ring chooses the vector's CPU; RPS of that ring moves the packets on."""
    rig = Sender()
    for queue in range(4):
        store_rps_map(rig.dev, queue, 1 << 3 - queue)
    before = [softnet.processed for softnet in rig.net.softnets]
    received = rig.queues(*[flow(4000 + i) for i in range(FLOWS)])
    after = [softnet.processed for softnet in rig.net.softnets]
    assert [b - a for a, b in zip(before, after, strict=True)] == received[::-1]
    assert min(received) > 0


# A qdisc for each queue.


def test_each_queue_has_a_pfifo_fast_of_its_own():
    rig = Sender()
    sent = rig.send()
    root = rig.dev.qdisc
    assert [leaf.stats.sent_packets for leaf in root.leaves] == [*sent, 0, 0, 0, 0]
    assert root.stats.sent_packets == FLOWS
    assert root.stats.sent_bytes == FLOWS * len(flow(1))


def test_a_stopped_queue_does_not_stop_the_others():
    rig = Sender(tx_ring=64)
    for queue in range(4):
        netif_set_xps_queue(rig.dev, queue, 1 << queue)
    rig.dev.wire._limit = 0
    for i in range(100):
        rig.net.softnet = rig.net.softnets[1]
        dev_queue_xmit(rig.net, Skb(flow(i), rig.dev))
    assert [leaf.qlen for leaf in rig.dev.qdisc.leaves[:4]] == [0, 100 - 41, 0, 0]
    assert [rig.dev.tx_queue_stopped(queue) for queue in range(4)] == [False, True, False, False]
    assert rig.dev.queue_stopped
    rig.dev.wire._limit = None
    assert rig.send(cpu=2, flows=3) == [0, 100, 3, 0]
    assert rig.dev.qdisc.qlen == 0


def test_what_waits_for_a_queue_that_goes_is_dropped():
    """qdisc_reset_all_tx_gt, when the number of queues shrinks."""
    rig = Sender(tx_ring=64)
    netif_set_xps_queue(rig.dev, 3, 0b1)
    rig.dev.wire._limit = 0
    for i in range(100):
        dev_queue_xmit(rig.net, Skb(flow(i), rig.dev))
    rig.dev.set_channels(2)
    assert rig.dev.qdisc.qlen == 0
    assert rig.net.drops.nonzero()[DropReason.DEV_READY.name] == 100 - 41
