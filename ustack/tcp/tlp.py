"""Tail loss probe: when the last segments of a flight are lost nothing else tells (RFC 8985 §7).

After two round trips of silence one segment goes out, new if there is one, else the last one
again; its ACK lets RACK see what is missing, long before the timeout would.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.lib.seqnum import SEQ_MASK, after, before, seq_diff
from ustack.native.lib import lib
from ustack.tcp.ack_state import (
    FLAG_DATA_SACKED,
    FLAG_DSACK_TLP,
    FLAG_NOT_DUP,
    FLAG_SND_UNA_ADVANCED,
    AckState,
)
from ustack.tcp.cong.ops import TCP_CA_CWR, tcp_set_ca_state
from ustack.tcp.mss import tcp_current_mss
from ustack.tcp.output import TCP_NAGLE_OFF, tcp_write_xmit
from ustack.tcp.prr import tcp_end_cwnd_reduction, tcp_init_cwnd_reduction
from ustack.tcp.retransmit import tcp_retransmit_rec
from ustack.tcp.scoreboard import tcp_fragment, tcp_rec_payload, tcp_recovery, tcp_rtx_queue
from ustack.tcp.send_window import tcp_wnd_end
from ustack.tcp.small_queue import tcp_small_queue_check
from ustack.tcp.sock import ICSK_TIME_NONE
from ustack.tcp.timer import tcp_rearm_rto
from ustack.tcp.undo import tcp_try_keep_open

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock


def tcp_send_loss_probe(sk: TcpSock) -> None:
    """The probe timer has expired (tcp_send_loss_probe); one probe is out at a time."""
    tp = sk.tp
    state = tcp_recovery(sk)
    if state.tlp_high_seq is None:
        state.tlp_retrans = False
        probe = _probe_with_new_data if _new_data_fits(sk) else _probe_with_the_last
        if probe(sk):
            state.tlp_high_seq = tp.snd_nxt
            tp.slow |= lib.US_TCP_SLOW_TLP
            sk.prot.mib_ext.TCPLossProbes += 1
            sk.tp.icsk_pending = ICSK_TIME_NONE  # the RTO counts from the probe
    tcp_rearm_rto(sk)


def _new_data_fits(sk: TcpSock) -> bool:
    """Whether a segment that was never sent would fit the peer's window (tcp_snd_wnd_test)."""
    tp = sk.tp
    waiting = tp.write_seq - tp.snd_nxt & SEQ_MASK
    room = seq_diff(tcp_wnd_end(sk), tp.snd_nxt)
    return bool(waiting) and min(waiting, tcp_current_mss(sk)) <= room


def _probe_with_new_data(sk: TcpSock) -> bool:
    """Send a segment that was never sent, beyond cwnd if need be."""
    tp = sk.tp
    prior = tp.packets_out
    tcp_write_xmit(sk, TCP_NAGLE_OFF, push_one=2)
    return bool(tp.packets_out > prior)


def _probe_with_the_last(sk: TcpSock) -> bool:
    """Send the last segment again."""
    mss = tcp_current_mss(sk)
    if tcp_small_queue_check(sk, mss, factor=1):
        return False
    recs = tcp_rtx_queue(sk)
    last = len(recs) - 1
    rec = recs[last]
    head = (rec.pcount - 1) * mss
    if rec.pcount > 1 and tcp_rec_payload(sk, rec) > head:
        tcp_fragment(sk, last, head, mss)
        last += 1
    if tcp_retransmit_rec(sk, last, 1) is None:
        return False
    tcp_recovery(sk).tlp_retrans = True
    return True


def tcp_process_tlp_ack(sk: TcpSock, seq: int, ack: AckState) -> None:
    """See from an ACK what the probe was for (RFC 8985 §7.4, tcp_process_tlp_ack).

    If the repeated segment filled a hole there was a loss, and cwnd pays for it.
    """
    state = tcp_recovery(sk)
    high = state.tlp_high_seq
    if high is None or before(seq, high):
        return
    if not state.tlp_retrans or ack.flag & FLAG_DSACK_TLP:
        state.tlp_high_seq = None
    elif after(seq, high):
        tcp_init_cwnd_reduction(sk)
        tcp_set_ca_state(sk, TCP_CA_CWR)
        tcp_end_cwnd_reduction(sk)
        tcp_try_keep_open(sk)
        sk.prot.mib_ext.TCPLossProbeRecovery += 1
    elif not ack.flag & (FLAG_SND_UNA_ADVANCED | FLAG_NOT_DUP | FLAG_DATA_SACKED):
        state.tlp_high_seq = None
