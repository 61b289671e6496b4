"""Captures read with dpkt, and what must hold of every TCP conversation in them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import dpkt

from kit.checksum import ones_complement_sum, pseudo_header
from kit.segment import ACK, FIN, RST, SYN, Segment, describe, format_segment, parse_ip
from ustack.lib.seqnum import after, seq_add, seq_diff

Flow = tuple[int, int, int, int]


def frames(path: Path) -> list[tuple[int, bytes]]:
    """Return (time in microseconds, frame) of a pcap file."""
    with path.open("rb") as file:
        return [(int(ts * 1_000_000), bytes(buf)) for ts, buf in dpkt.pcap.UniversalReader(file)]


def ip_packets(path: Path) -> list[tuple[int, bytes]]:
    """Return (time, IPv4 packet) of a pcap file."""
    return [(t, f[14:]) for t, f in frames(path) if f[12:14] == b"\x08\x00"]


def tcp_segments(path: Path) -> list[Segment]:
    """Return the TCP segments of a pcap file in order."""
    return [parse_ip(p, t) for t, p in ip_packets(path) if p[9] == 6]


def flow_of(seg: Segment) -> Flow:
    """Return the four-tuple of a segment, in its direction."""
    return (seg.saddr, seg.sport, seg.daddr, seg.dport)


def reverse(flow: Flow) -> Flow:
    """Return the same connection in the other direction."""
    return (flow[2], flow[3], flow[0], flow[1])


@dataclass
class _Sender:
    """What one direction of a connection has been told it may send."""

    isn: int | None = None
    own_shift: int | None = None
    right_edge: int | None = None
    acked: int | None = None


def outside_window(segments: Iterable[Segment]) -> list[str]:
    """Return the data segments that reach past the window their receiver had offered.

    A probe of a closed window (one byte at its edge, RFC 9293 §3.8.6.1) is not one. Only
    connections whose SYN is in the capture are judged.
    """
    ends: defaultdict[Flow, _Sender] = defaultdict(_Sender)
    wrong: list[str] = []
    for seg in segments:
        me, peer = ends[flow_of(seg)], ends[reverse(flow_of(seg))]
        if seg.flags & SYN:
            _note_syn(me, seg)
        elif peer.isn is not None and me.isn is not None:
            over = _bytes_over(me, seg)
            if over > 1 or (over == 1 and len(seg.payload) > 1):
                line = format_segment(seg, me.isn, peer.isn)
                wrong.append(f"{describe(seg)} {line}: {over} past the window")
        if seg.flags & ACK and not seg.flags & RST:
            _note_window(me, peer, seg)
    return wrong


def _note_syn(me: _Sender, seg: Segment) -> None:
    scale = seg.option("wscale")
    me.isn = seg.seq
    me.own_shift = None if scale is None else min(scale[0] or 0, 14)


def _note_window(me: _Sender, peer: _Sender, seg: Segment) -> None:
    """Move the edge up to which ``peer`` may send."""
    scaled = me.own_shift is not None and peer.own_shift is not None and not seg.flags & SYN
    edge = seq_add(seg.ack, seg.window << ((me.own_shift or 0) if scaled else 0))
    if peer.right_edge is None or after(edge, peer.right_edge):
        peer.right_edge = edge
    if peer.acked is None or after(seg.ack, peer.acked):
        peer.acked = seg.ack


def _bytes_over(me: _Sender, seg: Segment) -> int:
    if me.right_edge is None or not seg.payload:
        return 0
    return seq_diff(seq_add(seg.seq, len(seg.payload)), me.right_edge)


def resets(segments: Iterable[Segment]) -> list[str]:
    """Return every RST, as text."""
    return [f"{describe(s)} {format_segment(s)}" for s in segments if s.flags & RST]


def wrong_checksums(segments: Iterable[Segment]) -> list[str]:
    """Return the segments whose IP or TCP checksum is wrong."""
    return [f"{describe(s)} {format_segment(s)}" for s in segments if not s.checksum_ok]


def stream(segments: Iterable[Segment], flow: Flow) -> bytes:
    """Put one direction's payload together; the SYN must be in the capture."""
    mine = [s for s in segments if flow_of(s) == flow]
    start = next(seq_add(s.seq, 1) for s in mine if s.flags & SYN)
    pieces = {seq_diff(s.seq, start): s.payload for s in mine if s.payload}
    data = bytearray()
    for at in sorted(pieces):
        if at <= len(data):
            data[at : at + len(pieces[at])] = pieces[at]
    return bytes(data)


def handshake(segments: Iterable[Segment], port: int) -> list[Segment]:
    """Return the first SYN to ``port``, its SYN-ACK and the ACK that follows."""
    found: list[Segment] = []
    wanted = [(SYN, SYN | ACK), (SYN | ACK, SYN | ACK), (ACK, SYN | ACK)]
    for seg in segments:
        flags, mask = wanted[len(found)]
        if port not in (seg.sport, seg.dport) or seg.flags & mask != flags:
            continue
        found.append(seg)
        if len(found) == 3:
            return found
    raise AssertionError(f"no complete handshake with port {port} in the capture")


def fins(segments: Iterable[Segment], flow: Flow) -> int:
    """Count the FINs of one direction; one that was sent again is still one."""
    return len({s.seq + len(s.payload) for s in segments if flow_of(s) == flow and s.flags & FIN})


VNET_NEEDS_CSUM, VNET_DATA_VALID = 1, 2
GSO_TCPV4, GSO_ECN = 1, 0x80


def wrong_vnet_hdr(unit: bytes, mtu: int = 1500) -> str | None:
    """Hold a struct virtio_net_hdr against the TCP frame behind it.

    Returns:
        What is wrong, or None: a partial sum must be the pseudo-header's and be announced with
        the right offsets, a complete one must be right, and a frame above the MTU must say how
        it is to be cut.
    """
    flags, gso_type = unit[0], unit[1] & ~GSO_ECN
    hdr_len, gso_size, start, offset = (
        int.from_bytes(unit[i : i + 2], "little") for i in (2, 4, 6, 8)
    )
    packet = unit[24:]
    ihl = (packet[0] & 15) * 4
    total = int.from_bytes(packet[2:4], "big")
    tcp = packet[ihl:total]
    header = 14 + ihl + (tcp[12] >> 4) * 4
    pseudo = pseudo_header(
        *(int.from_bytes(packet[i : i + 4], "big") for i in (12, 16)), 6, len(tcp)
    )
    if flags & VNET_NEEDS_CSUM:
        if (start, offset) != (14 + ihl, 16):
            return f"csum_start {start} csum_offset {offset}"
        if int.from_bytes(tcp[16:18], "big") != ones_complement_sum(pseudo):
            return "the partial sum is not the pseudo-header's"
    elif not flags & VNET_DATA_VALID and ones_complement_sum(pseudo + tcp) != 0xFFFF:
        return "neither a right checksum nor NEEDS_CSUM"
    if total > mtu:
        if gso_type != GSO_TCPV4:
            return f"{total} bytes with gso_type {gso_type}"
        if not 0 < gso_size <= mtu - (header - 14):
            return f"gso_size {gso_size} with headers of {header - 14}"
        if hdr_len < header:
            return f"hdr_len {hdr_len}, headers are {header}"
    return None
