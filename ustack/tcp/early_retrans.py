"""Early retransmit as Linux 3.10 has it (RFC 5827): fewer than four segments in flight.

Linux 6 has RACK and tail loss probes instead. The repetition is delayed by a quarter of the
RTT, so that a little reordering costs nothing (RFC 5827 §3.4's mitigation A.3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.tcp.ack_state import FLAG_ECE, FLAG_SET_XMIT_TIMER, AckState
from ustack.tcp.rack import tcp_is_rack
from ustack.tcp.sock import ICSK_TIME_EARLY_RETRANS
from ustack.tcp.timer import TCP_TIMEOUT_MIN_US, tcp_arm_retransmit

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock


def tcp_wants_early_retransmit(sk: TcpSock) -> bool:
    """Whether the flight is too small for three duplicates (Linux 3.10's tcp_time_to_recover)."""
    tp = sk.tp
    mode = sk.prot.config.tcp_early_retrans
    if tcp_is_rack(sk) or not tp.sack_ok or not 1 <= mode <= 3 or tp.retrans_out:
        return False
    return bool(0 < tp.sacked_out < tp.packets_out < 4 and tp.write_seq == tp.snd_nxt)


def tcp_pause_early_retransmit(sk: TcpSock, ack: AckState) -> bool:
    """Wait a quarter of the RTT first, unless the timeout is nearer."""
    tp = sk.tp
    if sk.prot.config.tcp_early_retrans < 2 or ack.flag & FLAG_ECE or not tp.srtt_us:
        return False
    delay_us = max(tp.srtt_us >> 5, TCP_TIMEOUT_MIN_US)
    if tp.icsk_timeout_us <= sk.prot.clock.now_us + delay_us:
        return False
    tcp_arm_retransmit(sk, delay_us, ICSK_TIME_EARLY_RETRANS)
    ack.flag &= ~FLAG_SET_XMIT_TIMER
    return True
