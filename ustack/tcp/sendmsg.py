"""send() on a connection: bytes into the send queue, then what may go goes (tcp_sendmsg).

The bytes are copied once, here (``zerocopy`` has the ways without it); afterwards nothing
refers to the caller's buffer. A full
send buffer is EAGAIN: waiting is the runtime's business.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from ustack.lib.seqnum import SEQ_MASK
from ustack.lib.socket_error import socket_error
from ustack.native.lib import ffi, lib
from ustack.native.mem import PAGE_SIZE
from ustack.tcp.fast_rx import CALL_MORE, run_rest
from ustack.tcp.fastopen import tcp_passive_fastopen
from ustack.tcp.mem import sk_page_frag_failed, tcp_wmem_schedule
from ustack.tcp.mss import tcp_current_mss
from ustack.tcp.output import TCP_NAGLE_PUSH, tcp_push
from ustack.tcp.sndbuf import sk_stream_room
from ustack.tcp.states import CAN_SEND, TCP_SYN_RECV, TCP_SYN_SENT
from ustack.tcp.tso import tcp_size_goal
from ustack.tcp.urgent import tcp_mark_urg

if TYPE_CHECKING:
    from ustack.tcp.protocol import TcpProt
    from ustack.tcp.sock import TcpSock

MSG_OOB = 0x01
MSG_MORE = 0x8000
SEND_MAX = 1 << 30
REF_BYTES = 1 << 16
"""From so many bytes on a reference costs less than a copy."""
FIRST_BYTES = PAGE_SIZE // 2
"""What a writer who has nothing queued gets of the pages kept back (sk_forced_mem_schedule)."""


def sk_stream_error(sk: TcpSock) -> OSError:
    """Return what a send on a broken stream raises: the pending error, else EPIPE."""
    err = sk.take_error() or errno.EPIPE
    return socket_error(err)


def sk_stream_check(sk: TcpSock) -> None:
    """Raise unless this end may send.

    Raises:
        OSError: as tcp_sendmsg; BlockingIOError (EAGAIN), not connected yet.
    """
    tp = sk.tp
    if tp.state not in CAN_SEND and not tcp_passive_fastopen(sk):
        if tp.state in (TCP_SYN_SENT, TCP_SYN_RECV) and not sk.sk_err:
            sk.nospace = True
            raise socket_error(errno.EAGAIN)
        raise sk_stream_error(sk)
    if sk.sk_err or tp.snd_shutdown:
        raise sk_stream_error(sk)


def sk_stream_wait_room(sk: TcpSock) -> int:
    """Return how many bytes may be queued now, at least 1.

    Raises:
        OSError: as tcp_sendmsg; BlockingIOError (EAGAIN), no room now.
    """
    sk_stream_check(sk)
    room = sk_stream_room(sk, tcp_size_goal(sk, tcp_current_mss(sk)))
    if room <= 0:
        sk.nospace = True
        raise socket_error(errno.EAGAIN)
    room = tcp_wmem_schedule(sk, room)
    if not room:
        sk.prot.pressure.sk_stream_wait_memory(sk)
        raise socket_error(errno.EAGAIN)
    return room


def tcp_push_written(sk: TcpSock, flags: int) -> None:
    """Send what may go of what has just been queued whole (the end of tcp_sendmsg_locked)."""
    goal = tcp_size_goal(sk, tcp_current_mss(sk))
    tcp_push(sk, goal, sk.tp.nonagle, more=bool(flags & MSG_MORE))


def tcp_sendmsg(sk: TcpSock, data: bytes | bytearray | memoryview, flags: int) -> int:
    """Take as much of ``data`` as the send buffer has room for; return how many bytes.

    Raises:
        OSError: the pending error; EPIPE, the stream is closed for writing or was never open
            (the application's); BlockingIOError (EAGAIN), no room now.
    """
    if not flags and tcp_may_send_now(sk) and (taken := tcp_send_now(sk.prot, sk.tp, data)):
        return taken
    sk_stream_check(sk)
    length = len(data)
    return _sendmsg(sk, data, length, flags) if length else 0


def tcp_may_send_now(sk: TcpSock) -> bool:
    """Whether C sends, and there is nothing that only the object knows of."""
    return sk.prot.fast.on and not sk.sk_err and sk.duplicate_sack is None


def tcp_send_now(prot: TcpProt, tp: Any, data: bytes | bytearray | memoryview) -> int:
    """Let C do it all, the usual case; the connection's object need not exist.

    Returns:
        How many bytes were taken; 0, and nothing has changed: there is no room, or it is out
        of the ordinary.
    """
    length = min(len(data), SEND_MAX)
    by_ref = length >= REF_BYTES and prot.fast.on and _never_changes(data)
    taken: int
    if by_ref:
        taken = _send_where_it_lies(prot, tp, data, length)
    else:
        taken = lib.us_tcp_sendmsg(
            prot.fast.ptr,
            tp,
            data if type(data) is bytes else ffi.from_buffer(data),
            length,
            prot.clock.now_us,
            prot.ip.fib.genid,
        )
    if taken <= 0:
        return 0
    if taken >= CALL_MORE:
        taken = run_rest(prot.fast, taken)
    if by_ref:
        prot.ref_bytes += taken
    else:
        prot.copied_bytes += taken
    return taken


def _never_changes(data: bytes | bytearray | memoryview) -> bool:
    """Whether what is queued now will be the same when it is sent, and sent again."""
    return type(data) is bytes or (type(data) is memoryview and type(data.obj) is bytes)


def _send_where_it_lies(
    prot: TcpProt, tp: Any, data: bytes | bytearray | memoryview, length: int
) -> int:
    """Let C queue ``bytes`` by reference: nobody can change them, so they need no copy."""
    mem = prot.net.mem
    try:
        addr = mem.dma_map(memoryview(data), _nothing)
    except MemoryError:
        return 0
    taken: int = lib.us_tcp_sendmsg_ref(
        prot.fast.ptr, tp, addr, length, prot.clock.now_us, prot.ip.fib.genid
    )
    if taken <= 0:
        mem.reap_lent()
    return taken


def _nothing() -> None:
    """Whoever sent the bytes does not wait for them."""


def tcp_sendmsg_now(sk: TcpSock, data: bytes | bytearray | memoryview) -> int:
    """Go the way through Python if that is open; 0: there is no room, or something to be said."""
    if sk.sk_err or sk.tp.snd_shutdown or sk.tp.state not in CAN_SEND or not data:
        return 0
    try:
        return _sendmsg(sk, data, len(data), 0)
    except BlockingIOError:
        return 0


def _sendmsg(sk: TcpSock, data: bytes | bytearray | memoryview, length: int, flags: int) -> int:
    """The way through Python."""
    tp = sk.tp
    goal = tcp_size_goal(sk, tcp_current_mss(sk))
    taken = 0
    while taken < length:
        room = sk_stream_room(sk, goal)
        if room <= 0:
            break
        want = tcp_wmem_schedule(sk, min(length - taken, room))
        n = _append(sk, data, taken, want, goal) if want else 0
        taken += n
        if not want:
            sk.prot.pressure.sk_stream_wait_memory(sk)
            break
        if n < want:
            sk_page_frag_failed(sk)
            break
        if taken < length:
            tcp_push(sk, goal, TCP_NAGLE_PUSH, more=False)  # perhaps that makes room
    if taken < length:
        sk.nospace = True
        if not taken:
            raise socket_error(errno.EAGAIN)
        tcp_push(sk, goal, TCP_NAGLE_PUSH, more=False)
    else:
        if flags & MSG_OOB:
            tcp_mark_urg(sk)
        tcp_push(sk, goal, tp.nonagle, more=bool(flags & MSG_MORE))
    return taken


def _append(
    sk: TcpSock, data: bytes | bytearray | memoryview, start: int, count: int, goal: int
) -> int:
    """Copy ``count`` bytes from ``start`` on; return for how many the arena had pages."""
    tp = sk.tp
    if tp.nonagle & TCP_NAGLE_PUSH:
        tail = (tp.write_seq - tp.snd_nxt & SEQ_MASK) % goal
        if not tail or count > goal - tail:
            tp.nonagle &= ~TCP_NAGLE_PUSH & 0xFF  # it was for what was queued then
    if start or count < len(data):
        source = ffi.from_buffer(memoryview(data)[start : start + count])
    else:
        source = data if type(data) is bytes else ffi.from_buffer(data)
    mem = sk.prot.mem
    taken: int = lib.us_bq_append(mem.ptr, sk.sndq, source, count)
    if not taken and not tp.write_queue.len:  # nothing of his own would wake him
        few = min(count, FIRST_BYTES)
        taken = lib.us_bq_append_forced(mem.ptr, sk.sndq, source, few, mem.min_free // 2)
    sk.prot.copied_bytes += taken
    tp.write_seq = tp.write_seq + taken & SEQ_MASK
    return taken
