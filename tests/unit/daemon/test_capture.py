"""Captures: what is kept of a packet, and what happens when nobody reads."""

from __future__ import annotations

import pytest

from unit.daemon.fakes import FakeNet, FakeSkb
from ustack.daemon import capture as capture_module
from ustack.daemon.bpf import compile_filter, frame_bytes
from ustack.daemon.capture import Capture
from ustack.daemon.messages import CaptureRequest, Done, PacketPiece, Started, decode_reply


def start(net: FakeNet, **request: object) -> tuple[Capture, list[None]]:
    """Begin a capture; return it and the list that notifications go to."""
    notified: list[None] = []
    capture = Capture(net, CaptureRequest(**request), lambda: notified.append(None))  # type: ignore[arg-type]
    return capture, notified


def replies(capture: Capture) -> list[object]:
    """Read what there is."""
    return [decode_reply(message) for message in capture.messages()]


def test_a_device_and_a_count_select():
    net = FakeNet()
    capture, _ = start(net, device="eth0", count=2)
    for data, dev in ((b"1", "eth0"), (b"2", "lo"), (b"3", "eth0"), (b"4", "eth0")):
        net.pass_packet(data, dev)
    started, one, three, done = replies(capture)
    assert started == Started()
    assert isinstance(one, PacketPiece) and isinstance(three, PacketPiece)
    assert (one.data, three.data) == (b"1", b"3")
    assert done == Done(received=2)
    assert capture.finished and not net.taps


@pytest.mark.parametrize(
    ("direction", "seen"), [("in", [b"i"]), ("out", [b"o"]), ("inout", [b"i", b"o"])]
)
def test_a_direction_selects(direction: str, seen: list[bytes]):
    net = FakeNet()
    capture, _ = start(net, direction=direction)
    net.pass_packet(b"i")
    net.pass_packet(b"o", outgoing=True)
    _, *packets = replies(capture)
    assert [p.data for p in packets] == seen  # type: ignore[attr-defined]
    assert [p.outgoing for p in packets] == [data == b"o" for data in seen]  # type: ignore[attr-defined]
    assert {p.device for p in packets} == {"eth0"}  # type: ignore[attr-defined]


def test_a_filter_lets_through_what_matches_and_only_that_is_counted_and_copied():
    net = FakeNet()
    capture, notified = start(net, filter=compile_filter("arp"))
    for ethertype in (b"\x08\x00", b"\x08\x06", b"\x86\xdd"):
        net.pass_packet(bytes(12) + ethertype + bytes(46))
    assert (capture.received, len(notified)) == (1, 1)
    capture.stop()
    _, packet, done = replies(capture)
    assert isinstance(packet, PacketPiece) and packet.data[12:14] == b"\x08\x06"
    assert done == Done(received=1)


def test_snaplen_shortens_the_data_and_not_the_length():
    net = FakeNet()
    capture, _ = start(net, snaplen=4)
    net.pass_packet(b"0123456789")
    _, packet = replies(capture)
    assert isinstance(packet, PacketPiece)
    assert (packet.data, packet.length) == (b"0123", 10)


def test_only_the_first_packet_of_a_batch_notifies():
    net = FakeNet()
    capture, notified = start(net)
    for _ in range(5):
        net.pass_packet(b"x")
    assert len(notified) == 1
    replies(capture)
    net.pass_packet(b"x")
    assert len(notified) == 2


def test_a_full_queue_loses_packets_and_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(capture_module, "QUEUE_BYTES", 1000)
    net = FakeNet()
    capture, _ = start(net)
    for _ in range(10):
        net.pass_packet(bytes(100))
    capture.stop()
    *packets, done = replies(capture)
    assert done == Done(received=10, dropped=8)
    assert len(packets) == 3


@pytest.mark.parametrize(
    "request_",
    [{"device": "eth9"}, {"snaplen": 0}, {"count": -1}, {"filter": b"wild"}, {"filter": bytes(8)}],
)
def test_what_makes_no_sense_is_refused(request_: dict[str, object]):
    net = FakeNet()
    with pytest.raises(ValueError):
        start(net, **request_)
    assert not net.taps


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(2, b"he"), (4, b"head"), (6, b"head\x10\x11"), (9, b"head\x10\x11\x12\x40\x41")],
)
def test_a_frames_payload_is_copied_from_the_arena(limit: int, expected: bytes):
    skb = FakeSkb(b"head", [(0x10, 3), (0x40, 2)])
    assert frame_bytes(FakeNet(), skb, limit) == expected  # type: ignore[arg-type]
