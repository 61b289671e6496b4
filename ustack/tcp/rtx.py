"""What a cumulative acknowledgment takes off the retransmission queue (tcp_clean_rtx_queue).

From the log in C, or once there is one from the scoreboard; the RTT, RACK and reordering
learn from it. Called by ``tcp_ack`` for every ACK that is not plainly in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.lib.seqnum import SEQ_MASK, after, before
from ustack.native.lib import lib
from ustack.tcp.ack_state import (
    FLAG_DATA_ACKED,
    FLAG_ORIG_SACK_ACKED,
    FLAG_RETRANS_DATA_ACKED,
    FLAG_SACK_RENEGING,
    FLAG_SET_XMIT_TIMER,
    FLAG_SYN_ACKED,
    AckState,
)
from ustack.tcp.cong.ops import AckSample
from ustack.tcp.mtu_probe import tcp_mtup_acked
from ustack.tcp.rack import tcp_rack_advance
from ustack.tcp.reno_sack import tcp_remove_reno_sacks
from ustack.tcp.rtt import tcp_ack_update_rtt, tcp_rtt_of_log, tcp_tsecr_rtt
from ustack.tcp.sack import tcp_check_sack_reordering, tcp_count_delivered
from ustack.tcp.scoreboard import (
    TCPCB_LOST,
    TCPCB_RETRANS,
    TCPCB_SACKED_ACKED,
    TCPCB_SACKED_RETRANS,
    TxRec,
    tcp_rec_payload,
    tcp_recovery,
)

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock
    from ustack.wire.tcp import Segment


class Acked:
    """What one ACK took off the scoreboard."""

    __slots__ = ("first_us", "last_us", "pkts", "reord")

    def __init__(self) -> None:
        self.pkts = 0
        self.first_us = 0
        """When the oldest of what was sent only once was sent; 0: there is none."""
        self.last_us = 0
        self.reord: int | None = None
        """Its lowest sequence number."""


def tcp_clean_rtx_queue(sk: TcpSock, seg: Segment, ack: AckState, prior_fack: int) -> None:
    """Take off what lies below SND.UNA and learn from it (tcp_clean_rtx_queue).

    Args:
        prior_fack: the highest byte selectively acknowledged before this ACK.
    """
    tp = sk.tp
    prior_packets = tp.packets_out
    with_syn = ack.prior_una == tp.iss and tp.bytes_acked == 0
    if sk.rtx is None:
        pkts = _clean_log(sk, seg, ack)
    else:
        pkts = _clean_scoreboard(sk, ack, prior_fack)
    if pkts:
        if sk.mtup is not None:
            tcp_mtup_acked(sk, sk.mtup)
        ack.flag |= FLAG_SET_XMIT_TIMER
        ack.flag |= FLAG_SYN_ACKED if with_syn else FLAG_DATA_ACKED
    if pkts or ack.first_sackt_us:
        sk.ca.pkts_acked(sk, AckSample(pkts, ack.rtt_us, prior_packets))


def _clean_log(sk: TcpSock, seg: Segment, ack: AckState) -> int:
    tp = sk.tp
    if tp.snd_una == ack.prior_una:
        return 0
    acked = sk.prot.scratch.acked
    pkts: int = lib.us_tcp_tx_ack(sk.prot.mem.ptr, tp, ack.prior_una, tp.snd_una, acked)
    if not pkts:
        return 0
    ack.rtt_us = tcp_rtt_of_log(sk, acked, seg)
    ack.newest_us = acked.last_us
    if tp.sack_ok:
        tcp_count_delivered(sk, pkts)
    else:
        tcp_remove_reno_sacks(sk, pkts)
    return pkts


def _clean_scoreboard(sk: TcpSock, ack: AckState, prior_fack: int) -> int:
    tp = sk.tp
    recs = sk.rtx
    assert recs is not None
    acked = Acked()
    gone = 0
    for rec in recs:
        if not after(rec.end_seq, tp.snd_una):
            _take_off(sk, ack, acked, rec, rec.pcount, rec.seq)
            tcp_recovery(sk).tsorted.remove(rec)
            gone += 1
            continue
        if rec.pcount > 1 and after(tp.snd_una, rec.seq):
            start = rec.seq
            if segs := _tso_acked(sk, rec):
                _take_off(sk, ack, acked, rec, segs, start)
        break
    del recs[:gone]
    if recs and recs[0].sacked & TCPCB_SACKED_ACKED:
        ack.flag |= FLAG_SACK_RENEGING
    has_rtt = _update_rtt(sk, ack, acked)
    if not acked.pkts:
        _sack_may_restart_timer(sk, ack, has_rtt=has_rtt)
    elif not tp.sack_ok:
        tcp_remove_reno_sacks(sk, acked.pkts)
        if ack.flag & FLAG_RETRANS_DATA_ACKED:
            ack.flag &= ~FLAG_ORIG_SACK_ACKED  # it may be the repetition that was acknowledged
    elif acked.reord is not None and before(acked.reord, prior_fack):
        tcp_check_sack_reordering(sk, acked.reord, by_timestamp=False)
    return acked.pkts


def _tso_acked(sk: TcpSock, rec: TxRec) -> int:
    """Cut off what of a super-frame is acknowledged; return its segments (tcp_tso_acked)."""
    segs = rec.pcount
    rec.seq = sk.tp.snd_una
    rec.pcount = max(-(-tcp_rec_payload(sk, rec) // rec.mss), 1)
    return segs - rec.pcount


def _take_off(
    sk: TcpSock, ack: AckState, acked: Acked, rec: TxRec, pcount: int, start: int
) -> None:
    """Account for ``pcount`` segments of ``rec``, which began at ``start``."""
    tp = sk.tp
    sacked = rec.sacked
    acked.pkts += pcount
    tp.packets_out -= pcount
    if sacked & TCPCB_RETRANS:
        if sacked & TCPCB_SACKED_RETRANS:
            tp.retrans_out -= pcount
        ack.flag |= FLAG_RETRANS_DATA_ACKED
    elif not sacked & TCPCB_SACKED_ACKED:
        acked.last_us = rec.sent_us
        acked.first_us = acked.first_us or rec.sent_us
        if acked.reord is None:
            acked.reord = start
        if not after(rec.end_seq, tp.high_seq):
            ack.flag |= FLAG_ORIG_SACK_ACKED
    if sacked & TCPCB_LOST:
        tp.lost_out -= pcount
    if sacked & TCPCB_SACKED_ACKED:
        tp.sacked_out -= pcount
    elif tp.sack_ok:
        tcp_count_delivered(sk, pcount)
        ack.newest_us = max(ack.newest_us, rec.sent_us)
        if not _is_spurious_retrans(sk, ack, rec):
            tcp_rack_advance(sk, sacked, rec.end_seq, rec.sent_us)


def _is_spurious_retrans(sk: TcpSock, ack: AckState, rec: TxRec) -> bool:
    """Whether the echoed timestamp is older than the repetition (tcp_skb_spurious_retrans)."""
    tp = sk.tp
    if not rec.sacked & TCPCB_RETRANS or not tp.tstamp_ok or not ack.tsecr:
        return False
    return before(ack.tsecr, rec.sent_us // 1000 + tp.tsoffset & SEQ_MASK)


def _update_rtt(sk: TcpSock, ack: AckState, acked: Acked) -> bool:
    """Sample the RTT: of what was acknowledged, else SACKed, else by timestamp (Karn).

    Returns:
        Whether there was a sample (tcp_ack_update_rtt).
    """
    now_us = sk.prot.clock.now_us
    sample_us = newest_us = -1
    if acked.first_us and not ack.flag & FLAG_RETRANS_DATA_ACKED:
        sample_us, newest_us = now_us - acked.first_us, now_us - acked.last_us
    if ack.first_sackt_us:
        newest_us = now_us - ack.last_sackt_us
        if sample_us < 0:
            sample_us = now_us - ack.first_sackt_us
    if sample_us >= 0:
        tcp_ack_update_rtt(sk, sample_us, newest_us)
    elif acked.pkts:
        newest_us = tcp_tsecr_rtt(sk, ack.tsecr)
    ack.rtt_us = newest_us
    return newest_us >= 0


def _sack_may_restart_timer(sk: TcpSock, ack: AckState, *, has_rtt: bool) -> None:
    """Let a SACK start the timer anew, if it is for data sent before the head was."""
    if not sk.rtx or not has_rtt or not ack.first_sackt_us:
        return
    if ack.first_sackt_us < sk.rtx[0].sent_us:
        ack.flag |= FLAG_SET_XMIT_TIMER
