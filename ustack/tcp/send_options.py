"""Options that shape what a socket sends: Nagle, cork, segment size, send buffer, timeout.

``options.py`` merges these tables with its own (tcp_setsockopt, sk_setsockopt).
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from ustack.lib.socket_error import socket_error
from ustack.tcp.output import TCP_NAGLE_CORK, TCP_NAGLE_OFF, TCP_NAGLE_PUSH, tcp_push_pending_frames
from ustack.tcp.pacing import MAX_RATE, sk_set_max_pacing_rate
from ustack.tcp.rtt import TCP_RTO_MAX_US, TCP_RTO_MIN_US
from ustack.tcp.sndbuf import sk_stream_write_space
from ustack.tcp.states import TCP_CLOSE, TCP_LISTEN

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock

SOL_SOCKET = 1
SO_SNDBUF = 7
IPPROTO_TCP = 6
TCP_NODELAY = 1
TCP_MAXSEG = 2
TCP_CORK = 3
TCP_USER_TIMEOUT = 18
TCP_THIN_LINEAR_TIMEOUTS = 16
TCP_THIN_DUPACK = 17
TCP_NOTSENT_LOWAT = 25
TCP_RTO_MAX_MS = 44
TCP_RTO_MIN_US_OPTION = 45
TICK_US = 4000
"""Linux's at HZ=250: TCP_RTO_MIN_US takes two of them at least, rounding up."""

SOCK_MIN_SNDBUF = 4608
TCP_MIN_MSS = 88
MAX_TCP_WINDOW = 32767


def set_max_pacing_rate(sk: TcpSock, value: int | bytes) -> None:
    """SO_MAX_PACING_RATE: an unsigned int or, of eight bytes, an unsigned long; all ones: none."""
    if isinstance(value, int):
        value = (value & 0xFFFFFFFF).to_bytes(4, "little")
    if len(value) < 4:
        raise socket_error(errno.EINVAL)
    width = 8 if len(value) >= 8 else 4
    rate = int.from_bytes(value[:width], "little")
    sk_set_max_pacing_rate(sk, MAX_RATE if rate == (1 << 8 * width) - 1 else rate)


def max_pacing_rate(sk: TcpSock, buflen: int) -> int | bytes:
    """Return SO_MAX_PACING_RATE in as many bytes as there is room for, 8 or 4."""
    rate = sk.pacing.max_rate if sk.pacing is not None else MAX_RATE
    if buflen >= 8:
        return rate.to_bytes(8, "little")
    rate = min(rate, 0xFFFFFFFF)
    return rate.to_bytes(4, "little")[:buflen] if buflen else rate


def _set_sndbuf(sk: TcpSock, value: int) -> None:
    """Fix the buffer's size, twice what was asked for: no autotuning any more (SO_SNDBUF)."""
    limit = sk.prot.net.config.core.wmem_max
    sk.tp.sndbuf_locked = True
    sk.tp.sk_sndbuf = max(2 * min(value & 0xFFFFFFFF, limit), SOCK_MIN_SNDBUF)
    sk_stream_write_space(sk)


def _set_nodelay(sk: TcpSock, value: int) -> None:
    """Switch Nagle off, and push what waits even if corked; the cork stays."""
    tp = sk.tp
    if not value:
        tp.nonagle &= ~TCP_NAGLE_OFF & 0xFF
        return
    tp.nonagle |= TCP_NAGLE_OFF | TCP_NAGLE_PUSH
    if tp.state not in (TCP_CLOSE, TCP_LISTEN):
        tcp_push_pending_frames(sk)


def _set_cork(sk: TcpSock, value: int) -> None:
    """Hold back what does not fill a segment, or let it go as Nagle's rule has it.

    Taking the cork out pushes only with TCP_NODELAY (__tcp_sock_set_cork).
    """
    tp = sk.tp
    if value:
        tp.nonagle |= TCP_NAGLE_CORK
        return
    tp.nonagle &= ~TCP_NAGLE_CORK & 0xFF
    if tp.nonagle & TCP_NAGLE_OFF:
        tp.nonagle |= TCP_NAGLE_PUSH
    if tp.state not in (TCP_CLOSE, TCP_LISTEN):
        tcp_push_pending_frames(sk)


def _set_maxseg(sk: TcpSock, value: int) -> None:
    """Announce and use no larger segments from the next handshake on; 0: no such limit."""
    if value and not TCP_MIN_MSS <= value <= MAX_TCP_WINDOW:
        raise socket_error(errno.EINVAL)
    sk.tp.user_mss = value


