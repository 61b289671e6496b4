"""Faults on purpose: what they do, and that each ends by itself."""

from __future__ import annotations

import errno
import random

import pytest

from kit.board import ethernet
from ustack.config import CoreConfig, NicConfig, StackConfig
from ustack.nic.pair import wire_pair
from ustack.stack import Stack

START_US = 1_000_000
ETHERTYPE = 0x88B5


class Rig:
    """A stack with one NIC; ``got`` counts the frames that came up."""

    def __init__(self, **nic: object) -> None:
        wire, self.far = wire_pair()
        config = StackConfig(
            nic=NicConfig(rx_usecs=0, **nic), core=CoreConfig(arena_bytes=64 << 20)
        )
        self.stack = Stack(config, rng=random.Random(1), now_us=START_US)
        self.dev = self.stack.add_igb(wire, mac=bytes.fromhex("020000000001"))
        self.faults = self.stack.net.faults
        self.got = 0
        self.stack.dev_add_pack(ETHERTYPE, self._rcv)
        self.settle()

    def _rcv(self, skb: object) -> None:
        self.got += 1

    def settle(self, now_us: int = START_US) -> None:
        for _ in range(1000):
            if not self.stack.poll(now_us):
                return
        raise AssertionError("the stack does not come to rest")

    def arrive(self, count: int, now_us: int = START_US, *, payload: bytes = b"x") -> None:
        """Send frames one after the other, each polled for."""
        for _ in range(count):
            assert self.far.send_frame(bytes(10) + ethernet(payload))
            self.settle(now_us)

    @property
    def stats(self) -> dict[str, int]:
        return self.dev.ethtool_stats()


def test_a_frozen_softirq_lets_the_ring_fill_and_thaws_by_itself():
    rig = Rig(pause=False)
    rig.faults.freeze_softirq(1_000_000)
    for _ in range(5000):
        rig.far.send_frame(bytes(10) + ethernet(b"x"))
    rig.settle(START_US + 999_999)
    assert rig.got == 0
    assert rig.stats["rx_missed_errors"] == 5000 - 255
    assert rig.stack.next_deadline_us() == START_US + 1_000_000  # not at once: nothing spins
    rig.settle(START_US + 1_000_000)
    assert rig.got == 255
    assert rig.stack.next_deadline_us() != 0


def test_zero_thaws_at_once():
    rig = Rig()
    rig.faults.freeze_softirq(1_000_000)
    rig.faults.freeze_softirq(0)
    rig.arrive(1)
    assert rig.got == 1


def test_failing_allocations_are_counted_and_drain_the_ring():
    rig = Rig(pause=False)
    rig.faults.fail_alloc(1000, 2_000_000)
    rig.arrive(300)
    assert rig.got == 255  # the ring as it was posted; nothing came after
    assert rig.stats["rx_queue_0_alloc_failed"] == 255
    assert rig.stats["rx_missed_errors"] == 300 - 255
    rig.settle(START_US + 2_000_000)
    assert rig.faults.allocations_left == 0
    rig.arrive(300, START_US + 2_000_000)
    assert rig.got == 255 + 300
    assert rig.stats["rx_queue_0_alloc_failed"] == 255


def test_a_fault_of_few_allocations_is_over_with_the_next_frames():
    rig = Rig()
    rig.faults.fail_alloc(3, 2_000_000)
    rig.arrive(10)
    assert (rig.got, rig.stats["rx_queue_0_alloc_failed"]) == (10, 3)
    assert rig.dev.q_vectors[0].rxq.RDT == (rig.dev.q_vectors[0].rxq.RDH - 1) % 256


def test_a_frame_of_several_buffers_is_lost_when_it_cannot_be_joined():
    rig = Rig(mtu=9000, large_receive=False)
    before = rig.stats["rx_queue_0_alloc_failed"]
    rig.faults.fail_alloc(1, 2_000_000)
    rig.arrive(2, payload=bytes(9000))
    assert rig.got == 1
    assert rig.stats["rx_queue_0_alloc_failed"] == before + 1


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("freeze_softirq", (10_000_001,)),
        ("freeze_softirq", (-1,)),
        ("fail_alloc", (1_000_001, 1)),
        ("fail_alloc", (-1, 1)),
        ("fail_alloc", (1, 10_000_001)),
    ],
)
def test_a_fault_without_bounds_is_refused(call: str, arguments: tuple[int, ...]):
    rig = Rig()
    with pytest.raises(OSError) as caught:
        getattr(rig.faults, call)(*arguments)
    assert caught.value.errno == errno.EINVAL
    assert not rig.stack.net.softirq_frozen
