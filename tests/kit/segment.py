"""One TCP segment in three forms: a frame, fields, and a line that reads like a capture.

The line is packetdrill's: ``FLAGS SEQ:END(LEN) [ack N] [win N] [urg N] [<options>]``, for
example ``S. 0:0(0) ack 1 win 65535 <mss 1460,sackOK,nop,nop>``. Flags are F S R P . U E C
(``.`` is ACK). Sequence numbers are relative to each side's ISN. In a line that is expected
whatever is left out is not looked at, and ``TS val * ecr *`` takes any timestamp.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field, replace

from kit.checksum import checksum, pseudo_header
from ustack.lib.addresses import format_ipv4

FLAG_BITS = {"F": 1, "S": 2, "R": 4, "P": 8, ".": 16, "U": 32, "E": 64, "C": 128}
FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
MASK = 0xFFFFFFFF

_LINE = re.compile(
    r"(?P<flags>[FSRP.UEC]+)\s+(?P<seq>\d+):(?P<end>\d+)\((?P<len>\d+)\)"
    r"(?:\s+ack\s+(?P<ack>\d+))?(?:\s+win\s+(?P<win>\d+))?(?:\s+urg\s+(?P<urg>\d+))?"
    r"(?:\s+<(?P<opts>[^>]*)>)?\s*\Z"
)

Option = tuple[str, tuple[int | None, ...]]
"""Name and numbers: ("mss", (1460,)), ("TS", (val, ecr)), ("sack", (left, right, ...))."""


@dataclass(frozen=True)
class Script:
    """A parsed line; None means "not said"."""

    flags: int
    seq: int
    length: int
    ack: int | None
    win: int | None
    urg: int | None
    options: tuple[Option, ...] | None


@dataclass(frozen=True)
class Segment:
    """The fields of one segment on the wire, sequence numbers absolute."""

    saddr: int
    daddr: int
    sport: int
    dport: int
    seq: int
    ack: int
    flags: int
    window: int
    payload: bytes = b""
    urgent: int = 0
    options: tuple[Option, ...] = ()
    time_us: int = 0
    ttl: int = 64
    tos: int = 0
    ip_id: int = 0
    df: bool = True
    checksum_ok: bool = field(default=True, compare=False)

    @property
    def end(self) -> int:
        """SEG.SEQ plus SEG.LEN, SYN and FIN counted (RFC 9293 §3.4)."""
        return (
            self.seq + len(self.payload) + bool(self.flags & SYN) + bool(self.flags & FIN)
        ) & MASK

    def option(self, name: str) -> tuple[int | None, ...] | None:
        """Return the numbers of the first option called ``name``, None if it is not there."""
        return next((values for key, values in self.options if key == name), None)


def parse_script(line: str) -> Script:
    """Read one line.

    Raises:
        ValueError: it does not follow the grammar (the test's fault).
    """
    match = _LINE.match(line.strip())
    if not match:
        raise ValueError(f"not a packet script line: {line!r}")
    number = {k: int(v) if (v := match[k]) is not None else None for k in ("ack", "win", "urg")}
    length = int(match["len"])
    if int(match["end"]) - int(match["seq"]) != length:
        raise ValueError(f"end is not seq + length: {line!r}")
    flags = 0
    for char in match["flags"]:
        flags |= FLAG_BITS[char]
    options = None if match["opts"] is None else parse_options_text(match["opts"])
    return Script(
        flags, int(match["seq"]), length, number["ack"], number["win"], number["urg"], options
    )


def parse_options_text(text: str) -> tuple[Option, ...]:
    """Read ``mss 1460,sackOK,TS val 1 ecr 0,nop,wscale 7,sack 1:2 3:4,FO 01fe,eol``."""
    options: list[Option] = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, *words = item.split()
        if name == "TS":
            options.append(("TS", (_number(words[1]), _number(words[3]))))
        elif name == "sack":
            edges = [_number(edge) for word in words for edge in word.split(":")]
            options.append(("sack", tuple(edges)))
        elif name == "FO":
            options.append(("FO", tuple(bytes.fromhex("".join(words)))))
        else:
            options.append((name, tuple(_number(word) for word in words)))
    return tuple(options)


def _number(word: str) -> int | None:
    return None if word == "*" else int(word)


def pack_options(options: tuple[Option, ...]) -> bytes:
    """Write options as they stand in the header, padded with EOL to four bytes.

    ``raw N N ...`` puts bytes in as they are, for malformed options; ``md5`` alone is a signature
    that is not there yet (kit.md5).
    """
    out = b""
    for name, values in options:
        match name:
            case "mss":
                out += struct.pack(">BBH", 2, 4, *values)
            case "wscale":
                out += struct.pack(">BBB", 3, 3, *values)
            case "sackOK":
                out += b"\x04\x02"
            case "sack":
                out += struct.pack(f">BB{len(values)}I", 5, 2 + 4 * len(values), *values)
            case "TS":
                out += struct.pack(">BBII", 8, 10, *values)
            case "nop":
                out += b"\x01"
            case "eol":
                out += b"\x00"
            case "FO":
                out += bytes((34, 2 + len(values), *(v or 0 for v in values)))
            case "md5":
                out += bytes((19, 18, *((v or 0 for v in values) if values else bytes(16))))
            case "raw":
                out += bytes(v or 0 for v in values)
            case _:
                raise ValueError(f"unknown option {name!r}")
    return out + b"\0" * (-len(out) % 4)


def unpack_options(data: bytes) -> tuple[Option, ...]:
    """Read the options of a received header; what makes no sense becomes ("bad", ())."""
    options: list[Option] = []
    at = 0
    while at < len(data):
        kind = data[at]
        if kind == 0:
            break
        if kind == 1:
            options.append(("nop", ()))
            at += 1
            continue
        length = data[at + 1] if at + 1 < len(data) else 0
        if length < 2 or at + length > len(data):
            options.append(("bad", ()))
            break
        options.append(_unpack_option(kind, data[at + 2 : at + length]))
        at += length
    return tuple(options)


def _unpack_option(kind: int, body: bytes) -> Option:
    shapes = {2: ("mss", ">H"), 3: ("wscale", ">B"), 4: ("sackOK", ">"), 8: ("TS", ">II")}
    if kind == 5 and len(body) % 8 == 0:
        return ("sack", struct.unpack(f">{len(body) // 4}I", body))
    if kind == 34:
        return ("FO", tuple(body))
    if kind == 19 and len(body) == 16:
        return ("md5", tuple(body))
    name, shape = shapes.get(kind, (f"kind{kind}", None))
    if shape is None or struct.calcsize(shape) != len(body):
        return (name if shape is None else "bad", tuple(body))
    return (name, struct.unpack(shape, body))


def build_ip(seg: Segment) -> bytes:
    """Build the IPv4 packet of ``seg`` with right checksums (a wrong one if not checksum_ok)."""
    options = pack_options(seg.options)
    offset_flags = (5 + len(options) // 4) << 12 | seg.flags
    header = struct.pack(
        ">HHIIHHHH", seg.sport, seg.dport, seg.seq & MASK, seg.ack & MASK, offset_flags,
        seg.window, 0, seg.urgent,
    )  # fmt: skip
    tcp = header + options + seg.payload
    total = checksum(pseudo_header(seg.saddr, seg.daddr, 6, len(tcp)) + tcp)
    if not seg.checksum_ok:
        total ^= 0x5555
    tcp = tcp[:16] + struct.pack(">H", total) + tcp[18:]
    ip = struct.pack(
        ">BBHHHBBHII", 0x45, seg.tos, 20 + len(tcp), seg.ip_id, 0x4000 if seg.df else 0,
        seg.ttl, 6, 0, seg.saddr, seg.daddr,
    )  # fmt: skip
    return ip[:10] + struct.pack(">H", checksum(ip)) + ip[12:] + tcp


def parse_ip(packet: bytes, time_us: int = 0) -> Segment:
    """Read a TCP segment out of an IPv4 packet.

    Raises:
        ValueError: it is not one, or lengths contradict each other.
    """
    ihl = (packet[0] & 15) * 4
    total = int.from_bytes(packet[2:4], "big")
    if packet[0] >> 4 != 4 or packet[9] != 6 or ihl < 20 or len(packet) < total or total < ihl + 20:
        raise ValueError("not a TCP segment")
    saddr, daddr = struct.unpack(">II", packet[12:20])
    tcp = packet[ihl:total]
    sport, dport, seq, ack, offset_flags, window, _, urgent = struct.unpack(">HHIIHHHH", tcp[:20])
    data_at = (offset_flags >> 12) * 4
    if not 20 <= data_at <= len(tcp):
        raise ValueError("bad data offset")
    right = checksum(pseudo_header(saddr, daddr, 6, len(tcp)) + tcp) == 0
    return Segment(
        saddr, daddr, sport, dport, seq, ack, offset_flags & 0xFFF, window, tcp[data_at:], urgent,
        unpack_options(tcp[20:data_at]), time_us, packet[8], packet[1],
        int.from_bytes(packet[4:6], "big"), bool(packet[6] & 0x40),
        right and checksum(packet[:ihl]) == 0,
    )  # fmt: skip


def flags_text(flags: int) -> str:
    """Return the flags in the script's letters, in the order S F R P . U E C."""
    return "".join(c for c in "SFRP.UEC" if flags & FLAG_BITS[c]) or "-"


def format_segment(seg: Segment, isn: int = 0, ack_isn: int = 0) -> str:
    """Write ``seg`` as a line, relative to its sender's and its receiver's ISN."""
    start = seg.seq - isn & MASK
    parts = [f"{flags_text(seg.flags)} {start}:{start + len(seg.payload)}({len(seg.payload)})"]
    if seg.flags & ACK:
        parts.append(f"ack {seg.ack - ack_isn & MASK}")
    parts.append(f"win {seg.window}")
    if seg.options:
        parts.append(f"<{','.join(_option_text(o, ack_isn) for o in seg.options)}>")
    return " ".join(parts)


def _option_text(option: Option, ack_isn: int) -> str:
    name, values = option
    if name == "TS":
        return f"TS val {values[0]} ecr {values[1]}"
    if name == "sack":
        edges = [(v or 0) - ack_isn & MASK for v in values]
        return "sack " + " ".join(f"{a}:{b}" for a, b in zip(edges[::2], edges[1::2], strict=True))
    if name == "FO":
        return f"FO {bytes(v or 0 for v in values).hex()}".rstrip()
    return " ".join([name, *map(str, values)])


def with_relative_sack(seg: Segment, isn: int) -> Segment:
    """Return ``seg`` with the edges of its SACK blocks relative to ``isn``."""
    options = tuple(
        (name, tuple((v or 0) - isn & MASK for v in values)) if name == "sack" else (name, values)
        for name, values in seg.options
    )
    return replace(seg, options=options)


def describe(seg: Segment) -> str:
    """Name the two ends, for failure messages."""
    return f"{format_ipv4(seg.saddr)}:{seg.sport} > {format_ipv4(seg.daddr)}:{seg.dport}"


def pattern(start: int, length: int) -> bytes:
    """Return the bytes that scripts carry from stream offset ``start`` on."""
    first = start % 251
    return (bytes(range(251)) * (length // 251 + 2))[first : first + length]
