"""A listener's two queues: SYN queue and accept queue (struct request_sock_queue).

The SYN queue holds requests by the peer's address, bounded by the same limit as the accept
queue (linux-6); the accept queue is a FIFO of established children. Linux's tests are
``> limit``, so each holds one more than its limit says.
"""

from __future__ import annotations

import errno
from collections import deque
from typing import TYPE_CHECKING

from ustack.lib.socket_error import socket_error
from ustack.native.lib import lib
from ustack.tcp.close import tcp_abort, tcp_destroy
from ustack.tcp.ports import inet_csk_listen_port
from ustack.tcp.request_sock import RequestSock, reqsk_drop
from ustack.tcp.states import TCP_CLOSE, TCP_LISTEN, TcpEvent

if TYPE_CHECKING:
    from ustack.tcp.protocol import FlowKey
    from ustack.tcp.sock import TcpSock


class ListenQueues:
    """What makes a socket a listener."""

    __slots__ = ("accept_queue", "max_ack_backlog", "qlen_young", "syn_queue")

    def __init__(self, backlog: int) -> None:
        self.max_ack_backlog = backlog
        self.syn_queue: dict[FlowKey, RequestSock] = {}
        self.accept_queue: deque[TcpSock] = deque()
        self.qlen_young = 0
        """Requests whose SYN-ACK has not been repeated."""

    def accept_queue_is_full(self) -> bool:
        """sk_acceptq_is_full: one more than the limit fits."""
        return len(self.accept_queue) > self.max_ack_backlog

    def syn_queue_is_full(self) -> bool:
        """inet_csk_reqsk_queue_is_full: one more than the limit fits."""
        return len(self.syn_queue) > self.max_ack_backlog


def inet_listen(sk: TcpSock, backlog: int) -> None:
    """Make ``sk`` a listener, or change the length of one (inet_listen).

    Raises:
        OSError: EINVAL, it is connected; EADDRINUSE, another listener has the port.
    """
    prot = sk.prot
    limit = prot.somaxconn if backlog < 0 else min(backlog, prot.somaxconn)
    if sk.tp.state == TCP_LISTEN and sk.listen is not None:
        sk.listen.max_ack_backlog = limit
        return
    if sk.tp.state != TCP_CLOSE:
        raise socket_error(errno.EINVAL)
    inet_csk_listen_port(prot, sk)
    key = (sk.bind_addr, sk.tp.sport)
    if key in prot.listening_hash:
        raise socket_error(errno.EADDRINUSE)
    sk.listen = ListenQueues(limit)
    sk.set_state(TcpEvent.LISTEN)
    prot.listening_hash[key] = sk


def inet_csk_accept(sk: TcpSock) -> TcpSock:
    """Take the child that has waited longest (inet_csk_accept).

    Raises:
        OSError: EINVAL, not a listener; BlockingIOError (EAGAIN), nobody waits.
    """
    if sk.tp.state != TCP_LISTEN or sk.listen is None:
        raise socket_error(errno.EINVAL)
    if not sk.listen.accept_queue:
        raise socket_error(errno.EAGAIN)
    return sk.listen.accept_queue.popleft()


def inet_csk_listen_stop(sk: TcpSock) -> None:
    """Empty both queues of a listener that goes: requests vanish, children are reset."""
    queues = sk.listen
    if queues is None:
        return
    for req in list(queues.syn_queue.values()):
        reqsk_drop(req)
    while queues.accept_queue:
        child = queues.accept_queue.popleft()
        child.dead = True
        lib.us_bq_purge(child.prot.mem.ptr, child.rcvq)
        tcp_abort(child)
        tcp_destroy(child)
    sk.listen = None
