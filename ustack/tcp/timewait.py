"""TIME_WAIT and orphaned FIN_WAIT2: a connection's last minute as a mini-socket.

The full socket is released as soon as nothing but waiting is left (tcp_time_wait); what the
peer may still send is answered from here (tcp_timewait_state_process, RFC 9293 §3.10.7.4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ustack.core.timer import Timer
from ustack.lib.drop_reason import DropReason
from ustack.lib.seqnum import SEQ_MASK, after, before, seq_diff
from ustack.tcp.close import tcp_done
from ustack.tcp.ports import BindBucket, bind_bucket_add, bind_bucket_remove
from ustack.tcp.states import TCP_FIN_WAIT2, TCP_TIME_WAIT
from ustack.tcp.transmit import tcp_v4_send_bare, tcp_v4_send_reset
from ustack.wire.tcp import ACK, FIN, RST, SYN, tstamp_option

if TYPE_CHECKING:
    from ustack.tcp.protocol import TcpProt
    from ustack.tcp.sock import TcpSock
    from ustack.wire.tcp import Segment

TCP_TIMEWAIT_LEN_US = 60_000_000
"""2 MSL with an MSL of 30 s (RFC 9293 §3.4.2 has two minutes; Linux, and so we, 60 s)."""


class TimewaitSock:
    """A mini-socket: ``tw`` is the C struct, the rest is what the tables need."""

    __slots__ = (
        "bind_addr",
        "bind_bucket",
        "last_ack_us",
        "prot",
        "reuse",
        "timer",
        "tsoffset",
        "tw",
    )

    def __init__(self, sk: TcpSock, substate: int) -> None:
        tp = sk.tp
        self.prot: TcpProt = sk.prot
        tw = self.tw = self.prot.tw_cache.alloc()
        tw.saddr, tw.sport, tw.daddr, tw.dport = tp.saddr, tp.sport, tp.daddr, tp.dport
        tw.rcv_nxt, tw.snd_nxt, tw.rcv_wnd = tp.rcv_nxt, tp.snd_nxt, tp.rcv_wnd
        tw.ts_recent, tw.ts_recent_stamp_us = tp.ts_recent, tp.ts_recent_stamp_us
        tw.tstamp_ok, tw.rcv_wscale = tp.tstamp_ok, tp.rcv_wscale
        tw.substate = substate
        self.tsoffset: int = tp.tsoffset
        self.reuse = sk.reuse
        self.bind_addr = sk.bind_addr
        self.bind_bucket: BindBucket | None = None
        self.last_ack_us = 0
        self.timer: Any = Timer(tw_timer, self)

    @property
    def key(self) -> tuple[int, int, int, int]:
        """The four-tuple: own address and port, the peer's address and port."""
        tw = self.tw
        return (tw.saddr, tw.sport, tw.daddr, tw.dport)

    @property
    def state(self) -> int:
        """TCP_FIN_WAIT2 or TCP_TIME_WAIT."""
        return self.tw.substate

    def reschedule(self, timeout_us: int) -> None:
        """Live for ``timeout_us`` from now on (inet_twsk_reschedule)."""
        self.tw.expires_us = self.prot.clock.now_us + timeout_us
        self.prot.timers.mod_timer(self.timer, self.tw.expires_us)


def tcp_time_wait(
    sk: TcpSock, substate: int = TCP_TIME_WAIT, timeout_us: int = TCP_TIMEWAIT_LEN_US
) -> None:
    """Put a mini-socket in ``sk``'s place and end ``sk`` (tcp_time_wait).

    Beyond tcp_max_tw_buckets the connection is simply gone (TCPTimeWaitOverflow).
    """
    prot = sk.prot
    if len(prot.twhash) >= prot.config.tcp_max_tw_buckets:
        prot.mib_ext.TCPTimeWaitOverflow += 1
        tcp_done(sk)
        return
    try:
        tw = TimewaitSock(sk, substate)
    except MemoryError:
        prot.mib_ext.TCPTimeWaitOverflow += 1
        tcp_done(sk)
        return
    prot.twhash[tw.key] = tw
    by_connect = sk.bind_bucket.by_connect if sk.bind_bucket is not None else True
    tw.bind_bucket = bind_bucket_add(prot, tw, tw.tw.sport, by_connect=by_connect)
    tw.reschedule(timeout_us)
    tcp_done(sk)


def tw_timer(tw: TimewaitSock) -> None:
    """Two MSL have passed (tw_timer_handler)."""
    tw.prot.mib_ext.TW += 1
    tw_kill(tw)


def tw_kill(tw: TimewaitSock) -> None:
    """Forget a mini-socket (inet_twsk_kill)."""
    prot = tw.prot
    prot.timers.del_timer(tw.timer)
    if prot.twhash.get(tw.key) is tw:
        del prot.twhash[tw.key]
    if tw.bind_bucket is not None:
        bind_bucket_remove(prot, tw, tw.bind_bucket)
        tw.bind_bucket = None
    prot.tw_cache.free(tw.tw)
    tw.tw = None


