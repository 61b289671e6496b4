"""What is in flight, transmission by transmission, once that matters (Linux's tcp_rtx_queue).

While everything arrives in order the log in C (``us_tcp_tx_push``) is all there is. The first
SACK, loss or repetition makes ``sk.rtx`` of it: a list of ``TxRec`` in sequence order, linked
in the order of sending as well (tcp_tsorted). Once nothing of what remains is marked it
becomes a log again. ``Recovery`` is what a connection that has lost something remembers.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from typing import TYPE_CHECKING

from ustack.lib.seqnum import SEQ_MASK, after, before
from ustack.native.lib import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ustack.tcp.sock import TcpSock

TCPCB_SACKED_ACKED = 1
"""Selectively acknowledged."""
TCPCB_SACKED_RETRANS = 2
"""Repeated, and the repetition is in flight."""
TCPCB_LOST = 4
"""Counts as lost."""
TCPCB_TAGBITS = 7
TCPCB_EVER_RETRANS = 0x80
"""Repeated at least once: no RTT sample (Karn)."""
TCPCB_RETRANS = TCPCB_SACKED_RETRANS | TCPCB_EVER_RETRANS

_RECORD = struct.Struct("=IHHQ")


class TxRec:
    """One transmission: ``seq`` to ``end_seq`` in ``pcount`` segments (SYN and FIN counted)."""

    __slots__ = (
        "end_seq",
        "mss",
        "pcount",
        "psh",
        "sacked",
        "sent_us",
        "seq",
        "ts_next",
        "ts_prev",
    )

    def __init__(
        self,
        seq: int,
        end_seq: int,
        pcount: int,
        mss: int,
        sent_us: int,
        sacked: int = 0,
        *,
        psh: bool = False,
    ) -> None:
        self.seq = seq
        self.end_seq = end_seq
        self.pcount = pcount
        self.mss = mss
        self.sent_us = sent_us
        """When it was last sent."""
        self.sacked = sacked
        """TCPCB_* bits."""
        self.psh = psh
        """Whether its last segment has PSH; it keeps it when it is repeated."""
        self.ts_prev: TxRec | None = None
        self.ts_next: TxRec | None = None


class Tsorted:
    """Transmissions in the order of sending, oldest first; those marked lost are not in it."""

    __slots__ = ("_head",)

    def __init__(self) -> None:
        head = self._head = TxRec(0, 0, 0, 0, 0)
        head.ts_prev = head.ts_next = head

    def insert_after(self, where: TxRec, rec: TxRec) -> None:
        """Put ``rec`` behind ``where``, which is in the list."""
        follower = where.ts_next
        assert follower is not None
        rec.ts_prev, rec.ts_next = where, follower
        where.ts_next = follower.ts_prev = rec

    def append(self, rec: TxRec) -> None:
        """Put ``rec`` at the end: it has just been sent."""
        last = self._head.ts_prev
        assert last is not None
        self.insert_after(last, rec)

    def remove(self, rec: TxRec) -> None:
        """Take ``rec`` out, if it is in."""
        before_it, after_it = rec.ts_prev, rec.ts_next
        if before_it is None or after_it is None:
            return
        before_it.ts_next, after_it.ts_prev = after_it, before_it
        rec.ts_prev = rec.ts_next = None

    def __iter__(self) -> Iterator[TxRec]:
        """Yield the records; the one just yielded may be removed."""
        rec = self._head.ts_next
        while rec is not None and rec is not self._head:
            following = rec.ts_next
            yield rec
            rec = following

    def clear(self) -> None:
        """Break every link, so that no cycle is left behind."""
        for rec in self:
            rec.ts_prev = rec.ts_next = None
        self._head.ts_prev = self._head.ts_next = self._head


class Recovery:
    """What loss recovery keeps of one connection, made when it is first needed."""

    __slots__ = (
        "dsack_dups",
        "fack",
        "frto",
        "hint_seq",
        "prr_delivered",
        "prr_out",
        "rack_advanced",
        "rack_dsack_seen",
        "rack_end_seq",
        "rack_last_adjust_us",
        "rack_mstamp_us",
        "rack_reo_wnd_persist",
        "rack_reo_wnd_steps",
        "reord_seen",
        "reordering",
        "retrans_high",
        "tlp_high_seq",
        "tlp_retrans",
        "tsorted",
        "undo_marker",
        "undo_retrans",
    )

    def __init__(self, snd_una: int, reordering: int) -> None:
        self.tsorted = Tsorted()
        self.fack = snd_una
        """One past the highest byte that was selectively acknowledged."""
        self.retrans_high = snd_una
        """One past the highest byte ever repeated."""
        self.hint_seq: int | None = None
        """Below it nothing waits to be repeated (retransmit_skb_hint)."""
        self.undo_marker: int | None = None
        """SND.UNA when cwnd was last reduced for a loss; None: nothing to undo."""
        self.undo_retrans = 0
        """Repetitions since then that no D-SACK has called superfluous; -1: none made yet."""
        self.prr_delivered = 0
        self.prr_out = 0
        self.frto = False
        """The last timeout may have been spurious (RFC 5682)."""
        self.tlp_high_seq: int | None = None
        """SND.NXT at the last tail loss probe, until it is known what became of it."""
        self.tlp_retrans = False
        """That probe was a repetition, not new data."""
        self.reordering = reordering
        """Duplicate ACKs that are no loss yet, in segments."""
        self.reord_seen = 0
        """How often reordering was seen."""
        self.dsack_dups = 0
        """Segments that D-SACKs called superfluous."""
        self.rack_mstamp_us = 0
        """When the most recently sent of the delivered segments was sent (RACK.xmit_ts)."""
        self.rack_end_seq = 0
        self.rack_advanced = False
        self.rack_dsack_seen = False
        self.rack_reo_wnd_steps = 1
        """The reordering window in quarters of the least RTT (RACK.reo_wnd_mult)."""
        self.rack_reo_wnd_persist = 0
        """Recoveries for which a wider window is still kept."""
        self.rack_last_adjust_us = 0


def tcp_recovery(sk: TcpSock) -> Recovery:
    """Return the connection's recovery state, made on first use."""
    state = sk.recovery
    if state is None:
        state = sk.recovery = Recovery(sk.tp.snd_una, sk.prot.config.tcp_reordering)
    return state


