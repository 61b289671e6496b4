"""The igb driver on a pair of wires: interrupt, NAPI, rings, offloads, figures."""

from __future__ import annotations

import errno
import random
import socket
import struct
from dataclasses import replace

import pytest

from kit.board import ethernet
from ustack.config import CoreConfig, NicConfig, StackConfig
from ustack.core.net import Net
from ustack.core.netdevice import (
    IFF_LOWER_UP,
    IFF_RUNNING,
    NETDEV_TX_BUSY,
    NETDEV_TX_OK,
    NETIF_F_IP_CSUM,
    NETIF_F_LRO,
    NETIF_F_RXCSUM,
    NETIF_F_SOFT_FEATURES,
    NETIF_F_TSO,
)
from ustack.core.skb import CHECKSUM_NONE, CHECKSUM_PARTIAL, CHECKSUM_UNNECESSARY, PACKET_HOST, Skb
from ustack.core.softirq import do_softirq
from ustack.core.transmit import dev_queue_xmit
from ustack.driver.igb import IgbAdapter
from ustack.driver.igb_tx import igb_xmit_frame
from ustack.lib.clock import StackClock
from ustack.lib.drop_reason import DropReason
from ustack.native.lib import lib
from ustack.native.mem import Mem
from ustack.nic.pair import wire_pair

MAC = bytes.fromhex("020000000001")
ETHERTYPE = 0x88B5


class Rig:
    """One adapter that is up, the far end of its wire, and what the stack received."""

    def __init__(
        self, *, wire_limit: int | None = None, arena: int = 64 << 20, nr_cpus: int = 1, **nic
    ) -> None:
        config = StackConfig(
            nic=replace(NicConfig(rx_usecs=0), **nic),
            core=CoreConfig(arena_bytes=arena, nr_cpus=nr_cpus),
        )
        self.net = Net(StackClock(), random.Random(1), config, Mem(arena))
        wire, self.far = wire_pair(limit=wire_limit)
        self.free_pages = self.net.mem.free_pages
        self.dev = IgbAdapter(self.net, "eth0", wire, MAC, config.nic)
        self.net.register_netdev(self.dev)
        self.net.dev_open(self.dev)
        self.got: list[tuple[bytes, int, int, int]] = []
        self.net.dev_add_pack(ETHERTYPE, self._rcv)

    def _rcv(self, skb: Skb) -> None:
        assert skb.dev is self.dev
        assert skb.pkt_type == PACKET_HOST
        self.got.append((bytes(skb.data), skb.ip_summed, skb.gso_size, skb.gso_segs))

    def arrive(self, *frames: bytes, header: bytes = bytes(10)) -> None:
        """Put frames on the wire; the device moves what it can, nothing is polled."""
        for frame in frames:
            assert self.far.send_frame(header + frame)
        while self.dev.poll_hw():
            pass

    @property
    def hardware_features(self) -> int:
        return self.dev.features & ~NETIF_F_SOFT_FEATURES

    def softirq(self) -> None:
        while do_softirq(self.net):
            pass

    def settle(self) -> None:
        self.softirq()
        while self.dev.poll_hw() or self.net.softirq_pending:
            self.softirq()

    def sent(self) -> list[bytes]:
        """Take all units off the far end."""
        units = []
        while (unit := self.far.recv_frame()) is not None:
            units.append(unit)
        return units

    def page(self, payload: bytes) -> tuple[int, int]:
        """Return a frag that holds ``payload``, with the one reference."""
        addr = self.net.mem.alloc_pages(max(0, (len(payload) - 1).bit_length() - 12))
        self.net.mem.view[addr : addr + len(payload)] = payload
        return addr, len(payload)


def numbered(i: int) -> bytes:
    return ethernet(i.to_bytes(4, "big"))


# Receiving.


def test_a_frame_goes_through_the_interrupt_and_the_softirq_to_its_handler():
    rig = Rig()
    rig.arrive(numbered(7))
    assert rig.got == []
    assert rig.dev.napi.scheduled
    rig.softirq()
    assert [frame for frame, *_ in rig.got] == [numbered(7)]
    assert not rig.dev.napi.scheduled
    assert rig.dev.nic.irq_counts[0] == 1


