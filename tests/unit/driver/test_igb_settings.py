"""Changes to a running igb interface: what ethtool -G -L -C -A -K -X and ip link set mtu do."""

from __future__ import annotations

import errno
import struct

import pytest

from kit.board import ethernet
from unit.driver.test_igb import Rig, numbered
from ustack.core.netdevice import NETIF_F_GRO, NETIF_F_IP_CSUM, NETIF_F_LRO, NETIF_F_TSO
from ustack.core.skb import Skb
from ustack.core.transmit import dev_queue_xmit
from ustack.native.lib import lib


def errno_of(change, *args, **values) -> int:
    with pytest.raises(OSError) as caught:
        change(*args, **values)
    assert caught.value.errno is not None
    return caught.value.errno


def flow(port: int) -> bytes:
    """Return a frame of one of many TCP connections to us."""
    head = struct.pack(">BBHHHBBHII", 0x45, 0, 40, 0, 0, 64, 6, 0, 0x0A000001, 0x0A000002)
    return ethernet(
        head + struct.pack(">HHIIBBHHH", port, 80, 0, 0, 0x50, 16, 0, 0, 0), ethertype=0x0800
    )


class FlowRig(Rig):
    """A rig that takes IPv4 and remembers who was polled for it."""

    def __init__(self, **nic) -> None:
        super().__init__(**nic)
        self.net.dev_add_pack(0x0800, self._rcv)

    def queues(self, *frames: bytes) -> list[int]:
        """Return how many of the frames each receive queue gets."""
        before = [vector.rx_stats.packets for vector in self.dev.all_vectors]
        self.arrive(*frames)
        self.settle()
        after = [vector.rx_stats.packets for vector in self.dev.all_vectors]
        before += [0] * (len(after) - len(before))
        return [b - a for a, b in zip(before, after, strict=True)]


# Rings.


def test_a_larger_ring_removes_the_drops_of_a_flood():
    """Ring 256, softirq frozen, pause off, 5000 frames: 4745 missed; 4096 leave 905."""
    rig = Rig(pause=False, large_receive=False)
    rig.arrive(*[numbered(i) for i in range(5000)])
    assert rig.dev.ethtool_stats()["rx_missed_errors"] == 4745
    rig.dev.set_ringparam(rx=4096)
    assert [frame for frame, *_ in rig.got] == [numbered(i) for i in range(255)]
    rig.arrive(*[numbered(i) for i in range(5000)])
    assert rig.dev.ethtool_stats()["rx_missed_errors"] == 4745 + 5000 - 4095
    assert rig.dev.ethtool_ringparam()["rx_pending"] == 4096


@pytest.mark.parametrize(("asked", "got"), [(0, 64), (64, 64), (65, 72), (300, 304), (4096, 4096)])
def test_ring_sizes_are_clamped_and_rounded_up(asked, got):
    rig = Rig(large_receive=False)
    rig.dev.set_ringparam(rx=asked, tx=asked)
    assert (rig.dev.rx.ring.count, rig.dev.tx.ring.count) == (got, got)
    rig.arrive(numbered(1))
    rig.settle()
    assert len(rig.got) == 1


def test_a_ring_beyond_the_maximum_is_refused_and_nothing_changes():
    rig = Rig()
    assert errno_of(rig.dev.set_ringparam, rx=4097) == errno.EINVAL
    assert rig.dev.rx.ring.count == 256


def test_rings_that_do_not_fit_leave_the_old_ones():
    rig = Rig(arena=24 << 20, large_receive=False)
    hoard = []
    with pytest.raises(MemoryError):
        while True:
            hoard.append(rig.net.mem.alloc_pages(8))
    assert errno_of(rig.dev.set_ringparam, rx=4096) == errno.ENOMEM
    assert rig.dev.ethtool_ringparam()["rx_pending"] == 256
    rig.arrive(numbered(1))
    rig.settle()
    assert [frame for frame, *_ in rig.got] == [numbered(1)]


def test_changing_rings_leaks_nothing_and_keeps_the_counts():
    rig = Rig(large_receive=False)
    free = rig.net.mem.free_pages
    for size in (64, 4096, 512, 256):
        rig.arrive(*[numbered(i) for i in range(20)])
        rig.dev.set_ringparam(rx=size, tx=size)
        dev_queue_xmit(rig.net, Skb(numbered(1), rig.dev))
    rig.settle()
    assert rig.net.mem.free_pages == free
    assert (rig.dev.stats.rx_packets, rig.dev.stats.tx_packets) == (80, 4)
    assert len(rig.got) == 80


def test_what_waits_in_the_qdisc_goes_out_through_the_new_ring():
    rig = Rig(tx_ring=64, wire_limit=0)
    for i in range(100):
        dev_queue_xmit(rig.net, Skb(numbered(i), rig.dev))
    waiting = rig.dev.qdisc.qlen
    rig.dev.wire._limit = None
    rig.dev.set_ringparam(tx=512)
    rig.settle()
    assert len(rig.sent()) >= waiting > 0
    assert rig.dev.qdisc.qlen == 0


