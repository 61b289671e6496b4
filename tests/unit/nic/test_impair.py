"""A bad wire: each fault by itself, and the same run for the same seed."""

from __future__ import annotations

import random

from ustack.lib.clock import StackClock
from ustack.nic.impair import ImpairedWire
from ustack.nic.pair import wire_pair

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
