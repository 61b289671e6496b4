"""The out-of-order queue: what arrived beyond RCV.NXT, waiting for the hole to be filled.

Made when a hole appears, gone when it is filled. Like Linux's tree it keeps segments as they
came, a FIN included: what an entry holds already is dropped, what a new one covers goes, and
what follows an entry without a gap is joined to it (tcp_data_queue_ofo). It also remembers
which blocks to report in SACK, most recent first (RFC 2018 §4; tcp_sack_new_ofo_skb).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from ustack.core.timer import Timer
from ustack.lib.pieces import Pieces
from ustack.lib.seqnum import SEQ_MASK, after, seq_diff

TCP_NUM_SACKS = 4
ENTRY_OVERHEAD = 256
"""What an entry costs beside its bytes: a peer that sends single bytes must pay for it."""
REBASE = 1 << 29
"""Offsets are taken from a new base before they could be mistaken for negative ones."""


class OfoEntry:
    """One segment, or several that follow each other; ``end`` counts a FIN."""

    __slots__ = ("data", "end", "fin", "start")

    def __init__(self, start: int, end: int, data: bytearray, *, fin: bool) -> None:
        self.start = start
        self.end = end
        self.data = data
        self.fin = fin


class Inserted(NamedTuple):
    """What became of a segment."""

    kept: bool
    merged: int
    """Segments that were dropped because another holds their bytes (TCPOFOMerge)."""
    duplicates: list[tuple[int, int]]
    """What came twice, in the order in which it was found: the stuff of a D-SACK."""


class OutOfOrderQueue:
    """Received segments beyond a hole; offsets are relative to a base near RCV.NXT."""

    __slots__ = (
        "_base",
        "_entries",
        "_starts",
        "charged_pages",
        "compressed_ack",
        "compressed_ack_timer",
        "dup_ack_counter",
        "dup_ack_rcv_nxt",
        "nbytes",
        "sacks",
    )

    def __init__(self, rcv_nxt: int) -> None:
        self._base = rcv_nxt
        self._starts: list[int] = []
        self._entries: list[OfoEntry] = []
        """Sorted by start; ends are sorted too, for what is covered is not kept."""
        self.nbytes = 0
        self.charged_pages = 0
        """What of it counts against tcp_mem, see rmem.py."""
        self.sacks: list[tuple[int, int]] = []
        """SACK blocks in sequence numbers, most recently changed first."""
        self.compressed_ack = 0
        """Duplicate ACKs that the next ACK stands for (tcp_comp_sack_nr)."""
        self.compressed_ack_timer: Timer | None = None
        self.dup_ack_rcv_nxt = rcv_nxt
        self.dup_ack_counter = 0
        """Duplicate ACKs sent for this RCV.NXT, none of them held back."""

    def __len__(self) -> int:
        return len(self._entries)

    def ranges(self) -> Iterator[tuple[int, int, bool]]:
        """Yield start, end (a FIN counted) and whether it has the FIN, of each entry in order."""
        for entry in self._entries:
            yield *self._range(entry.start, entry.end), entry.fin

    @property
    def truesize(self) -> int:
        """Bytes of memory that are held, bookkeeping included."""
        return self.nbytes + ENTRY_OVERHEAD * len(self._entries)

    @property
    def span(self) -> int:
        """Bytes from the base to the end of the last segment."""
        return self._entries[-1].end if self._entries else 0

    def end_after(self, rcv_nxt: int) -> int:
        """Return how far beyond RCV.NXT the last segment ends."""
        return self.span - seq_diff(rcv_nxt, self._base) if self._entries else 0

    def insert(
        self, seq: int, payload: bytes | memoryview | Pieces, *, fin: bool = False
    ) -> Inserted:
        """Keep a segment, unless its bytes are all here (tcp_data_queue_ofo)."""
        start = seq_diff(seq, self._base)
        end = start + len(payload) + fin
        i = bisect_right(self._starts, start)
        duplicates: list[tuple[int, int]] = []
        merged = 0
        if i:
            last = self._entries[i - 1]
            if end <= last.end:
                return Inserted(False, 1, [self._range(start, end)])
            if start == last.start:
                duplicates.append(self._range(start, last.end))
                merged = 1
                i -= 1
                self._remove(i)
            elif start < last.end:
                duplicates.append(self._range(start, last.end))
            elif start == last.end and not last.fin:
                self._join_to(last, end, payload, fin=fin)
                self._drop_covered(i, end)
                return Inserted(True, 0, [])
        while i < len(self._entries) and self._starts[i] < end:
            entry = self._entries[i]
            duplicates.append(self._range(entry.start, min(entry.end, end)))
            if entry.end > end:
                break
            self._remove(i)
            merged += 1
        self._starts.insert(i, start)
        self._entries.insert(i, OfoEntry(start, end, bytearray(bytes(payload)), fin=fin))
        self.nbytes += len(payload)
        return Inserted(True, merged, duplicates)

    def _range(self, start: int, end: int) -> tuple[int, int]:
        return self._base + start & SEQ_MASK, self._base + end & SEQ_MASK

    def _join_to(
        self, entry: OfoEntry, end: int, payload: bytes | memoryview | Pieces, *, fin: bool
    ) -> None:
        """Join what follows an entry without a gap."""
        entry.data += bytes(payload)
        entry.end, entry.fin = end, fin
        self.nbytes += len(payload)

    def _drop_covered(self, i: int, end: int) -> None:
        """Drop what a joined segment covers: Linux drops it later, reports it no more than we."""
        while i < len(self._entries) and self._entries[i].end <= end:
            self._remove(i)

    def _remove(self, i: int) -> None:
        self.nbytes -= len(self._entries[i].data)
        del self._entries[i], self._starts[i]

    def take(self, rcv_nxt: int) -> tuple[int, int, OfoEntry] | None:
        """Take out the first entry if it starts at or before ``rcv_nxt``.

        Returns:
            Its first sequence number, the one behind it, and the entry; None if there is a
            hole before it.
        """
        at = seq_diff(rcv_nxt, self._base)
        if not self._entries or self._starts[0] > at:
            return None
        entry = self._entries[0]
        self._remove(0)
        seq, end_seq = self._range(entry.start, entry.end)
        if at > REBASE:
            self._rebase(at)
        return seq, end_seq, entry

    def _rebase(self, shift: int) -> None:
        self._base = self._base + shift & SEQ_MASK
        for entry in self._entries:
            entry.start -= shift
            entry.end -= shift
        self._starts = [entry.start for entry in self._entries]

    def prune_last(self, seq: int) -> int:
        """Drop the last entry unless ``seq`` lies behind its start; return the bytes of memory
        that are free now (tcp_prune_ofo_queue)."""
        if not self._entries or seq_diff(seq, self._base) > self._starts[-1]:
            return 0
        freed = len(self._entries[-1].data) + ENTRY_OVERHEAD
        self._remove(len(self._entries) - 1)
        return freed

    def collapse(self) -> int:
        """Join each entry to the one before it if nothing is between them; return how many."""
        joined = 0
        for i in range(len(self._entries) - 1, 0, -1):
            before, entry = self._entries[i - 1], self._entries[i]
            if before.end < entry.start or before.fin:
                continue
            before.data += entry.data[before.end - entry.start :]
            self.nbytes -= before.end - entry.start
            before.end, before.fin = entry.end, entry.fin
            del self._entries[i], self._starts[i]
            joined += 1
        return joined

    # The blocks of SACK.

    def sack_new(self, seq: int, end_seq: int) -> int:
        """Report [seq, end_seq) first (tcp_sack_new_ofo_skb).

        Returns:
            The place of the block that it touches, as many as there are if it touches none.
        """
        for place, block in enumerate(self.sacks):
            if _touch(block, (seq, end_seq)):
                rest = self.sacks[:place] + self.sacks[place + 1 :]
                self.sacks = _coalesced(_join(block, (seq, end_seq)), rest)
                return place
        place = len(self.sacks)
        self.sacks = [(seq, end_seq), *self.sacks][:TCP_NUM_SACKS]
        return place

    def sack_remove(self, rcv_nxt: int) -> None:
        """Forget blocks that RCV.NXT has passed (tcp_sack_remove)."""
        self.sacks = [b for b in self.sacks if after(b[0], rcv_nxt)] if self._entries else []


def _touch(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether two ranges overlap or follow each other (tcp_sack_extend)."""
    return not after(b[0], a[1]) and not after(a[0], b[1])


def _join(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    return (b[0] if after(a[0], b[0]) else a[0], b[1] if after(b[1], a[1]) else a[1])


def _coalesced(first: tuple[int, int], rest: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join to the first block, grown, what it touches now (tcp_sack_maybe_coalesce)."""
    apart = []
    for block in rest:
        if _touch(first, block):
            first = _join(first, block)
        else:
            apart.append(block)
    return [first, *apart]


def extend(block: tuple[int, int], seq: int, end_seq: int) -> tuple[int, int]:
    """Return ``block`` grown by a range that touches it, else as it is (tcp_dsack_extend)."""
    return _join(block, (seq, end_seq)) if _touch(block, (seq, end_seq)) else block
