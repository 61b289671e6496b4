"""The C of the NIC and of its driver against plain Python that says what they must do.

The records that Python reads and writes by ``struct`` are compared with the compiler's too.
"""

from __future__ import annotations

import errno
import random
import struct

from hypothesis import given
from hypothesis import strategies as st

from kit.board import BUFFER, MAC, RX_WB, TX_READ, Board, ethernet
from kit.checksum import ones_complement_sum, pseudo_header
from ustack.config import NicConfig, StackConfig
from ustack.core.net import Net
from ustack.driver import igb_rx, igb_tx
from ustack.driver.igb import IgbAdapter
from ustack.lib.clock import StackClock
from ustack.native.lib import ffi, lib
from ustack.native.mem import Mem
from ustack.nic.pair import wire_pair

DD, EOP = lib.US_E1000_RXD_STAT_DD, lib.US_E1000_RXD_STAT_EOP
L4E, IPE = lib.US_E1000_RXDEXT_STATERR_L4E, lib.US_E1000_RXDEXT_STATERR_IPE
TCPCS, UDPCS, IPCS = (
    lib.US_E1000_RXD_STAT_TCPCS,
    lib.US_E1000_RXD_STAT_UDPCS,
    lib.US_E1000_RXD_STAT_IPCS,
)


def offsets(name: str) -> list[tuple[str, int, int]]:
    """Return (field, offset, size) of a C struct."""
    fields = ffi.typeof(name).fields
    return [(field, at.offset, ffi.sizeof(at.type)) for field, at in fields]


def test_the_records_are_laid_out_as_python_reads_them():
    assert igb_rx._FRAME.size == ffi.sizeof("struct us_igb_rx_frame")
    assert [at for _, at, _ in offsets("struct us_igb_rx_frame")] == [0, 8, 12, 14, 16, 20, 24]
    assert igb_tx._FRAG.size == ffi.sizeof("struct us_frag")
    assert [at for _, at, _ in offsets("struct us_frag")] == [0, 8]


def test_the_descriptors_are_intels():
    assert RX_WB.size == TX_READ.size == ffi.sizeof("union us_adv_rx_desc") == 16
    assert [at for _, at, _ in offsets("struct us_adv_rx_wb")] == [0, 2, 4, 8, 12, 14]
    assert [at for _, at, _ in offsets("struct us_adv_tx_read")] == [0, 8, 12]
    assert [at for _, at, _ in offsets("struct us_adv_tx_ctxt")] == [0, 4, 8, 12]


# What the device says about a received frame.


def is_right(data: bytes) -> bool:
    return ones_complement_sum(data) == 0xFFFF


def rx_status(frame: bytes, flags: int, csum_start: int) -> int:
    """Return the status bits that a frame deserves: the oracle of us_nic_rx_status."""
    ip = frame[14:]
    if len(ip) < 20 or frame[12:14] != b"\x08\x00" or ip[0] >> 4 != 4:
        return 0
    ihl = (ip[0] & 15) * 4
    if ihl < 20 or ihl > len(ip):
        return 0
    status = IPCS if is_right(ip[:ihl]) else IPCS | IPE
    total, fragment, proto = int.from_bytes(ip[2:4], "big"), ip[6:8], ip[9]
    if total > len(ip) or int.from_bytes(fragment, "big") & 0x3FFF:
        return status
    segment = ip[ihl:total]
    if (proto, True) not in ((6, len(segment) >= 20), (17, len(segment) >= 8)):
        return status
    good = TCPCS if proto == 6 else UDPCS
    if flags & 2 or (flags & 1 and csum_start == 14 + ihl):
        return status | good
    if proto == 17 and segment[6:8] == b"\0\0":
        return status
    saddr, daddr = struct.unpack(">II", ip[12:20])
    if is_right(pseudo_header(saddr, daddr, proto, len(segment)) + segment):
        return status | good
    return status | good | L4E


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """Frames that are IPv4 with TCP or UDP, more or less."""
    options = draw(st.sampled_from([0, 0, 0, 1, 10]))
    proto = draw(st.sampled_from([6, 6, 17, 17, 1]))
    body = bytearray(draw(st.binary(min_size=0, max_size=4200)))
    total = 20 + 4 * options + len(body) + draw(st.sampled_from([0, 0, 0, 1, -1, -30, 3000]))
    frag = draw(st.sampled_from([0, 0x4000, 0x4000, 0x2000, 1]))
    ihl = draw(st.sampled_from([5 + options, 5 + options, 5 + options, 4, 15]))
    head = struct.pack(">BBHHHBBHII", 0x40 | ihl, 0, max(total, 0), 1, frag, 9, proto, 0, 7, 8)
    head += bytes(4 * options)
    if draw(st.booleans()):
        head = head[:10] + (ones_complement_sum(head) ^ 0xFFFF).to_bytes(2, "big") + head[12:]
    at = 16 if proto == 6 else 6
    if draw(st.booleans()) and len(body) >= at + 2:
        body[at : at + 2] = bytes(2)
        value = ones_complement_sum(pseudo_header(7, 8, proto, len(body)) + body) ^ 0xFFFF
        body[at : at + 2] = value.to_bytes(2, "big")
    tail = draw(st.binary(max_size=5))
    return ethernet(head + body + tail, ethertype=draw(st.sampled_from([0x800, 0x800, 0x806])))


