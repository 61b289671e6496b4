"""Reno: slow start and congestion avoidance (RFC 5681), Linux's tcp_reno_*.

A congestion control is an object of functions over the socket; ``tcp/ack.py`` asks it how
the window grows on an ACK and what ssthresh becomes on a loss. Windows are in segments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock

SND_CWND_CLAMP = 0xFFFFFF


class CongestionOps(Protocol):
    """What a congestion control answers (struct tcp_congestion_ops)."""

    name: str

    def ssthresh(self, sk: TcpSock) -> int:
        """Return the new slow-start threshold after a loss, in segments."""

    def cong_avoid(self, sk: TcpSock, acked_segs: int) -> None:
        """Grow cwnd for ``acked_segs`` newly acknowledged segments."""


def tcp_in_slow_start(sk: TcpSock) -> bool:
    """Whether cwnd is below ssthresh (RFC 5681 §3.1)."""
    tp = sk.tp
    return tp.snd_cwnd < tp.snd_ssthresh


def tcp_slow_start(sk: TcpSock, acked_segs: int) -> int:
    """Grow cwnd by what was acknowledged, up to ssthresh; return the segments left over."""
    tp = sk.tp
    cwnd = min(tp.snd_cwnd + acked_segs, tp.snd_ssthresh)
    left = acked_segs - (cwnd - tp.snd_cwnd)
    tp.snd_cwnd = min(cwnd, SND_CWND_CLAMP)
    return left


def tcp_cong_avoid_ai(sk: TcpSock, window: int, acked_segs: int) -> None:
    """Add one segment to cwnd for each ``window`` segments acknowledged."""
    tp = sk.tp
    count = tp.snd_cwnd_cnt
    if count >= window:
        count = 0
        tp.snd_cwnd += 1
    count += acked_segs
    if count >= window:
        delta = count // window
        count -= delta * window
        tp.snd_cwnd = min(tp.snd_cwnd + delta, SND_CWND_CLAMP)
    tp.snd_cwnd_cnt = count


class Reno:
    """RFC 5681 as Linux computes it: half of cwnd on a loss, one segment a round trip."""

    name = "reno"

    def ssthresh(self, sk: TcpSock) -> int:
        """Half the window, at least two segments (RFC 5681 §3.1, equation 4)."""
        return max(sk.tp.snd_cwnd >> 1, 2)

    def cong_avoid(self, sk: TcpSock, acked_segs: int) -> None:
        """tcp_reno_cong_avoid: nothing grows while the window is not the limit (RFC 7661)."""
        tp = sk.tp
        if not tcp_is_cwnd_limited(sk):
            return
        if tcp_in_slow_start(sk):
            acked_segs = tcp_slow_start(sk, acked_segs)
            if not acked_segs:
                return
        tcp_cong_avoid_ai(sk, tp.snd_cwnd, acked_segs)


def tcp_is_cwnd_limited(sk: TcpSock) -> bool:
    """Whether the last round's sending was held back by cwnd (tcp_is_cwnd_limited)."""
    tp = sk.tp
    if tp.is_cwnd_limited:
        return True
    return bool(tcp_in_slow_start(sk) and tp.snd_cwnd < 2 * tp.max_in_flight)
