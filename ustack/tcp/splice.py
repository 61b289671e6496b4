"""TCP's queues joined to a descriptor, without Python touching a byte (tcp_splice_read).

The daemon gives each client one end of a socketpair; these move what is in the other end
into the send queue, and what is in the receive queue out to it, one system call each. They
are recv() and send() in all else: windows, ACKs and pushes follow as there. The usual case is
done in C alone (``..._now``).
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from ustack.lib.seqnum import SEQ_MASK
from ustack.lib.socket_error import socket_error
from ustack.native.lib import ffi, lib
from ustack.tcp.fast_rx import run_events
from ustack.tcp.mem import sk_page_frag_failed
from ustack.tcp.recvmsg import tcp_bytes_read
from ustack.tcp.sendmsg import tcp_may_send_now, tcp_push_written
from ustack.tcp.urgent import tcp_read_limit

if TYPE_CHECKING:
    from ustack.tcp.protocol import TcpProt
    from ustack.tcp.sock import TcpSock


def tcp_splice_read_now(sk: TcpSock, fd: int) -> bool:
    """Let C write all that can be read to ``fd``; False: nothing has changed, do it in Python.

    Raises:
        OSError: as ``tcp_splice_read``; some bytes may have gone before.
    """
    if not sk.tp.receive_queue.len:
        return sk.urg is None
    return sk.opts.peek_off < 0 and _splice_read(sk.prot, sk.tp, fd)


def tcp_splice_read_parked(prot: TcpProt, tp: Any, fd: int) -> bool:
    """Do as ``tcp_splice_read_now`` for a connection without an object."""
    return not tp.receive_queue.len or _splice_read(prot, tp, fd)


def _splice_read(prot: TcpProt, tp: Any, fd: int) -> bool:
    ptr = prot.fast.ptr
    error: int = lib.us_tcp_splice_read(ptr, tp, fd, prot.clock.now_us, prot.ip.fib.genid)
    if error == -errno.EOPNOTSUPP:
        return False
    if ptr.nevents or ptr.doorbell:
        run_events(prot.fast)
    if error:
        raise socket_error(-error)
    return True


def tcp_splice_write_now(sk: TcpSock, fd: int, scratch: Any) -> tuple[int, int] | None:
    """Let C do as ``tcp_splice_write``; None: nothing has changed, do it in Python."""
    if not tcp_may_send_now(sk):
        return None
    return tcp_splice_write_parked(sk.prot, sk.tp, fd, scratch)


def tcp_splice_write_parked(
    prot: TcpProt, tp: Any, fd: int, scratch: Any
) -> tuple[int, int] | None:
    """Do as ``tcp_splice_write_now`` for a connection that may have no object."""
    ptr = prot.fast.ptr
    taken = ffi.new("uint32_t *")
    got: int = lib.us_tcp_splice_write(
        ptr, tp, fd, ffi.from_buffer(scratch), len(scratch),
        prot.clock.now_us, prot.ip.fib.genid, taken,
    )  # fmt: skip
    if got < 0:
        if got == -errno.EOPNOTSUPP:
            return None
        raise socket_error(-got)
    if taken[0] < got:
        sk_page_frag_failed(prot.sock_of(lib.us_tcp_handle(tp)))
    prot.copied_bytes += taken[0]
    if ptr.nevents or (ptr.doorbell and not ptr.hold):
        run_events(prot.fast)
    return got, taken[0]


def tcp_splice_read(sk: TcpSock, fd: int) -> int:
    """Write what can be read to ``fd``; return how many bytes went, 0 if there are none now.

    Raises:
        OSError: ``fd`` does not take them: EAGAIN, it is full; EPIPE, nobody reads there.
    """
    length = sk.tp.receive_queue.len
    if length and sk.urg is not None:
        length = tcp_read_limit(sk, length)
    if not length:
        return 0
    moved: int = lib.us_bq_splice_out(sk.prot.mem.ptr, sk.rcvq, fd, length)
    if moved < 0:
        raise socket_error(-moved)
    tcp_bytes_read(sk, moved)
    return moved


def tcp_splice_write(sk: TcpSock, fd: int, scratch: Any, room: int) -> tuple[int, int]:
    """Send what can be read from ``fd``; return how many bytes came, and how many are queued.

    Args:
        scratch: writable memory. Bytes that came but are not queued, because the arena is
            full, lie there behind those that are.
        room: how many at most, as ``sk_stream_wait_room`` says.

    Returns:
        (0, 0) at the end of what ``fd`` will ever give.

    Raises:
        OSError: EAGAIN, ``fd`` has nothing now; ECONNRESET, its other end went without having
            read all.
    """
    taken = ffi.new("uint32_t *")
    size = min(room, len(scratch))
    mem = sk.prot.mem.ptr
    got: int = lib.us_bq_splice_in(mem, sk.sndq, fd, ffi.from_buffer(scratch), size, taken)
    if got < 0:
        raise socket_error(-got)
    if taken[0] < got:
        sk_page_frag_failed(sk)
    if taken[0]:
        sk.prot.copied_bytes += taken[0]
        sk.tp.write_seq = sk.tp.write_seq + taken[0] & SEQ_MASK
        tcp_push_written(sk, 0)
    return got, taken[0]
