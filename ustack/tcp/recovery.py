"""Loss recovery's state machine: Open, Disorder, CWR, Recovery, Loss (tcp_fastretrans_alert).

``tcp_ack`` calls it for every ACK that is not plainly in order; timers and ICMP enter Loss
and Recovery from here too. What is lost RACK says (rack.py), without SACK the duplicate ACKs
(reno_sack.py), and with tcp_recovery's bit 0 off RFC 6675's count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.lib.seqnum import after, before, seq_add
from ustack.tcp.ack_state import (
    FLAG_DATA_SACKED,
    FLAG_ECE,
    FLAG_LOST_RETRANS,
    FLAG_SACK_RENEGING,
    FLAG_SET_XMIT_TIMER,
    FLAG_SND_UNA_ADVANCED,
    REXMIT_LOST,
    REXMIT_NEW,
    REXMIT_NONE,
    AckState,
)
from ustack.tcp.cong.ops import (
    CA_EVENT_LOSS,
    TCP_CA_CWR,
    TCP_CA_DISORDER,
    TCP_CA_LOSS,
    TCP_CA_OPEN,
    TCP_CA_RECOVERY,
    tcp_ca_event,
    tcp_current_ssthresh,
    tcp_set_ca_state,
)
from ustack.tcp.early_retrans import tcp_pause_early_retransmit, tcp_wants_early_retransmit
from ustack.tcp.ecn import tcp_ecn_queue_cwr
from ustack.tcp.frto import tcp_process_loss
from ustack.tcp.output import (
    TCP_NAGLE_OFF,
    tcp_current_mss,
    tcp_packets_in_flight,
    tcp_write_xmit,
)
from ustack.tcp.prr import (
    tcp_cwnd_reduction,
    tcp_end_cwnd_reduction,
    tcp_enter_cwr,
    tcp_in_cwnd_reduction,
    tcp_init_cwnd_reduction,
)
from ustack.tcp.rack import (
    tcp_is_rack,
    tcp_rack_detect_loss,
    tcp_rack_mark_lost,
    tcp_rack_skb_timeout,
)
from ustack.tcp.reno_sack import (
    tcp_add_reno_sack,
    tcp_limit_reno_sacked,
    tcp_newreno_mark_lost,
    tcp_reset_reno_sack,
)
from ustack.tcp.retransmit import tcp_xmit_retransmit_queue
from ustack.tcp.scoreboard import (
    TCPCB_SACKED_ACKED,
    TCPCB_SACKED_RETRANS,
    tcp_any_retrans_done,
    tcp_highest_sack_seq,
    tcp_mark_skb_lost,
    tcp_rec_payload,
    tcp_recovery,
    tcp_reordering,
    tcp_rtx_queue,
)
from ustack.tcp.sock import ICSK_TIME_RETRANS
from ustack.tcp.states import TCP_SYN_SENT
from ustack.tcp.timer import tcp_arm_retransmit, tcp_rearm_rto
from ustack.tcp.undo import (
    tcp_init_undo,
    tcp_try_keep_open,
    tcp_try_undo_dsack,
    tcp_try_undo_partial,
    tcp_try_undo_recovery,
)

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock

RENEGING_MIN_US = 10_000


def tcp_fastretrans_alert(sk: TcpSock, ack: AckState, num_dupack: int) -> None:
    """Run the state machine on one dubious ACK (tcp_fastretrans_alert).

    Args:
        ack: what the ACK has told; ``rexmit`` says afterwards what to send.
        num_dupack: how many duplicate ACKs it stands for.
    """
    tp = sk.tp
    if not tp.packets_out and tp.sacked_out:
        tp.sacked_out = 0
    # A. ECE: the reduction is required, no undoing.
    if ack.flag & FLAG_ECE:
        tp.prior_ssthresh = 0
    # B. In all states check for reneging.
    if tcp_check_sack_reneging(sk, ack):
        return
    # C, D. The state ends when high_seq is acknowledged.
    if tp.ca_state == TCP_CA_OPEN:
        tp.retrans_stamp_us = 0
    elif not before(tp.snd_una, tp.high_seq) and _state_is_over(sk, ack):
        return
    # E. Process the state.
    do_lost = bool(num_dupack) or (
        bool(ack.flag & FLAG_DATA_SACKED) and tcp_force_fast_retransmit(sk)
    )
    if tp.ca_state == TCP_CA_RECOVERY:
        verdict = _in_recovery(sk, ack, num_dupack)
    elif tp.ca_state == TCP_CA_LOSS:
        verdict = _in_loss(sk, ack, num_dupack)
    else:
        verdict = _in_open(sk, ack, num_dupack)
    if verdict is None:
        return
    if not tcp_is_rack(sk) and (do_lost or verdict):
        tcp_update_scoreboard(sk, fast_rexmit=verdict)
    ack.rexmit = REXMIT_LOST


def _state_is_over(sk: TcpSock, ack: AckState) -> bool:
    """Leave CWR or Recovery; whether nothing more is to be done with this ACK."""
    tp = sk.tp
    if tp.ca_state == TCP_CA_CWR:
        if tp.snd_una != tp.high_seq:  # something above it, so that the peer has seen our CWR
            tcp_end_cwnd_reduction(sk)
            tcp_set_ca_state(sk, TCP_CA_OPEN)
    elif tp.ca_state == TCP_CA_RECOVERY:
        if not tp.sack_ok:
            tcp_reset_reno_sack(sk)
        if tcp_try_undo_recovery(sk, ack):
            return True
        tcp_end_cwnd_reduction(sk)
    return False


def _in_recovery(sk: TcpSock, ack: AckState, num_dupack: int) -> bool | None:
    """Recovery: None, send nothing; else whether a recovery has just begun."""
    tp = sk.tp
    if not ack.flag & FLAG_SND_UNA_ADVANCED:
        if not tp.sack_ok:
            tcp_add_reno_sack(sk, num_dupack)
    elif tcp_try_undo_partial(sk, ack):
        return None
    if tcp_try_undo_dsack(sk):
        tcp_try_to_open(sk, ack)
    tcp_identify_packet_loss(sk, ack)
    if tp.ca_state == TCP_CA_RECOVERY:
        return False
    if not tcp_time_to_recover(sk):
        return None
    tcp_enter_recovery(sk, ece_ack=bool(ack.flag & FLAG_ECE))
    return True


def _in_loss(sk: TcpSock, ack: AckState, num_dupack: int) -> bool | None:
    """Loss: as ``_in_recovery``; a repetition that is lost again goes on as in Open."""
    tp = sk.tp
    tcp_process_loss(sk, ack, num_dupack)
    tcp_identify_packet_loss(sk, ack)
    if tp.ca_state != TCP_CA_OPEN and not ack.flag & FLAG_LOST_RETRANS:
        return None
    return _in_open(sk, ack, num_dupack)


def _in_open(sk: TcpSock, ack: AckState, num_dupack: int) -> bool | None:
    """Open, Disorder and CWR: is it time to recover?"""
    tp = sk.tp
    if not tp.sack_ok:
        if ack.flag & FLAG_SND_UNA_ADVANCED:
            tcp_reset_reno_sack(sk)
        tcp_add_reno_sack(sk, num_dupack)
    if tp.ca_state <= TCP_CA_DISORDER:
        tcp_try_undo_dsack(sk)
    tcp_identify_packet_loss(sk, ack)
    if not tcp_time_to_recover(sk) and not _early_retransmit(sk, ack):
        tcp_try_to_open(sk, ack)
        return None
    tcp_enter_recovery(sk, ece_ack=bool(ack.flag & FLAG_ECE))
    return True


def _early_retransmit(sk: TcpSock, ack: AckState) -> bool:
    """linux-3.10: few in flight, so fewer duplicates are enough (RFC 5827)."""
    return tcp_wants_early_retransmit(sk) and not tcp_pause_early_retransmit(sk, ack)


def tcp_force_fast_retransmit(sk: TcpSock) -> bool:
    """Whether more has arrived beyond the hole than reordering explains."""
    tp = sk.tp
    return after(tcp_highest_sack_seq(sk), seq_add(tp.snd_una, tcp_reordering(sk) * tp.mss_cache))


def tcp_check_sack_reneging(sk: TcpSock, ack: AckState) -> bool:
    """The peer has dropped what it had selectively acknowledged (RFC 2018 §8).

    A short timer gives it a chance to acknowledge it after all; then a timeout repeats all.
    """
    if not ack.flag & FLAG_SACK_RENEGING or not ack.flag & FLAG_SND_UNA_ADVANCED:
        return False
    tcp_arm_retransmit(sk, max(sk.tp.srtt_us >> 4, RENEGING_MIN_US))
    ack.flag &= ~FLAG_SET_XMIT_TIMER
    return True


def tcp_identify_packet_loss(sk: TcpSock, ack: AckState) -> None:
    """Mark what is lost by now (tcp_identify_packet_loss)."""
    tp = sk.tp
    if not tp.packets_out:
        return
    if not tp.sack_ok:
        tcp_newreno_mark_lost(sk, snd_una_advanced=bool(ack.flag & FLAG_SND_UNA_ADVANCED))
    elif tcp_is_rack(sk):
        prior = tp.retrans_out
        if tcp_rack_mark_lost(sk):
            ack.flag &= ~FLAG_SET_XMIT_TIMER
        if tp.retrans_out < prior:
            ack.flag |= FLAG_LOST_RETRANS


def tcp_time_to_recover(sk: TcpSock) -> bool:
    """Whether something is lost (tcp_time_to_recover); RFC 6675 counts what was SACKed."""
    tp = sk.tp
    if tp.lost_out:
        return True
    return bool(not tcp_is_rack(sk) and tp.sack_ok and tp.sacked_out >= tcp_reordering(sk))


def tcp_update_scoreboard(sk: TcpSock, *, fast_rexmit: bool) -> None:
    """RFC 6675 §4 IsLost: lost is what has enough SACKed segments above it.

    Used where RACK is off (tcp_recovery's bit 0, Linux 3.10). Entering recovery marks the
    first segment in any case.
    """
    tp = sk.tp
    if not tp.sack_ok or not tp.packets_out:
        return
    recs = tcp_rtx_queue(sk)
    above = tp.sacked_out
    threshold = tcp_reordering(sk)
    for rec in recs:
        if rec.sacked & TCPCB_SACKED_ACKED:
            above -= rec.pcount
            continue
        if above < threshold:
            break
        tcp_mark_unless_repeated(sk, rec)
    if fast_rexmit and not tp.lost_out:
        tcp_mark_unless_repeated(sk, recs[0])


def tcp_mark_unless_repeated(sk: TcpSock, rec: object) -> None:
    """Mark a record lost; a repetition in flight is left alone: only RACK can time it."""
    if not rec.sacked & TCPCB_SACKED_RETRANS:  # type: ignore[attr-defined]
        tcp_mark_skb_lost(sk, rec)  # type: ignore[arg-type]


def tcp_try_to_open(sk: TcpSock, ack: AckState) -> None:
    """Nothing to recover: Open or Disorder, or CWR if the network marks (tcp_try_to_open)."""
    tp = sk.tp
    if not tcp_any_retrans_done(sk):
        tp.retrans_stamp_us = 0
    if ack.flag & FLAG_ECE:
        tcp_enter_cwr(sk)
    if tp.ca_state != TCP_CA_CWR:
        tcp_try_keep_open(sk)


def tcp_enter_recovery(sk: TcpSock, *, ece_ack: bool) -> None:
    """Begin fast recovery (tcp_enter_recovery; RFC 6675 §5 step 4)."""
    tp = sk.tp
    if not tcp_any_retrans_done(sk):
        tp.retrans_stamp_us = 0
    if tp.sack_ok:
        sk.prot.mib_ext.TCPSackRecovery += 1
    else:
        sk.prot.mib_ext.TCPRenoRecovery += 1
    tp.prior_ssthresh = 0
    tcp_init_undo(sk)
    if not tcp_in_cwnd_reduction(sk):
        if not ece_ack:
            tp.prior_ssthresh = tcp_current_ssthresh(sk)
        tcp_init_cwnd_reduction(sk)
    tcp_set_ca_state(sk, TCP_CA_RECOVERY)


def tcp_enter_loss(sk: TcpSock) -> None:
    """A timeout: what was in flight is lost, one segment may go (tcp_enter_loss).

    RFC 5681 §3.1: ssthresh falls on the first timeout of this data only.
    """
    tp = sk.tp
    state = tcp_recovery(sk)
    new_recovery = tp.ca_state < TCP_CA_RECOVERY
    if tp.packets_out:
        _timeout_mark_lost(sk)
    if (
        tp.ca_state <= TCP_CA_DISORDER
        or not after(tp.high_seq, tp.snd_una)
        or (tp.ca_state == TCP_CA_LOSS and not tp.retransmits)
    ):
        tp.prior_ssthresh = tcp_current_ssthresh(sk)
        tp.prior_cwnd = tp.snd_cwnd
        tp.snd_ssthresh = sk.ca.ssthresh(sk)
        tcp_ca_event(sk, CA_EVENT_LOSS)
        tcp_init_undo(sk)
    tp.snd_cwnd = tcp_packets_in_flight(tp) + 1
    tp.snd_cwnd_cnt = 0
    tp.snd_cwnd_stamp_us = sk.prot.clock.now_us
    # Many duplicates and yet a timeout: reordering was overestimated.
    default = sk.prot.config.tcp_reordering
    if tp.ca_state <= TCP_CA_DISORDER and tp.sacked_out >= default:
        state.reordering = min(state.reordering, default)
    tcp_set_ca_state(sk, TCP_CA_LOSS)
    tp.high_seq = tp.snd_nxt
    state.tlp_high_seq = None
    tcp_ecn_queue_cwr(sk)
    state.frto = bool(sk.prot.config.tcp_frto and (new_recovery or tp.retransmits))


def _timeout_mark_lost(sk: TcpSock) -> None:
    """Mark everything lost but what was sent too lately to be (tcp_timeout_mark_lost).

    A head that was selectively acknowledged and yet is not acknowledged: the peer has
    reneged, and no SACK counts any more.
    """
    tp = sk.tp
    state = tcp_recovery(sk)
    recs = tcp_rtx_queue(sk)
    reneged = bool(recs[0].sacked & TCPCB_SACKED_ACKED)
    if reneged:
        sk.prot.mib_ext.TCPSACKReneging += 1
        tp.sacked_out = 0
        state.is_sack_reneg = True
    elif not tp.sack_ok:
        tcp_reset_reno_sack(sk)
    rack = tcp_is_rack(sk)
    for i, rec in enumerate(recs):
        if reneged:
            rec.sacked &= ~TCPCB_SACKED_ACKED
        elif i and rack and tcp_rack_skb_timeout(sk, rec.sent_us, 0) > 0:
            continue
        tcp_mark_skb_lost(sk, rec)
    state.hint_seq = None


def tcp_rack_reo_timeout(sk: TcpSock) -> None:
    """The reordering window is over: repeat what has still not come (tcp_rack_reo_timeout)."""
    tp = sk.tp
    prior_in_flight = tcp_packets_in_flight(tp)
    prior_lost = tp.lost
    tcp_rtx_queue(sk)
    tcp_rack_detect_loss(sk)
    if tcp_packets_in_flight(tp) != prior_in_flight:
        if tp.ca_state != TCP_CA_RECOVERY:
            tcp_enter_recovery(sk, ece_ack=False)
            tcp_cwnd_reduction(sk, 1, tp.lost - prior_lost, 0)
        tcp_xmit_retransmit_queue(sk)
    if sk.tp.icsk_pending != ICSK_TIME_RETRANS:
        tcp_rearm_rto(sk)


def tcp_resume_early_retransmit(sk: TcpSock) -> None:
    """linux-3.10: the delay of an early retransmit is over (tcp_resume_early_retransmit)."""
    tcp_rearm_rto(sk)
    if not sk.tp.packets_out:
        return
    tcp_enter_recovery(sk, ece_ack=False)
    tcp_update_scoreboard(sk, fast_rexmit=True)
    tcp_xmit_retransmit_queue(sk)


def tcp_simple_retransmit(sk: TcpSock) -> None:
    """The path takes less than we sent: repeat what is too large (tcp_simple_retransmit).

    RFC 1191 §6.4; nothing is wrong with the rate, so cwnd stays.
    """
    tp = sk.tp
    mss = tcp_current_mss(sk)
    prior_lost = tp.lost_out
    for rec in tcp_rtx_queue(sk):
        if min(tcp_rec_payload(sk, rec), rec.mss) > mss:
            tcp_mark_skb_lost(sk, rec)
    if tp.lost_out == prior_lost:
        return
    if not tp.sack_ok:
        tcp_limit_reno_sacked(sk)
    if tp.ca_state != TCP_CA_LOSS:
        tp.high_seq = tp.snd_nxt
        tp.snd_ssthresh = tcp_current_ssthresh(sk)
        tp.prior_ssthresh = 0
        tcp_recovery(sk).undo_marker = None
        tcp_set_ca_state(sk, TCP_CA_LOSS)
    tcp_xmit_retransmit_queue(sk)


def tcp_xmit_recovery(sk: TcpSock, ack: AckState) -> None:
    """Send what the state machine wants, now that cwnd is known (tcp_xmit_recovery)."""
    tp = sk.tp
    if ack.rexmit == REXMIT_NONE or tp.state == TCP_SYN_SENT:
        return
    if ack.rexmit == REXMIT_NEW:
        tcp_write_xmit(sk, TCP_NAGLE_OFF)
        if after(tp.snd_nxt, tp.high_seq):
            return
        tcp_recovery(sk).frto = False
    tcp_xmit_retransmit_queue(sk)
