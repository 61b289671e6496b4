"""Receive side scaling: the device's hash, its indirection table, and the ring a frame lands in."""

from __future__ import annotations

import random
import struct
from ipaddress import IPv4Address

import pytest

from kit.board import Board, ethernet
from ustack.native.lib import lib
from ustack.nic.igb import toeplitz

KEY = bytes.fromhex(
    "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa"
)
"""The key of Microsoft's verification suite."""
VECTORS = [
    ("161.142.100.80", 1766, "66.9.149.187", 2794, 0x323E8FC2, 0x51CCC178),
    ("65.69.140.83", 4739, "199.92.111.2", 14230, 0xD718262A, 0xC626B0EA),
    ("12.22.207.184", 38024, "24.19.198.95", 12898, 0xD2D0A5DE, 0x5C2B394A),
    ("209.142.163.6", 2217, "38.27.205.30", 48228, 0x82989176, 0xAFC7327F),
    ("202.188.127.2", 1303, "153.39.163.191", 44251, 0x5D1809C5, 0x10E828A2),
]
"""Destination, source, hash of the addresses, hash with the ports (the published table)."""
FIELDS = (
    lib.US_E1000_MRQC_ENABLE_RSS
    | lib.US_E1000_MRQC_RSS_FIELD_IPV4
    | lib.US_E1000_MRQC_RSS_FIELD_IPV4_TCP
)


