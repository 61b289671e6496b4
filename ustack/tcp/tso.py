"""How many segments leave as one super-frame, and when it is worth waiting for a larger one.

``tcp_tso_segs`` sizes super-frames so that about a millisecond's worth of the pacing rate goes
at once, and more the nearer the peer is: to one less than half a millisecond away, all that a
device takes. ``tcp_tso_should_defer`` holds back a small one while the next ACK, which will let
more go, is about to come. Reference: net/ipv4/tcp_output.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.core.netdevice import NETIF_F_GSO, NETIF_F_TSO
from ustack.lib.seqnum import seq_diff
from ustack.tcp.cong.ops import TCP_CA_RECOVERY
from ustack.tcp.mss import tcp_bound_to_half_wnd
from ustack.tcp.send_window import tcp_packets_in_flight, tcp_wnd_end
from ustack.tcp.timer import tcp_head_sent_us
from ustack.tcp.transmit import tcp_route

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock

MAX_TCP_HEADER = 320
"""Room that a super-frame leaves for every header (Linux's MAX_TCP_HEADER)."""
SK_PACING_SHIFT = 10
"""A super-frame holds 2**-10 s of the pacing rate (sk_pacing_shift)."""
GSO_SIZE_BITS = 32
"""From so many halvings on the nearness of the peer adds nothing."""
TCP_MAX_TSO_DEFERRED_MSS = 3
"""Segments for which nobody waits, where tcp_tso_win_divisor is 0."""
DEFER_MAX_US = 1000
"""How far away the next ACK, and how long ago the last segment, may be for that."""

SEND_NOW = 0
DEFER = 1
DEFER_CWND_LIMITED = 2
"""Wait, and it is cwnd that keeps the super-frame small."""


def sk_gso_max_size(sk: TcpSock) -> int:
    """Return how much payload a super-frame may have, 0 if the device takes none.

    Each segment is signed by itself, so there is none of those then (sk_gso_disable).
    """
    rt = tcp_route(sk)
    if rt is None or not rt.dev.features & (NETIF_F_TSO | NETIF_F_GSO) or sk.opts.md5_keys:
        return 0
    return rt.dev.gso_max_size - 1 - MAX_TCP_HEADER


def tcp_size_goal(sk: TcpSock, mss: int) -> int:
    """Return what a write fills a packet up to, a multiple of ``mss`` (tcp_xmit_size_goal)."""
    size = sk_gso_max_size(sk)
    if not size:
        return mss
    goal = tcp_bound_to_half_wnd(sk.tp, size)
    return max(goal - goal % mss, mss)


def tcp_tso_segs(sk: TcpSock, mss: int) -> int:
    """Return how many segments a super-frame may have now (tcp_tso_segs, tcp_tso_autosize).

    Never more than a packet holds, though tcp_min_tso_segs asks for them: on lo two segments
    may be too many. In Linux a write fills no packet further than that.
    """
    most = sk_gso_max_size(sk)
    if not most:
        return 1
    tp = sk.tp
    size = tp.sk_pacing_rate >> SK_PACING_SHIFT
    if size < most and tp.rtt_min_us:
        halvings = tp.rtt_min_us >> sk.prot.config.tcp_tso_rtt_log
        if halvings < GSO_SIZE_BITS:
            size += most >> halvings
    wanted = max(min(size, most) // mss, sk.ca.min_tso_segs(sk))
    return int(min(wanted, max(most // mss, 1)))


def tcp_tso_should_defer(sk: TcpSock, data: int, max_segs: int) -> int:
    """Whether a super-frame should wait for the next ACK (tcp_tso_should_defer).

    Args:
        data: bytes that wait, more than a segment.
        max_segs: what a super-frame may have.

    Returns:
        SEND_NOW, DEFER or DEFER_CWND_LIMITED.
    """
    tp = sk.tp
    if tp.ca_state >= TCP_CA_RECOVERY or _last_sent_long_ago(sk):
        return SEND_NOW
    send_win = seq_diff(tcp_wnd_end(sk), tp.snd_nxt)
    mss = tp.mss_cache
    cong_win = (tp.snd_cwnd - tcp_packets_in_flight(tp)) * mss
    limit = min(send_win, cong_win)
    packet = min(data, sk_gso_max_size(sk))  # Linux's is as large as writes have filled it
    if limit >= max_segs * mss or (packet < data and limit >= packet):
        return SEND_NOW
    divisor = sk.prot.config.tcp_tso_win_divisor
    if divisor:
        if limit >= min(tp.snd_wnd, tp.snd_cwnd * mss) // divisor:
            return SEND_NOW
    elif limit > TCP_MAX_TSO_DEFERRED_MSS * mss:
        return SEND_NOW
    if not _ack_is_near(sk):
        return SEND_NOW
    if limit <= packet:
        return DEFER_CWND_LIMITED if cong_win < send_win else DEFER
    return SEND_NOW if tp.fin_queued and packet == data else DEFER


def _last_sent_long_ago(sk: TcpSock) -> bool:
    """Waiting would be no use, but make a burst of what comes after it."""
    last_us = sk.tp.lsndtime_us
    if sk.pacing is not None:
        last_us = max(last_us, sk.pacing.wstamp_ns // 1000)
    return bool(sk.prot.clock.now_us - last_us > DEFER_MAX_US)


def _ack_is_near(sk: TcpSock) -> bool:
    """Whether the ACK of what has been out longest is due in a moment."""
    tp = sk.tp
    if not tp.packets_out:
        return False
    srtt_us = tp.srtt_us >> 3
    due_us = tcp_head_sent_us(sk) + srtt_us - sk.prot.clock.now_us
    return bool(due_us <= min(srtt_us >> 1, DEFER_MAX_US))
