"""Wires that record and replay, alone and around one another."""

from __future__ import annotations

import io
import random

from ustack.lib.clock import StackClock
from ustack.nic.impair import ImpairedWire
from ustack.nic.pair import wire_pair
from ustack.nic.record import RecordingWire, ReplayWire
from ustack.nic.wire import VNET_HDR_NONE, Wire
from ustack.wire.pcap import PcapWriter, read_packets

HEADER = bytes(10)


class Notes:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.packets: list[tuple[int, bytes, bool]] = []

    def packet(
        self, ts_us: int, length: int, data: bytes, *, device: str = "", outgoing: bool = False
    ) -> None:
        assert (length, device) == (len(data), "eth0")
        self.packets.append((ts_us, data, outgoing))


def test_a_recorder_writes_both_ways_and_changes_nothing():
    near, far = wire_pair(limit=1)
    clock, notes = StackClock(7), Notes()
    wire = RecordingWire(near, clock, notes, epoch_us=1000)
    far.send_frame(HEADER + b"in")
    assert wire.recv_frame() == HEADER + b"in"
    assert wire.recv_frame() is None
    clock.now_us = 9
    assert wire.send_frame(HEADER + b"out")
    assert not wire.send_frame(HEADER + b"full")  # will come again
    assert notes.packets == [(1007, b"in", False), (1009, b"out", True)]
    assert far.recv_frame() == HEADER + b"out"


def test_recorders_on_both_sides_of_a_loss_show_what_was_lost():
    near, far = wire_pair()
    clock, outside, inside = StackClock(), Notes(), Notes()
    bad = ImpairedWire(RecordingWire(near, clock, outside), clock, random.Random(3), loss=0.5)
    wire = RecordingWire(bad, clock, inside)
    for i in range(100):
        wire.send_frame(HEADER + bytes([i]))
    assert len(inside.packets) == 100
    assert len(outside.packets) == far.pending == 100 - bad.lost
    assert wire.is_timed and wire.features == near.features


def test_a_replay_keeps_the_distances_in_time():
    clock = StackClock(1_000_000)
    wire = ReplayWire(Wire(), clock, [(50, b"a"), (150, b"b"), (151, b"c")])
    assert wire.recv_frame() == VNET_HDR_NONE + b"a"
    assert wire.recv_frame() is None
    assert wire.next_deadline_us() == 1_000_100
    clock.now_us = 1_000_101
    assert [wire.recv_frame(), wire.recv_frame()] == [HEADER + b"b", HEADER + b"c"]
    assert wire.finished and wire.replayed == 3
    assert wire.next_deadline_us() is None


def test_a_replay_can_be_faster_or_all_at_once():
    packets = [(0, b"a"), (1000, b"b")]
    clock = StackClock()
    wire = ReplayWire(Wire(), clock, packets, speed=10)
    wire.recv_frame()
    assert wire.next_deadline_us() == 100
    wire = ReplayWire(Wire(), clock, packets, speed=0)
    assert [wire.recv_frame(), wire.recv_frame()] == [HEADER + b"a", HEADER + b"b"]


def test_what_the_inner_wire_brings_comes_between():
    near, far = wire_pair()
    clock = StackClock()
    wire = ReplayWire(near, clock, [(0, b"a"), (10, b"b")])
    far.send_frame(HEADER + b"live")
    assert [wire.recv_frame(), wire.recv_frame(), wire.recv_frame()] == [
        HEADER + b"a",
        HEADER + b"live",
        None,
    ]


def test_a_recording_can_be_replayed_over_a_bad_wire():
    near, far = wire_pair()
    clock, stream = StackClock(), io.BytesIO()
    writer = PcapWriter(stream, 65535)
    writer.start()
    wire = RecordingWire(near, clock, writer, epoch_us=1_700_000_000_000_000)
    for i in range(5):
        clock.now_us += 100
        far.send_frame(HEADER + bytes([i]) * 20)
        wire.recv_frame()
    stream.seek(0)
    replay = ReplayWire(Wire(), clock, read_packets(stream))
    late = ImpairedWire(replay, clock, random.Random(1), received=True, delay_us=1000)
    came = []
    while True:
        while (unit := late.recv_frame()) is not None:
            came.append((clock.now_us, unit[10]))
        if (due := late.next_deadline_us()) is None:
            break
        clock.now_us = due
    assert came == [(500 + 1000 + 100 * i, i) for i in range(5)]


def test_a_paused_replay_begins_when_it_is_resumed():
    clock = StackClock(100)
    wire = ReplayWire(Wire(), clock, [(7, b"a"), (17, b"b")], paused=True)
    clock.now_us = 5_000
    assert wire.recv_frame() is None
    assert wire.next_deadline_us() is None
    wire.resume()
    wire.resume()
    assert wire.next_deadline_us() == 5_000
    assert wire.recv_frame() == HEADER + b"a"
    assert wire.next_deadline_us() == 5_010
