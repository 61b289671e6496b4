"""recv() on a connection: bytes out of the receive queue (tcp_recvmsg).

Reading makes room, and when the window that we could offer has grown enough the peer is told
at once (tcp_cleanup_rbuf). An empty queue is EAGAIN; waiting is the runtime's business.
"""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ustack.lib.seqnum import SEQ_MASK
from ustack.lib.socket_error import socket_error
from ustack.native.lib import ffi, lib
from ustack.sock.sock import RCV_SHUTDOWN
from ustack.tcp.delack import inet_csk_in_pingpong_mode
from ustack.tcp.fast import SCRATCH_BYTES
from ustack.tcp.fast_rx import CALL_MORE, run_rest
from ustack.tcp.states import TCP_CLOSE, TCP_LISTEN, TCP_SYN_RECV, TCP_SYN_SENT
from ustack.tcp.timer import ICSK_ACK_PUSHED, ICSK_ACK_PUSHED2, ICSK_ACK_SCHED
from ustack.tcp.transmit import tcp_send_ack
from ustack.tcp.urgent import tcp_read_limit, tcp_urg_passed
from ustack.tcp.window import tcp_new_window, tcp_rcv_space_adjust, tcp_receive_window

if TYPE_CHECKING:
    from ustack.tcp.protocol import TcpProt
    from ustack.tcp.sock import TcpSock

MSG_PEEK = 0x02
MSG_TRUNC = 0x20
RECV_MAX = 1 << 30
BUSY_BYTES = 1 << 16
"""With so much room, that of a super-frame, a reader polls the device himself."""


def tcp_recvmsg(sk: TcpSock, buffer: Any, length: int, flags: int) -> int:
    """Move up to ``length`` bytes into ``buffer``; return how many, 0 at the end of the stream.

    Args:
        buffer: writable, at least ``length`` long; not touched with MSG_TRUNC.
        flags: MSG_PEEK leaves the bytes where they are, and begins at SO_PEEK_OFF; MSG_TRUNC
            discards them uncopied.

    Raises:
        OSError: the pending error; ENOTCONN, it was never connected (the application's);
            BlockingIOError (EAGAIN), nothing is there.
    """
    if not flags and sk.prot.fast.on and sk.opts.peek_off < 0:
        got = tcp_recv_into_now(sk.prot, sk.tp, buffer, length)
        if got:
            return got
    tp = sk.tp
    offset = tcp_peek_offset(sk, flags)
    available = tp.receive_queue.len - offset
    if available <= 0:
        return _empty(sk)
    length = min(length, available)
    if sk.urg is not None:
        length = tcp_read_limit(sk, length, offset)
        if not length:
            return _empty(sk)
    mem = sk.prot.mem.ptr
    if flags & MSG_PEEK:
        if not flags & MSG_TRUNC:
            lib.us_bq_peek(mem, sk.rcvq, offset, ffi.from_buffer(buffer), length)
        if sk.opts.peek_off >= 0:
            sk.opts = replace(sk.opts, peek_off=offset + length)
        return length
    if flags & MSG_TRUNC:
        lib.us_bq_drop(mem, sk.rcvq, length)
    else:
        lib.us_bq_read(mem, sk.rcvq, ffi.from_buffer(buffer), length)
    tcp_bytes_read(sk, length)
    return length


def tcp_bytes_read(sk: TcpSock, length: int) -> None:
    """Account for bytes that have left the receive queue for the application."""
    tp = sk.tp
    tp.copied_seq = tp.copied_seq + length & SEQ_MASK
    sk.prot.pressure.reclaim()
    if sk.opts.peek_off >= 0:
        sk.opts = replace(sk.opts, peek_off=max(sk.opts.peek_off - length, 0))
    if sk.urg is not None:
        tcp_urg_passed(sk)
    if tp.state != TCP_CLOSE:
        tcp_rcv_space_adjust(sk)
        if sk.prot.sockmap is not None:
            sk.prot.sockmap.data_read(sk)
        tcp_cleanup_rbuf(sk, length)


def tcp_peek_offset(sk: TcpSock, flags: int) -> int:
    """Return how far behind the next byte to be read a call begins (sk_peek_offset)."""
    return max(sk.opts.peek_off, 0) if flags & MSG_PEEK else 0


