"""Reducing cwnd over a round trip instead of at once: PRR (RFC 6937, RFC 9937).

``tcp_cong_control`` calls ``tcp_cwnd_reduction`` for every ACK in CWR and Recovery; in the
end cwnd is ssthresh. Reference: tcp_init_cwnd_reduction, tcp_cwnd_reduction, tcp_enter_cwr.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.tcp.ack_state import FLAG_SND_UNA_ADVANCED
from ustack.tcp.cong.ops import (
    CA_EVENT_COMPLETE_CWR,
    TCP_CA_CWR,
    TCP_CA_RECOVERY,
    TCP_INFINITE_SSTHRESH,
    tcp_ca_event,
    tcp_set_ca_state,
)
from ustack.tcp.ecn import tcp_ecn_queue_cwr
from ustack.tcp.scoreboard import tcp_recovery
from ustack.tcp.send_window import tcp_packets_in_flight

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock


def tcp_in_cwnd_reduction(sk: TcpSock) -> bool:
    """Whether cwnd is on its way down to ssthresh (tcp_in_cwnd_reduction)."""
    return sk.tp.ca_state in (TCP_CA_CWR, TCP_CA_RECOVERY)


def tcp_init_cwnd_reduction(sk: TcpSock) -> None:
    """Begin a reduction: ssthresh from the congestion control, the count from zero."""
    tp = sk.tp
    state = tcp_recovery(sk)
    tp.high_seq = tp.snd_nxt
    state.tlp_high_seq = None
    tp.snd_cwnd_cnt = 0
    tp.prior_cwnd = tp.snd_cwnd
    state.prr_delivered = 0
    state.prr_out = 0
    tp.snd_ssthresh = sk.ca.ssthresh(sk)
    tcp_ecn_queue_cwr(sk)


def tcp_cwnd_reduction(sk: TcpSock, newly_delivered: int, newly_lost: int, flag: int) -> None:
    """Set cwnd so that sending follows delivery (RFC 6937 §3, tcp_cwnd_reduction).

    Above ssthresh in proportion to it; at or below it by what was delivered, and one more
    per ACK while repetitions get through (slow start reduction bound).

    Args:
        newly_delivered: segments that this ACK reports as arrived.
        newly_lost: segments that it made us mark lost.
        flag: FLAG_* of the ACK.
    """
    tp = sk.tp
    if newly_delivered <= 0:
        return
    state = tcp_recovery(sk)
    in_flight = tcp_packets_in_flight(tp)
    delta = tp.snd_ssthresh - in_flight
    state.prr_delivered += newly_delivered
    if delta < 0:
        prior = max(tp.prior_cwnd, 1)
        count = -(-tp.snd_ssthresh * state.prr_delivered // prior) - state.prr_out
    else:
        count = max(state.prr_delivered - state.prr_out, newly_delivered)
        if flag & FLAG_SND_UNA_ADVANCED and not newly_lost:
            count += 1
        count = min(delta, count)
    count = max(count, 0 if state.prr_out else 1)  # the first repetition goes out in any case
    tp.snd_cwnd = max(in_flight + count, 1)


def tcp_end_cwnd_reduction(sk: TcpSock) -> None:
    """Leave cwnd at ssthresh, unless it has been undone (tcp_end_cwnd_reduction)."""
    tp = sk.tp
    if tp.snd_ssthresh < TCP_INFINITE_SSTHRESH and (
        tp.ca_state == TCP_CA_CWR or tcp_recovery(sk).undo_marker is not None
    ):
        tp.snd_cwnd = tp.snd_ssthresh
        tp.snd_cwnd_stamp_us = sk.prot.clock.now_us
    tcp_ca_event(sk, CA_EVENT_COMPLETE_CWR)


def tcp_enter_cwr(sk: TcpSock) -> None:
    """Reduce cwnd without a loss: ECN, or our own device's refusal (tcp_enter_cwr)."""
    tp = sk.tp
    tp.prior_ssthresh = 0
    if tp.ca_state < TCP_CA_CWR:
        tcp_recovery(sk).undo_marker = None
        tcp_init_cwnd_reduction(sk)
        tcp_set_ca_state(sk, TCP_CA_CWR)
