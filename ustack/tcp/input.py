"""A segment for a connection: RFC 9293 §3.10.7.4's checks, in the RFC's order.

``tcp_v4_do_rcv`` in demux.py calls ``tcp_rcv_established`` or ``tcp_rcv_state_process``;
each check is a short function that says why the segment goes no further, or None. Reference:
net/ipv4/tcp_input.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.lib.drop_reason import DropReason
from ustack.lib.seqnum import SEQ_MASK, after, before, seq_min
from ustack.sock.sock import RCV_SHUTDOWN, SEND_SHUTDOWN
from ustack.tcp.ack import tcp_ack
from ustack.tcp.challenge import tcp_oow_is_limited, tcp_send_challenge_ack
from ustack.tcp.check_req import tcp_check_req_fastopen
from ustack.tcp.child import tcp_init_transfer
from ustack.tcp.close import tcp_done, tcp_reset, tcp_shutdown_write
from ustack.tcp.connect import tcp_rcv_synsent_state_process
from ustack.tcp.data import (
    tcp_data_queue,
    tcp_data_ready,
    tcp_dsack_set,
    tcp_enter_quickack_mode,
    tcp_event_data_recv,
    tcp_fin,
    tcp_queue_rcv,
    tcp_rcv_rtt_measure_ts,
)
from ustack.tcp.delack import tcp_ack_snd_check
from ustack.tcp.fastopen import tcp_fastopen_request
from ustack.tcp.fastopen_blackhole import tcp_fastopen_active_reset_check
from ustack.tcp.fastopen_passive import tcp_rcv_synrecv_state_fastopen
from ustack.tcp.metrics import tcp_update_metrics
from ustack.tcp.output import tcp_push_pending_frames
from ustack.tcp.paws import tcp_paws_discard, tcp_replace_ts_recent
from ustack.tcp.rtt import tcp_ack_update_rtt
from ustack.tcp.sndbuf import tcp_check_space
from ustack.tcp.states import (
    AFTER_FIN,
    TCP_CLOSE,
    TCP_CLOSING,
    TCP_ESTABLISHED,
    TCP_FIN_WAIT1,
    TCP_LAST_ACK,
    TCP_SYN_RECV,
    TCP_SYN_SENT,
    TcpEvent,
)
from ustack.tcp.timer import tcp_arm_keepalive, tcp_clear_retransmit
from ustack.tcp.timewait import (
    TCP_TIMEWAIT_LEN_US,
    tcp_fin_time,
    tcp_fin_wait2_orphan,
    tcp_time_wait,
)
from ustack.tcp.transmit import tcp_send_ack, tcp_v4_send_reset
from ustack.tcp.urgent import tcp_urg
from ustack.tcp.window import tcp_max_receive_window, tcp_receive_window
from ustack.wire.tcp import ACK, FIN, PSH, RST, SYN, URG

if TYPE_CHECKING:
    from ustack.tcp.request_sock import RequestSock
    from ustack.tcp.sock import TcpSock
    from ustack.wire.tcp import Segment


def tcp_rcv_established(sk: TcpSock, seg: Segment) -> DropReason | None:
    """Take a segment in ESTABLISHED: the predicted one quickly, any other by the checks.

    Predicted is one at RCV.NXT that fits the window, with nothing out of order (Van Jacobson's
    header prediction): each of the checks would let it pass. So only what it brings is left.
    """
    tp = sk.tp
    payload = seg.payload
    if (
        seg.flags & ~PSH != ACK
        or seg.seq != tp.rcv_nxt
        or sk.ofo is not None
        or sk.urg is not None
        or len(payload) > tcp_receive_window(sk)
        or (seg.tsval is not None and tp.tstamp_ok and before(seg.tsval, tp.ts_recent))
    ):
        return tcp_rcv_state_process(sk, seg)
    only_text = payload and seg.ack == tp.snd_una and seg.window << tp.snd_wscale == tp.snd_wnd
    if only_text:
        tcp_replace_ts_recent(sk, seg)
    elif (reason := tcp_ack(sk, seg)) is not None:
        return reason
    is_taken = bool(payload) and tcp_rcv_text(sk, seg)
    if not only_text:
        tcp_push_pending_frames(sk)
        tcp_check_space(sk)
    elif is_taken:
        sk.prot.mib_ext.TCPHPHits += 1
    tcp_ack_snd_check(sk)
    if is_taken:
        tcp_data_ready(sk)
    return None if is_taken or not payload else DropReason.PROTO_MEM


def tcp_rcv_text(sk: TcpSock, seg: Segment) -> bool:
    """Queue text that is next in order; False: there is no memory for it."""
    tcp_rcv_rtt_measure_ts(sk, seg)
    sk.duplicate_sack = None
    if not tcp_queue_rcv(sk, seg.payload):
        return False
    tcp_event_data_recv(sk, seg)
    return True


def tcp_rcv_state_process(sk: TcpSock, seg: Segment) -> DropReason | None:
    """Take a segment in any state but LISTEN, TIME_WAIT and CLOSE: no table has a closed socket.

    Returns:
        None if it did something, else why it was dropped; answers have been sent.
    """
    tp = sk.tp
    if tp.state == TCP_SYN_SENT:
        return tcp_rcv_synsent_state_process(sk, seg)
    if not seg.flags & (ACK | RST | SYN):
        return DropReason.TCP_FLAGS  # Linux does not even say where we are
    request = tcp_fastopen_request(sk)
    if request is not None:
        reason = tcp_check_req_fastopen(sk, request, seg)
        if reason is not None:
            return reason
    # First, check the sequence number. Second, the RST bit. Fourth, the SYN bit.
    reason = tcp_validate_incoming(sk, seg, syn_inerr=tp.state == TCP_ESTABLISHED)
    if reason is not None:
        return reason
    # Fifth, check the ACK field.
    if tp.state == TCP_SYN_RECV and not _is_ack_of_our_syn(sk, seg, ahead=request is not None):
        tcp_v4_send_reset(sk.prot, sk, seg)
        return DropReason.TCP_INVALID_ACK_SEQUENCE
    reason = tcp_ack(sk, seg)
    if reason is not None:
        return reason
    reason = _ack_in_state(sk, seg)
    if reason is not None or is_over(sk):
        return reason
    # Sixth, check the URG bit. Seventh, process the segment text. Eighth, check the FIN bit.
    reason = _segment_text(sk, seg)
    if not is_over(sk):
        tcp_push_pending_frames(sk)
        tcp_check_space(sk)
        tcp_ack_snd_check(sk)
    return reason


def _is_ack_of_our_syn(sk: TcpSock, seg: Segment, *, ahead: bool) -> bool:
    """Whether SEG.ACK is acceptable in SYN_RECV; a Fast Open child may be ``ahead`` with data."""
    tp = sk.tp
    if ahead:
        return not before(seg.ack, tp.snd_una) and not after(seg.ack, tp.snd_nxt)
    return bool(seg.ack == tp.snd_nxt)


def is_over(sk: TcpSock) -> bool:
    """Whether a step has ended the connection; an orphan's control block is gone by then."""
    return sk.tp is None or sk.tp.state == TCP_CLOSE


