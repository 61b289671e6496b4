"""ICMP errors that a router sends about a host's segments."""

from __future__ import annotations

import struct

from kit.checksum import checksum
from kit.host import Host
from kit.segment import Segment, build_ip

ROUTER = 0x0A0000FE
"""10.0.0.254"""


def frag_needed(one: Host, seg: Segment, mtu: int) -> None:
    """A router says to the host that ``seg``, which it sent, was too big."""
    quoted = build_ip(seg)[:28]
    error = struct.pack(">BBHHH", 3, 4, 0, 0, mtu) + quoted
    error = error[:2] + struct.pack(">H", checksum(error)) + error[4:]
    header = struct.pack(">BBHHHBBHII", 0x45, 0, 20 + len(error), 7, 0, 64, 1, 0, ROUTER, one.addr)
    assert one.net is not None
    one.net.send_ip(header[:10] + struct.pack(">H", checksum(header)) + header[12:] + error)
    one.settle()
