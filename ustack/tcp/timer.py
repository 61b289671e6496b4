"""TCP's timers: retransmission, window probe, delayed ACK, keepalive (tcp_timer.c).

Retransmission and window probe share one time in the control block, and ``icsk_pending``
says which it is; the delayed ACK has another. Both stand in C's timer wheel (``tcp_timer.c``).
Keepalive is a ``core.timer.Timer`` made on first use. Here they are set and stopped;
``timeout.py`` and ``delack.py`` say what happens when they expire.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.core.timer import Timer
from ustack.lib.seqnum import SEQ_MASK
from ustack.native.lib import lib
from ustack.tcp.cong.ops import TCP_CA_CWR, TCP_CA_OPEN
from ustack.tcp.fastopen import tcp_fastopen_request
from ustack.tcp.pacing import tcp_pacing_delay_us, tcp_pacing_stop
from ustack.tcp.rtt import TCP_RTO_MIN_US, TCP_TIMEOUT_INIT_US
from ustack.tcp.sock import (
    ICSK_TIME_LOSS_PROBE,
    ICSK_TIME_NONE,
    ICSK_TIME_PROBE0,
    ICSK_TIME_REO_TIMEOUT,
    ICSK_TIME_RETRANS,
)

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock

TCP_TIMEOUT_MIN_US = 2000
"""Slack of the timers of loss detection (two ticks at HZ=1000)."""
TCP_DELACK_MIN_US = 40_000
TCP_DELACK_MAX_US = 200_000
TCP_ATO_MIN_US = 40_000

ICSK_ACK_SCHED = 1
ICSK_ACK_TIMER = 2
ICSK_ACK_PUSHED = 4
ICSK_ACK_PUSHED2 = 8
ICSK_ACK_NOW = 16
ICSK_ACK_NOMEM = 32


def tcp_arm_retransmit(
    sk: TcpSock, delay_us: int, what: int = ICSK_TIME_RETRANS, *, pace_delay: bool = False
) -> None:
    """Set the retransmission or probe timer (tcp_reset_xmit_timer).

    Args:
        pace_delay: a paced socket counts from when it may send again.
    """
    prot = sk.prot
    if pace_delay and sk.pacing is not None:
        delay_us += tcp_pacing_delay_us(sk, sk.pacing)
    expires_us = prot.clock.now_us + max(min(delay_us, sk.tp.icsk_rto_max_us), 1)
    lib.us_tcp_reset_xmit_timer(prot.fast.ptr, sk.tp, what, expires_us)


def tcp_clear_retransmit(sk: TcpSock) -> None:
    """Stop the retransmission or probe timer."""
    lib.us_tcp_clear_xmit_timer(sk.tp)


def tcp_clear_xmit_timers(sk: TcpSock) -> None:
    """Stop every timer of a connection that is over (tcp_clear_xmit_timers)."""
    lib.us_tcp_forget_timers(sk.prot.fast.ptr, sk.tp)
    timer = sk.keepalive_timer
    if timer is not None:
        sk.prot.timers.del_timer(timer)
        timer.arg = None  # its entry may stay in the heap for hours: not so the socket
        sk.keepalive_timer = None
    if sk.pacing is not None:
        tcp_pacing_stop(sk)


def tcp_rearm_rto(sk: TcpSock) -> None:
    """Stop the timer if all is acknowledged, else start it anew (RFC 6298 §5.3; tcp_rearm_rto).

    Where a probe timer stood, the timeout still counts from when the head was sent.
    """
    tp = sk.tp
    if tcp_fastopen_request(sk) is not None:
        return  # the timer is the SYN-ACK's
    if not tp.packets_out:
        tcp_clear_retransmit(sk)
        return
    rto_us = tp.rto_us
    if sk.tp.icsk_pending in (ICSK_TIME_LOSS_PROBE, ICSK_TIME_REO_TIMEOUT):
        rto_us = max(tcp_rto_delta_us(sk), 1)
    tcp_arm_retransmit(sk, rto_us, pace_delay=True)


def tcp_rto_delta_us(sk: TcpSock) -> int:
    """Return how far away the timeout of the oldest segment in flight is (tcp_rto_delta_us)."""
    return tcp_head_sent_us(sk) + int(sk.tp.rto_us) - sk.prot.clock.now_us


def tcp_head_sent_us(sk: TcpSock) -> int:
    """Return when the oldest segment in flight was last sent."""
    return int(sk.rtx[0].sent_us if sk.rtx else sk.tp.txlog.first_us)


def tcp_schedule_loss_probe(sk: TcpSock, *, advancing_rto: bool) -> bool:
    """Set the tail loss probe's timer instead of the timeout's, if a probe may be sent.

    Two round trips, and the peer's delayed ACK on top if only one segment is out (RFC 8985
    §7.2; tcp_schedule_loss_probe); never later than the timeout.

    Args:
        advancing_rto: the timeout starts anew with this ACK.
    """
    tp = sk.tp
    if not tp.sack_ok or not tp.packets_out or tp.ca_state not in (TCP_CA_OPEN, TCP_CA_CWR):
        return False
    if sk.prot.config.tcp_early_retrans not in (3, 4) or tcp_fastopen_request(sk) is not None:
        return False
    srtt = tp.srtt_us
    if srtt:
        timeout_us = srtt >> 2
        timeout_us += tp.icsk_rto_min_us if tp.packets_out == 1 else TCP_TIMEOUT_MIN_US
    else:
        timeout_us = TCP_TIMEOUT_INIT_US
    rto_us = tp.rto_us if advancing_rto else tcp_rto_delta_us(sk)
    if rto_us > 0:
        timeout_us = min(timeout_us, rto_us)
    tcp_arm_retransmit(sk, timeout_us, ICSK_TIME_LOSS_PROBE, pace_delay=True)
    return True


def tcp_check_probe_timer(sk: TcpSock) -> None:
    """See to it that a closed window is probed when nothing else would wake us."""
    if sk.tp.icsk_pending == ICSK_TIME_NONE and sk.tp.snd_nxt == sk.tp.snd_una:
        delay_us = max(sk.tp.rto_us, TCP_RTO_MIN_US)
        tcp_arm_retransmit(sk, delay_us, ICSK_TIME_PROBE0, pace_delay=True)


def tcp_rearm_probe0(sk: TcpSock) -> None:
    """Probe the closed window again after the back-off, or when TCP_USER_TIMEOUT is over.

    tcp_probe0_when and tcp_clamp_probe0_to_user_timeout.
    """
    tp = sk.tp
    delay_us = min(max(tp.rto_us, TCP_RTO_MIN_US) << tp.backoff, tp.icsk_rto_max_us)
    if sk.user_timeout_us and tp.icsk_probes_tstamp_ms:
        left_us = sk.user_timeout_us - tcp_probed_for_us(sk)
        delay_us = min(delay_us, max(left_us, TCP_TIMEOUT_MIN_US))
    tcp_arm_retransmit(sk, delay_us, ICSK_TIME_PROBE0, pace_delay=True)


def tcp_probed_for_us(sk: TcpSock) -> int:
    """Return for how long the window has been probed (since icsk_probes_tstamp)."""
    return int((sk.prot.tcp_time_stamp() - sk.tp.icsk_probes_tstamp_ms & SEQ_MASK) * 1000)


def tcp_delete_keepalive(sk: TcpSock) -> None:
    """Stop the keepalive timer (inet_csk_delete_keepalive_timer)."""
    if sk.keepalive_timer is not None:
        sk.prot.timers.del_timer(sk.keepalive_timer)


def tcp_arm_keepalive(sk: TcpSock, delay_us: int) -> None:
    """Set the keepalive timer, which also limits FIN_WAIT2 (inet_csk_reset_keepalive_timer)."""
    if sk.keepalive_timer is None:
        sk.keepalive_timer = Timer(sk.prot.keepalive_timer, sk)
    sk.prot.timers.mod_timer(sk.keepalive_timer, sk.prot.clock.now_us + delay_us)
