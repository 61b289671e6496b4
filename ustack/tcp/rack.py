"""RACK: a segment is lost when one sent later has arrived for a while (RFC 8985 §6).

"A while" is the reordering window: nothing until reordering was seen, then a quarter of the
least RTT and, as D-SACKs tell of false alarms, more. Reference: net/ipv4/tcp_recovery.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.lib.seqnum import after
from ustack.tcp.ack_state import AckState
from ustack.tcp.cong.ops import TCP_CA_RECOVERY
from ustack.tcp.scoreboard import (
    TCPCB_LOST,
    TCPCB_RETRANS,
    TCPCB_SACKED_RETRANS,
    tcp_mark_skb_lost,
    tcp_recovery,
)
from ustack.tcp.sock import ICSK_TIME_REO_TIMEOUT
from ustack.tcp.timer import TCP_TIMEOUT_MIN_US, tcp_arm_retransmit

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock

TCP_RACK_LOSS_DETECTION = 1
"""Bits of net.ipv4.tcp_recovery."""
TCP_RACK_STATIC_REO_WND = 2
TCP_RACK_NO_DUPTHRESH = 4
TCP_RACK_RECOVERY_THRESH = 16
"""Recoveries after which a window that D-SACKs widened is narrow again (RFC 8985 §6.2 step 4)."""


def tcp_is_rack(sk: TcpSock) -> bool:
    """Whether RACK finds this connection's losses: it needs SACK."""
    return bool(sk.tp.sack_ok and sk.prot.config.tcp_recovery & TCP_RACK_LOSS_DETECTION)


def tcp_rack_advance(sk: TcpSock, sacked: int, end_seq: int, sent_us: int) -> None:
    """Note a delivered transmission, the reference for older ones (RFC 8985 §6.2 step 2).

    An arrival sooner than any RTT belongs to the original of a repeated segment.
    """
    tp = sk.tp
    state = tcp_recovery(sk)
    rtt_us = sk.prot.clock.now_us - sent_us
    if sacked & TCPCB_RETRANS and rtt_us < tp.rtt_min_us:
        return
    state.rack_advanced = True
    tp.rack_rtt_us = min(rtt_us, 0xFFFFFFFF)
    if _sent_after(sent_us, state.rack_mstamp_us, end_seq, state.rack_end_seq):
        state.rack_mstamp_us = sent_us
        state.rack_end_seq = end_seq


def _sent_after(one_us: int, other_us: int, one_end: int, other_end: int) -> bool:
    return one_us > other_us or (one_us == other_us and after(one_end, other_end))


def tcp_rack_reo_wnd(sk: TcpSock) -> int:
    """Return how long an overtaken segment may still arrive, in us (RFC 8985 §6.2 step 4)."""
    tp = sk.tp
    state = tcp_recovery(sk)
    if not state.reord_seen:
        if tp.ca_state >= TCP_CA_RECOVERY:
            return 0
        by_count = not sk.prot.config.tcp_recovery & TCP_RACK_NO_DUPTHRESH
        if tp.sacked_out >= state.reordering and by_count:
            return 0
    return min((tp.rtt_min_us >> 2) * state.rack_reo_wnd_steps, tp.srtt_us >> 3)


def tcp_rack_skb_timeout(sk: TcpSock, sent_us: int, reo_wnd_us: int) -> int:
    """Return how long a segment sent at ``sent_us`` has left before it counts as lost."""
    return int(sk.tp.rack_rtt_us + reo_wnd_us - (sk.prot.clock.now_us - sent_us))


def tcp_rack_detect_loss(sk: TcpSock) -> int:
    """Mark what is lost; return how long to wait for the rest, 0: nothing is in doubt.

    RFC 8985 §6.2 step 5 (tcp_rack_detect_loss).
    """
    state = tcp_recovery(sk)
    reo_wnd_us = tcp_rack_reo_wnd(sk)
    longest_us = 0
    for rec in state.tsorted:
        if rec.sacked & (TCPCB_LOST | TCPCB_SACKED_RETRANS) == TCPCB_LOST:
            continue  # not repeated yet
        if not _sent_after(state.rack_mstamp_us, rec.sent_us, state.rack_end_seq, rec.end_seq):
            break
        left_us = tcp_rack_skb_timeout(sk, rec.sent_us, reo_wnd_us)
        if left_us <= 0:
            tcp_mark_skb_lost(sk, rec)
            state.tsorted.remove(rec)
        else:
            longest_us = max(longest_us, left_us)
    return longest_us


def tcp_rack_mark_lost(sk: TcpSock) -> bool:
    """Look for losses after an ACK that delivered something; whether a timer waits for more."""
    state = tcp_recovery(sk)
    if not state.rack_advanced:
        return False
    state.rack_advanced = False
    wait_us = tcp_rack_detect_loss(sk)
    if wait_us:
        tcp_arm_retransmit(sk, wait_us + TCP_TIMEOUT_MIN_US, ICSK_TIME_REO_TIMEOUT)
    return wait_us > 0


def tcp_rack_update_reo_wnd(sk: TcpSock, ack: AckState) -> None:
    """Widen the window once a round trip while D-SACKs come (RFC 8985 §6.2 step 4)."""
    state = sk.recovery
    if state is None or not ack.newest_us:
        return
    if sk.prot.config.tcp_recovery & TCP_RACK_STATIC_REO_WND:
        return
    if ack.newest_us < state.rack_last_adjust_us:
        state.rack_dsack_seen = False
    if state.rack_dsack_seen:
        state.rack_reo_wnd_steps = min(0xFF, state.rack_reo_wnd_steps + 1)
        state.rack_dsack_seen = False
        state.rack_last_adjust_us = sk.prot.clock.now_us
        state.rack_reo_wnd_persist = TCP_RACK_RECOVERY_THRESH
    elif not state.rack_reo_wnd_persist:
        state.rack_reo_wnd_steps = 1
