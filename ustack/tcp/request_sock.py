"""A half-open connection on a listener's SYN queue, until the third ACK makes it a socket.

``tcp_conn_request`` answers a SYN, ``tcp_check_req`` judges what comes next from that peer
(net/ipv4/tcp_input.c, tcp_minisocks.c). The child is made here, at the third ACK, not in
accept().
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ustack.core.timer import Timer
from ustack.ipv4.route import ip_route_output
from ustack.lib.drop_reason import DropReason
from ustack.lib.seqnum import SEQ_MASK, after, before, seq_add, seq_diff
from ustack.tcp.challenge import tcp_oow_rate_limited
from ustack.tcp.child import tcp_create_openreq_child
from ustack.tcp.rtt import TCP_RTO_MAX_US, TCP_TIMEOUT_INIT_US
from ustack.tcp.transmit import tcp_v4_send_bare, tcp_v4_send_reset
from ustack.tcp.window import tcp_select_initial_window
from ustack.wire.tcp import (
    ACK,
    RST,
    SYN,
    TCPOLEN_TSTAMP_ALIGNED,
    Segment,
    syn_options,
    tstamp_option,
)

if TYPE_CHECKING:
    from ustack.tcp.protocol import FlowKey, TcpProt
    from ustack.tcp.sock import TcpSock

TCP_MSS_DEFAULT = 536
"""RFC 9293 §3.7.1: what an absent MSS option means."""


class RequestSock:
    """One request: the C struct and its SYN-ACK timer."""

    __slots__ = ("last_oow_ack_us", "lsk", "prot", "req", "timer", "tsoffset")

    def __init__(self, lsk: TcpSock) -> None:
        self.prot: TcpProt = lsk.prot
        self.lsk = lsk
        self.req: Any = self.prot.request_cache.alloc()
        self.timer = Timer(reqsk_timer, self)
        self.tsoffset = 0
        self.last_oow_ack_us = 0

    @property
    def key(self) -> FlowKey:
        """The four-tuple: own address and port, the peer's address and port."""
        req = self.req
        return (req.loc_addr, req.loc_port, req.rmt_addr, req.rmt_port)


def tcp_conn_request(lsk: TcpSock, seg: Segment, isn: int = 0) -> DropReason | None:
    """Answer a SYN to a listener: a request on the SYN queue and a SYN-ACK.

    Args:
        isn: initial sequence number if a TIME_WAIT gave its place (such a peer is real: the
            SYN queue's limits are not for it), else 0: chosen here.

    Returns:
        None, or why the SYN was dropped: TCP_REQQ_FULL, TCP_LISTEN_OVERFLOW (ListenOverflows
        counts it), NOMEM, IP_OUTNOROUTES. ListenDrops counts each of them.
    """
    prot = lsk.prot
    queues = lsk.listen
    assert queues is not None, "a listener has its queues"
    reason: DropReason | None = None
    if not isn and queues.syn_queue_is_full():
        prot.mib_ext.TCPReqQFullDrop += 1
        reason = DropReason.TCP_REQQ_FULL
    elif queues.accept_queue_is_full():
        prot.mib_ext.ListenOverflows += 1
        reason = DropReason.TCP_LISTEN_OVERFLOW
    elif not isn and _last_quarter_is_left(prot, len(queues.syn_queue)):
        reason = DropReason.TCP_REQQ_FULL
    else:
        reason = _add_request(lsk, seg, isn)
    if reason is not None:
        prot.mib_ext.ListenDrops += 1
    return reason


def _last_quarter_is_left(prot: TcpProt, qlen: int) -> bool:
    """Without cookies, tcp_max_syn_backlog keeps its last quarter for peers known to live."""
    limit = prot.config.tcp_max_syn_backlog
    return limit - qlen < limit >> 2


