"""Taking a reduction of cwnd back when nothing was lost (tcp_try_undo_*).

Two proofs: the peer echoes a timestamp older than the first repetition (Eifel, RFC 3522,
RFC 4015), or D-SACKs name every repetition as superfluous (RFC 3708).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.lib.seqnum import SEQ_MASK, before
from ustack.tcp.ack_state import AckState
from ustack.tcp.cong.ops import TCP_CA_DISORDER, TCP_CA_LOSS, TCP_CA_OPEN, tcp_set_ca_state
from ustack.tcp.ecn import tcp_ecn_withdraw_cwr
from ustack.tcp.rack import TCP_RACK_RECOVERY_THRESH
from ustack.tcp.sack import tcp_check_sack_reordering
from ustack.tcp.scoreboard import TCPCB_LOST, tcp_any_retrans_done, tcp_recovery

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock


def tcp_init_undo(sk: TcpSock) -> None:
    """Remember where a reduction began and what is repeated already (tcp_init_undo)."""
    tp = sk.tp
    state = tcp_recovery(sk)
    state.undo_marker = tp.snd_una
    state.undo_retrans = tp.retrans_out
    if state.tlp_high_seq is not None and state.tlp_retrans:
        state.undo_retrans += 1
    state.undo_retrans = state.undo_retrans or -1


def tcp_packet_delayed(sk: TcpSock, ack: AckState) -> bool:
    """Whether what this ACK acknowledges left before the first repetition (Eifel)."""
    tp = sk.tp
    stamp_us = tp.retrans_stamp_us
    if stamp_us:
        if not tp.tstamp_ok or not ack.tsecr:
            return False
        return before(ack.tsecr, stamp_us // 1000 + tp.tsoffset & SEQ_MASK)
    return bool(tp.sack_ok or before(tp.snd_una, tp.high_seq))  # nothing was repeated at all


def tcp_may_undo(sk: TcpSock, ack: AckState) -> bool:
    """Whether the last reduction has turned out to be a mistake (tcp_may_undo)."""
    state = tcp_recovery(sk)
    if state.undo_marker is None:
        return False
    return not state.undo_retrans or tcp_packet_delayed(sk, ack)


def tcp_undo_cwnd_reduction(sk: TcpSock, *, unmark_loss: bool) -> None:
    """Restore cwnd and ssthresh; with ``unmark_loss`` nothing counts as lost any more."""
    tp = sk.tp
    state = tcp_recovery(sk)
    if unmark_loss:
        for rec in sk.rtx or ():
            rec.sacked &= ~TCPCB_LOST
        tp.lost_out = 0
        state.hint_seq = None
    if tp.prior_ssthresh:
        tp.snd_cwnd = sk.ca.undo_cwnd(sk)
        if tp.prior_ssthresh > tp.snd_ssthresh:
            tp.snd_ssthresh = tp.prior_ssthresh
            tcp_ecn_withdraw_cwr(sk)
    tp.snd_cwnd_stamp_us = sk.prot.clock.now_us
    state.undo_marker = None
    state.rack_advanced = True  # RACK looks again at what it had marked


def _holds_reno_open(sk: TcpSock) -> bool:
    """Whether to stay until something above high_seq is acknowledged.

    Without SACK the duplicate ACKs that follow a recovery would start another one
    (RFC 6582 §4.1; tcp_is_non_sack_preventing_reopen).
    """
    tp = sk.tp
    if tp.sack_ok or tp.snd_una != tp.high_seq:
        return False
    if not tcp_any_retrans_done(sk):
        tp.retrans_stamp_us = 0
    return True


def tcp_try_undo_recovery(sk: TcpSock, ack: AckState) -> bool:
    """At the end of a recovery: undo it if it was needless; whether to stay in it for now."""
    tp = sk.tp
    state = tcp_recovery(sk)
    if tcp_may_undo(sk, ack):
        tcp_undo_cwnd_reduction(sk, unmark_loss=False)
        if tp.ca_state == TCP_CA_LOSS:
            sk.prot.mib_ext.TCPLossUndo += 1
        else:
            sk.prot.mib_ext.TCPFullUndo += 1
    elif state.rack_reo_wnd_persist:
        state.rack_reo_wnd_persist -= 1
    if _holds_reno_open(sk):
        return True
    tcp_set_ca_state(sk, TCP_CA_OPEN)
    return False


def tcp_try_undo_dsack(sk: TcpSock) -> bool:
    """Undo once D-SACKs have named every repetition (tcp_try_undo_dsack)."""
    state = tcp_recovery(sk)
    if state.undo_marker is None or state.undo_retrans:
        return False
    state.rack_reo_wnd_persist = min(TCP_RACK_RECOVERY_THRESH, state.rack_reo_wnd_persist + 1)
    tcp_undo_cwnd_reduction(sk, unmark_loss=False)
    sk.prot.mib_ext.TCPDSACKUndo += 1
    return True


def tcp_try_undo_loss(sk: TcpSock, ack: AckState, *, frto_undo: bool) -> bool:
    """Undo a timeout that F-RTO or Eifel shows to have been spurious (tcp_try_undo_loss)."""
    tp = sk.tp
    if not frto_undo and not tcp_may_undo(sk, ack):
        return False
    tcp_undo_cwnd_reduction(sk, unmark_loss=True)
    sk.prot.mib_ext.TCPLossUndo += 1
    if frto_undo:
        sk.prot.mib_ext.TCPSpuriousRTOs += 1
    tp.retransmits = 0
    if _holds_reno_open(sk):
        return True
    if frto_undo or tp.sack_ok:
        tcp_set_ca_state(sk, TCP_CA_OPEN)
    return True


def tcp_try_undo_partial(sk: TcpSock, ack: AckState) -> bool:
    """On a partial ACK: undo if the hole was filled by the delayed original.

    Returns:
        Whether to wait with repeating and marking: repetitions are still out.
    """
    tp = sk.tp
    state = tcp_recovery(sk)
    if state.undo_marker is None or not tcp_packet_delayed(sk, ack):
        return False
    tcp_check_sack_reordering(sk, ack.prior_una, by_timestamp=True)
    if tp.retrans_out:
        return True
    if not tcp_any_retrans_done(sk):
        tp.retrans_stamp_us = 0
    tcp_undo_cwnd_reduction(sk, unmark_loss=True)
    sk.prot.mib_ext.TCPPartialUndo += 1
    tcp_try_keep_open(sk)
    return False


def tcp_try_keep_open(sk: TcpSock) -> None:
    """Be Open, or Disorder while something is still out of order (tcp_try_keep_open)."""
    tp = sk.tp
    state = TCP_CA_OPEN
    if tp.sacked_out or tp.lost_out or tcp_any_retrans_done(sk):
        state = TCP_CA_DISORDER
    if tp.ca_state != state:
        tcp_set_ca_state(sk, state)
        tp.high_seq = tp.snd_nxt
