"""Bodies by length and in chunks, however they are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ustack.daemon.services.http_body import body_reader
from ustack.daemon.services.http_request import HttpError


def feed(length: int | None, data: bytes, size: int) -> tuple[bytes, int, bool]:
    """Feed ``data`` in steps; return the body, how much was taken, whether it is complete."""
    got = bytearray()
    reader = body_reader(length, got.extend)
    taken = 0
    while taken < len(data) and not reader.complete:
        step = memoryview(data)[taken : taken + size]
        n = reader.feed(step)
        taken += n
        assert n == len(step) or reader.complete
    return bytes(got), taken, reader.complete


@given(st.binary(max_size=50), st.binary(max_size=10), st.integers(1, 20))
def test_a_body_by_length_ends_where_it_should(body: bytes, behind: bytes, size: int):
    assert feed(len(body), body + behind, size) == (body, len(body), True)


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=5),
    st.sampled_from([b"", b";name=value"]),
    st.sampled_from([b"", b"Trailer: x\r\n"]),
    st.integers(1, 60),
)
def test_chunks_are_joined_and_the_rest_is_left(
    chunks: list[bytes], extension: bytes, trailer: bytes, size: int
):
    wire = b"".join(b"%x%s\r\n%s\r\n" % (len(c), extension, c) for c in chunks)
    wire += b"0\r\n" + trailer + b"\r\n"
    assert feed(None, wire + b"GET /next", size) == (b"".join(chunks), len(wire), True)


@pytest.mark.parametrize(
    "wire",
    [
        b"\r\n",
        b"xyz\r\n",
        b"-1\r\n",
        b"0x10\r\n",
        b"5\n",
        b"3\r\nabcdef\r\n",
        b"3\r\nabc\n",
        b"1" * 300,
        b"1;" + b"x" * 300 + b"\r\n",
        b"fffffffffffffffff\r\n",
        b"0\r\n" + b"A: b\r\n" * 3000 + b"\r\n",
    ],
)
@pytest.mark.parametrize("size", [1, 1000])
def test_malformed_chunks_are_refused(wire: bytes, size: int):
    with pytest.raises(HttpError) as caught:
        feed(None, wire, size)
    assert caught.value.status == 400


def test_an_unfinished_chunk_waits():
    assert feed(None, b"5\r\nab", 100) == (b"ab", 5, False)