@given(frame=frames(), flags=st.sampled_from([0, 0, 0, 1, 2, 3]), start=st.sampled_from([34, 38]))
def test_the_verdict_about_a_frame(frame: bytes, flags: int, start: int):
    board = Board(count=64)
    board.regs.RLPML = 65549
    board.arrive(frame, header=struct.pack("=BBHHHH", flags, 0, 0, 0, start, 16))
    spans = -(-len(frame) // BUFFER)
    head = board.rxq.RDH
    assert head == spans
    assert [board.status(i) for i in range(spans - 1)] == [DD] * (spans - 1)
    assert board.status(spans - 1) == DD | EOP | rx_status(frame, flags, start)
    assert b"".join(board.buffer(i) for i in range(spans)) == frame


# What the driver makes of a packet.


def tx_unit(linear: bytes, frags: list[bytes], start: int, offset: int, gso: int) -> bytes | int:
    """Return what must appear on the wire, or the errno: the oracle of us_igb_xmit_frame."""
    total = len(linear) + sum(map(len, frags))
    if len(frags) > 17 or len(linear) > 65549:
        return -errno.EMSGSIZE
    if len(linear) < 14 or not all(frags) or (gso and not start):
        return -errno.EINVAL
    if total > 65549:
        return -errno.EMSGSIZE
    flags = hdr_len = 0
    if start:
        if offset not in (16, 6) or not 34 <= start <= 74 or start + offset + 2 > len(linear):
            return -errno.EINVAL
        flags = 1
    if gso:
        doff = (linear[start + 12] >> 4) * 4
        hdr_len = start + doff
        if offset != 16 or gso > 65535 or doff < 20 or hdr_len > len(linear):
            return -errno.EINVAL
    else:
        offset = offset if start else 0
    header = struct.pack("=BBHHHH", flags, gso > 0, hdr_len, gso, start, offset)
    return header + linear + b"".join(frags)


class Sender:
    """An adapter on a pair of wires, and its C calls."""

    def __init__(self) -> None:
        self.mem = Mem(8 << 20)
        near, self.far = wire_pair()
        net = Net(StackClock(), random.Random(1), StackConfig(), self.mem)
        config = NicConfig(rx_ring=64, tx_ring=64, large_receive=False)
        self.dev = IgbAdapter(net, "eth0", near, MAC, config)
        self.dev.ndo_open()

    def frag(self, i: int, payload: bytes) -> None:
        addr = self.mem.alloc_pages(4)
        self.mem.view[addr : addr + len(payload)] = payload
        if i < 17:
            self.dev.tx.ring.frags[i] = (addr, len(payload))

    def xmit(self, linear: bytes, frags: list[bytes], *offload: int) -> bytes | int:
        for i, payload in enumerate(frags):
            self.frag(i, payload)
        tail = lib.us_igb_xmit_frame(self.dev.tx.ring, linear, len(linear), len(frags), *offload, 0)
        if tail < 0:
            return tail
        self.dev.nic.write_tdt(0, tail)
        return self.far.recv_frame() or b""


SENDER = st.builds(bytes, st.integers(0, 6000) | st.sampled_from([65520, 65549, 65550]))


@given(
    linear=st.binary(max_size=200) | SENDER,
    frags=st.lists(st.binary(max_size=30) | st.builds(bytes, st.integers(0, 65536)), max_size=18),
    start=st.sampled_from([0, 0, 34, 34, 33, 74, 75]),
    offset=st.sampled_from([16, 16, 6, 7]),
    gso=st.sampled_from([0, 0, 1448, 65535, 65536]),
    doff=st.sampled_from([0x50, 0x80, 0xF0, 0x40]),
)
def test_a_packet_is_sent_as_it_is_or_refused(
    linear: bytes, frags: list[bytes], start: int, offset: int, gso: int, doff: int
):
    if start and len(linear) > start + 12:
        linear = linear[: start + 12] + bytes([doff]) + linear[start + 13 :]
    got = Sender().xmit(linear, frags, start, offset, gso)
    assert got == tx_unit(linear, frags, start, offset, gso)


# What the driver makes of a super-frame.


def gso_segs(frame: bytes, gso: int) -> int:
    """Return the segments that a super-frame stands for, 1 if its headers make no sense."""
    if not gso or len(frame) < 54:
        return 1
    tcp = 14 + (frame[14] & 15) * 4
    if tcp + 20 > len(frame):
        return 1
    payload = len(frame) - tcp - (frame[tcp + 12] >> 4) * 4
    return max(1, -(-payload // gso))


@given(
    frame=st.binary(min_size=14, max_size=3000),
    ihl=st.sampled_from([0x45, 0x46, 0x4F]),
    doff=st.sampled_from([0x50, 0x80, 0xF0]),
    gso=st.integers(0, 3000),
)
def test_the_segments_of_a_super_frame(frame: bytes, ihl: int, doff: int, gso: int):
    sender = Sender()
    spoilt = bytearray(frame + bytes(40))
    spoilt[14] = ihl
    spoilt[14 + (ihl & 15) * 4 + 12 : 15 + (ihl & 15) * 4 + 12] = bytes([doff])
    frame = bytes(spoilt[:1518])
    sender.far.send_frame(struct.pack("=BBHHHH", 0, 1, 0, gso, 0, 0) + frame)
    sender.dev.poll_hw()
    ring = sender.dev.rx.ring
    assert lib.us_igb_clean_rx_irq(ring, 64) == 1
    got = ring.frames[0]
    assert bytes(sender.mem.view[got.addr : got.addr + got.len]) == frame
    assert (got.gso_size, got.gso_segs) == (gso, gso_segs(frame, gso))
