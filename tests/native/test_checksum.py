"""The C checksum does what RFC 1071 says: compared with its definition in plain Python."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ustack.native.checksum import (
    csum_block_add,
    csum_fold,
    csum_partial,
    csum_tcpudp_magic,
    csum_tcpudp_nofold,
    ip_fast_csum,
)

U32 = st.integers(0, 2**32 - 1)
U16 = st.integers(0, 2**16 - 1)
U8 = st.integers(0, 255)
PATTERN = bytes(range(251))
BYTES = st.binary(max_size=200) | st.integers(0, 70_000).map(
    lambda n: (PATTERN * (n // 251 + 1))[:n]
)


def fold(total: int) -> int:
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def plain_sum(data: bytes, start: int = 0) -> int:
    """Return the ones-complement sum, word by word as RFC 1071 §1 describes it."""
    if len(data) % 2:
        data += b"\0"
    return fold(start + sum(word for (word,) in struct.iter_unpack(">H", data)))


@given(BYTES, U32)
def test_sum_is_that_of_the_definition(data, start):
    assert csum_partial(data, start) == plain_sum(data, start)


@given(st.binary(max_size=80), st.integers(0, 80), st.integers(0, 80))
def test_any_slice_of_a_buffer_can_be_summed(data, begin, end):
    expected = plain_sum(data[begin:end])
    assert csum_partial(memoryview(data)[begin:end]) == expected
    assert csum_partial(bytearray(data)[begin:end]) == expected


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_sums_of_two_pieces_join_at_odd_offsets_too(first, second):
    joined = csum_block_add(csum_partial(first), csum_partial(second), len(first))
    assert joined == plain_sum(first + second)


@given(U32)
def test_fold_is_the_complement_of_the_sum(total):
    assert csum_fold(total) == ~fold(total) & 0xFFFF


@given(U32, U32, U16, U8, st.binary(max_size=100))
def test_pseudo_header_is_summed_as_it_would_stand_before_the_segment(
    saddr, daddr, length, proto, data
):
    pseudo = struct.pack(">IIxBH", saddr, daddr, proto, length)
    total = csum_tcpudp_nofold(saddr, daddr, length, proto, 0)
    assert total == plain_sum(pseudo)
    checksum = csum_tcpudp_magic(saddr, daddr, length, proto, csum_partial(data))
    assert checksum == ~plain_sum(data, total) & 0xFFFF


def test_known_ipv4_header():
    header = bytearray.fromhex("45000073000040004011 b861 c0a80001c0a800c7")
    assert ip_fast_csum(header) == 0
    header[10:12] = b"\0\0"
    assert ip_fast_csum(bytes(header)) == 0xB861


def test_what_is_not_bytes_is_refused():
    with pytest.raises(TypeError):
        csum_partial("text")
    with pytest.raises(OverflowError):
        csum_partial(b"", -1)
