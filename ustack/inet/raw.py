"""Raw sockets: IP packets of one protocol, whole (net/ipv4/raw.c).

Every packet for us goes to each raw socket of its protocol as well, before the protocol itself
has it. What is sent gets an IP header in front, or with IP_HDRINCL has one.
"""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING

from ustack.core.skb import Skb
from ustack.ipv4.datagram import IpCookie, datagram_route, ip_send_datagram
from ustack.ipv4.input import ip_addrs
from ustack.ipv4.output import ip_send_hdrincl
from ustack.ipv4.route import Route
from ustack.lib.socket_error import socket_error
from ustack.native.checksum import ip_fast_csum
from ustack.sock import dgram_options
from ustack.sock.dgram import Address, Datagram, DgramSock, ip_icmp_error, sock_queue_rcv_skb
from ustack.sock.dgram_options import IP_HDRINCL, IPPROTO_IP, Getters, Setters
from ustack.udp.protocol import icmp_errno
from ustack.wire.ipv4 import IP_HLEN, IP_MAX_LEN, IPPROTO_ICMP

if TYPE_CHECKING:
    from ustack.core.net import Net
    from ustack.ipv4.protocol import Ipv4

MSG_OOB = 0x1
IPPROTO_RAW = 255
SOL_RAW = 255
ICMP_FILTER = 1
"""A set of ICMP types that a socket does not want, one bit each."""

_U16 = Struct("!H")


class RawProt:
    """The raw sockets of one stack (struct raw_hashinfo)."""

    def __init__(self, net: Net, ip: Ipv4) -> None:
        self.net = net
        self.ip = ip
        self.socks: dict[int, list[RawSock]] = {}
        """By protocol number."""
        ip.raw = self

    def create(self, protocol: int) -> RawSock:
        """Make a socket that has every packet of ``protocol``, but for IPPROTO_RAW."""
        sk = RawSock(self, protocol)
        self.socks.setdefault(protocol, []).append(sk)
        return sk

    def raw_local_deliver(self, skb: Skb, protocol: int) -> bool:
        """Give each socket that wants it a copy; return whether one did (raw_v4_input)."""
        socks = self.socks.get(protocol)
        if not socks:
            return False
        saddr, daddr = ip_addrs(skb)
        delivered = False
        for sk in tuple(socks):
            if sk.matches(saddr, daddr):
                delivered = True
                if not (protocol == IPPROTO_ICMP and sk.filters(skb.data[skb.transport_offset])):
                    raw_rcv(sk, skb, saddr, daddr)
        return delivered

    def raw_icmp_error(
        self, protocol: int, icmp_type: int, code: int, info: int, saddr: int, daddr: int,
        payload: memoryview,
    ) -> None:  # fmt: skip
        """Tell the sockets that may have sent it of an ICMP error about a packet (raw_err)."""
        err, fatal = icmp_errno(icmp_type, code)
        for sk in self.socks.get(protocol, ()):
            if not err or not sk.matches(daddr, saddr):
                continue
            if sk.recverr:
                ip_icmp_error(sk, icmp_type, code, err, info, bytes(payload), (daddr, 0))
            if sk.recverr or (fatal and sk.connected):
                sk.sk_err = err
                sk.sk_error_report()


class RawSock(DgramSock):
    """The protocol's half of a raw socket; its port is its protocol number."""

    __slots__ = ("icmp_filter", "prot")

    binds_late = True

    def __init__(self, prot: RawProt, protocol: int) -> None:
        super().__init__(prot.net, prot.ip, protocol)
        self.prot = prot
        self.sport = protocol
        self.hdrincl = protocol == IPPROTO_RAW
        self.icmp_filter = 0

    def unhash(self) -> None:
        """Receive no more (raw_unhash_sk)."""
        socks = self.prot.socks.get(self.protocol, [])
        if self in socks:
            socks.remove(self)

    def matches(self, saddr: int, daddr: int) -> bool:
        """Whether packets from ``saddr`` to ``daddr`` are for this socket (raw_v4_match)."""
        return self.rcv_saddr in (0, daddr) and self.daddr in (0, saddr)

    def filters(self, icmp_type: int) -> bool:
        """Whether ICMP_FILTER keeps a type away."""
        return icmp_type < 32 and bool(self.icmp_filter >> icmp_type & 1)

    def sendmsg(self, data: bytes, to: Address | None, flags: int, cookie: IpCookie) -> int:
        """Send a packet (raw_sendmsg).

        Raises:
            OSError: EMSGSIZE, EOPNOTSUPP, EDESTADDRREQ, ENETUNREACH, EACCES (a broadcast);
                EINVAL, a header of the application's own that is none.
        """
        if len(data) > IP_MAX_LEN:
            raise socket_error(errno.EMSGSIZE)
        if flags & MSG_OOB:
            raise socket_error(errno.EOPNOTSUPP)
        if to is None and not self.connected:
            raise socket_error(errno.EDESTADDRREQ)
        if self.sk_err:
            raise socket_error(self.take_error())
        daddr = to[0] if to is not None else self.daddr
        rt = datagram_route(self.ip, daddr, cookie)
        if self.hdrincl:
            self._send_hdrincl(data, rt, cookie)
        else:
            err = ip_send_datagram(self.ip, rt, rt.daddr, self.protocol, data, cookie)
            if self.protocol == IPPROTO_ICMP and data and not err:
                self.ip.icmp.icmp_out_count(data[0])
        return len(data)

    def _send_hdrincl(self, data: bytes, rt: Route, cookie: IpCookie) -> None:
        """Complete the application's IP header: length, checksum, what is 0 (raw_send_hdrinc)."""
        if len(data) > rt.dev.mtu:
            raise socket_error(errno.EMSGSIZE)
        ihl = (data[0] & 15) * 4 if len(data) >= IP_HLEN else 0
        if not IP_HLEN <= ihl <= len(data):
            raise socket_error(errno.EINVAL)
        packet = bytearray(data)
        _U16.pack_into(packet, 2, len(data))
        if not any(packet[4:6]):
            _U16.pack_into(packet, 4, rt.ident)
            rt.ident = rt.ident + 1 & 0xFFFF
        if not any(packet[12:16]):
            packet[12:16] = (cookie.saddr or rt.saddr).to_bytes(4, "big")
        _U16.pack_into(packet, 10, 0)
        _U16.pack_into(packet, 10, ip_fast_csum(packet[:ihl]))
        ip_send_hdrincl(self.ip, Skb(bytes(packet)), rt, ihl)


def raw_rcv(sk: RawSock, skb: Skb, saddr: int, daddr: int) -> None:
    """Queue a packet, its IP header first."""
    datagram = Datagram(bytes(memoryview(skb.data)[skb.network_offset :]), saddr, 0, daddr)
    datagram.note_header(skb)
    sock_queue_rcv_skb(sk, datagram)


def _set_hdrincl(sk: RawSock, value: int) -> None:
    sk.hdrincl = bool(value)


def _set_icmp_filter(sk: RawSock, value: int) -> None:
    sk.icmp_filter = value & 0xFFFFFFFF


SETTERS: Setters = {
    **dgram_options.SETTERS,
    (IPPROTO_IP, IP_HDRINCL): _set_hdrincl,
    (SOL_RAW, ICMP_FILTER): _set_icmp_filter,
}
GETTERS: Getters = {
    **dgram_options.GETTERS,
    (IPPROTO_IP, IP_HDRINCL): lambda sk: int(sk.hdrincl),
    (SOL_RAW, ICMP_FILTER): lambda sk: sk.icmp_filter,
}
