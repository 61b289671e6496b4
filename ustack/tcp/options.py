"""Socket options of a TCP socket: SOL_SOCKET and IPPROTO_TCP (tcp_setsockopt, sock_setsockopt).

Numbers are Linux's. An option that is not here is ENOPROTOOPT, as is one that would have no
effect: nothing is accepted only to be forgotten.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from ustack.lib.socket_error import socket_error
from ustack.native.lib import lib
from ustack.tcp import connect_options, ip_header, listen_options, md5, send_options
from ustack.tcp.cong.ops import TCP_CA_NAME_MAX
from ustack.tcp.cong.registry import tcp_set_congestion_control
from ustack.tcp.data import tcp_data_ready
from ustack.tcp.delack import inet_csk_enter_pingpong_mode, inet_csk_in_pingpong_mode
from ustack.tcp.info import tcp_info
from ustack.tcp.offer import tcp_withdraw
from ustack.tcp.ports import set_reuse
from ustack.tcp.recvmsg import tcp_cleanup_rbuf
from ustack.tcp.states import (
    TCP_CLOSE,
    TCP_CLOSE_WAIT,
    TCP_ESTABLISHED,
    TCP_LISTEN,
)
from ustack.tcp.timer import ICSK_ACK_PUSHED, ICSK_ACK_SCHED
from ustack.tcp.window import tcp_set_window_clamp, tcp_space_from_win

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock

SOL_SOCKET = 1
SO_REUSEADDR = 2
SO_TYPE = 3
SO_ERROR = 4
SO_RCVBUF = 8
SO_KEEPALIVE = 9
SO_OOBINLINE = 10
SO_LINGER = 13
SO_RCVLOWAT = 18
SO_ACCEPTCONN = 30
SO_PROTOCOL = 38
SO_DOMAIN = 39
SO_PEEK_OFF = 42
SO_MAX_PACING_RATE = 47

IPPROTO_TCP = 6
TCP_WINDOW_CLAMP = 10
TCP_INFO = 11
TCP_QUICKACK = 12
TCP_CONGESTION = 13

SOCK_MIN_RCVBUF = 2304


def tcp_setsockopt(sk: TcpSock, level: int, opt: int, value: int | bytes) -> None:
    """Set an option.

    Raises:
        OSError: ENOPROTOOPT, not an option here; EINVAL, not a value for it (the
            application's).
    """
    if sk.listen is not None:
        tcp_withdraw(sk)
    if level == SOL_SOCKET and opt == SO_LINGER:
        _set_linger(sk, value)
        return
    if level == IPPROTO_TCP and opt == TCP_CONGESTION:
        if not isinstance(value, bytes) or not value:
            raise socket_error(errno.EINVAL)
        name = value[: TCP_CA_NAME_MAX - 1].split(b"\0")[0]
        tcp_set_congestion_control(sk, name.decode("ascii", "replace"))
        return
    if level == IPPROTO_TCP and opt == listen_options.TCP_FASTOPEN_KEY:
        listen_options.set_fastopen_key(sk, value)
        return
    if level == IPPROTO_TCP and opt in (md5.TCP_MD5SIG, md5.TCP_MD5SIG_EXT):
        md5.tcp_v4_parse_md5_keys(sk, opt, value)
        return
    if level == SOL_SOCKET and opt == SO_MAX_PACING_RATE:
        send_options.set_max_pacing_rate(sk, value)
        return
    setter = SETTERS.get((level, opt))
    if setter is None:
        raise socket_error(errno.ENOPROTOOPT)
    if isinstance(value, bytes):
        if len(value) < 4:
            raise socket_error(errno.EINVAL)
        setter(sk, struct.unpack_from("i", value)[0])
    else:
        setter(sk, value)


def tcp_getsockopt(sk: TcpSock, level: int, opt: int, buflen: int = 0) -> int | bytes:
    """Return an option: an int, or with ``buflen`` the bytes that getsockopt(2) stores.

    Raises:
        OSError: ENOPROTOOPT, not an option here.
    """
    if level == SOL_SOCKET and opt == SO_LINGER:
        packed = struct.pack("ii", sk.linger_s is not None, sk.linger_s or 0)
        return packed[:buflen] if buflen else int(sk.linger_s is not None)
    if level == IPPROTO_TCP and opt == TCP_CONGESTION:
        return sk.ca.name.encode().ljust(16, b"\0")[: buflen or 16]
    if level == IPPROTO_TCP and opt == TCP_INFO:
        return tcp_info(sk, buflen)
    if level == IPPROTO_TCP and opt == listen_options.TCP_FASTOPEN_KEY:
        return listen_options.fastopen_key(sk)[: buflen or 32]
    if level == SOL_SOCKET and opt == SO_MAX_PACING_RATE:
        return send_options.max_pacing_rate(sk, buflen)
    getter = GETTERS.get((level, opt))
    if getter is None:
        raise socket_error(errno.ENOPROTOOPT)
    value = getter(sk)
    return struct.pack("i", value)[:buflen] if buflen else value


def _set_linger(sk: TcpSock, value: int | bytes) -> None:
    if not isinstance(value, bytes) or len(value) < 8:
        raise socket_error(errno.EINVAL)
    onoff, seconds = struct.unpack_from("ii", value)
    sk.linger_s = max(seconds, 0) if onoff else None


def _set_reuse(sk: TcpSock, value: int) -> None:
    set_reuse(sk, reuse=bool(value))


def _set_oobinline(sk: TcpSock, value: int) -> None:
    sk.oobinline = bool(value)


def _set_rcvbuf(sk: TcpSock, value: int) -> None:
    limit = sk.prot.net.config.core.rmem_max
    sk.tp.rcvbuf_locked = True
    sk.tp.sk_rcvbuf = max(2 * min(max(value, 0), limit), SOCK_MIN_RCVBUF)


def _set_rcvlowat(sk: TcpSock, value: int) -> None:
    """Never ask for more than the window can become; make it large enough (tcp_set_rcvlowat)."""
    tp = sk.tp
    cap = (tp.sk_rcvbuf if sk.tp.rcvbuf_locked else sk.prot.config.tcp_rmem[2]) >> 1
    sk.rcvlowat = min(value, cap) if value >= 0 else cap
    sk.rcvlowat = sk.rcvlowat or 1
    if sk.rcvlowat > 1:
        sk.tp.slow |= lib.US_TCP_SLOW_OPTION
    else:
        sk.tp.slow &= ~lib.US_TCP_SLOW_OPTION
    if tp.state != TCP_LISTEN:
        tcp_data_ready(sk)
    wanted = tcp_space_from_win(sk, sk.rcvlowat)
    if not sk.tp.rcvbuf_locked and wanted > tp.sk_rcvbuf:
        tp.sk_rcvbuf = wanted
        if tp.window_clamp:
            tp.window_clamp = max(tp.window_clamp, sk.rcvlowat)


def _set_peek_off(sk: TcpSock, value: int) -> None:
    sk.opts = replace(sk.opts, peek_off=value)


def _set_window_clamp(sk: TcpSock, value: int) -> None:
    """TCP_WINDOW_CLAMP: 0 takes it back, but not from a connection."""
    tp = sk.tp
    if value:
        tcp_set_window_clamp(sk, value)
    elif tp.state != TCP_CLOSE:
        raise socket_error(errno.EINVAL)
    else:
        tp.window_clamp = 0


def _set_quickack(sk: TcpSock, value: int) -> None:
    """Leave or enter ping-pong mode; an even number only for once (__tcp_sock_set_quickack)."""
    tp = sk.tp
    if not value:
        inet_csk_enter_pingpong_mode(sk)
        return
    tp.ack_pingpong = 0
    if tp.state in (TCP_ESTABLISHED, TCP_CLOSE_WAIT) and tp.ack_pending & ICSK_ACK_SCHED:
        tp.ack_pending |= ICSK_ACK_PUSHED
        tcp_cleanup_rbuf(sk, 1)
        if not value & 1:
            inet_csk_enter_pingpong_mode(sk)


SETTERS: dict[tuple[int, int], Callable[[TcpSock, int], None]] = {
    **send_options.SETTERS,
    **connect_options.SETTERS,
    **listen_options.SETTERS,
    **ip_header.SETTERS,
    (SOL_SOCKET, SO_REUSEADDR): _set_reuse,
    (SOL_SOCKET, SO_OOBINLINE): _set_oobinline,
    (SOL_SOCKET, SO_RCVBUF): _set_rcvbuf,
    (SOL_SOCKET, SO_RCVLOWAT): _set_rcvlowat,
    (SOL_SOCKET, SO_PEEK_OFF): _set_peek_off,
    (IPPROTO_TCP, TCP_WINDOW_CLAMP): _set_window_clamp,
    (IPPROTO_TCP, TCP_QUICKACK): _set_quickack,
}

GETTERS: dict[tuple[int, int], Callable[[TcpSock], int]] = {
    **send_options.GETTERS,
    **connect_options.GETTERS,
    **listen_options.GETTERS,
    **ip_header.GETTERS,
    (SOL_SOCKET, SO_REUSEADDR): lambda sk: int(sk.reuse),
    (SOL_SOCKET, SO_TYPE): lambda sk: 1,
    (SOL_SOCKET, SO_ERROR): lambda sk: sk.take_error(),
    (SOL_SOCKET, SO_RCVBUF): lambda sk: sk.tp.sk_rcvbuf,
    (SOL_SOCKET, SO_KEEPALIVE): lambda sk: int(sk.keepopen),
    (SOL_SOCKET, SO_OOBINLINE): lambda sk: int(sk.oobinline),
    (SOL_SOCKET, SO_RCVLOWAT): lambda sk: sk.rcvlowat,
    (SOL_SOCKET, SO_PEEK_OFF): lambda sk: sk.opts.peek_off,
    (SOL_SOCKET, SO_ACCEPTCONN): lambda sk: int(sk.tp.state == TCP_LISTEN),
    (SOL_SOCKET, SO_PROTOCOL): lambda sk: IPPROTO_TCP,
    (SOL_SOCKET, SO_DOMAIN): lambda sk: 2,
    (IPPROTO_TCP, TCP_WINDOW_CLAMP): lambda sk: sk.tp.window_clamp,
    (IPPROTO_TCP, TCP_QUICKACK): lambda sk: int(not inet_csk_in_pingpong_mode(sk)),
}
