"""The scripted other end: sends and expects segments one line at a time.

``PeerNet`` is the far end of a host's wire: it answers ARP for its peers and sorts what
arrives. A ``Peer`` is one TCP endpoint there that does nothing by itself. Relative sequence
number 1 is the first data byte; the bytes that scripts send are ``pattern(0, ...)``.
"""

from __future__ import annotations

import struct
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kit.capture import VNET_NEEDS_CSUM, wrong_vnet_hdr
from kit.md5 import checked, signed
from kit.segment import (
    ACK,
    MASK,
    SYN,
    Option,
    Script,
    Segment,
    build_ip,
    describe,
    format_segment,
    parse_ip,
    parse_script,
    pattern,
    with_relative_sack,
)
from ustack.lib.addresses import format_ipv4, parse_ipv4

if TYPE_CHECKING:
    from kit.host import Host

VNET_HDR = bytes(10)
PEER_MAC = bytes.fromhex("020000000001")


@dataclass(frozen=True)
class Capture:
    """One frame that the stack sent, when and with its virtio header."""

    time_us: int
    vnet_hdr: bytes
    frame: bytes


class PeerNet:
    """What is plugged into the other side of a host's wire."""

    def __init__(self, host: Host, wire: Any) -> None:
        self.host = host
        self.wire = wire
        self.peers: list[Peer] = []
        self.other: deque[Capture] = deque()
        """Frames that belong to no peer: ARP, ICMP, UDP, TCP to nobody."""
        self.silent: set[int] = set()
        """Addresses whose ARP requests stay unanswered."""
        self.log: list[str] = []

    def next_deadline_us(self) -> int | None:
        """Peers never act on their own."""
        return None

    def pump(self, now_us: int) -> bool:
        """Take every frame off the wire."""
        moved = False
        while (unit := self.wire.recv_frame()) is not None:
            moved = True
            self._sort(Capture(now_us, bytes(unit[:10]), bytes(unit[10:])))
        return moved

    def send_frame(self, frame: bytes) -> None:
        """Put an Ethernet frame on the wire towards the host."""
        assert self.wire.send_frame(VNET_HDR + frame), "the wire to the host is full"

    def send_ip(self, packet: bytes) -> None:
        """Put an IPv4 packet into a frame for the host."""
        self.send_frame(self.host.mac + PEER_MAC + b"\x08\x00" + packet)

    def note(self, time_us: int, arrow: str, line: str) -> None:
        """Remember one line of the conversation for failure messages."""
        self.log.append(f"{time_us / 1e6:12.6f} {arrow} {line}")

    def _sort(self, capture: Capture) -> None:
        frame = capture.frame
        kind = frame[12:14]
        if kind == b"\x08\x06" and self._answer_arp(frame):
            return
        if kind == b"\x08\x00" and frame[23] == 6:
            seg = parse_ip(frame[14:], capture.time_us)
            if capture.vnet_hdr[0] & VNET_NEEDS_CSUM:
                wrong = wrong_vnet_hdr(capture.vnet_hdr + frame)
                seg = replace(seg, checksum_ok=wrong is None)
            for peer in self.peers:
                if peer.takes(seg):
                    peer.arrived(seg)
                    return
            self.note(capture.time_us, "<?", f"{describe(seg)} {format_segment(seg)}")
        self.other.append(capture)

    def _answer_arp(self, frame: bytes) -> bool:
        """Answer a request for a peer's address; return whether it was one."""
        op = int.from_bytes(frame[20:22], "big")
        sender_mac, sender, _, target = struct.unpack(">6sI6sI", frame[22:42])
        if op != 1 or target in self.silent or all(p.addr != target for p in self.peers):
            return False
        self.send_frame(
            sender_mac + PEER_MAC + b"\x08\x06" + struct.pack(">HHBBH", 1, 0x800, 6, 4, 2)
            + struct.pack(">6sI6sI", PEER_MAC, target, sender_mac, sender)
        )  # fmt: skip
        return True


