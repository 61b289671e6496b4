"""What comes next from a peer whose SYN was answered (tcp_check_req, net/ipv4/tcp_minisocks.c).

The child is made here, at the third ACK, not in accept(). A Fast Open child exists already and
asks ``tcp_check_req_fastopen`` before it takes the segment itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ustack.lib.drop_reason import DropReason
from ustack.lib.seqnum import SEQ_MASK, after, before, seq_add, seq_diff
from ustack.native.lib import lib
from ustack.tcp.challenge import tcp_oow_rate_limited
from ustack.tcp.child import tcp_v4_syn_recv_sock
from ustack.tcp.close import tcp_reset
from ustack.tcp.fastopen import reqsk_fastopen_remove
from ustack.tcp.md5 import tcp_md5_do_lookup
from ustack.tcp.offer import tcp_offer
from ustack.tcp.request_sock import (
    RequestSock,
    reqsk_drop,
    reqsk_timeout_us,
    tcp_rtx_synack,
)
from ustack.tcp.transmit import tcp_v4_send_bare, tcp_v4_send_reset
from ustack.wire.tcp import ACK, MD5SIG_ROOM, RST, SYN, tstamp_option

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock
    from ustack.wire.tcp import Segment


def tcp_check_req(request: RequestSock, seg: Segment) -> TcpSock | DropReason | None:
    """Judge a segment for a half-open connection (RFC 9293 §3.10.7.4).

    An ACK of our SYN makes the child. A full accept queue is not the peer's fault: its ACK is
    ignored and the SYN-ACK timer will make the peer acknowledge again, unless
    tcp_abort_on_overflow says to reset it.

    Returns:
        The child, already on the accept queue; None, a wrong ACK: the listener answers it; or
        why nothing came of it.
    """
    req = request.req
    prot = request.prot
    reason = _repeated_syn(request, seg)
    if reason is not None:
        return reason
    if seg.flags & (ACK | RST) == ACK and seg.ack != seq_add(req.snt_isn, 1):
        return None
    reason = _out_of_window(request, seg)
    if reason is not None:
        return reason
    if seg.flags & RST and seg.seq != req.rcv_nxt and not req.in_table:
        if not _answered_lately(request, seg):
            _send_request_ack(request, seg)  # RFC 5961 §3.2; 3.10 believes it
        return DropReason.TCP_RESET
    if _flags(req, seg) & (RST | SYN):
        prot.mib.AttemptFails += 1
        return _embryonic_reset(request, seg, DropReason.TCP_RESET)
    if not seg.flags & ACK:
        return DropReason.TCP_NO_ACK
    assert request.lsk.listen is not None
    if req.num_timeout < request.lsk.listen.defer_accept and seg.end_seq == req.rcv_nxt:
        req.acked = 1
        prot.mib_ext.TCPDeferAcceptDrop += 1
        return DropReason.TCP_DEFER_ACCEPT
    return _make_child(request, seg)


def tcp_check_req_fastopen(sk: TcpSock, request: RequestSock, seg: Segment) -> DropReason | None:
    """Judge a segment for a Fast Open child whose handshake is not over.

    Returns:
        None: the child takes it from here. A SYN out of place is reset, but never the child:
        its SYN may be somebody else's.
    """
    reason = _repeated_syn(request, seg) or _out_of_window(request, seg)
    if reason is not None:
        return reason
    flags = _flags(request.req, seg)
    if flags & (RST | SYN):
        sk.prot.mib.AttemptFails += 1
        if flags & RST:
            reqsk_fastopen_remove(sk, request, reset=True)
            tcp_reset(sk)
        else:
            tcp_v4_send_reset(sk.prot, sk, seg)
        return DropReason.TCP_RESET
    return None if seg.flags & ACK else DropReason.TCP_NO_ACK


def _flags(req: Any, seg: Segment) -> int:
    """The segment's SYN and RST; a SYN that we know stands before the window and is cut off."""
    flags = seg.flags & (SYN | RST)
    return flags & ~SYN if seg.seq == req.rcv_isn else flags


