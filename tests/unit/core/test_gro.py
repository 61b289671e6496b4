"""GRO: what is merged, what is not, and that nothing is lost or put out of order."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.netbed import OUR_MAC, OURS, PEER, PEER_MAC, Bed
from ustack.core.ethernet import eth_type_trans
from ustack.core.gro import napi_gro_receive
from ustack.core.gso import skb_gso_segment
from ustack.core.napi import Napi, napi_complete, napi_schedule
from ustack.core.netdevice import NETIF_F_GRO
from ustack.core.skb import CHECKSUM_NONE, CHECKSUM_UNNECESSARY, Skb
from ustack.core.softirq import do_softirq
from ustack.native.checksum import csum_partial, csum_tcpudp_magic, ip_fast_csum
from ustack.wire.tcp import ACK, FIN, PSH, RST, SYN, tstamp_option

URG, ECE, CWR = 0x20, 0x40, 0x80


@dataclass(frozen=True)
class Seg:
    """A segment to be received; the defaults are 1000 bytes in the middle of a stream."""

    seq: int = 1000
    length: int = 1000
    ident: int = 1
    flags: int = ACK
    ack: int = 500
    window: int = 4096
    options: bytes = b""
    sport: int = 4000
    tos: int = 0
    ttl: int = 64
    df: bool = True
    smac: bytes = PEER_MAC
    padding: int = 0
    break_ip_csum: bool = False
    break_tcp_csum: bool = False

    @property
    def payload(self) -> bytes:
        """Bytes that say where in the stream they belong."""
        return bytes((self.seq + i) % 251 for i in range(self.length))

    def frame(self) -> bytes:
        """The Ethernet frame, all checksums right unless told otherwise."""
        offset = 20 + len(self.options) << 2
        tcp = struct.pack(
            "!HHIIBBHHH", self.sport, 80, self.seq, self.ack, offset, self.flags, self.window, 0, 0
        )
        segment = bytearray(tcp + self.options + self.payload)
        csum = csum_tcpudp_magic(PEER, OURS, len(segment), 6, csum_partial(bytes(segment)))
        struct.pack_into("!H", segment, 16, csum ^ self.break_tcp_csum)
        ip = struct.pack(
            "!BBHHHBBHII", 0x45, self.tos, 20 + len(segment), self.ident, self.df << 14, self.ttl,
            6, 0, PEER, OURS,
        )  # fmt: skip
        csum = ip_fast_csum(ip) ^ self.break_ip_csum
        ip = ip[:10] + struct.pack("!H", csum) + ip[12:]
        return OUR_MAC + self.smac + b"\x08\x00" + ip + segment + bytes(self.padding)


class Line:
    """A device whose poll receives ``frames``, and the packets that TCP gets of them."""

    def __init__(self) -> None:
        self.bed = Bed()
        self.got: list[Skb] = []
        self.frames: list[bytes] = []
        self.ip_summed = CHECKSUM_UNNECESSARY
        self.napi = Napi(self.bed.net, self.bed.eth0, self.poll)
        self.bed.net.dev_remove_pack(0x0800, None)
        self.bed.net.dev_add_pack(0x0800, self.got.append)

    def poll(self, napi: Napi, budget: int) -> int:
        batch, self.frames = self.frames[:budget], self.frames[budget:]
        for frame in batch:
            buffer = bytearray(frame)
            skb = Skb(memoryview(buffer), self.bed.eth0)
            skb.ip_summed = self.ip_summed
            eth_type_trans(skb)
            napi_gro_receive(napi, skb)
            if not any(skb is up for up in self.got):
                buffer[:] = bytes(len(buffer))  # held or merged: the device has its buffer again
        if len(batch) < budget:
            napi_complete(napi)
        return len(batch)

    def receive(self, *segs: Seg) -> list[int]:
        """Receive in one poll; return the number of segments in each packet that goes up."""
        self.frames += [seg.frame() for seg in segs]
        napi_schedule(self.napi)
        do_softirq(self.bed.net)
        assert not self.napi.gro_list
        return [skb.gso_segs for skb in self.got]


def row(count: int, **fields: Any) -> list[Seg]:
    """Consecutive segments."""
    first = Seg(**fields)
    return [
        replace(first, seq=first.seq + i * first.length, ident=first.ident + i & 0xFFFF)
        for i in range(count)
    ]


def payload(skb: Skb) -> bytes:
    data = bytes(skb.data)
    return data[34 + (data[46] >> 4) * 4 :]


def test_consecutive_segments_become_one_packet_at_the_end_of_the_poll():
    line = Line()
    assert line.receive(*row(10)) == [10]
    (skb,) = line.got
    assert (skb.gso_size, skb.ip_summed) == (1000, CHECKSUM_UNNECESSARY)
    assert payload(skb) == Seg(length=10_000).payload
    data = bytes(skb.data)
    assert struct.unpack_from("!H", data, 16) == (20 + 20 + 10_000,)
    assert ip_fast_csum(data[14:34]) == 0


def test_a_segment_alone_goes_up_as_it_came():
    line = Line()
    assert line.receive(Seg()) == [1]
    assert bytes(line.got[0].data) == Seg().frame()
    assert line.got[0].gso_size == 0


def test_psh_ends_a_packet_and_is_kept():
    line = Line()
    segs = row(6)
    segs[2] = replace(segs[2], flags=ACK | PSH)
    assert line.receive(*segs) == [3, 3]
    assert line.got[0].data[47] == ACK | PSH
    assert line.got[1].data[47] == ACK


def test_fin_and_a_short_segment_end_a_packet():
    line = Line()
    segs = row(3)
    segs[2] = replace(segs[2], length=10)
    last = Seg(seq=segs[2].seq + 10, length=10, flags=ACK | FIN, ident=9)
    assert line.receive(*segs, last) == [3, 1]
    assert line.got[1].data[47] == ACK | FIN


def test_timestamps_that_are_equal_merge_and_others_do_not():
    line = Line()
    segs = row(4, options=tstamp_option(100, 7))
    segs[2:] = [replace(seg, options=tstamp_option(101, 7)) for seg in segs[2:]]
    assert line.receive(*segs) == [2, 2]


@pytest.mark.parametrize(
    "change",
    [
        {"ack": 501}, {"window": 4097}, {"tos": 4}, {"ttl": 63}, {"smac": OUR_MAC},
        {"flags": ACK | ECE}, {"flags": ACK | CWR}, {"seq": 2001}, {"seq": 1000}, {"length": 1001},
        {"df": False}, {"ident": 7}, {"padding": 3},
    ],
)  # fmt: skip
def test_a_difference_that_cutting_could_not_restore_is_not_merged(change: dict[str, Any]):
    line = Line()
    first, second = row(2)
    assert line.receive(first, replace(second, **change)) == [1, 1]
    assert [payload(skb)[: second.length] for skb in line.got] == [
        first.payload, replace(second, **change).payload[: second.length],
    ]  # fmt: skip


def test_an_identification_that_does_not_count_is_merged_only_with_df():
    same = [replace(seg, ident=5) for seg in row(4)]
    assert Line().receive(*same) == [4]
    assert Line().receive(*[replace(seg, df=False) for seg in same]) == [1, 1, 1, 1]
    assert Line().receive(*row(4, df=False, ident=0xFFFE)) == [4]
    turned = row(4)
    turned[3] = replace(turned[3], ident=turned[2].ident)
    assert Line().receive(*turned) == [3, 1]


@pytest.mark.parametrize("flags", [ACK | SYN, ACK | RST, ACK | URG, ACK | FIN, ACK | PSH, 0])
def test_what_is_urgent_goes_up_at_once_behind_its_flow(flags: int):
    line = Line()
    first, second, third = row(3)
    other = Seg(sport=5000)
    assert line.receive(first, second, other, replace(third, flags=flags, ack=9)) == [2, 1, 1]
    assert [struct.unpack_from("!H", skb.data, 34)[0] for skb in line.got] == [4000, 4000, 5000]


def test_a_pure_acknowledgment_is_not_held():
    line = Line()
    first, second = row(2)
    assert line.receive(first, Seg(seq=2000, length=0), second, Seg(sport=9, length=0)) == [1] * 4
    assert [len(payload(skb)) for skb in line.got] == [1000, 0, 0, 1000]


def test_no_packet_is_larger_than_its_length_field():
    line = Line()
    assert line.receive(*row(50, length=1448)) == [45, 5]
    assert len(line.got[0].data) - 14 == 40 + 45 * 1448 <= 65535


def test_eight_flows_are_held_and_a_ninth_sends_the_oldest_up():
    line = Line()
    flows = [row(2, sport=4000 + i) for i in range(9)]
    segs = [flow[0] for flow in flows] + [flow[1] for flow in flows]
    assert line.receive(*segs[:8], *segs[9:17]) == [2] * 8
    line = Line()
    # Each flow comes too late: its first segment has just been sent up for another.
    assert line.receive(*segs) == [1] * 18


def test_a_checksum_that_the_device_left_open_is_verified():
    line = Line()
    line.ip_summed = CHECKSUM_NONE
    segs = row(4)
    segs[2] = replace(segs[2], break_tcp_csum=True)
    assert line.receive(*segs) == [2, 1, 1]
    assert [skb.ip_summed for skb in line.got] == [
        CHECKSUM_UNNECESSARY, CHECKSUM_NONE, CHECKSUM_UNNECESSARY,
    ]  # fmt: skip


@pytest.mark.parametrize("broken", [0, 2])
def test_a_header_whose_checksum_is_wrong_is_left_to_ip(broken: int):
    line = Line()
    segs = row(4)
    segs[broken] = replace(segs[broken], break_ip_csum=True)
    line.receive(*segs)
    wrong = [skb for skb in line.got if ip_fast_csum(bytes(skb.data[14:34]))]
    assert [skb.gso_segs for skb in wrong] == [1]
    assert sum(skb.gso_segs for skb in line.got) == 4


def test_a_super_frame_passes_and_keeps_its_place():
    line = Line()
    first, second = row(2)
    big = Skb(second.frame(), line.bed.eth0)
    big.gso_size, big.gso_segs = 500, 2
    eth_type_trans(big)
    held = Skb(first.frame(), line.bed.eth0)
    held.ip_summed = CHECKSUM_UNNECESSARY
    eth_type_trans(held)
    napi_gro_receive(line.napi, held)
    assert line.got == []
    napi_gro_receive(line.napi, big)
    assert line.got == [held, big]


def test_switched_off_every_frame_goes_up_alone():
    line = Line()
    line.bed.eth0.features &= ~NETIF_F_GRO
    assert line.receive(*row(5)) == [1] * 5


def test_other_protocols_pass():
    line = Line()
    line.frames.append(Seg().frame()[:23] + b"\x11" + Seg().frame()[24:])  # UDP, header sum off
    line.frames.append(Seg().frame()[:30])
    assert line.receive(Seg(), replace(Seg(), ident=2)) == [1] * 4


steps = st.lists(
    st.tuples(
        st.integers(0, 2),  # flow
        st.sampled_from(["next", "next", "next", "again", "skip"]),
        st.sampled_from([0, 1, 700, 1000, 1000, 1000]),
        st.sampled_from([ACK, ACK, ACK, ACK | PSH, ACK | FIN, ACK | CWR]),
    ),
    max_size=60,
)


@given(steps, st.randoms(use_true_random=False))
def test_cut_again_it_is_what_came_flow_by_flow(steps: list[Any], rng: random.Random):
    """GSO undoes GRO: the same frames in the same order within each flow."""
    line = Line()
    seqs, idents = [1000] * 3, [rng.randrange(65536) for _ in range(3)]
    segs = []
    for flow, where, length, flags in steps:
        if where == "skip":
            seqs[flow] += 5
        at = seqs[flow] - (length if where == "again" else 0)
        segs.append(Seg(seq=at, length=length, ident=idents[flow], flags=flags, sport=4000 + flow))
        seqs[flow] = at + length
        idents[flow] = idents[flow] + 1 & 0xFFFF
    line.receive(*segs)
    back: list[bytes] = []
    for skb in line.got:
        if skb.gso_segs == 1:
            back.append(bytes(skb.data))
            continue
        skb.transport_offset = 34
        back += [completed(piece) for piece in skb_gso_segment(line.bed.net, skb)]
    for flow in range(3):
        port = struct.pack("!H", 4000 + flow)
        want = [seg.frame() for seg in segs if seg.sport == 4000 + flow]
        assert [frame for frame in back if frame[34:36] == port] == want


def completed(skb: Skb) -> bytes:
    """A segment with the checksum that CHECKSUM_PARTIAL leaves to the device."""
    frame = bytearray(skb.data)
    struct.pack_into("!H", frame, 50, 0)
    csum = csum_tcpudp_magic(PEER, OURS, len(frame) - 34, 6, csum_partial(bytes(frame[34:])))
    struct.pack_into("!H", frame, 50, csum)
    return bytes(frame)
