"""Options about opening a connection, keeping it alive and closing it.

``options.py`` takes them into its tables; the values are in ``RareOptions``. Numbers, ranges
and errors are those of do_tcp_setsockopt and do_ip_setsockopt.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from ustack.lib.socket_error import socket_error
from ustack.tcp.fastopen_client import tcp_fastopen_connect_allowed
from ustack.tcp.keepalive import (
    keepalive_intvl_when,
    keepalive_probes,
    keepalive_time_elapsed,
    keepalive_time_when,
)
from ustack.tcp.ports import set_reuse
from ustack.tcp.states import TCP_CLOSE, TCP_LISTEN
from ustack.tcp.timer import tcp_arm_keepalive, tcp_delete_keepalive

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock

SOL_IP = 0
IP_BIND_ADDRESS_NO_PORT = 24
IP_LOCAL_PORT_RANGE = 51
SOL_SOCKET = 1
SO_KEEPALIVE = 9
SO_REUSEPORT = 15
IPPROTO_TCP = 6
TCP_KEEPIDLE = 4
TCP_KEEPINTVL = 5
TCP_KEEPCNT = 6
TCP_SYNCNT = 7
TCP_LINGER2 = 8
TCP_FASTOPEN_CONNECT = 30
TCP_FASTOPEN_NO_COOKIE = 34

MAX_TCP_KEEPIDLE_S = 32767
MAX_TCP_KEEPINTVL_S = 32767
MAX_TCP_KEEPCNT = 127
MAX_TCP_SYNCNT = 127
TCP_FIN_TIMEOUT_MAX_S = 120
LINGER2_NEVER_US = -1

Setter = Callable[["TcpSock", int], None]
Getter = Callable[["TcpSock"], int]


def set_keepalive(sk: TcpSock, value: int) -> None:
    """SO_KEEPALIVE: the peer of an idle connection is asked, or no longer (tcp_set_keepalive)."""
    was, sk.keepopen = sk.keepopen, bool(value)
    if sk.tp.state in (TCP_CLOSE, TCP_LISTEN):
        return
    if value and not was:
        tcp_arm_keepalive(sk, keepalive_time_when(sk))
    elif not value:
        tcp_delete_keepalive(sk)


def _keepidle(sk: TcpSock, value: int) -> None:
    """The time counts from the last segment, not from now (tcp_sock_set_keepidle_locked)."""
    sk.opts = replace(sk.opts, keepalive_time_us=_within(value, 1, MAX_TCP_KEEPIDLE_S) * 1_000_000)
    if sk.keepopen and sk.tp.state not in (TCP_CLOSE, TCP_LISTEN):
        left_us = sk.opts.keepalive_time_us - keepalive_time_elapsed(sk)
        tcp_arm_keepalive(sk, max(left_us, 0))


def _keepintvl(sk: TcpSock, value: int) -> None:
    seconds = _within(value, 1, MAX_TCP_KEEPINTVL_S)
    sk.opts = replace(sk.opts, keepalive_intvl_us=seconds * 1_000_000)


def _keepcnt(sk: TcpSock, value: int) -> None:
    sk.opts = replace(sk.opts, keepalive_probes=_within(value, 1, MAX_TCP_KEEPCNT))


def _syncnt(sk: TcpSock, value: int) -> None:
    sk.opts = replace(sk.opts, syn_retries=_within(value, 1, MAX_TCP_SYNCNT))


def _linger2(sk: TcpSock, value: int) -> None:
    """Negative: no FIN_WAIT2 for an orphan; more than two minutes are two minutes."""
    linger2_us = min(value, TCP_FIN_TIMEOUT_MAX_S) * 1_000_000 if value >= 0 else LINGER2_NEVER_US
    sk.opts = replace(sk.opts, linger2_us=linger2_us)


def _show_linger2(sk: TcpSock) -> int:
    linger2_us = sk.opts.linger2_us
    if linger2_us < 0:
        return -1
    return (linger2_us or sk.prot.config.tcp_fin_timeout_us) // 1_000_000


def _local_port_range(sk: TcpSock, value: int) -> None:
    """The lower end in the lower half, the upper in the upper one; 0: the stack's end."""
    low, high = value & 0xFFFF, value >> 16 & 0xFFFF
    if low and high and low > high:
        raise socket_error(errno.EINVAL)
    sk.opts = replace(sk.opts, local_port_range=(low, high))


def _show_local_port_range(sk: TcpSock) -> int:
    low, high = sk.opts.local_port_range
    packed = high << 16 | low
    return packed - (1 << 32) if packed >> 31 else packed


def _no_port(sk: TcpSock, value: int) -> None:
    sk.opts = replace(sk.opts, bind_address_no_port=bool(value))


def _fastopen_connect(sk: TcpSock, value: int) -> None:
    tcp_fastopen_connect_allowed(sk, closed=sk.tp.state == TCP_CLOSE, value=value)
    sk.opts = replace(sk.opts, fastopen_connect=bool(value))


def _fastopen_no_cookie(sk: TcpSock, value: int) -> None:
    if value not in (0, 1) or sk.tp.state not in (TCP_CLOSE, TCP_LISTEN):
        raise socket_error(errno.EINVAL)
    sk.opts = replace(sk.opts, fastopen_no_cookie=bool(value))


def _reuseport(sk: TcpSock, value: int) -> None:
    set_reuse(sk, reuseport=bool(value))


def _within(value: int, least: int, most: int) -> int:
    if not least <= value <= most:
        raise socket_error(errno.EINVAL)
    return value


SETTERS: dict[tuple[int, int], Setter] = {
    (SOL_SOCKET, SO_KEEPALIVE): set_keepalive,
    (SOL_SOCKET, SO_REUSEPORT): _reuseport,
    (SOL_IP, IP_BIND_ADDRESS_NO_PORT): _no_port,
    (SOL_IP, IP_LOCAL_PORT_RANGE): _local_port_range,
    (IPPROTO_TCP, TCP_KEEPIDLE): _keepidle,
    (IPPROTO_TCP, TCP_KEEPINTVL): _keepintvl,
    (IPPROTO_TCP, TCP_KEEPCNT): _keepcnt,
    (IPPROTO_TCP, TCP_SYNCNT): _syncnt,
    (IPPROTO_TCP, TCP_LINGER2): _linger2,
    (IPPROTO_TCP, TCP_FASTOPEN_CONNECT): _fastopen_connect,
    (IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE): _fastopen_no_cookie,
}
GETTERS: dict[tuple[int, int], Getter] = {
    (SOL_SOCKET, SO_REUSEPORT): lambda sk: int(sk.reuseport),
    (SOL_IP, IP_BIND_ADDRESS_NO_PORT): lambda sk: int(sk.opts.bind_address_no_port),
    (SOL_IP, IP_LOCAL_PORT_RANGE): _show_local_port_range,
    (IPPROTO_TCP, TCP_KEEPIDLE): lambda sk: keepalive_time_when(sk) // 1_000_000,
    (IPPROTO_TCP, TCP_KEEPINTVL): lambda sk: keepalive_intvl_when(sk) // 1_000_000,
    (IPPROTO_TCP, TCP_KEEPCNT): keepalive_probes,
    (IPPROTO_TCP, TCP_SYNCNT): lambda sk: sk.opts.syn_retries or sk.prot.config.tcp_syn_retries,
    (IPPROTO_TCP, TCP_LINGER2): _show_linger2,
    (IPPROTO_TCP, TCP_FASTOPEN_CONNECT): lambda sk: int(sk.opts.fastopen_connect),
    (IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE): lambda sk: int(sk.opts.fastopen_no_cookie),
}
