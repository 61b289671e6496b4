"""Delayed acknowledgments (RFC 9293 §3.8.6.3, RFC 5681 §4.2; tcp_send_delayed_ack).

``ack_ato_us`` is the time an ACK may be owed, estimated from the gaps between segments; a
connection that answers what it receives (ping-pong) lets the answer carry the ACK.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.core.timer import Timer
from ustack.tcp.states import TCP_CLOSE, TCP_LISTEN
from ustack.tcp.timer import (
    ICSK_ACK_PUSHED,
    ICSK_ACK_SCHED,
    ICSK_ACK_TIMER,
    TCP_ATO_MIN_US,
    TCP_DELACK_MAX_US,
    TCP_DELACK_MIN_US,
)
from ustack.tcp.transmit import tcp_send_ack

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock


def tcp_send_delayed_ack(sk: TcpSock) -> None:
    """Owe an ACK for a while (tcp_send_delayed_ack; RFC 9293 §3.8.6.3: less than 500 ms)."""
    tp = sk.tp
    ato = tp.ack_ato_us
    if ato > TCP_DELACK_MIN_US:
        max_ato = 500_000
        if tp.ack_pingpong or tp.ack_pending & ICSK_ACK_PUSHED:
            max_ato = TCP_DELACK_MAX_US
        if tp.srtt_us:
            max_ato = min(max_ato, max(tp.srtt_us >> 3, TCP_DELACK_MIN_US))
        ato = min(ato, max_ato)
    ato = min(ato, TCP_DELACK_MAX_US)
    timer = sk.delack_timer
    if timer is None:
        timer = sk.delack_timer = Timer(tcp_delack_timer, sk)
    now_us = sk.prot.clock.now_us
    timeout = now_us + ato
    if tp.ack_pending & ICSK_ACK_TIMER and timer.pending:
        if timer.expires_us <= now_us + (ato >> 2):
            tcp_send_ack(sk)
            return
        timeout = min(timeout, timer.expires_us)
    tp.ack_pending |= ICSK_ACK_SCHED | ICSK_ACK_TIMER
    sk.prot.timers.mod_timer(timer, timeout)


def tcp_arm_delack(sk: TcpSock, delay_us: int) -> None:
    """Set the delayed ACK's timer."""
    if sk.delack_timer is None:
        sk.delack_timer = Timer(tcp_delack_timer, sk)
    sk.prot.timers.mod_timer(sk.delack_timer, sk.prot.clock.now_us + delay_us)


def tcp_delack_timer(sk: TcpSock) -> None:
    """The ACK has been owed long enough (tcp_delack_timer_handler)."""
    tp = sk.tp
    if tp.state in (TCP_CLOSE, TCP_LISTEN) or not tp.ack_pending & ICSK_ACK_TIMER:
        return
    tp.ack_pending &= ~ICSK_ACK_TIMER
    if tp.ack_pending & ICSK_ACK_SCHED:
        if tp.ack_pingpong:
            tp.ack_pingpong = 0
            tp.ack_ato_us = TCP_ATO_MIN_US
        else:
            tp.ack_ato_us = min(tp.ack_ato_us << 1, tp.rto_us)
        tcp_send_ack(sk)
        sk.prot.mib_ext.DelayedACKs += 1