def tcp_recv_now(prot: TcpProt, tp: Any, length: int) -> bytes:
    """Let C hand over up to ``length`` bytes; b"": there are none, or it is out of the ordinary."""
    if length > SCRATCH_BYTES:
        return b""
    fast = prot.fast
    got: int = lib.us_tcp_recvmsg(
        fast.ptr, tp, fast.scratch, length, prot.clock.now_us, prot.ip.fib.genid
    )
    if not got:
        return b""
    if got >= CALL_MORE:
        got = run_rest(fast, got)
    text: bytes = fast.scratch_text[:got]
    return text


def tcp_has_plain_text(sk: TcpSock) -> bool:
    """Whether there is something to be read, and whoever reads wants it as it is."""
    return bool(sk.tp.receive_queue.len) and sk.urg is None and sk.rcvlowat <= 1


def tcp_recv_busy(sk: TcpSock, buffer: Any, length: int) -> int:
    """Let C fill ``buffer`` with what is queued and, if it is large, what the device has.

    The latter is Linux's sk_busy_loop.

    Returns:
        How many bytes; 0: there are none, or something is out of the ordinary.
    """
    if sk.opts.peek_off >= 0 or not sk.prot.fast.on:
        return 0
    rt = sk.dst
    if rt is None or length < BUSY_BYTES:
        return tcp_recv_into_now(sk.prot, sk.tp, buffer, length)
    return rt.dev.ndo_busy_recv(sk.tp, buffer, min(length, RECV_MAX))


def tcp_recv_wait(prot: TcpProt, tp: Any, length: int, looks: int, wakefd: int) -> bytes:
    """Let C hand over up to ``length`` bytes, which may come while we look at the only wire.

    Returns:
        The bytes; b"": none have come (see ``NetDevice.ndo_recv_wait``), or something is out of
        the ordinary.
    """
    fast = prot.fast
    if length > SCRATCH_BYTES or len(fast.devices) != 1:
        return b""
    got = fast.devices[0].ndo_recv_wait(tp, fast.scratch, length, looks, wakefd)
    text: bytes = fast.scratch_text[:got] if got else b""
    return text


def tcp_recv_into_now(prot: TcpProt, tp: Any, buffer: Any, length: int) -> int:
    """Let C fill ``buffer``, the usual case; 0: nothing is there, or it is out of the ordinary."""
    fast = prot.fast
    got: int = lib.us_tcp_recvmsg(
        fast.ptr,
        tp,
        ffi.from_buffer(buffer),
        min(length, RECV_MAX),
        prot.clock.now_us,
        prot.ip.fib.genid,
    )
    if got >= CALL_MORE:
        got = run_rest(fast, got)
    return got


def _empty(sk: TcpSock) -> int:
    """Say why there is nothing: an error, the end of the stream, or just not yet."""
    tp = sk.tp
    if sk.done:
        tp.copied_seq = tp.rcv_nxt  # the FIN is read as well
        return 0
    if sk.sk_err:
        raise socket_error(sk.take_error())
    if tp.rcv_shutdown & RCV_SHUTDOWN:
        return 0
    if tp.state in (TCP_CLOSE, TCP_LISTEN):
        raise socket_error(errno.ENOTCONN)
    raise socket_error(errno.EAGAIN)


def tcp_cleanup_rbuf(sk: TcpSock, copied: int) -> None:
    """Send an ACK now if reading has made one worth sending (tcp_cleanup_rbuf).

    Either more than one full segment waits for its ACK and all is read, or the window that
    could be offered is twice what the peer knows of.
    """
    tp = sk.tp
    if tp.state in (TCP_SYN_SENT, TCP_SYN_RECV):
        return
    time_to_ack = False
    pending = tp.ack_pending
    if pending & ICSK_ACK_SCHED:
        unacked = tp.rcv_nxt - tp.rcv_wup & SEQ_MASK
        pushed = pending & ICSK_ACK_PUSHED2 or (
            pending & ICSK_ACK_PUSHED and not inet_csk_in_pingpong_mode(sk)
        )
        drained = copied and not tp.receive_queue.len and sk.ofo is None
        time_to_ack = unacked > tp.ack_rcv_mss or bool(pushed and drained)
    if not time_to_ack and copied and not tp.rcv_shutdown & RCV_SHUTDOWN:
        window = tcp_receive_window(sk)
        if 2 * window <= tp.window_clamp:
            new = tcp_new_window(sk)
            time_to_ack = bool(new and new >= 2 * window)
    if time_to_ack:
        tcp_send_ack(sk)