def reference(key: bytes, data: bytes) -> int:
    """Return the hash as its definition says it: a sum of 32-bit pieces of the key."""
    bits = int.from_bytes(key, "big")
    width, result = len(key) * 8, 0
    for at in range(len(data) * 8):
        if data[at // 8] & 0x80 >> at % 8:
            result ^= bits >> (width - 32 - at) & 0xFFFFFFFF
    return result


def packet(
    source: str, sport: int, dest: str, dport: int, *, proto: int = 6, frag: int = 0, ihl: int = 5
) -> bytes:
    head = struct.pack(
        ">BBHHHBBH4s4s", 0x40 + ihl, 0, ihl * 4 + 20, 0, frag, 64, proto, 0,
        IPv4Address(source).packed, IPv4Address(dest).packed,
    )  # fmt: skip
    body = struct.pack(">HHIIBBHHH", sport, dport, 0, 0, 0x50, 0x10, 0, 0, 0)
    return ethernet(head + bytes((ihl - 5) * 4) + body, ethertype=0x0800)


@pytest.mark.parametrize(("dest", "dport", "source", "sport", "ip_only", "with_ports"), VECTORS)
def test_the_hash_is_microsofts(dest, dport, source, sport, ip_only, with_ports):
    addresses = IPv4Address(source).packed + IPv4Address(dest).packed
    assert toeplitz(KEY, addresses) == ip_only
    assert toeplitz(KEY, addresses + struct.pack(">HH", sport, dport)) == with_ports


def test_the_hash_agrees_with_its_definition_for_any_key():
    rng = random.Random(1)
    for _ in range(200):
        key, data = rng.randbytes(40), rng.randbytes(rng.randrange(37))
        assert toeplitz(key, data) == reference(key, data)


def test_no_byte_beyond_the_key_is_read():
    assert toeplitz(bytes(40), b"\xff" * 1000) == 0


class RssBoard(Board):
    """Four receive queues of 64 descriptors."""

    def __init__(self, *, pause: bool = True) -> None:
        super().__init__(count=64, pause=pause)
        for q in range(1, 4):
            ring = self.mem.alloc_pages(0)
            rxq = self.regs.rxq + q
            rxq.RDBAL, rxq.RDLEN, rxq.SRRCTL = ring, 64 * 16, 2048
            for i in range(64):
                struct.pack_into("<QQ", self.mem.view, ring + 16 * i, self.mem.alloc_pages(0), 0)
            rxq.RDT = 63
            rxq.RXDCTL = lib.US_E1000_RXDCTL_QUEUE_ENABLE
            self.regs.IVAR[q] = q
            self.nic.request_irq(q, self.delivered.append)
        self.regs.RSSRK = KEY
        self.regs.RETA = bytes(i % 4 for i in range(128))
        self.regs.MRQC = FIELDS
        self.regs.EIAC = self.regs.EIAM = 15
        self.nic.write_eims(15)

    def write_back_of(self, queue: int, i: int) -> tuple[int, int]:
        """Return pkt_info and hash of a descriptor."""
        rxq = self.regs.rxq[queue]
        info, _, rss = struct.unpack_from("<HHI", self.mem.view, rxq.RDBAL + 16 * i)
        return info, rss

    def heads(self) -> list[int]:
        return [self.regs.rxq[q].RDH for q in range(4)]


@pytest.mark.parametrize(("dest", "dport", "source", "sport", "ip_only", "with_ports"), VECTORS)
def test_hash_and_type_stand_in_the_descriptor_of_the_ring_that_the_table_names(
    dest, dport, source, sport, ip_only, with_ports
):
    board = RssBoard()
    board.arrive(packet(source, sport, dest, dport), packet(source, sport, dest, dport, proto=17))
    tcp_queue, ip_queue = with_ports % 128 % 4, ip_only % 128 % 4
    info, rss = board.write_back_of(tcp_queue, 0)
    assert (rss, info & 15) == (with_ports, lib.US_E1000_RXDADV_RSSTYPE_IPV4_TCP)
    info, rss = board.write_back_of(ip_queue, int(ip_queue == tcp_queue))
    assert (rss, info & 15) == (ip_only, lib.US_E1000_RXDADV_RSSTYPE_IPV4)
    assert sorted(board.delivered) == sorted({tcp_queue, ip_queue})


@pytest.mark.parametrize(
    "shape", [{"frag": 0x2000}, {"frag": 1}, {"proto": 1}], ids=["first", "later", "icmp"]
)
def test_what_has_no_ports_is_hashed_over_its_addresses(shape):
    dest, dport, source, sport, ip_only, _ = VECTORS[0]
    board = RssBoard()
    board.arrive(packet(source, sport, dest, dport, **shape))
    assert board.write_back_of(ip_only % 4, 0)[1] == ip_only


def test_ports_are_found_behind_ip_options():
    dest, dport, source, sport, _, with_ports = VECTORS[0]
    board = RssBoard()
    board.arrive(packet(source, sport, dest, dport, ihl=8))
    assert board.write_back_of(with_ports % 4, 0)[1] == with_ports


def test_what_is_not_ipv4_goes_to_queue_0():
    board = RssBoard()
    board.arrive(ethernet(bytes(60), ethertype=0x0806), ethernet(b"\x45"))
    assert board.heads() == [2, 0, 0, 0]
    assert board.write_back_of(0, 0) == (0, 0)


def test_a_table_entry_of_a_queue_that_is_off_means_queue_0():
    board = RssBoard()
    board.regs.RETA = bytes([7]) * 128
    board.arrive(packet("10.0.0.1", 1, "10.0.0.2", 2))
    assert board.heads() == [1, 0, 0, 0]


def test_without_pause_only_the_full_ring_drops():
    board = RssBoard(pause=False)
    board.regs.RETA = bytes([0] * 64 + [1] * 64)
    hot = next(p for p in range(9999) if board_queue(p, 64) == 1)
    cold = next(p for p in range(9999) if board_queue(p, 64) == 0)
    board.arrive(*[packet("10.0.0.1", hot, "10.0.0.2", 80)] * 100)
    board.arrive(*[packet("10.0.0.1", cold, "10.0.0.2", 80)] * 10)
    assert board.heads() == [10, 63, 0, 0]
    assert (board.regs.rxq[0].RQDPC, board.regs.rxq[1].RQDPC, board.regs.MPC) == (0, 37, 37)


def board_queue(sport: int, half: int) -> int:
    data = IPv4Address("10.0.0.1").packed + IPv4Address("10.0.0.2").packed
    return int(toeplitz(KEY, data + struct.pack(">HH", sport, 80)) % 128 >= half)


def test_with_pause_a_frame_for_a_full_ring_waits_and_so_do_those_behind_it():
    board = RssBoard()
    board.regs.RETA = bytes([0] * 64 + [1] * 64)
    hot = next(p for p in range(9999) if board_queue(p, 64) == 1)
    cold = next(p for p in range(9999) if board_queue(p, 64) == 0)
    board.arrive(*[packet("10.0.0.1", hot, "10.0.0.2", 80)] * 64)
    board.arrive(*[packet("10.0.0.1", cold, "10.0.0.2", 80)] * 3)
    assert board.heads() == [0, 63, 0, 0]
    assert (board.nic.wire.pending, board.regs.MPC) == (3, 0)
    board.regs.rxq[1].RDT = 20  # the driver gives descriptors back
    board.nic.dma_rx()
    assert board.heads() == [3, 0, 0, 0]


def test_a_descriptor_wire_finds_the_same_rings():
    """The frame is read into the likely ring's buffers and moved if the hash disagrees."""
    import socket

    from ustack.nic.wire import Wire

    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far:
        near.setblocking(False)
        board = RssBoard()
        lib.us_nic_attach(board.nic._nic, near.fileno(), 10)
        board.nic._is_dma = True
        frames = [packet("10.0.0.1", port, "10.0.0.2", 80) for port in range(40)]
        frames[7] = frames[7] + bytes(1400)
        for frame in frames:
            far.send(bytes(10) + frame)
        assert board.nic.dma_rx() == 40
        other = RssBoard()
        other.arrive(*frames)
        assert board.heads() == other.heads()
        for q in range(4):
            for i in range(board.regs.rxq[q].RDH):
                assert board.write_back_of(q, i) == other.write_back_of(q, i)
        assert isinstance(board.nic.wire, Wire)
