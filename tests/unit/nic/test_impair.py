"""A bad wire: each fault by itself, and the same run for the same seed."""

from __future__ import annotations

import random

from ustack.lib.addresses import parse_interface
from ustack.lib.clock import StackClock
from ustack.nic.impair import ImpairedWire
from ustack.nic.pair import wire_pair
from ustack.stack import Stack
from ustack.wire.arp import ArpPacket, build_arp
from ustack.wire.ethernet import build_ethernet

HEADER = bytes(10)


def received(wire) -> list[bytes]:
    units = []
    while (unit := wire.recv_frame()) is not None:
        units.append(unit[10:])
    return units


def run(count: int, seed: int = 1, **faults) -> tuple[ImpairedWire, list[bytes]]:
    near, far = wire_pair()
    clock = StackClock()
    wire = ImpairedWire(near, clock, random.Random(seed), **faults)
    for i in range(count):
        assert wire.send_frame(HEADER + i.to_bytes(20, "big"))
        clock.now_us += 10
    while (due := wire.next_deadline_us()) is not None:
        wire.flush(due)
    return wire, received(far)


def units(count: int) -> list[bytes]:
    return [i.to_bytes(20, "big") for i in range(count)]


def test_without_faults_it_is_a_wire():
    wire, got = run(100)
    assert got == units(100)
    assert wire.next_deadline_us() is None


def test_loss():
    wire, got = run(2000, loss=0.1)
    assert len(got) == 2000 - wire.lost
    assert 150 < wire.lost < 250


def test_duplication():
    wire, got = run(2000, duplicate=0.1)
    assert len(got) == 2000 + wire.duplicated
    assert 150 < wire.duplicated < 250
    assert sorted(set(got)) == units(2000)


def test_reordering_changes_the_order_and_nothing_else():
    wire, got = run(1000, reorder=0.1)
    assert got != units(1000)
    assert sorted(got) == units(1000)
    assert 50 < wire.reordered < 150


def test_corruption_inverts_one_bit_behind_the_header():
    wire, got = run(500, corrupt=0.5)
    for sent, came in zip(units(500), got, strict=True):
        wrong = int.from_bytes(sent, "big") ^ int.from_bytes(came, "big")
        assert wrong.bit_count() <= 1
    assert sum(s != g for s, g in zip(units(500), got, strict=True)) == wire.corrupted > 0


def test_delay_holds_a_frame_until_its_time():
    near, far = wire_pair()
    clock = StackClock(1000)
    wire = ImpairedWire(near, clock, random.Random(1), delay_us=500)
    wire.send_frame(HEADER + b"1")
    assert wire.next_deadline_us() == 1500
    assert wire.flush(1499) == 0
    assert wire.flush(1500) == 1
    assert received(far) == [b"1"]


def test_jitter_is_bounded():
    near, _ = wire_pair()
    clock = StackClock()
    for seed in range(50):
        wire = ImpairedWire(near, clock, random.Random(seed), delay_us=100, jitter_us=30)
        wire.send_frame(HEADER + b"1")
        assert 100 <= wire.next_deadline_us() <= 130


def test_the_same_seed_gives_the_same_run():
    faults = {"loss": 0.05, "duplicate": 0.05, "reorder": 0.05, "jitter_us": 100}
    assert run(300, seed=7, **faults)[1] == run(300, seed=7, **faults)[1]
    assert run(300, seed=7, **faults)[1] != run(300, seed=8, **faults)[1]


def test_a_full_inner_wire_keeps_the_rest():
    near, far = wire_pair(limit=1)
    wire = ImpairedWire(near, StackClock(), random.Random(1))
    wire.send_frame(HEADER + b"1")
    wire.send_frame(HEADER + b"2")
    assert received(far) == [b"1"]
    assert wire.flush(0) == 1
    assert received(far) == [b"2"]


def test_offloads_pass_through():
    near, far = wire_pair()
    wire = ImpairedWire(near, StackClock(), random.Random(1))
    seen = []
    wire.features_changed = lambda: seen.append(wire.features)
    far.set_offloads(False, False)
    assert (wire.features, seen, wire.fileno()) == (0, [0], -1)


def held_units(wire: ImpairedWire, clock: StackClock) -> list[tuple[int, bytes]]:
    """Let time go from deadline to deadline; return when each unit came in, and which."""
    came = []
    while True:
        while (unit := wire.recv_frame()) is not None:
            came.append((clock.now_us, unit[10:]))
        due = wire.next_deadline_us()
        if due is None:
            return came
        clock.now_us = due
        wire.flush(due)


def test_what_comes_in_can_be_impaired_as_well():
    near, far = wire_pair()
    clock = StackClock(1000)
    wire = ImpairedWire(near, clock, random.Random(1), received=True, delay_us=500)
    far.send_frame(HEADER + b"1")
    assert wire.recv_frame() is None
    assert wire.next_deadline_us() == 1500
    assert held_units(wire, clock) == [(1500, b"1")]
    assert wire.send_frame(HEADER + b"2")
    assert received(far) == [b"2"]  # the other way is as it was


