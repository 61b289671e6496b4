"""DNS messages as a stub resolver needs them: a question out, an answer in (RFC 1035 §4).

Everything an answer says is checked against its length: it comes from the network.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field

TYPE_A = 1
TYPE_CNAME = 5
TYPE_PTR = 12
CLASS_IN = 1
FLAG_RESPONSE = 0x8000
FLAG_TRUNCATED = 0x0200
FLAG_RECURSE = 0x0100
RCODE_NXDOMAIN = 3
LABEL_BYTES = 63
LABEL = re.compile(rb"[-0-9A-Z_a-z]+")
NAME_BYTES = 255
POINTERS_MAX = 64

_HEADER = struct.Struct("!HHHHHH")
_RECORD = struct.Struct("!HHIH")


class DnsError(ValueError):
    """A message that is none, or that answers another question."""


@dataclass
class Answer:
    """What a server says: addresses in order, the last name they belong to, names of a PTR."""

    rcode: int = 0
    truncated: bool = False
    canonical: str = ""
    addresses: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


def encode_name(name: str) -> bytes:
    """Write a name as labels.

    Raises:
        DnsError: a label is empty, longer than 63 bytes or has what host names have not
            (res_hnok), or all are longer than 255.
    """
    out = b""
    for label in name.rstrip(".").split("."):
        raw = label.encode("idna") if not label.isascii() else label.encode()
        if not 0 < len(raw) <= LABEL_BYTES or not LABEL.fullmatch(raw):
            raise DnsError(f"not a host name: {name!r}")
        out += bytes([len(raw)]) + raw
    if len(out) >= NAME_BYTES:
        raise DnsError(f"not a host name: {name!r}")
    return out + b"\0"


def build_query(ident: int, name: str, kind: int) -> bytes:
    """Write a question for a recursive server."""
    header = _HEADER.pack(ident, FLAG_RECURSE, 1, 0, 0, 0)
    return header + encode_name(name) + struct.pack("!HH", kind, CLASS_IN)


def parse_answer(data: bytes, query: bytes) -> Answer:
    """Read the answer to ``query``.

    Raises:
        DnsError: it is malformed, or answers something else.
    """
    try:
        return _parse(data, query)
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise DnsError(str(error)) from None


def _parse(data: bytes, query: bytes) -> Answer:
    ident, flags, questions, records, _, _ = _HEADER.unpack_from(data)
    asked = query[_HEADER.size :]
    at = _HEADER.size + len(asked)
    same = data[_HEADER.size : at].lower() == asked.lower()
    if not flags & FLAG_RESPONSE or questions != 1 or not same or data[:2] != query[:2]:
        raise DnsError(f"an answer to another question ({ident})")
    answer = Answer(rcode=flags & 15, truncated=bool(flags & FLAG_TRUNCATED))
    answer.canonical, _ = _read_name(data, _HEADER.size)
    for _ in range(records):
        at = _read_record(data, at, answer)
    return answer


def _read_record(data: bytes, at: int, answer: Answer) -> int:
    owner, at = _read_name(data, at)
    kind, cls, _, length = _RECORD.unpack_from(data, at)
    at += _RECORD.size
    if at + length > len(data):
        raise DnsError("a record beyond the end")
    if cls == CLASS_IN and kind == TYPE_A and length == 4:
        answer.addresses.append(int.from_bytes(data[at : at + 4], "big"))
    elif cls == CLASS_IN and kind == TYPE_CNAME and owner.lower() == answer.canonical.lower():
        answer.canonical, _ = _read_name(data, at)
    elif cls == CLASS_IN and kind == TYPE_PTR:
        answer.names.append(_read_name(data, at)[0])
    return at + length


def _read_name(data: bytes, at: int) -> tuple[str, int]:
    """Read a name, following compression pointers (RFC 1035 §4.1.4); return it and its end."""
    labels: list[str] = []
    end = 0
    for _ in range(POINTERS_MAX + NAME_BYTES):
        length = data[at]
        if length & 0xC0 == 0xC0:
            end = end or at + 2
            at = (length & 0x3F) << 8 | data[at + 1]
        elif length & 0xC0:
            raise DnsError("an unknown kind of label")
        elif not length:
            return ".".join(labels), end or at + 1
        else:
            label = data[at + 1 : at + 1 + length]
            if len(label) != length:
                raise DnsError("a label beyond the end")
            labels.append(label.decode("ascii"))
            at += 1 + length
    raise DnsError("a name without an end")
