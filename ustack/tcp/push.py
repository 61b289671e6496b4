"""Which segments carry PSH: the end of every write, and one in half of the peer's window.

Linux marks the last packet of the send queue (tcp_mark_push). Here the queue is bytes, so a
mark is a sequence number: ``pushed_seq`` is the newest, and ``sk.push_marks`` exists only
while more than that one waits to be sent. What has been sent keeps its mark in the log of
transmissions (US_TX_PSH).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ustack.lib.seqnum import SEQ_MASK, after, before

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock


def forced_push(tp: Any, seq: int) -> bool:
    """Whether half of the largest window up to ``seq`` is without a mark (forced_push)."""
    return after(seq, tp.pushed_seq + (tp.max_window >> 1) & SEQ_MASK)


def tcp_mark_push(sk: TcpSock, seq: int) -> None:
    """Have the segment that takes the queue up to ``seq`` carry PSH (tcp_mark_push)."""
    tp = sk.tp
    marks = sk.push_marks
    if marks is None and seq != tp.pushed_seq and after(tp.pushed_seq, tp.snd_nxt):
        marks = sk.push_marks = [tp.pushed_seq]
    if marks is not None:
        marks.append(seq)
    tp.pushed_seq = seq


def tcp_mark_written(sk: TcpSock, length: int, goal: int) -> None:
    """Mark what must be pushed of the last ``length`` bytes written, but for their end.

    A mark at the end of a packet that is filled up goes; then each packet of ``goal`` bytes
    gets one if it has been that long (the loop of tcp_sendmsg_locked).
    """
    tp = sk.tp
    end = tp.write_seq
    start = end - length & SEQ_MASK
    tail = (start - tp.snd_nxt & SEQ_MASK) % goal
    if tail and tp.pushed_seq == start:
        if sk.push_marks is None:
            sk.push_marks = []
        elif sk.push_marks and sk.push_marks[-1] == start:
            sk.push_marks.pop()
    filled = start + goal - tail & SEQ_MASK
    while before(filled, end):
        if forced_push(tp, filled):
            tcp_mark_push(sk, filled)
        filled = filled + goal & SEQ_MASK


def tcp_grow_push(sk: TcpSock, length: int) -> None:
    """Move a mark to the end of the ``length`` unsent bytes that it lies in (tcp_grow_skb).

    So many go out as one packet if the windows let them, and one that grows keeps its flags.
    """
    tp = sk.tp
    marks = sk.push_marks
    if marks is None:
        if tp.pushed_seq == tp.write_seq or not after(tp.pushed_seq, tp.snd_nxt):
            return
        marks = [tp.pushed_seq]
    unsent = (tp.write_seq - tp.snd_nxt & SEQ_MASK) - tp.fin_queued
    end = tp.snd_nxt + min(length, unsent) & SEQ_MASK
    if marks and before(marks[0], end):
        sk.push_marks = [end, *(mark for mark in marks if after(mark, end))]


def tcp_take_push(sk: TcpSock, end_seq: int) -> bool:
    """Whether the segment from SND.NXT to ``end_seq`` carries PSH; its marks are taken off."""
    tp = sk.tp
    marks = sk.push_marks
    if marks is None:
        return after(tp.pushed_seq, tp.snd_nxt) and not after(tp.pushed_seq, end_seq)
    psh = False
    while marks and not after(marks[0], end_seq):
        marks.pop(0)
        psh = True
    if not after(tp.pushed_seq, end_seq):
        sk.push_marks = None
    return psh