def test_the_interrupt_is_masked_while_napi_is_scheduled():
    rig = Rig()
    for i in range(10):
        rig.arrive(numbered(i))
    assert rig.dev.nic.irq_counts[0] == 1
    assert rig.dev.nic.regs.EIMS == 0
    rig.settle()
    assert rig.dev.nic.regs.EIMS == 1
    assert len(rig.got) == 10


def test_a_poll_takes_no_more_than_its_weight_and_stays_scheduled():
    rig = Rig()
    rig.arrive(*[numbered(i) for i in range(100)])
    napi = rig.dev.napi
    assert rig.dev.napi.poll(napi, 64) == 64
    assert (len(rig.got), napi.scheduled) == (64, True)
    assert rig.dev.napi.poll(napi, 64) == 36
    assert (len(rig.got), napi.scheduled) == (100, False)


def test_frames_keep_their_order_over_many_turns_of_the_ring():
    rig = Rig(rx_ring=64)
    for start in range(0, 1000, 50):
        rig.arrive(*[numbered(i) for i in range(start, start + 50)])
        rig.settle()
    assert [frame for frame, *_ in rig.got] == [numbered(i) for i in range(1000)]
    assert rig.dev.ethtool_stats()["rx_queue_0_packets"] == 1000


def test_with_pause_a_frozen_ring_leaves_frames_on_the_wire():
    rig = Rig()
    rig.arrive(*[numbered(i) for i in range(5000)])
    assert rig.dev.rx_full
    assert rig.dev.wire.pending == 5000 - 255
    rig.settle()
    assert not rig.dev.rx_full
    assert [frame for frame, *_ in rig.got] == [numbered(i) for i in range(5000)]
    stats = rig.dev.ethtool_stats()
    assert (stats["rx_missed_errors"], stats["rx_packets"]) == (0, 5000)
    assert stats["tx_flow_control_xoff"] == stats["tx_flow_control_xon"] > 0


def test_without_pause_a_frozen_ring_of_256_misses_4745_of_5000():
    rig = Rig(pause=False)
    rig.arrive(*[numbered(i) for i in range(5000)])
    rig.settle()
    assert [frame for frame, *_ in rig.got] == [numbered(i) for i in range(255)]
    stats = rig.dev.ethtool_stats()
    for name in ("rx_missed_errors", "rx_no_buffer_count", "rx_fifo_errors", "rx_queue_0_drops"):
        assert stats[name] == 4745
    assert (rig.dev.stats.rx_missed_errors, rig.dev.stats.rx_packets) == (4745, 255)


def test_a_larger_ring_holds_more():
    rig = Rig(pause=False, rx_ring=4096, large_receive=False)
    rig.arrive(*[numbered(i) for i in range(5000)])
    assert rig.dev.ethtool_stats()["rx_missed_errors"] == 5000 - 4095


def test_a_jumbo_frame_arrives_in_one_piece():
    rig = Rig(large_receive=False, mtu=9000)
    frame = ethernet(bytes(i % 251 for i in range(9000)))
    rig.arrive(numbered(1), frame, numbered(2))
    rig.settle()
    assert [got for got, *_ in rig.got] == [numbered(1), frame, numbered(2)]
    assert rig.dev.rx.ring.descriptors == 7


def test_the_blocks_of_jumbo_frames_are_given_back():
    rig = Rig(large_receive=False, mtu=9000)
    free = rig.net.mem.free_pages
    for _ in range(10):
        rig.arrive(*[ethernet(bytes(9000)) for _ in range(40)])
        rig.settle()
    assert len(rig.got) == 400
    assert rig.net.mem.free_pages == free


def test_a_super_frame_arrives_whole_with_its_segments_counted():
    rig = Rig()
    tcp = struct.pack(">HHIIBBHHH", 1, 2, 3, 4, 0x80, 0x10, 5, 0, 0) + bytes(12)
    total = 20 + 32 + 45 * 1448 - 100
    ip = struct.pack(">BBHHHBBHII", 0x45, 0, total, 0, 0, 64, 6, 0, 1, 2)
    frame = ethernet(ip + tcp + bytes(45 * 1448 - 100))
    header = struct.pack("=BBHHHH", 1, 1, 66, 1448, 34, 16)
    rig.arrive(frame, header=header)
    rig.settle()
    assert rig.got == [(frame, CHECKSUM_NONE, 1448, 45)]