def test_both_ways_are_two_wires_one_around_the_other():
    near, far = wire_pair()
    clock = StackClock()
    inner = ImpairedWire(near, clock, random.Random(1), received=True, delay_us=300)
    wire = ImpairedWire(inner, clock, random.Random(2), delay_us=200)
    wire.send_frame(HEADER + b"out")
    far.send_frame(HEADER + b"in")
    assert wire.recv_frame() is None
    assert wire.next_deadline_us() == 200
    assert held_units(wire, clock) == [(300, b"in")]
    assert received(far) == [b"out"]


def test_a_rate_spaces_frames_by_their_length():
    near, far = wire_pair()
    clock = StackClock()
    wire = ImpairedWire(near, clock, random.Random(1), received=True, rate_bps=8_000_000)
    for size in (100, 50, 1000):
        far.send_frame(HEADER + bytes(size))
    assert [(at, len(u)) for at, u in held_units(wire, clock)] == [
        (100, 100),
        (150, 50),
        (1150, 1000),
    ]
    clock.now_us = 5000
    far.send_frame(HEADER + bytes(10))
    assert held_units(wire, clock)[0][0] == 5010  # an idle line saves nothing up


def test_a_rate_and_a_delay_add_up():
    near, far = wire_pair()
    clock = StackClock()
    wire = ImpairedWire(
        near, clock, random.Random(1), received=True, rate_bps=8_000_000, delay_us=1000
    )
    for _ in range(2):
        far.send_frame(HEADER + bytes(100))
    assert [at for at, _ in held_units(wire, clock)] == [1100, 1200]


def test_the_rates_queue_is_counted_in_bytes_and_drops_at_its_tail():
    near, far = wire_pair()
    clock = StackClock()
    wire = ImpairedWire(
        near, clock, random.Random(1), received=True, rate_bps=8_000_000, queue_bytes=250
    )
    for i in range(4):
        far.send_frame(HEADER + bytes([i]) * 100)
    assert [u[0] for _, u in held_units(wire, clock)] == [0, 1]
    assert wire.overlimits == 2
    far.send_frame(HEADER + bytes(250))  # there is room again when they have left
    assert len(held_units(wire, clock)) == 1


def test_no_more_frames_are_held_than_the_limit():
    near, far = wire_pair()
    wire = ImpairedWire(near, StackClock(), random.Random(1), delay_us=10, limit_pkts=3)
    for i in range(5):
        assert wire.send_frame(HEADER + bytes([i]))
    assert (wire.held, wire.overlimits) == (3, 2)
    wire.flush(10)
    assert received(far) == [b"\0", b"\1", b"\2"]


def test_a_wire_that_refuses_is_tried_again_later_and_not_at_once():
    near, _ = wire_pair(limit=0)
    clock = StackClock(5000)
    wire = ImpairedWire(near, clock, random.Random(1))
    wire.send_frame(HEADER + b"1")
    due = wire.next_deadline_us()
    assert due is not None and due > 5000


def test_where_frames_are_corrupted_checksums_are_complete():
    near, far = wire_pair()
    out = ImpairedWire(near, StackClock(), random.Random(1), corrupt=0.1)
    assert (near.features, out.features) == (3, 0)
    into = ImpairedWire(near, StackClock(), random.Random(1), received=True, corrupt=0.1)
    into.set_offloads(True, True)
    assert far.features == 0


def test_a_stack_asks_a_timed_wire_for_its_deadline_and_lets_it_send():
    near, far = wire_pair()
    stack = Stack(rng=random.Random(1), now_us=1000)
    wire = ImpairedWire(near, stack.clock, random.Random(1), delay_us=700)
    wire = ImpairedWire(wire, stack.clock, random.Random(1), received=True, delay_us=500)
    dev = stack.add_igb(
        wire, mac=bytes.fromhex("020000000002"), address=parse_interface("10.0.0.2/24")
    )
    request = ArpPacket(1, b"\2\0\0\0\0\1", 0x0A000001, bytes(6), 0x0A000002)
    far.send_frame(HEADER + build_ethernet(b"\xff" * 6, request.sha, 0x0806) + build_arp(request))
    assert not stack.poll(1000)
    assert stack.next_deadline_us() == 1500
    stack.poll(1500)
    assert dev.wire_deadline_us() == 2200  # the held-back interrupt may be due before
    assert received(far) == []
    stack.poll(2200)
    assert len(received(far)) == 1
    stack.net.dev_close(dev)
    wire.send_frame(HEADER + b"1")
    assert dev.wire_deadline_us() is None  # nobody is there: do not wake for it
