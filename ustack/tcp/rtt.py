"""Round-trip time and retransmission timeout (RFC 6298, with Linux's variance rule).

``tcp_rtt_estimator`` keeps srtt (<< 3) and the mean deviation (<< 2) in the control block;
the deviation that counts is the largest of the last round, so that RTO does not collapse on
a quiet path (tcp_rtt_estimator in net/ipv4/tcp_input.c).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ustack.lib.seqnum import SEQ_MASK, after

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock
    from ustack.wire.tcp import Segment

TCP_TIMEOUT_INIT_US = 1_000_000
"""RFC 6298 §2.1."""
TCP_TIMEOUT_FALLBACK_US = 3_000_000
"""RFC 6298 §5.7: the RTO of data after a handshake that was repeated and measured nothing."""
TCP_RTO_MIN_US = 200_000
"""Linux's TCP_RTO_MIN; RFC 6298 §2.4 would have one second."""
TCP_RTO_MAX_US = 120_000_000
MAX_SAMPLE_US = 1 << 28
"""A longer sample (four minutes) counts as this: srtt << 3 and mdev << 2 fit 32 bits."""


def tcp_rtt_estimator(sk: TcpSock, mrtt_us: int) -> None:
    """Take one RTT sample in microseconds into srtt and rttvar (RFC 6298 §2)."""
    tp = sk.tp
    m = min(max(mrtt_us, 1), MAX_SAMPLE_US)
    srtt = tp.srtt_us
    if not srtt:
        tp.srtt_us = m << 3
        tp.mdev_us = m << 1
        tp.rttvar_us = max(tp.mdev_us, tp.icsk_rto_min_us)
        tp.mdev_max_us = tp.rttvar_us
        tp.rtt_seq = tp.snd_nxt
        return
    m -= srtt >> 3
    tp.srtt_us = max(1, srtt + m)
    if m < 0:
        m = -m - (tp.mdev_us >> 2)
        if m > 0:
            m >>= 3  # a shorter RTT moves the deviation less: Eifel's asymmetry
    else:
        m -= tp.mdev_us >> 2
    mdev = tp.mdev_us + m
    tp.mdev_us = mdev
    if mdev > tp.mdev_max_us:
        tp.mdev_max_us = mdev
        if mdev > tp.rttvar_us:
            tp.rttvar_us = mdev
    if after(tp.snd_una, tp.rtt_seq):
        if tp.mdev_max_us < tp.rttvar_us:
            tp.rttvar_us -= (tp.rttvar_us - tp.mdev_max_us) >> 2
        tp.rtt_seq = tp.snd_nxt
        tp.mdev_max_us = tp.icsk_rto_min_us


def tcp_set_rto(sk: TcpSock) -> None:
    """RTO = srtt + rttvar, at most tcp_rto_max_ms (RFC 6298 §2.3, §2.5)."""
    tp = sk.tp
    tp.rto_us = min((tp.srtt_us >> 3) + tp.rttvar_us, tp.icsk_rto_max_us)


def tcp_update_rtt_min(sk: TcpSock, rtt_us: int) -> None:
    """Keep the least RTT of the last tcp_min_rtt_wlen (tcp_update_rtt_min)."""
    tp = sk.tp
    least = tp.rtt_min_us
    now_us = sk.prot.clock.now_us
    if (
        rtt_us <= least
        or not least
        or now_us - tp.rtt_min_stamp_us > sk.prot.config.tcp_min_rtt_wlen_us
    ):
        tp.rtt_min_us = min(max(rtt_us, 1), MAX_SAMPLE_US)
        tp.rtt_min_stamp_us = now_us


def tcp_ack_update_rtt(sk: TcpSock, sample_us: int, newest_us: int) -> None:
    """Feed a sample of our own clock, and end any back-off (RFC 6298 §5.7).

    Args:
        sample_us: RTT of the oldest segment that the ACK covers, for srtt.
        newest_us: RTT of the newest, for the least RTT.
    """
    tcp_update_rtt_min(sk, newest_us)
    tcp_rtt_estimator(sk, sample_us)
    tcp_set_rto(sk)
    sk.tp.backoff = 0


def tcp_rtt_of_log(sk: TcpSock, acked: Any, seg: Segment) -> int:
    """Take the RTT of what was just taken off the log.

    Args:
        acked: struct us_tx_acked.

    Returns:
        The RTT of the newest segment acknowledged in microseconds, -1 if it is not known.
    """
    if acked.ambiguous:
        return tcp_tsecr_rtt(sk, seg.tsecr if seg.tsval is not None else None)
    now_us = sk.prot.clock.now_us
    newest_us: int = now_us - acked.last_us
    sk.tp.rack_rtt_us = min(newest_us, SEQ_MASK)
    tcp_ack_update_rtt(sk, now_us - acked.first_us, newest_us)
    return newest_us


def tcp_tsecr_rtt(sk: TcpSock, tsecr: int | None) -> int:
    """Sample the RTT from the echoed timestamp, -1 if there is none (RFC 7323 §4)."""
    tp = sk.tp
    if not tp.tstamp_ok or not tsecr:
        return -1
    delta_ms = sk.prot.clock.now_us // 1000 + tp.tsoffset - tsecr & SEQ_MASK
    if delta_ms >= 0x80000000 // 1000:
        return -1
    sample_us = max(delta_ms, 1) * 1000
    tcp_ack_update_rtt(sk, sample_us, sample_us)
    return sample_us
