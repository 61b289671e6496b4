"""Selective acknowledgments into the scoreboard (RFC 2018, RFC 2883; tcp_sacktag_*).

``tcp_ack`` calls ``tcp_sacktag_write_queue`` for a segment with SACK blocks. Records are
split where a block ends inside them, and neighbours that have both arrived become one, so
that the list stays as short as the holes are few.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.lib.seqnum import SEQ_MASK, after, before, seq_diff
from ustack.tcp.ack_state import (
    FLAG_DATA_SACKED,
    FLAG_DSACK_TLP,
    FLAG_DSACKING_ACK,
    FLAG_ORIG_SACK_ACKED,
    AckState,
)
from ustack.tcp.cong.ops import TCP_CA_LOSS
from ustack.tcp.rack import tcp_rack_advance
from ustack.tcp.scoreboard import (
    TCPCB_EVER_RETRANS,
    TCPCB_LOST,
    TCPCB_RETRANS,
    TCPCB_SACKED_ACKED,
    TCPCB_SACKED_RETRANS,
    TCPCB_TAGBITS,
    TxRec,
    tcp_fragment,
    tcp_highest_sack_seq,
    tcp_recovery,
    tcp_rtx_find,
    tcp_rtx_queue,
)

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock
    from ustack.wire.tcp import Segment

TCP_NUM_SACKS = 4


def tcp_sacktag_write_queue(sk: TcpSock, seg: Segment, ack: AckState) -> None:
    """Tag what the segment's SACK blocks cover (tcp_sacktag_write_queue).

    SND.UNA is already SEG.ACK if that is newer; what lies below it is not touched.
    """
    tp = sk.tp
    state = tcp_recovery(sk)
    blocks = seg.sacks[:TCP_NUM_SACKS]
    if not tp.sacked_out:
        state.fack = tp.snd_una
    found_dup = _check_dsack(sk, seg.ack, blocks, ack)
    oldest = ack.prior_una - tp.max_window & SEQ_MASK
    if before(seg.ack, oldest) or not tp.packets_out:
        return
    used: list[tuple[int, int, bool]] = []
    for i, (start, end) in enumerate(blocks):
        dup = i == 0 and found_dup
        if not _is_sackblock_valid(sk, start, end, dup):
            _count_invalid(sk, seg.ack, end, dup)
        elif after(end, ack.prior_una):
            used.append((start, end, dup))
    if not used:
        return
    una = tp.snd_una
    used.sort(key=lambda block: (not block[2], seq_diff(block[0], una)))
    for start, end, dup in used:
        _sacktag_walk(sk, ack, start, end, dup=dup)
    if ack.reord is not None and (tp.ca_state != TCP_CA_LOSS or state.undo_marker is not None):
        tcp_check_sack_reordering(sk, ack.reord, by_timestamp=False)


def _is_sackblock_valid(sk: TcpSock, start: int, end: int, dup: bool) -> bool:
    """Whether a block names data of ours that can be missing a cumulative ACK.

    A D-SACK may lie below SND.UNA, but only as far back as there is something to undo
    (tcp_is_sackblock_valid).
    """
    tp = sk.tp
    if after(end, tp.snd_nxt) or not before(start, end) or not before(start, tp.snd_nxt):
        return False
    if after(start, tp.snd_una):
        return True
    state = tcp_recovery(sk)
    if not dup or state.undo_marker is None or after(end, tp.snd_una):
        return False
    if not before(start, state.undo_marker):
        return True
    if not after(end, state.undo_marker):
        return False
    return not before(start, end - tp.max_window & SEQ_MASK)


def _count_invalid(sk: TcpSock, ack_seq: int, end: int, dup: bool) -> None:
    mib = sk.prot.mib_ext
    if not dup:
        if ack_seq == sk.tp.snd_una or after(end, sk.tp.snd_una):
            mib.TCPSACKDiscard += 1  # else an old ACK that was overtaken: nothing odd
    elif tcp_recovery(sk).undo_marker is None:
        mib.TCPDSACKIgnoredNoUndo += 1
    else:
        mib.TCPDSACKIgnoredOld += 1


def _check_dsack(
    sk: TcpSock, ack_seq: int, blocks: tuple[tuple[int, int], ...], ack: AckState
) -> bool:
    """Whether the first block reports a duplicate (RFC 2883 §4; tcp_check_dsack)."""
    mib = sk.prot.mib_ext
    start, end = blocks[0]
    if before(start, ack_seq):
        mib.TCPDSACKRecv += 1
    elif len(blocks) > 1:
        outer_start, outer_end = blocks[1]
        if after(end, outer_end) or before(start, outer_start):
            return False
        mib.TCPDSACKOfoRecv += 1
    else:
        return False
    segs = _dsack_seen(sk, start, end, ack)
    if not segs:
        mib.TCPDSACKIgnoredDubious += 1
        return False
    mib.TCPDSACKRecvSegs += segs
    state = tcp_recovery(sk)
    marker = state.undo_marker
    if (
        marker is not None
        and state.undo_retrans > 0
        and not after(end, ack.prior_una)
        and after(end, marker)
    ):
        state.undo_retrans = max(0, state.undo_retrans - segs)
    return True


def _dsack_seen(sk: TcpSock, start: int, end: int, ack: AckState) -> int:
    """Return how many segments of ours arrived twice; 0 if that cannot be (tcp_dsack_seen)."""
    tp = sk.tp
    length = seq_diff(end, start)
    if length <= 0 or length > tp.max_window:
        return 0
    state = tcp_recovery(sk)
    segs = 1
    if length > tp.mss_cache:
        segs = -(-length // tp.mss_cache)
    elif state.tlp_high_seq == end:
        ack.flag |= FLAG_DSACK_TLP
    state.dsack_dups += segs
    if state.dsack_dups > tp.total_retrans:
        return 0  # the network doubles packets, or the peer lies: we have not repeated so much
    if state.reord_seen and not ack.flag & FLAG_DSACK_TLP:
        state.rack_dsack_seen = True
    ack.flag |= FLAG_DSACKING_ACK
    tcp_count_delivered(sk, segs)
    return segs


def tcp_count_delivered(sk: TcpSock, segs: int) -> None:
    """Count segments that have reached the peer (tcp_count_delivered)."""
    sk.tp.delivered = sk.tp.delivered + segs & SEQ_MASK
    sk.prot.mib_ext.TCPDelivered += segs


def _sacktag_walk(sk: TcpSock, ack: AckState, start: int, end: int, *, dup: bool) -> None:
    """Tag the records that ``start`` to ``end`` covers; split those at its edges."""
    recs = tcp_rtx_queue(sk)
    i = tcp_rtx_find(recs, start)
    while i < len(recs) and before(recs[i].seq, end):
        if not _match_skb_to_sack(sk, i, start, end):
            i += 1
            continue
        rec = recs[i]
        _sacktag_one(sk, ack, rec, dup=dup)
        if i and _can_merge(recs[i - 1], rec):
            _merge(sk, i)
        else:
            i += 1


def _match_skb_to_sack(sk: TcpSock, index: int, start: int, end: int) -> bool:
    """Whether the block covers record ``index``, cut at whole segments if it does in part."""
    rec = tcp_rtx_queue(sk)[index]
    length = rec.end_seq - rec.seq & SEQ_MASK
    from_head = not after(start, rec.seq)
    if from_head and not before(end, rec.end_seq):
        return True
    if rec.pcount == 1 or not after(rec.end_seq, start):
        return False
    mss = rec.mss
    if from_head:
        cut = (end - rec.seq & SEQ_MASK) // mss * mss
        if not cut:
            return False
    else:
        cut = -(-(start - rec.seq & SEQ_MASK) // mss) * mss
        if cut >= length:
            return False
    tcp_fragment(sk, index, cut, mss)
    return from_head


def _sacktag_one(sk: TcpSock, ack: AckState, rec: TxRec, *, dup: bool) -> None:
    """Account for one record that has arrived (tcp_sacktag_one)."""
    tp = sk.tp
    state = tcp_recovery(sk)
    sacked = rec.sacked
    if dup and sacked & TCPCB_RETRANS:
        marker = state.undo_marker
        if marker is not None and state.undo_retrans > 0 and after(rec.end_seq, marker):
            state.undo_retrans = max(0, state.undo_retrans - rec.pcount)
        if sacked & TCPCB_SACKED_ACKED:
            _note_reordering(ack, rec.seq)
    if not after(rec.end_seq, tp.snd_una):
        return
    if not sacked & TCPCB_SACKED_ACKED:
        tcp_rack_advance(sk, sacked, rec.end_seq, rec.sent_us)
        _newly_sacked(sk, ack, rec)
    if dup and rec.sacked & TCPCB_SACKED_RETRANS:
        rec.sacked &= ~TCPCB_SACKED_RETRANS
        tp.retrans_out -= rec.pcount


def _newly_sacked(sk: TcpSock, ack: AckState, rec: TxRec) -> None:
    tp = sk.tp
    state = tcp_recovery(sk)
    sacked = rec.sacked
    pcount = rec.pcount
    if sacked & TCPCB_SACKED_RETRANS:
        if sacked & TCPCB_LOST:
            sacked &= ~(TCPCB_LOST | TCPCB_SACKED_RETRANS)
            tp.lost_out -= pcount
            tp.retrans_out -= pcount
    else:
        if not sacked & TCPCB_RETRANS:
            if before(rec.seq, tcp_highest_sack_seq(sk)):
                _note_reordering(ack, rec.seq)  # it was in a hole: the later ones overtook it
            if not after(rec.end_seq, tp.high_seq):
                ack.flag |= FLAG_ORIG_SACK_ACKED
            ack.first_sackt_us = ack.first_sackt_us or rec.sent_us
            ack.last_sackt_us = rec.sent_us
        if sacked & TCPCB_LOST:
            sacked &= ~TCPCB_LOST
            tp.lost_out -= pcount
    rec.sacked = sacked | TCPCB_SACKED_ACKED
    state.tsorted.remove(rec)
    ack.newest_us = max(ack.newest_us, rec.sent_us)
    ack.flag |= FLAG_DATA_SACKED
    tp.sacked_out += pcount
    tcp_count_delivered(sk, pcount)
    if after(rec.end_seq, state.fack):
        state.fack = rec.end_seq


def _note_reordering(ack: AckState, seq: int) -> None:
    if ack.reord is None or before(seq, ack.reord):
        ack.reord = seq


def _can_merge(left: TxRec, right: TxRec) -> bool:
    """Whether two neighbours have both simply arrived, the left one in full segments."""
    return (
        left.sacked & TCPCB_TAGBITS == TCPCB_SACKED_ACKED
        and right.sacked & TCPCB_TAGBITS == TCPCB_SACKED_ACKED
        and left.mss == right.mss
        and left.pcount * left.mss == left.end_seq - left.seq & SEQ_MASK
    )


def _merge(sk: TcpSock, index: int) -> None:
    """Make one record of ``index`` and the one before it (tcp_shifted_skb)."""
    recs = tcp_rtx_queue(sk)
    right = recs.pop(index)
    left = recs[index - 1]
    left.end_seq = right.end_seq
    left.psh = left.psh or right.psh
    left.pcount += right.pcount
    left.sacked |= right.sacked & TCPCB_EVER_RETRANS
    sk.prot.mib_ext.TCPSackMerged += 1


def tcp_check_sack_reordering(sk: TcpSock, low_seq: int, *, by_timestamp: bool) -> None:
    """Data from ``low_seq`` on was overtaken, not lost: expect as much from now on.

    RFC 4653 in spirit; tcp_check_sack_reordering. The measure is the distance to the highest
    byte that had arrived, in segments, up to tcp_max_reordering.
    """
    tp = sk.tp
    fack = tcp_highest_sack_seq(sk)
    if not before(low_seq, fack):
        return
    state = tcp_recovery(sk)
    mss = tp.mss_cache
    metric = seq_diff(fack, low_seq)
    if metric > state.reordering * mss:
        state.reordering = min(-(-metric // mss), sk.prot.config.tcp_max_reordering)
    state.reord_seen += 1
    if by_timestamp:
        sk.prot.mib_ext.TCPTSReorder += 1
    else:
        sk.prot.mib_ext.TCPSACKReorder += 1
