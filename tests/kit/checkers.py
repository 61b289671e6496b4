"""Composable checks of one frame, on dpkt: ``check(frame).ip(ttl=64).tcp().flags("SA").ack(7)``.

Every step says what it expected and what it saw, and returns itself. ``ip()`` and the
transports verify their checksums unless told not to; dpkt decodes, kit.checksum adds up.
"""

from __future__ import annotations

from typing import Any

import dpkt

from kit.checksum import checksum, ones_complement_sum, pseudo_header
from ustack.lib.addresses import format_ipv4, format_mac

TCP_LETTERS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16, "U": 32, "E": 64, "C": 128}


def check(frame: bytes) -> FrameCheck:
    """Begin to check an Ethernet frame."""
    return FrameCheck(frame)


def _equal(what: str, have: Any, want: Any) -> None:
    assert have == want, f"{what} is {have!r}, not {want!r}"


class FrameCheck:
    """Checks of the Ethernet header, and the way to what is inside."""

    def __init__(self, frame: bytes) -> None:
        assert len(frame) >= 14, f"a frame of {len(frame)} bytes"
        self.frame = bytes(frame)
        self.eth = dpkt.ethernet.Ethernet(self.frame)

    def to(self, mac: bytes) -> FrameCheck:
        """The destination address."""
        _equal("Ethernet destination", format_mac(self.eth.dst), format_mac(mac))
        return self

    def source(self, mac: bytes) -> FrameCheck:
        """The source address."""
        _equal("Ethernet source", format_mac(self.eth.src), format_mac(mac))
        return self

    def arp(self, **fields: Any) -> FrameCheck:
        """ARP, with these fields: op, sender, target (dotted quads), sender_mac, target_mac."""
        arp = self.eth.data
        assert isinstance(arp, dpkt.arp.ARP), f"not ARP: EtherType {self.eth.type:#06x}"
        have = {
            "op": arp.op,
            "sender": format_ipv4(int.from_bytes(arp.spa, "big")),
            "target": format_ipv4(int.from_bytes(arp.tpa, "big")),
            "sender_mac": arp.sha,
            "target_mac": arp.tha,
        }
        for name, want in fields.items():
            _equal(f"ARP {name}", have[name], want)
        return self

    def ip(self, **fields: Any) -> IpCheck:
        """IPv4 with a right header checksum, and these fields: src, dst, ttl, df, id, tos."""
        assert self.eth.type == 0x0800, f"not IPv4: EtherType {self.eth.type:#06x}"
        return IpCheck(self.frame[14:]).having(**fields)


class IpCheck:
    """Checks of the IPv4 header, and the way to the transport."""

    def __init__(self, packet: bytes) -> None:
        self.ip = dpkt.ip.IP(packet)
        self.header_len = self.ip.hl * 4
        self.packet = packet[: self.ip.len]
        _equal("IP version", self.ip.v, 4)
        assert len(packet) >= self.ip.len, f"{len(packet)} bytes of a packet of {self.ip.len}"
        _equal("sum over the IP header", checksum(packet[: self.header_len]), 0)

    def having(self, **fields: Any) -> IpCheck:
        """These fields: src and dst as dotted quads, ttl, df, id, tos, proto."""
        ip = self.ip
        have = {
            "src": format_ipv4(int.from_bytes(ip.src, "big")),
            "dst": format_ipv4(int.from_bytes(ip.dst, "big")),
            "ttl": ip.ttl,
            "df": bool(ip.df),
            "id": ip.id,
            "tos": ip.tos,
            "proto": ip.p,
        }
        for name, want in fields.items():
            _equal(f"IP {name}", have[name], want)
        return self

    @property
    def payload(self) -> bytes:
        """What follows the IP header."""
        return self.packet[self.header_len :]

    def _pseudo(self, proto: int) -> bytes:
        src, dst = (int.from_bytes(a, "big") for a in (self.ip.src, self.ip.dst))
        return pseudo_header(src, dst, proto, len(self.payload))

    def tcp(self, *, checksum_is: str = "right") -> TcpCheck:
        """TCP; ``checksum_is``: "right", "partial" (the pseudo-header's sum) or "any"."""
        _equal("IP protocol", self.ip.p, 6)
        if checksum_is == "right":
            _equal("sum over TCP", checksum(self._pseudo(6) + self.payload), 0)
        elif checksum_is == "partial":
            field = int.from_bytes(self.payload[16:18], "big")
            _equal("partial TCP sum", field, ones_complement_sum(self._pseudo(6)))
        return TcpCheck(self.payload)

    def icmp(self, icmp_type: int, code: int = 0) -> IcmpCheck:
        """ICMP of this type and code with a right checksum."""
        _equal("IP protocol", self.ip.p, 1)
        _equal("sum over ICMP", checksum(self.payload), 0)
        _equal("ICMP type and code", tuple(self.payload[:2]), (icmp_type, code))
        return IcmpCheck(self.payload)


class IcmpCheck:
    """Checks of an ICMP message."""

    def __init__(self, message: bytes) -> None:
        self.message = message

    def body(self, want: bytes) -> IcmpCheck:
        """Everything behind the first eight bytes."""
        _equal("ICMP body", self.message[8:], want)
        return self

    def about(self, packet: bytes) -> IcmpCheck:
        """An error that quotes the header and at least 8 bytes of ``packet`` (RFC 1122 §3.2.2)."""
        quoted = self.message[8:]
        assert len(quoted) >= 28, f"only {len(quoted)} bytes quoted"
        _equal("quoted packet", quoted, packet[: len(quoted)])
        return self


class TcpCheck:
    """Checks of the TCP header."""

    def __init__(self, segment: bytes) -> None:
        self.tcp = dpkt.tcp.TCP(segment)
        self.payload = segment[self.tcp.off * 4 :]

    def flags(self, letters: str) -> TcpCheck:
        """Exactly these flags, as letters of FSRPAUEC."""
        have = "".join(c for c, bit in TCP_LETTERS.items() if self.tcp.flags & bit)
        _equal("TCP flags", sorted(have), sorted(letters))
        return self

    def ports(self, source: int | None = None, destination: int | None = None) -> TcpCheck:
        """The ports; None: not looked at."""
        if source is not None:
            _equal("source port", self.tcp.sport, source)
        if destination is not None:
            _equal("destination port", self.tcp.dport, destination)
        return self

    def seq(self, want: int) -> TcpCheck:
        """SEG.SEQ, absolute."""
        _equal("seq", self.tcp.seq, want & 0xFFFFFFFF)
        return self

    def ack(self, want: int) -> TcpCheck:
        """SEG.ACK, absolute."""
        _equal("ack", self.tcp.ack, want & 0xFFFFFFFF)
        return self

    def win(self, want: int) -> TcpCheck:
        """SEG.WND as it stands in the header."""
        _equal("window", self.tcp.win, want)
        return self

    def data(self, want: bytes) -> TcpCheck:
        """The payload."""
        _equal("payload", self.payload, want)
        return self
