"""The out-of-order queue: what arrived beyond RCV.NXT, waiting for the hole to be filled.

Made when a hole appears, gone when it is filled. Ranges are kept sorted and disjoint; bytes
that are already here are not stored twice (tcp_data_queue_ofo, RFC 9293 §3.10.7.4 seventh
check). It also remembers which blocks to report in SACK, most recent first (RFC 2018 §4).
"""

from __future__ import annotations

from bisect import bisect_right

from ustack.lib.pieces import Pieces
from ustack.lib.seqnum import SEQ_MASK, after, before, seq_diff

TCP_NUM_SACKS = 4
RANGE_OVERHEAD = 256
"""What a range costs beside its bytes: a peer that sends single bytes must pay for it."""


class OutOfOrderQueue:
    """Received ranges beyond a hole; sequence numbers relative to the queue's first RCV.NXT."""

    __slots__ = ("_base", "_ranges", "_starts", "fin_seq", "nbytes", "sacks")

    def __init__(self, rcv_nxt: int) -> None:
        self._base = rcv_nxt
        self._starts: list[int] = []
        self._ranges: list[tuple[int, int, bytes]] = []
        """(start, end, payload), offsets from the base, sorted, disjoint."""
        self.nbytes = 0
        self.fin_seq: int | None = None
        """Where a FIN that came early stands."""
        self.sacks: list[tuple[int, int]] = []
        """SACK blocks in sequence numbers, most recently changed first."""

    def __len__(self) -> int:
        return len(self._ranges)

    @property
    def truesize(self) -> int:
        """Bytes of memory that are held, bookkeeping included."""
        return self.nbytes + RANGE_OVERHEAD * len(self._ranges)

    def insert(self, seq: int, payload: bytes | memoryview | Pieces) -> int:
        """Keep the bytes of ``payload`` that are not here yet; return how many those are."""
        start = seq_diff(seq, self._base)
        end = start + len(payload)
        added = 0
        pieces: list[tuple[int, int]] = []
        at = start
        i = max(0, bisect_right(self._starts, start) - 1)
        while i < len(self._ranges) and at < end:
            have_start, have_end, _ = self._ranges[i]
            if have_start >= end:
                break
            if at < have_start:
                pieces.append((at, have_start))
            at = max(at, have_end)
            i += 1
        if at < end:
            pieces.append((at, end))
        for lo, hi in pieces:
            self._add(lo, hi, bytes(payload[lo - start : hi - start]))
            added += hi - lo
        self.nbytes += added
        self._sack_new(start, end)
        return added

    def _add(self, start: int, end: int, data: bytes) -> None:
        i = bisect_right(self._starts, start)
        self._starts.insert(i, start)
        self._ranges.insert(i, (start, end, data))

    def _sack_new(self, start: int, end: int) -> None:
        """Put the block that holds [start, end) first, merged with what it touches."""
        lo = (self._base + start) & SEQ_MASK
        hi = (self._base + end) & SEQ_MASK
        rest = []
        for left, right in self.sacks:
            if after(left, hi) or before(right, lo):
                rest.append((left, right))
            else:
                lo = left if before(left, lo) else lo
                hi = right if after(right, hi) else hi
        self.sacks = [(lo, hi), *rest][:TCP_NUM_SACKS]

    def take(self, rcv_nxt: int) -> bytes | None:
        """Return the bytes that now continue the stream at ``rcv_nxt``, None if none do."""
        at = seq_diff(rcv_nxt, self._base)
        passed = 0
        while passed < len(self._ranges) and self._ranges[passed][1] <= at:
            passed += 1
        self._pop_first(passed)
        if not self._ranges or self._ranges[0][0] > at:
            self._drop_sacks_upto(rcv_nxt)
            return None
        start, _, data = self._ranges[0]
        self._pop_first(1)
        return data[at - start :]

    def _pop_first(self, count: int) -> None:
        self.nbytes -= sum(end - start for start, end, _ in self._ranges[:count])
        del self._ranges[:count], self._starts[:count]

    def _drop_sacks_upto(self, rcv_nxt: int) -> None:
        """Forget blocks that RCV.NXT has passed (tcp_sack_remove)."""
        self.sacks = [block for block in self.sacks if after(block[0], rcv_nxt)]