def tcp_validate_incoming(
    sk: TcpSock, seg: Segment, *, syn_inerr: bool = False
) -> DropReason | None:
    """PAWS, sequence number, RST and SYN (tcp_validate_incoming, RFC 5961 §3.2, §4.2).

    Args:
        syn_inerr: a SYN counts in InErrs, as in ESTABLISHED.
    """
    old = tcp_paws_discard(sk, seg)
    if old is not None and not seg.flags & RST:
        if seg.flags & SYN:
            return _syn_challenge(sk, syn_inerr=syn_inerr)
        return _answer_paws(sk, seg, old)
    reason = tcp_sequence(sk, seg)
    if reason is not None:
        if seg.flags & RST:
            if tcp_reset_check(sk, seg):
                tcp_reset(sk)
            return reason
        if seg.flags & SYN:
            return _syn_challenge(sk, syn_inerr=syn_inerr)
        _answer_unacceptable(sk, seg, reason)
        return reason
    if seg.flags & RST:
        if _reset_is_exact(sk, seg):
            tcp_reset(sk)
        else:
            tcp_fastopen_active_reset_check(sk)
            tcp_send_challenge_ack(sk)
        return DropReason.TCP_RESET
    if seg.flags & SYN and not _is_crossing_syn_ack(sk, seg):
        return _syn_challenge(sk, syn_inerr=syn_inerr)
    return None


def _answer_paws(sk: TcpSock, seg: Segment, reason: DropReason) -> DropReason:
    """An old duplicate is answered; an old ACK, which is common, is only counted."""
    mib = sk.prot.mib_ext
    if reason is DropReason.TCP_RFC7323_PAWS_ACK:
        mib.PAWSOldAck += 1
        return reason
    mib.PAWSEstab += 1
    if tcp_oow_is_limited(sk, seg):
        mib.TCPACKSkippedPAWS += 1
    else:
        tcp_send_dupack(sk, seg)
    return reason