# Queues and the hash.


def test_four_queues_share_64_flows_and_each_flow_stays_on_one():
    rig = FlowRig()
    rig.dev.set_channels(4)
    rig.dev.set_rxfh(key=bytes(range(1, 41)))
    frames = [flow(port) for port in range(32768, 32768 + 640, 10)]
    counts = rig.queues(*frames)
    assert sum(counts) == 64
    assert max(counts) <= 2 * min(counts)
    for frame in frames[:8]:
        assert sorted(rig.queues(frame, frame, frame)) == [0, 0, 0, 3]
    irqs = {name: sum(row) for name, row in rig.dev.interrupts()}
    assert list(irqs) == [f"eth0-TxRx-{i}" for i in range(4)]
    assert min(irqs.values()) >= 1


def test_each_vector_is_polled_by_the_context_that_its_affinity_names():
    rig = FlowRig(nr_cpus=3)
    rig.dev.set_channels(4)
    assert [vector.napi.cpu for vector in rig.dev.q_vectors] == [0, 1, 2, 0]
    frames = [flow(port) for port in range(64)]
    rig.queues(*frames)
    processed = [softnet.processed for softnet in rig.net.softnets]
    assert sum(processed) == 64
    assert all(processed)
    for vector in range(4):
        rig.dev.irq_set_affinity(vector, 0b110)
    rig.queues(*frames)
    after = [softnet.processed for softnet in rig.net.softnets]
    assert after == [processed[0], processed[1] + 64, processed[2]]
    rows = dict(rig.dev.interrupts())
    assert [row[2] for row in rows.values()] == [0, 0, 1, 0]
    assert [row[1] for row in rows.values()] == [1, 2, 1, 1]


def test_an_affinity_without_vector_or_context_is_refused():
    rig = FlowRig(nr_cpus=2)
    for vector, mask in ((1, 1), (-1, 1), (0, 0), (0, 4)):
        assert errno_of(rig.dev.irq_set_affinity, vector, mask) == errno.EINVAL


def test_one_queue_again_does_not_hash():
    rig = FlowRig()
    rig.dev.set_channels(8)
    rig.queues(*[flow(port) for port in range(64)])
    rig.dev.set_channels(1)
    assert rig.dev.nic.regs.MRQC == 0
    assert rig.queues(*[flow(port) for port in range(64)])[0] == 64
    assert rig.dev.stats.rx_packets == 128
    assert len(rig.dev.interrupts()) == 1
    assert rig.net.mem.free_pages > 0


@pytest.mark.parametrize("queues", [0, 9])
def test_impossible_numbers_of_queues_are_refused(queues):
    rig = Rig()
    assert errno_of(rig.dev.set_channels, queues) == errno.EINVAL
    assert rig.dev.ethtool_channels() == {"max_combined": 8, "combined_count": 1}


def test_a_flow_is_sent_by_one_queue_and_many_flows_by_all():
    rig = FlowRig(queues=4)
    for port in range(64):
        for _ in range(2):
            dev_queue_xmit(rig.net, Skb(flow(port), rig.dev))
    rig.settle()
    counts = [vector.tx_stats.packets for vector in rig.dev.q_vectors]
    assert sum(counts) == 128
    assert all(count and count % 2 == 0 for count in counts)
    assert len(rig.sent()) == 128


def test_a_full_queue_stops_the_device_and_its_completions_wake_it():
    rig = FlowRig(queues=2, tx_ring=64, wire_limit=0)
    for i in range(400):
        dev_queue_xmit(rig.net, Skb(flow(i % 8), rig.dev))
    assert rig.dev.queue_stopped
    assert rig.dev.qdisc.qlen > 0
    rig.dev.wire._limit = None
    rig.settle()
    assert len(rig.sent()) == 400
    assert not rig.dev.queue_stopped


@pytest.mark.parametrize(
    ("change", "table"),
    [
        ({"equal": 2}, [i % 2 for i in range(128)]),
        ({"default": True}, [i % 4 for i in range(128)]),
        ({"weight": [1, 0, 3]}, [0] * 32 + [2] * 96),
        ({"weight": [6, 2]}, [0] * 96 + [1] * 32),
    ],
)
def test_the_indirection_table_is_set_as_ethtool_sets_it(change, table):
    rig = FlowRig(queues=4)
    rig.dev.set_rxfh(**change)
    assert list(rig.dev.rss_indir_tbl) == table
    assert list(rig.dev.nic.regs.RETA) == table
    used = {q for q, n in enumerate(rig.queues(*[flow(p) for p in range(200)])) if n}
    assert used == set(table)


@pytest.mark.parametrize(
    "change",
    [{"equal": 5}, {"equal": 0}, {"weight": [0, 0]}, {"weight": [1] * 5}, {"weight": [-1, 2]},
     {"key": b"short"}],
)  # fmt: skip
def test_an_impossible_table_or_key_is_refused(change):
    rig = FlowRig(queues=4)
    assert errno_of(rig.dev.set_rxfh, **change) == errno.EINVAL