def _maxseg(sk: TcpSock) -> int:
    tp = sk.tp
    if tp.user_mss and tp.state in (TCP_CLOSE, TCP_LISTEN):
        return int(tp.user_mss)
    return int(tp.mss_cache)


def _set_user_timeout(sk: TcpSock, value: int) -> None:
    """Milliseconds that data may stay unacknowledged or a window closed; 0: no limit."""
    if value < 0:
        raise socket_error(errno.EINVAL)
    sk.user_timeout_us = value * 1000


def _set_thin_linear_timeouts(sk: TcpSock, value: int) -> None:
    """Do not double the RTO of a thin stream for the first six times."""
    if value not in (0, 1):
        raise socket_error(errno.EINVAL)
    sk.opts = replace(sk.opts, thin_lto=bool(value))


def _set_thin_dupack(_sk: TcpSock, value: int) -> None:
    """TCP_THIN_DUPACK: RACK made it needless, and it has no effect since 4.18."""
    if value not in (0, 1):
        raise socket_error(errno.EINVAL)


def _set_rto_max(sk: TcpSock, value: int) -> None:
    """Milliseconds that the RTO may become (TCP_RTO_MAX_MS)."""
    if not 1000 <= value <= TCP_RTO_MAX_US // 1000:
        raise socket_error(errno.EINVAL)
    sk.tp.icsk_rto_max_us = value * 1000


def _set_rto_min(sk: TcpSock, value: int) -> None:
    """Microseconds of variance that count in the RTO at least (TCP_RTO_MIN_US)."""
    if not TICK_US < value <= TCP_RTO_MIN_US:
        raise socket_error(errno.EINVAL)
    sk.tp.icsk_rto_min_us = value


def _set_notsent_lowat(sk: TcpSock, value: int) -> None:
    sk.tp.notsent_lowat = value & 0xFFFFFFFF
    sk_stream_write_space(sk)


def _notsent_lowat(sk: TcpSock) -> int:
    value = int(sk.tp.notsent_lowat)
    return value - (1 << 32) if value >> 31 else value


SETTERS: dict[tuple[int, int], Callable[[TcpSock, int], None]] = {
    (SOL_SOCKET, SO_SNDBUF): _set_sndbuf,
    (IPPROTO_TCP, TCP_NODELAY): _set_nodelay,
    (IPPROTO_TCP, TCP_CORK): _set_cork,
    (IPPROTO_TCP, TCP_MAXSEG): _set_maxseg,
    (IPPROTO_TCP, TCP_USER_TIMEOUT): _set_user_timeout,
    (IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS): _set_thin_linear_timeouts,
    (IPPROTO_TCP, TCP_THIN_DUPACK): _set_thin_dupack,
    (IPPROTO_TCP, TCP_RTO_MAX_MS): _set_rto_max,
    (IPPROTO_TCP, TCP_RTO_MIN_US_OPTION): _set_rto_min,
    (IPPROTO_TCP, TCP_NOTSENT_LOWAT): _set_notsent_lowat,
}

GETTERS: dict[tuple[int, int], Callable[[TcpSock], int]] = {
    (SOL_SOCKET, SO_SNDBUF): lambda sk: sk.tp.sk_sndbuf,
    (IPPROTO_TCP, TCP_NODELAY): lambda sk: int(bool(sk.tp.nonagle & TCP_NAGLE_OFF)),
    (IPPROTO_TCP, TCP_CORK): lambda sk: int(bool(sk.tp.nonagle & TCP_NAGLE_CORK)),
    (IPPROTO_TCP, TCP_MAXSEG): _maxseg,
    (IPPROTO_TCP, TCP_USER_TIMEOUT): lambda sk: sk.user_timeout_us // 1000,
    (IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS): lambda sk: int(sk.opts.thin_lto),
    (IPPROTO_TCP, TCP_THIN_DUPACK): lambda _sk: 0,
    (IPPROTO_TCP, TCP_RTO_MAX_MS): lambda sk: sk.tp.icsk_rto_max_us // 1000,
    (IPPROTO_TCP, TCP_RTO_MIN_US_OPTION): lambda sk: sk.tp.icsk_rto_min_us,
    (IPPROTO_TCP, TCP_NOTSENT_LOWAT): _notsent_lowat,
}
