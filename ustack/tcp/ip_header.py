"""What the application and the peer decide of the IP header: type of service, TTL, DF.

IP_TOS, IP_TTL, IP_MTU and IP_MTU_DISCOVER of a TCP socket (do_ip_setsockopt); ``options.py``
takes them into its tables. Children have what their listener had, or with ``tcp_reflect_tos``
the type of service of the SYN. Bare answers to packets carry the packet's own.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from ustack.lib.socket_error import socket_error

if TYPE_CHECKING:
    from ustack.tcp.request_sock import RequestSock
    from ustack.tcp.sock import TcpSock

SOL_IP = 0
IP_TOS = 1
IP_TTL = 2
IP_MTU_DISCOVER = 10
IP_MTU = 14

IP_PMTUDISC_DONT = 0
IP_PMTUDISC_WANT = 1
IP_PMTUDISC_PROBE = 3
"""Do not fragment, and do not believe what is learnt of the path; no reason for TCP to ask."""

INET_ECN_MASK = 3
"""TCP's own part of the type of service."""


class IpHeader(NamedTuple):
    """The fields of one packet's header that are not everybody's."""

    tos: int = 0
    ttl: int = 0
    """0: ip_default_ttl."""
    df: bool = True
    ident: int = -1
    """-1: the route's next identification."""


def ip_pmtudisc(sk: TcpSock) -> int:
    """Return IP_MTU_DISCOVER as it holds (inet->pmtudisc)."""
    if sk.opts.pmtudisc >= 0:
        return sk.opts.pmtudisc
    return IP_PMTUDISC_DONT if sk.prot.ip.config.ip_no_pmtu_disc else IP_PMTUDISC_WANT


def ip_dont_fragment(sk: TcpSock) -> bool:
    """Whether packets are sent with DF, and the path's MTU is learnt (ip_dont_fragment)."""
    return ip_pmtudisc(sk) != IP_PMTUDISC_DONT


def tcp_reqsk_tos(request: RequestSock) -> int:
    """Return the type of service of a SYN-ACK and of the child."""
    if request.prot.config.tcp_reflect_tos:
        return int(request.req.syn_tos & ~INET_ECN_MASK)
    return int(request.lsk.tp.tos)


def _set_tos(sk: TcpSock, value: int) -> None:
    """The bits of ECN are TCP's: they stay as they are, none (__ip_sock_set_tos)."""
    sk.tp.tos = value & 0xFF & ~INET_ECN_MASK


def _set_ttl(sk: TcpSock, value: int) -> None:
    if value != -1 and not 1 <= value <= 255:
        raise socket_error(errno.EINVAL)
    sk.tp.ttl = max(value, 0)


def _ttl(sk: TcpSock) -> int:
    return sk.tp.ttl or sk.prot.ip.config.ip_default_ttl


def _set_pmtudisc(sk: TcpSock, value: int) -> None:
    if not IP_PMTUDISC_DONT <= value <= IP_PMTUDISC_PROBE:
        raise socket_error(errno.EINVAL)
    sk.opts = replace(sk.opts, pmtudisc=value)
    sk.set_dst(sk.dst)


def _mtu(sk: TcpSock) -> int:
    if sk.dst is None:
        raise socket_error(errno.ENOTCONN)
    return sk.dst.mtu


SETTERS: dict[tuple[int, int], Callable[[TcpSock, int], None]] = {
    (SOL_IP, IP_TOS): _set_tos,
    (SOL_IP, IP_TTL): _set_ttl,
    (SOL_IP, IP_MTU_DISCOVER): _set_pmtudisc,
}
GETTERS: dict[tuple[int, int], Callable[[TcpSock], int]] = {
    (SOL_IP, IP_TOS): lambda sk: sk.tp.tos,
    (SOL_IP, IP_TTL): _ttl,
    (SOL_IP, IP_MTU_DISCOVER): ip_pmtudisc,
    (SOL_IP, IP_MTU): _mtu,
}
