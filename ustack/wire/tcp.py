"""TCP segments on the wire: one parser, header and option builders (RFC 9293 §3.1, §3.2).

Pure functions over bytes. ``tcp_v4_rcv`` parses, ``tcp_transmit_skb`` builds; the order and
padding of options are Linux's (``tcp_options_write``).
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from ustack.lib.drop_reason import DropReason
from ustack.lib.pieces import Pieces
from ustack.lib.seqnum import SEQ_MASK
from ustack.wire.errors import WireError

FIN = 0x01
SYN = 0x02
RST = 0x04
PSH = 0x08
ACK = 0x10
URG = 0x20
ECE = 0x40
CWR = 0x80

TCPOPT_EOL = 0
TCPOPT_NOP = 1
TCPOPT_MSS = 2
TCPOPT_WINDOW = 3
TCPOPT_SACK_PERM = 4
TCPOPT_SACK = 5
TCPOPT_TIMESTAMP = 8
TCPOPT_MD5SIG = 19
TCPOPT_AO = 29
TCPOPT_FASTOPEN = 34
TCPOPT_EXP = 254
TCPOPT_FASTOPEN_MAGIC = b"\xf9\x89"
"""RFC 6994's experiment number of Fast Open, from before it had an option of its own."""
TCP_FASTOPEN_COOKIE_MIN = 4
TCP_FASTOPEN_COOKIE_MAX = 16

TCP_HEADER_LEN = 20
IPV4_TCP_HEADERS = 40
"""Bytes of both headers without options: what an MSS is less than an MTU (RFC 9293 §3.7.1)."""
TCP_MSS_DEFAULT = 536
"""Of a peer that says none (MUST-15)."""
TCP_CSUM_OFFSET = 16
TCPOLEN_TSTAMP_ALIGNED = 12
MAX_OPTIONS_LEN = 40
TCPOLEN_MD5SIG = 18
TCPOLEN_AO_BASE = 4
TCPOLEN_MD5SIG_ALIGNED = 20
MD5SIG_ROOM = bytes((TCPOPT_NOP, TCPOPT_NOP, TCPOPT_MD5SIG, TCPOLEN_MD5SIG)) + bytes(16)
"""NOP NOP and a signature (RFC 2385 §3.0) that is not there yet."""
TCP_MAX_WSCALE = 14
"""RFC 7323 §2.3: a larger shift is used as 14."""

_HEADER = struct.Struct(">HHIIBBHHH")
_TSTAMP_ALIGNED = struct.Struct(">III")
_U16 = struct.Struct(">H")
_PAIR = struct.Struct(">II")
_TSTAMP_WORD = 0x0101080A


class FastopenOption(NamedTuple):
    """The Fast Open option of a SYN or SYN-ACK (RFC 7413 §4.1.1)."""

    cookie: bytes
    """Empty: a request for one."""
    exp: bool = False
    """It came, or goes, as an experimental option (RFC 6994)."""


class Segment:
    """One received segment, fields in host order.

    ``skb`` is the packet that carries it, maybe a super-frame; None for one that is made up.
    """

    __slots__ = (
        "ack",
        "daddr",
        "dport",
        "end_seq",
        "fastopen",
        "flags",
        "md5sig",
        "mss",
        "payload",
        "sack_ok",
        "sacks",
        "saddr",
        "seq",
        "skb",
        "sport",
        "tsecr",
        "tsval",
        "urgent",
        "window",
        "wscale",
    )

    def __init__(self, skb: Any, saddr: int, daddr: int) -> None:
        self.skb = skb
        self.saddr = saddr
        self.daddr = daddr
        self.sport = self.dport = self.seq = self.ack = self.flags = self.window = 0
        self.end_seq = 0
        """SEG.SEQ + SEG.LEN, SYN and FIN counted."""
        self.payload: bytes | memoryview | Pieces = b""
        self.mss: int | None = None
        self.wscale: int | None = None
        self.sack_ok = False
        self.tsval: int | None = None
        self.tsecr = 0
        self.sacks: tuple[tuple[int, int], ...] = ()
        self.urgent = 0
        """The urgent pointer, relative to SEG.SEQ."""
        self.fastopen: FastopenOption | None = None
        self.md5sig: bytes | None = None
        """The MD5 signature; b"": the options are such that there may have been one."""


