"""The out-of-order queue against a model: a set of bytes by position."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from ustack.lib.seqnum import seq_add
from ustack.tcp.ofo import OutOfOrderQueue

LENGTH = 120
pieces = st.lists(
    st.tuples(st.integers(1, LENGTH - 1), st.integers(1, 40)), min_size=1, max_size=25
)
bases = st.sampled_from([0, 1, 0xFFFFFFFF, 0xFFFFFFF0, 0x7FFFFFF0, 123456789])
STREAM = bytes(range(1, LENGTH + 1))


@given(bases, pieces)
def test_any_overlap_and_order_gives_the_stream_back(base, segments):
    """RFC 9293 §3.10.7.4: segments may overlap and come in any order; each byte counts once."""
    queue = OutOfOrderQueue(base)
    have: set[int] = set()
    for start, length in segments:
        end = min(start + length, LENGTH)
        added = queue.insert(seq_add(base, start), STREAM[start:end])
        fresh = set(range(start, end)) - have
        assert added == len(fresh)
        have |= fresh
    assert queue.nbytes == len(have)
    rcv_nxt = 1  # byte 0 has filled the hole in front
    out = STREAM[:1]
    while (data := queue.take(seq_add(base, rcv_nxt))) is not None:
        out += data
        rcv_nxt += len(data)
    expected = 1
    while expected in have:
        expected += 1
    assert out == STREAM[:expected]
    assert queue.nbytes == len({i for i in have if i >= rcv_nxt})


@given(bases, pieces)
def test_sack_blocks_cover_the_newest_and_are_disjoint(base, segments):
    """RFC 2018 §4: the first block holds the segment that was just received."""
    queue = OutOfOrderQueue(base)
    for start, length in segments:
        end = min(start + length, LENGTH)
        queue.insert(seq_add(base, start), STREAM[start:end])
        first = [(left - base) % 2**32 for left in queue.sacks[0]]
        assert first[0] <= start
        assert end <= first[1]
        spans = sorted(
            ((left - base) % 2**32, (right - base) % 2**32) for left, right in queue.sacks
        )
        assert all(a[1] < b[0] for a, b in itertools.pairwise(spans))
    assert len(queue.sacks) <= 4


def test_blocks_that_the_stream_has_passed_are_forgotten():
    queue = OutOfOrderQueue(100)
    queue.insert(110, b"x" * 10)
    queue.insert(130, b"y" * 10)
    assert queue.sacks == [(130, 140), (110, 120)]
    assert queue.take(110) == b"x" * 10
    assert queue.take(120) is None
    assert queue.sacks == [(130, 140)]
