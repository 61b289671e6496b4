"""Round-trip time and retransmission timeout (RFC 6298, with Linux's variance rule).

``tcp_rtt_estimator`` keeps srtt (<< 3) and the mean deviation (<< 2) in the control block;
the deviation that counts is the largest of the last round, so that RTO does not collapse on
a quiet path (tcp_rtt_estimator in net/ipv4/tcp_input.c).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.lib.seqnum import after

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock

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
        tp.rttvar_us = max(tp.mdev_us, TCP_RTO_MIN_US)
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
        tp.mdev_max_us = TCP_RTO_MIN_US


def tcp_set_rto(sk: TcpSock) -> None:
    """RTO = srtt + rttvar, at most two minutes (RFC 6298 §2.3, §2.5)."""
    tp = sk.tp
    tp.rto_us = min((tp.srtt_us >> 3) + tp.rttvar_us, TCP_RTO_MAX_US)


def tcp_ack_update_rtt(sk: TcpSock, sample_us: int) -> None:
    """Feed a sample of our own clock, and end any back-off (RFC 6298 §5.7)."""
    tcp_rtt_estimator(sk, sample_us)
    tcp_set_rto(sk)
    sk.tp.backoff = 0
