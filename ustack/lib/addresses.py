"""IPv4 and Ethernet addresses as the core keeps them.

An IPv4 address is an ``int`` in host order, a MAC address six ``bytes``. Text exists only
at the edge: configuration, the socket API and the command line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

INADDR_ANY = 0
INADDR_LOOPBACK = 0x7F000001
INADDR_BROADCAST = 0xFFFFFFFF
ETH_BROADCAST = b"\xff" * 6
ETH_ZERO = b"\0" * 6

_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}\Z")


def parse_ipv4(text: str) -> int:
    """Read a dotted quad.

    Raises:
        ValueError: not four decimal numbers from 0 to 255 without leading zeros.
    """
    parts = text.split(".")
    if len(parts) != 4:
        raise ValueError(f"not an IPv4 address: {text!r}")
    value = 0
    for part in parts:
        if not (part.isascii() and part.isdigit()) or len(part) > 3 or int(part) > 255:
            raise ValueError(f"not an IPv4 address: {text!r}")
        if len(part) > 1 and part[0] == "0":
            raise ValueError(f"not an IPv4 address (leading zero): {text!r}")
        value = value << 8 | int(part)
    return value


def format_ipv4(addr: int) -> str:
    """Write an address as a dotted quad."""
    return f"{addr >> 24 & 255}.{addr >> 16 & 255}.{addr >> 8 & 255}.{addr & 255}"


def parse_mac(text: str) -> bytes:
    """Read ``02:00:00:00:00:01``.

    Raises:
        ValueError: not six pairs of hexadecimal digits with colons.
    """
    if not _MAC.match(text):
        raise ValueError(f"not a MAC address: {text!r}")
    return bytes.fromhex(text.replace(":", ""))


def format_mac(mac: bytes) -> str:
    """Write a MAC address with colons."""
    return mac.hex(":")


def prefix_mask(prefix_len: int) -> int:
    """Return the netmask of a prefix length from 0 to 32."""
    return (0xFFFFFFFF << (32 - prefix_len)) & 0xFFFFFFFF


def is_loopback(addr: int) -> bool:
    """Whether ``addr`` is in 127.0.0.0/8 (RFC 1122 §3.2.1.3 (g))."""
    return addr >> 24 == 127


def is_multicast(addr: int) -> bool:
    """Whether ``addr`` is in 224.0.0.0/4."""
    return addr >> 28 == 14


def is_zeronet(addr: int) -> bool:
    """Whether ``addr`` is in 0.0.0.0/8."""
    return addr >> 24 == 0


@dataclass(frozen=True)
class Ipv4Interface:
    """An address with its prefix, as ``10.0.0.2/24`` on the command line."""

    addr: int
    prefix_len: int

    @property
    def mask(self) -> int:
        """The netmask."""
        return prefix_mask(self.prefix_len)

    @property
    def network(self) -> int:
        """The network's address."""
        return self.addr & self.mask

    @property
    def broadcast(self) -> int:
        """The directed broadcast address."""
        return self.network | (~self.mask & 0xFFFFFFFF)

    def __str__(self) -> str:
        return f"{format_ipv4(self.addr)}/{self.prefix_len}"


def parse_interface(text: str) -> Ipv4Interface:
    """Read ``10.0.0.2/24``; without a prefix it is a /32.

    Raises:
        ValueError: the address or the prefix length is not one.
    """
    addr, slash, length = text.partition("/")
    if not slash:
        return Ipv4Interface(parse_ipv4(addr), 32)
    if not (length.isascii() and length.isdigit()) or int(length) > 32:
        raise ValueError(f"not a prefix length: {text!r}")
    return Ipv4Interface(parse_ipv4(addr), int(length))