def test_the_largest_packet_fits_two_large_buffers():
    rig = Rig()
    frame = ethernet(bytes(i % 247 for i in range(65535)))
    rig.arrive(frame)
    rig.settle()
    assert rig.got[0][0] == frame


def test_without_large_receive_an_overlong_frame_is_a_length_error():
    rig = Rig(large_receive=False)
    rig.arrive(ethernet(bytes(1505)))
    rig.settle()
    assert rig.got == []
    assert rig.dev.stats.rx_length_errors == rig.dev.stats.rx_errors == 1
    assert rig.dev.ethtool_stats()["rx_long_length_errors"] == 1


def test_the_devices_verdict_reaches_the_stack():
    from kit.checksum import checksum, pseudo_header

    rig = Rig()
    rig.net.dev_add_pack(0x0800, rig._rcv)
    ip = bytes.fromhex("45000028000000004006") + bytes(2) + bytes.fromhex("0a0000010a000002")
    ip = ip[:10] + checksum(ip).to_bytes(2, "big") + ip[12:]
    tcp = bytes(12) + b"\x50\x10" + bytes(6)
    value = checksum(pseudo_header(0x0A000001, 0x0A000002, 6, 20) + tcp)
    right = ip + tcp[:16] + value.to_bytes(2, "big") + tcp[18:]
    wrong = ip + tcp[:16] + (value ^ 1).to_bytes(2, "big") + tcp[18:]
    rig.arrive(ethernet(right, ethertype=0x0800), ethernet(wrong, ethertype=0x0800))
    rig.settle()
    assert [ip_summed for _, ip_summed, *_ in rig.got] == [CHECKSUM_UNNECESSARY, CHECKSUM_NONE]
    assert rig.dev.ethtool_stats()["rx_queue_0_csum_err"] == 1


def test_with_receive_checksums_off_the_stack_must_verify():
    rig = Rig(rx_checksum=False)
    rig.arrive(numbered(1))
    rig.settle()
    assert rig.got[0][1] == CHECKSUM_NONE
    assert rig.dev.nic.regs.RXCSUM == 0


def test_a_failing_handler_does_not_leak_receive_buffers():
    rig = Rig()

    def fail(skb: Skb) -> None:
        raise ZeroDivisionError

    rig.net.dev_add_pack(0x88B6, fail)
    rig.arrive(ethernet(b"", ethertype=0x88B6))
    with pytest.raises(ZeroDivisionError):
        rig.softirq()
    assert rig.dev.rx.ring.next_to_use == 0
    assert rig.dev.q_vectors[0].rxq.RDT == 0


def test_without_memory_for_a_jumbo_frame_it_is_lost_and_counted():
    rig = Rig(large_receive=False, mtu=9000, arena=4 << 20)
    hoard = []
    for order in range(10, -1, -1):
        with pytest.raises(MemoryError):
            while True:
                hoard.append(rig.net.mem.alloc_pages(order))
    rig.arrive(ethernet(bytes(9000)), numbered(1))
    rig.settle()
    assert [frame for frame, *_ in rig.got] == [numbered(1)]
    assert rig.dev.ethtool_stats()["rx_queue_0_alloc_failed"] == 1


# Sending.


def test_a_packet_goes_out():
    rig = Rig()
    assert rig.dev.ndo_start_xmit(Skb(numbered(3), rig.dev)) == NETDEV_TX_OK
    assert rig.sent() == [bytes(10) + numbered(3)]


def test_the_completion_raises_the_receive_vector_and_net_rx_cleans():
    rig = Rig()
    rig.dev.ndo_start_xmit(Skb(numbered(3), rig.dev))
    assert rig.dev.nic.irq_counts[0] == 1
    assert rig.dev.napi.scheduled
    ring = rig.dev.tx.ring
    assert (ring.next_to_clean, ring.next_to_use) == (0, 1)
    rig.softirq()
    assert ring.next_to_clean == 1
    assert rig.net.softnet.softirq_counts[3] == 1
    assert rig.net.softnet.softirq_counts[2] == 0
    assert (ring.packets, ring.bytes) == (1, len(numbered(3)))


