"""TIME_WAIT and orphaned FIN_WAIT2: a connection's last minute as a mini-socket.

The full socket is released as soon as nothing but waiting is left (tcp_time_wait); what the
peer may still send is answered from here (tcp_timewait_state_process, RFC 9293 §3.10.7.4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.lib.drop_reason import DropReason
from ustack.lib.seqnum import SEQ_MASK, after, before, seq_diff
from ustack.tcp.challenge import tcp_oow_rate_limited
from ustack.tcp.close import tcp_done
from ustack.tcp.ip_header import IpHeader
from ustack.tcp.metrics import tcp_update_metrics
from ustack.tcp.states import TCP_FIN_WAIT2, TCP_TIME_WAIT
from ustack.tcp.timer import tcp_arm_keepalive
from ustack.tcp.transmit import tcp_v4_send_bare, tcp_v4_send_reset
from ustack.tcp.tw_recycle import TCP_PAWS_MSL_US, tcp_recycles, tcp_remember_stamp
from ustack.wire.tcp import ACK, FIN, MD5SIG_ROOM, RST, SYN, tstamp_option

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock
    from ustack.tcp.twhash import TimewaitSock
    from ustack.wire.tcp import Segment

TW_KILL_US = 4_000_000
"""Mini-sockets that live no longer count as TWKilled, others as TW (__inet_twsk_schedule)."""
TCP_TIMEWAIT_LEN_US = 60_000_000
"""2 MSL with an MSL of 30 s (RFC 9293 §3.4.2 has two minutes; Linux, and so we, 60 s)."""


def tcp_time_wait(
    sk: TcpSock, substate: int = TCP_TIME_WAIT, timeout_us: int = TCP_TIMEWAIT_LEN_US
) -> None:
    """Put a mini-socket in ``sk``'s place and end ``sk`` (tcp_time_wait).

    It lives at least 3.5 RTOs: the peer's FIN may be lost once and come again; with
    tcp_tw_recycle no longer. Beyond tcp_max_tw_buckets the connection is simply gone
    (TCPTimeWaitOverflow).
    """
    prot = sk.prot
    tcp_update_metrics(sk)
    tw = None
    if len(prot.twhash) < prot.config.tcp_max_tw_buckets:
        tw = prot.twhash.add(sk, substate)
    if tw is None:
        prot.mib_ext.TCPTimeWaitOverflow += 1
        tcp_done(sk)
        return
    repeat_us = tcp_repeat_time_us(sk)
    if _recycled(tw):
        prot.twhash.shorten(tw.key, repeat_us)
    if substate == TCP_TIME_WAIT:
        timeout_us = tw.timeout_us or TCP_TIMEWAIT_LEN_US
    timeout_us = max(timeout_us, repeat_us)
    if timeout_us <= TW_KILL_US:
        prot.mib_ext.TWKilled += 1
    else:
        prot.mib_ext.TW += 1
    tw.reschedule(timeout_us)
    tcp_done(sk)


def _recycled(tw: TimewaitSock) -> bool:
    """Whether the peer's timestamp is remembered elsewhere, so that TIME_WAIT may be short."""
    rec = tw.tw
    if not rec.tstamp_ok or not tcp_recycles(tw.prot):
        return False
    tcp_remember_stamp(tw.prot, rec.saddr, rec.daddr, rec.ts_recent, rec.ts_recent_stamp_us)
    return True


def tcp_repeat_time_us(sk: TcpSock) -> int:
    """How long the peer's FIN may still be on its way, lost once and repeated: 3.5 RTOs."""
    rto_us = int(sk.tp.rto_us)
    return (rto_us << 2) - (rto_us >> 1)


def tcp_fin_time(sk: TcpSock) -> int:
    """How long an orphan stays in FIN_WAIT2, in microseconds: TCP_LINGER2 or the knob."""
    timeout_us = sk.opts.linger2_us or sk.prot.config.tcp_fin_timeout_us
    return max(timeout_us, tcp_repeat_time_us(sk))


def tcp_fin_wait2_orphan(sk: TcpSock) -> None:
    """Limit the wait of an orphan for the peer's FIN; the last minute is a mini-socket's."""
    timeout_us = tcp_fin_time(sk)
    if timeout_us > TCP_TIMEWAIT_LEN_US:
        tcp_arm_keepalive(sk, timeout_us - TCP_TIMEWAIT_LEN_US)
    else:
        tcp_time_wait(sk, TCP_FIN_WAIT2, timeout_us)


def tcp_timewait_state_process(
    tw: TimewaitSock, seg: Segment, *, listening: bool
) -> DropReason | int | None:
    """Deal with a segment for a mini-socket (tcp_timewait_state_process).

    Args:
        listening: somebody listens on the port: a SYN may open a new incarnation.

    Returns:
        A reason or None: answered or not, the segment has been dealt with. An int: it is a SYN
        that opens a new incarnation, with this initial sequence number (RFC 6191 §2, RFC 9293
        §3.6.1); the mini-socket is gone and the listener goes on.
    """
    rec = tw.tw
    paws_reject = _paws_reject(tw, seg)
    if rec.substate == TCP_FIN_WAIT2:
        return _fin_wait2(tw, seg, paws_reject=paws_reject)
    if not paws_reject and seg.seq == rec.rcv_nxt and (seg.seq == seg.end_seq or seg.flags & RST):
        return _in_time_wait_window(tw, seg)
    if seg.flags & (SYN | RST | ACK) == SYN and not paws_reject and _is_newer(tw, seg):
        if listening:
            isn = rec.snd_nxt + 65535 + 2 & SEQ_MASK or 1
            tw.kill()
            return int(isn)
        tcp_v4_timewait_ack(tw, seg)
        return DropReason.TCP_TIMEWAIT
    if paws_reject:
        tw.prot.mib_ext.PAWSTimewait += 1
    if not seg.flags & RST:
        if paws_reject or seg.flags & ACK:
            tw.reschedule(TCP_TIMEWAIT_LEN_US)  # a SYN that is old or is new: who knows
        if _is_limited(tw, seg):
            tw.prot.mib_ext.TCPACKSkippedTimeWait += 1
        else:
            tcp_v4_timewait_ack(tw, seg)
    return DropReason.TCP_TIMEWAIT


