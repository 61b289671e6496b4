"""A SYN to a listener: drop it, remember it, or answer it with a cookie (tcp_conn_request).

Called by ``tcp_rcv_listen``. What is remembered goes on the SYN queue (``request_sock``), or
with Fast Open is a connection at once (``fastopen_passive``). Reference: net/ipv4/tcp_input.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.ipv4.route import ip_route_output
from ustack.lib.drop_reason import DropReason
from ustack.lib.seqnum import seq_add
from ustack.tcp.cookies import cookie_init_sequence
from ustack.tcp.ecn import ip_dsfield, tcp_ecn_create_request
from ustack.tcp.fastopen_passive import tcp_try_fastopen
from ustack.tcp.metrics import tcp_peer_is_proven
from ustack.tcp.request_sock import (
    RequestSock,
    inet_csk_reqsk_queue_hash_add,
    tcp_openreq_init_rwin,
    tcp_send_synack,
)
from ustack.tcp.tw_recycle import tcp_recycles, tcp_syn_is_old
from ustack.wire.tcp import TCP_MSS_DEFAULT

if TYPE_CHECKING:
    from ustack.config import TcpConfig
    from ustack.ipv4.route import Route
    from ustack.tcp.protocol import TcpProt
    from ustack.tcp.sock import TcpSock
    from ustack.wire.tcp import Segment


def tcp_conn_request(lsk: TcpSock, seg: Segment, isn: int = 0) -> DropReason | None:
    """Answer a SYN to a listener.

    Args:
        isn: initial sequence number if a TIME_WAIT gave its place (such a peer is real: the
            SYN queue's limits are not for it), else 0: chosen here.

    Returns:
        None, or why the SYN was dropped: TCP_REQQ_FULL, TCP_LISTEN_OVERFLOW (ListenOverflows
        counts it), NOMEM, IP_OUTNOROUTES, TCP_RFC7323_PAWS. ListenDrops counts each of them.
    """
    reason = _conn_request(lsk, seg, isn)
    if reason is not None:
        lsk.prot.mib_ext.ListenDrops += 1
    return reason


def _conn_request(lsk: TcpSock, seg: Segment, isn: int) -> DropReason | None:
    prot = lsk.prot
    queues = lsk.listen
    assert queues is not None, "a listener has its queues"
    want_cookie = False
    if not isn and (prot.config.tcp_syncookies == 2 or queues.syn_queue_is_full()):
        want_cookie = tcp_syn_flood_action(prot)
        if not want_cookie:
            return DropReason.TCP_REQQ_FULL
    if queues.drops_syn_for_accept_queue():
        prot.mib_ext.ListenOverflows += 1
        return DropReason.TCP_LISTEN_OVERFLOW
    rt = ip_route_output(prot.ip, seg.saddr, seg.daddr)
    if rt is None:
        return DropReason.IP_OUTNOROUTES
    if not (isn or want_cookie) and tcp_recycles(prot) and tcp_syn_is_old(prot, seg):
        prot.mib_ustack.PAWSPassive += 1
        return DropReason.TCP_RFC7323_PAWS
    if (
        not (isn or want_cookie)
        and _last_quarter_is_left(prot, len(queues.syn_queue))
        and not tcp_peer_is_proven(prot.metrics, seg.daddr, seg.saddr)
    ):
        return DropReason.TCP_REQQ_FULL
    try:
        request = RequestSock(lsk)
    except MemoryError:
        return DropReason.NOMEM
    _tcp_openreq_init(request, seg, rt, forget_options=want_cookie and seg.tsval is None)
    if want_cookie:
        request.req.snt_isn = cookie_init_sequence(request, seg)
        tcp_send_synack(request, cookie=True)
        request.free()
        return None
    req = request.req
    req.snt_isn = isn or prot.secure_tcp_seq(seg.daddr, seg.saddr, seg.dport, seg.sport)
    req.snt_synack_us = prot.clock.now_us
    child, cookie = tcp_try_fastopen(request, seg)
    if child is None:
        inet_csk_reqsk_queue_hash_add(request)
    tcp_send_synack(request, fastopen=cookie)
    prot.fast.begin_by(rt)
    if child is not None:
        queues.accept_queue.append(child.handle)
        lsk.sk_data_ready()
    return None


def tcp_syn_flood_action(prot: TcpProt) -> bool:
    """The SYN queue is full: whether a cookie is sent instead of dropping the SYN."""
    if prot.config.tcp_syncookies:
        prot.mib_ext.TCPReqQFullDoCookies += 1
        return True
    prot.mib_ext.TCPReqQFullDrop += 1
    return False


def _last_quarter_is_left(prot: TcpProt, qlen: int) -> bool:
    """Without cookies, tcp_max_syn_backlog keeps its last quarter for peers known to live."""
    limit = prot.config.tcp_max_syn_backlog
    return not prot.config.tcp_syncookies and limit - qlen < limit >> 2


def _tcp_openreq_init(
    request: RequestSock, seg: Segment, rt: Route, *, forget_options: bool
) -> None:
    """Take over what the SYN says (tcp_openreq_init, tcp_openreq_init_rwin).

    Args:
        forget_options: a cookie without timestamps has no place for them; the MSS stays.
    """
    config = request.prot.config
    user_mss = request.lsk.tp.user_mss
    req = request.req
    req.loc_addr, req.loc_port = seg.daddr, seg.dport
    req.rmt_addr, req.rmt_port = seg.saddr, seg.sport
    req.rcv_isn = seg.seq
    req.rcv_nxt = seq_add(seg.seq, 1)
    req.syn_tos = ip_dsfield(seg)
    req.mss = min(seg.mss, user_mss or seg.mss) if seg.mss else TCP_MSS_DEFAULT
    if not forget_options:
        _take_options(request, seg, config)
    tcp_openreq_init_rwin(request, rt)


def _take_options(request: RequestSock, seg: Segment, config: TcpConfig) -> None:
    req = request.req
    if seg.tsval is not None and config.tcp_timestamps:
        req.tstamp_ok = 1
        req.ts_recent = seg.tsval
        req.tsoffset = request.prot.secure_ts_offset(seg.daddr, seg.saddr)
    req.sack_ok = seg.sack_ok and config.tcp_sack
    req.ecn_ok = tcp_ecn_create_request(request.lsk, seg)
    if seg.wscale is not None and config.tcp_window_scaling:
        req.wscale_ok = 1
        req.snd_wscale = seg.wscale
