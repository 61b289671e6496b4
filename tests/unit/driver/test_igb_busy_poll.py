"""An igb that is polled all the time: the same packets, no interrupt, no NET_RX softirq."""

from __future__ import annotations

from kit.board import ethernet
from kit.host import TEST_CONFIG, host
from unit.driver.test_igb import Rig, numbered
from unit.driver.test_igb_settings import FlowRig, flow
from ustack.core.napi import NET_RX_SOFTIRQ
from ustack.core.skb import Skb
from ustack.core.transmit import dev_queue_xmit


def polling(**nic) -> Rig:
    return Rig(busy_poll=True, **nic)


def test_a_frame_is_handed_up_by_the_poll_itself():
    rig = polling()
    rig.arrive(numbered(7))
    assert [frame for frame, *_ in rig.got] == [numbered(7)]
    assert rig.net.mib.tcp_ext.BusyPollRxPackets == 1


def test_no_interrupt_and_no_softirq_happens():
    rig = polling()
    for i in range(10):
        rig.arrive(numbered(i))
        dev_queue_xmit(rig.net, Skb(numbered(i), rig.dev))
        rig.settle()
    assert rig.dev.nic.irq_counts == [0] * 8
    assert rig.dev.nic.regs.EIMS == 0
    assert rig.net.softnet.softirq_counts[NET_RX_SOFTIRQ] == 0
    assert not rig.net.softirq_pending
    assert len(rig.got) == len(rig.sent()) == 10


def test_more_frames_than_a_weight_come_up_in_order():
    rig = polling()
    rig.arrive(*[numbered(i) for i in range(1000)])
    assert [frame for frame, *_ in rig.got] == [numbered(i) for i in range(1000)]


def test_a_poll_with_frames_left_in_the_ring_says_that_there_is_more():
    rig = polling()
    rig.net.softirq_frozen = True
    rig.arrive(*[numbered(i) for i in range(100)])
    assert rig.got == []
    rig.net.softirq_frozen = False
    assert [bool(rig.dev.poll_hw()) for _ in range(3)] == [True, True, False]
    assert len(rig.got) == 100


def test_what_gro_holds_goes_up_at_the_end_of_the_poll():
    rig = FlowRig(busy_poll=True, large_receive=False)
    taken: list[bytes] = []
    rig.net.ptype_base[0x0800] = lambda skb: taken.append(bytes(skb.data))
    rig.arrive(*[flow(4000 + i) for i in range(5)])
    assert len(taken) == 5
    assert not rig.dev.napi.gro_list


def test_every_queue_is_polled_in_the_context_of_its_vector():
    rig = FlowRig(busy_poll=True, queues=4, nr_cpus=4, large_receive=False)
    received = rig.queues(*[flow(4000 + i) for i in range(64)])
    assert min(received) > 0
    assert [softnet.processed for softnet in rig.net.softnets] == received
    assert rig.net.softnet is rig.net.softnets[0]


def test_sent_descriptors_are_cleaned_and_a_stopped_queue_wakes():
    rig = polling(tx_ring=64)
    for i in range(500):
        dev_queue_xmit(rig.net, Skb(numbered(i), rig.dev))
    rig.settle()
    assert rig.sent() == [bytes(10) + numbered(i) for i in range(500)]
    assert rig.dev.qdisc.qlen == 0


def test_changes_while_it_runs_do_not_bring_interrupts_back():
    rig = polling()
    rig.dev.set_channels(2)
    rig.dev.set_ringparam(rx=512)
    rig.dev.set_coalesce(rx_usecs=50)
    rig.arrive(ethernet(b"later"))
    rig.settle()
    assert len(rig.got) == 1
    assert rig.dev.nic.irq_counts == [0] * 8


def test_a_packet_that_takes_the_interface_down_ends_the_poll():
    rig = polling(queues=2)
    rig.net.ptype_base[0x88B5] = lambda skb: rig.net.dev_close(rig.dev)
    rig.far.send_frame(bytes(10) + numbered(1))
    rig.dev.poll_hw()
    assert not rig.dev.is_up
    assert rig.dev.poll_hw() == 0


def test_tcp_answers_as_with_interrupts():
    nic = TEST_CONFIG.nic
    h = host(TEST_CONFIG, nic=type(nic)(**{**vars(nic), "busy_poll": True}))
    _, peer = h.established()
    peer.send("P. 1:6(5) ack 1")
    peer.expect(". 1:1(0) ack 6")
    assert h.adapter.nic.irq_counts[0] == 0
