"""Calls on a connection that has no Python object, as far as C can do them without one.

``inet.sockets`` asks here before it has the object made (``park.py``). C refuses whatever is
out of the ordinary, and orphans.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ustack.native.lib import ffi, lib
from ustack.tcp.fast_rx import CALL_MORE, run_rest
from ustack.tcp.output import TCP_NAGLE_OFF, TCP_NAGLE_PUSH
from ustack.tcp.recvmsg import tcp_recv_into_now, tcp_recv_now
from ustack.tcp.send_options import IPPROTO_TCP, TCP_NODELAY
from ustack.tcp.sendmsg import REF_BYTES, tcp_send_now

if TYPE_CHECKING:
    from ustack.tcp.protocol import TcpProt


def tcp_send_parked(prot: TcpProt, handle: int, data: bytes | bytearray | memoryview) -> int:
    """Return how many bytes C took (``tcp_send_now``); 0: the object has to say."""
    fast = prot.fast
    if len(data) >= REF_BYTES:
        tp = lib.us_tcp_sock_at(fast.ptr, handle)
        return tcp_send_now(prot, tp, data) if tp else 0
    taken: int = lib.us_tcp_sendmsg_at(
        fast.ptr,
        handle,
        data if type(data) is bytes else ffi.from_buffer(data),
        len(data),
        prot.clock.now_us,
        prot.ip.fib.genid,
    )
    if taken <= 0:
        return 0
    if taken >= CALL_MORE:
        taken = run_rest(fast, taken)
    prot.copied_bytes += taken
    return taken


def tcp_recv_parked(prot: TcpProt, handle: int, length: int) -> bytes | None:
    """Return what C hands over at once, b"": the stream has ended; None: the object has to say."""
    tp = lib.us_tcp_sock_at(prot.fast.ptr, handle)
    if not tp:
        return None
    text = tcp_recv_now(prot, tp, length)
    return text if text or _ends(tp) else None


def tcp_recv_into_parked(prot: TcpProt, handle: int, buffer: Any, length: int) -> int:
    """Fill ``buffer``; return how many bytes came, 0: the stream has ended, -1: ask the object."""
    tp = lib.us_tcp_sock_at(prot.fast.ptr, handle)
    if not tp:
        return -1
    got = tcp_recv_into_now(prot, tp, buffer, length)
    if got:
        return got
    return 0 if _ends(tp) else -1


def _ends(tp: Any) -> bool:
    """Whether there is but the end of the stream to be read, which then is."""
    if not tp.done or tp.slow or tp.receive_queue.len:
        return False
    tp.copied_seq = tp.rcv_nxt  # the FIN is read as well
    return True


def tcp_nodelay_parked(
    prot: TcpProt, handle: int, level: int, opt: int, value: int | bytes
) -> bool:
    """Set TCP_NODELAY, as most servers do at once, if nothing waits to be sent."""
    if level != IPPROTO_TCP or opt != TCP_NODELAY or value != 1:
        return False
    tp = lib.us_tcp_sock_at(prot.fast.ptr, handle)
    if not tp or tp.dead or tp.write_queue.len:
        return False
    tp.nonagle |= TCP_NAGLE_OFF | TCP_NAGLE_PUSH
    return True


def tcp_poll_parked(prot: TcpProt, handle: int) -> int:
    """Return the poll events that are true now; -1: the object has to say."""
    tp = lib.us_tcp_sock_at(prot.fast.ptr, handle)
    return int(lib.us_tcp_poll(prot.fast.ptr, tp)) if tp else -1


def tcp_close_parked(prot: TcpProt, handle: int) -> bool:
    """Let C send the FIN and keep what is left (``release.tcp_close_in_c``); False: it cannot."""
    fast = prot.fast
    done = lib.us_tcp_close_at(fast.ptr, handle, prot.clock.now_us, prot.ip.fib.genid)
    if done & CALL_MORE:
        fast.ring_doorbells()
    return bool(done)
