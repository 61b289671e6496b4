"""Asking whether a host is there: ICMP echo requests of our own (net/ipv4/ping.c).

An application calls ``ip.icmp.ping.send_echo`` and is called back once: with the reply, with
an ICMP error about the request, or when its time is over. ``icmp.py`` brings replies and errors
here; requests go out by ``icmp_xmit``, in fragments if they are large. RFC 792, RFC 1122
§3.2.2.6.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

from ustack.core.timer import Timer
from ustack.ipv4.fib import RTN_LOCAL, RTN_UNICAST
from ustack.ipv4.icmp_message import icmp_message
from ustack.ipv4.route import Route, ip_route_output
from ustack.lib.socket_error import socket_error
from ustack.wire.icmp import ICMP_ECHO, ICMP_HLEN
from ustack.wire.ipv4 import IP_HLEN, IP_MAX_LEN

if TYPE_CHECKING:
    from ustack.ipv4.icmp import Icmp

ECHOES_MAX = 1024
"""Requests that may wait for their replies at a time."""
ECHO_BYTES_MAX = IP_MAX_LEN - IP_HLEN - ICMP_HLEN
"""65507: payload of the largest request."""
DEFAULT_TIMEOUT_US = 10_000_000
"""iputils' MAXWAIT."""


class Echo:
    """One request and what became of it."""

    __slots__ = (
        "daddr",
        "deadline_us",
        "done",
        "error",
        "error_from",
        "ident",
        "intact",
        "mtu",
        "on_done",
        "payload",
        "reply_bytes",
        "rtt_us",
        "sent_us",
        "seq",
        "ttl",
    )

    def __init__(self, daddr: int, ident: int, seq: int, payload: bytes) -> None:
        self.daddr = daddr
        self.ident = ident
        self.seq = seq
        self.payload = payload
        self.sent_us = 0
        self.deadline_us = 0
        self.on_done: Callable[[Echo], None] | None = None
        self.done = False
        """There is a result: a reply (``rtt_us``), an ``error``, or neither: it timed out."""
        self.rtt_us: int | None = None
        """From sending to the reply; None without one."""
        self.ttl = 0
        """The reply's time to live when it came."""
        self.reply_bytes = 0
        """ICMP bytes of the reply, header included, as ping prints them."""
        self.intact = False
        """The reply's payload is the request's."""
        self.error: tuple[int, int] | None = None
        """Type and code of the ICMP error that came instead."""
        self.error_from = 0
        """Who sent that error."""
        self.mtu = 0
        """What would fit, of a "fragmentation needed"."""


