"""Super-frames (TSO): many segments in one frame, and the same rules for all of them."""

from __future__ import annotations

import pytest

from kit.host import Host, host
from kit.segment import pattern
from ustack.config import NicConfig, StackConfig, UstackConfig

BIG = "mss 1000,nop,wscale 7"


@pytest.fixture
def sender() -> Host:
    """A host whose NIC cuts super-frames and completes checksums."""
    return host(nic=NicConfig())


def test_the_initial_window_leaves_as_two_frames(sender):
    """Never more than half of cwnd at once (tcp_cwnd_test)."""
    sk, peer = sender.established(BIG, win=60_000)
    sk.send(pattern(0, 15_000))
    assert [len(frame.payload) for frame in peer.expect_data(1, 10_001)] == [5000, 5000]
    assert sender.mib.OutSegs == 11  # the SYN-ACK and ten segments


@pytest.mark.rfc("9293", "3.8.6")
@pytest.mark.parametrize("win", [1000, 1500, 2500, 7999, 9500])
def test_a_super_frame_ends_at_the_peers_window(sender, win):
    sk, peer = sender.established("mss 1000", win=win)
    sk.send(pattern(0, 20_000))
    sent = sum(len(s.payload) for s in peer.drain())
    assert win - 1000 < sent <= win


def test_a_lost_super_frame_is_repeated_from_its_first_hole(sender):
    sk, peer = sender.established(BIG, win=60_000)
    sk.send(pattern(0, 10_000))
    peer.expect_data(1, 10_001)
    for _ in range(3):
        peer.send(". 1:1(0) ack 4001 win 60000")
    peer.send(". 1:1(0) ack 4001 win 60000")
    peer.expect(". 4001:5001(1000) ack 1")


def test_a_small_tail_follows_the_full_segments(sender):
    sk, peer = sender.established(BIG, win=60_000)
    sk.send(pattern(0, 4_321))
    assert sum(len(s.payload) for s in peer.drain()) == 4_321
    sk.send(pattern(4_321, 1_500))
    held = sum(len(s.payload) for s in peer.drain())
    assert held == 1_000  # Nagle keeps 500 back
    peer.send(". 1:1(0) ack 5322 win 60000")
    assert sum(len(s.payload) for s in peer.drain()) == 500


def test_every_byte_of_a_long_transfer_is_in_order(sender):
    sk, peer = sender.established(BIG, win=60_000)
    total, written, at, frames = 400_000, 0, 1, 0
    while at <= total:
        try:
            while written < total:
                written += sk.send(pattern(written, min(30_000, total - written)))
        except BlockingIOError:
            pass
        segments = peer.drain()
        for seg in segments:
            assert seg.payload == pattern(at - 1, len(seg.payload))
            at += len(seg.payload)
        frames += len(segments)
        sender.advance_us(1000)
        peer.send(f". 1:1(0) ack {at} win 60000")
    assert frames < 60


@pytest.mark.linux("tcp_tso_autosize: tcp_min_tso_segs of a skb that a write filled")
@pytest.mark.parametrize("fastpath", [True, False])
def test_two_segments_of_half_of_a_window_on_lo_are_not_one_packet(fastpath):
    """Half of the first window of 64 KiB makes an MSS of which an IP packet does not hold two."""
    h = host(StackConfig(ustack=UstackConfig(tcp_fastpath=fastpath)))
    lsk = h.listen(80)
    near = h.connect(h.addr, 80)
    h.settle()
    far = lsk.accept()
    near.send(bytes(200_000))
    h.settle()
    got = len(far.recv(200_000))
    while got < 200_000:
        h.settle()
        got += len(far.recv(200_000))
    assert h.mib.RetransSegs == 0
    assert "PKT_TOO_BIG" not in h.stack.net.drops.nonzero()