def _repeated_syn(request: RequestSock, seg: Segment) -> DropReason | None:
    """The SYN again: so is the SYN-ACK, whose timer starts anew."""
    req = request.req
    prot = request.prot
    if seg.seq != req.rcv_isn or seg.flags & (SYN | ACK | RST) != SYN or _paws_reject(req, seg):
        return None
    if not _answered_lately(request, seg):
        tcp_rtx_synack(request)
        req.expires_us = prot.clock.now_us + reqsk_timeout_us(req)
        lib.us_reqsk_rearm(prot.fast.ptr, req)
    return DropReason.TCP_INVALID_SYN


def _out_of_window(request: RequestSock, seg: Segment) -> DropReason | None:
    """First check: timestamps and sequence number; what does not fit is answered by an ACK."""
    req = request.req
    prot = request.prot
    old = _paws_reject(req, seg)
    foreign = _tsecr_reject(request, seg)
    if not old and not foreign and _in_window(req, seg):
        return None
    if not seg.flags & RST and not _answered_lately(request, seg):
        _send_request_ack(request, seg)
    if old:
        prot.mib_ext.PAWSEstab += 1
        return DropReason.TCP_RFC7323_PAWS
    if foreign:
        prot.mib_ext.TSEcrRejected += 1
        return DropReason.TCP_RFC7323_TSECR
    return DropReason.TCP_OVERWINDOW


def _tsecr_reject(request: RequestSock, seg: Segment) -> bool:
    """Whether the segment echoes a timestamp that no SYN-ACK had (linux-6, since 6.14)."""
    req = request.req
    if request.sk is not None or request.req.in_table:
        return False
    if not req.tstamp_ok or seg.tsval is None or not seg.tsecr:
        return False
    return before(seg.tsecr, req.snt_tsval_first) or after(seg.tsecr, req.snt_tsval_last)


def _paws_reject(req: Any, seg: Segment) -> bool:
    return bool(
        req.tstamp_ok
        and seg.tsval is not None
        and not seg.flags & RST
        and seq_diff(req.ts_recent, seg.tsval) > 0
    )


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
    limited = tcp_oow_rate_limited(request.req, prot.clock.now_us, seg, limit_us)
    prot.mib_ext.TCPACKSkippedSynRecv += limited
    return limited


def _send_request_ack(request: RequestSock, seg: Segment) -> None:
    """Answer an unacceptable segment with an ACK (tcp_v4_reqsk_send_ack)."""
    req = request.req
    options = b""
    if req.tstamp_ok:
        tsval = request.prot.tcp_time_stamp() + req.tsoffset & SEQ_MASK
        options = tstamp_option(tsval, req.ts_recent)
    key = tcp_md5_do_lookup(request.lsk, seg.saddr)
    if key is not None:
        options += MD5SIG_ROOM
    window = req.rcv_wnd >> req.rcv_wscale
    seq = seq_add(req.snt_isn, 1) if request.sk is None else request.sk.tp.snd_nxt
    tcp_v4_send_bare(request.prot, seg, seq, req.rcv_nxt, ACK, window, options, key)


def _embryonic_reset(request: RequestSock, seg: Segment, reason: DropReason) -> DropReason:
    """Give up a request, with a reset unless it was one that came."""
    if not seg.flags & RST:
        tcp_v4_send_reset(request.prot, request.lsk, seg)
    reqsk_drop(request)
    request.prot.mib_ext.EmbryonicRsts += 1
    return reason


def _make_child(request: RequestSock, seg: Segment) -> TcpSock | DropReason:
    prot = request.prot
    queues = request.lsk.listen
    assert queues is not None
    req = request.req
    if req.tstamp_ok and seg.tsval is not None and not after(seg.seq, req.rcv_nxt):
        req.ts_recent = seg.tsval
    child = tcp_v4_syn_recv_sock(request, seg)
    if isinstance(child, DropReason):
        if prot.config.tcp_abort_on_overflow:
            return _embryonic_reset(request, seg, child)
        req.acked = 1
        return child
    reqsk_drop(request)
    queues.accept_queue.append(child.handle)
    tcp_offer(request.lsk, child)
    return child
