"""UDP in: check a datagram, find its socket, queue it or refuse it (RFC 768, net/ipv4/udp.c).

``ip_rcv`` calls ``UdpProt.udp_rcv``. RFC 1122 §4.1.3.1: a datagram for a port that nobody has
is answered with an ICMP port unreachable. ``udp_err`` takes such answers to our own.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from ustack.core.skb import CHECKSUM_UNNECESSARY, Skb, consume_skb, kfree_skb
from ustack.ipv4.datagram import IP_PMTUDISC_DONT
from ustack.ipv4.icmp import ICMP_ERR_CONVERT
from ustack.ipv4.input import ip_addrs
from ustack.ipv4.route import ip_rt_update_pmtu
from ustack.lib.drop_reason import DropReason
from ustack.native.checksum import csum_partial, csum_tcpudp_magic
from ustack.sock.dgram import Datagram, ip_icmp_error, sock_queue_rcv_skb
from ustack.udp.mem import UdpMemory
from ustack.udp.sock import UdpSock
from ustack.udp.table import UdpTable
from ustack.wire.errors import WireError
from ustack.wire.icmp import (
    ICMP_DEST_UNREACH,
    ICMP_FRAG_NEEDED,
    ICMP_PARAMETERPROB,
    ICMP_PORT_UNREACH,
    ICMP_TIME_EXCEEDED,
)
from ustack.wire.ipv4 import IPPROTO_UDP
from ustack.wire.udp import UDP_HLEN, UdpHeader, parse_udp

if TYPE_CHECKING:
    from ustack.core.net import Net
    from ustack.ipv4.protocol import Ipv4


class UdpProt:
    """UDP of one stack."""

    def __init__(self, net: Net, ip: Ipv4) -> None:
        self.net = net
        self.ip = ip
        self.mib = net.mib.udp
        self.table = UdpTable(net.rng)
        self.memory = UdpMemory(net)
        ip.inet_add_protocol(IPPROTO_UDP, self.udp_rcv, self.udp_err)

    def create(self) -> UdpSock:
        """Make a socket that has no port yet (udp_init_sock)."""
        return UdpSock(self)

    # In.

    def udp_rcv(self, skb: Skb) -> None:
        """Take a datagram; it is consumed (__udp4_lib_rcv)."""
        try:
            header = parse_udp(skb.data, skb.transport_offset)
        except WireError as error:
            self.mib.InErrors += 1
            kfree_skb(self.net, skb, error.reason)
            return
        saddr, daddr = ip_addrs(skb)
        if not self._checksum_is_good(skb, header, saddr, daddr):
            self.mib.InCsumErrors += 1
            self.mib.InErrors += 1
            kfree_skb(self.net, skb, DropReason.UDP_CSUM)
            return
        if not self.ip.is_local_address(daddr):
            self._deliver_to_many(skb, header, saddr, daddr)
            return
        sk = self.table.lookup(saddr, header.source, daddr, header.dest)
        if sk is not None:
            self._queue_rcv_skb(sk, skb, header, saddr, daddr)
            return
        self.mib.NoPorts += 1
        self.ip.icmp.icmp_send(skb, ICMP_DEST_UNREACH, ICMP_PORT_UNREACH, 0)
        kfree_skb(self.net, skb, DropReason.NO_SOCKET)

    def _checksum_is_good(self, skb: Skb, header: UdpHeader, saddr: int, daddr: int) -> bool:
        """0 means that the sender has not computed one."""
        if header.csum == 0 or skb.ip_summed == CHECKSUM_UNNECESSARY:
            return True
        start = skb.transport_offset
        total = csum_partial(memoryview(skb.data)[start : start + header.length])
        return csum_tcpudp_magic(saddr, daddr, header.length, IPPROTO_UDP, total) == 0

    def _deliver_to_many(self, skb: Skb, header: UdpHeader, saddr: int, daddr: int) -> None:
        """A broadcast: every socket on the port has its own (__udp4_lib_mcast_deliver)."""
        socks = self.table.lookup_to_many(saddr, header.source, daddr, header.dest)
        if not socks:
            self.mib.IgnoredMulti += 1
            kfree_skb(self.net, skb, DropReason.NO_SOCKET)
        for sk in socks:
            self._queue_rcv_skb(sk, skb, header, saddr, daddr)

    def _queue_rcv_skb(
        self, sk: UdpSock, skb: Skb, header: UdpHeader, saddr: int, daddr: int
    ) -> None:
        """Queue a datagram, or drop it because the buffer is full, or udp_mem is exhausted
        (__udp_queue_rcv_skb)."""
        at = skb.transport_offset
        data = bytes(memoryview(skb.data)[at + UDP_HLEN : at + header.length])
        datagram = Datagram(data, saddr, header.source, daddr)
        if sk.pktinfo or sk.recvttl or sk.recvtos:
            datagram.note_header(skb)
        error = sock_queue_rcv_skb(sk, datagram)
        if not error:
            consume_skb(self.net, skb)
            return
        self.mib.InErrors += 1
        if error == errno.ENOMEM:
            self.mib.RcvbufErrors += 1
            kfree_skb(self.net, skb, DropReason.SOCKET_RCVBUFF)
        else:
            self.mib.MemErrors += 1
            kfree_skb(self.net, skb, DropReason.PROTO_MEM)

    # Errors.

    def udp_err(
        self, icmp_type: int, code: int, info: int, saddr: int, daddr: int, payload: memoryview
    ) -> None:
        """Take an ICMP error about a datagram of ours (__udp4_lib_err).

        A connected socket learns of it by its next call (RFC 1122 §4.1.3.3), another only if
        it has asked by IP_RECVERR.
        """
        sport = int.from_bytes(payload[0:2], "big")
        dport = int.from_bytes(payload[2:4], "big")
        sk = self.table.lookup(daddr, dport, saddr, sport)
        if sk is None:
            return
        err, fatal = icmp_errno(icmp_type, code)
        if (icmp_type, code) == (ICMP_DEST_UNREACH, ICMP_FRAG_NEEDED):
            ip_rt_update_pmtu(self.ip, daddr, info)
            if sk.pmtudisc == IP_PMTUDISC_DONT:
                return
            fatal = True
        if not err:
            return
        if sk.recverr:
            ip_icmp_error(sk, icmp_type, code, err, info, bytes(payload[UDP_HLEN:]), (daddr, dport))
        elif not fatal or not sk.connected:
            return
        sk.sk_err = err
        sk.sk_error_report()


def icmp_errno(icmp_type: int, code: int) -> tuple[int, bool]:
    """Return the errno that an ICMP error means, 0 for none, and whether it is fatal."""
    if icmp_type == ICMP_DEST_UNREACH:
        return ICMP_ERR_CONVERT.get(code, (errno.EHOSTUNREACH, False))
    if icmp_type == ICMP_TIME_EXCEEDED:
        return errno.EHOSTUNREACH, False
    if icmp_type == ICMP_PARAMETERPROB:
        return errno.EPROTO, True
    return 0, False
