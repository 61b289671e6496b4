"""Hostile input: whatever comes over the wire, the stack neither raises nor stops working."""

from __future__ import annotations

import os
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.checksum import checksum
from kit.host import Host, host
from kit.peer import PEER_MAC
from kit.segment import Segment, build_ip
from kit.strategies import ethernet_frames, mutated_packets, near_numbers, options
from ustack.tcp.diag import tcp_diag

TIMES = 30 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 1
pytestmark = pytest.mark.timeout(900)

HOST_MAC = bytes.fromhex("020000000002")


def still_works(server: Host) -> None:
    """A new connection can be made and carries data."""
    server.net.peers.clear()
    lsk = server.listen(7777)
    peer = server.peer(to=7777, addr="10.0.0.99")
    peer.handshake()
    peer.send("P. 1:6(5) ack 1", data=b"alive")
    assert lsk.accept().recv(10) == b"alive"


@settings(max_examples=60 * TIMES)
@given(st.lists(ethernet_frames(HOST_MAC, PEER_MAC), min_size=1, max_size=40))
def test_any_frames(frames):
    server = host()
    server.listen(80)
    for frame in frames:
        server.net.wire.send_frame(bytes(10) + frame)
    server.settle()
    server.net.other.clear()
    still_works(server)


@settings(max_examples=60 * TIMES)
@given(st.lists(mutated_packets(), min_size=1, max_size=40))
def test_mutated_segments(packets):
    server = host()
    server.listen(80)
    for packet in packets:
        server.net.send_ip(packet)
    server.settle()
    still_works(server)


fragment_near_others = st.tuples(
    st.integers(0, 3), st.integers(0, 0x3FFF), st.binary(max_size=40), st.binary(max_size=40)
)


@settings(max_examples=80)
@given(st.lists(fragment_near_others, min_size=1, max_size=60), st.sampled_from([1, 6, 17, 99]))
def test_fragments_and_options_of_any_kind(pieces, proto):
    """Offsets that touch, overlap and run past the end, options of random bytes."""
    server = host()
    server.listen(80)
    for ident, frag, unpadded, payload in pieces:
        field = unpadded + bytes(-len(unpadded) % 4)
        header = struct.pack(
            ">BBHHHBBHII", 0x45 + len(field) // 4, 0, 20 + len(field) + len(payload), ident,
            frag & 0x2007, 64, proto, 0, 0x0A000001, server.addr,
        ) + field  # fmt: skip
        header = header[:10] + struct.pack(">H", checksum(header)) + header[12:]
        server.net.send_ip(header + payload)
    server.settle()
    server.net.other.clear()
    still_works(server)
    server.advance_us(31_000_000)
    assert (server.stack.ip.frags.mem, len(server.stack.ip.frags)) == (0, 0)


segment_near_the_window = st.tuples(
    st.integers(0, 0xFF), near_numbers, near_numbers, st.sampled_from([0, 1, 100, 1460]),
    st.sampled_from([0, 1, 500, 65535]), options(), st.sampled_from([0, 1000, 300_000]),
)  # fmt: skip


@settings(max_examples=80 * TIMES)
@given(
    st.lists(segment_near_the_window, min_size=1, max_size=30),
    st.sampled_from(["idle", "sending", "closed", "shut"]),
)
def test_a_hostile_peer_in_an_established_connection(script, application):
    """Numbers close to the edges, every flag: the socket may end, the stack may not."""
    server = host()
    sk, peer = server.established("mss 1460,nop,nop,sackOK,nop,wscale 7")
    if application == "sending":
        sk.send(bytes(20_000))
    elif application == "closed":
        sk.close()
    elif application == "shut":
        sk.shutdown(1)
    for flags, seq, ack, length, window, opts, wait_us in script:
        seg = Segment(
            peer.addr, server.addr, peer.port, 80, (peer.iss + 1 + seq) & 0xFFFFFFFF,
            ((peer.host_iss or 0) + 1 + ack) & 0xFFFFFFFF, flags, window, bytes(length),
            options=opts,
        )  # fmt: skip
        server.net.send_ip(build_ip(seg))
        server.advance_us(wait_us)
    still_works(server)
    server.advance_us(2_000_000_000)
    if application == "closed":
        rows = [r for r in tcp_diag(server.stack.tcp) if r["local"][1] == 80]
        assert [r["state"] for r in rows if r["state"] != "LISTEN"] == []


@pytest.mark.parametrize("size", [0, 1, 13, 14, 15, 33, 34, 53, 54, 60])
def test_frames_of_every_small_size(size):
    server = host()
    syn = build_ip(Segment(0x0A000001, server.addr, 1, 80, 0, 0, 2, 100))
    frame = (HOST_MAC + PEER_MAC + b"\x08\x00" + syn)[:size]
    server.net.wire.send_frame(bytes(10) + frame)
    server.settle()
    still_works(server)