def _in_time_wait_window(tw: TimewaitSock, seg: Segment) -> DropReason:
    """A bare ACK starts the minute anew; a reset ends it, unless RFC 1337 §3 is followed."""
    if not seg.flags & RST:
        tw.reschedule(TCP_TIMEWAIT_LEN_US)
    elif not tw.prot.config.tcp_rfc1337:
        tw.kill()
        return DropReason.TCP_RESET
    _note_timestamp(tw, seg)
    return DropReason.TCP_TIMEWAIT


def _is_newer(tw: TimewaitSock, seg: Segment) -> bool:
    """Whether a SYN is of a new incarnation: by its number, or by its timestamp."""
    rec = tw.tw
    if after(seg.seq, rec.rcv_nxt):
        return True
    return bool(rec.tstamp_ok and seg.tsval is not None and seq_diff(rec.ts_recent, seg.tsval) < 0)


def _fin_wait2(tw: TimewaitSock, seg: Segment, *, paws_reject: bool) -> DropReason | None:
    """The checks of ``tcp_rcv_state_process``, for an orphan whose FIN is acknowledged."""
    rec = tw.tw
    if paws_reject or not tcp_in_window(seg, rec.rcv_nxt, rec.rcv_nxt + rec.rcv_wnd & SEQ_MASK):
        if _is_limited(tw, seg):
            tw.prot.mib_ext.TCPACKSkippedFinWait2 += 1
        else:
            tcp_v4_timewait_ack(tw, seg)
        return DropReason.TCP_RFC7323_PAWS if paws_reject else DropReason.TCP_OVERWINDOW
    if seg.flags & RST:
        tw.kill()
        return DropReason.TCP_RESET
    if seg.flags & SYN and not before(seg.seq, rec.rcv_nxt):
        tcp_v4_send_reset(tw.prot, None, seg)
        tw.kill()
        return DropReason.TCP_INVALID_SYN
    if not seg.flags & ACK or not after(seg.end_seq, rec.rcv_nxt) or seg.end_seq == seg.seq:
        return DropReason.TCP_TIMEWAIT
    if not seg.flags & FIN or seg.end_seq != (rec.rcv_nxt + 1) & SEQ_MASK:
        tcp_v4_send_reset(tw.prot, None, seg)
        tw.kill()
        return DropReason.TCP_ABORT_ON_DATA
    tw.become(TCP_TIME_WAIT)
    rec.rcv_nxt = seg.end_seq
    _note_timestamp(tw, seg)
    timeout_us = tw.timeout_us if _recycled(tw) else 0
    tw.reschedule(timeout_us or TCP_TIMEWAIT_LEN_US)
    tcp_v4_timewait_ack(tw, seg)
    return None


def _is_limited(tw: TimewaitSock, seg: Segment) -> bool:
    """Whether the last answer is too recent for another (tcp_timewait_check_oow_rate_limit)."""
    prot = tw.prot
    limit_us = prot.config.tcp_invalid_ratelimit_us
    return tcp_oow_rate_limited(tw, prot.clock.now_us, seg, limit_us)


def tcp_in_window(seg: Segment, start: int, end: int) -> bool:
    """Whether any of the segment lies in the window (tcp_in_window)."""
    if seg.seq == start:
        return True
    if after(seg.end_seq, start) and before(seg.seq, end):
        return True
    return seg.seq == end == seg.end_seq


def _paws_reject(tw: TimewaitSock, seg: Segment) -> bool:
    """Whether the timestamp is of an old segment (RFC 7323 §5.3, tcp_paws_reject).

    A reset is believed in spite of it, once TS.Recent is older than a segment can get.
    """
    rec = tw.tw
    if not rec.tstamp_ok or seg.tsval is None or seq_diff(rec.ts_recent, seg.tsval) <= 0:
        return False
    age_us = tw.prot.clock.now_us - rec.ts_recent_stamp_us
    return not seg.flags & RST or age_us < TCP_PAWS_MSL_US


def _note_timestamp(tw: TimewaitSock, seg: Segment) -> None:
    if tw.tw.tstamp_ok and seg.tsval is not None:
        tw.tw.ts_recent = seg.tsval
        tw.tw.ts_recent_stamp_us = tw.prot.clock.now_us


def tcp_v4_timewait_ack(tw: TimewaitSock, seg: Segment) -> None:
    """Repeat our last ACK (tcp_v4_timewait_ack)."""
    rec = tw.tw
    prot = tw.prot
    options = b""
    if rec.tstamp_ok:
        options = tstamp_option(prot.tcp_time_stamp() + rec.tsoffset & SEQ_MASK, rec.ts_recent)
    if tw.md5_key is not None:
        options += MD5SIG_ROOM
    window = min(rec.rcv_wnd >> rec.rcv_wscale, 65535)
    header = IpHeader(tos=rec.tos, ident=0)  # ip_select_ident: what is never cut needs none
    rt = prot.fast.route_of(rec.dst)
    key = tw.md5_key
    tcp_v4_send_bare(prot, seg, rec.snd_nxt, rec.rcv_nxt, ACK, window, options, key, header, rt)
