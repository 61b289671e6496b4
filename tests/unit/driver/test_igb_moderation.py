"""Moderation as the driver does it: fixed times, igb's classes, and the stack's deadlines."""

from __future__ import annotations

import errno

import pytest

from kit.board import ethernet
from unit.driver.test_igb import Rig, numbered
from ustack.core.skb import Skb
from ustack.native.lib import ffi, lib

LONG = ethernet(bytes(1486))
"""A full frame: nobody waits for it."""


class TimedRig(Rig):
    """A rig that is polled whenever a frame comes and whenever it asks to be."""

    def until(self, end_us: int) -> None:
        """Let time pass, stopping at every deadline."""
        while True:
            self.net.timers.run(self.net.clock.now_us)
            self.settle()
            due_us = self.net.timers.next_us()
            if due_us is None or due_us > end_us:
                break
            self.net.clock.now_us = max(due_us, self.net.clock.now_us + 1)
        self.net.clock.now_us = end_us

    def flood(self, frames: int, gap_us: int, frame: bytes = LONG) -> tuple[int, int]:
        """Send frames ``gap_us`` apart; return interrupts and the longest wait for one."""
        irqs, got, longest, waiting = self.irqs, len(self.got), 0, 0
        for _ in range(frames):
            now_us = self.net.clock.now_us
            self.far.send_frame(bytes(10) + frame)
            waiting = waiting or now_us
            self.settle()
            if len(self.got) > got:
                got, waiting = len(self.got), 0
            for step_us in range(now_us + 1, now_us + gap_us + 1):
                self.until(step_us)
                if len(self.got) > got:
                    longest = max(longest, step_us - waiting)
                    got, waiting = len(self.got), 0
        return self.irqs - irqs, longest

    @property
    def irqs(self) -> int:
        return self.dev.nic.irq_counts[0]


@pytest.mark.parametrize(("usecs", "interrupts"), [(0, 500), (50, 100), (500, 10)])
def test_interrupts_fall_with_rx_usecs_and_no_frame_waits_longer(usecs, interrupts):
    """500 full frames, one each 10 us: 500, 100 and 10 interrupts."""
    rig = TimedRig()
    rig.dev.set_coalesce(rx_usecs=usecs)
    irqs, longest = rig.flood(500, 10)
    assert irqs == pytest.approx(interrupts, abs=1)
    assert longest <= usecs
    assert len(rig.got) >= 500 - usecs // 10
    rig.until(rig.net.clock.now_us + usecs)
    assert len(rig.got) == 500


def test_a_lone_frame_is_not_delayed_by_a_fixed_time():
    rig = TimedRig()
    rig.dev.set_coalesce(rx_usecs=500)
    rig.net.clock.now_us += 1000
    rig.arrive(numbered(1))
    rig.settle()
    assert len(rig.got) == 1


def test_a_held_interrupt_is_a_deadline_of_the_stack():
    rig = TimedRig()
    rig.dev.set_coalesce(rx_usecs=500)
    rig.net.clock.now_us = 10_000
    rig.arrive(LONG)
    rig.settle()
    assert rig.net.timers.next_us() is None
    rig.net.clock.now_us = 10_100
    rig.arrive(LONG)
    rig.settle()
    assert rig.net.timers.next_us() == 10_500
    rig.until(10_499)
    assert len(rig.got) == 1
    rig.until(10_501)
    assert len(rig.got) == 2
    assert rig.net.timers.next_us() is None


def test_adaptive_moderation_lets_through_what_somebody_waits_for():
    rig = TimedRig(rx_usecs=3)
    irqs, longest = rig.flood(100, 10, numbered(1))
    assert (irqs, longest) == (100, 0)


def test_adaptive_moderation_gathers_full_frames():
    """Bulk: 4000 interrupts a second, 245 us apart."""
    rig = TimedRig(rx_usecs=3)
    rig.flood(200, 7)
    assert rig.dev.q_vectors[0].itr.itr_val == lib.US_IGB_4K_ITR
    irqs, longest = rig.flood(700, 7)
    assert irqs == pytest.approx(20, abs=1)
    assert longest <= 245


def test_a_request_response_program_needs_one_interrupt_a_round():
    """The completion of the answer shares the next request's; without moderation it is two."""
    for rx_usecs, interrupts in ((3, 100), (0, 200)):
        rig = TimedRig(rx_usecs=rx_usecs)
        for i in range(100):
            rig.arrive(numbered(i))
            rig.settle()
            rig.dev.ndo_start_xmit(Skb(numbered(i), rig.dev))
            rig.until(rig.net.clock.now_us + 60)
        assert rig.irqs == pytest.approx(interrupts, abs=1)
        assert len(rig.got) == 100


def test_the_last_completion_is_cleaned_within_the_delay():
    rig = TimedRig(rx_usecs=3)
    rig.arrive(numbered(1))
    rig.settle()
    rig.dev.ndo_start_xmit(Skb(numbered(1), rig.dev))
    rig.until(rig.net.clock.now_us + 244)
    assert rig.dev.tx.ring.packets == 0
    rig.until(rig.net.clock.now_us + 2)
    assert rig.dev.tx.ring.packets == 1