def parse_segment(skb: Any, data: bytes | memoryview, saddr: int, daddr: int) -> Segment:
    """Read a segment whose TCP header starts at ``data[0]``.

    Malformed options are skipped from the first bad one on, as Linux does
    (``tcp_parse_options``); they never make the segment invalid.

    Raises:
        WireError: TCP_HDR, the packet is shorter than its header says.
    """
    if len(data) < TCP_HEADER_LEN:
        raise WireError(DropReason.TCP_HDR)
    seg = Segment(skb, saddr, daddr)
    seg.sport, seg.dport, seg.seq, seg.ack, offset, flags, seg.window, _, seg.urgent = (
        _HEADER.unpack_from(data)
    )
    seg.flags = flags
    header_len = (offset >> 4) * 4
    if header_len < TCP_HEADER_LEN or header_len > len(data):
        raise WireError(DropReason.TCP_HDR)
    seg.payload = data[header_len:]
    seg.end_seq = (seg.seq + len(data) - header_len + (flags & FIN) + (flags >> 1 & 1)) & SEQ_MASK
    if header_len > TCP_HEADER_LEN:
        if header_len == TCP_HEADER_LEN + TCPOLEN_TSTAMP_ALIGNED:
            word, tsval, tsecr = _TSTAMP_ALIGNED.unpack_from(data, TCP_HEADER_LEN)
            if word == _TSTAMP_WORD:
                seg.tsval = tsval
                seg.tsecr = tsecr
                return seg
        options = bytes(data[TCP_HEADER_LEN:header_len])
        _parse_options(seg, options)
        seg.md5sig = tcp_parse_auth_options(options)
    return seg


def tcp_parse_auth_options(options: bytes) -> bytes | None:
    """Return the MD5 signature among ``options``, None: there is none (RFC 2385 §2.0).

    b"": two, one of a wrong length, or an option that leaves the header where there was room
    for a signature: nobody can say what was signed. TCP-AO's (RFC 5925 §2.2) counts there, but
    is otherwise an unknown option, as in a Linux without CONFIG_TCP_AO.
    """
    found = None
    seen = False
    i = 0
    while i + TCPOLEN_MD5SIG <= len(options):
        kind = options[i]
        if kind == TCPOPT_EOL:
            break
        if kind == TCPOPT_NOP:
            i += 1
            continue
        size = options[i + 1]
        if size < 2 or i + size > len(options):
            return b""
        if kind in (TCPOPT_MD5SIG, TCPOPT_AO):
            bad = size <= TCPOLEN_AO_BASE if kind == TCPOPT_AO else size != TCPOLEN_MD5SIG
            if bad or seen:
                return b""
            seen = True
            found = options[i + 2 : i + size] if kind == TCPOPT_MD5SIG else None
        i += size
    return found


def _parse_options(seg: Segment, options: bytes) -> None:
    i = 0
    while i < len(options):
        kind = options[i]
        if kind == TCPOPT_EOL:
            return
        if kind == TCPOPT_NOP:
            i += 1
            continue
        if i + 1 >= len(options):
            return
        size = options[i + 1]
        if size < 2 or i + size > len(options):
            return
        _parse_option(seg, kind, options[i + 2 : i + size])
        i += size


def _parse_option(seg: Segment, kind: int, body: bytes) -> None:
    syn = seg.flags & SYN
    if kind == TCPOPT_TIMESTAMP and len(body) == 8:
        seg.tsval, seg.tsecr = _PAIR.unpack(body)
    elif kind == TCPOPT_MSS and len(body) == 2 and syn:
        seg.mss = _U16.unpack(body)[0] or None
    elif kind == TCPOPT_WINDOW and len(body) == 1 and syn:
        seg.wscale = min(body[0], TCP_MAX_WSCALE)
    elif kind == TCPOPT_SACK_PERM and not body and syn:
        seg.sack_ok = True
    elif kind == TCPOPT_SACK and body and len(body) % 8 == 0 and not syn:
        seg.sacks = tuple(_PAIR.iter_unpack(body))
    elif kind == TCPOPT_FASTOPEN and syn:
        seg.fastopen = _fastopen_option(body, exp=False)
    elif kind == TCPOPT_EXP and syn and body[:2] == TCPOPT_FASTOPEN_MAGIC:
        seg.fastopen = _fastopen_option(body[2:], exp=True)


