"""What of a flight is lost by now, and whether that is enough to begin a recovery.

With SACK RACK says it (rack.py), without SACK the duplicate ACKs (reno_sack.py), and with
tcp_recovery's bit 0 off RFC 6675's count. Called by ``tcp_fastretrans_alert``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.lib.seqnum import after, seq_add
from ustack.tcp.ack_state import (
    FLAG_LOST_RETRANS,
    FLAG_SACK_RENEGING,
    FLAG_SET_XMIT_TIMER,
    FLAG_SND_UNA_ADVANCED,
    AckState,
)
from ustack.tcp.rack import tcp_is_rack, tcp_rack_mark_lost
from ustack.tcp.reno_sack import tcp_newreno_mark_lost
from ustack.tcp.scoreboard import (
    TCPCB_SACKED_ACKED,
    TCPCB_SACKED_RETRANS,
    tcp_highest_sack_seq,
    tcp_mark_skb_lost,
    tcp_reordering,
    tcp_rtx_queue,
)
from ustack.tcp.timer import tcp_arm_retransmit

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock

RENEGING_MIN_US = 10_000


def tcp_force_fast_retransmit(sk: TcpSock) -> bool:
    """Whether more has arrived beyond the hole than reordering explains."""
    tp = sk.tp
    return after(tcp_highest_sack_seq(sk), seq_add(tp.snd_una, tcp_reordering(sk) * tp.mss_cache))


def tcp_check_sack_reneging(sk: TcpSock, ack: AckState) -> bool:
    """The peer has dropped what it had selectively acknowledged (RFC 2018 §8).

    A short timer gives it a chance to acknowledge it after all; then a timeout repeats all.
    """
    if not ack.flag & FLAG_SACK_RENEGING or not ack.flag & FLAG_SND_UNA_ADVANCED:
        return False
    tcp_arm_retransmit(sk, max(sk.tp.srtt_us >> 4, RENEGING_MIN_US))
    ack.flag &= ~FLAG_SET_XMIT_TIMER
    return True


def tcp_identify_packet_loss(sk: TcpSock, ack: AckState) -> None:
    """Mark what is lost by now (tcp_identify_packet_loss)."""
    tp = sk.tp
    if not tp.packets_out:
        return
    if not tp.sack_ok:
        tcp_newreno_mark_lost(sk, snd_una_advanced=bool(ack.flag & FLAG_SND_UNA_ADVANCED))
    elif tcp_is_rack(sk):
        prior = tp.retrans_out
        if tcp_rack_mark_lost(sk):
            ack.flag &= ~FLAG_SET_XMIT_TIMER
        if tp.retrans_out < prior:
            ack.flag |= FLAG_LOST_RETRANS


def tcp_time_to_recover(sk: TcpSock) -> bool:
    """Whether something is lost (tcp_time_to_recover); RFC 6675 counts what was SACKed."""
    tp = sk.tp
    if tp.lost_out:
        return True
    return bool(not tcp_is_rack(sk) and tp.sack_ok and tp.sacked_out >= tcp_reordering(sk))


def tcp_update_scoreboard(sk: TcpSock, *, fast_rexmit: bool) -> None:
    """RFC 6675 §4 IsLost: lost is what has enough SACKed segments above it.

    Used where RACK is off (tcp_recovery's bit 0, Linux 3.10). Entering recovery marks the
    first segment in any case.
    """
    tp = sk.tp
    if not tp.sack_ok or not tp.packets_out:
        return
    recs = tcp_rtx_queue(sk)
    above = tp.sacked_out
    threshold = tcp_reordering(sk)
    for rec in recs:
        if rec.sacked & TCPCB_SACKED_ACKED:
            above -= rec.pcount
            continue
        if above < threshold:
            break
        tcp_mark_unless_repeated(sk, rec)
    if fast_rexmit and not tp.lost_out:
        tcp_mark_unless_repeated(sk, recs[0])


def tcp_mark_unless_repeated(sk: TcpSock, rec: object) -> None:
    """Mark a record lost; a repetition in flight is left alone: only RACK can time it."""
    if not rec.sacked & TCPCB_SACKED_RETRANS:  # type: ignore[attr-defined]
        tcp_mark_skb_lost(sk, rec)  # type: ignore[arg-type]
