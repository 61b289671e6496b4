"""Answers to segments that do not fit, and how often they are given (RFC 5961 §7).

Two ends that disagree would answer each other for ever, and whoever guesses numbers blindly
must not make us a source of packets: one answer per connection in tcp_invalid_ratelimit, and
if tcp_challenge_ack_limit says so, about so many challenge ACKs per second of the whole stack.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ustack.tcp.transmit import tcp_send_ack
from ustack.wire.tcp import SYN

if TYPE_CHECKING:
    from ustack.tcp.protocol import TcpProt
    from ustack.tcp.sock import TcpSock
    from ustack.wire.tcp import Segment

NO_CHALLENGE_LIMIT = 2**31 - 1
"""tcp_challenge_ack_limit: INT_MAX is no limit of the whole stack, and the default since 5.19."""


def tcp_oow_rate_limited(holder: Any, now_us: int, seg: Segment | None, limit_us: int) -> bool:
    """Whether an invalid segment goes unanswered because one was answered lately.

    Two ends that disagree would answer each other's ACKs for ever. Data is no part of such
    a loop and is always answered (tcp_oow_rate_limited).

    Args:
        holder: a control block or a request: its ``last_oow_ack_us`` is the last answer's time.
        limit_us: tcp_invalid_ratelimit.
    """
    if seg is not None and seg.seq != seg.end_seq and not seg.flags & SYN:
        return False
    last_us = holder.last_oow_ack_us
    if last_us and now_us - last_us < limit_us:
        return True
    holder.last_oow_ack_us = now_us
    return False


def tcp_oow_is_limited(sk: TcpSock, seg: Segment | None = None) -> bool:
    """``tcp_oow_rate_limited`` for a connection, by its stack's knob."""
    prot = sk.prot
    limit_us = prot.config.tcp_invalid_ratelimit_us
    return tcp_oow_rate_limited(sk.tp, prot.clock.now_us, seg, limit_us)


def tcp_send_challenge_ack(sk: TcpSock) -> None:
    """Ask the peer to prove itself with an ACK, at a limited rate (tcp_send_challenge_ack)."""
    mib = sk.prot.mib_ext
    if tcp_oow_is_limited(sk):
        mib.TCPACKSkippedChallenge += 1
        return
    if _take_challenge(sk.prot):
        mib.TCPChallengeACK += 1
        tcp_send_ack(sk)


def _take_challenge(prot: TcpProt) -> bool:
    """Take one of this second's challenge ACKs; how many there are is a secret (CVE-2016-5696)."""
    limit = prot.config.tcp_challenge_ack_limit
    if limit == NO_CHALLENGE_LIMIT:
        return True
    second = prot.clock.now_us // 1_000_000
    if second != prot.challenge_second:
        prot.challenge_second = second
        half = (limit + 1) >> 1
        prot.challenge_count = half + prot.rng.randrange(max(limit, 1))
    if not prot.challenge_count:
        return False
    prot.challenge_count -= 1
    return True