def test_payload_pages_are_referenced_until_cleaning():
    rig = Rig()
    free = rig.net.mem.free_pages
    skb = Skb(numbered(1), rig.dev)
    skb.frags = [rig.page(b"a" * 5000), rig.page(b"b" * 40000), rig.page(b"c")]
    assert rig.dev.ndo_start_xmit(skb) == NETDEV_TX_OK
    assert rig.sent() == [bytes(10) + numbered(1) + b"a" * 5000 + b"b" * 40000 + b"c"]
    assert rig.dev.tx.ring.next_to_use == 5
    assert rig.net.mem.free_pages < free
    rig.softirq()
    assert rig.net.mem.free_pages == free


@pytest.mark.parametrize("size", [14, 2048, 2049, 9014, 32768, 32769, 65549])
def test_long_linear_packets_are_copied_to_pages_of_their_own(size):
    rig = Rig()
    free = rig.net.mem.free_pages
    frame = bytes(i % 243 for i in range(size))
    assert rig.dev.ndo_start_xmit(Skb(frame, rig.dev)) == NETDEV_TX_OK
    assert rig.sent() == [bytes(10) + frame]
    rig.softirq()
    assert rig.net.mem.free_pages == free


def test_a_view_can_be_sent():
    rig = Rig()
    rig.dev.ndo_start_xmit(Skb(memoryview(bytearray(numbered(1))), rig.dev))
    assert rig.sent() == [bytes(10) + numbered(1)]


def test_more_frags_than_the_device_takes_are_joined():
    rig = Rig()
    free = rig.net.mem.free_pages
    skb = Skb(numbered(1), rig.dev)
    skb.frags = [rig.page(bytes([i])) for i in range(18)]
    assert rig.dev.ndo_start_xmit(skb) == NETDEV_TX_OK
    assert rig.sent() == [bytes(10) + numbered(1) + bytes(range(18))]
    rig.softirq()
    assert rig.net.mem.free_pages == free


@pytest.mark.parametrize(("offset", "gso"), [(16, 0), (6, 0), (16, 1448)])
def test_partial_checksums_and_super_frames_are_left_to_the_device(offset, gso):
    rig = Rig()
    frame = bytearray(ethernet(bytes(20 + 32)))
    frame[34 + 12] = 0x80
    skb = Skb(bytes(frame), rig.dev)
    skb.ip_summed, skb.transport_offset, skb.csum_offset = CHECKSUM_PARTIAL, 34, offset
    skb.gso_size, skb.gso_segs = gso, 4
    skb.frags = [rig.page(b"p" * 5000)]
    assert rig.dev.ndo_start_xmit(skb) == NETDEV_TX_OK
    header = struct.pack("=BBHHHH", 1, gso > 0, 66 if gso else 0, gso, 34, offset)
    assert rig.sent() == [header + frame + b"p" * 5000]
    assert rig.dev.ethtool_stats()["tx_tcp_seg_good"] == (gso > 0)


@pytest.mark.parametrize(
    ("data", "start", "offset", "gso", "reason"),
    [
        (bytes(65550), 0, 0, 0, DropReason.PKT_TOO_BIG),
        (bytes(13), 0, 0, 0, DropReason.NOT_SPECIFIED),
        (bytes(100), 34, 10, 0, DropReason.NOT_SPECIFIED),
        (bytes(100), 90, 16, 0, DropReason.NOT_SPECIFIED),
        (bytes(51), 34, 16, 0, DropReason.NOT_SPECIFIED),
        (bytes(100), 34, 16, 1448, DropReason.NOT_SPECIFIED),
        (bytes(100), 34, 6, 1448, DropReason.NOT_SPECIFIED),
    ],
)
def test_what_cannot_be_sent_is_dropped_with_a_reason(data, start, offset, gso, reason):
    rig = Rig()
    free = rig.net.mem.free_pages
    skb = Skb(data, rig.dev)
    if start:
        skb.ip_summed = CHECKSUM_PARTIAL
    skb.transport_offset, skb.csum_offset, skb.gso_size = start, offset, gso
    skb.frags = [rig.page(b"x")]
    assert rig.dev.ndo_start_xmit(skb) == NETDEV_TX_OK
    assert rig.sent() == []
    assert rig.net.drops[reason] == 1
    assert rig.dev.stats.tx_dropped == rig.dev.ethtool_stats()["tx_dropped"] == 1
    assert rig.net.mem.free_pages == free