class Peer:
    """One scripted TCP endpoint."""

    def __init__(self, net: PeerNet, addr: str, port: int, to: int | None, iss: int) -> None:
        self.net = net
        self.addr = parse_ipv4(addr)
        self.port = port
        self.to = to
        """The host's port; None until its SYN tells."""
        self.iss = iss
        self.host_iss: int | None = None
        self.last_ts_val = 0
        self.md5_key: bytes | None = None
        """Signs where a line says ``md5``; so a line that is expected means a right signature."""
        self.inbox: deque[Segment] = deque()
        net.peers.append(self)

    @property
    def host(self) -> Host:
        """The host under test."""
        return self.net.host

    def takes(self, seg: Segment) -> bool:
        """Whether ``seg`` is for this endpoint; the first SYN fixes the host's port."""
        if (seg.daddr, seg.dport) != (self.addr, self.port):
            return False
        if self.to is None and seg.flags & SYN:
            self.to = seg.sport
        return self.to == seg.sport

    def arrived(self, seg: Segment) -> None:
        """Queue a segment that the host sent."""
        if seg.flags & SYN:
            self.host_iss = seg.seq
        if (ts := seg.option("TS")) is not None:
            self.last_ts_val = ts[0] or 0
        if self.md5_key is not None:
            seg = checked(seg, self.md5_key)
        self.net.note(seg.time_us, "<", self.format(seg))
        self.inbox.append(seg)

    def format(self, seg: Segment) -> str:
        """Write a segment from the host as a line."""
        return format_segment(seg, self.host_iss or 0, self.iss)

    # What the peer does.

    def send(self, line: str, data: bytes | None = None, **fields: Any) -> Segment:
        """Send the segment that ``line`` says and let the host answer at once.

        Args:
            data: The payload; by default the pattern at that place of the stream.
            fields: Overrides of ``Segment`` fields (ttl, checksum_ok, daddr, ...).
        """
        seg = self.segment(line, data, **fields)
        self.net.note(
            self.host.world.now_us, ">", format_segment(seg, self.iss, self.host_iss or 0)
        )
        self.net.send_ip(build_ip(seg))
        self.host.world.settle()
        return seg

    def segment(self, line: str, data: bytes | None = None, **fields: Any) -> Segment:
        """Build the segment that ``line`` says, absolute."""
        said = parse_script(line)
        if data is None:
            data = pattern(max(said.seq - 1, 0), said.length)
        assert len(data) == said.length, f"{len(data)} bytes of data for {line!r}"
        ack = 0
        if said.ack is not None:
            assert self.host_iss is not None or said.flags & 4, (
                "an ack before the host's ISN is known"
            )
            ack = (self.host_iss or 0) + said.ack & MASK
        seg = Segment(
            self.addr, self.host.addr, self.port, self.to or 0, self.iss + said.seq & MASK, ack,
            said.flags, 65535 if said.win is None else said.win, data, said.urg or 0,
            self._absolute_options(said.options or ()),
        )  # fmt: skip
        seg = replace(seg, **fields)
        return seg if self.md5_key is None else signed(seg, self.md5_key)

    def _absolute_options(self, options: tuple[Option, ...]) -> tuple[Option, ...]:
        out: list[Option] = []
        for name, values in options:
            if name == "sack":
                values = tuple((self.host_iss or 0) + (v or 0) & MASK for v in values)
            elif name == "TS":
                values = (values[0], self.last_ts_val if values[1] is None else values[1])
            out.append((name, values))
        return tuple(out)

    def handshake(self, options: str = "mss 1460", win: int = 65535, ts: str = "") -> Segment:
        """Open a connection to the host's listener; return its SYN-ACK.

        Args:
            options: Options of the SYN.
            win: The window in the SYN and in the third ACK (there scaled by the receiver).
            ts: The third ACK's options, where timestamps are in use.
        """
        self.send(f"S 0:0(0) win {win} <{options}>")
        syn_ack = self.expect("S. 0:0(0) ack 1")
        self.send(f". 1:1(0) ack 1 win {win}" + (f" <{ts}>" if ts else ""))
        return syn_ack

    def answer_syn(self, options: str = "mss 1460", win: int = 65535) -> Segment:
        """Take the host's SYN and answer it; the host's ACK must follow. Returns the SYN."""
        syn = self.expect("S 0:0(0)")
        self.send(f"S. 0:0(0) ack 1 win {win} <{options}>")
        self.expect(". 1:1(0) ack 1")
        return syn

    # What the peer sees.

    def expect(self, line: str, *, within_us: int = 0) -> Segment:
        """Take the next segment from the host and hold it against ``line``.

        Args:
            within_us: How long in virtual time to wait for it; 0: it must be there now.

        Raises:
            AssertionError: nothing came, or something else did; shows the conversation.
        """
        seg = self._next(within_us)
        wanted = parse_script(line)
        if seg is None:
            raise AssertionError(self._report(f"expected  {line}\nbut nothing came"))
        if wrong := self._mismatches(wanted, seg):
            raise AssertionError(
                self._report(f"expected  {line}\ngot       {self.format(seg)}\n{'; '.join(wrong)}")
            )
        return seg

    def expect_next(self, *, within_us: int = 0) -> Segment:
        """Take the next segment from the host, whatever it is; one must come."""
        seg = self._next(within_us)
        if seg is None:
            raise AssertionError(self._report("expected a segment, but nothing came"))
        return seg

    def expect_nothing(self, *, for_us: int = 0) -> None:
        """Hold that the host sends nothing now, nor in the next ``for_us``."""
        seg = self._next(for_us)
        if seg is not None:
            raise AssertionError(self._report(f"expected nothing, got {self.format(seg)}"))

    def expect_data(self, start: int, end: int, *, within_us: int = 0) -> list[Segment]:
        """Take in-order segments until stream bytes ``start`` to ``end`` are there.

        They must carry the pattern and follow each other without a gap.
        """
        taken: list[Segment] = []
        at = start
        while at < end:
            seg = self._next(within_us)
            if seg is None:
                raise AssertionError(self._report(f"data {at}:{end} did not come"))
            assert self.host_iss is not None
            relative = seg.seq - self.host_iss & MASK
            if relative != at or seg.payload != pattern(at - 1, len(seg.payload)):
                raise AssertionError(self._report(f"expected data at {at}, got {self.format(seg)}"))
            at += len(seg.payload)
            taken.append(seg)
        if at != end:
            raise AssertionError(self._report(f"expected data up to {end}, got up to {at}"))
        return taken

    def drain(self) -> list[Segment]:
        """Take everything that has come so far."""
        self.host.world.settle()
        out = list(self.inbox)
        self.inbox.clear()
        return out

    def _next(self, within_us: int) -> Segment | None:
        world = self.host.world
        world.settle()
        if not self.inbox and within_us:
            world.run_until(lambda: bool(self.inbox), limit_us=within_us)
        return self.inbox.popleft() if self.inbox else None

    def _mismatches(self, wanted: Script, seg: Segment) -> list[str]:
        seq = seg.seq - (self.host_iss or 0) & MASK
        ack = seg.ack - self.iss & MASK
        wrong = []
        checks = [
            ("flags", wanted.flags, seg.flags),
            ("seq", wanted.seq, seq),
            ("length", wanted.length, len(seg.payload)),
            ("ack", wanted.ack, ack if seg.flags & ACK else None),
            ("win", wanted.win, seg.window),
            ("urg", wanted.urg, seg.urgent),
        ]
        for name, want, have in checks:
            if want is not None and want != have:
                wrong.append(f"{name} is {have}, not {want}")
        if not seg.checksum_ok:
            wrong.append("checksum is wrong")
        if wanted.options is not None and not _options_match(
            wanted.options, with_relative_sack(seg, self.iss).options
        ):
            wrong.append("options differ")
        return wrong

    def _report(self, what: str) -> str:
        log = "\n".join(self.net.log[-40:])
        return f"{format_ipv4(self.addr)}:{self.port}: {what}\nconversation:\n{log}"


def _options_match(wanted: tuple[Option, ...], got: tuple[Option, ...]) -> bool:
    if [name for name, _ in wanted] != [name for name, _ in got]:
        return False
    return all(
        len(w) == len(g) and all(a is None or a == b for a, b in zip(w, g, strict=True))
        for (_, w), (_, g) in zip(wanted, got, strict=True)
    )
