"""What ioctl(2) tells of a TCP socket (tcp_ioctl): bytes that wait, on either side."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from ustack.lib.seqnum import SEQ_MASK, before
from ustack.lib.socket_error import socket_error
from ustack.tcp.states import TCP_LISTEN, TCP_SYN_RECV, TCP_SYN_SENT
from ustack.tcp.urgent import tcp_at_mark

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock

SIOCINQ = 0x541B
"""FIONREAD: bytes that recv() would give, up to urgent data."""
SIOCOUTQ = 0x5411
"""TIOCOUTQ: bytes written and not acknowledged."""
SIOCOUTQNSD = 0x894B
"""Bytes written and not sent."""
SIOCATMARK = 0x8905

OPENING = (TCP_SYN_SENT, TCP_SYN_RECV)


def tcp_ioctl(sk: TcpSock, request: int) -> int:
    """Answer SIOCINQ, SIOCOUTQ, SIOCOUTQNSD or SIOCATMARK (tcp_ioctl).

    Our FIN counts among the bytes of SIOCOUTQ and SIOCOUTQNSD, as in Linux; the peer's is
    none of SIOCINQ's.

    Raises:
        OSError: EINVAL, a listener has no queues of bytes; ENOTTY, another request (the
            application's).
    """
    if request == SIOCATMARK:
        return int(tcp_at_mark(sk))
    if request not in (SIOCINQ, SIOCOUTQ, SIOCOUTQNSD):
        raise socket_error(errno.ENOTTY)
    tp = sk.tp
    if tp.state == TCP_LISTEN:
        raise socket_error(errno.EINVAL)
    if tp.state in OPENING or not tp.iss:
        return 0
    if request == SIOCINQ:
        return tcp_inq(sk)
    return int(tp.write_seq - (tp.snd_una if request == SIOCOUTQ else tp.snd_nxt) & SEQ_MASK)


def tcp_inq(sk: TcpSock) -> int:
    """Return how many bytes can be read before the urgent one (tcp_inq)."""
    tp = sk.tp
    urg = sk.urg
    if urg is not None and urg.urg_data and not sk.oobinline:
        passed = before(urg.urg_seq, tp.copied_seq)
        if not passed and before(urg.urg_seq, tp.rcv_nxt):
            return int(urg.urg_seq - tp.copied_seq & SEQ_MASK)
    return int(tp.receive_queue.len)