def _add_request(lsk: TcpSock, seg: Segment, isn: int) -> DropReason | None:
    prot = lsk.prot
    queues = lsk.listen
    assert queues is not None
    rt = ip_route_output(prot.ip, seg.saddr, seg.daddr)
    if rt is None:
        return DropReason.IP_OUTNOROUTES
    try:
        request = RequestSock(lsk)
    except MemoryError:
        return DropReason.NOMEM
    req = request.req
    req.loc_addr, req.loc_port = seg.daddr, seg.dport
    req.rmt_addr, req.rmt_port = seg.saddr, seg.sport
    req.rcv_isn = seg.seq
    req.rcv_nxt = seq_add(seg.seq, 1)
    req.snt_isn = isn or prot.secure_tcp_seq(seg.daddr, seg.saddr, seg.dport, seg.sport)
    req.mss = max(seg.mss or TCP_MSS_DEFAULT, 1)
    config = prot.config
    if seg.tsval is not None and config.tcp_timestamps:
        req.tstamp_ok = 1
        req.ts_recent = seg.tsval
        request.tsoffset = prot.secure_ts_offset(seg.daddr, seg.saddr)
    req.sack_ok = seg.sack_ok and config.tcp_sack
    advmss = rt.mtu - 40
    window, wscale = tcp_select_initial_window(
        config,
        advmss - TCPOLEN_TSTAMP_ALIGNED * req.tstamp_ok,
        lsk.tp.sk_rcvbuf,
        lsk.tp.window_clamp,
    )
    req.rcv_wnd = window
    if seg.wscale is not None and config.tcp_window_scaling:
        req.wscale_ok = 1
        req.snd_wscale = seg.wscale
        req.rcv_wscale = wscale
    queues.syn_queue[request.key] = request
    queues.qlen_young += 1
    req.snt_synack_us = prot.clock.now_us
    prot.timers.mod_timer(request.timer, prot.clock.now_us + TCP_TIMEOUT_INIT_US)
    tcp_send_synack(request)
    return None


def tcp_send_synack(request: RequestSock) -> None:
    """Send the SYN-ACK of a request (tcp_make_synack)."""
    req = request.req
    prot = request.prot
    seg = Segment(None, req.rmt_addr, req.loc_addr)
    seg.sport, seg.dport = req.rmt_port, req.loc_port
    rt = ip_route_output(prot.ip, req.rmt_addr, req.loc_addr)
    advmss = rt.mtu - 40 if rt is not None else TCP_MSS_DEFAULT
    tstamp = None
    if req.tstamp_ok:
        tstamp = (prot.tcp_time_stamp() + request.tsoffset & SEQ_MASK, req.ts_recent)
    options = syn_options(
        min(advmss, request.lsk.tp.user_mss or advmss),
        sack_ok=bool(req.sack_ok),
        tstamp=tstamp,
        wscale=req.rcv_wscale if req.wscale_ok else None,
    )
    tcp_v4_send_bare(prot, seg, req.snt_isn, req.rcv_nxt, SYN | ACK, req.rcv_wnd, options)


def reqsk_timer(request: RequestSock) -> None:
    """Repeat the SYN-ACK with doubled time, or give up (reqsk_timer_handler)."""
    req = request.req
    prot = request.prot
    if req.num_timeout >= prot.config.tcp_synack_retries:
        reqsk_drop(request)
        return
    if not req.num_timeout and request.lsk.listen is not None:
        request.lsk.listen.qlen_young -= 1
    req.num_timeout += 1
    delay_us = min(TCP_TIMEOUT_INIT_US << req.num_timeout, TCP_RTO_MAX_US)
    prot.timers.mod_timer(request.timer, prot.clock.now_us + delay_us)
    tcp_rtx_synack(request)


def tcp_rtx_synack(request: RequestSock) -> None:
    """Repeat the SYN-ACK (tcp_rtx_synack); its answer measures nothing any more (Karn)."""
    request.req.num_retrans = min(request.req.num_retrans + 1, 255)
    request.req.snt_synack_us = 0
    request.prot.mib.RetransSegs += 1
    request.prot.mib_ext.TCPSynRetrans += 1
    tcp_send_synack(request)


def reqsk_drop(request: RequestSock) -> None:
    """Take a request off the SYN queue and free it (inet_csk_reqsk_queue_drop)."""
    prot = request.prot
    queues = request.lsk.listen
    prot.timers.del_timer(request.timer)
    if queues is not None and queues.syn_queue.pop(request.key, None) is not None:
        queues.qlen_young -= not request.req.num_timeout
    prot.request_cache.free(request.req)
    request.req = None


