"""What an acknowledgment does: SND.UNA, the window, RTT, loss and congestion (tcp_ack).

The fifth of RFC 9293's checks. An ACK that is plainly in order takes a short way; any other
goes through SACK tagging, the retransmission queue (rtx.py), RACK and the state machine
(recovery.py). Bytes that are acknowledged leave the send queue here, and a writer waiting
for room is woken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.ipv4.route import neigh_confirm
from ustack.lib.drop_reason import DropReason
from ustack.lib.seqnum import SEQ_MASK, after, before, seq_diff
from ustack.native.lib import lib
from ustack.tcp.ack_state import (
    FLAG_CA_ALERT,
    FLAG_DATA,
    FLAG_DATA_ACKED,
    FLAG_DSACKING_ACK,
    FLAG_ECE,
    FLAG_FORWARD_PROGRESS,
    FLAG_NOT_DUP,
    FLAG_SET_XMIT_TIMER,
    FLAG_SND_UNA_ADVANCED,
    FLAG_WIN_UPDATE,
    AckState,
)
from ustack.tcp.challenge import tcp_send_challenge_ack
from ustack.tcp.cong.ops import (
    CA_ACK_ECE,
    CA_ACK_SLOWPATH,
    CA_ACK_WIN_UPDATE,
    TCP_CA_OPEN,
    AckSample,
    RateSample,
    tcp_cong_avoid,
)
from ustack.tcp.ecn import tcp_ecn_rcv_ecn_echo
from ustack.tcp.mss import tcp_current_mss, tcp_sync_mss
from ustack.tcp.mtu_probe import tcp_mtup_acked
from ustack.tcp.pacing import tcp_update_pacing_rate
from ustack.tcp.paws import tcp_replace_ts_recent
from ustack.tcp.prr import tcp_cwnd_reduction, tcp_in_cwnd_reduction
from ustack.tcp.rack import tcp_rack_update_reo_wnd
from ustack.tcp.recovery import tcp_fastretrans_alert, tcp_xmit_recovery
from ustack.tcp.rtt import tcp_rtt_of_log
from ustack.tcp.rtx import tcp_clean_rtx_queue
from ustack.tcp.sack import tcp_count_delivered, tcp_sacktag_write_queue
from ustack.tcp.scoreboard import tcp_reordering, tcp_rtx_settle
from ustack.tcp.send_window import tcp_packets_in_flight, tcp_wnd_end
from ustack.tcp.sock import ICSK_TIME_PROBE0
from ustack.tcp.timer import (
    tcp_clear_retransmit,
    tcp_rearm_probe0,
    tcp_rearm_rto,
    tcp_schedule_loss_probe,
)
from ustack.tcp.tlp import tcp_process_tlp_ack
from ustack.wire.tcp import ECE, SYN

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock
    from ustack.wire.tcp import Segment


def tcp_ack(sk: TcpSock, seg: Segment) -> DropReason | None:
    """Take SEG.ACK and SEG.WND into the connection (RFC 9293 §3.10.7.4, fifth check).

    Returns:
        None: acceptable, or a duplicate of an older one, and the segment's text counts.
        TCP_TOO_OLD_ACK, TCP_ACK_UNSENT_DATA: the segment must be dropped; it has been
        answered with an ACK (RFC 5961 §5.2, RFC 9293).
    """
    tp = sk.tp
    ack = seg.ack
    prior_una = tp.snd_una
    if before(ack, prior_una):
        oldest = min(tp.max_window, tp.bytes_acked)  # never below our ISN
        if before(ack, prior_una - oldest & SEQ_MASK):
            tcp_send_challenge_ack(sk)
            return DropReason.TCP_TOO_OLD_ACK
        if seg.sacks and tp.sack_ok:
            _old_ack(sk, seg)
        return None
    if after(ack, tp.snd_nxt):
        tcp_send_challenge_ack(sk)
        return DropReason.TCP_ACK_UNSENT_DATA
    tcp_replace_ts_recent(sk, seg)  # first: what this ACK makes us repeat echoes it
    prior_packets = tp.packets_out
    flag = FLAG_DATA if seg.seq != seg.end_seq else 0
    if tcp_ack_update_window(sk, seg):
        flag |= FLAG_WIN_UPDATE
    if seg.flags & ECE and tcp_ecn_rcv_ecn_echo(sk, seg):
        flag |= FLAG_ECE
    if ack != prior_una:
        flag |= FLAG_SND_UNA_ADVANCED
        tp.retransmits = 0
        tcp_snd_una_update(sk, ack)
    tp.rcv_tstamp_us = sk.prot.clock.now_us
    tp.probes_out = 0
    if sk.sk_err_soft:
        sk.sk_err_soft = 0
        tp.slow &= ~lib.US_TCP_SLOW_ERR
    sk.ca.in_ack_event(
        sk, CA_ACK_SLOWPATH | (flag & CA_ACK_WIN_UPDATE) | (CA_ACK_ECE if flag & FLAG_ECE else 0)
    )
    if (
        flag & (FLAG_SND_UNA_ADVANCED | FLAG_ECE) == FLAG_SND_UNA_ADVANCED
        and sk.rtx is None
        and tp.ca_state == TCP_CA_OPEN
        and not seg.sacks
        and prior_packets
        and (sk.recovery is None or sk.recovery.tlp_high_seq is None)
    ):
        _ack_in_order(sk, seg, prior_una, prior_packets)
    else:
        _ack_with_questions(sk, seg, flag, prior_una, prior_packets)
    return None


def _ack_in_order(sk: TcpSock, seg: Segment, prior_una: int, prior_packets: int) -> None:
    """New data acknowledged and nothing in doubt: the common case, kept short."""
    tp = sk.tp
    prot = sk.prot
    acked = prot.scratch.acked
    pkts = lib.us_tcp_tx_ack(prot.mem.ptr, tp, prior_una, seg.ack, acked)
    if not pkts:
        return
    tp.slow &= ~lib.US_TCP_SLOW_TLP
    rtt_us = tcp_rtt_of_log(sk, acked, seg)
    tcp_count_delivered(sk, pkts)
    tcp_acked_in_order(sk, pkts, rtt_us, prior_packets)


def tcp_acked_in_order(sk: TcpSock, pkts: int, rtt_us: int, prior_packets: int) -> None:
    """Set timers and cwnd after ``pkts`` segments were acknowledged with nothing in doubt.

    Args:
        rtt_us: RTT of the newest of them, -1 if it is not known.
        prior_packets: segments that were in flight before.
    """
    if sk.mtup is not None:
        tcp_mtup_acked(sk, sk.mtup)
    sk.ca.pkts_acked(sk, AckSample(pkts, rtt_us, prior_packets))
    tcp_set_xmit_timer(sk)
    neigh_confirm(sk.dst)
    ack = sk.tp.snd_una
    if sk.ca.cong_control is None:
        tcp_cong_avoid(sk, ack, pkts)
        tcp_update_pacing_rate(sk)
    else:
        sk.ca.cong_control(sk, ack, RateSample(pkts, 0, prior_packets, rtt_us, False))


def _ack_with_questions(
    sk: TcpSock, seg: Segment, flag: int, prior_una: int, prior_packets: int
) -> None:
    """Any other ACK: SACKs, duplicates, or one that comes while something is in repair."""
    tp = sk.tp
    state = AckState(flag, prior_una, seg.tsecr if seg.tsval is not None else None)
    prior_in_flight = tcp_packets_in_flight(tp)
    prior_delivered, prior_lost = tp.delivered, tp.lost
    prior_fack = prior_una
    if tp.sack_ok and tp.sacked_out and sk.recovery is not None:
        prior_fack = sk.recovery.fack
    if seg.sacks and tp.sack_ok:
        tcp_sacktag_write_queue(sk, seg, state)
    if not prior_packets:
        if state.flag & FLAG_DSACKING_ACK:
            tcp_fastretrans_alert(sk, state, 0)
        tcp_ack_probe(sk)
        _tlp_ack(sk, seg.ack, state)
        return
    tcp_clean_rtx_queue(sk, seg, state, prior_fack)
    tcp_rack_update_reo_wnd(sk, state)
    _tlp_ack(sk, seg.ack, state)
    if tcp_ack_is_dubious(sk, state.flag):
        is_dup = not state.flag & (FLAG_SND_UNA_ADVANCED | FLAG_NOT_DUP | FLAG_DSACKING_ACK)
        tcp_fastretrans_alert(sk, state, int(is_dup))
    if state.flag & FLAG_SET_XMIT_TIMER:
        tcp_set_xmit_timer(sk)
    if state.flag & FLAG_FORWARD_PROGRESS or not state.flag & FLAG_NOT_DUP:
        neigh_confirm(sk.dst)
    delivered = tp.delivered - prior_delivered & SEQ_MASK
    lost = tp.lost - prior_lost & SEQ_MASK
    sample = RateSample(delivered, lost, prior_in_flight, state.rtt_us, bool(state.flag & FLAG_ECE))
    tcp_cong_control(sk, seg.ack, state.flag, sample)
    tcp_xmit_recovery(sk, state)
    tcp_rtx_settle(sk)


def _old_ack(sk: TcpSock, seg: Segment) -> None:
    """An overtaken ACK may still carry news in its SACKs (tcp_ack's old_ack)."""
    state = AckState(0, sk.tp.snd_una, seg.tsecr if seg.tsval is not None else None)
    tcp_sacktag_write_queue(sk, seg, state)
    if sk.tp.packets_out or state.flag & FLAG_DSACKING_ACK:
        tcp_fastretrans_alert(sk, state, 0)
        tcp_xmit_recovery(sk, state)
    tcp_rtx_settle(sk)


def _tlp_ack(sk: TcpSock, seq: int, ack: AckState) -> None:
    if sk.recovery is not None and sk.recovery.tlp_high_seq is not None:
        tcp_process_tlp_ack(sk, seq, ack)


def tcp_ack_is_dubious(sk: TcpSock, flag: int) -> bool:
    """Whether the state machine has to look at the ACK (tcp_ack_is_dubious)."""
    return bool(not flag & FLAG_NOT_DUP or flag & FLAG_CA_ALERT or sk.tp.ca_state != TCP_CA_OPEN)


def tcp_set_xmit_timer(sk: TcpSock) -> None:
    """Start the probe's or the timeout's timer anew (tcp_set_xmit_timer)."""
    if not tcp_schedule_loss_probe(sk, advancing_rto=True):
        tcp_rearm_rto(sk)


def tcp_cong_control(sk: TcpSock, ack: int, flag: int, sample: RateSample) -> None:
    """Let one ACK move cwnd: down by PRR, up by the congestion control (tcp_cong_control)."""
    if sk.ca.cong_control is not None:
        sk.ca.cong_control(sk, ack, sample)
        return
    if tcp_in_cwnd_reduction(sk):
        tcp_cwnd_reduction(sk, sample.acked_sacked, sample.losses, flag)
    elif tcp_may_raise_cwnd(sk, flag):
        tcp_cong_avoid(sk, ack, sample.acked_sacked)
    tcp_update_pacing_rate(sk)


def tcp_may_raise_cwnd(sk: TcpSock, flag: int) -> bool:
    """Whether the ACK lets cwnd grow: with much reordering a SACK does too."""
    if tcp_reordering(sk) > sk.prot.config.tcp_reordering:
        return bool(flag & FLAG_FORWARD_PROGRESS)
    return bool(flag & FLAG_DATA_ACKED)


def tcp_ack_update_window(sk: TcpSock, seg: Segment) -> bool:
    """Take SEG.WND if the segment is newer than the last that did (SND.WL1, SND.WL2).

    Returns:
        Whether it is: then it is no duplicate ACK, be the window the same or not.
    """
    tp = sk.tp
    window = seg.window if seg.flags & SYN else seg.window << tp.snd_wscale
    newer = (
        after(seg.ack, tp.snd_una)
        or after(seg.seq, tp.snd_wl1)
        or (seg.seq == tp.snd_wl1 and (window > tp.snd_wnd or not window))
    )
    if not newer:
        return False
    tp.snd_wl1 = seg.seq
    if window != tp.snd_wnd:
        tp.snd_wnd = window
        if window > tp.max_window:
            tp.max_window = window
            tcp_sync_mss(sk, tp.pmtu_mss + 40)
    return True


def tcp_ack_probe(sk: TcpSock) -> None:
    """An ACK while nothing is in flight: the answer to a window probe (tcp_ack_probe)."""
    tp = sk.tp
    if tp.snd_nxt == tp.write_seq:
        return
    data = (tp.write_seq - tp.snd_nxt & SEQ_MASK) - tp.fin_queued
    needed = max(min(data, tcp_current_mss(sk)), 1)
    if seq_diff(tcp_wnd_end(sk), tp.snd_nxt) >= needed:
        tp.backoff = 0
        tp.icsk_probes_tstamp_ms = 0
        if sk.tp.icsk_pending == ICSK_TIME_PROBE0:
            tcp_clear_retransmit(sk)
    else:
        tcp_rearm_probe0(sk)


def tcp_snd_una_update(sk: TcpSock, ack: int) -> None:
    """Advance SND.UNA and free the bytes that it passes (tcp_snd_una_update)."""
    tp = sk.tp
    data = ack - tp.snd_una & SEQ_MASK
    if tcp_syn_is_unacked(sk):
        data -= 1
    fin = bool(tp.fin_queued) and data > 0 and ack == tp.write_seq
    if data - fin > 0:
        lib.us_bq_drop(sk.prot.mem.ptr, sk.sndq, data - fin)
    tp.bytes_acked += data  # Linux counts the FIN
    tp.snd_una = ack


def tcp_syn_is_unacked(sk: TcpSock) -> bool:
    """Whether SND.UNA is our SYN; after 2**32 bytes the number is that of a byte."""
    tp = sk.tp
    return bool(tp.snd_una == tp.iss and not tp.bytes_acked)


def tcp_ack_of_syn(sk: TcpSock, seg: Segment) -> None:
    """Take the acknowledgment of our SYN alone (tcp_ack from SYN_SENT)."""
    tp = sk.tp
    prior_una = tp.snd_una
    tcp_snd_una_update(sk, seg.ack)
    tp.rcv_tstamp_us = sk.prot.clock.now_us
    tp.retransmits = 0
    tp.delivered += 1
    acked = sk.prot.scratch.acked
    if lib.us_tcp_tx_ack(sk.prot.mem.ptr, tp, prior_una, seg.ack, acked):
        tcp_rtt_of_log(sk, acked, seg)
