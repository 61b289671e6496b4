"""E-OOO: a stream whose segments come in any order, twice and overlapping, arrives whole.

A thousand segments over SACK and not, timestamps and not, through the end of the sequence
number space, with a FIN among them.
"""

from __future__ import annotations

import hashlib
import random

import pytest

from kit.host import Host
from kit.peer import Peer
from kit.segment import pattern

SIZE = 40
COUNT = 1000
OPTIONS = {
    "plain": "mss 1460",
    "sack": "mss 1460,nop,nop,sackOK",
    "scaled": "mss 1460,nop,nop,sackOK,nop,wscale 7",
}


def play(server: Host, options: str, cuts: list[tuple[int, int]], iss: int | None = None):
    """Send the stream in these pieces, a FIN with whatever reaches its end."""
    lsk = server.listen()
    peer = server.peer()
    if iss is not None:
        peer.iss = iss
    peer.handshake(options)
    sk = lsk.accept()
    total = max(end for _, end in cuts)
    for start, end in cuts:
        flags = "FP." if end == total else "."
        peer.send(f"{flags} {1 + start}:{1 + end}({end - start}) ack 1")
    got = b""
    while piece := sk.recv(1 << 20):
        got += piece
    return sk, peer, got, total


def whole(got: bytes, total: int) -> bool:
    return hashlib.sha256(got).digest() == hashlib.sha256(pattern(0, total)).digest()


def pieces() -> list[tuple[int, int]]:
    return [(at, at + SIZE) for at in range(0, SIZE * COUNT, SIZE)]


@pytest.mark.rfc("9293", "MUST-31")
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("seed", range(4))
def test_a_thousand_segments_in_any_order(server, options, seed):
    cuts = pieces()
    random.Random(seed).shuffle(cuts)
    sk, peer, got, total = play(server, OPTIONS[options], cuts)
    assert whole(got, total)
    assert peer.drain()[-1].ack == peer.iss + total + 2 & 0xFFFFFFFF
    assert sk._sk.ofo is None


@pytest.mark.parametrize("seed", range(4))
def test_the_same_with_every_third_twice(server, seed):
    rng = random.Random(seed)
    cuts = pieces() + pieces()[::3]
    rng.shuffle(cuts)
    _, _, got, total = play(server, OPTIONS["sack"], cuts)
    assert whole(got, total)


@pytest.mark.parametrize("seed", range(6))
def test_the_same_with_overlaps_of_any_length(server, seed):
    rng = random.Random(seed)
    total = SIZE * 400
    cuts = [(at, min(at + rng.randrange(SIZE, 20 * SIZE), total)) for at in range(0, total, SIZE)]
    rng.shuffle(cuts)
    sk, _, got, total = play(server, OPTIONS["sack"], cuts)
    assert whole(got, total) and sk._sk.ofo is None


@pytest.mark.parametrize("distance", [1, 500, 20_000])
def test_the_same_across_the_end_of_the_sequence_numbers(server, distance):
    cuts = pieces()
    random.Random(distance).shuffle(cuts)
    _, _, got, total = play(server, OPTIONS["sack"], cuts, iss=(1 << 32) - distance)
    assert whole(got, total)


@pytest.mark.parametrize("name", ["backwards", "odd first", "halves"])
def test_the_same_in_special_orders(server, name):
    cuts = pieces()
    half = len(cuts) // 2
    order = {
        "backwards": cuts[::-1],
        "odd first": cuts[1::2] + cuts[::2],
        "halves": [cut for pair in zip(cuts[half:], cuts[:half], strict=True) for cut in pair],
    }[name]
    _, _, got, total = play(server, OPTIONS["sack"], order)
    assert whole(got, total)


def test_of_three_segments_the_third_waits_for_the_second(server):
    """S1, S3, S2: each is acknowledged at once, the last acknowledges all."""
    sk, peer = server.established(OPTIONS["sack"])
    peer.send("P. 1:11(10) ack 1")
    peer.expect(". 1:1(0) ack 11")
    peer.send("P. 21:31(10) ack 1")
    peer.expect(". 1:1(0) ack 11 <nop,nop,sack 21:31>")
    assert len(sk.recv(100, 2)) == 10 and len(sk._sk.ofo) == 1
    peer.send("P. 11:21(10) ack 1")
    peer.expect(". 1:1(0) ack 31 <>")
    assert sk._sk.ofo is None and len(sk.recv(100)) == 30


def hold_first_byte(peer: Peer, count: int) -> None:
    for i in range(1, count):
        peer.send(f". {1 + SIZE * i}:{1 + SIZE * (i + 1)}({SIZE}) ack 1")


def test_nothing_is_readable_before_the_first_hole_is_filled(server):
    sk, peer = server.established(OPTIONS["sack"])
    hold_first_byte(peer, 50)
    with pytest.raises(BlockingIOError):
        sk.recv(1)
    assert not sk.poll() & 1
    peer.send(f". 1:{1 + SIZE}({SIZE}) ack 1")
    assert sk.poll() & 1 and len(sk.recv(1 << 20)) == 50 * SIZE


def test_a_reset_lets_everything_go(server):
    sk, peer = server.established(OPTIONS["sack"])
    hold_first_byte(peer, 50)
    peer.send("R 1:1(0)")
    assert sk._sk.ofo is None
    with pytest.raises(ConnectionResetError):
        sk.recv(1)