def test_another_key_gives_other_rings():
    rig = FlowRig(queues=8)
    frames = [flow(port) for port in range(64)]
    rig.dev.set_rxfh(key=bytes(range(40)))
    first = [rig.queues(frame) for frame in frames]
    rig.dev.set_rxfh(key=bytes(range(40, 80)))
    assert [rig.queues(frame) for frame in frames] != first
    assert rig.dev.ethtool_rxfh()["key"] == bytes(range(40, 80)).hex(":")


# Pause.


def test_pause_off_drops_and_pause_on_keeps():
    rig = Rig(rx_ring=64)
    rig.dev.set_pauseparam(rx=False, tx=False)
    assert rig.dev.ethtool_pauseparam() == {"autoneg": False, "rx_pause": False, "tx_pause": False}
    rig.arrive(*[numbered(i) for i in range(100)])
    assert rig.dev.ethtool_stats()["rx_missed_errors"] == 37
    rig.settle()
    rig.dev.set_pauseparam(rx=True)
    rig.arrive(*[numbered(i) for i in range(100)])
    rig.settle()
    assert rig.dev.ethtool_stats()["rx_missed_errors"] == 37
    assert len(rig.got) == 163


def test_pause_one_way_and_autonegotiation_are_refused():
    rig = Rig()
    assert errno_of(rig.dev.set_pauseparam, rx=True, tx=False) == errno.EINVAL
    assert errno_of(rig.dev.set_pauseparam, autoneg=True) == errno.EINVAL


# Offloads.


def test_offloads_are_switched_on_both_sides_of_the_wire():
    rig = Rig()
    rig.dev.set_offload(lro=False)
    assert rig.far.features == 1
    assert rig.dev.rx.ring.buffer_bytes == 2048
    rig.dev.set_offload(rx=False)
    assert rig.far.features == 0
    assert rig.dev.nic.regs.RXCSUM == 0
    rig.dev.set_offload(rx=True, lro=True)
    assert rig.far.features == 3
    assert rig.dev.rx.ring.buffer_bytes == lib.US_IGB_RXBUFFER_LARGE
    assert rig.dev.features & NETIF_F_LRO


def test_what_depends_on_a_switch_goes_and_comes_with_it():
    rig = Rig()
    rig.dev.set_offload(tx=False)
    assert not rig.dev.features & (NETIF_F_IP_CSUM | NETIF_F_TSO)
    rig.dev.set_offload(tx=True)
    assert rig.dev.features & NETIF_F_IP_CSUM
    assert rig.dev.features & NETIF_F_TSO


def test_the_stacks_own_offloads_are_only_flags_here():
    rig = Rig()
    rig.dev.set_offload(gro=True)
    rig.far.set_offloads(False, False)  # the driver computes its features anew
    assert rig.dev.features & NETIF_F_GRO
    rig.dev.set_offload(gro=False)
    assert not rig.dev.features & NETIF_F_GRO


def test_an_unknown_switch_is_refused():
    assert errno_of(Rig().dev.set_offload, ntuple=True) == errno.EOPNOTSUPP


# MTU.


def test_a_larger_mtu_takes_jumbo_frames_over_several_buffers_at_once():
    rig = Rig(large_receive=False)
    jumbo = ethernet(bytes(i % 251 for i in range(9000)))
    rig.arrive(jumbo)
    assert rig.dev.ethtool_stats()["rx_long_length_errors"] == 1
    rig.dev.ndo_change_mtu(9000)
    before = rig.dev.rx.ring.descriptors
    rig.arrive(jumbo)
    rig.settle()
    assert [frame for frame, *_ in rig.got] == [jumbo]
    assert rig.dev.rx.ring.descriptors - before == 5
    rig.dev.ndo_change_mtu(1500)
    rig.arrive(jumbo)
    assert rig.dev.ethtool_stats()["rx_long_length_errors"] == 2


@pytest.mark.parametrize("mtu", [67, 65536])
def test_an_impossible_mtu_is_refused(mtu):
    assert errno_of(Rig().dev.ndo_change_mtu, mtu) == errno.EINVAL


def test_what_is_set_while_down_holds_once_up():
    rig = Rig()
    rig.net.dev_close(rig.dev)
    rig.dev.set_ringparam(rx=512)
    rig.dev.set_channels(2)
    rig.dev.set_offload(lro=False)
    rig.dev.set_pauseparam(rx=False)
    rig.dev.set_coalesce(rx_usecs=100)
    rig.dev.ndo_change_mtu(9000)
    rig.net.dev_open(rig.dev)
    assert [vector.rx.ring.count for vector in rig.dev.q_vectors] == [512, 512]
    assert list(rig.dev.nic.regs.EITR)[:2] == [400, 400]
    assert rig.dev.nic.regs.RLPML == 9018
    assert rig.dev.nic.regs.CTRL == 0
