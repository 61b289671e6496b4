"""ARP as a neighbour sees it: RFC 826, RFC 1122 §2.3.2, Linux's neighbour states."""

from __future__ import annotations

import itertools
import struct

import pytest

from kit.checkers import check
from kit.host import Host
from kit.peer import PEER_MAC

HOST_MAC = bytes.fromhex("020000000002")
SECOND = 1_000_000


def arp(
    op: int, sender_mac: bytes, sender: int, target: int, target_mac: bytes = bytes(6)
) -> bytes:
    """Return the ARP packet behind an Ethernet header to everyone."""
    body = struct.pack(">HHBBH6sI6sI", 1, 0x800, 6, 4, op, sender_mac, sender, target_mac, target)
    return b"\xff" * 6 + sender_mac + b"\x08\x06" + body


def arps(server: Host) -> list[bytes]:
    """Take the ARP frames that nobody answered."""
    frames = [c.frame for c in server.net.other if c.frame[12:14] == b"\x08\x06"]
    server.net.other.clear()
    return frames


@pytest.mark.rfc("826", "reception")
def test_a_request_for_our_address_is_answered(server):
    server.settle()
    arps(server)
    server.net.send_frame(arp(1, PEER_MAC, 0x0A000001, server.addr))
    server.settle()
    (reply,) = arps(server)
    check(reply).to(PEER_MAC).source(HOST_MAC).arp(
        op=2, sender="10.0.0.2", sender_mac=HOST_MAC, target="10.0.0.1", target_mac=PEER_MAC
    )


@pytest.mark.parametrize("target", [0x0A000003, 0x0A000001, 0x7F000001, 0xFFFFFFFF])
def test_a_request_for_another_address_is_not(server, target):
    server.settle()
    arps(server)
    server.net.send_frame(arp(1, PEER_MAC, 0x0A000001, target))
    server.settle()
    assert arps(server) == []


def test_who_asks_is_known_without_asking_back(server):
    server.net.send_frame(arp(1, PEER_MAC, 0x0A000001, server.addr))
    server.settle()
    arps(server)
    peer = server.peer(port=80, to=None)
    server.connect()
    peer.expect("S 0:0(0)")


@pytest.mark.rfc("1122", "2.3.2.2")
def test_what_waits_for_an_address_is_sent_once_it_is_known(server):
    server.net.silent.add(0x0A000001)
    peer = server.peer(port=80, to=None)
    server.connect()
    (request,) = arps(server)
    check(request).to(b"\xff" * 6).arp(op=1, sender="10.0.0.2", target="10.0.0.1")
    peer.expect_nothing()
    reply = arp(2, PEER_MAC, 0x0A000001, server.addr, HOST_MAC)
    server.net.send_frame(HOST_MAC + reply[6:])
    peer.expect("S 0:0(0)")


@pytest.mark.linux("mcast_solicit, retrans_time_ms")
def test_three_requests_a_second_apart_then_it_fails(server):
    server.net.silent.add(0x0A000001)
    server.peer(port=80, to=None)
    server.connect()
    server.advance_us(10 * SECOND)
    times = [c.time_us for c in server.net.other if c.frame[12:14] == b"\x08\x06"]
    gaps = [(b - a) / SECOND for a, b in itertools.pairwise(times)]
    assert gaps[:2] == [1.0, 1.0]


@pytest.mark.parametrize("cut", [14, 20, 30, 41])
def test_a_cut_request_is_ignored(server, cut):
    server.settle()
    arps(server)
    server.net.send_frame(arp(1, PEER_MAC, 0x0A000001, server.addr)[:cut])
    server.settle()
    assert arps(server) == []


@pytest.mark.parametrize(
    ("offset", "value"), [(14, 0x000F), (16, 0x86DD), (18, 0x0804), (18, 0x0610)]
)
def test_other_hardware_and_protocols_are_ignored(server, offset, value):
    server.settle()
    arps(server)
    frame = bytearray(arp(1, PEER_MAC, 0x0A000001, server.addr))
    frame[offset : offset + 2] = value.to_bytes(2, "big")
    server.net.send_frame(bytes(frame))
    server.settle()
    assert arps(server) == []
