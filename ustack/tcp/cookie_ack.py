"""The third ACK that brings back a SYN cookie (cookie_v4_check, tcp_get_cookie_sock).

``tcp_rcv_listen`` asks for every ACK to a listener that no request waits for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.ipv4.route import ip_route_output
from ustack.lib.drop_reason import DropReason
from ustack.lib.seqnum import seq_add
from ustack.tcp.child import tcp_v4_syn_recv_sock
from ustack.tcp.cookies import (
    MSSTAB,
    check_tcp_syn_cookie,
    cookie_timestamp_decode,
    tcp_synq_no_recent_overflow,
)
from ustack.tcp.ecn import ip_dsfield
from ustack.tcp.request_sock import RequestSock, tcp_openreq_init_rwin
from ustack.wire.tcp import ACK, RST, SYN

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock
    from ustack.wire.tcp import Segment


def cookie_v4_check(lsk: TcpSock, seg: Segment) -> TcpSock | DropReason | None:
    """See whether a segment to a listener brings back a cookie.

    Returns:
        The child, on the accept queue; None, it does not: the listener goes on; a DropReason,
        it does but nothing came of it. A full accept queue drops it silently even with
        tcp_abort_on_overflow: there is no request that could be reset.
    """
    prot = lsk.prot
    queues = lsk.listen
    assert queues is not None
    if not prot.config.tcp_syncookies or seg.flags & (ACK | RST | SYN) != ACK:
        return None
    if tcp_synq_no_recent_overflow(queues, prot.clock.now_us):
        return None
    data = check_tcp_syn_cookie(prot, seg)
    if data is None or data >= len(MSSTAB):
        prot.mib_ext.SyncookiesFailed += 1
        return None
    prot.mib_ext.SyncookiesRecv += 1
    try:
        request = RequestSock(lsk)
    except MemoryError:
        return DropReason.NOMEM
    request.req.syn_tos = ip_dsfield(seg)
    try:
        return _tcp_get_cookie_sock(request, seg, MSSTAB[data])
    finally:
        request.free()


def _tcp_get_cookie_sock(
    request: RequestSock, seg: Segment, mss: int
) -> TcpSock | DropReason | None:
    lsk = request.lsk
    assert lsk.listen is not None
    request.req.tsoffset = request.prot.secure_ts_offset(seg.daddr, seg.saddr)
    if not cookie_timestamp_decode(request, seg):
        return None
    if not _cookie_request_init(request, seg, mss):
        return DropReason.IP_OUTNOROUTES
    child = tcp_v4_syn_recv_sock(request, seg)
    if not isinstance(child, DropReason):
        lsk.listen.accept_queue.append(child.handle)
    return child


def _cookie_request_init(request: RequestSock, seg: Segment, mss: int) -> bool:
    """Redo what the SYN-ACK was made from; return whether there is a route to the peer."""
    prot = request.prot
    req = request.req
    rt = ip_route_output(prot.ip, seg.saddr, seg.daddr)
    if rt is None:
        return False
    req.loc_addr, req.loc_port = seg.daddr, seg.dport
    req.rmt_addr, req.rmt_port = seg.saddr, seg.sport
    req.rcv_nxt = seg.seq
    req.rcv_isn = seq_add(seg.seq, -1)
    req.snt_isn = seq_add(seg.ack, -1)
    req.mss = mss
    tcp_openreq_init_rwin(request, rt)
    return True
