"""MD5 signatures as RFC 2385 §2.0 describes them, made apart from the stack's own."""

from __future__ import annotations

import hashlib
import socket
import struct
from dataclasses import replace

from kit.checksum import pseudo_header
from kit.segment import Option, Segment, pack_options


def tcp_md5sig(addr: str, key: bytes, *, prefixlen: int | None = None) -> bytes:
    """Return a struct tcp_md5sig, with a prefix one for TCP_MD5SIG_EXT."""
    flags = 0 if prefixlen is None else 1
    sin = struct.pack("=HH4s120x", socket.AF_INET, 0, socket.inet_aton(addr))
    return sin + struct.pack("=BBHi80s", flags, prefixlen or 0, len(key), 0, key)


def digest(seg: Segment, key: bytes) -> bytes:
    """Return the signature of ``seg``: addresses, header without options, text, key."""
    options_len = len(pack_options(seg.options))
    offset_flags = (5 + options_len // 4) << 12 | seg.flags
    header = struct.pack(
        ">HHIIHHHH", seg.sport, seg.dport, seg.seq, seg.ack, offset_flags, seg.window, 0, seg.urgent
    )
    length = 20 + options_len + len(seg.payload)
    said = pseudo_header(seg.saddr, seg.daddr, 6, length) + header + seg.payload + key
    return hashlib.md5(said).digest()


def signed(seg: Segment, key: bytes) -> Segment:
    """Return ``seg`` with its empty ``md5`` option filled in, if it has one."""
    if ("md5", ()) not in seg.options:
        return seg
    return _with_md5(seg, ("md5", tuple(digest(seg, key))))


def checked(seg: Segment, key: bytes) -> Segment:
    """Return ``seg`` with its signature as ``md5`` if it is right, else as ``wrongmd5``."""
    said = seg.option("md5")
    if said is None:
        return seg
    right = bytes(v or 0 for v in said) == digest(seg, key)
    return _with_md5(seg, ("md5" if right else "wrongmd5", ()))


def _with_md5(seg: Segment, option: Option) -> Segment:
    options = tuple(option if one[0] == "md5" else one for one in seg.options)
    return replace(seg, options=options)