def tcp_reordering(sk: TcpSock) -> int:
    """Return how far segments may overtake each other, in segments (tp->reordering)."""
    state = sk.recovery
    return sk.prot.config.tcp_reordering if state is None else state.reordering


def tcp_rtx_queue(sk: TcpSock) -> list[TxRec]:
    """Return what is in flight in sequence order, taken over from the log if need be."""
    recs = sk.rtx
    if recs is not None:
        return recs
    tp = sk.tp
    state = tcp_recovery(sk)
    state.hint_seq = None
    state.retrans_high = tp.snd_una
    recs = sk.rtx = tcp_tx_log(sk)
    lib.us_tcp_tx_purge(sk.prot.mem.ptr, tp)
    for rec in recs:
        if rec.sacked:
            rec.sent_us = tp.lsndtime_us
            state.retrans_high = rec.end_seq
        state.tsorted.append(rec)
    return recs


def tcp_tx_log(sk: TcpSock) -> list[TxRec]:
    """Return what the log in C says is in flight, oldest first; ``sent_us`` 0: sent again."""
    tp = sk.tp
    count = tp.txlog.len
    raw = ffi.new("struct us_tx_rec[]", count or 1)
    lib.us_tcp_tx_copy(sk.prot.mem.ptr, tp, raw, count)
    recs = []
    seq = tp.snd_una
    for end_seq, pcount, mss, sent_us in _RECORD.iter_unpack(ffi.buffer(raw)[: 16 * count]):
        sacked = 0 if sent_us else TCPCB_EVER_RETRANS
        psh = bool(pcount & lib.US_TX_PSH)
        recs.append(TxRec(seq, end_seq, pcount & ~lib.US_TX_PSH, mss, sent_us, sacked, psh=psh))
        seq = end_seq
    return recs


def tcp_rtx_push(
    sk: TcpSock, seq: int, end_seq: int, pcount: int, mss: int, *, psh: bool = False
) -> None:
    """Note a first transmission, the newest, and count it in packets_out."""
    tp = sk.tp
    now_us = sk.prot.clock.now_us
    if sk.rtx is None:
        marked = pcount | lib.US_TX_PSH if psh else pcount
        if not lib.us_tcp_tx_push(sk.prot.mem.ptr, tp, end_seq, marked, mss, now_us):
            return
        tcp_rtx_queue(sk)  # no memory left in the arena
    assert sk.rtx is not None and sk.recovery is not None
    rec = TxRec(seq, end_seq, pcount, mss, now_us, psh=psh)
    sk.rtx.append(rec)
    sk.recovery.tsorted.append(rec)
    tp.packets_out += pcount


def tcp_rtx_is_ambiguous(sk: TcpSock) -> None:
    """Let no RTT be measured with the SYN in flight: it goes out again (Karn)."""
    sk.tp.txlog.first_us = 0


def tcp_rtx_restart(sk: TcpSock) -> None:
    """Forget the SYN in flight and the data with it: it goes out in another way."""
    lib.us_tcp_tx_purge(sk.prot.mem.ptr, sk.tp)
    sk.tp.packets_out = 0


def tcp_rtx_settle(sk: TcpSock) -> None:
    """Turn the scoreboard into the plain log again once nothing in it is marked."""
    recs = sk.rtx
    if recs is None:
        return
    tp = sk.tp
    state = tcp_recovery(sk)
    if recs and (
        tp.sacked_out or tp.lost_out or tp.retrans_out or before(tp.snd_una, state.retrans_high)
    ):
        return
    packets_out = tp.packets_out
    for rec in recs:
        marked = rec.pcount | lib.US_TX_PSH if rec.psh else rec.pcount
        if lib.us_tcp_tx_push(sk.prot.mem.ptr, tp, rec.end_seq, marked, rec.mss, rec.sent_us):
            lib.us_tcp_tx_purge(sk.prot.mem.ptr, tp)
            break
    else:
        sk.rtx = None
        state.tsorted.clear()
    tp.packets_out = packets_out


