"""In the Loss state: was the timeout spurious? F-RTO (RFC 5682 §3.1, with SACK §3.2).

If data that was never repeated is acknowledged after the timeout, the original ACKs were
merely late. Without proof new data is sent first, whose (duplicate) ACKs tell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.lib.seqnum import after, before
from ustack.tcp.ack_state import (
    FLAG_DATA_SACKED,
    FLAG_ORIG_SACK_ACKED,
    FLAG_SND_UNA_ADVANCED,
    REXMIT_LOST,
    REXMIT_NEW,
    AckState,
)
from ustack.tcp.reno_sack import tcp_add_reno_sack, tcp_reset_reno_sack
from ustack.tcp.scoreboard import tcp_recovery
from ustack.tcp.send_window import tcp_wnd_end
from ustack.tcp.undo import tcp_try_undo_loss, tcp_try_undo_recovery

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock


def tcp_process_loss(sk: TcpSock, ack: AckState, num_dupack: int) -> None:
    """Take one ACK in the Loss state (tcp_process_loss)."""
    tp = sk.tp
    state = tcp_recovery(sk)
    recovered = not before(tp.snd_una, tp.high_seq)
    advanced = ack.flag & FLAG_SND_UNA_ADVANCED
    if advanced and tcp_try_undo_loss(sk, ack, frto_undo=False):
        return
    if state.frto and _frto_decides(sk, ack, num_dupack, recovered=recovered):
        return
    if recovered:
        tcp_try_undo_recovery(sk, ack)
        return
    if not tp.sack_ok:
        if after(tp.snd_nxt, tp.high_seq) and num_dupack:
            tcp_add_reno_sack(sk, num_dupack)
        elif advanced:
            tcp_reset_reno_sack(sk)
    ack.rexmit = REXMIT_LOST


def _frto_decides(sk: TcpSock, ack: AckState, num_dupack: int, *, recovered: bool) -> bool:
    """Run steps 2 and 3 of RFC 5682; whether that is all to be done with this ACK."""
    tp = sk.tp
    state = tcp_recovery(sk)
    if ack.flag & FLAG_ORIG_SACK_ACKED and tcp_try_undo_loss(sk, ack, frto_undo=True):
        return True  # step 3b
    if after(tp.snd_nxt, tp.high_seq):
        if ack.flag & FLAG_DATA_SACKED or num_dupack:
            state.frto = False  # step 3a: the loss was real
    elif ack.flag & FLAG_SND_UNA_ADVANCED and not recovered:
        tp.high_seq = tp.snd_nxt
        if tp.write_seq != tp.snd_nxt and after(tcp_wnd_end(sk), tp.snd_nxt):
            ack.rexmit = REXMIT_NEW  # step 2b
            return True
        state.frto = False
    return False
