"""HyStart: ends slow start before it overflows the path (Ha, Rhee 2011; tcp_cubic.c).

Two signs that a round of slow start has filled the path: its ACKs come back to back for as
long as half the least RTT (the ACK train), or its least RTT has risen by an eighth (delay).
Either sets ssthresh to cwnd, once. The round that is under way is noted in ``struct us_bictcp``,
and C (``tcp_cong.c``) takes the ACKs that end nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ustack.lib.seqnum import after

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock

HYSTART_LOW_WINDOW = 16
"""Segments of cwnd below which slow start goes on whatever happens."""
HYSTART_ACK_DELTA_US = 2000
"""ACKs closer than this belong to one train."""
HYSTART_MIN_SAMPLES = 8
"""RTT samples of a round before its least one says something."""
HYSTART_DELAY_MIN_US = 4_000
HYSTART_DELAY_MAX_US = 16_000
NO_RTT_US = 0xFFFFFFFF


def hystart_reset(sk: TcpSock, state: Any) -> None:
    """A new round begins (bictcp_hystart_reset)."""
    state.round_start_us = state.last_ack_us = sk.prot.clock.now_us
    state.end_seq = sk.tp.snd_nxt
    state.curr_rtt_us = NO_RTT_US
    state.sample_cnt = 0


def hystart_update(sk: TcpSock, state: Any, delay_us: int, delay_min_us: int) -> None:
    """Take one ACK of slow start with RTT ``delay_us`` (hystart_update)."""
    tp = sk.tp
    if after(tp.snd_una, state.end_seq):
        hystart_reset(sk, state)
    if tp.snd_cwnd < HYSTART_LOW_WINDOW:
        return
    mib = sk.prot.mib_ext
    if _train_is_long(sk, state, delay_min_us):
        state.found = True
        mib.TCPHystartTrainDetect += 1
        mib.TCPHystartTrainCwnd += tp.snd_cwnd
        tp.snd_ssthresh = tp.snd_cwnd
    if delay_us < state.curr_rtt_us:
        state.curr_rtt_us = delay_us
    if state.sample_cnt < HYSTART_MIN_SAMPLES:
        state.sample_cnt += 1
    elif state.curr_rtt_us > delay_min_us + hystart_delay_thresh(delay_min_us >> 3):
        state.found = True
        mib.TCPHystartDelayDetect += 1
        mib.TCPHystartDelayCwnd += tp.snd_cwnd
        tp.snd_ssthresh = tp.snd_cwnd


def _train_is_long(sk: TcpSock, state: Any, delay_min_us: int) -> bool:
    """Whether the ACKs of this round have come without a gap for half the least RTT."""
    now_us = sk.prot.clock.now_us
    if now_us - state.last_ack_us > HYSTART_ACK_DELTA_US:
        return False
    state.last_ack_us = now_us
    threshold_us = delay_min_us + hystart_ack_delay_us(sk)
    if sk.pacing is None:  # pacing may have held segments back for half an RTT
        threshold_us >>= 1
    return bool(now_us - state.round_start_us > threshold_us)


def hystart_delay_thresh(delay_us: int) -> int:
    """Return the rise of RTT that counts, from 4 to 16 ms (HYSTART_DELAY_THRESH)."""
    return min(max(delay_us, HYSTART_DELAY_MIN_US), HYSTART_DELAY_MAX_US)


def hystart_ack_delay_us(sk: TcpSock) -> int:
    """Return what super-frames add to the RTT, at most a millisecond (hystart_ack_delay)."""
    rate = sk.tp.sk_pacing_rate
    if not rate or sk.dst is None:
        return 0
    return min(1000, sk.dst.dev.gso_max_size * 4 * 1_000_000 // int(rate))
