"""Delayed acknowledgments (RFC 9293 §3.8.6.3, RFC 5681 §4.2; tcp_send_delayed_ack).

``ack_ato_us`` is the time an ACK may be owed, estimated from the gaps between segments; a
connection that answers what it receives (ping-pong) lets the answer carry the ACK.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.core.timer import Timer
from ustack.lib.seqnum import SEQ_MASK
from ustack.native.lib import lib
from ustack.tcp.states import TCP_CLOSE, TCP_LISTEN
from ustack.tcp.timer import (
    ICSK_ACK_NOW,
    ICSK_ACK_PUSHED,
    ICSK_ACK_SCHED,
    ICSK_ACK_TIMER,
    TCP_ATO_MIN_US,
    TCP_DELACK_MAX_US,
    TCP_DELACK_MIN_US,
)
from ustack.tcp.transmit import tcp_send_ack
from ustack.tcp.window import tcp_new_window

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock

TCP_FASTRETRANS_THRESH = 3
"""RFC 5681 §3.2."""


def inet_csk_in_pingpong_mode(sk: TcpSock) -> bool:
    """Whether the application answers what it receives: its data will carry the ACKs."""
    return bool(sk.tp.ack_pingpong >= sk.prot.config.tcp_pingpong_thresh)


def inet_csk_enter_pingpong_mode(sk: TcpSock) -> None:
    """Take the connection for an interactive one from now on."""
    sk.tp.ack_pingpong = sk.prot.config.tcp_pingpong_thresh


def tcp_ack_snd_check(sk: TcpSock) -> None:
    """Send the ACK that is owed: now, later, or with others in one (__tcp_ack_snd_check).

    At once: more than one full segment has come and the window may move on or the reader waits
    for more (SO_RCVLOWAT), in quick-ACK mode, or when something demands it (RFC 5681 §4.2).
    """
    tp = sk.tp
    pending = tp.ack_pending
    if not pending & ICSK_ACK_SCHED:
        return
    unacked = tp.rcv_nxt - tp.rcv_wup & SEQ_MASK
    if (
        (
            unacked > tp.ack_rcv_mss
            and (tp.receive_queue.len < sk.rcvlowat or tcp_new_window(sk) >= tp.rcv_wnd)
        )
        or (tp.ack_quick and not inet_csk_in_pingpong_mode(sk))
        or pending & ICSK_ACK_NOW
    ):
        tcp_send_ack(sk)
    elif sk.ofo is None:
        tcp_send_delayed_ack(sk)
    elif not _compress(sk):
        tcp_send_ack(sk)


def _compress(sk: TcpSock) -> bool:
    """Hold a duplicate ACK back for a moment: the next says as much (tcp_comp_sack_nr).

    The first three go out, for fast retransmit counts them.
    """
    tp = sk.tp
    ofo = sk.ofo
    config = sk.prot.config
    assert ofo is not None
    if not tp.sack_ok or ofo.compressed_ack >= config.tcp_comp_sack_nr:
        return False
    if ofo.dup_ack_rcv_nxt != tp.rcv_nxt:
        ofo.dup_ack_rcv_nxt, ofo.dup_ack_counter = tp.rcv_nxt, 0
    if ofo.dup_ack_counter < TCP_FASTRETRANS_THRESH:
        ofo.dup_ack_counter += 1
        return False
    ofo.compressed_ack += 1
    timer = ofo.compressed_ack_timer
    if timer is None:
        timer = ofo.compressed_ack_timer = Timer(tcp_compressed_ack_kick, sk)
    if not timer.pending:
        rtt = tp.rcv_rtt_us
        if tp.srtt_us and tp.srtt_us < rtt:
            rtt = tp.srtt_us
        delay_us = min(config.tcp_comp_sack_delay_ns // 1000, (rtt >> 3) // 20)
        sk.prot.timers.mod_timer(timer, sk.prot.clock.now_us + delay_us)
    return True


def tcp_compressed_ack_kick(sk: TcpSock) -> None:
    """The moment is over: one ACK stands for all that were held back."""
    if sk.tp is not None:
        tcp_sack_compress_send_ack(sk)


def tcp_sack_compress_send_ack(sk: TcpSock) -> None:
    """Send the ACK that was held back, if any (tcp_sack_compress_send_ack)."""
    ofo = sk.ofo
    if ofo is not None and ofo.compressed_ack:
        ofo.compressed_ack -= 1  # this one goes out
        tcp_send_ack(sk)


def tcp_send_delayed_ack(sk: TcpSock) -> None:
    """Owe an ACK for a while (tcp_send_delayed_ack; RFC 9293 §3.8.6.3: less than 500 ms)."""
    tp = sk.tp
    ato = tp.ack_ato_us
    if ato > TCP_DELACK_MIN_US:
        max_ato = 500_000
        if inet_csk_in_pingpong_mode(sk) or tp.ack_pending & ICSK_ACK_PUSHED:
            max_ato = TCP_DELACK_MAX_US
        if tp.srtt_us:
            max_ato = min(max_ato, max(tp.srtt_us >> 3, TCP_DELACK_MIN_US))
        ato = min(ato, max_ato)
    ato = min(ato, TCP_DELACK_MAX_US)
    now_us = sk.prot.clock.now_us
    timeout = now_us + ato
    owed_until_us = tp.icsk_ack_timeout_us
    if tp.ack_pending & ICSK_ACK_TIMER and owed_until_us:
        if owed_until_us <= now_us + (ato >> 2):
            tcp_send_ack(sk)
            return
        timeout = min(timeout, owed_until_us)
    tp.ack_pending |= ICSK_ACK_SCHED | ICSK_ACK_TIMER
    lib.us_tcp_reset_delack(sk.prot.fast.ptr, tp, timeout)


def tcp_arm_delack(sk: TcpSock, delay_us: int) -> None:
    """Set the delayed ACK's timer."""
    prot = sk.prot
    lib.us_tcp_reset_delack(prot.fast.ptr, sk.tp, prot.clock.now_us + delay_us)


def tcp_delack_timer(sk: TcpSock) -> None:
    """The ACK has been owed long enough (tcp_delack_timer_handler)."""
    tp = sk.tp
    if sk.ofo is not None and sk.ofo.compressed_ack:
        tcp_sack_compress_send_ack(sk)
        return
    if tp.state in (TCP_CLOSE, TCP_LISTEN) or not tp.ack_pending & ICSK_ACK_TIMER:
        return
    tp.ack_pending &= ~ICSK_ACK_TIMER
    if tp.ack_pending & ICSK_ACK_SCHED:
        if inet_csk_in_pingpong_mode(sk):
            tp.ack_pingpong = 0
            tp.ack_ato_us = TCP_ATO_MIN_US
        else:
            tp.ack_ato_us = min(tp.ack_ato_us << 1, tp.rto_us)
        tcp_send_ack(sk)
        sk.prot.mib_ext.DelayedACKs += 1
