"""Options of datagram sockets: SOL_SOCKET and IPPROTO_IP (sk_setsockopt, do_ip_setsockopt).

A protocol adds its own by tables of the same shape. An option that is not here is
ENOPROTOOPT, as is one that would have no effect.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from typing import Any

from ustack.ipv4.datagram import IP_PMTUDISC_DONT, IP_PMTUDISC_OMIT, datagram_mtu
from ustack.ipv4.route import ip_route_output
from ustack.lib.socket_error import socket_error
from ustack.sock.dgram import DgramSock

SOL_SOCKET = 1
SO_REUSEADDR = 2
SO_ERROR = 4
SO_BROADCAST = 6
SO_SNDBUF = 7
SO_RCVBUF = 8
SO_KEEPALIVE = 9
SO_NO_CHECK = 11
SO_LINGER = 13
SO_REUSEPORT = 15
SO_RCVLOWAT = 18
SO_SNDLOWAT = 19
SO_ACCEPTCONN = 30
SO_PROTOCOL = 38
SO_DOMAIN = 39

IPPROTO_IP = 0
IP_TOS = 1
IP_TTL = 2
IP_HDRINCL = 3
IP_PKTINFO = 8
IP_MTU_DISCOVER = 10
IP_RECVERR = 11
IP_RECVTTL = 12
IP_RECVTOS = 13
IP_MTU = 14

SOCK_MIN_RCVBUF = 2304
SOCK_MIN_SNDBUF = 4608
AF_INET = 2

Setters = dict[tuple[int, int], Callable[[Any, int], None]]
Getters = dict[tuple[int, int], Callable[[Any], int]]


def dgram_setsockopt(
    sk: DgramSock, setters: Setters, level: int, opt: int, value: int | bytes
) -> None:
    """Set an option of ``setters``, the protocol's table.

    Raises:
        OSError: ENOPROTOOPT, EINVAL (the application's).
    """
    if (level, opt) == (SOL_SOCKET, SO_LINGER):
        if not isinstance(value, bytes) or len(value) < 8:
            raise socket_error(errno.EINVAL)
        onoff, seconds = struct.unpack_from("ii", value)
        sk.linger_s = max(seconds, 0) if onoff else None
        return
    setter = setters.get((level, opt))
    if setter is None:
        raise socket_error(errno.ENOPROTOOPT)
    setter(sk, _number(level, value))


def _number(level: int, value: int | bytes) -> int:
    """Options of IPPROTO_IP may be a single byte."""
    if isinstance(value, int):
        return value
    if len(value) >= 4:
        return int(struct.unpack_from("i", value)[0])
    if level == IPPROTO_IP and value:
        return value[0]
    raise socket_error(errno.EINVAL)


def dgram_getsockopt(
    sk: DgramSock, getters: Getters, level: int, opt: int, buflen: int = 0
) -> int | bytes:
    """Return an option: an int, or with ``buflen`` the bytes that getsockopt(2) stores.

    Raises:
        OSError: ENOPROTOOPT; ENOTCONN (the application's).
    """
    if (level, opt) == (SOL_SOCKET, SO_LINGER):
        packed = struct.pack("ii", sk.linger_s is not None, sk.linger_s or 0)
        return packed[:buflen] if buflen else int(sk.linger_s is not None)
    getter = getters.get((level, opt))
    if getter is None:
        raise socket_error(errno.ENOPROTOOPT)
    value = getter(sk)
    return struct.pack("i", value)[:buflen] if buflen else value


def _flag(name: str) -> Callable[[Any, int], None]:
    return lambda sk, value: setattr(sk, name, bool(value))


def _set_rcvbuf(sk: DgramSock, value: int) -> None:
    limit = sk.net.config.core.rmem_max
    sk.rcvbuf = max(2 * min(value & 0xFFFFFFFF, limit), SOCK_MIN_RCVBUF)


def _set_sndbuf(sk: DgramSock, value: int) -> None:
    limit = sk.net.config.core.wmem_max
    sk.sndbuf = max(2 * min(value & 0xFFFFFFFF, limit), SOCK_MIN_SNDBUF)


def _set_ttl(sk: DgramSock, value: int) -> None:
    if value != -1 and not 1 <= value <= 255:
        raise socket_error(errno.EINVAL)
    sk.ttl = max(value, 0)


def _set_pmtudisc(sk: DgramSock, value: int) -> None:
    if not IP_PMTUDISC_DONT <= value <= IP_PMTUDISC_OMIT:
        raise socket_error(errno.EINVAL)
    sk.pmtudisc = value


def _set_recverr(sk: DgramSock, value: int) -> None:
    sk.recverr = bool(value)
    if not value:
        sk.error_queue.clear()


def _set_rcvlowat(sk: DgramSock, value: int) -> None:
    """Accepted and shown; a datagram is always read whole."""
    sk.rcvlowat = max(value, 1) if value >= 0 else 2**31 - 1


def _mtu(sk: DgramSock) -> int:
    rt = ip_route_output(sk.ip, sk.daddr, sk.saddr) if sk.connected else None
    if rt is None:
        raise socket_error(errno.ENOTCONN)
    return datagram_mtu(rt, sk.pmtudisc)


SETTERS: Setters = {
    (SOL_SOCKET, SO_REUSEADDR): _flag("reuse"),
    (SOL_SOCKET, SO_REUSEPORT): _flag("reuseport"),
    (SOL_SOCKET, SO_BROADCAST): _flag("sk_broadcast"),
    (SOL_SOCKET, SO_KEEPALIVE): _flag("keepopen"),
    (SOL_SOCKET, SO_NO_CHECK): _flag("no_check_tx"),
    (SOL_SOCKET, SO_RCVBUF): _set_rcvbuf,
    (SOL_SOCKET, SO_SNDBUF): _set_sndbuf,
    (SOL_SOCKET, SO_RCVLOWAT): _set_rcvlowat,
    (IPPROTO_IP, IP_TOS): lambda sk, value: setattr(sk, "tos", value & 0xFF),
    (IPPROTO_IP, IP_TTL): _set_ttl,
    (IPPROTO_IP, IP_PKTINFO): _flag("pktinfo"),
    (IPPROTO_IP, IP_MTU_DISCOVER): _set_pmtudisc,
    (IPPROTO_IP, IP_RECVERR): _set_recverr,
    (IPPROTO_IP, IP_RECVTTL): _flag("recvttl"),
    (IPPROTO_IP, IP_RECVTOS): _flag("recvtos"),
}

GETTERS: Getters = {
    (SOL_SOCKET, SO_REUSEADDR): lambda sk: int(sk.reuse),
    (SOL_SOCKET, SO_REUSEPORT): lambda sk: int(sk.reuseport),
    (SOL_SOCKET, SO_BROADCAST): lambda sk: int(sk.sk_broadcast),
    (SOL_SOCKET, SO_KEEPALIVE): lambda sk: int(sk.keepopen),
    (SOL_SOCKET, SO_NO_CHECK): lambda sk: int(sk.no_check_tx),
    (SOL_SOCKET, SO_ERROR): lambda sk: sk.take_error(),
    (SOL_SOCKET, SO_RCVBUF): lambda sk: sk.rcvbuf,
    (SOL_SOCKET, SO_SNDBUF): lambda sk: sk.sndbuf,
    (SOL_SOCKET, SO_RCVLOWAT): lambda sk: sk.rcvlowat,
    (SOL_SOCKET, SO_SNDLOWAT): lambda sk: 1,
    (SOL_SOCKET, SO_ACCEPTCONN): lambda sk: 0,
    (SOL_SOCKET, SO_PROTOCOL): lambda sk: sk.protocol,
    (SOL_SOCKET, SO_DOMAIN): lambda sk: AF_INET,
    (IPPROTO_IP, IP_TOS): lambda sk: sk.tos,
    (IPPROTO_IP, IP_TTL): lambda sk: sk.ttl or sk.ip.config.ip_default_ttl,
    (IPPROTO_IP, IP_PKTINFO): lambda sk: int(sk.pktinfo),
    (IPPROTO_IP, IP_MTU_DISCOVER): lambda sk: sk.pmtudisc,
    (IPPROTO_IP, IP_RECVERR): lambda sk: int(sk.recverr),
    (IPPROTO_IP, IP_RECVTTL): lambda sk: int(sk.recvttl),
    (IPPROTO_IP, IP_RECVTOS): lambda sk: int(sk.recvtos),
    (IPPROTO_IP, IP_MTU): _mtu,
}
