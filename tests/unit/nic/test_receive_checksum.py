"""What the device says about checksums: right, wrong, or nothing at all."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.board import Board, ethernet
from kit.checksum import checksum, pseudo_header
from ustack.native.lib import lib

TCPCS = lib.US_E1000_RXD_STAT_TCPCS
UDPCS = lib.US_E1000_RXD_STAT_UDPCS
IPCS = lib.US_E1000_RXD_STAT_IPCS
L4E = lib.US_E1000_RXDEXT_STATERR_L4E
IPE = lib.US_E1000_RXDEXT_STATERR_IPE
VERDICT = TCPCS | UDPCS | IPCS | L4E | IPE
SADDR, DADDR = 0x0A000001, 0x0A000002


def ipv4(transport: bytes, proto: int, *, options: bytes = b"", frag: int = 0) -> bytes:
    ihl = 5 + len(options) // 4
    total = ihl * 4 + len(transport)
    head = struct.pack(">BBHHHBBHII", 0x40 | ihl, 0, total, 7, frag, 64, proto, 0, SADDR, DADDR)
    head += options
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + transport


def tcp(payload: bytes, wrong: int = 0) -> bytes:
    head = struct.pack(">HHIIBBHHH", 1000, 80, 1, 2, 0x50, 0x10, 500, 0, 0)
    value = checksum(pseudo_header(SADDR, DADDR, 6, 20 + len(payload)) + head + payload) ^ wrong
    return head[:16] + struct.pack(">H", value) + head[18:] + payload


def udp(payload: bytes, *, with_checksum: bool = True) -> bytes:
    head = struct.pack(">HHHH", 1000, 53, 8 + len(payload), 0)
    value = 0
    if with_checksum:
        value = checksum(pseudo_header(SADDR, DADDR, 17, 8 + len(payload)) + head + payload)
    return head[:6] + struct.pack(">H", value or 0xFFFF * with_checksum) + payload


def verdict(packet: bytes, *, header: bytes = bytes(10), rxcsum: int | None = None) -> int:
    board = Board(count=64)
    board.regs.RLPML = 65549
    if rxcsum is not None:
        board.regs.RXCSUM = rxcsum
    board.arrive(ethernet(packet, ethertype=0x0800), header=header)
    last = (board.rxq.RDH - 1) % 64
    return board.status(last) & VERDICT


@pytest.mark.parametrize("size", [0, 1, 7, 1460, 2000, 2001, 8961, 60000])
def test_a_right_tcp_checksum_is_good_however_many_buffers_it_spans(size):
    payload = bytes(i * 7 % 256 for i in range(size))
    assert verdict(ipv4(tcp(payload), 6)) == TCPCS | IPCS


@pytest.mark.parametrize("size", [0, 1, 1460, 2001, 60000])
def test_a_wrong_tcp_checksum_is_an_error(size):
    assert verdict(ipv4(tcp(bytes(size), wrong=1), 6)) == TCPCS | IPCS | L4E


@given(payload=st.binary(max_size=300), position=st.integers(0), flip=st.integers(1, 255))
def test_no_single_changed_byte_goes_unseen(payload, position, flip):
    packet = bytearray(ipv4(tcp(payload), 6))
    packet[20 + position % (len(packet) - 20)] ^= flip
    assert verdict(bytes(packet)) == TCPCS | IPCS | L4E


def test_udp_with_and_without_a_checksum():
    assert verdict(ipv4(udp(b"abc"), 17)) == UDPCS | IPCS
    assert verdict(ipv4(udp(b"abc", with_checksum=False), 17)) == IPCS


def test_ip_options_and_padding_do_not_confuse_it():
    packet = ipv4(tcp(b"x"), 6, options=b"\x01" * 40)
    assert verdict(packet + b"\xaa" * 5) == TCPCS | IPCS


def test_a_wrong_ip_header_checksum_is_an_error():
    packet = bytearray(ipv4(tcp(b""), 6))
    packet[8] ^= 1
    assert verdict(bytes(packet)) == TCPCS | IPCS | IPE


@pytest.mark.parametrize("frag", [0x2000, 0x0001, 0x1FFF])
def test_fragments_get_no_verdict_about_the_transport(frag):
    assert verdict(ipv4(tcp(b"abc"), 6, frag=frag)) == IPCS


def test_do_not_fragment_is_no_fragment():
    assert verdict(ipv4(tcp(b"abc"), 6, frag=0x4000)) == TCPCS | IPCS


@pytest.mark.parametrize("cut", [1, 10, 19, 21, 40])
def test_a_truncated_packet_gets_no_verdict_about_the_transport(cut):
    assert not verdict(ipv4(tcp(b"abc"), 6)[:-cut]) & (TCPCS | L4E)


def test_other_protocols_and_ethertypes_get_none():
    assert verdict(ipv4(b"\x08\0\0\0", 1)) == IPCS
    board = Board()
    board.arrive(ethernet(ipv4(tcp(b""), 6), ethertype=0x86DD))
    assert board.status(0) & VERDICT == 0


def test_a_partial_checksum_from_the_wire_counts_as_verified():
    needs_csum = struct.pack("=BBHHHH", 1, 0, 0, 0, 34, 16)
    assert verdict(ipv4(tcp(b"abc", wrong=5), 6), header=needs_csum) == TCPCS | IPCS


def test_a_partial_checksum_of_something_else_does_not():
    needs_csum = struct.pack("=BBHHHH", 1, 0, 0, 0, 70, 16)
    assert verdict(ipv4(tcp(b"abc", wrong=5), 6), header=needs_csum) == TCPCS | IPCS | L4E


def test_the_wire_can_vouch_for_the_data():
    data_valid = struct.pack("=BBHHHH", 2, 0, 0, 0, 0, 0)
    assert verdict(ipv4(tcp(b"abc", wrong=5), 6), header=data_valid) == TCPCS | IPCS


def test_with_the_offload_off_it_says_nothing():
    assert verdict(ipv4(tcp(b"abc"), 6), rxcsum=0) == 0
    assert verdict(ipv4(tcp(b"abc"), 6), rxcsum=lib.US_E1000_RXCSUM_IPOFL) == IPCS


@pytest.mark.parametrize("gso_type", [1, 0x81])
def test_a_super_frame_brings_its_segment_size(gso_type):
    board = Board()
    board.regs.RLPML = 65549
    header = struct.pack("=BBHHHH", 1, gso_type, 54, 1448, 34, 16)
    board.arrive(ethernet(ipv4(tcp(bytes(5000)), 6), ethertype=0x0800), header=header)
    assert [board.write_back(i)[1] for i in range(3)] == [0, 0, 1448]


@given(frame=st.binary(min_size=14, max_size=200), header=st.binary(min_size=10, max_size=10))
def test_any_bytes_are_taken_without_harm(frame, header):
    board = Board(count=64)
    board.arrive(frame[:12] + b"\x08\x00" + frame[14:], header=header)
    assert board.regs.GPRC == 1