def test_a_full_ring_stops_the_queue_says_busy_and_wakes_it():
    rig = Rig(tx_ring=64, wire_limit=0)
    sent = 0
    while not rig.dev.queue_stopped:
        assert rig.dev.ndo_start_xmit(Skb(numbered(sent), rig.dev)) == NETDEV_TX_OK
        sent += 1
    assert sent == 41
    while rig.dev.ndo_start_xmit(Skb(numbered(sent), rig.dev)) == NETDEV_TX_OK:
        sent += 1
    assert sent == 60
    assert rig.dev.ndo_start_xmit(Skb(numbered(99), rig.dev)) == NETDEV_TX_BUSY
    assert rig.dev.ethtool_stats()["tx_queue_0_busy"] == 2
    rig.far._incoming.clear()
    rig.dev.wire._limit = None
    rig.settle()
    assert not rig.dev.queue_stopped
    assert rig.dev.ethtool_stats()["tx_queue_0_restart"] == 1
    assert rig.sent() == [bytes(10) + numbered(i) for i in range(sent)]


def test_the_qdisc_keeps_what_the_ring_cannot_and_sends_it_in_order():
    rig = Rig(tx_ring=64, wire_limit=0)
    for i in range(300):
        dev_queue_xmit(rig.net, Skb(numbered(i), rig.dev))
    assert rig.dev.qdisc.qlen == 300 - 41
    rig.dev.wire._limit = None
    rig.settle()
    assert rig.sent() == [bytes(10) + numbered(i) for i in range(300)]
    assert rig.dev.qdisc.qlen == 0


def test_busy_leaves_the_packet_with_the_caller():
    rig = Rig(tx_ring=64, wire_limit=0)
    while rig.dev.ndo_start_xmit(Skb(numbered(0), rig.dev)) == NETDEV_TX_OK:
        pass
    free = rig.net.mem.free_pages
    skb = Skb(numbered(1), rig.dev)
    skb.frags = [rig.page(b"x")]
    assert rig.dev.ndo_start_xmit(skb) == NETDEV_TX_BUSY
    assert len(skb.frags) == 1
    rig.net.mem.put_page(skb.frags[0][0])
    assert rig.net.mem.free_pages == free


def test_one_poll_cleans_at_most_128_packets_and_asks_to_be_polled_again():
    rig = Rig()
    for i in range(200):
        igb_xmit_frame(rig.dev, Skb(numbered(i), rig.dev), more=i < 199)
    assert len(rig.sent()) == 200
    assert rig.dev.napi.poll(rig.dev.napi, 64) == 64
    assert rig.dev.tx.ring.packets == 128
    assert rig.dev.napi.poll(rig.dev.napi, 64) == 0
    assert rig.dev.tx.ring.packets == 200


def test_many_turns_of_the_transmit_ring_lose_and_leak_nothing():
    rig = Rig(tx_ring=64)
    free = rig.net.mem.free_pages
    for i in range(1000):
        skb = Skb(numbered(i), rig.dev)
        if i % 2:
            skb.frags = [rig.page(i.to_bytes(2, "big"))]
        assert dev_queue_xmit(rig.net, skb) is None
        if i % 7 == 0:
            rig.settle()
    rig.settle()
    want = [bytes(10) + numbered(i) + i.to_bytes(2, "big") * (i % 2) for i in range(1000)]
    assert rig.sent() == want
    assert rig.net.mem.free_pages == free


# Offloads, up and down.


def test_the_features_are_what_was_configured_and_the_wire_can_carry():
    def features(**config: bool) -> int:
        return Rig(**config).dev.features & ~NETIF_F_SOFT_FEATURES

    assert features() == NETIF_F_RXCSUM | NETIF_F_LRO | NETIF_F_IP_CSUM | NETIF_F_TSO
    assert features(tso=False) == NETIF_F_RXCSUM | NETIF_F_LRO | NETIF_F_IP_CSUM
    assert features(tx_checksum=False) == NETIF_F_RXCSUM | NETIF_F_LRO
    assert features(tso=False, tx_checksum=False, rx_checksum=False) == 0


