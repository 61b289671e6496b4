"""Recoveries that a timer begins, because no ACK comes that would.

``tcp_write_timer`` calls them when RACK's reordering window, or linux-3.10's delay of an early
retransmit, is over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.tcp.cong.ops import TCP_CA_RECOVERY
from ustack.tcp.mark_lost import tcp_update_scoreboard
from ustack.tcp.prr import tcp_cwnd_reduction
from ustack.tcp.rack import tcp_rack_detect_loss
from ustack.tcp.recovery import tcp_enter_recovery
from ustack.tcp.retransmit import tcp_xmit_retransmit_queue
from ustack.tcp.scoreboard import tcp_rtx_queue
from ustack.tcp.send_window import tcp_packets_in_flight
from ustack.tcp.sock import ICSK_TIME_RETRANS
from ustack.tcp.timer import tcp_rearm_rto

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock


def tcp_rack_reo_timeout(sk: TcpSock) -> None:
    """The reordering window is over: repeat what has still not come (tcp_rack_reo_timeout)."""
    tp = sk.tp
    prior_in_flight = tcp_packets_in_flight(tp)
    prior_lost = tp.lost
    tcp_rtx_queue(sk)
    tcp_rack_detect_loss(sk)
    if tcp_packets_in_flight(tp) != prior_in_flight:
        if tp.ca_state != TCP_CA_RECOVERY:
            tcp_enter_recovery(sk, ece_ack=False)
            tcp_cwnd_reduction(sk, 1, tp.lost - prior_lost, 0)
        tcp_xmit_retransmit_queue(sk)
    if sk.tp.icsk_pending != ICSK_TIME_RETRANS:
        tcp_rearm_rto(sk)


def tcp_resume_early_retransmit(sk: TcpSock) -> None:
    """linux-3.10: the delay of an early retransmit is over (tcp_resume_early_retransmit)."""
    tcp_rearm_rto(sk)
    if not sk.tp.packets_out:
        return
    tcp_enter_recovery(sk, ece_ack=False)
    tcp_update_scoreboard(sk, fast_rexmit=True)
    tcp_xmit_retransmit_queue(sk)