def _answer_unacceptable(sk: TcpSock, seg: Segment, reason: DropReason) -> None:
    mib = sk.prot.mib_ext
    if reason is not DropReason.TCP_OLD_SEQUENCE:
        mib.BeyondWindow += 1
    if tcp_oow_is_limited(sk, seg):
        mib.TCPACKSkippedSeq += 1
    else:
        tcp_send_dupack(sk, seg)


def _syn_challenge(sk: TcpSock, *, syn_inerr: bool) -> DropReason:
    """A SYN in a synchronised state: whoever sent it must prove it (RFC 5961 §4.2)."""
    sk.prot.mib.InErrs += syn_inerr
    sk.prot.mib_ext.TCPSYNChallenge += 1
    tcp_send_challenge_ack(sk)
    return DropReason.TCP_INVALID_SYN


def _reset_is_exact(sk: TcpSock, seg: Segment) -> bool:
    """Whether a reset stands where only the peer could know (RFC 5961 §3.2).

    At RCV.NXT, behind the peer's FIN, or, as a peer that lost a segment sends it, at the end
    of the rightmost SACK block.
    """
    if seg.seq == sk.tp.rcv_nxt or tcp_reset_check(sk, seg):
        return True
    if sk.ofo is None or not sk.ofo.sacks or not sk.tp.sack_ok:
        return False
    rightmost = sk.ofo.sacks[0][1]
    for _, end in sk.ofo.sacks:
        rightmost = end if after(end, rightmost) else rightmost
    return bool(seg.seq == rightmost)


def tcp_reset_check(sk: TcpSock, seg: Segment) -> bool:
    """Whether a reset stands where the peer's FIN did, as macOS sends it (tcp_reset_check)."""
    tp = sk.tp
    return bool(tp.state in AFTER_FIN and seg.seq == (tp.rcv_nxt - 1) & SEQ_MASK)


def _is_crossing_syn_ack(sk: TcpSock, seg: Segment) -> bool:
    """Whether this is the SYN-ACK of a simultaneous open (RFC 9293 §3.5, figure 8)."""
    tp = sk.tp
    return bool(
        tp.state == TCP_SYN_RECV
        and seg.flags & ACK
        and seg.end_seq == tp.rcv_nxt
        and seg.seq == tp.irs
        and seg.ack == tp.snd_nxt
    )


def tcp_sequence(sk: TcpSock, seg: Segment) -> DropReason | None:
    """Whether the segment is in the window (RFC 9293 §3.10.7.4, first check; tcp_sequence).

    One that begins inside and ends beyond is taken whole, but only while nothing waits to
    be read, be it a FIN: there is room for it then. A FIN needs no room.
    """
    tp = sk.tp
    if before(seg.end_seq, tp.rcv_wup):
        return DropReason.TCP_OLD_SEQUENCE
    edge = tp.rcv_nxt + tcp_max_receive_window(sk) & SEQ_MASK
    if after(seg.end_seq - (seg.flags & FIN) & SEQ_MASK, edge):
        if after(seg.seq, edge):
            return DropReason.TCP_INVALID_SEQUENCE
        if tp.copied_seq != tp.rcv_nxt:
            return DropReason.TCP_INVALID_END_SEQUENCE
    return None


def tcp_send_dupack(sk: TcpSock, seg: Segment) -> None:
    """Tell the peer at once where we are (tcp_send_dupack): it repeats what we have."""
    if seg.seq != seg.end_seq and before(seg.seq, sk.tp.rcv_nxt):
        sk.prot.mib_ext.DelayedACKLost += 1
        tcp_enter_quickack_mode(sk)
        tcp_dsack_set(sk, seg.seq, seq_min(seg.end_seq, sk.tp.rcv_nxt))
    tcp_send_ack(sk)


def _ack_in_state(sk: TcpSock, seg: Segment) -> DropReason | None:
    """What an acceptable ACK means in the closing states and in SYN_RECV."""
    tp = sk.tp
    state = tp.state
    request = tcp_fastopen_request(sk)
    if request is not None:
        _fastopen_acked(sk, seg, request)
        if state == TCP_SYN_RECV:
            return None
    if state == TCP_SYN_RECV:
        tcp_clear_retransmit(sk)
        tp.delivered += 1  # the SYN-ACK
        sk.set_state(TcpEvent.RCV_ACK_OF_SYN)
        scale = 0 if seg.flags & SYN else tp.snd_wscale
        tp.snd_wnd = tp.max_window = seg.window << scale
        tcp_init_transfer(sk)
        sk.sk_state_change()
        _shutdown_at_last(sk)
        return None
    return tcp_ack_of_fin(sk, seg)


