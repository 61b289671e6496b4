"""Ping sockets: ICMP echo for everybody, SOCK_DGRAM with IPPROTO_ICMP (net/ipv4/ping.c).

A socket sends echo requests only; the stack puts in its identifier, which is its port, and the
checksum. It receives the replies with that identifier, ICMP header first.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from ustack.core.skb import Skb
from ustack.ipv4.datagram import IpCookie, datagram_route, ip_send_datagram
from ustack.ipv4.icmp_message import icmp_message
from ustack.ipv4.input import ip_addrs
from ustack.ipv4.route import ip_rt_update_pmtu
from ustack.lib.socket_error import socket_error
from ustack.sock.dgram import Address, Datagram, DgramSock, ip_icmp_error, sock_queue_rcv_skb
from ustack.udp.protocol import icmp_errno
from ustack.wire.icmp import (
    ICMP_DEST_UNREACH,
    ICMP_ECHO,
    ICMP_FRAG_NEEDED,
    ICMP_HLEN,
    parse_icmp,
)
from ustack.wire.ipv4 import IP_MAX_LEN, IPPROTO_ICMP

if TYPE_CHECKING:
    from ustack.core.net import Net
    from ustack.ipv4.protocol import Ipv4

MSG_OOB = 0x1
IDENTS = 1 << 16


class PingProt:
    """The ping sockets of one stack (struct ping_table)."""

    def __init__(self, net: Net, ip: Ipv4) -> None:
        self.net = net
        self.ip = ip
        self.table: dict[int, list[PingSock]] = {}
        """By identifier."""
        self.rover = 0
        """The identifier given out last; 0: none yet."""
        ip.icmp.ping_rcv = self.ping_rcv
        ip.icmp.ping_err = self.ping_err

    def create(self) -> PingSock:
        """Make a socket that has no identifier yet (ping_init_sock)."""
        return PingSock(self)

    def ping_lookup(self, ident: int, saddr: int, daddr: int) -> PingSock | None:
        """Find the socket for a reply from ``saddr`` to us."""
        for sk in self.table.get(ident, ()):
            if sk.rcv_saddr in (0, daddr) and sk.daddr in (0, saddr):
                return sk
        return None

    def ping_rcv(self, skb: Skb, ident: int) -> bool:
        """Queue an echo reply; return whether it was some socket's."""
        saddr, daddr = ip_addrs(skb)
        sk = self.ping_lookup(ident, saddr, daddr)
        if sk is None:
            return False
        message = bytes(memoryview(skb.data)[skb.transport_offset :])
        datagram = Datagram(message, saddr, 0, daddr)
        datagram.note_header(skb)
        sock_queue_rcv_skb(sk, datagram)
        return True

    def ping_err(
        self, icmp_type: int, code: int, info: int, saddr: int, daddr: int, payload: memoryview
    ) -> bool:
        """Take an ICMP error about an echo request; return whether it was some socket's."""
        sk = self.ping_lookup(parse_icmp(payload).info >> 16, daddr, saddr)
        if sk is None:
            return False
        err, fatal = icmp_errno(icmp_type, code)
        if (icmp_type, code) == (ICMP_DEST_UNREACH, ICMP_FRAG_NEEDED):
            ip_rt_update_pmtu(self.ip, daddr, info)
        if err and (sk.recverr or (fatal and sk.connected)):
            if sk.recverr:
                ip_icmp_error(sk, icmp_type, code, err, info, bytes(payload), (daddr, 0))
            sk.sk_err = err
            sk.sk_error_report()
        return True

    def free_ident(self) -> int:
        """Return the next identifier that nobody has.

        Raises:
            OSError: EADDRINUSE.
        """
        self.rover = self.rover or self.net.rng.getrandbits(16)
        for _ in range(IDENTS):
            self.rover = self.rover + 1 & 0xFFFF
            if self.rover and self.rover not in self.table:
                return self.rover
        raise socket_error(errno.EADDRINUSE)


class PingSock(DgramSock):
    """The protocol's half of a ping socket; its port is its identifier."""

    __slots__ = ("prot",)

    def __init__(self, prot: PingProt) -> None:
        super().__init__(prot.net, prot.ip, IPPROTO_ICMP)
        self.prot = prot

    def get_port(self, port: int) -> None:
        """Take an identifier (ping_get_port); SO_REUSEADDR on both sides shares one."""
        port = port or self.prot.free_ident()
        if any(not (sk.reuse and self.reuse) for sk in self.prot.table.get(port, ())):
            raise socket_error(errno.EADDRINUSE)
        self.sport = port
        self.prot.table.setdefault(port, []).insert(0, self)

    def unhash(self) -> None:
        """Give the identifier back (ping_unhash)."""
        socks = self.prot.table.get(self.sport, [])
        if self in socks:
            socks.remove(self)
            if not socks:
                del self.prot.table[self.sport]
        self.sport = 0

    def sendmsg(self, data: bytes, to: Address | None, flags: int, cookie: IpCookie) -> int:
        """Send an echo request (ping_v4_sendmsg).

        Raises:
            OSError: EINVAL, not an echo request of code 0; EMSGSIZE, EOPNOTSUPP,
                EDESTADDRREQ, ENETUNREACH, EACCES (a broadcast).
        """
        if len(data) > IP_MAX_LEN:
            raise socket_error(errno.EMSGSIZE)
        if len(data) < ICMP_HLEN or (data[0], data[1]) != (ICMP_ECHO, 0):
            raise socket_error(errno.EINVAL)
        if flags & MSG_OOB:
            raise socket_error(errno.EOPNOTSUPP)
        if to is None and not self.connected:
            raise socket_error(errno.EDESTADDRREQ)
        if not self.sport:
            self.get_port(0)
        if self.sk_err:
            raise socket_error(self.take_error())
        rt = datagram_route(self.ip, to[0] if to is not None else self.daddr, cookie)
        info = self.sport << 16 | int.from_bytes(data[6:8], "big")
        body = data[ICMP_HLEN:]
        message = icmp_message(ICMP_ECHO, 0, info, body)
        if not ip_send_datagram(self.ip, rt, rt.daddr, IPPROTO_ICMP, message, cookie):
            self.ip.icmp.icmp_out_count(ICMP_ECHO)
        return len(data)