def test_the_features_follow_the_far_end():
    rig = Rig()
    rig.far.set_offloads(True, False)
    assert rig.hardware_features == NETIF_F_RXCSUM | NETIF_F_LRO | NETIF_F_IP_CSUM
    rig.far.set_offloads(False, False)
    assert rig.hardware_features == NETIF_F_RXCSUM | NETIF_F_LRO
    rig.far.set_offloads(True, True)
    assert rig.dev.features & NETIF_F_TSO


def test_the_far_end_hears_what_this_one_accepts():
    assert Rig(large_receive=False).far.features == 1
    assert Rig(rx_checksum=False).far.features == 0


def test_down_frees_everything_and_up_starts_again():
    rig = Rig()
    rig.arrive(numbered(1))
    rig.settle()
    rig.dev.ndo_start_xmit(Skb(numbered(2), rig.dev))
    rig.net.dev_close(rig.dev)
    assert rig.net.mem.free_pages == rig.free_pages
    assert rig.dev.poll_hw() == 0
    assert rig.dev.fileno() == -1
    rig.far.send_frame(bytes(10) + numbered(3))
    rig.net.dev_open(rig.dev)
    rig.settle()
    assert [frame for frame, *_ in rig.got] == [numbered(1), numbered(3)]
    assert rig.dev.stats.rx_packets == 2
    assert rig.dev.ethtool_stats()["rx_queue_0_packets"] == 2


def test_close_unplugs_the_wire_and_may_be_repeated():
    rig = Rig()
    rig.dev.close()
    rig.dev.close()
    assert rig.net.mem.free_pages == rig.free_pages
    assert rig.dev.poll_hw() == 0


def test_an_arena_that_is_too_small_leaves_the_device_down():
    with pytest.raises(MemoryError):
        Rig(arena=64 << 10)


def test_a_ring_of_an_impossible_size_is_refused():
    with pytest.raises(ValueError, match="ring of 100"):
        Rig(rx_ring=100)


def test_large_buffers_that_would_fill_the_arena_become_small_ones():
    rig = Rig(arena=24 << 20)
    assert rig.dev.rx.ring.buffer_bytes == 2048
    frame = ethernet(bytes(i % 241 for i in range(65535)))
    rig.arrive(frame)
    rig.settle()
    assert rig.got[0][0] == frame
    assert rig.dev.rx.ring.descriptors == 33


def test_the_figures_agree_with_each_other():
    rig = Rig()
    rig.arrive(*[numbered(i) for i in range(5)])
    rig.settle()
    for i in range(3):
        rig.dev.ndo_start_xmit(Skb(numbered(i), rig.dev))
    rig.settle()
    figures, stats = rig.dev.ethtool_stats(), rig.dev.stats
    assert figures["rx_packets"] == figures["rx_queue_0_packets"] == stats.rx_packets == 5
    assert figures["tx_packets"] == figures["tx_queue_0_packets"] == stats.tx_packets == 3
    assert figures["rx_bytes"] == figures["rx_queue_0_bytes"] == stats.rx_bytes == 5 * 18
    assert rig.dev.ethtool_drvinfo()["driver"] == "igb"
    assert rig.dev.ethtool_ringparam()["rx_pending"] == 256


def test_a_wire_that_is_gone_takes_the_carrier_and_is_told_once():
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near:
        near.setblocking(False)
        rig = Rig()
        lib.us_nic_attach(rig.dev.nic._nic, near.fileno(), 10)
        rig.dev.nic._is_dma = True
        told: list[OSError] = []
        rig.dev.wire_lost = told.append
        assert rig.dev.poll_hw() == 0
        assert rig.dev.flags & IFF_LOWER_UP
        far.close()
        assert rig.dev.poll_hw() == rig.dev.poll_hw() == 0
        assert [error.errno for error in told] == [errno.ENETDOWN]
        assert not rig.dev.flags & (IFF_LOWER_UP | IFF_RUNNING)
        assert rig.dev.fileno() == -1
