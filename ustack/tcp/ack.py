"""What an acknowledgment does: SND.UNA, the window, RTT, loss and congestion (tcp_ack).

The fifth of RFC 9293's checks. Recovery is NewReno's (RFC 6582): three duplicate ACKs, or
a timeout after which everything that was in flight is repeated as cwnd grows. Bytes that are
acknowledged leave the send queue here, and a writer waiting for room is woken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.ipv4.route import neigh_confirm
from ustack.lib.drop_reason import DropReason
from ustack.lib.seqnum import SEQ_MASK, after, before, seq_diff
from ustack.native.lib import lib
from ustack.tcp.challenge import tcp_send_challenge_ack
from ustack.tcp.cong.ops import (
    CA_ACK_SLOWPATH,
    CA_ACK_WIN_UPDATE,
    CA_EVENT_COMPLETE_CWR,
    CA_EVENT_LOSS,
    TCP_CA_CWR,
    TCP_CA_DISORDER,
    TCP_CA_LOSS,
    TCP_CA_OPEN,
    TCP_CA_RECOVERY,
    AckSample,
    tcp_ca_event,
    tcp_cong_avoid,
    tcp_set_ca_state,
)
from ustack.tcp.ecn import tcp_ecn_queue_cwr, tcp_ecn_rcv_ecn_echo, tcp_enter_cwr
from ustack.tcp.output import (
    tcp_current_mss,
    tcp_retransmit_range,
    tcp_sync_mss,
    tcp_wnd_end,
    tcp_xmit_retransmit_queue,
)
from ustack.tcp.pacing import tcp_update_pacing_rate
from ustack.tcp.rtt import TCP_RTO_MIN_US, tcp_ack_update_rtt
from ustack.tcp.sock import ICSK_TIME_PROBE0
from ustack.tcp.timer import tcp_arm_retransmit, tcp_clear_retransmit, tcp_rearm_rto
from ustack.wire.tcp import SYN

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock
    from ustack.wire.tcp import Segment

TCP_DUPTHRESH = 3
"""RFC 5681 §3.2."""


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
        oldest = min(tp.max_window, tp.bytes_acked + tp.fin_queued)  # never below our ISN
        if before(ack, prior_una - oldest & SEQ_MASK):
            tcp_send_challenge_ack(sk)
            return DropReason.TCP_TOO_OLD_ACK
        return None
    if after(ack, tp.snd_nxt):
        tcp_send_challenge_ack(sk)
        return DropReason.TCP_ACK_UNSENT_DATA
    was_out = tp.snd_nxt != prior_una
    window_update = tcp_ack_update_window(sk, seg)
    tp.rcv_tstamp_us = sk.prot.clock.now_us
    tp.probes_out = 0
    sk.sk_err_soft = 0
    sk.ca.in_ack_event(sk, CA_ACK_SLOWPATH | (CA_ACK_WIN_UPDATE if window_update else 0))
    if not was_out:
        tcp_ack_probe(sk)
        return None
    acked_segs = tcp_clean_rtx_queue(sk, seg) if ack != prior_una else 0
    is_dupack = (
        ack == prior_una
        and seg.seq == seg.end_seq
        and not window_update
        and tp.snd_nxt != tp.snd_una
    )
    tcp_cong_control(sk, acked_segs, is_dupack=is_dupack, is_ece=tcp_ecn_rcv_ecn_echo(sk, seg))
    tcp_update_pacing_rate(sk)
    if acked_segs:
        tcp_rearm_rto(sk)
        neigh_confirm(sk.dst)
    return None


def tcp_ack_update_window(sk: TcpSock, seg: Segment) -> bool:
    """Take SEG.WND if the segment is newer than the last that did (SND.WL1, SND.WL2)."""
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
    changed: bool = window != tp.snd_wnd
    if changed:
        tp.snd_wnd = window
        if window > tp.max_window:
            tp.max_window = window
            tcp_sync_mss(sk, tp.pmtu_mss + 40)
    return changed


def tcp_ack_probe(sk: TcpSock) -> None:
    """An ACK while nothing is in flight: the answer to a window probe (tcp_ack_probe)."""
    tp = sk.tp
    if tp.snd_nxt == tp.write_seq:
        return
    data = (tp.write_seq - tp.snd_nxt & SEQ_MASK) - tp.fin_queued
    needed = max(min(data, tcp_current_mss(sk)), 1)
    if seq_diff(tcp_wnd_end(sk), tp.snd_nxt) >= needed:
        tp.backoff = 0
        if sk.icsk_pending == ICSK_TIME_PROBE0:
            tcp_clear_retransmit(sk)
    else:
        delay_us = max(tp.rto_us, TCP_RTO_MIN_US) << tp.backoff
        tcp_arm_retransmit(sk, delay_us, ICSK_TIME_PROBE0)


def tcp_clean_rtx_queue(sk: TcpSock, seg: Segment) -> int:
    """Advance SND.UNA, free what it passes, sample the RTT; return the segments acknowledged."""
    tp = sk.tp
    mss = tcp_current_mss(sk)
    ack = seg.ack
    acked = ack - tp.snd_una & SEQ_MASK
    data = acked
    if tcp_syn_is_unacked(sk):
        data -= 1
    if tp.fin_queued and ack == tp.write_seq:
        data -= 1  # our FIN
    if data:
        lib.us_bq_drop(sk.prot.mem.ptr, sk.sndq, data)
        tp.bytes_acked += data
    tp.snd_una = ack
    rtt_us = tcp_ack_rtt_sample(sk, seg)
    segs = -(-acked // mss)
    sk.ca.pkts_acked(sk, AckSample(segs, rtt_us, segs))
    sk.prot.mib_ext.TCPDelivered += segs
    tp.retrans_out = max(tp.retrans_out - segs, 0)
    tp.retransmits = 0
    if tp.snd_una == tp.snd_nxt or tp.ca_state == TCP_CA_OPEN:
        tp.retrans_stamp_us = 0
    return segs


def tcp_syn_is_unacked(sk: TcpSock) -> bool:
    """Whether SND.UNA is our SYN; after 2**32 bytes the number is that of a byte."""
    tp = sk.tp
    return bool(tp.snd_una == tp.iss and not tp.bytes_acked)


def tcp_ack_rtt_sample(sk: TcpSock, seg: Segment) -> int:
    """Time the segment that was being timed, else use the echoed timestamp (RFC 7323 §4).

    Returns:
        The sample in microseconds, -1 if there is none.
    """
    tp = sk.tp
    now_us = sk.prot.clock.now_us
    sample_us = -1
    if tp.rtt_timing:
        if not before(seg.ack, tp.rtt_timed_seq):
            tp.rtt_timing = 0
            sample_us = now_us - tp.rtt_start_us
    elif tp.tstamp_ok and seg.tsecr:
        delta_ms = now_us // 1000 + tp.tsoffset - seg.tsecr & SEQ_MASK
        if delta_ms < 0x80000000 // 1000:
            sample_us = max(delta_ms, 1) * 1000
    if sample_us >= 0:
        tcp_ack_update_rtt(sk, sample_us)
    return sample_us


def tcp_cong_control(sk: TcpSock, acked_segs: int, *, is_dupack: bool, is_ece: bool) -> None:
    """Run loss detection and the congestion control on one ACK (tcp_fastretrans_alert)."""
    tp = sk.tp
    if is_ece:
        tcp_enter_cwr(sk)
    state = tp.ca_state
    if acked_segs:
        if state == TCP_CA_CWR:
            if not after(tp.snd_una, tp.high_seq):
                return  # held until something beyond is acknowledged: the CWR has arrived
            tcp_ca_event(sk, CA_EVENT_COMPLETE_CWR)
        if state == TCP_CA_RECOVERY:
            _ack_in_recovery(sk, acked_segs)
            return
        if state == TCP_CA_LOSS:
            if not before(tp.snd_una, tp.high_seq):
                _enter_open(sk)
            tcp_cong_avoid(sk, tp.snd_una, acked_segs)
            tcp_xmit_retransmit_queue(sk)
            return
        if state:
            _enter_open(sk)
        tcp_cong_avoid(sk, tp.snd_una, acked_segs)
    elif is_dupack and state != TCP_CA_LOSS:
        _duplicate_ack(sk)


def _enter_open(sk: TcpSock) -> None:
    tp = sk.tp
    tcp_set_ca_state(sk, TCP_CA_OPEN)
    tp.sacked_out = 0
    tp.retrans_stamp_us = 0


def _ack_in_recovery(sk: TcpSock, acked_segs: int) -> None:
    """A full ACK ends fast recovery, a partial one shows the next hole (RFC 6582 §3.2)."""
    tp = sk.tp
    if not before(tp.snd_una, tp.high_seq):
        tp.snd_cwnd = min(tp.snd_cwnd, tp.snd_ssthresh)
        tp.snd_cwnd_stamp_us = sk.prot.clock.now_us
        tcp_ca_event(sk, CA_EVENT_COMPLETE_CWR)
        _enter_open(sk)
        return
    tp.sacked_out = max(tp.sacked_out - (acked_segs - 1), 0)
    sk.prot.mib_ext.TCPFastRetrans += 1
    tcp_retransmit_range(sk, tp.snd_una, 1)


def _duplicate_ack(sk: TcpSock) -> None:
    """Count a duplicate ACK; the third starts fast retransmit (RFC 5681 §3.2)."""
    tp = sk.tp
    out = -(-(tp.snd_nxt - tp.snd_una & SEQ_MASK) // tcp_current_mss(sk))
    tp.sacked_out = min(tp.sacked_out + 1, max(out - 1, 0))
    if tp.ca_state == TCP_CA_RECOVERY:
        return
    tcp_set_ca_state(sk, TCP_CA_DISORDER)
    if tp.sacked_out >= TCP_DUPTHRESH:
        tp.prior_cwnd = tp.snd_cwnd
        tp.snd_ssthresh = sk.ca.ssthresh(sk)
        tcp_ecn_queue_cwr(sk)
        tp.snd_cwnd = tp.snd_ssthresh
        tp.snd_cwnd_cnt = 0
        tp.high_seq = tp.snd_nxt
        tcp_set_ca_state(sk, TCP_CA_RECOVERY)
        sk.prot.mib_ext.TCPFastRetrans += 1
        tcp_retransmit_range(sk, tp.snd_una, 1)


def tcp_enter_loss(sk: TcpSock) -> None:
    """A timeout: everything in flight counts as lost, slow start from one segment.

    RFC 5681 §3.1: ssthresh is set on the first timeout of this data only.
    """
    tp = sk.tp
    if tp.ca_state != TCP_CA_LOSS or not before(tp.snd_una, tp.high_seq):
        tp.prior_cwnd = tp.snd_cwnd
        tp.snd_ssthresh = sk.ca.ssthresh(sk)
        tcp_ca_event(sk, CA_EVENT_LOSS)
    tcp_set_ca_state(sk, TCP_CA_LOSS)
    tp.snd_cwnd = 1
    tp.snd_cwnd_stamp_us = sk.prot.clock.now_us
    tp.snd_cwnd_cnt = 0
    tp.sacked_out = 0
    tp.high_seq = tp.snd_nxt
    tp.rtx_nxt = tp.snd_una
