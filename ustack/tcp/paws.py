"""Protection against wrapped sequence numbers by timestamps (RFC 7323 §5; tcp_paws_check).

A segment with an older timestamp than the newest seen is an old duplicate: it is dropped and
answered. Pure ACKs that were overtaken on the way are no threat, and a timestamp that has not
moved for long proves nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.config import LINUX_310
from ustack.lib.drop_reason import DropReason
from ustack.lib.seqnum import after, before, seq_diff
from ustack.wire.tcp import ACK

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock
    from ustack.wire.tcp import Segment

TCP_PAWS_WINDOW = 1
"""A timestamp may lie this far back: clocks of several processors."""
TCP_PAWS_WRAP_US = 2_147_000_000
"""INT_MAX / 1e6 seconds: since 6.7 timestamps may count microseconds."""
TCP_PAWS_24DAYS_US = 24 * 24 * 60 * 60 * 1_000_000
"""RFC 7323 §5.5, for timestamps that count milliseconds."""


def tcp_paws_wrap_us(profile: str) -> int:
    """Return how long TS.Recent is worth something while nothing comes."""
    return TCP_PAWS_24DAYS_US if profile == LINUX_310 else TCP_PAWS_WRAP_US


def tcp_paws_check(sk: TcpSock, tsval: int, window: int) -> bool:
    """Whether ``tsval`` is recent enough, ``window`` behind TS.Recent at most (tcp_paws_check)."""
    tp = sk.tp
    if seq_diff(tp.ts_recent, tsval) <= window:
        return True
    if sk.prot.clock.now_us - tp.ts_recent_stamp_us >= tcp_paws_wrap_us(sk.prot.profile):
        return True
    return not tp.ts_recent  # some send zero in their SYN


def tcp_paws_discard(sk: TcpSock, seg: Segment) -> DropReason | None:
    """Say why the timestamp makes the segment an old duplicate, None if it does not.

    Returns:
        TCP_RFC7323_PAWS, or TCP_RFC7323_PAWS_ACK for an old pure ACK, which is not answered.
    """
    if not sk.tp.tstamp_ok or seg.tsval is None or tcp_paws_check(sk, seg.tsval, TCP_PAWS_WINDOW):
        return None
    return tcp_disordered_ack_check(sk, seg, seg.tsval)


def tcp_disordered_ack_check(sk: TcpSock, seg: Segment, tsval: int) -> DropReason | None:
    """Let through an ACK that was overtaken and says nothing new (tcp_disordered_ack_check)."""
    tp = sk.tp
    if not seg.flags & ACK or seg.seq != seg.end_seq:
        return DropReason.TCP_RFC7323_PAWS
    if seg.seq != tp.rcv_nxt:
        if before(seg.seq, tp.rcv_nxt):
            return DropReason.TCP_RFC7323_PAWS_ACK
        return DropReason.TCP_RFC7323_PAWS
    if seg.ack != tp.snd_una or tcp_may_update_window(sk, seg):
        return DropReason.TCP_RFC7323_PAWS
    replay = tp.rto_us * 6 // 5000  # 1.2 RTO in ticks of a millisecond
    if seq_diff(tp.ts_recent, tsval) > replay:
        return DropReason.TCP_RFC7323_PAWS
    return None


def tcp_may_update_window(sk: TcpSock, seg: Segment) -> bool:
    """Whether SEG.WND is newer than the window that we know (tcp_may_update_window)."""
    tp = sk.tp
    window = seg.window << tp.snd_wscale
    return bool(
        after(seg.ack, tp.snd_una)
        or after(seg.seq, tp.snd_wl1)
        or (seg.seq == tp.snd_wl1 and (window > tp.snd_wnd or not window))
    )


def tcp_replace_ts_recent(sk: TcpSock, seg: Segment) -> None:
    """Keep the timestamp of a segment at or before Last.ACK.sent (RFC 7323 §4.3).

    One that only PAWS' tolerance let through does not put the clock back.
    """
    tp = sk.tp
    tsval = seg.tsval
    if tp.tstamp_ok and tsval is not None and not after(seg.seq, tp.rcv_wup):
        if tsval != tp.ts_recent and not tcp_paws_check(sk, tsval, 0):
            return
        tp.ts_recent = tsval
        tp.ts_recent_stamp_us = sk.prot.clock.now_us
