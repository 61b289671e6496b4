"""ICMP: answers to ping, errors in and errors out (RFC 792, RFC 1122 §3.2.2; net/ipv4/icmp.c).

``ip_rcv`` hands messages to ``Icmp.icmp_rcv``. Errors about our own packets go to the
transport's err handler; whoever refuses a packet calls ``Icmp.icmp_send``, which keeps the
rules about when to be silent, and the rate limits (``icmp_limit.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ustack.core.skb import CHECKSUM_UNNECESSARY, PACKET_HOST, Skb, kfree_skb
from ustack.ipv4.fib import RTN_BROADCAST
from ustack.ipv4.icmp_limit import IcmpLimiter
from ustack.ipv4.input import ip_addrs
from ustack.ipv4.output import ip_queue_xmit
from ustack.ipv4.route import ip_route_output
from ustack.lib.addresses import INADDR_BROADCAST, is_multicast, is_zeronet
from ustack.lib.drop_reason import DropReason
from ustack.native.checksum import csum_fold, csum_partial
from ustack.wire.errors import WireError
from ustack.wire.icmp import (
    ICMP_ADDRESS,
    ICMP_ADDRESSREPLY,
    ICMP_DEST_UNREACH,
    ICMP_ECHO,
    ICMP_ECHOREPLY,
    ICMP_ERROR_TYPES,
    ICMP_FRAG_NEEDED,
    ICMP_HLEN,
    ICMP_PARAMETERPROB,
    ICMP_REDIRECT,
    ICMP_SOURCE_QUENCH,
    ICMP_TIME_EXCEEDED,
    ICMP_TIMESTAMP,
    ICMP_TIMESTAMPREPLY,
    IcmpHeader,
    build_icmp,
    parse_icmp,
)
from ustack.wire.ipv4 import IP_HLEN, IP_OFFSET, IPPROTO_ICMP, Ipv4Header, parse_ipv4

if TYPE_CHECKING:
    from ustack.ipv4.protocol import Ipv4

NR_ICMP_TYPES = 18
"""Larger types are not known to RFC 792 and its successors that we follow."""
ICMP_ERROR_BYTES = 576
"""RFC 1812 §4.3.2.3: an error quotes as much as fits a datagram of this size."""
IPTOS_PREC_INTERNETCONTROL = 0xC0
"""RFC 1812 §4.3.2.5: the precedence of errors."""

_InHandler = Callable[[Skb, IcmpHeader], "DropReason | None"]


class Icmp:
    """ICMP of one stack."""

    def __init__(self, ip: Ipv4) -> None:
        self.ip = ip
        self.net = ip.net
        self.mib = ip.net.mib.icmp
        self.limiter = IcmpLimiter(ip.net, ip.config)
        self._handlers: dict[int, tuple[str, _InHandler]] = {
            ICMP_ECHOREPLY: ("InEchoReps", self._unclaimed),
            ICMP_DEST_UNREACH: ("InDestUnreachs", self._icmp_unreach),
            ICMP_SOURCE_QUENCH: ("InSrcQuenchs", self._ignore),
            ICMP_REDIRECT: ("InRedirects", self._ignore),
            ICMP_ECHO: ("InEchos", self._icmp_echo),
            ICMP_TIME_EXCEEDED: ("InTimeExcds", self._icmp_unreach),
            ICMP_PARAMETERPROB: ("InParmProbs", self._icmp_unreach),
            ICMP_TIMESTAMP: ("InTimestamps", self._ignore),
            ICMP_TIMESTAMPREPLY: ("InTimestampReps", self._ignore),
            ICMP_ADDRESS: ("InAddrMasks", self._ignore),
            ICMP_ADDRESSREPLY: ("InAddrMaskReps", self._ignore),
        }

    # In.

    def icmp_rcv(self, skb: Skb) -> None:
        """Take an ICMP packet; it is consumed."""
        self.mib.InMsgs += 1
        reason = self._icmp_input(skb)
        if reason is not None:
            kfree_skb(self.net, skb, reason)

    def _icmp_input(self, skb: Skb) -> DropReason | None:
        message = memoryview(skb.data)[skb.transport_offset :]
        if skb.ip_summed != CHECKSUM_UNNECESSARY and csum_fold(csum_partial(message)):
            self.mib.InCsumErrors += 1
            return self._in_error(DropReason.ICMP_CSUM)
        try:
            header = parse_icmp(message)
        except WireError as error:
            return self._in_error(error.reason)
        entry = self._handlers.get(header.type)
        if entry is None:
            return self._in_error(DropReason.ICMP_IGNORED)
        counter, handler = entry
        setattr(self.mib, counter, getattr(self.mib, counter) + 1)
        if self._is_to_many(skb):
            # RFC 1122 §3.2.2.6, §3.2.2.8: silence is allowed, and wise (smurf attacks).
            return self._in_error(DropReason.ICMP_IGNORED)
        return handler(skb, header)

    def _in_error(self, reason: DropReason) -> DropReason:
        self.mib.InErrors += 1
        return reason

    def _is_to_many(self, skb: Skb) -> bool:
        """Whether the packet was sent to a broadcast or multicast address of either layer."""
        return skb.pkt_type != PACKET_HOST or not self.ip.is_local_address(ip_addrs(skb)[1])

    def _ignore(self, skb: Skb, header: IcmpHeader) -> DropReason | None:
        return DropReason.ICMP_IGNORED

    def _unclaimed(self, skb: Skb, header: IcmpHeader) -> DropReason | None:
        """An echo reply: nobody here pings."""
        return DropReason.NO_SOCKET

    def _icmp_echo(self, skb: Skb, header: IcmpHeader) -> DropReason | None:
        """RFC 1122 §3.2.2.6: give back what came, from the address it was sent to."""
        if self.ip.config.icmp_echo_ignore_all:
            return DropReason.ICMP_IGNORED
        saddr, daddr = ip_addrs(skb)
        message = bytes(memoryview(skb.data)[skb.transport_offset + ICMP_HLEN :])
        # The type changes from 8 to 0, the sum of all words by 0x0800 (RFC 1624).
        total = (~header.csum & 0xFFFF) - (ICMP_ECHO << 8)
        csum = ~(total % 0xFFFF) & 0xFFFF
        reply = build_icmp(ICMP_ECHOREPLY, header.code, header.info, csum) + message
        tos = skb.data[skb.network_offset + 1]
        if self._icmp_xmit(reply, daddr, saddr, tos):
            self.mib.OutEchoReps += 1
        return None

    def _icmp_unreach(self, skb: Skb, header: IcmpHeader) -> DropReason | None:
        """An error about a packet of ours: tell its protocol (icmp_unreach)."""
        embedded = memoryview(skb.data)[skb.transport_offset + ICMP_HLEN :]
        try:
            inner = parse_ipv4(embedded)
        except WireError:
            return self._in_error(DropReason.ICMP_MALFORMED)
        payload = embedded[inner.ihl :]
        if len(payload) < 8:
            return self._in_error(DropReason.ICMP_MALFORMED)
        handler = self.ip.inet_protos.get(inner.protocol)
        if handler is None or handler[1] is None:
            return DropReason.ICMP_IGNORED
        info = self._error_info(header, inner)
        handler[1](header.type, header.code, info, inner.saddr, inner.daddr, payload)
        return None

    def _error_info(self, header: IcmpHeader, inner: Ipv4Header) -> int:
        """The next-hop MTU of "fragmentation needed", the pointer of a parameter problem."""
        if header.type == ICMP_DEST_UNREACH and header.code == ICMP_FRAG_NEEDED:
            return header.info & 0xFFFF
        if header.type == ICMP_PARAMETERPROB:
            return header.info >> 24
        return 0

    # Out.

    def icmp_send(self, skb: Skb, icmp_type: int, code: int, info: int) -> bool:
        """Send an error about ``skb``, which stays the caller's (icmp_send).

        Args:
            skb: A received packet, or one of ours that could not be sent.
            icmp_type: ICMP_DEST_UNREACH, ICMP_TIME_EXCEEDED or ICMP_PARAMETERPROB.
            code: Its code.
            info: Bytes 4 to 7 of the message.

        Returns:
            Whether one was sent; RFC 1122 §3.2.2 and the rate limits may forbid it.
        """
        data = memoryview(skb.data)[skb.network_offset :]
        try:
            header = parse_ipv4(data)
        except WireError:
            return False
        if not self._may_send_about(skb, header, data):
            return False
        ip = self.ip
        saddr = header.daddr if ip.is_local_address(header.daddr) else 0
        rt = ip_route_output(ip, header.saddr, saddr)
        if rt is None:
            self.mib.OutErrors += 1
            return False
        if not self.limiter.allow(rt, icmp_type, code):
            return False
        room = min(ICMP_ERROR_BYTES, rt.mtu) - IP_HLEN - ICMP_HLEN
        quoted = bytes(data[: min(room, header.tot_len)])
        csum = csum_fold(csum_partial(build_icmp(icmp_type, code, info) + quoted))
        tos = (header.tos & 0x1E) | IPTOS_PREC_INTERNETCONTROL
        message = build_icmp(icmp_type, code, info, csum) + quoted
        sent = self._icmp_xmit(message, saddr or rt.saddr, header.saddr, tos)
        if sent:
            self._count_out(icmp_type)
        return sent

    def _count_out(self, icmp_type: int) -> None:
        if icmp_type == ICMP_DEST_UNREACH:
            self.mib.OutDestUnreachs += 1
        elif icmp_type == ICMP_PARAMETERPROB:
            self.mib.OutParmProbs += 1

    def _may_send_about(self, skb: Skb, header: Ipv4Header, data: memoryview) -> bool:
        """RFC 1122 §3.2.2: no error about an error, a broadcast, a fragment or a nobody."""
        if skb.pkt_type != PACKET_HOST or header.frag & IP_OFFSET:
            return False
        if is_multicast(header.daddr) or self._is_broadcast(header.daddr):
            return False
        if header.saddr >> 28 >= 14 or is_zeronet(header.saddr):
            return False
        if header.protocol != IPPROTO_ICMP:
            return True
        if len(data) <= header.ihl:
            return False
        inner_type = data[header.ihl]
        return inner_type <= NR_ICMP_TYPES and inner_type not in ICMP_ERROR_TYPES

    def _is_broadcast(self, addr: int) -> bool:
        entry = self.ip.fib.local.lookup(addr)
        return addr == INADDR_BROADCAST or (entry is not None and entry.rt_type == RTN_BROADCAST)

    def _icmp_xmit(self, message: bytes, saddr: int, daddr: int, tos: int) -> bool:
        """Send a finished message; return whether it went to the IP layer."""
        ip = self.ip
        rt = ip_route_output(ip, daddr, saddr)
        if rt is None:
            self.mib.OutErrors += 1
            return False
        self.mib.OutMsgs += 1
        ttl = ip.config.ip_default_ttl
        ip_queue_xmit(ip, Skb(message), rt, saddr, daddr, IPPROTO_ICMP, tos=tos, ttl=ttl, df=False)
        return True
