"""A segment for a connection: RFC 9293 §3.10.7.4's checks, in the RFC's order.

``tcp_v4_do_rcv`` in demux.py calls ``tcp_rcv_established`` or ``tcp_rcv_state_process``;
each check is a short function that says why the segment goes no further, or None. Reference:
net/ipv4/tcp_input.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.lib.drop_reason import DropReason
from ustack.lib.seqnum import SEQ_MASK, after, before, seq_diff, seq_min
from ustack.sock.sock import RCV_SHUTDOWN
from ustack.tcp.ack import (
    tcp_ack,
    tcp_check_space,
    tcp_oow_rate_limited,
    tcp_send_challenge_ack,
)
from ustack.tcp.check_req import tcp_check_req_fastopen
from ustack.tcp.child import tcp_init_transfer
from ustack.tcp.close import tcp_done, tcp_reset
from ustack.tcp.connect import tcp_rcv_synsent_state_process
from ustack.tcp.data import (
    tcp_ack_snd_check,
    tcp_data_queue,
    tcp_data_ready,
    tcp_dsack_set,
    tcp_enter_quickack_mode,
    tcp_event_data_recv,
    tcp_queue_rcv,
)
from ustack.tcp.fastopen import tcp_fastopen_request
from ustack.tcp.fastopen_passive import tcp_rcv_synrecv_state_fastopen
from ustack.tcp.output import tcp_push_pending_frames
from ustack.tcp.rtt import tcp_ack_update_rtt
from ustack.tcp.states import (
    TCP_CLOSE,
    TCP_CLOSE_WAIT,
    TCP_CLOSING,
    TCP_ESTABLISHED,
    TCP_FIN_WAIT1,
    TCP_FIN_WAIT2,
    TCP_LAST_ACK,
    TCP_SYN_RECV,
    TCP_SYN_SENT,
    TcpEvent,
)
from ustack.tcp.timer import tcp_clear_retransmit
from ustack.tcp.timewait import tcp_time_wait
from ustack.tcp.transmit import tcp_send_ack, tcp_v4_send_reset
from ustack.tcp.window import tcp_receive_window
from ustack.wire.tcp import ACK, FIN, PSH, RST, SYN

if TYPE_CHECKING:
    from ustack.tcp.request_sock import RequestSock
    from ustack.tcp.sock import TcpSock
    from ustack.wire.tcp import Segment

TCP_PAWS_24DAYS_US = 24 * 24 * 60 * 60 * 1_000_000
"""RFC 7323 §5.5: an older TS.Recent proves nothing."""


def tcp_rcv_established(sk: TcpSock, seg: Segment) -> DropReason | None:
    """Take a segment in ESTABLISHED: the predicted one quickly, any other by the checks.

    Predicted is text at RCV.NXT that acknowledges nothing new and fits the window, with
    nothing out of order (Van Jacobson's header prediction).
    """
    tp = sk.tp
    if (
        seg.flags & ~PSH == ACK
        and seg.seq == tp.rcv_nxt
        and seg.ack == tp.snd_una
        and sk.ofo is None
        and seg.payload
        and seg.window << tp.snd_wscale == tp.snd_wnd
        and len(seg.payload) <= tcp_receive_window(sk)
        and not tcp_paws_discard(sk, seg)
    ):
        tcp_replace_ts_recent(sk, seg)
        if not tcp_queue_rcv(sk, seg.payload):
            tcp_ack_snd_check(sk)
            return DropReason.TCP_RCVQ_DROP
        sk.prot.mib_ext.TCPHPHits += 1
        tcp_event_data_recv(sk, seg)
        tcp_ack_snd_check(sk)
        tcp_data_ready(sk)
        return None
    return tcp_rcv_state_process(sk, seg)


def tcp_rcv_state_process(sk: TcpSock, seg: Segment) -> DropReason | None:
    """Take a segment in any state but LISTEN, TIME_WAIT and CLOSE: no table has a closed socket.

    Returns:
        None if it did something, else why it was dropped; answers have been sent.
    """
    tp = sk.tp
    if tp.state == TCP_SYN_SENT:
        return tcp_rcv_synsent_state_process(sk, seg)
    request = tcp_fastopen_request(sk)
    if request is not None:
        reason = tcp_check_req_fastopen(sk, request, seg)
        if reason is not None:
            return reason
    # First, check the sequence number. Second, the RST bit. Fourth, the SYN bit.
    reason = tcp_validate_incoming(sk, seg)
    if reason is not None:
        return reason
    # Fifth, check the ACK field.
    if not seg.flags & ACK:
        return DropReason.TCP_NO_ACK
    if tp.state == TCP_SYN_RECV and not _is_ack_of_our_syn(sk, seg, ahead=request is not None):
        tcp_v4_send_reset(sk.prot, seg)
        return DropReason.TCP_INVALID_ACK_SEQUENCE
    reason = tcp_ack(sk, seg)
    if reason is not None:
        return reason
    tcp_replace_ts_recent(sk, seg)
    reason = _ack_in_state(sk, seg)
    if reason is not None or is_over(sk):
        return reason
    # Sixth, check the URG bit: the text is taken in line.
    # Seventh, process the segment text. Eighth, check the FIN bit.
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


def tcp_validate_incoming(sk: TcpSock, seg: Segment) -> DropReason | None:
    """PAWS, sequence number, RST and SYN (tcp_validate_incoming, RFC 5961 §3.2, §4.2)."""
    if tcp_paws_discard(sk, seg) and not seg.flags & RST:
        sk.prot.mib_ext.PAWSEstab += 1
        if tcp_oow_rate_limited(sk.tp, sk.prot.clock.now_us, seg):
            sk.prot.mib_ext.TCPACKSkippedPAWS += 1
        else:
            tcp_send_dupack(sk, seg)
        return DropReason.TCP_RFC7323_PAWS
    reason = tcp_sequence(sk, seg)
    if reason is not None:
        if not seg.flags & RST:
            if seg.flags & SYN:
                sk.prot.mib_ext.TCPSYNChallenge += 1
                tcp_send_challenge_ack(sk)
            elif tcp_oow_rate_limited(sk.tp, sk.prot.clock.now_us, seg):
                sk.prot.mib_ext.TCPACKSkippedSeq += 1
            else:
                tcp_send_dupack(sk, seg)
        elif tcp_reset_check(sk, seg):
            tcp_reset(sk)
        return reason
    if seg.flags & RST:
        if seg.seq == sk.tp.rcv_nxt or tcp_reset_check(sk, seg):
            tcp_reset(sk)
        else:
            tcp_send_challenge_ack(sk)
        return DropReason.TCP_RESET
    if seg.flags & SYN and not _is_crossing_syn_ack(sk, seg):
        sk.prot.mib_ext.TCPSYNChallenge += 1
        tcp_send_challenge_ack(sk)
        return DropReason.TCP_INVALID_SYN
    return None


def tcp_reset_check(sk: TcpSock, seg: Segment) -> bool:
    """Whether a reset stands where the peer's FIN did, as macOS sends it (tcp_reset_check)."""
    tp = sk.tp
    after_fin = tp.state in (TCP_CLOSE_WAIT, TCP_LAST_ACK, TCP_CLOSING)
    return bool(after_fin and seg.seq == (tp.rcv_nxt - 1) & SEQ_MASK)


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
    """Whether any part of the segment is in the window (RFC 9293 §3.10.7.4, first check)."""
    tp = sk.tp
    if before(seg.end_seq, tp.rcv_wup):
        return DropReason.TCP_OLD_SEQUENCE
    if after(seg.seq, tp.rcv_nxt + tcp_receive_window(sk) & SEQ_MASK):
        return DropReason.TCP_INVALID_SEQUENCE
    return None


def tcp_paws_discard(sk: TcpSock, seg: Segment) -> bool:
    """Whether the timestamp shows an old duplicate (RFC 7323 §5.3)."""
    tp = sk.tp
    if not tp.tstamp_ok or seg.tsval is None or seq_diff(tp.ts_recent, seg.tsval) <= 0:
        return False
    age_us = sk.prot.clock.now_us - tp.ts_recent_stamp_us
    return bool(age_us < TCP_PAWS_24DAYS_US)


def tcp_replace_ts_recent(sk: TcpSock, seg: Segment) -> None:
    """Keep the timestamp of a segment at or before Last.ACK.sent (RFC 7323 §4.3)."""
    tp = sk.tp
    if tp.tstamp_ok and seg.tsval is not None and not after(seg.seq, tp.last_ack_sent):
        tp.ts_recent = seg.tsval
        tp.ts_recent_stamp_us = sk.prot.clock.now_us


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
        sk.set_state(TcpEvent.RCV_ACK_OF_SYN)
        scale = 0 if seg.flags & SYN else tp.snd_wscale
        tp.snd_wnd = tp.max_window = seg.window << scale
        tcp_init_transfer(sk)
        sk.sk_state_change()
        return None
    if not tp.fin_queued or tp.snd_una != tp.write_seq:
        return None
    if state == TCP_FIN_WAIT1:
        sk.set_state(TcpEvent.RCV_ACK_OF_FIN)
        return _enter_fin_wait2(sk, seg)
    if state == TCP_CLOSING:
        sk.set_state(TcpEvent.RCV_ACK_OF_FIN)
        tcp_time_wait(sk)
    elif state == TCP_LAST_ACK:
        sk.set_state(TcpEvent.RCV_ACK_OF_FIN)
        tcp_done(sk)
    return None


def _fastopen_acked(sk: TcpSock, seg: Segment, request: RequestSock) -> None:
    """The third ACK for a connection that exists since its SYN (RFC 7413 §4.2.2)."""
    tp = sk.tp
    if not tp.srtt_us and request.req.snt_synack_us:
        tcp_ack_update_rtt(sk, sk.prot.clock.now_us - request.req.snt_synack_us)
    tcp_rcv_synrecv_state_fastopen(sk, request)
    if tp.state != TCP_SYN_RECV:
        return
    sk.set_state(TcpEvent.RCV_ACK_OF_SYN)
    tp.snd_wnd = tp.max_window = seg.window << tp.snd_wscale
    tp.snd_wl1 = seg.seq
    tp.lsndtime_us = sk.prot.clock.now_us
    sk.sk_state_change()


def _enter_fin_wait2(sk: TcpSock, seg: Segment) -> DropReason | None:
    """Our FIN is acknowledged; an orphan goes on as a mini-socket (TCP_FIN_WAIT2)."""
    tp = sk.tp
    if not sk.dead:
        sk.sk_state_change()
        return None
    if seg.end_seq != seg.seq and after(seg.end_seq - (seg.flags & FIN) & SEQ_MASK, tp.rcv_nxt):
        return _abort_on_data(sk, seg)
    if seg.flags & FIN:
        return None  # the eighth check makes it TIME_WAIT at once
    tcp_time_wait(sk, TCP_FIN_WAIT2, sk.prot.config.tcp_fin_timeout_us)
    return None


def _abort_on_data(sk: TcpSock, seg: Segment) -> DropReason:
    """Data for a socket that nobody can read any more: a reset (RFC 9293 §3.6.1)."""
    sk.prot.mib_ext.TCPAbortOnData += 1
    tcp_v4_send_reset(sk.prot, seg)
    tcp_reset(sk)
    return DropReason.TCP_ABORT_ON_DATA


def _segment_text(sk: TcpSock, seg: Segment) -> DropReason | None:
    tp = sk.tp
    state = tp.state
    if state == TCP_ESTABLISHED:
        return tcp_data_queue(sk, seg)
    if state in (TCP_FIN_WAIT1, TCP_FIN_WAIT2):
        text_end = seg.end_seq - (seg.flags & FIN) & SEQ_MASK
        if tp.rcv_shutdown & RCV_SHUTDOWN and after(text_end, tp.rcv_nxt):
            return _abort_on_data(sk, seg)
        return tcp_data_queue(sk, seg)
    if seg.seq != seg.end_seq and not after(seg.end_seq, tp.rcv_nxt):
        sk.prot.mib_ext.DelayedACKLost += 1
        tcp_enter_quickack_mode(sk)
        tcp_dsack_set(sk, seg.seq, seg.end_seq)
        tcp_send_ack(sk)  # a repeated FIN: our ACK of it was lost
        return DropReason.TCP_OLD_DATA
    return None
