"""send() on a connection: bytes into the send queue, then what may go goes (tcp_sendmsg).

The bytes are copied once, here (``zerocopy`` has the ways without it); afterwards nothing
refers to the caller's buffer. A full
send buffer is EAGAIN: waiting is the runtime's business.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from ustack.lib.seqnum import SEQ_MASK
from ustack.lib.socket_error import socket_error
from ustack.native.lib import ffi, lib
from ustack.tcp.ack import tcp_sndbuf_expand
from ustack.tcp.output import tcp_push
from ustack.tcp.states import CAN_SEND, TCP_SYN_RECV, TCP_SYN_SENT
from ustack.tcp.urgent import tcp_mark_urg

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock

MSG_OOB = 0x01
MSG_MORE = 0x8000


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
    if tp.state not in CAN_SEND:
        if tp.state in (TCP_SYN_SENT, TCP_SYN_RECV) and not sk.sk_err:
            sk.nospace = True
            raise socket_error(errno.EAGAIN)
        raise sk_stream_error(sk)
    if sk.sk_err or tp.snd_shutdown:
        raise sk_stream_error(sk)


def sk_stream_expand(sk: TcpSock) -> int:
    """Let autotuning enlarge a send buffer that is too small; return the room in it, in bytes."""
    tcp_sndbuf_expand(sk)
    return int(sk.tp.sk_sndbuf - sk.tp.write_queue.len)


def tcp_sendmsg(sk: TcpSock, data: bytes | bytearray | memoryview, flags: int) -> int:
    """Take as much of ``data`` as the send buffer has room for; return how many bytes.

    Raises:
        OSError: the pending error; EPIPE, the stream is closed for writing or was never open
            (the application's); BlockingIOError (EAGAIN), no room now.
    """
    tp = sk.tp
    sk_stream_check(sk)
    length = len(data)
    if not length:
        return 0
    room = tp.sk_sndbuf - tp.write_queue.len
    if room < length:
        room = sk_stream_expand(sk)
    taken = 0
    if room > 0:
        n = min(length, room)
        source = data if type(data) is bytes else ffi.from_buffer(data)
        taken = lib.us_bq_append(sk.prot.mem.ptr, sk.sndq, source, n)
        sk.prot.copied_bytes += taken
    if taken < length:
        sk.nospace = True
        if not taken:
            raise socket_error(errno.EAGAIN)
    tp.write_seq = tp.write_seq + taken & SEQ_MASK
    if flags & MSG_OOB and taken == length:
        tcp_mark_urg(sk)
    tcp_push(sk, more=bool(flags & MSG_MORE))
    return int(taken)