def tcp_ack_of_fin(
    sk: TcpSock, seg: Segment | None = None, *, fin: bool = False
) -> DropReason | None:
    """Go on to the next state if our FIN is acknowledged.

    Args:
        seg: what has acknowledged it; None: C took it, an ACK alone or with the peer's ``fin``.
    """
    tp = sk.tp
    state = tp.state
    if not tp.fin_queued or tp.snd_una != tp.write_seq:
        return None
    if state == TCP_FIN_WAIT1:
        sk.set_state(TcpEvent.RCV_ACK_OF_FIN)
        if fin:
            tcp_fin(sk)
            return None
        return _enter_fin_wait2(sk, seg)
    if state == TCP_CLOSING:
        sk.set_state(TcpEvent.RCV_ACK_OF_FIN)
        tcp_time_wait(sk)
    elif state == TCP_LAST_ACK:
        tcp_update_metrics(sk)
        sk.set_state(TcpEvent.RCV_ACK_OF_FIN)
        tcp_done(sk)
    return None


def _fastopen_acked(sk: TcpSock, seg: Segment, request: RequestSock) -> None:
    """The third ACK for a connection that exists since its SYN (RFC 7413 §4.2.2)."""
    tp = sk.tp
    if not tp.srtt_us and not request.req.num_retrans:
        rtt_us = sk.prot.clock.now_us - request.req.snt_synack_us
        tcp_ack_update_rtt(sk, rtt_us, rtt_us)
    tcp_rcv_synrecv_state_fastopen(sk, request)
    if tp.state != TCP_SYN_RECV:
        return
    tp.delivered += 1  # the SYN-ACK
    sk.set_state(TcpEvent.RCV_ACK_OF_SYN)
    tp.snd_wnd = tp.max_window = seg.window << tp.snd_wscale
    tp.snd_wl1 = seg.seq
    tp.lsndtime_us = sk.prot.clock.now_us
    sk.sk_state_change()
    _shutdown_at_last(sk)


def _shutdown_at_last(sk: TcpSock) -> None:
    """A shutdown() in SYN_RECV was left for when the connection is open."""
    if sk.tp.snd_shutdown & SEND_SHUTDOWN:
        tcp_shutdown_write(sk)


def _enter_fin_wait2(sk: TcpSock, seg: Segment | None) -> DropReason | None:
    """Our FIN is acknowledged; an orphan goes on as a mini-socket (TCP_FIN_WAIT2)."""
    tp = sk.tp
    if not sk.dead:
        sk.sk_state_change()
        return None
    if seg is None:
        tcp_fin_wait2_orphan(sk)
        return None
    text = seg.end_seq != seg.seq
    text = text and after(seg.end_seq - (seg.flags & FIN) & SEQ_MASK, tp.rcv_nxt)
    if text or sk.opts.linger2_us < 0:
        return _abort_on_data(sk, seg)
    if seg.flags & FIN and seg.seq == tp.rcv_nxt:
        return None  # the eighth check makes it TIME_WAIT at once
    if seg.flags & FIN and tcp_fin_time(sk) <= TCP_TIMEWAIT_LEN_US:
        tcp_arm_keepalive(sk, tcp_fin_time(sk))
    else:
        tcp_fin_wait2_orphan(sk)
    return None


def _abort_on_data(sk: TcpSock, seg: Segment) -> DropReason:
    """Data for a socket that nobody can read any more: a reset (RFC 9293 §3.6.1)."""
    sk.prot.mib_ext.TCPAbortOnData += 1
    tcp_v4_send_reset(sk.prot, sk, seg)
    tcp_reset(sk)
    return DropReason.TCP_ABORT_ON_DATA


def _segment_text(sk: TcpSock, seg: Segment) -> DropReason | None:
    tp = sk.tp
    state = tp.state
    if seg.flags & URG or sk.urg is not None:
        tcp_urg(sk, seg)  # before all else, so that what is refused has been seen
    if state in AFTER_FIN and not before(seg.seq, tp.rcv_nxt):
        return None  # nothing can follow the peer's FIN
    if state != TCP_ESTABLISHED and tp.rcv_shutdown & RCV_SHUTDOWN:
        text_end = seg.end_seq - (seg.flags & FIN) & SEQ_MASK
        if seg.end_seq != seg.seq and after(text_end, tp.rcv_nxt):
            return _abort_on_data(sk, seg)
    if seg.payload:
        tcp_rcv_rtt_measure_ts(sk, seg)
    return tcp_data_queue(sk, seg)