def tcp_timewait_state_process(
    tw: TimewaitSock, seg: Segment, *, listening: bool
) -> DropReason | int | None:
    """Deal with a segment for a mini-socket (tcp_timewait_state_process).

    Args:
        listening: somebody would take a SYN; without, it is acknowledged like anything else.

    Returns:
        None: answered or absorbed. A DropReason: why it was dropped. An int: it is a SYN that
        opens a new incarnation, with this initial sequence number (RFC 6191, RFC 9293
        §3.6.1); the mini-socket is gone and the listener goes on.
    """
    rec = tw.tw
    paws_reject = _paws_reject(tw, seg)
    if rec.substate == TCP_FIN_WAIT2:
        return _fin_wait2(tw, seg, paws_reject=paws_reject)
    if not paws_reject and seg.seq == rec.rcv_nxt and (seg.seq == seg.end_seq or seg.flags & RST):
        if seg.flags & RST:
            tw_kill(tw)
            return DropReason.TCP_RESET
        _note_timestamp(tw, seg)
        tw.reschedule(TCP_TIMEWAIT_LEN_US)
        return DropReason.TCP_TIMEWAIT
    fresh_ts = seg.tsval is not None and rec.tstamp_ok and seq_diff(rec.ts_recent, seg.tsval) < 0
    if (
        seg.flags & (SYN | RST | ACK) == SYN
        and not paws_reject
        and listening
        and (after(seg.seq, rec.rcv_nxt) or fresh_ts)
    ):
        isn = rec.snd_nxt + 65535 + 2 & SEQ_MASK or 1
        tw_kill(tw)
        return int(isn)
    if paws_reject:
        tw.prot.mib_ext.PAWSEstab += 1
    if not seg.flags & RST:
        if paws_reject or seg.flags & ACK:
            tw.reschedule(TCP_TIMEWAIT_LEN_US)
        _send_ack(tw, seg)
    return DropReason.TCP_TIMEWAIT


def _fin_wait2(tw: TimewaitSock, seg: Segment, *, paws_reject: bool) -> DropReason | None:
    rec = tw.tw
    in_window = not after(seg.seq, rec.rcv_nxt + rec.rcv_wnd & SEQ_MASK) and not before(
        seg.end_seq, rec.rcv_nxt
    )
    if paws_reject or not in_window:
        if not seg.flags & RST:
            _send_ack(tw, seg)
        return DropReason.TCP_OVERWINDOW
    if seg.flags & RST:
        tw_kill(tw)
        return DropReason.TCP_RESET
    if seg.flags & SYN and not before(seg.seq, rec.rcv_nxt):
        tcp_v4_send_reset(tw.prot, seg)
        tw_kill(tw)
        return DropReason.TCP_INVALID_SYN
    if not seg.flags & ACK or not after(seg.end_seq, rec.rcv_nxt) or seg.end_seq == seg.seq:
        return DropReason.TCP_TIMEWAIT
    if not seg.flags & FIN or seg.end_seq != (rec.rcv_nxt + 1) & SEQ_MASK:
        tcp_v4_send_reset(tw.prot, seg)
        tw_kill(tw)
        return DropReason.TCP_ABORT_ON_DATA
    rec.substate = TCP_TIME_WAIT
    rec.rcv_nxt = seg.end_seq
    _note_timestamp(tw, seg)
    tw.reschedule(TCP_TIMEWAIT_LEN_US)
    _send_ack(tw, seg)
    return None


def _paws_reject(tw: TimewaitSock, seg: Segment) -> bool:
    rec = tw.tw
    return bool(
        rec.tstamp_ok
        and seg.tsval is not None
        and not seg.flags & RST
        and seq_diff(rec.ts_recent, seg.tsval) > 0
    )


def _note_timestamp(tw: TimewaitSock, seg: Segment) -> None:
    if tw.tw.tstamp_ok and seg.tsval is not None:
        tw.tw.ts_recent = seg.tsval
        tw.tw.ts_recent_stamp_us = tw.prot.clock.now_us


def _send_ack(tw: TimewaitSock, seg: Segment) -> None:
    """Repeat our last ACK; answers to what is no data are rate limited (RFC 5961 §7)."""
    rec = tw.tw
    prot = tw.prot
    now_us = prot.clock.now_us
    if (
        (seg.seq == seg.end_seq or seg.flags & SYN)
        and tw.last_ack_us
        and now_us - tw.last_ack_us < prot.config.tcp_invalid_ratelimit_us
    ):
        prot.mib_ext.TCPACKSkippedTimeWait += 1
        return
    tw.last_ack_us = now_us
    options = b""
    if rec.tstamp_ok:
        options = tstamp_option(prot.tcp_time_stamp() + tw.tsoffset & SEQ_MASK, rec.ts_recent)
    window = rec.rcv_wnd >> rec.rcv_wscale
    tcp_v4_send_bare(prot, seg, rec.snd_nxt, rec.rcv_nxt, ACK, window, options)
