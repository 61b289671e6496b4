"""Without SACK: duplicate ACKs stand for segments that have arrived (RFC 5681, RFC 6582).

``sacked_out`` counts them; which segments they are nobody knows, so there is always at least
one hole. Reference: tcp_add_reno_sack, tcp_remove_reno_sacks, tcp_newreno_mark_lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.lib.seqnum import SEQ_MASK
from ustack.tcp.cong.ops import TCP_CA_RECOVERY
from ustack.tcp.sack import tcp_count_delivered
from ustack.tcp.scoreboard import (
    TCPCB_LOST,
    tcp_fragment,
    tcp_mark_skb_lost,
    tcp_recovery,
    tcp_reordering,
    tcp_rtx_queue,
)

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock


def tcp_limit_reno_sacked(sk: TcpSock) -> bool:
    """Leave room for a hole; whether more duplicates came than that (tcp_limit_reno_sacked)."""
    tp = sk.tp
    holes = min(max(tp.lost_out, 1), tp.packets_out)
    if tp.sacked_out + holes <= tp.packets_out:
        return False
    tp.sacked_out = tp.packets_out - holes
    return True


def tcp_check_reno_reordering(sk: TcpSock, addend: int) -> None:
    """More duplicates than segments: the network reorders (tcp_check_reno_reordering)."""
    if not tcp_limit_reno_sacked(sk):
        return
    state = tcp_recovery(sk)
    limit = sk.prot.config.tcp_max_reordering
    state.reordering = min(sk.tp.packets_out + addend, limit)
    state.reord_seen += 1
    sk.prot.mib_ext.TCPRenoReorder += 1


def tcp_add_reno_sack(sk: TcpSock, num_dupack: int) -> None:
    """Take ``num_dupack`` duplicate ACKs for as many arrived segments."""
    if not num_dupack:
        return
    tp = sk.tp
    prior = tp.sacked_out
    tp.sacked_out = prior + num_dupack
    tcp_check_reno_reordering(sk, 0)
    if tp.sacked_out > prior:
        tcp_count_delivered(sk, tp.sacked_out - prior)


def tcp_remove_reno_sacks(sk: TcpSock, acked: int) -> None:
    """A cumulative ACK of ``acked`` segments: one was the hole, the others were counted."""
    tp = sk.tp
    if acked > 0:
        tcp_count_delivered(sk, max(acked - tp.sacked_out, 1))
        tp.sacked_out = max(tp.sacked_out - (acked - 1), 0)
    tcp_check_reno_reordering(sk, acked)


def tcp_reset_reno_sack(sk: TcpSock) -> None:
    """Forget the duplicates (tcp_reset_reno_sack)."""
    sk.tp.sacked_out = 0


def tcp_newreno_mark_lost(sk: TcpSock, *, snd_una_advanced: bool) -> None:
    """Mark the head lost: at the third duplicate, and at each partial ACK (RFC 6582 §3.2)."""
    tp = sk.tp
    in_recovery = tp.ca_state == TCP_CA_RECOVERY
    begins = tp.ca_state < TCP_CA_RECOVERY and tp.sacked_out >= tcp_reordering(sk)
    if not begins and not (in_recovery and snd_una_advanced):
        return
    head = tcp_rtx_queue(sk)[0]
    if head.sacked & TCPCB_LOST:
        return
    if head.pcount > 1 and head.end_seq - head.seq & SEQ_MASK > head.mss:
        tcp_fragment(sk, 0, head.mss, head.mss)
    tcp_mark_skb_lost(sk, head)
