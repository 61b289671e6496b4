"""``ustackd --record`` and ``--replay``: the chain of wires and what the files hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from ustack.daemon.impair import parse_impairment
from ustack.daemon.recording import WireChain, read_capture
from ustack.lib.clock import StackClock
from ustack.nic.pair import wire_pair
from ustack.wire.pcap import PcapWriter

HEADER = bytes(10)


def recorded(path: Path, clock: StackClock, **options: object) -> None:
    """Record two frames in and one out, some microseconds apart."""
    near, far = wire_pair()
    chain = WireChain(near, clock, record=path, **options)
    for data in (b"first in", b"second in"):
        far.send_frame(HEADER + data)
        assert chain.wire.recv_frame() == HEADER + data
        clock.now_us += 250
    assert chain.wire.send_frame(HEADER + b"out")
    chain.close()
    chain.close()


def test_a_recording_is_replayed_without_what_the_stack_sent(tmp_path: Path):
    clock = StackClock(1_000)
    recorded(tmp_path / "r.pcapng", clock)
    near, far = wire_pair()
    chain = WireChain(near, clock, replay=tmp_path / "r.pcapng")
    assert chain.wire.recv_frame() is None
    clock.now_us = 10_000
    chain.start_replay()
    assert chain.wire.recv_frame() == HEADER + b"first in"
    assert chain.wire.recv_frame() is None
    clock.now_us += 250
    assert chain.wire.recv_frame() == HEADER + b"second in"
    assert chain.wire.next_deadline_us() is None
    far.send_frame(HEADER + b"live")
    assert chain.wire.recv_frame() == HEADER + b"live"


def test_a_replayed_frame_meets_the_impairments_and_is_recorded_behind_them(tmp_path: Path):
    clock = StackClock(1_000)
    recorded(tmp_path / "r.pcapng", clock)
    chain = WireChain(
        wire_pair()[0],
        clock,
        impair=parse_impairment("loss=100%,way=received"),
        replay=tmp_path / "r.pcapng",
        record=tmp_path / "again.pcapng",
    )
    chain.start_replay()
    clock.now_us += 1_000
    assert chain.wire.recv_frame() is None
    assert chain.wire.send_frame(HEADER + b"out")
    chain.close()
    assert list(read_capture(tmp_path / "again.pcapng")) == []


def test_a_pcap_knows_no_directions_and_is_replayed_whole(tmp_path: Path):
    path = tmp_path / "r.pcap"
    with path.open("wb") as stream:
        writer = PcapWriter(stream, 65535)
        writer.start()
        writer.packet(5_000_000, 3, b"one")
        writer.packet(5_000_010, 3, b"two", outgoing=True)
    assert list(read_capture(path)) == [(5_000_000, b"one"), (5_000_010, b"two")]


def test_what_is_no_capture_is_refused_at_once(tmp_path: Path):
    (tmp_path / "text").write_text("this is no capture of anything")
    with pytest.raises(ValueError):
        read_capture(tmp_path / "text")
    with pytest.raises(OSError):
        WireChain(wire_pair()[0], StackClock(), record=tmp_path / "no" / "such" / "folder")


def test_a_disk_that_is_full_from_the_start_is_an_error():
    with pytest.raises(OSError):
        WireChain(wire_pair()[0], StackClock(), record=Path("/dev/full"))


def test_a_disk_that_fills_up_ends_the_recording_alone(tmp_path: Path, capsys):
    near, far = wire_pair()
    path = tmp_path / "r.pcapng"
    chain = WireChain(near, StackClock(), record=path)
    recorder = chain._recorder
    assert recorder is not None
    with open("/dev/full", "wb", buffering=0) as full:
        recorder._writer._stream = full
        for _ in range(3):
            far.send_frame(HEADER + b"x")
            assert chain.wire.recv_frame() == HEADER + b"x"
    chain.close()
    said = capsys.readouterr().err.splitlines()
    assert said == [f"ustackd: recording ends: {path}: No space left on device"]


def test_dev_null_takes_everything():
    recorded(Path("/dev/null"), StackClock())
