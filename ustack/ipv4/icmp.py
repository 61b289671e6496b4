"""ICMP: answers to ping, errors in and errors out (RFC 792, RFC 1122 §3.2.2; net/ipv4/icmp.c).

``ip_rcv`` hands messages to ``Icmp.icmp_rcv``. Errors about our own packets go to the
transport's err handler; whoever refuses a packet calls ``Icmp.icmp_send``, which keeps the
rules about when to be silent, and the rate limits (``icmp_limit.py``).
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from struct import Struct
from typing import TYPE_CHECKING

from ustack.core.skb import CHECKSUM_UNNECESSARY, PACKET_HOST, Skb, kfree_skb
from ustack.ipv4.fib import RTN_BROADCAST
from ustack.ipv4.icmp_limit import IcmpLimiter
from ustack.ipv4.icmp_message import icmp_message
from ustack.ipv4.input import ip_addrs
from ustack.ipv4.options import (
    OptionError,
    inet_current_timestamp,
    ip_options_compile,
    ip_options_echo,
)
from ustack.ipv4.output import ip_queue_xmit
from ustack.ipv4.ping import Ping
from ustack.ipv4.route import ip_route_output, ip_rt_update_pmtu
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

ICMP_ERR_CONVERT = {
    0: (errno.ENETUNREACH, False),
    1: (errno.EHOSTUNREACH, False),
    2: (errno.ENOPROTOOPT, True),
    3: (errno.ECONNREFUSED, True),
    4: (errno.EMSGSIZE, False),
    5: (errno.EOPNOTSUPP, False),
    6: (errno.ENETUNREACH, True),
    7: (errno.EHOSTDOWN, True),
    8: (errno.ENONET, True),
    9: (errno.ENETUNREACH, True),
    10: (errno.EHOSTUNREACH, True),
    11: (errno.ENETUNREACH, False),
    12: (errno.EHOSTUNREACH, False),
    13: (errno.EHOSTUNREACH, True),
    14: (errno.EHOSTUNREACH, True),
    15: (errno.EHOSTUNREACH, True),
}
"""Code of a destination unreachable: errno, and whether it is fatal (icmp_err_convert)."""

_TIMES = Struct("!III")
_TTL_AT = 8
_InHandler = Callable[[Skb, IcmpHeader], "DropReason | None"]


class Icmp:
    """ICMP of one stack."""

    def __init__(self, ip: Ipv4) -> None:
        self.ip = ip
        self.net = ip.net
        self.mib = ip.net.mib.icmp
        self.limiter = IcmpLimiter(ip.net, ip.config)
        self.ping = Ping(self)
        self.ping_rcv: Callable[[Skb, int], bool] | None = None
        """Ping sockets: given an echo reply and its identifier, tells whether it was theirs."""
        self.ping_err: Callable[[int, int, int, int, int, memoryview], bool] | None = None
        """Their part of ``icmp_err``: told of an error, tells whether it was about theirs."""
        self.error_from = 0
        """Sender of the error that is being handled: protocols' handlers are not told."""
        self._handlers: dict[int, tuple[str, _InHandler]] = {
            ICMP_ECHOREPLY: ("InEchoReps", self._icmp_echoreply),
            ICMP_DEST_UNREACH: ("InDestUnreachs", self._icmp_unreach),
            ICMP_SOURCE_QUENCH: ("InSrcQuenchs", self._ignore),
            ICMP_REDIRECT: ("InRedirects", self._ignore),
            ICMP_ECHO: ("InEchos", self._icmp_echo),
            ICMP_TIME_EXCEEDED: ("InTimeExcds", self._icmp_unreach),
            ICMP_PARAMETERPROB: ("InParmProbs", self._icmp_unreach),
            ICMP_TIMESTAMP: ("InTimestamps", self._icmp_timestamp),
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
        """What RFC 6633 and RFC 6918 have retired, and redirects: accept_redirects is 0."""
        return DropReason.ICMP_IGNORED

    def _icmp_echoreply(self, skb: Skb, header: IcmpHeader) -> DropReason | None:
        saddr, _ = ip_addrs(skb)
        payload = memoryview(skb.data)[skb.transport_offset + ICMP_HLEN :]
        ttl = skb.data[skb.network_offset + _TTL_AT]
        waited = self.ping.ping_rcv(saddr, ttl, header.info, payload)
        if self.ping_rcv is not None and self.ping_rcv(skb, header.info >> 16):
            waited = True
        return None if waited else DropReason.NO_SOCKET

    def _icmp_echo(self, skb: Skb, header: IcmpHeader) -> DropReason | None:
        """RFC 1122 §3.2.2.6: give back what came, from the address it was sent to."""
        if self.ip.config.icmp_echo_ignore_all:
            return DropReason.ICMP_IGNORED
        message = bytes(memoryview(skb.data)[skb.transport_offset + ICMP_HLEN :])
        # The type changes from 8 to 0, the sum of all words by 0x0800 (RFC 1624).
        total = (~header.csum & 0xFFFF) - (ICMP_ECHO << 8)
        csum = ~(total % 0xFFFF) & 0xFFFF
        reply = build_icmp(ICMP_ECHOREPLY, header.code, header.info, csum) + message
        if self._icmp_reply(skb, reply):
            self.mib.OutEchoReps += 1
        return None

    def _icmp_timestamp(self, skb: Skb, header: IcmpHeader) -> DropReason | None:
        """RFC 792: answer with when it came and when the answer left, here the same time."""
        data = memoryview(skb.data)[skb.transport_offset + ICMP_HLEN :]
        if len(data) < 4:
            return self._in_error(DropReason.ICMP_MALFORMED)
        now_ms = inet_current_timestamp(self.ip)
        times = _TIMES.pack(int.from_bytes(data[:4], "big"), now_ms, now_ms)
        if self._icmp_reply(skb, icmp_message(ICMP_TIMESTAMPREPLY, 0, header.info, times)):
            self.mib.OutTimestampReps += 1
        return None

    def _icmp_reply(self, skb: Skb, reply: bytes) -> bool:
        """Send an answer back the way its question came, options included (icmp_reply)."""
        saddr, daddr = ip_addrs(skb)
        tos = skb.data[skb.network_offset + 1]
        options = self._echo_options(skb, daddr)
        if options is None:
            return False
        return self.icmp_xmit(reply, daddr, saddr, tos=tos, options=options)

    def _echo_options(self, skb: Skb, saddr: int) -> bytes | None:
        options = skb.data[skb.network_offset + IP_HLEN : skb.transport_offset]
        return ip_options_echo(self.ip, bytes(options), saddr) if options else b""

    def _icmp_unreach(self, skb: Skb, header: IcmpHeader) -> DropReason | None:
        """An error about a packet of ours: tell its protocol (icmp_unreach)."""
        embedded = memoryview(skb.data)[skb.transport_offset + ICMP_HLEN :]
        try:
            inner = parse_ipv4(embedded)
        except WireError:
            return self._in_error(DropReason.ICMP_MALFORMED)
        if inner.frag & IP_OFFSET:
            return DropReason.ICMP_IGNORED  # what follows is no transport header
        payload = embedded[inner.ihl :]
        if len(payload) < 8:
            return self._in_error(DropReason.ICMP_MALFORMED)
        handler = self.ip.inet_protos.get(inner.protocol)
        raw = self.ip.raw
        if (handler is None or handler[1] is None) and raw is None:
            return DropReason.ICMP_IGNORED
        self.error_from = ip_addrs(skb)[0]
        about = (header.type, header.code, _error_info(header))
        if raw is not None:
            raw.raw_icmp_error(inner.protocol, *about, inner.saddr, inner.daddr, payload)
        if handler is not None and handler[1] is not None:
            handler[1](*about, inner.saddr, inner.daddr, payload)
        return None

    def icmp_err(
        self, icmp_type: int, code: int, info: int, saddr: int, daddr: int, payload: memoryview
    ) -> None:
        """Take an error about an ICMP message of ours (icmp_err, ping_err).

        Only one about an echo request that still waits is believed: anybody could have made
        up one about anything else (RFC 5927 §4).
        """
        original = parse_icmp(payload)
        if original.type != ICMP_ECHO:
            return
        if self.ping_err is not None and self.ping_err(
            icmp_type, code, info, saddr, daddr, payload
        ):
            return
        narrower = icmp_type == ICMP_DEST_UNREACH and code == ICMP_FRAG_NEEDED
        if narrower and self.ping.awaits(daddr, original.info):
            ip_rt_update_pmtu(self.ip, daddr, info)
        self.ping.ping_err(daddr, original.info, icmp_type, code, info, self.error_from)

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
        options = self._echo_options_of(header, data, saddr or rt.saddr)
        room = min(ICMP_ERROR_BYTES, rt.mtu) - IP_HLEN - len(options) - ICMP_HLEN
        quoted = bytes(data[: min(room, header.tot_len)])
        message = icmp_message(icmp_type, code, info, quoted)
        tos = (header.tos & 0x1E) | IPTOS_PREC_INTERNETCONTROL
        sent = self.icmp_xmit(message, saddr or rt.saddr, header.saddr, tos=tos, options=options)
        if sent:
            self._count_out(icmp_type)
        return sent

    def _echo_options_of(self, header: Ipv4Header, data: memoryview, saddr: int) -> bytes:
        """The options that an error about a received packet carries; about ours, none."""
        options = bytes(data[IP_HLEN : header.ihl])
        if not options or self.ip.is_local_address(header.saddr):
            return b""
        try:
            checked = ip_options_compile(self.ip, options, saddr)
        except OptionError:
            return b""
        if checked.srr:
            return b""
        return ip_options_echo(self.ip, options, saddr) or b""

    def icmp_out_count(self, icmp_type: int) -> None:
        """Count a message that a socket has sent."""
        self.mib.OutMsgs += 1
        if icmp_type == ICMP_ECHO:
            self.mib.OutEchos += 1
        elif icmp_type == ICMP_ECHOREPLY:
            self.mib.OutEchoReps += 1

    def _count_out(self, icmp_type: int) -> None:
        if icmp_type == ICMP_DEST_UNREACH:
            self.mib.OutDestUnreachs += 1
        elif icmp_type == ICMP_TIME_EXCEEDED:
            self.mib.OutTimeExcds += 1
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

    def icmp_xmit(
        self,
        message: bytes,
        saddr: int,
        daddr: int,
        *,
        tos: int = 0,
        ttl: int = 0,
        df: bool = False,
        options: bytes = b"",
    ) -> bool:
        """Send a finished message, in fragments if it is large (icmp_push_reply).

        Args:
            message: Checksum included, at most 65515 bytes.
            saddr: An address of ours; 0 to choose one.
            daddr: Where it goes.
            tos: The type of service byte.
            ttl: 0 for ``ip_default_ttl``.
            df: Forbid fragmentation.
            options: The IP header's options.

        Returns:
            Whether there is a route and it was small enough: else counted in OutErrors.
        """
        ip = self.ip
        rt = ip_route_output(ip, daddr, saddr)
        if rt is None:
            self.mib.OutErrors += 1
            return False
        source = saddr or rt.saddr
        reason = ip_queue_xmit(
            ip, Skb(message), rt, source, daddr, IPPROTO_ICMP,
            tos=tos, ttl=ttl, df=df, options=options,
        )  # fmt: skip
        if reason is DropReason.PKT_TOO_BIG:
            self.mib.OutErrors += 1
            return False
        self.mib.OutMsgs += 1
        return True


def _error_info(header: IcmpHeader) -> int:
    """The next-hop MTU of "fragmentation needed", the pointer of a parameter problem."""
    if header.type == ICMP_DEST_UNREACH and header.code == ICMP_FRAG_NEEDED:
        return header.info & 0xFFFF
    if header.type == ICMP_PARAMETERPROB:
        return header.info >> 24
    return 0
