"""dev_queue_xmit: bypass, queue, requeue, quota; and what is done for a simple device."""

from __future__ import annotations

import dpkt
import pytest

from kit.netbed import OURS, PEER, Bed, core_config
from ustack.core.napi import NET_TX_SOFTIRQ
from ustack.core.netdevice import NETIF_F_IP_CSUM, NETIF_F_TSO
from ustack.core.skb import CHECKSUM_PARTIAL, Skb
from ustack.core.softirq import do_softirq
from ustack.core.transmit import dev_queue_xmit, netif_wake_queue
from ustack.ipv4.output import ip_queue_xmit
from ustack.ipv4.route import ip_route_output
from ustack.lib.drop_reason import DropReason
from ustack.native.checksum import csum_fold, csum_partial, csum_tcpudp_magic, csum_tcpudp_nofold
from ustack.wire.ipv4 import IPPROTO_TCP


def frame(bed: Bed, mark: int, priority: int = 0) -> Skb:
    skb = Skb(bytes([mark]) * 60, bed.eth0)
    skb.priority = priority
    return skb


def sent_marks(bed: Bed) -> list[int]:
    return [data[0] for data in bed.take_sent()]


def test_an_empty_queue_is_bypassed():
    bed = Bed()
    assert dev_queue_xmit(bed.net, frame(bed, 1)) is None
    assert sent_marks(bed) == [1]
    stats = bed.eth0.qdisc.stats
    assert (stats.sent_packets, stats.sent_bytes, stats.requeues) == (1, 60, 0)


def test_a_stopped_queue_keeps_packets_until_it_is_woken():
    bed = Bed()
    bed.eth0.room = 0
    for mark in (1, 2, 3):
        dev_queue_xmit(bed.net, frame(bed, mark))
    assert sent_marks(bed) == []
    assert (bed.eth0.qdisc.qlen, bed.eth0.qdisc.backlog_bytes) == (3, 180)
    bed.eth0.room = None
    netif_wake_queue(bed.eth0)
    do_softirq(bed.net)
    assert sent_marks(bed) == [1, 2, 3]
    assert bed.net.softnet.softirq_counts[NET_TX_SOFTIRQ] == 1


def test_a_packet_that_the_device_refuses_goes_first_later():
    bed = Bed()
    bed.eth0.room = 0
    for mark in (1, 2, 3):
        dev_queue_xmit(bed.net, frame(bed, mark))

    class Lying(type(bed.eth0)):
        queue_stopped = False

    bed.eth0.__class__ = Lying
    bed.eth0.room = 1
    netif_wake_queue(bed.eth0)
    do_softirq(bed.net)
    assert sent_marks(bed) == [1]
    assert bed.eth0.qdisc.stats.requeues > 0
    bed.eth0.room = None
    do_softirq(bed.net)
    assert sent_marks(bed) == [2, 3]


def test_a_bypassing_packet_that_is_refused_waits():
    bed = Bed()

    class Lying(type(bed.eth0)):
        queue_stopped = False

    bed.eth0.__class__ = Lying
    bed.eth0.room = 0
    assert dev_queue_xmit(bed.net, frame(bed, 1)) is None
    bed.eth0.room = None
    do_softirq(bed.net)
    assert sent_marks(bed) == [1]


def test_bands_go_by_priority():
    bed = Bed()
    bed.eth0.room = 0
    for mark, priority in ((1, 1), (2, 0), (3, 6)):  # bulk, best effort, interactive
        dev_queue_xmit(bed.net, frame(bed, mark, priority))
    bed.eth0.room = None
    netif_wake_queue(bed.eth0)
    do_softirq(bed.net)
    assert sent_marks(bed) == [3, 2, 1]


def test_a_full_queue_drops():
    bed = Bed()
    bed.eth0.qdisc.limit = 2
    bed.eth0.room = 0
    results = [dev_queue_xmit(bed.net, frame(bed, mark)) for mark in (1, 2, 3)]
    assert results == [None, None, DropReason.QDISC_DROP]
    assert bed.eth0.qdisc.stats.dropped == 1
    assert bed.eth0.stats.tx_dropped == 1
    assert bed.drops == {"QDISC_DROP": 1}


