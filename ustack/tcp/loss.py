"""The Loss state: what a timeout, or a path that takes less than was sent, makes of a flight.

``tcp_retransmit_timer`` enters it after a timeout, ``tcp_v4_mtu_reduced`` when a router says
that segments are too large. It ends as the other states do, in recovery.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.lib.seqnum import after
from ustack.tcp.cong.ops import (
    CA_EVENT_LOSS,
    TCP_CA_DISORDER,
    TCP_CA_LOSS,
    TCP_CA_RECOVERY,
    tcp_ca_event,
    tcp_current_ssthresh,
    tcp_set_ca_state,
)
from ustack.tcp.ecn import tcp_ecn_queue_cwr
from ustack.tcp.mss import tcp_current_mss
from ustack.tcp.rack import tcp_is_rack, tcp_rack_skb_timeout
from ustack.tcp.reno_sack import tcp_limit_reno_sacked, tcp_reset_reno_sack
from ustack.tcp.retransmit import tcp_xmit_retransmit_queue
from ustack.tcp.scoreboard import (
    TCPCB_SACKED_ACKED,
    tcp_mark_skb_lost,
    tcp_rec_payload,
    tcp_recovery,
    tcp_rtx_queue,
)
from ustack.tcp.send_window import tcp_packets_in_flight
from ustack.tcp.undo import tcp_init_undo

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock


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
    probed = sk.mtup is not None and sk.mtup.probe_size  # too large, as like as not
    repeats = new_recovery or tp.retransmits
    state.frto = bool(sk.prot.config.tcp_frto and repeats and not probed)


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


def tcp_simple_retransmit(sk: TcpSock) -> None:
    """The path takes less than we sent: repeat what is too large (tcp_simple_retransmit).

    RFC 1191 §6.4; nothing is wrong with the rate, so cwnd stays.
    """
    tp = sk.tp
    mss = tcp_current_mss(sk)
    for rec in tcp_rtx_queue(sk):
        if min(tcp_rec_payload(sk, rec), rec.mss) > mss:
            tcp_mark_skb_lost(sk, rec)
    if not tp.lost_out:
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
