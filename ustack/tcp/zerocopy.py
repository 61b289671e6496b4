"""Sending without a copy at the socket: pages that were filled already, buffers that are lent.

``tcp_sendpage`` queues a chunk of the arena that its caller had the kernel read a file into
(sendfile), as Linux's tcp_sendpage queues a page of the page cache. ``tcp_send_ref`` queues
the caller's buffer itself, which is told when nobody refers to it any more: the peer has
acknowledged all of it and the NIC has sent it (MSG_ZEROCOPY's completion). Descriptors,
repetitions and ``us_bq_drop`` see no difference; whoever cuts or sums a packet in software
reads the bytes where they lie.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

from ustack.lib.seqnum import SEQ_MASK
from ustack.lib.socket_error import socket_error
from ustack.native.lib import ffi, lib
from ustack.native.mem import PAGE_SIZE
from ustack.tcp.mem import sk_page_frag_failed
from ustack.tcp.sendmsg import sk_stream_check, sk_stream_wait_room, tcp_push_written, tcp_sendmsg

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock

CHUNK_BYTES = 64 * 1024
"""The most that one chunk is asked for."""
SMALL_SLACK = 16 * PAGE_SIZE
"""Pieces of less than a page go by reference until so much of the queue is empty pages."""


def sk_page_frag(sk: TcpSock, want: int) -> tuple[int, int]:
    """Return the address and the size of room to fill for ``tcp_sendpage`` (sk_page_frag).

    Whoever does not queue it gives it back with ``put_page``.

    Args:
        want: bytes that there are to send, at least 1.

    Raises:
        OSError: as tcp_sendmsg; BlockingIOError (EAGAIN), no room in the send buffer;
            ENOBUFS, the arena is full.
    """
    room = sk_stream_wait_room(sk)
    frag = ffi.new("struct us_frag *")
    if lib.us_bq_alloc_chunk(sk.prot.mem.ptr, min(want, room, CHUNK_BYTES), frag):
        sk_page_frag_failed(sk)
        raise socket_error(errno.ENOBUFS)
    return int(frag.addr), min(int(frag.len), want)


def tcp_sendpage(sk: TcpSock, addr: int, length: int, flags: int) -> int:
    """Queue ``length`` bytes of ``sk_page_frag``'s room, which is the queue's from here on.

    Small pieces that would waste their pages are copied behind the last one instead.

    Returns:
        How many bytes were taken: all, or of a copied piece what the arena had room for.

    Raises:
        OSError: as tcp_sendmsg; the page has been given back.
    """
    tp, prot = sk.tp, sk.prot
    is_queued = False
    try:
        sk_stream_check(sk)
        if _is_sparse(sk, length):
            return tcp_sendmsg(sk, prot.net.mem.view[addr : addr + length], flags)
        is_queued = not lib.us_bq_append_chunk(prot.mem.ptr, sk.sndq, addr, length)
        if not is_queued:
            raise socket_error(errno.EINVAL)
    finally:
        if not is_queued:
            prot.net.mem.put_page(addr)
    prot.ref_bytes += length
    tp.write_seq = tp.write_seq + length & SEQ_MASK
    tcp_push_written(sk, flags)
    return length


def tcp_send_ref(
    sk: TcpSock, view: memoryview, flags: int, released: Callable[[], None]
) -> tuple[int, bool]:
    """Queue as much of ``view`` as there is room for, where it lies.

    Less than a page is copied instead, as Linux does where a reference costs more
    (SO_EE_CODE_ZEROCOPY_COPIED): ``released`` is called before this returns then.

    Returns:
        How many bytes were taken, and whether they were copied.

    Raises:
        OSError: as tcp_sendmsg; BlockingIOError (EAGAIN), no room now; ENOBUFS, too many
            buffers are lent or the arena is full. Nothing is lent then.
    """
    tp, prot = sk.tp, sk.prot
    if view.nbytes < PAGE_SIZE:
        taken = tcp_sendmsg(sk, view, flags)
        view.release()
        released()
        return taken, True
    taken = min(view.nbytes, sk_stream_wait_room(sk))
    try:
        addr = prot.net.mem.dma_map(view[:taken], released)
    except MemoryError:
        raise socket_error(errno.ENOBUFS) from None
    if lib.us_bq_append_ref(prot.mem.ptr, sk.sndq, addr, taken):
        prot.net.mem.dma_unmap(addr)
        raise socket_error(errno.ENOBUFS)
    view.release()
    prot.ref_bytes += taken
    tp.write_seq = tp.write_seq + taken & SEQ_MASK
    tcp_push_written(sk, flags)
    return taken, False


def _is_sparse(sk: TcpSock, length: int) -> bool:
    """Whether a further piece would waste its page: many small ones are queued already."""
    queue = sk.tp.write_queue
    if length >= PAGE_SIZE or sk.tp.sk_sndbuf - queue.len < length:
        return False
    return bool(queue.truesize > 2 * queue.len + SMALL_SLACK)
