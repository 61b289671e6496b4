"""The rate that cwnd makes, and sending no faster than a rate (net/ipv4/tcp_output.c).

``tcp_update_pacing_rate`` runs on every ACK: twice cwnd per RTT in slow start, 1.2 times
cwnd per RTT beyond it. It sizes super-frames (``tcp_tso_autosize``). A socket is paced only
once SO_MAX_PACING_RATE asks for it: then each segment sets the time before which no other may
leave, and a timer goes on sending (SK_PACING_NEEDED).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.core.timer import Timer
from ustack.lib.seqnum import SEQ_MASK
from ustack.native.lib import lib
from ustack.tcp.states import TCP_CLOSE, TCP_LISTEN

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock

MAX_RATE = 0xFFFFFFFFFFFFFFFF
"""No limit (~0UL)."""
UNPACED_SEGS = 10
"""The first segments of a connection leave at once, as fq does it."""


class Pacing:
    """What a paced socket has: its limit, and when it may send again."""

    __slots__ = ("max_rate", "timer", "wstamp_ns")

    def __init__(self, max_rate: int) -> None:
        self.max_rate = max_rate
        """SO_MAX_PACING_RATE, bytes per second."""
        self.wstamp_ns = 0
        """When the last segment has left at that rate: the earliest time of the next."""
        self.timer: Timer | None = None


def tcp_update_pacing_rate(sk: TcpSock) -> None:
    """Set ``sk_pacing_rate``, in bytes per second, from cwnd and srtt (tcp_update_pacing_rate)."""
    tp = sk.tp
    cwnd = tp.snd_cwnd
    mss = tp.mss_cache
    config = sk.prot.config
    slow_start = cwnd < tp.snd_ssthresh >> 1
    ratio = config.tcp_pacing_ss_ratio if slow_start else config.tcp_pacing_ca_ratio
    segs = max(cwnd, (tp.snd_nxt - tp.snd_una & SEQ_MASK) // mss)
    rate = mss * ratio * segs * (8_000_000 // 100)
    if tp.srtt_us:
        rate //= tp.srtt_us
    tp.sk_pacing_rate = min(rate, sk.pacing.max_rate if sk.pacing is not None else MAX_RATE)


def sk_set_max_pacing_rate(sk: TcpSock, rate: int) -> None:
    """Send no faster than ``rate`` bytes per second (SO_MAX_PACING_RATE)."""
    if sk.pacing is not None:
        sk.pacing.max_rate = rate
    elif rate != MAX_RATE:
        sk.pacing = Pacing(rate)
        sk.tp.slow |= lib.US_TCP_SLOW_PACING
    sk.tp.sk_pacing_rate = min(sk.tp.sk_pacing_rate, rate)


def tcp_pacing_stop(sk: TcpSock) -> None:
    """The connection is over: no timer goes on (tcp_clear_xmit_timers)."""
    pacing = sk.pacing
    if pacing is not None and pacing.timer is not None:
        sk.prot.timers.del_timer(pacing.timer)
        pacing.timer.arg = None
        pacing.timer = None


def tcp_pacing_delay_us(sk: TcpSock, pacing: Pacing) -> int:
    """Return how long it is still too early to send (tcp_pacing_delay)."""
    return max(-(-pacing.wstamp_ns // 1000) - sk.prot.clock.now_us, 0)


def tcp_pacing_check(sk: TcpSock) -> bool:
    """Whether it is too early to send; the timer then goes on (tcp_pacing_check)."""
    pacing = sk.pacing
    if pacing is None:
        return False
    delay_us = tcp_pacing_delay_us(sk, pacing)
    if not delay_us:
        return False
    if pacing.timer is None:
        pacing.timer = Timer(tcp_pace_kick, sk)
    if not pacing.timer.pending:
        sk.prot.timers.mod_timer(pacing.timer, sk.prot.clock.now_us + delay_us)
    return True


def tcp_pacing_sent(sk: TcpSock, pacing: Pacing, length: int) -> None:
    """Move the time of the next segment behind ``length`` bytes (tcp_update_skb_after_send).

    A time that has passed unused is credit for half of a segment's time at most.
    """
    now_ns = sk.prot.clock.now_us * 1000
    prior_ns = pacing.wstamp_ns
    pacing.wstamp_ns = max(prior_ns, now_ns)
    rate = sk.tp.sk_pacing_rate
    if not rate or rate == MAX_RATE or sk.tp.data_segs_out < UNPACED_SEGS:
        return
    len_ns = length * 1_000_000_000 // rate
    pacing.wstamp_ns += len_ns - min(len_ns // 2, pacing.wstamp_ns - prior_ns)


def tcp_pace_kick(sk: TcpSock) -> None:
    """The time has come: queue the socket with those that go on sending (tcp_pace_kick)."""
    if sk is not None and sk.tp is not None and sk.tp.state not in (TCP_CLOSE, TCP_LISTEN):
        sk.prot.tsq[sk] = None
