"""Sequence-number arithmetic against plain integers modulo 2**32."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ustack.lib.seqnum import after, before, seq_add, seq_diff, seq_max, seq_min

seqs = st.integers(0, 2**32 - 1)
steps = st.integers(-(2**31) + 1, 2**31 - 1)


@given(seqs, steps)
def test_the_distance_of_a_moved_number_is_the_move(seq, step):
    assert seq_diff(seq_add(seq, step), seq) == step


@given(seqs, steps)
def test_before_and_after_follow_the_move_across_the_wrap(seq, step):
    moved = seq_add(seq, step)
    assert before(seq, moved) == (step > 0)
    assert after(seq, moved) == (step < 0)
    assert seq_max(seq, moved) == (moved if step > 0 else seq)
    assert seq_min(seq, moved) == (moved if step < 0 else seq)


def test_the_wrap_itself():
    assert before(0xFFFFFFFF, 0)
    assert after(0, 0xFFFFFFFF)
    assert seq_add(0xFFFFFFFF, 1) == 0
    assert seq_diff(5, 0xFFFFFFFB) == 10
