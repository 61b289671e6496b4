"""CUBIC (RFC 9438), in the integer arithmetic of Linux's tcp_cubic.c, with HyStart.

After a loss the window follows W(t) = C (t - K)^3 + W_max, or what Reno would reach if that
is more. ``bictcp_update`` turns the curve into ``tp.ca_cnt``, the ACKs that one more segment
costs; while cwnd stays it holds for 31 ms, so that an ACK in between only counts.
HyStart (hystart.py) ends slow start before the first loss does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ustack.native.lib import ffi, lib
from ustack.tcp.cong.hystart import hystart_reset, hystart_update
from ustack.tcp.cong.ops import (
    CA_EVENT_TX_START,
    TCP_CA_LOSS,
    AckSample,
    CongestionOps,
    tcp_cong_avoid_ai,
    tcp_in_slow_start,
    tcp_is_cwnd_limited,
    tcp_slow_start,
)

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock

BETA_SCALE = 1024
BETA = 717
"""0.7 of BETA_SCALE: what a loss leaves of the window (RFC 9438 §4.6)."""
BIC_HZ = 10
"""Time in the curve is in units of 2**-10 s."""
BIC_SCALE = 41
CUBE_RTT_SCALE = BIC_SCALE * 10
"""C = 0.4 in units of 2**-10 (RFC 9438 §5)."""
CUBE_FACTOR = (1 << (10 + 3 * BIC_HZ)) // CUBE_RTT_SCALE
"""1 / C, for K = cbrt((W_max - cwnd) / C) (RFC 9438 §4.2)."""
RENO_SCALE = 8 * (BETA_SCALE + BETA) // 3 // (BETA_SCALE - BETA)
"""ACKs that one segment costs in the Reno-friendly region, in eighths of cwnd (RFC 9438 §4.3)."""
JIFFY_US = 1000
NOTHING = bytes(ffi.sizeof("struct us_bictcp"))
CNT_HOLDS_JIFFIES = 31
"""HZ / 32: how long a count holds while cwnd does not change."""


def bictcp(sk: TcpSock) -> Any:
    """Return what CUBIC remembers of ``sk`` (``struct us_bictcp *``), made now if there is none."""
    tp = sk.tp
    if not tp.bictcp:
        try:
            tp.bictcp = sk.prot.bictcp_cache.alloc()
        except MemoryError:
            tp.bictcp = sk.ca_priv = ffi.new("struct us_bictcp *")
        hystart_reset(sk, tp.bictcp)
    return tp.bictcp


def bictcp_reset(sk: TcpSock, ca: Any) -> None:
    """Forget the curve and the path (bictcp_reset)."""
    ffi.memmove(ca, NOTHING, len(NOTHING))
    sk.tp.ca_cnt = 0
    hystart_reset(sk, ca)


class Cubic(CongestionOps):
    """Linux's default."""

    name = "cubic"
    in_c: int = lib.US_TCP_CA_CUBIC
    """C takes ACKs while the count holds (``tcp_cong.c``)."""

    def release(self, sk: TcpSock) -> None:
        """Give back what was remembered; without memory it was Python's own."""
        if sk.tp.bictcp and sk.ca_priv is None:
            sk.prot.bictcp_cache.free(sk.tp.bictcp)

    def ssthresh(self, sk: TcpSock) -> int:
        """0.7 of the window; the epoch ends (RFC 9438 §4.6, §4.7 fast convergence)."""
        ca = bictcp(sk)
        cwnd = sk.tp.snd_cwnd
        ca.epoch_start_us = 0
        if cwnd < ca.last_max_cwnd:
            ca.last_max_cwnd = cwnd * (BETA_SCALE + BETA) // (2 * BETA_SCALE)
        else:
            ca.last_max_cwnd = cwnd
        return int(max(cwnd * BETA // BETA_SCALE, 2))

    def cong_avoid(self, sk: TcpSock, ack: int, acked_segs: int) -> None:
        """Slow start, then the curve (cubictcp_cong_avoid)."""
        if not tcp_is_cwnd_limited(sk):
            return
        if tcp_in_slow_start(sk):
            acked_segs = tcp_slow_start(sk, acked_segs)
            if not acked_segs:
                return
        bictcp_update(sk, acked_segs)
        tcp_cong_avoid_ai(sk, sk.tp.ca_cnt, acked_segs)

    def set_state(self, sk: TcpSock, new_state: int) -> None:
        """After a timeout nothing that was known of the path counts (RFC 9438 §4.8)."""
        if new_state == TCP_CA_LOSS:
            bictcp_reset(sk, bictcp(sk))

    def cwnd_event(self, sk: TcpSock, event: int) -> None:
        """Idle time does not count on the curve: the epoch moves by it (RFC 9438 §5.8)."""
        ca = sk.tp.bictcp
        if event != CA_EVENT_TX_START or not ca or not ca.epoch_start_us:
            return
        now_us = sk.prot.clock.now_us
        idle_us = now_us - sk.tp.lsndtime_us
        if idle_us > 0:
            ca.epoch_start_us = min(ca.epoch_start_us + idle_us, now_us)

    def pkts_acked(self, sk: TcpSock, sample: AckSample) -> None:
        """Learn the least RTT, and look for the end of slow start (cubictcp_acked).

        What is measured in the second after a recovery is the queue that it left.
        """
        if sample.rtt_us < 0:
            return
        ca = bictcp(sk)
        if ca.epoch_start_us and sk.prot.clock.now_us - ca.epoch_start_us < 1_000_000:
            return
        delay_us = sample.rtt_us or 1
        if not ca.delay_min_us or ca.delay_min_us > delay_us:
            ca.delay_min_us = delay_us
        if not ca.found and tcp_in_slow_start(sk):
            hystart_update(sk, ca, delay_us, ca.delay_min_us)


def bictcp_update(sk: TcpSock, acked_segs: int) -> None:
    """Set ``tp.ca_cnt`` from the curve, at most once a millisecond (bictcp_update)."""
    tp = sk.tp
    ca = bictcp(sk)
    cwnd = tp.snd_cwnd
    now_us = sk.prot.clock.now_us
    jiffy = now_us // JIFFY_US
    ca.ack_cnt += acked_segs
    if ca.last_cwnd == cwnd and jiffy - ca.last_jiffy <= CNT_HOLDS_JIFFIES:
        return
    cnt = tp.ca_cnt
    if not ca.epoch_start_us or jiffy != ca.last_jiffy:
        ca.last_cwnd = cwnd
        ca.last_jiffy = jiffy
        if not ca.epoch_start_us:
            _begin_epoch(ca, cwnd, acked_segs, now_us)
        cnt = _cubic_cnt(ca, cwnd, now_us)
    reno = cwnd * RENO_SCALE >> 3
    if ca.ack_cnt > reno:
        segs = (ca.ack_cnt - 1) // reno
        ca.ack_cnt -= segs * reno
        ca.tcp_cwnd += segs
    if ca.tcp_cwnd > cwnd:
        cnt = min(cnt, cwnd // (ca.tcp_cwnd - cwnd))
    tp.ca_cnt = max(cnt, 2)  # at most half as much again in a round trip


def _begin_epoch(ca: Any, cwnd: int, acked_segs: int, now_us: int) -> None:
    """The curve starts at ``cwnd`` and is level at W_max (RFC 9438 §4.2)."""
    ca.epoch_start_us = now_us
    ca.ack_cnt = acked_segs
    ca.tcp_cwnd = cwnd
    if ca.last_max_cwnd <= cwnd:
        ca.bic_k = 0
        ca.bic_origin_point = cwnd
    else:
        ca.bic_k = cubic_root(CUBE_FACTOR * (ca.last_max_cwnd - cwnd))
        ca.bic_origin_point = ca.last_max_cwnd


def _cubic_cnt(ca: Any, cwnd: int, now_us: int) -> int:
    """Return how many ACKs per segment lead to where the curve is one RTT from now."""
    t = (now_us - ca.epoch_start_us + ca.delay_min_us << BIC_HZ) // 1_000_000
    offs = t - ca.bic_k
    delta = CUBE_RTT_SCALE * abs(offs) ** 3 >> (10 + 3 * BIC_HZ)
    target = ca.bic_origin_point + (delta if offs >= 0 else -delta)
    cnt = cwnd // (target - cwnd) if target > cwnd else 100 * cwnd
    if not ca.last_max_cwnd and cnt > 20:
        return 20  # nothing is known of the path yet: 5 % a round trip
    return cnt


def cubic_root(a: int) -> int:
    """Return the integer cube root of ``a``, by Newton's method from above."""
    if a < 8:
        return int(a > 0)
    x = 1 << -(-a.bit_length() // 3)
    while True:
        y = (2 * x + a // (x * x)) // 3
        if y >= x:
            return x
        x = y