def _fastopen_option(cookie: bytes, *, exp: bool) -> FastopenOption | None:
    """Take a cookie of even length (tcp_parse_fastopen_option); None: not a valid option."""
    n = len(cookie)
    if n & 1 or (n and not TCP_FASTOPEN_COOKIE_MIN <= n <= TCP_FASTOPEN_COOKIE_MAX):
        return None
    return FastopenOption(cookie, exp)


def build_header(
    sport: int,
    dport: int,
    seq: int,
    ack: int,
    flags: int,
    window: int,
    options: bytes,
    csum: int,
    urgent: int = 0,
) -> bytes:
    """Build a TCP header.

    Args:
        options: padded to a multiple of four bytes, at most 40.
        window: as it goes on the wire, already scaled.
        csum: the checksum field, for CHECKSUM_PARTIAL the pseudo-header's sum.
    """
    offset = (TCP_HEADER_LEN + len(options)) << 2
    return _HEADER.pack(sport, dport, seq, ack, offset, flags, window, csum, urgent) + options


def pseudo_header_sum(saddr: int, daddr: int, length: int) -> int:
    """Return the folded, uninverted sum of TCP's pseudo-header (RFC 9293 §3.1).

    This is what the checksum field holds when the device is to complete it.
    """
    total = (saddr >> 16) + (saddr & 0xFFFF) + (daddr >> 16) + (daddr & 0xFFFF) + 6
    total += (length >> 16) + (length & 0xFFFF)
    total = (total & 0xFFFF) + (total >> 16)
    return (total & 0xFFFF) + (total >> 16)


def tstamp_option(tsval: int, tsecr: int) -> bytes:
    """Build NOP NOP TSopt, 12 bytes (RFC 7323 appendix A)."""
    return _TSTAMP_ALIGNED.pack(_TSTAMP_WORD, tsval, tsecr)


def sack_option(blocks: list[tuple[int, int]]) -> bytes:
    """Build NOP NOP SACK for one to four blocks (RFC 2018 §3)."""
    head = bytes((TCPOPT_NOP, TCPOPT_NOP, TCPOPT_SACK, 2 + 8 * len(blocks)))
    return head + b"".join(_PAIR.pack(start, end) for start, end in blocks)


def syn_options(
    mss: int,
    *,
    sack_ok: bool,
    tstamp: tuple[int, int] | None,
    wscale: int | None,
    fastopen: FastopenOption | None = None,
    signed: bool = False,
) -> bytes:
    """Build the options of a SYN or SYN-ACK in Linux's order: MD5, mss, sackOK, TS, nop, wscale.

    Fast Open's comes last and is left out where 40 bytes are not enough.

    Args:
        signed: leave room for a signature.
    """
    out = MD5SIG_ROOM if signed else b""
    out += struct.pack(">BBH", TCPOPT_MSS, 4, mss)
    if tstamp is not None:
        lead = b"\x04\x02" if sack_ok else b"\x01\x01"
        out += lead + b"\x08\x0a" + _PAIR.pack(*tstamp)
    elif sack_ok:
        out += b"\x01\x01\x04\x02"
    if wscale is not None:
        out += bytes((TCPOPT_NOP, TCPOPT_WINDOW, 3, wscale))
    if fastopen is not None:
        option = fastopen_option(fastopen)
        if len(out) + len(option) <= MAX_OPTIONS_LEN:
            out += option
    return out


def fastopen_option(fastopen: FastopenOption) -> bytes:
    """Build a Fast Open option, padded to four bytes with NOP behind it (RFC 7413 §4.1.1)."""
    if fastopen.exp:
        body = TCPOPT_FASTOPEN_MAGIC + fastopen.cookie
        out = bytes((TCPOPT_EXP, 2 + len(body))) + body
    else:
        out = bytes((TCPOPT_FASTOPEN, 2 + len(fastopen.cookie))) + fastopen.cookie
    return out + bytes((TCPOPT_NOP,)) * (-len(out) % 4)
