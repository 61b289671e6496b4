"""The two windows that limit sending: the peer's, and cwnd with what is in flight against it.

``tcp_write_xmit`` asks here whether more may go, and says afterwards whether cwnd was what held
it back: a window that is not used must not grow, and shrinks while nothing is sent (RFC 2861,
RFC 7661). Reference: net/ipv4/tcp_output.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ustack.config import LINUX_310
from ustack.lib.seqnum import SEQ_MASK, before
from ustack.tcp.cong.ops import (
    CA_EVENT_CWND_RESTART,
    TCP_CA_OPEN,
    tcp_ca_event,
    tcp_current_ssthresh,
    tcp_is_cwnd_limited,
)

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock


def tcp_packets_in_flight(tp: Any) -> int:
    """Return how many segments are in the network as far as we know (RFC 6675's pipe).

    What was sent, less what has arrived or is lost, plus what was repeated.
    """
    return int(tp.packets_out - tp.sacked_out - tp.lost_out + tp.retrans_out)


def tcp_cwnd_test(tp: Any) -> int:
    """Return how many segments cwnd lets go at once, at most half of it (tcp_cwnd_test).

    So at least two super-frames are in flight, and ACKs come evenly.
    """
    in_flight = tcp_packets_in_flight(tp)
    cwnd = tp.snd_cwnd
    return 0 if in_flight >= cwnd else int(min(max(cwnd >> 1, 1), cwnd - in_flight))


def tcp_fin_ignores_cwnd(sk: TcpSock, mss: int) -> bool:
    """linux-3.10: a last segment with our FIN does not wait for cwnd (tcp_cwnd_test till 6.9)."""
    tp = sk.tp
    left = (tp.write_seq - tp.snd_nxt & SEQ_MASK) - tp.fin_queued
    return bool(sk.prot.profile == LINUX_310 and tp.fin_queued and left <= mss)


def tcp_wnd_end(sk: TcpSock) -> int:
    """Return the sequence number just beyond the peer's window (tcp_wnd_end)."""
    tp = sk.tp
    return tp.snd_una + tp.snd_wnd & SEQ_MASK


def tcp_slow_start_after_idle_check(sk: TcpSock) -> None:
    """Halve cwnd for each RTO of silence (RFC 2861; tcp_slow_start_after_idle_check)."""
    tp = sk.tp
    idle_us = sk.prot.clock.now_us - tp.lsndtime_us
    if (
        idle_us <= tp.rto_us
        or not sk.prot.config.tcp_slow_start_after_idle
        or sk.ca.cong_control is not None
    ):
        return
    tcp_cwnd_restart(sk, idle_us)


def tcp_cwnd_restart(sk: TcpSock, idle_us: int) -> None:
    """Shrink cwnd towards the initial window, half for each RTO of ``idle_us``."""
    tp = sk.tp
    tcp_ca_event(sk, CA_EVENT_CWND_RESTART)
    tp.snd_ssthresh = tcp_current_ssthresh(sk)
    cwnd = tp.snd_cwnd
    restart = min(sk.prot.config.init_cwnd, cwnd)
    idle_us -= tp.rto_us
    while idle_us > 0 and cwnd > restart:
        cwnd >>= 1
        idle_us -= tp.rto_us
    tp.snd_cwnd = max(cwnd, restart)
    tp.snd_cwnd_stamp_us = sk.prot.clock.now_us
    tp.snd_cwnd_used = 0


def tcp_cwnd_validate(sk: TcpSock, *, cwnd_limited: bool) -> None:
    """Note whether cwnd was what held us back in this round (tcp_cwnd_validate, RFC 7661)."""
    tp = sk.tp
    in_flight = tcp_packets_in_flight(tp)
    cwnd_limited = cwnd_limited or in_flight >= tp.snd_cwnd
    if (
        not before(tp.snd_una, tp.cwnd_usage_seq)
        or cwnd_limited
        or (not tp.is_cwnd_limited and in_flight > tp.max_in_flight)
    ):
        tp.is_cwnd_limited = cwnd_limited
        tp.max_in_flight = in_flight
        tp.cwnd_usage_seq = tp.snd_nxt
    now_us = sk.prot.clock.now_us
    if tcp_is_cwnd_limited(sk):
        tp.snd_cwnd_used = 0
        tp.snd_cwnd_stamp_us = now_us
        return
    if in_flight > tp.snd_cwnd_used:
        tp.snd_cwnd_used = in_flight
    if (
        now_us - tp.snd_cwnd_stamp_us >= tp.rto_us
        and sk.prot.config.tcp_slow_start_after_idle
        and sk.ca.cong_control is None
    ):
        tcp_cwnd_application_limited(sk)


def tcp_cwnd_application_limited(sk: TcpSock) -> None:
    """Let cwnd sink half way to what was used in the last RTO (RFC 2861 §2)."""
    tp = sk.tp
    if tp.ca_state == TCP_CA_OPEN and not sk.nospace:
        win_used = max(tp.snd_cwnd_used, sk.prot.config.init_cwnd)
        if win_used < tp.snd_cwnd:
            tp.snd_ssthresh = tcp_current_ssthresh(sk)
            tp.snd_cwnd = (tp.snd_cwnd + win_used) >> 1
        tp.snd_cwnd_used = 0
    tp.snd_cwnd_stamp_us = sk.prot.clock.now_us
