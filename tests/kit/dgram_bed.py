"""Datagram sockets on ``kit.netbed``'s bed: the peer's datagrams in, ours out.

``bed.dgram()`` makes sockets; ``bed.sent()`` reads what eth0 was told to send, put together
again if it went in pieces.
"""

from __future__ import annotations

import struct
from typing import Any

import dpkt

from kit.netbed import OURS, PEER, TEST_CONFIG, Bed, icmp_packet, udp_packet
from ustack.config import StackConfig
from ustack.inet.create import SOCK_DGRAM, Inet
from ustack.tcp.protocol import TcpProt
from ustack.wire.ipv4 import IPPROTO_UDP, build_ipv4

GROUPS = (100,)


class DgramBed(Bed):
    """A bed with sockets, whose peer is known."""

    def __init__(self, config: StackConfig = TEST_CONFIG) -> None:
        super().__init__(config)
        self.inet = Inet(self.ip, TcpProt(self.net, self.ip), self.udp)
        self.know_peer()

    def dgram(self, type: int = SOCK_DGRAM, protocol: int = 0) -> Any:
        """Return a new socket, UDP unless told otherwise."""
        return self.inet.inet_create(type, protocol, GROUPS)

    def bound(self, port: int = 53, addr: int = 0, **options: int) -> Any:
        """Return a UDP socket on ``port``; ``reuse=1`` and ``reuseport=1`` set those options."""
        sock = self.dgram()
        for name, value in options.items():
            sock.setsockopt(1, {"reuse": 2, "reuseport": 15}[name], value)
        sock.bind(addr, port)
        return sock

    def comes(self, payload: bytes = b"hi", port: int = 53, **fields: Any) -> None:
        """Let a datagram arrive from the peer's port 4000."""
        self.receive_ip(udp_packet(payload, dport=port, **fields))

    def sent_ip(self) -> list[dpkt.ip.IP]:
        """Return the IP packets sent, pieces put together."""
        self.settle()
        packets = [dpkt.ip.IP(f[14:]) for f in self.take_sent() if f[12:14] == b"\x08\0"]
        whole: list[dpkt.ip.IP] = []
        for packet in packets:
            if packet.offset:
                whole[-1].data = bytes(whole[-1].data) + bytes(packet.data)
            else:
                whole.append(packet)
        return whole

    def sent(self) -> list[tuple[int, int, bytes]]:
        """Return (source port, destination port, payload) of each datagram sent."""
        return [
            (*struct.unpack("!HH", bytes(ip.data)[:4]), bytes(ip.data)[8:]) for ip in self.sent_ip()
        ]

    def refuses(
        self, sport: int, dport: int = 9, icmp_type: int = 3, code: int = 3, info: int = 0
    ) -> None:
        """Let an ICMP error arrive about a datagram that we sent to the peer."""
        quoted = build_ipv4(OURS, PEER, IPPROTO_UDP, 10) + struct.pack(
            "!HHHH2s", sport, dport, 10, 0, b"hi"
        )
        self.receive_ip(icmp_packet(icmp_type, code, info, quoted))
