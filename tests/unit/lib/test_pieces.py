"""Pieces behave as the bytes that they are made of."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ustack.lib.pieces import Pieces


@given(st.lists(st.binary(max_size=9), max_size=5), st.integers(0, 50), st.integers(0, 50))
def test_length_and_slices_are_those_of_the_joined_bytes(parts: list[bytes], start: int, stop: int):
    joined = b"".join(parts)
    pieces = Pieces([memoryview(part) for part in parts])
    assert len(pieces) == len(joined)
    assert bytes(pieces) == joined
    assert bool(pieces) == bool(joined)
    assert bytes(pieces[start:stop]) == joined[start:stop]
    assert bytes(pieces[start:]) == joined[start:]
    assert bytes(pieces[:stop]) == joined[:stop]
    assert len(pieces[start:stop]) == len(joined[start:stop])
