"""UDP without sockets: every datagram is checked and refused (RFC 768, net/ipv4/udp.c).

RFC 1122 §4.1.3.1: a datagram for a port that nobody listens on is answered with an ICMP
port unreachable. ``ip_rcv`` calls ``UdpProt.udp_rcv``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.core.skb import CHECKSUM_UNNECESSARY, Skb, kfree_skb
from ustack.ipv4.input import ip_addrs
from ustack.lib.drop_reason import DropReason
from ustack.native.checksum import csum_partial, csum_tcpudp_magic
from ustack.wire.errors import WireError
from ustack.wire.icmp import ICMP_DEST_UNREACH, ICMP_PORT_UNREACH
from ustack.wire.ipv4 import IPPROTO_UDP
from ustack.wire.udp import UdpHeader, parse_udp

if TYPE_CHECKING:
    from ustack.core.net import Net
    from ustack.ipv4.protocol import Ipv4


class UdpProt:
    """UDP of one stack."""

    def __init__(self, net: Net, ip: Ipv4) -> None:
        self.net = net
        self.ip = ip
        self.mib = net.mib.udp
        ip.inet_add_protocol(IPPROTO_UDP, self.udp_rcv, None)

    def udp_rcv(self, skb: Skb) -> None:
        """Take a datagram; it is consumed (__udp4_lib_rcv)."""
        try:
            header = parse_udp(skb.data, skb.transport_offset)
        except WireError as error:
            self.mib.InErrors += 1
            kfree_skb(self.net, skb, error.reason)
            return
        if not self._checksum_is_good(skb, header):
            self.mib.InCsumErrors += 1
            self.mib.InErrors += 1
            kfree_skb(self.net, skb, DropReason.UDP_CSUM)
            return
        self.mib.NoPorts += 1
        self.ip.icmp.icmp_send(skb, ICMP_DEST_UNREACH, ICMP_PORT_UNREACH, 0)
        kfree_skb(self.net, skb, DropReason.NO_SOCKET)

    def _checksum_is_good(self, skb: Skb, header: UdpHeader) -> bool:
        """0 means that the sender has not computed one."""
        if header.csum == 0 or skb.ip_summed == CHECKSUM_UNNECESSARY:
            return True
        start = skb.transport_offset
        total = csum_partial(memoryview(skb.data)[start : start + header.length])
        saddr, daddr = ip_addrs(skb)
        return csum_tcpudp_magic(saddr, daddr, header.length, IPPROTO_UDP, total) == 0
