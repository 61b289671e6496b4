"""A UDP socket: where it hangs, and what it sends (udp_sendmsg, net/ipv4/udp.c)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from ustack.ipv4.datagram import (
    CSUM_NONE_AT,
    IpCookie,
    check_datagram_size,
    datagram_mtu,
    datagram_route,
    ip_send_datagram,
)
from ustack.ipv4.route import Route
from ustack.lib.socket_error import socket_error
from ustack.native.checksum import csum_partial, csum_tcpudp_magic, csum_tcpudp_nofold
from ustack.sock.dgram import Address, DgramSock, ip_local_error
from ustack.sock.sock import SEND_SHUTDOWN
from ustack.wire.ipv4 import IPPROTO_UDP
from ustack.wire.udp import UDP_HLEN, build_udp

if TYPE_CHECKING:
    from ustack.udp.protocol import UdpProt

MSG_OOB = 0x1
MSG_MORE = 0x8000
UDP_CSUM_AT = 6
UDP_MAX_PAYLOAD = 0xFFFF
"""What udp_sendmsg lets pass; IP has the last word, at 65507."""


class Corked:
    """A datagram that grows until the cork comes out (inet->cork, up->pending)."""

    __slots__ = ("cookie", "data", "rt", "to")

    def __init__(self, rt: Route, to: Address, cookie: IpCookie) -> None:
        self.rt = rt
        self.to = to
        self.cookie = cookie
        self.data = bytearray()


class UdpSock(DgramSock):
    """The protocol's half of a UDP socket (struct udp_sock)."""

    __slots__ = ("cork", "corked", "prot")

    def __init__(self, prot: UdpProt) -> None:
        super().__init__(prot.net, prot.ip, IPPROTO_UDP)
        self.prot = prot
        self.cork = False
        """UDP_CORK."""
        self.corked: Corked | None = None

    def get_port(self, port: int) -> None:
        """Take a local port (udp_v4_get_port)."""
        self.prot.table.udp_lib_get_port(self, port, self.net.config.tcp)

    def unhash(self) -> None:
        """Give the port back (udp_lib_unhash)."""
        self.corked = None
        if self.sport:
            self.prot.table.remove(self)
            self.sport = 0

    def rehash(self, rcv_saddr: int) -> None:
        """Be found under another address (udp_v4_rehash)."""
        if self.sport:
            self.prot.table.move(self, rcv_saddr)
        else:
            self.rcv_saddr = rcv_saddr

    def rmem_schedule(self, size: int) -> bool:
        """Ask for memory within udp_mem (udp_rmem_schedule)."""
        return self.prot.memory.schedule(self.rmem_alloc, size)

    def rmem_uncharge(self, size: int) -> None:
        """Give it back (udp_rmem_release)."""
        self.prot.memory.uncharge(self.rmem_alloc, size)

    def received(self, *, peeking: bool) -> None:
        """Count a datagram once it is read, not when it comes (udp_recvmsg)."""
        if not peeking:
            self.prot.mib.InDatagrams += 1

    def sendmsg(self, data: bytes, to: Address | None, flags: int, cookie: IpCookie) -> int:
        """Send a datagram, or add to the one that is corked (udp_sendmsg).

        Raises:
            OSError: EMSGSIZE, EOPNOTSUPP, EDESTADDRREQ, EINVAL (port 0), ENETUNREACH, EACCES
                (a broadcast), EPIPE, EAGAIN (no port is free); an error that an earlier
                datagram met: ECONNREFUSED.
        """
        if len(data) > UDP_MAX_PAYLOAD:
            raise socket_error(errno.EMSGSIZE)
        if flags & MSG_OOB:
            raise socket_error(errno.EOPNOTSUPP)
        corked = self.corked
        if corked is None:
            corked = self._begin(to, cookie)
        self._check_sendable()
        if self.corked is None and not (self.cork or flags & MSG_MORE):
            udp_send_skb(self, corked, data)
            return len(data)
        self._append(corked, data)
        if not (self.cork or flags & MSG_MORE):
            self.push_pending_frames()
        return len(data)

    def _begin(self, to: Address | None, cookie: IpCookie) -> Corked:
        if to is None:
            if not self.connected:
                raise socket_error(errno.EDESTADDRREQ)
            to = (self.daddr, self.dport)
        elif not to[1]:
            raise socket_error(errno.EINVAL)
        if not self.sport:
            try:
                self.get_port(0)
            except OSError:
                raise socket_error(errno.EAGAIN) from None
        rt = datagram_route(self.ip, to[0], cookie)
        return Corked(rt, (rt.daddr, to[1]), cookie)

    def _check_sendable(self) -> None:
        """What sock_alloc_send_pskb looks at."""
        if self.sk_err:
            raise socket_error(self.take_error())
        if self.shutdown & SEND_SHUTDOWN:
            raise socket_error(errno.EPIPE)

    def _append(self, corked: Corked, data: bytes) -> None:
        """Let the corked datagram grow; one that grows too large is lost (ip_append_data)."""
        try:
            length = UDP_HLEN + len(corked.data) + len(data)
            check_datagram_size(corked.rt, length, corked.cookie.pmtudisc)
        except OSError:
            self.corked = None
            raise
        corked.data += data
        self.corked = corked

    def push_pending_frames(self) -> None:
        """Send what is corked, if anything is (udp_push_pending_frames)."""
        corked, self.corked = self.corked, None
        if corked is not None:
            udp_send_skb(self, corked, bytes(corked.data))


def udp_send_skb(sk: UdpSock, corked: Corked, data: bytes) -> None:
    """Put the header in front, count, and hand it to IP (udp_send_skb).

    The device sums what goes in one packet; what is cut is summed here. RFC 768: a sum of 0
    is sent as all ones.
    """
    rt, (daddr, dport), cookie = corked.rt, corked.to, corked.cookie
    length = UDP_HLEN + len(data)
    try:
        fits = check_datagram_size(rt, length, cookie.pmtudisc)
    except OSError:
        ip_local_error(sk, errno.EMSGSIZE, datagram_mtu(rt, cookie.pmtudisc), (daddr, dport))
        raise
    saddr = cookie.saddr or rt.saddr
    csum, csum_at = 0, CSUM_NONE_AT
    if fits and not sk.no_check_tx:
        csum = csum_tcpudp_nofold(saddr, daddr, length, IPPROTO_UDP, 0)
        csum_at = UDP_CSUM_AT
    packet = build_udp(sk.sport, dport, len(data), csum) + data
    if not fits and not sk.no_check_tx:
        total = csum_partial(packet)
        csum = csum_tcpudp_magic(saddr, daddr, length, IPPROTO_UDP, total) or 0xFFFF
        packet = build_udp(sk.sport, dport, len(data), csum) + data
    mib = sk.prot.mib
    err = ip_send_datagram(sk.ip, rt, daddr, IPPROTO_UDP, packet, cookie, csum_at)
    if not err:
        mib.OutDatagrams += 1
        return
    mib.SndbufErrors += 1
    if sk.recverr:
        raise socket_error(err)
