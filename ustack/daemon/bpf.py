"""Capture filters: libpcap's compiler makes classic BPF of tcpdump's expressions.

As on Linux the client compiles (names are looked up there, and a bad expression ends there) and
the stack's side runs the program on each packet at the tap, before anything is copied into the
capture's queue. ``cypcap`` is libpcap. A program from outside is checked first, as
sk_chk_filter does: libpcap's interpreter trusts it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import cypcap

if TYPE_CHECKING:
    from ustack.core.net import Net
    from ustack.core.skb import Skb

SNAPLEN = 262_144
"""What an accepting program returns, tcpdump's default snapshot length."""
MAX_INSTRUCTIONS = 4096
"""BPF_MAXINSNS."""
MEM_WORDS = 16
"""BPF_MEMWORDS."""
ANCILLARY = 0xFFFFF000
"""SKF_AD_OFF: loads from here on are Linux's ancillary data, of which a tap here has none."""
MAX_IP_HEADER_BYTES = 60

Instruction = tuple[int, int, int, int]
"""struct sock_filter: code, jt, jf, k."""

_SOCK_FILTER = struct.Struct("<HBBI")

BPF_RET = 0x06
BPF_JA = 0x05
LDX_MSH = 0xB1
TAX = 0x07
_LOADS = frozenset(
    (0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0x00, 0x60, 0x80)  # LD: ABS, IND, IMM, MEM, LEN
)
_LOADS_X = frozenset((0x01, 0x61, 0x81, LDX_MSH))
_ALU = frozenset(op << 4 | source << 3 | 0x04 for op in range(11) for source in (0, 1))
_JUMPS = frozenset(op << 4 | source << 3 | 0x05 for op in range(1, 5) for source in (0, 1))
_OTHERS = frozenset((0x02, 0x03, BPF_JA, 0x06, 0x16, TAX, 0x87))
_CODES = _LOADS | _LOADS_X | _ALU | _JUMPS | _OTHERS
_MEM_CODES = frozenset((0x60, 0x61, 0x02, 0x03))
_SIZES = {0x00: 4, 0x08: 2, 0x10: 1}


def compile_filter(text: str) -> bytes:
    """Return tcpdump's expression ``text`` as packed struct sock_filter.

    Raises:
        ValueError: libpcap's own words about what is wrong with it.
    """
    pcap = cypcap.open_dead(cypcap.DatalinkType.EN10MB, SNAPLEN)
    try:
        program = list(pcap.compile(text, True, cypcap.NETMASK_UNKNOWN))
    except cypcap.Error as error:
        raise ValueError(str(error.args[-1])) from error
    finally:
        pcap.close()
    if any(code & 0xE7 == 0x20 and k >= ANCILLARY for code, _, _, k in program):
        raise ValueError("'inbound', 'outbound' and the like are -Q in and -Q out here")
    if any(code == BPF_JA and k >= 1 << 31 for code, _, _, k in program):
        raise ValueError("'protochain' needs a loop, which the tap does not run")
    return b"".join(_SOCK_FILTER.pack(*instruction) for instruction in program)


def unpack_program(packed: bytes) -> list[Instruction]:
    """Read packed struct sock_filter and check it.

    Raises:
        ValueError: it is no program, or one that could run wild.
    """
    if len(packed) % _SOCK_FILTER.size:
        raise ValueError("bad filter: not a whole number of instructions")
    program: list[Instruction] = list(_SOCK_FILTER.iter_unpack(packed))
    sk_chk_filter(program)
    return program


def sk_chk_filter(program: list[Instruction]) -> None:
    """Check that a program ends, stays within itself and its memory, and divides by no zero.

    Raises:
        ValueError: it does not.
    """
    count = len(program)
    if not 0 < count <= MAX_INSTRUCTIONS:
        raise ValueError(f"bad filter: {count} instructions")
    for pc, (code, jt, jf, k) in enumerate(program):
        left = count - pc - 1
        wrong = (
            code not in _CODES
            or (code in _JUMPS and max(jt, jf) >= left)
            or (code == BPF_JA and k >= left)
            or (code in _MEM_CODES and k >= MEM_WORDS)
            or (code in (0x34, 0x94) and k == 0)
        )
        if wrong:
            raise ValueError(f"bad filter: instruction {pc}")
    if program[-1][0] & 0x07 != BPF_RET:
        raise ValueError("bad filter: it does not end")


def reach(program: list[Instruction]) -> int | None:
    """Return how many bytes of a packet the program can look at; None: any number.

    An indirect load goes where X points. While X is only ever an IP header's length it is known
    how far that is.
    """
    furthest = 0
    indirect = 0
    x_limit: int | None = 0
    for code, _, _, k in program:
        kind, size = code & 0xE7, _SIZES.get(code & 0x18, 0)
        if kind == 0x20:
            furthest = max(furthest, k + size)
        elif kind == 0x40:
            indirect = max(indirect, k + size)
        elif code == LDX_MSH:
            furthest = max(furthest, k + 1)
            x_limit = None if x_limit is None else max(x_limit, MAX_IP_HEADER_BYTES)
        elif code == 0x01:
            x_limit = None if x_limit is None else max(x_limit, k)
        elif code in (0x61, 0x81, TAX):
            x_limit = None
    if not indirect:
        return furthest
    return None if x_limit is None else max(furthest, x_limit + indirect)


class PacketFilter:
    """A checked program, run by libpcap's interpreter (pcap_offline_filter)."""

    def __init__(self, packed: bytes) -> None:
        """Take a program from ``compile_filter``.

        Raises:
            ValueError: it is none.
        """
        program = unpack_program(packed)
        self._program = cypcap.BpfProgram(program)
        self._reach = reach(program)
        self._header = cypcap.Pkthdr(caplen=0, len=0)

    def matches(self, net: Net, skb: Skb, length: int) -> bool:
        """Whether a packet of ``length`` bytes is wanted; only what is looked at is touched."""
        limit = length if self._reach is None else min(length, self._reach)
        data = frame_bytes(net, skb, limit)
        header = self._header
        header.caplen = len(data)
        header.len = length
        return bool(self._program.offline_filter(header, data))


def frame_bytes(net: Net, skb: Skb, limit: int) -> bytes:
    """Copy the first ``limit`` bytes of a frame: linear part, then arena frags."""
    data = bytes(skb.data[:limit])
    if len(data) == limit or not skb.frags:
        return data
    parts = [data]
    left = limit - len(data)
    for addr, size in skb.frags:
        take = min(size, left)
        parts.append(bytes(net.mem.read_at(addr, take)))
        left -= take
        if not left:
            break
    return b"".join(parts)
