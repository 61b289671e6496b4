"""Explicit congestion notification (RFC 3168; tcp_ecn_* of net/ipv4/tcp_input.c, tcp_output.c).

Both SYNs agree on it (net.ipv4.tcp_ecn: 0 never, 1 asked for and accepted, 2 accepted). Then
new data leaves with ECT(0); a CE mark that comes in is echoed by ECE in every ACK until CWR;
an ECE that comes in reduces cwnd once a round trip, and the next new data says CWR.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.tcp.cong.ops import (
    CA_EVENT_ECN_IS_CE,
    CA_EVENT_ECN_NO_CE,
    TCP_CONG_NEEDS_ECN,
    tcp_ca_event,
)
from ustack.tcp.timer import ICSK_ACK_NOW
from ustack.wire.tcp import CWR, ECE, SYN

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock
    from ustack.wire.tcp import Segment

TCP_ECN_OK = 1
"""Both ends have agreed."""
TCP_ECN_QUEUE_CWR = 2
"""The next new data carries CWR."""
TCP_ECN_DEMAND_CWR = 4
"""CE has come: ECE goes out until the peer says CWR."""
TCP_ECN_SEEN = 8
"""The peer marks its data ECT."""

INET_ECN_NOT_ECT = 0
INET_ECN_ECT_0 = 2
INET_ECN_CE = 3
INET_ECN_MASK = 3


def tcp_ca_needs_ecn(sk: TcpSock) -> bool:
    """Whether the congestion control wants ECN whatever the sysctl says."""
    return bool(sk.ca.flags & TCP_CONG_NEEDS_ECN)


def ip_dsfield(seg: Segment) -> int:
    """Return the type-of-service byte that brought ``seg``, 0 for one that is made up."""
    skb = seg.skb
    return 0 if skb is None else int(skb.data[skb.network_offset + 1])


# Agreement.


def tcp_ecn_send_syn(sk: TcpSock) -> int:
    """Return the flags by which our SYN asks for ECN (RFC 3168 §6.1.1).

    A repeated SYN does not ask: something on the way may not let it through
    (net.ipv4.tcp_ecn_fallback).
    """
    tp = sk.tp
    config = sk.prot.config
    if config.tcp_ecn != 1 and not tcp_ca_needs_ecn(sk):
        return 0
    if tp.retransmits and config.tcp_ecn_fallback:
        return 0
    tp.ecn_flags = TCP_ECN_OK
    return ECE | CWR


def tcp_ecn_rcv_synack(sk: TcpSock, seg: Segment) -> None:
    """The SYN-ACK agrees by ECE without CWR."""
    if seg.flags & (ECE | CWR) != ECE:
        sk.tp.ecn_flags &= ~TCP_ECN_OK & 0xFF


def tcp_ecn_rcv_syn(sk: TcpSock, seg: Segment) -> None:
    """Simultaneous open: the peer's SYN asks by ECE and CWR."""
    if seg.flags & (ECE | CWR) != ECE | CWR:
        sk.tp.ecn_flags &= ~TCP_ECN_OK & 0xFF


def tcp_ecn_create_request(lsk: TcpSock, seg: Segment) -> bool:
    """Whether a SYN asks for ECN and we agree; one that is itself ECT does not count."""
    if seg.flags & (ECE | CWR) != ECE | CWR:
        return False
    if tcp_ca_needs_ecn(lsk):
        return True
    return bool(lsk.prot.config.tcp_ecn and not ip_dsfield(seg) & INET_ECN_MASK)


# Sending.


def tcp_ecn_send(sk: TcpSock, seq: int, length: int, flags: int) -> tuple[int, int]:
    """Return the flags to add to a segment, and the ECN bits of its IP header.

    New data is ECT(0) and carries CWR once; acknowledgments and repetitions are not ECT
    (RFC 3168 §6.1.4, §6.1.5).
    """
    tp = sk.tp
    if flags & SYN:
        return 0, INET_ECN_ECT_0 if tcp_ca_needs_ecn(sk) else INET_ECN_NOT_ECT
    extra = ECE if tp.ecn_flags & TCP_ECN_DEMAND_CWR else 0
    if not length or seq != tp.snd_nxt:
        return extra, INET_ECN_ECT_0 if tcp_ca_needs_ecn(sk) else INET_ECN_NOT_ECT
    if tp.ecn_flags & TCP_ECN_QUEUE_CWR:
        tp.ecn_flags &= ~TCP_ECN_QUEUE_CWR & 0xFF
        extra |= CWR
    return extra, INET_ECN_ECT_0


def tcp_ecn_rcv_ecn_echo(sk: TcpSock, seg: Segment) -> bool:
    """Whether an ACK says that a segment of ours was marked (RFC 3168 §6.1.2)."""
    return bool(seg.flags & (ECE | SYN) == ECE and sk.tp.ecn_flags & TCP_ECN_OK)


def tcp_ecn_queue_cwr(sk: TcpSock) -> None:
    """cwnd has been reduced: the next new data says so."""
    if sk.tp.ecn_flags & TCP_ECN_OK:
        sk.tp.ecn_flags |= TCP_ECN_QUEUE_CWR


def tcp_ecn_withdraw_cwr(sk: TcpSock) -> None:
    """The reduction has been undone: nothing is said of it."""
    sk.tp.ecn_flags &= ~TCP_ECN_QUEUE_CWR & 0xFF


# Receiving.


def tcp_ecn_accept_cwr(sk: TcpSock) -> None:
    """The peer's text says CWR: no more ECE, and an ACK at once, its window is small."""
    sk.tp.ecn_flags &= ~TCP_ECN_DEMAND_CWR & 0xFF
    sk.tp.ack_pending |= ICSK_ACK_NOW


def tcp_ecn_check_ce(sk: TcpSock, seg: Segment) -> bool:
    """Look at the mark of data that has come (__tcp_ecn_check_ce).

    Returns:
        Whether the next ACKs should not be delayed: the first CE, or data without ECT after
        data with it, which is probably a repetition.
    """
    tp = sk.tp
    mark = ip_dsfield(seg) & INET_ECN_MASK
    if mark == INET_ECN_NOT_ECT:
        return bool(tp.ecn_flags & TCP_ECN_SEEN)
    if tcp_ca_needs_ecn(sk):
        tcp_ca_event(sk, CA_EVENT_ECN_IS_CE if mark == INET_ECN_CE else CA_EVENT_ECN_NO_CE)
    first = mark == INET_ECN_CE and not tp.ecn_flags & TCP_ECN_DEMAND_CWR
    if mark == INET_ECN_CE:
        tp.ecn_flags |= TCP_ECN_DEMAND_CWR
    tp.ecn_flags |= TCP_ECN_SEEN
    return first