def tcp_check_req(request: RequestSock, seg: Segment) -> TcpSock | DropReason:
    """Judge a segment for a half-open connection (tcp_check_req; RFC 9293 §3.10.7.4).

    An ACK of our SYN makes the child. A full accept queue is not the peer's fault: its ACK is
    ignored and the SYN-ACK timer will make the peer acknowledge again, unless
    tcp_abort_on_overflow says to reset it.

    Returns:
        The child, already on the accept queue, or why there is none.
    """
    req = request.req
    prot = request.prot
    flags = seg.flags & (SYN | ACK | RST)
    if seg.seq == req.rcv_isn and flags == SYN:
        if not _answered_lately(request, seg):
            tcp_rtx_synack(request)
        return DropReason.TCP_INVALID_SYN
    if flags & ACK and not flags & RST and seg.ack != seq_add(req.snt_isn, 1):
        tcp_v4_send_reset(prot, seg)
        return DropReason.TCP_INVALID_ACK_SEQUENCE
    old = req.tstamp_ok and seg.tsval is not None and seq_diff(req.ts_recent, seg.tsval) > 0
    if old or not _in_window(req, seg):
        if not flags & RST and not _answered_lately(request, seg):
            _send_request_ack(request, seg)
        if old:
            prot.mib_ext.PAWSEstab += 1
            return DropReason.TCP_RFC7323_PAWS
        return DropReason.TCP_OVERWINDOW
    if flags & (RST | SYN):
        prot.mib.AttemptFails += 1
        prot.mib_ext.EmbryonicRsts += 1
        if not flags & RST:
            tcp_v4_send_reset(prot, seg)
        reqsk_drop(request)
        return DropReason.TCP_RESET
    if not flags & ACK:
        return DropReason.TCP_NO_ACK
    if req.tstamp_ok and seg.tsval is not None and not after(seg.seq, req.rcv_nxt):
        req.ts_recent = seg.tsval
    return _make_child(request, seg)


def _in_window(req: Any, seg: Segment) -> bool:
    """tcp_in_window: the segment touches [RCV.NXT, RCV.NXT + RCV.WND)."""
    end = req.rcv_nxt + req.rcv_wnd & SEQ_MASK
    if seg.seq == req.rcv_nxt:
        return True
    if after(seg.end_seq, req.rcv_nxt) and before(seg.seq, end):
        return True
    return bool(seg.seq == end and seg.seq == seg.end_seq)


def _answered_lately(request: RequestSock, seg: Segment) -> bool:
    """Limit answers to segments that do not fit, and count what goes without."""
    prot = request.prot
    limit_us = prot.config.tcp_invalid_ratelimit_us
    limited = tcp_oow_rate_limited(request, prot.clock.now_us, seg, limit_us)
    prot.mib_ext.TCPACKSkippedSynRecv += limited
    return limited


def _send_request_ack(request: RequestSock, seg: Segment) -> None:
    """Answer an unacceptable segment with an ACK (tcp_v4_reqsk_send_ack)."""
    req = request.req
    options = b""
    if req.tstamp_ok:
        tsval = request.prot.tcp_time_stamp() + request.tsoffset & SEQ_MASK
        options = tstamp_option(tsval, req.ts_recent)
    window = req.rcv_wnd >> req.rcv_wscale
    seq = seq_add(req.snt_isn, 1)
    tcp_v4_send_bare(request.prot, seg, seq, req.rcv_nxt, ACK, window, options)


def _make_child(request: RequestSock, seg: Segment) -> TcpSock | DropReason:
    prot = request.prot
    queues = request.lsk.listen
    assert queues is not None
    if queues.accept_queue_is_full():
        prot.mib_ext.ListenOverflows += 1
        prot.mib_ext.ListenDrops += 1
        if prot.config.tcp_abort_on_overflow:
            prot.mib_ext.EmbryonicRsts += 1
            tcp_v4_send_reset(prot, seg)
            reqsk_drop(request)
        else:
            request.req.acked = 1
        return DropReason.TCP_LISTEN_OVERFLOW
    try:
        child = tcp_create_openreq_child(request, seg)
    except MemoryError:
        prot.mib_ext.ListenDrops += 1
        return DropReason.NOMEM
    reqsk_drop(request)
    queues.accept_queue.append(child)
    return child