def tcp_rtx_find(recs: list[TxRec], seq: int) -> int:
    """Return the index of the first record that ends after ``seq``; one past the last: none."""
    if not recs:
        return 0
    base = recs[0].seq
    if not after(seq, base):
        return 0
    return bisect_right(recs, seq - base & SEQ_MASK, key=lambda rec: rec.end_seq - base & SEQ_MASK)


def tcp_rec_payload(sk: TcpSock, rec: TxRec) -> int:
    """Return the bytes of the send queue in ``rec``: without the FIN."""
    tp = sk.tp
    fin = tp.fin_queued and rec.end_seq == tp.write_seq
    return (rec.end_seq - rec.seq & SEQ_MASK) - fin


def tcp_fragment(sk: TcpSock, index: int, length: int, mss: int) -> None:
    """Cut record ``index`` behind ``length`` bytes (tcp_fragment).

    Both parts keep its marks, the second one PSH.
    """
    assert sk.rtx is not None and sk.recovery is not None
    rec = sk.rtx[index]
    cut = rec.seq + length & SEQ_MASK
    tail = TxRec(cut, rec.end_seq, 0, mss, rec.sent_us, rec.sacked, psh=rec.psh)
    rec.psh = False
    before_pcount = rec.pcount
    rec.end_seq = cut
    rec.mss = mss
    rec.pcount = -(-length // mss)
    tail.pcount = max(-(-tcp_rec_payload(sk, tail) // mss), 1)
    sk.rtx.insert(index + 1, tail)
    if rec.ts_next is not None:
        sk.recovery.tsorted.insert_after(rec, tail)
    tcp_adjust_pcount(sk, rec.sacked, before_pcount - rec.pcount - tail.pcount)


def tcp_collapse_retrans(sk: TcpSock, index: int) -> None:
    """Make one of record ``index`` and the next, one segment each (tcp_collapse_retrans)."""
    assert sk.rtx is not None and sk.recovery is not None
    rec = sk.rtx[index]
    follower = sk.rtx.pop(index + 1)
    rec.end_seq = follower.end_seq
    rec.psh = rec.psh or follower.psh
    rec.sacked |= follower.sacked & TCPCB_EVER_RETRANS
    sk.recovery.tsorted.remove(follower)
    tcp_adjust_pcount(sk, follower.sacked, follower.pcount)


def tcp_set_tso_segs(sk: TcpSock, rec: TxRec, mss: int) -> None:
    """Count ``rec`` in segments of ``mss`` bytes from now on (tcp_set_skb_tso_segs)."""
    pcount = max(-(-tcp_rec_payload(sk, rec) // mss), 1)
    rec.mss = mss
    if pcount != rec.pcount:
        fewer = rec.pcount - pcount
        rec.pcount = pcount
        tcp_adjust_pcount(sk, rec.sacked, fewer)


def tcp_adjust_pcount(sk: TcpSock, sacked: int, decr: int) -> None:
    """Take ``decr`` segments out of every count that a record's marks put them in."""
    if not decr:
        return
    tp = sk.tp
    tp.packets_out -= decr
    if sacked & TCPCB_SACKED_ACKED:
        tp.sacked_out -= decr
    if sacked & TCPCB_SACKED_RETRANS:
        tp.retrans_out -= decr
    if sacked & TCPCB_LOST:
        tp.lost_out -= decr
    if not tp.sack_ok and decr > 0:
        tp.sacked_out -= min(tp.sacked_out, decr)


def tcp_mark_skb_lost(sk: TcpSock, rec: TxRec) -> None:
    """Mark a record lost, or its repetition lost as well (tcp_mark_skb_lost)."""
    sacked = rec.sacked
    if sacked & TCPCB_SACKED_ACKED:
        return
    tp = sk.tp
    state = sk.recovery
    assert state is not None
    if state.hint_seq is not None and before(rec.seq, state.hint_seq):
        state.hint_seq = rec.seq
    if not sacked & TCPCB_LOST:
        rec.sacked = sacked | TCPCB_LOST
        tp.lost_out += rec.pcount
        tp.lost += rec.pcount
    elif sacked & TCPCB_SACKED_RETRANS:
        rec.sacked = sacked & ~TCPCB_SACKED_RETRANS
        tp.retrans_out -= rec.pcount
        tp.lost += rec.pcount
        sk.prot.mib_ext.TCPLostRetransmit += rec.pcount


def tcp_any_retrans_done(sk: TcpSock) -> bool:
    """Whether something in flight, or its head, was repeated (tcp_any_retrans_done)."""
    if sk.tp.retrans_out:
        return True
    return bool(sk.rtx and sk.rtx[0].sacked & TCPCB_EVER_RETRANS)


def tcp_highest_sack_seq(sk: TcpSock) -> int:
    """Return one past the highest byte selectively acknowledged, or SND.UNA."""
    tp = sk.tp
    state = sk.recovery
    if not tp.sacked_out or state is None or not after(state.fack, tp.snd_una):
        return int(tp.snd_una)
    return state.fack
