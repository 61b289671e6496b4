"""The out-of-order queue against a model: a set of bytes by position."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from ustack.lib.seqnum import SEQ_MASK, seq_add, seq_diff
from ustack.tcp.ofo import REBASE, OutOfOrderQueue

LENGTH = 120
pieces = st.lists(
    st.tuples(st.integers(1, LENGTH - 1), st.integers(1, 40)), min_size=1, max_size=25
)
bases = st.sampled_from([0, 1, 0xFFFFFFFF, 0xFFFFFFF0, 0x7FFFFFF0, 123456789])
STREAM = bytes(range(1, LENGTH + 1))


def drained(queue: OutOfOrderQueue, base: int) -> bytes:
    """Byte 0 has filled the hole in front: return what can be read now."""
    out = STREAM[:1]
    while (taken := queue.take(seq_add(base, len(out)))) is not None:
        seq, end_seq, entry = taken
        skip = len(out) - seq_diff(seq, base)
        assert seq_diff(end_seq, seq) == len(entry.data)
        out += bytes(entry.data)[max(skip, 0) :] if skip < len(entry.data) else b""
    return out


@given(bases, pieces)
def test_any_overlap_and_order_gives_the_stream_back(base, segments):
    """RFC 9293 §3.10.7.4: segments may overlap and come in any order; each byte counts once."""
    queue = OutOfOrderQueue(base)
    have: set[int] = set()
    for start, length in segments:
        end = min(start + length, LENGTH)
        result = queue.insert(seq_add(base, start), STREAM[start:end])
        new = set(range(start, end))
        if not result.kept:
            assert new <= have
            assert result.duplicates == [(seq_add(base, start), seq_add(base, end))]
        for left, right in result.duplicates:
            twice = set(range(seq_diff(left, base), seq_diff(right, base)))
            assert twice <= new & have
        have |= new
    expected = 1
    while expected in have:
        expected += 1
    assert drained(queue, base) == STREAM[:expected]
    held = sum(len(entry.data) for entry in queue._entries)
    assert queue.nbytes == held
    ends = [entry.end for entry in queue._entries]
    assert ends == sorted(set(ends)), "what is covered is not kept"


@given(bases, pieces)
def test_sack_blocks_cover_the_newest_and_are_disjoint(base, segments):
    """RFC 2018 §4: the first block holds the segment that was just received."""
    queue = OutOfOrderQueue(base)
    for start, length in segments:
        end = min(start + length, LENGTH)
        queue.insert(seq_add(base, start), STREAM[start:end])
        queue.sack_new(seq_add(base, start), seq_add(base, end))
        first = [(left - base) % 2**32 for left in queue.sacks[0]]
        assert first[0] <= start
        assert end <= first[1]
        spans = sorted(
            ((left - base) % 2**32, (right - base) % 2**32) for left, right in queue.sacks
        )
        assert all(a[1] < b[0] for a, b in itertools.pairwise(spans))
    assert len(queue.sacks) <= 4


def test_a_hole_that_moves_through_the_whole_number_space_keeps_its_order():
    """Offsets stay small however far RCV.NXT goes while the queue never empties."""
    queue = OutOfOrderQueue(5)
    rcv_nxt, step = 5, REBASE // 2 + 77
    queue.insert(seq_add(rcv_nxt, step), b"a")
    for _ in range(12):
        queue.insert(seq_add(rcv_nxt, 2 * step), b"a")
        rcv_nxt = seq_add(rcv_nxt, step)
        taken = queue.take(rcv_nxt)
        assert taken is not None and taken[0] == rcv_nxt
        assert len(queue) == 1 and queue.end_after(rcv_nxt) == step + 1
    assert rcv_nxt == (5 + 12 * step) & SEQ_MASK


def test_what_follows_without_a_gap_is_joined():
    queue = OutOfOrderQueue(0)
    for start in range(10, 1000, 10):
        assert queue.insert(start, bytes(10)).kept
    assert len(queue) == 1 and queue.nbytes == 990


def test_what_a_joined_segment_covers_goes():
    queue = OutOfOrderQueue(0)
    for start, length in ((10, 10), (25, 1), (28, 4), (20, 10)):
        assert queue.insert(start, bytes(length)).kept
    assert [(entry.start, entry.end) for entry in queue._entries] == [(10, 30), (28, 32)]
    assert queue.nbytes == 24 and queue.end_after(0) == 32


def test_nothing_is_joined_behind_a_fin():
    queue = OutOfOrderQueue(0)
    queue.insert(10, b"ab", fin=True)
    queue.insert(13, b"c")
    assert len(queue) == 2
    assert queue.take(10)[2].fin


def test_the_end_gives_way_first_and_never_what_lies_before_the_new_segment():
    queue = OutOfOrderQueue(0)
    for start in (10, 30, 50):
        queue.insert(start, b"abc")
    assert queue.prune_last(60) == 0
    assert queue.prune_last(20) > 0 and queue.prune_last(20) > 0
    assert queue.prune_last(20) == 0 and len(queue) == 1