def test_the_quota_leaves_the_rest_to_net_tx():
    bed = Bed(core_config(dev_weight=2))
    bed.eth0.room = 0
    for mark in range(5):
        dev_queue_xmit(bed.net, frame(bed, mark))
    bed.eth0.room = None
    dev_queue_xmit(bed.net, frame(bed, 5))
    assert sent_marks(bed) == [0, 1]
    do_softirq(bed.net)
    assert sent_marks(bed) == [2, 3, 4, 5]
    assert bed.net.softnet.softirq_counts[NET_TX_SOFTIRQ] >= 2


def test_nothing_is_sent_through_a_device_that_is_down():
    bed = Bed(up=False)
    assert dev_queue_xmit(bed.net, frame(bed, 1)) is DropReason.DEV_READY
    assert bed.eth0.stats.tx_dropped == 1


def test_closing_a_device_drops_what_waits_and_gives_pages_back():
    bed = Bed()
    free = bed.mem.free_pages
    skb = frame(bed, 1)
    skb.frags = [(bed.mem.alloc_pages(0), 100)]
    bed.eth0.room = 0
    dev_queue_xmit(bed.net, skb)
    bed.net.dev_close(bed.eth0)
    bed.net.dev_close(bed.eth0)
    assert bed.drops == {"DEV_READY": 1}
    assert bed.mem.free_pages == free
    assert not bed.eth0.is_up


def test_a_device_without_queue_that_is_busy_loses_the_packet():
    bed = Bed()
    bed.eth0.qdisc = None
    bed.eth0.room = 0
    assert dev_queue_xmit(bed.net, frame(bed, 1)) is DropReason.FULL_RING


def tcp_segment(bed: Bed, payload: bytes, *, flags: int = 0x18, split: int = 0) -> Skb:
    """Return a CHECKSUM_PARTIAL segment; bytes from ``split`` on are in arena pages."""
    length = 20 + len(payload)
    pseudo = csum_tcpudp_nofold(OURS, PEER, length, IPPROTO_TCP, 0)
    header = b"\0\x50\x9c\x40" + b"\xff\xff\xff\x00" + bytes(4) + bytes([0x50, flags]) + b"\1\0"
    skb = Skb(header + pseudo.to_bytes(2, "big") + b"\0\0" + payload[:split])
    for at in range(split, len(payload), 4096):
        page = bed.mem.alloc_pages(0)
        piece = payload[at : at + 4096]
        bed.mem.view[page : page + len(piece)] = piece
        skb.frags.append((page, len(piece)))
    skb.ip_summed = CHECKSUM_PARTIAL
    skb.csum_offset = 16
    return skb


def send_tcp(bed: Bed, skb: Skb) -> None:
    bed.know_peer()
    rt = ip_route_output(bed.ip, PEER)
    assert rt is not None
    assert ip_queue_xmit(bed.ip, skb, rt, OURS, PEER, IPPROTO_TCP) is None


def tcp_checksum_is_right(data: bytes) -> bool:
    segment = data[34 : 14 + int.from_bytes(data[16:18], "big")]
    total = csum_partial(segment)
    return csum_tcpudp_magic(OURS, PEER, len(segment), IPPROTO_TCP, total) == 0


@pytest.mark.parametrize("split", [0, 5, 1000])
def test_a_checksum_is_completed_for_a_device_that_cannot(split):
    bed = Bed()
    free = bed.mem.free_pages
    send_tcp(bed, tcp_segment(bed, bytes(range(250)) * 4, split=split))
    (data,) = bed.take_sent()
    assert tcp_checksum_is_right(data)
    assert data[54:] == bytes(range(250)) * 4
    assert bed.mem.free_pages == free


def test_a_checksum_is_left_to_a_device_that_can():
    bed = Bed()
    bed.eth0.features |= NETIF_F_IP_CSUM
    send_tcp(bed, tcp_segment(bed, b"data", split=2))
    assert bed.eth0.sent[0].ip_summed == CHECKSUM_PARTIAL
    assert bed.eth0.sent[0].frags