def test_a_stopped_queue_does_not_wait_for_moderation():
    rig = TimedRig(rx_usecs=3, tx_ring=64)
    rig.arrive(numbered(1))
    rig.settle()
    for i in range(200):
        assert rig.dev.ndo_start_xmit(Skb(numbered(i), rig.dev)) == 0
        if rig.dev.queue_stopped:
            rig.settle()
    assert len(rig.sent()) == 200
    assert rig.dev.ethtool_stats()["tx_queue_0_restart"] > 0


def test_taking_the_interface_down_forgets_a_held_interrupt():
    rig = TimedRig()
    rig.dev.set_coalesce(rx_usecs=500)
    rig.arrive(LONG)
    rig.settle()
    rig.arrive(LONG)
    assert rig.net.timers.next_us() is not None
    rig.net.dev_close(rig.dev)
    assert rig.net.timers.next_us() is None


@pytest.mark.parametrize("usecs", [2, 4, 9, 10_001, -1])
def test_times_that_igb_refuses_are_refused(usecs):
    with pytest.raises(OSError) as caught:
        Rig().dev.set_coalesce(rx_usecs=usecs)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("usecs", [1, 3, 50, 10_001])
def test_a_queue_pair_has_no_time_of_its_own_for_transmit(usecs):
    rig = Rig()
    with pytest.raises(OSError) as caught:
        rig.dev.set_coalesce(rx_usecs=50, tx_usecs=usecs)
    assert caught.value.errno == errno.EINVAL
    assert rig.dev.ethtool_coalesce()["rx_coalesce_usecs"] != 50
    rig.dev.set_coalesce(rx_usecs=50, tx_usecs=0)
    assert rig.dev.ethtool_coalesce()["rx_coalesce_usecs"] == 50


def test_the_adaptive_switch_is_rx_usecs_3():
    rig = Rig()
    rig.dev.set_coalesce(adaptive_rx=True)
    assert rig.dev.ethtool_coalesce() == {
        "use_adaptive_rx": True, "rx_coalesce_usecs": 3, "tx_coalesce_usecs": 0,
    }  # fmt: skip
    rig.dev.set_coalesce(adaptive_rx=True)
    rig.dev.set_coalesce(adaptive_rx=False)
    assert rig.dev.ethtool_coalesce()["rx_coalesce_usecs"] == 0
    with pytest.raises(OSError) as caught:
        rig.dev.set_coalesce(rx_usecs=50, adaptive_rx=True)
    assert caught.value.errno == errno.EINVAL


# The classes (igb_update_itr), by packets and bytes since the last interrupt.

LOWEST, LOW, BULK = 56, 196, 980


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([(0, 0)], LOWEST),
        ([(1, 64)], LOWEST),
        ([(4, 600)], LOW),
        ([(1, 9000)], BULK),
        ([(4, 600), (20, 11_000)], LOW),
        ([(4, 600), (9, 10_800)], BULK),
        ([(4, 600), (10, 13_000)], BULK),
        ([(4, 600), (40, 11_000)], LOWEST),
        ([(4, 600), (4, 9_000)], BULK),
        ([(4, 600), (2, 500)], LOWEST),
        ([(4, 600), (3, 500)], LOW),
        ([(1, 9000), (36, 30_000)], LOW),
        ([(1, 9000), (30, 30_000)], BULK),
        ([(1, 9000), (1, 1400)], LOW),
        ([(1, 9000), (5, 5000)], BULK),
    ],
)
@pytest.mark.parametrize("direction", ["rx", "tx"])
def test_the_class_follows_what_was_moved(direction, steps, expected):
    itr = ffi.new("struct us_igb_itr *", {"setting": 1, "itr_val": lib.US_IGB_START_ITR})
    rx, tx = ffi.new("struct us_igb_rx_ring *"), ffi.new("struct us_igb_tx_ring *")
    ring = rx if direction == "rx" else tx
    for packets, count in steps:
        ring.packets += packets
        ring.bytes += count
        lib.us_igb_set_itr(itr, rx, tx)
    assert itr.itr_val == expected


def test_the_conservative_setting_has_no_lowest_latency():
    itr = ffi.new("struct us_igb_itr *", {"setting": 3, "itr_val": lib.US_IGB_START_ITR})
    rx, tx = ffi.new("struct us_igb_rx_ring *"), ffi.new("struct us_igb_tx_ring *")
    assert lib.us_igb_set_itr(itr, rx, tx) == LOW
    assert lib.us_igb_set_itr(itr, rx, tx) == -1


def test_a_fixed_setting_is_left_alone():
    itr = ffi.new("struct us_igb_itr *", {"setting": 50, "itr_val": 200})
    rx, tx = ffi.new("struct us_igb_rx_ring *"), ffi.new("struct us_igb_tx_ring *")
    assert lib.us_igb_set_itr(itr, rx, tx) == -1