class Ping:
    """The echo requests of one stack."""

    def __init__(self, icmp: Icmp) -> None:
        self._icmp = icmp
        self._ip = icmp.ip
        self._net = icmp.net
        self._waiting: dict[tuple[int, int], Echo] = {}
        """(destination, identifier << 16 | sequence number) -> request."""
        self._timer = Timer(self._expire)

    def __len__(self) -> int:
        return len(self._waiting)

    def send_echo(
        self,
        daddr: int,
        *,
        size: int = 56,
        payload: bytes | None = None,
        ident: int = 0,
        seq: int = 1,
        saddr: int = 0,
        ttl: int = 0,
        tos: int = 0,
        df: bool = False,
        timeout_us: int = DEFAULT_TIMEOUT_US,
        on_done: Callable[[Echo], None] | None = None,
    ) -> Echo:
        """Send an echo request.

        Args:
            daddr: A host's address, host order; our own are answered over lo.
            size: Payload bytes, 0 to 65507, counting up from 0 (as ping fills them).
            payload: The payload itself, instead of ``size``.
            ident: Identifier, 16 bits.
            seq: Sequence number, 16 bits.
            saddr: The source, an address of ours; 0: the route's.
            ttl: Time to live, 0 for ``ip_default_ttl``.
            tos: The type of service byte.
            df: Forbid fragmentation, here and on the way.
            timeout_us: How long to wait for the reply.
            on_done: Called once, with the request, when there is a result; not from here.

        Returns:
            The request; ``done`` tells whether there is a result yet.

        Raises:
            OSError: EMSGSIZE, too large, or larger than the path's MTU with ``df``;
                ENETUNREACH, no route; EACCES, a broadcast or multicast address; EADDRINUSE,
                such a request is waiting; ENOBUFS, 1024 are.
        """
        data = payload if payload is not None else bytes(n & 255 for n in range(size))
        if len(data) > ECHO_BYTES_MAX:
            raise socket_error(errno.EMSGSIZE)
        rt = self._route(daddr, saddr)
        info = (ident & 0xFFFF) << 16 | seq & 0xFFFF
        if (daddr, info) in self._waiting:
            raise socket_error(errno.EADDRINUSE)
        if len(self._waiting) >= ECHOES_MAX:
            raise socket_error(errno.ENOBUFS)
        if df and not rt.mtu_locked and IP_HLEN + ICMP_HLEN + len(data) > rt.mtu:
            raise socket_error(errno.EMSGSIZE)
        echo = Echo(daddr, ident & 0xFFFF, seq & 0xFFFF, data)
        echo.on_done = on_done
        echo.sent_us = self._net.clock.fine_us()
        echo.deadline_us = echo.sent_us + timeout_us
        self._waiting[daddr, info] = echo
        if not self._timer.pending or echo.deadline_us < self._timer.expires_us:
            self._net.timers.mod_timer(self._timer, echo.deadline_us)
        self._icmp.mib.OutEchos += 1
        message = icmp_message(ICMP_ECHO, 0, info, data)
        self._icmp.icmp_xmit(message, saddr, daddr, tos=tos, ttl=ttl, df=df)
        return echo

    def _route(self, daddr: int, saddr: int) -> Route:
        rt = ip_route_output(self._ip, daddr, saddr)
        if rt is None:
            raise socket_error(errno.ENETUNREACH)
        if rt.rt_type not in (RTN_UNICAST, RTN_LOCAL):
            raise socket_error(errno.EACCES)
        return rt

    def cancel(self, echo: Echo) -> None:
        """Wait no longer; ``on_done`` is not called."""
        self._waiting.pop((echo.daddr, echo.ident << 16 | echo.seq), None)

    def awaits(self, daddr: int, info: int) -> bool:
        """Whether a request with this identifier and sequence number waits for a reply."""
        return (daddr, info) in self._waiting

    def ping_rcv(self, saddr: int, ttl: int, info: int, payload: memoryview) -> bool:
        """Take an echo reply; return whether a request waited for it."""
        echo = self._waiting.get((saddr, info))
        if echo is None:
            return False
        echo.rtt_us = self._net.clock.fine_us() - echo.sent_us
        echo.ttl = ttl
        echo.reply_bytes = ICMP_HLEN + len(payload)
        echo.intact = payload == echo.payload
        self._finish(echo)
        return True

    def ping_err(
        self, daddr: int, info: int, icmp_type: int, code: int, mtu: int, error_from: int
    ) -> None:
        """Take an ICMP error about a request, or about none that waits."""
        echo = self._waiting.get((daddr, info))
        if echo is not None:
            echo.error = (icmp_type, code)
            echo.mtu = mtu
            echo.error_from = error_from
            self._finish(echo)

    def _finish(self, echo: Echo) -> None:
        self.cancel(echo)
        echo.done = True
        if echo.on_done is not None:
            echo.on_done(echo)

    def _expire(self, _arg: object) -> None:
        now_us = self._net.clock.now_us
        for echo in list(self._waiting.values()):
            if echo.deadline_us <= now_us:
                self._finish(echo)
        if self._waiting:
            first_us = min(echo.deadline_us for echo in self._waiting.values())
            self._net.timers.mod_timer(self._timer, first_us)
