"""Fast Open on the server's side: a connection out of a SYN (RFC 7413 §4.2, tcp_try_fastopen).

The child is on the accept queue and readable before its handshake is over; its request hangs
off it (``TcpProt.fastopen_rsk``) until the third ACK, a reset, or the end of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.lib.drop_reason import DropReason
from ustack.tcp.child import tcp_init_transfer, tcp_v4_syn_recv_sock
from ustack.tcp.data import tcp_queue_rcv
from ustack.tcp.fastopen import (
    TFO_SERVER_COOKIE_NOT_REQD,
    TFO_SERVER_ENABLE,
    TFO_SYN_DATA_ACKED,
    FastopenQueue,
    reqsk_fastopen_remove,
    tcp_fastopen_cookie_gen,
)
from ustack.tcp.loss import tcp_enter_loss
from ustack.tcp.request_sock import tcp_rtx_synack
from ustack.tcp.rtt import TCP_TIMEOUT_INIT_US
from ustack.tcp.timer import tcp_arm_retransmit, tcp_rearm_rto
from ustack.wire.tcp import FastopenOption, Segment

if TYPE_CHECKING:
    from ustack.tcp.request_sock import RequestSock
    from ustack.tcp.sock import TcpSock


def tcp_try_fastopen(
    request: RequestSock, seg: Segment
) -> tuple[TcpSock | None, FastopenOption | None]:
    """Make a connection out of a SYN with a valid cookie.

    Returns:
        The child, None if the handshake goes its ordinary way; and the option of the SYN-ACK,
        a cookie where one was asked for, or was not a good one.
    """
    prot = request.prot
    lsk = request.lsk
    option = seg.fastopen
    bits = prot.config.tcp_fastopen
    if option is not None and not option.cookie:
        prot.mib_ext.TCPFastOpenCookieReqd += 1
    queue = lsk.listen.fastopen if lsk.listen is not None else None
    wanted = bool(option is not None or seg.payload)
    if not bits & TFO_SERVER_ENABLE or not wanted or queue is None:
        return None, None
    if not _queue_has_room(request, queue):
        return None, None
    if bits & TFO_SERVER_COOKIE_NOT_REQD or lsk.opts.fastopen_no_cookie:
        child = _child_or_failure(request, seg, queue)
        return child, None
    if option is None:
        return None, None
    context = queue.context or prot.fastopen
    cookies = [
        tcp_fastopen_cookie_gen(context, seg.saddr, seg.daddr, i) for i in range(len(context.keys))
    ]
    fresh = FastopenOption(cookies[0], option.exp)
    if not option.cookie:
        return None, fresh
    if option.cookie not in cookies:
        prot.mib_ext.TCPFastOpenPassiveFail += 1
        return None, fresh
    child = _child_or_failure(request, seg, queue)
    if child is None:
        return None, fresh
    if option.cookie == cookies[0]:
        return child, None
    prot.mib_ext.TCPFastOpenPassiveAltKey += 1
    return child, fresh


def _queue_has_room(request: RequestSock, queue: FastopenQueue) -> bool:
    """tcp_fastopen_queue_check; a listener with a queue of 0 takes no part."""
    if not queue.max_qlen:
        return False
    if queue.has_room(request.prot.clock.now_us):
        return True
    request.prot.mib_ext.TCPFastOpenListenOverflow += 1
    return False


def _child_or_failure(request: RequestSock, seg: Segment, queue: FastopenQueue) -> TcpSock | None:
    mib = request.prot.mib_ext
    child = tcp_fastopen_create_child(request, seg, queue)
    if child is None:
        mib.TCPFastOpenPassiveFail += 1
    else:
        mib.TCPFastOpenPassive += 1
    return child


def tcp_fastopen_create_child(
    request: RequestSock, seg: Segment, queue: FastopenQueue
) -> TcpSock | None:
    """Make the child in SYN_RECV, with the SYN's text in its receive queue."""
    prot = request.prot
    child = tcp_v4_syn_recv_sock(request, seg, established=False)
    if isinstance(child, DropReason):
        return None
    queue.qlen += 1
    prot.fastopen_rsk[child] = request
    request.sk = child
    tp = child.tp
    tp.snd_wnd = tp.max_window = seg.window  # a SYN's window is never scaled
    tcp_arm_retransmit(child, TCP_TIMEOUT_INIT_US)
    tcp_init_transfer(child)
    if seg.payload:
        tcp_queue_rcv(child, seg.payload)
        tp.data_segs_in = 1
        tp.syn_fastopen |= TFO_SYN_DATA_ACKED
    request.req.rcv_nxt = tp.rcv_wup = tp.last_ack_sent = tp.rcv_nxt
    return child


def tcp_rcv_synrecv_state_fastopen(sk: TcpSock, request: RequestSock) -> None:
    """The third ACK has come: the request is done with, the timer is for data from now on."""
    sk.tp.retransmits = 0
    reqsk_fastopen_remove(sk, request, reset=False)
    tcp_rearm_rto(sk)


def tcp_fastopen_synack_timer(sk: TcpSock, request: RequestSock) -> bool:
    """Repeat the SYN-ACK of a Fast Open connection, one time more than usual.

    Returns:
        False if it was the last: the caller ends the connection with ETIMEDOUT.
    """
    prot = sk.prot
    tp = sk.tp
    req = request.req
    prot.mib_ext.TCPTimeouts += 1
    retries = sk.opts.syn_retries or prot.config.tcp_synack_retries + 1
    if req.num_timeout >= retries:
        return False
    if tp.retransmits == 1:
        tcp_enter_loss(sk)
    tcp_rtx_synack(request)
    tp.total_retrans += 1
    req.num_timeout += 1
    tp.retransmits = min(tp.retransmits + 1, 255)
    tp.retrans_stamp_us = tp.retrans_stamp_us or prot.clock.now_us
    delay_us = min(TCP_TIMEOUT_INIT_US << req.num_timeout, tp.icsk_rto_max_us)
    tcp_arm_retransmit(sk, delay_us)
    return True
