"""Repeating what was lost: one record, or as many as cwnd lets (tcp_retransmit_skb).

``tcp_xmit_retransmit_queue`` goes through what is marked lost in sequence order; which that
is others decide (rack.py, reno_sack.py, recovery.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.lib.seqnum import SEQ_MASK, after, before, seq_diff
from ustack.tcp.cong.ops import TCP_CA_LOSS
from ustack.tcp.mss import tcp_current_mss
from ustack.tcp.output import tcp_push_pending_frames
from ustack.tcp.pacing import tcp_pacing_check
from ustack.tcp.prr import tcp_in_cwnd_reduction
from ustack.tcp.scoreboard import (
    TCPCB_EVER_RETRANS,
    TCPCB_LOST,
    TCPCB_RETRANS,
    TCPCB_SACKED_ACKED,
    TCPCB_SACKED_RETRANS,
    TxRec,
    tcp_collapse_retrans,
    tcp_fragment,
    tcp_rec_payload,
    tcp_recovery,
    tcp_rtx_find,
    tcp_rtx_queue,
    tcp_set_tso_segs,
)
from ustack.tcp.send_window import tcp_packets_in_flight, tcp_wnd_end
from ustack.tcp.small_queue import tcp_small_queue_check
from ustack.tcp.sock import ICSK_TIME_REO_TIMEOUT
from ustack.tcp.states import TCP_CLOSE, TCP_LISTEN
from ustack.tcp.timer import tcp_arm_retransmit
from ustack.tcp.transmit import tcp_transmit_skb
from ustack.tcp.tso import tcp_tso_segs
from ustack.tcp.urgent import tcp_urg_mode
from ustack.wire.tcp import ACK, FIN, PSH

if TYPE_CHECKING:
    from ustack.tcp.protocol import TcpProt
    from ustack.tcp.sock import TcpSock


def tcp_retransmit_rec(sk: TcpSock, index: int, segs: int) -> TxRec | None:
    """Send record ``index`` again, at most ``segs`` segments of it (__tcp_retransmit_skb).

    The rest becomes a record of its own. Nothing goes beyond the peer's window, except that
    into a closed one a segment goes as a probe.

    Returns:
        The record that went out, None if none could.
    """
    tp = sk.tp
    if sk.mtup is not None:
        sk.mtup.probe_size = 0  # nothing can be learnt from it any more
    recs = tcp_rtx_queue(sk)
    rec = recs[index]
    if before(rec.seq, tp.snd_una):
        rec.seq = tp.snd_una
    mss = tcp_current_mss(sk)
    room = seq_diff(tcp_wnd_end(sk), rec.seq)
    if room <= 0:
        if rec.seq != tp.snd_una:
            return None
        room = mss
    limit = mss * segs
    if limit > room:
        limit = room // mss * mss or room
    if tcp_rec_payload(sk, rec) > limit:
        tcp_fragment(sk, index, limit, mss)
    else:
        tcp_set_tso_segs(sk, rec, mss)
        tcp_retrans_try_collapse(sk, index, min(room, mss))
    _send_again(sk, rec, mss)
    return rec


def tcp_retrans_try_collapse(sk: TcpSock, index: int, space: int) -> None:
    """Join to record ``index`` what follows it and was sent in small segments, or a FIN.

    Up to ``space`` bytes, nothing that is selectively acknowledged and nothing beyond the
    peer's window (RFC 9293 §3.8.1; tcp_retrans_try_collapse).
    """
    recs = tcp_rtx_queue(sk)
    rec = recs[index]
    space -= tcp_rec_payload(sk, rec)
    if space <= 0 or not sk.prot.config.tcp_retrans_collapse or not _may_collapse(rec):
        return
    while index + 1 < len(recs):
        follower = recs[index + 1]
        space -= tcp_rec_payload(sk, follower)
        if space < 0 or not _may_collapse(follower):
            return
        if after(follower.end_seq, tcp_wnd_end(sk)):
            return
        tcp_collapse_retrans(sk, index)


def _may_collapse(rec: TxRec) -> bool:
    return rec.pcount == 1 and not rec.sacked & TCPCB_SACKED_ACKED


def _send_again(sk: TcpSock, rec: TxRec, mss: int) -> None:
    tp = sk.tp
    prot = sk.prot
    state = tcp_recovery(sk)
    length = tcp_rec_payload(sk, rec)
    flags = ACK
    if length and rec.psh:
        flags |= PSH
    if rec.end_seq != rec.seq + length & SEQ_MASK:
        flags |= FIN
    prot.mib.RetransSegs += rec.pcount
    tp.total_retrans += rec.pcount
    tp.bytes_retrans += length
    tcp_transmit_skb(sk, rec.seq, length, flags, gso_size=mss)
    rec.sent_us = prot.clock.now_us
    rec.sacked |= TCPCB_EVER_RETRANS
    state.tsorted.remove(rec)
    state.tsorted.append(rec)
    if after(rec.end_seq, state.retrans_high):
        state.retrans_high = rec.end_seq


def tcp_retransmit_skb(sk: TcpSock, index: int, segs: int) -> TxRec | None:
    """Send record ``index`` again and count it as a repetition in flight (tcp_retransmit_skb)."""
    tp = sk.tp
    state = tcp_recovery(sk)
    rec = tcp_retransmit_rec(sk, index, segs)
    if not tp.retrans_stamp_us:
        tp.retrans_stamp_us = sk.prot.clock.now_us
    if rec is None:
        return None
    if not rec.sacked & TCPCB_SACKED_RETRANS:  # it is, if a loss was undone: Linux counts twice
        tp.retrans_out += rec.pcount
    rec.sacked |= TCPCB_RETRANS
    state.undo_retrans = max(state.undo_retrans, 0) + rec.pcount
    return rec


def tcp_xmit_retransmit_queue(sk: TcpSock) -> None:
    """Repeat what is marked lost, as far as cwnd goes (tcp_xmit_retransmit_queue)."""
    tp = sk.tp
    if not tp.packets_out or not tp.lost_out:
        return
    state = tcp_recovery(sk)
    recs = tcp_rtx_queue(sk)
    mss = tcp_current_mss(sk)
    max_segs = 1 if tcp_urg_mode(sk) else tcp_tso_segs(sk, mss)
    mib = sk.prot.mib_ext
    i = 0 if state.hint_seq is None else tcp_rtx_find(recs, state.hint_seq)
    rearm = False
    while i < len(recs):
        if sk.pacing is not None and tcp_pacing_check(sk):
            break
        rec = recs[i]
        state.hint_seq = rec.seq
        quota = tp.snd_cwnd - tcp_packets_in_flight(tp)
        if quota <= 0 or tp.retrans_out >= tp.lost_out:
            break
        if rec.sacked & (TCPCB_LOST | TCPCB_SACKED_ACKED | TCPCB_SACKED_RETRANS) != TCPCB_LOST:
            i += 1
            continue
        segs = min(quota, max_segs)
        length = min(segs, rec.pcount) * mss
        if tcp_small_queue_check(sk, length, factor=1) or tcp_retransmit_skb(sk, i, segs) is None:
            break
        if tp.ca_state == TCP_CA_LOSS:
            mib.TCPSlowStartRetrans += rec.pcount
        else:
            mib.TCPFastRetrans += rec.pcount
        if tcp_in_cwnd_reduction(sk):
            state.prr_out += rec.pcount
        rearm = rearm or (i == 0 and sk.tp.icsk_pending != ICSK_TIME_REO_TIMEOUT)
        i += 1
    if rearm:
        tcp_arm_retransmit(sk, tp.rto_us, pace_delay=True)


def tcp_tsq_run(prot: TcpProt) -> None:
    """Let the sockets that waited for the device send on (tcp_tsq_workfn)."""
    waiting, prot.tsq = prot.tsq, {}
    for sk in waiting:
        if sk.tp is not None and sk.tp.state not in (TCP_CLOSE, TCP_LISTEN):
            tcp_xmit_retransmit_queue(sk)
            tcp_push_pending_frames(sk)