def test_a_super_frame_is_cut_for_a_device_that_cannot():
    bed = Bed()
    payload = bytes(range(256)) * 20
    skb = tcp_segment(bed, payload, flags=0x99, split=100)  # CWR, ACK, PSH, FIN
    skb.gso_size, skb.gso_segs = 1460, 4
    send_tcp(bed, skb)
    frames = bed.take_sent()
    assert [len(f) - 54 for f in frames] == [1460, 1460, 1460, 740]
    assert all(tcp_checksum_is_right(f) for f in frames)
    packets = [dpkt.ethernet.Ethernet(f).data for f in frames]
    seqs = [packet.data.seq for packet in packets]
    assert seqs == [(0xFFFFFF00 + 1460 * n) & 0xFFFFFFFF for n in range(4)]
    assert [packet.data.flags for packet in packets] == [0x90, 0x10, 0x10, 0x19]
    idents = [packet.id for packet in packets]
    assert [(i - idents[0]) & 0xFFFF for i in idents] == [0, 1, 2, 3]
    assert all(csum_fold(csum_partial(f[14:34])) == 0 for f in frames)
    assert b"".join(f[54:] for f in frames) == payload


def test_a_super_frame_goes_whole_to_a_device_that_can_cut_it():
    bed = Bed()
    bed.eth0.features |= NETIF_F_IP_CSUM | NETIF_F_TSO
    skb = tcp_segment(bed, bytes(5000), split=0)
    skb.gso_size, skb.gso_segs = 1460, 4
    send_tcp(bed, skb)
    (data,) = bed.take_sent()
    assert int.from_bytes(data[16:18], "big") == 5040


def super_frame(bed: Bed, segments: int) -> Skb:
    skb = tcp_segment(bed, bytes(range(200)) * 5 * segments, split=0)
    skb.gso_size, skb.gso_segs = 1000, segments
    return skb


def seqs(frames: list[bytes]) -> list[int]:
    return [int.from_bytes(frame[38:42], "big") + 0x100 & 0xFFFFFFFF for frame in frames]


def test_a_super_frame_waits_as_one_packet():
    bed = Bed()
    bed.eth0.room = 0
    send_tcp(bed, super_frame(bed, 5))
    assert bed.eth0.qdisc.qlen == 1
    bed.eth0.room = None
    netif_wake_queue(bed.eth0)
    do_softirq(bed.net)
    assert seqs(bed.take_sent()) == [0, 1000, 2000, 3000, 4000]
    assert bed.eth0.qdisc.stats.sent_packets == 5


@pytest.mark.parametrize("lying", [False, True])
def test_what_a_full_ring_leaves_of_a_super_frame_goes_first_and_in_order(lying: bool):
    bed = Bed()

    class Lying(type(bed.eth0)):
        queue_stopped = False

    if lying:
        bed.eth0.__class__ = Lying
    bed.eth0.room = 2
    send_tcp(bed, super_frame(bed, 5))
    later = tcp_segment(bed, b"later")
    send_tcp(bed, later)
    assert seqs(bed.take_sent()) == [0, 1000]
    for room in (1, 2, None):
        bed.eth0.room = room
        netif_wake_queue(bed.eth0)
        do_softirq(bed.net)
    frames = bed.take_sent()
    assert seqs(frames) == [2000, 3000, 4000, 0]
    assert frames[-1].endswith(b"later")
    assert all(tcp_checksum_is_right(frame) for frame in frames)
    assert bed.drops == {}


def test_a_super_frame_for_a_device_without_queue_is_cut_too():
    bed = Bed()
    bed.eth0.qdisc = None
    bed.eth0.room = 3
    bed.know_peer()
    rt = ip_route_output(bed.ip, PEER)
    reason = ip_queue_xmit(bed.ip, super_frame(bed, 5), rt, OURS, PEER, IPPROTO_TCP)
    assert reason is DropReason.FULL_RING
    assert seqs(bed.take_sent()) == [0, 1000, 2000]
    assert bed.drops == {"FULL_RING": 2}


def test_a_run_that_has_lasted_too_long_leaves_the_rest_to_net_tx():
    """need_resched: the packets behind wait for the next softirq although quota is left."""
    bed = Bed()
    bed.eth0.room = 0
    for mark in range(5):
        dev_queue_xmit(bed.net, frame(bed, mark))
    bed.eth0.room = None
    late = [3999, 4000]
    bed.clock.fine_us = lambda: bed.clock.now_us + (late.pop(0) if late else 0)
    dev_queue_xmit(bed.net, frame(bed, 5))
    assert sent_marks(bed) == [0, 1]
    assert bed.net.softirq_pending
    do_softirq(bed.net)
    assert sent_marks(bed) == [2, 3, 4, 5]
