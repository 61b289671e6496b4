"""Loss recovery's state machine: Open, Disorder, CWR, Recovery, Loss (tcp_fastretrans_alert).

``tcp_ack`` calls it for every ACK that is not plainly in order. What is lost mark_lost.py says,
what a timeout does loss.py, what other timers do recovery_timer.py; whether cwnd had been
reduced for nothing undo.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.lib.seqnum import after, before
from ustack.tcp.ack_state import (
    FLAG_DATA_SACKED,
    FLAG_ECE,
    FLAG_LOST_RETRANS,
    FLAG_SND_UNA_ADVANCED,
    REXMIT_LOST,
    REXMIT_NEW,
    REXMIT_NONE,
    AckState,
)
from ustack.tcp.cong.ops import (
    TCP_CA_CWR,
    TCP_CA_DISORDER,
    TCP_CA_LOSS,
    TCP_CA_OPEN,
    TCP_CA_RECOVERY,
    tcp_current_ssthresh,
    tcp_set_ca_state,
)
from ustack.tcp.early_retrans import tcp_pause_early_retransmit, tcp_wants_early_retransmit
from ustack.tcp.frto import tcp_process_loss
from ustack.tcp.loss import tcp_simple_retransmit
from ustack.tcp.mark_lost import (
    tcp_check_sack_reneging,
    tcp_force_fast_retransmit,
    tcp_identify_packet_loss,
    tcp_time_to_recover,
    tcp_update_scoreboard,
)
from ustack.tcp.mtu_probe import tcp_mtup_probe_failed, tcp_mtup_probe_is_lost
from ustack.tcp.output import TCP_NAGLE_OFF, tcp_write_xmit
from ustack.tcp.prr import (
    tcp_end_cwnd_reduction,
    tcp_enter_cwr,
    tcp_in_cwnd_reduction,
    tcp_init_cwnd_reduction,
)
from ustack.tcp.rack import (
    tcp_is_rack,
)
from ustack.tcp.reno_sack import (
    tcp_add_reno_sack,
    tcp_reset_reno_sack,
)
from ustack.tcp.retransmit import tcp_xmit_retransmit_queue
from ustack.tcp.scoreboard import (
    tcp_any_retrans_done,
    tcp_recovery,
)
from ustack.tcp.states import TCP_SYN_SENT
from ustack.tcp.undo import (
    tcp_init_undo,
    tcp_try_keep_open,
    tcp_try_undo_dsack,
    tcp_try_undo_partial,
    tcp_try_undo_recovery,
)

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock


def tcp_fastretrans_alert(sk: TcpSock, ack: AckState, num_dupack: int) -> None:
    """Run the state machine on one dubious ACK (tcp_fastretrans_alert).

    Args:
        ack: what the ACK has told; ``rexmit`` says afterwards what to send.
        num_dupack: how many duplicate ACKs it stands for.
    """
    tp = sk.tp
    if not tp.packets_out and tp.sacked_out:
        tp.sacked_out = 0
    # A. ECE: the reduction is required, no undoing.
    if ack.flag & FLAG_ECE:
        tp.prior_ssthresh = 0
    # B. In all states check for reneging.
    if tcp_check_sack_reneging(sk, ack):
        return
    # C, D. The state ends when high_seq is acknowledged.
    if tp.ca_state == TCP_CA_OPEN:
        tp.retrans_stamp_us = 0
    elif not before(tp.snd_una, tp.high_seq) and _state_is_over(sk, ack):
        return
    # E. Process the state.
    do_lost = bool(num_dupack) or (
        bool(ack.flag & FLAG_DATA_SACKED) and tcp_force_fast_retransmit(sk)
    )
    if tp.ca_state == TCP_CA_RECOVERY:
        verdict = _in_recovery(sk, ack, num_dupack)
    elif tp.ca_state == TCP_CA_LOSS:
        verdict = _in_loss(sk, ack, num_dupack)
    else:
        verdict = _in_open(sk, ack, num_dupack)
    if verdict is None:
        return
    if not tcp_is_rack(sk) and (do_lost or verdict):
        tcp_update_scoreboard(sk, fast_rexmit=verdict)
    ack.rexmit = REXMIT_LOST


def _state_is_over(sk: TcpSock, ack: AckState) -> bool:
    """Leave CWR or Recovery; whether nothing more is to be done with this ACK."""
    tp = sk.tp
    if tp.ca_state == TCP_CA_CWR:
        if tp.snd_una != tp.high_seq:  # something above it, so that the peer has seen our CWR
            tcp_end_cwnd_reduction(sk)
            tcp_set_ca_state(sk, TCP_CA_OPEN)
    elif tp.ca_state == TCP_CA_RECOVERY:
        if not tp.sack_ok:
            tcp_reset_reno_sack(sk)
        if tcp_try_undo_recovery(sk, ack):
            return True
        tcp_end_cwnd_reduction(sk)
    return False


def _in_recovery(sk: TcpSock, ack: AckState, num_dupack: int) -> bool | None:
    """Recovery: None, send nothing; else whether a recovery has just begun."""
    tp = sk.tp
    if not ack.flag & FLAG_SND_UNA_ADVANCED:
        if not tp.sack_ok:
            tcp_add_reno_sack(sk, num_dupack)
    elif tcp_try_undo_partial(sk, ack):
        return None
    if tcp_try_undo_dsack(sk):
        tcp_try_to_open(sk, ack)
    tcp_identify_packet_loss(sk, ack)
    if tp.ca_state == TCP_CA_RECOVERY:
        return False
    if not tcp_time_to_recover(sk):
        return None
    tcp_enter_recovery(sk, ece_ack=bool(ack.flag & FLAG_ECE))
    return True


def _in_loss(sk: TcpSock, ack: AckState, num_dupack: int) -> bool | None:
    """Loss: as ``_in_recovery``; a repetition that is lost again goes on as in Open."""
    tp = sk.tp
    tcp_process_loss(sk, ack, num_dupack)
    tcp_identify_packet_loss(sk, ack)
    if tp.ca_state != TCP_CA_OPEN and not ack.flag & FLAG_LOST_RETRANS:
        return None
    return _in_open(sk, ack, num_dupack)


def _in_open(sk: TcpSock, ack: AckState, num_dupack: int) -> bool | None:
    """Open, Disorder and CWR: is it time to recover?"""
    tp = sk.tp
    if not tp.sack_ok:
        if ack.flag & FLAG_SND_UNA_ADVANCED:
            tcp_reset_reno_sack(sk)
        tcp_add_reno_sack(sk, num_dupack)
    if tp.ca_state <= TCP_CA_DISORDER:
        tcp_try_undo_dsack(sk)
    tcp_identify_packet_loss(sk, ack)
    if not tcp_time_to_recover(sk) and not _early_retransmit(sk, ack):
        tcp_try_to_open(sk, ack)
        return None
    if tcp_mtup_probe_is_lost(sk):
        tcp_mtup_probe_failed(sk)
        tcp_simple_retransmit(sk)
        return None
    tcp_enter_recovery(sk, ece_ack=bool(ack.flag & FLAG_ECE))
    return True


def _early_retransmit(sk: TcpSock, ack: AckState) -> bool:
    """linux-3.10: few in flight, so fewer duplicates are enough (RFC 5827)."""
    return tcp_wants_early_retransmit(sk) and not tcp_pause_early_retransmit(sk, ack)


def tcp_try_to_open(sk: TcpSock, ack: AckState) -> None:
    """Nothing to recover: Open or Disorder, or CWR if the network marks (tcp_try_to_open)."""
    tp = sk.tp
    if not tcp_any_retrans_done(sk):
        tp.retrans_stamp_us = 0
    if ack.flag & FLAG_ECE:
        tcp_enter_cwr(sk)
    if tp.ca_state != TCP_CA_CWR:
        tcp_try_keep_open(sk)


def tcp_enter_recovery(sk: TcpSock, *, ece_ack: bool) -> None:
    """Begin fast recovery (tcp_enter_recovery; RFC 6675 §5 step 4)."""
    tp = sk.tp
    if not tcp_any_retrans_done(sk):
        tp.retrans_stamp_us = 0
    if tp.sack_ok:
        sk.prot.mib_ext.TCPSackRecovery += 1
    else:
        sk.prot.mib_ext.TCPRenoRecovery += 1
    tp.prior_ssthresh = 0
    tcp_init_undo(sk)
    if not tcp_in_cwnd_reduction(sk):
        if not ece_ack:
            tp.prior_ssthresh = tcp_current_ssthresh(sk)
        tcp_init_cwnd_reduction(sk)
    tcp_set_ca_state(sk, TCP_CA_RECOVERY)


def tcp_xmit_recovery(sk: TcpSock, ack: AckState) -> None:
    """Send what the state machine wants, now that cwnd is known (tcp_xmit_recovery)."""
    tp = sk.tp
    if ack.rexmit == REXMIT_NONE or tp.state == TCP_SYN_SENT:
        return
    if ack.rexmit == REXMIT_NEW:
        tcp_write_xmit(sk, TCP_NAGLE_OFF)
        if after(tp.snd_nxt, tp.high_seq):
            return
        tcp_recovery(sk).frto = False
    tcp_xmit_retransmit_queue(sk)
