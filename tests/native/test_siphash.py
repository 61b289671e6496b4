"""The C hash is SipHash-2-4: compared with a version in plain Python and the published vector."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ustack.native.siphash import siphash, siphash_2u64

MASK = 2**64 - 1
U64 = st.integers(0, MASK)
KEY = st.binary(min_size=16, max_size=16)


def rotate(word: int, bits: int) -> int:
    return (word << bits | word >> (64 - bits)) & MASK


def rounds(v: list[int], count: int) -> None:
    for _ in range(count):
        for a, b, c, d, first, second in ((0, 1, 2, 3, 13, 16), (2, 1, 0, 3, 17, 21)):
            v[a] = (v[a] + v[b]) & MASK
            v[c] = (v[c] + v[d]) & MASK
            v[b] = rotate(v[b], first) ^ v[a]
            v[d] = rotate(v[d], second) ^ v[c]
            v[a] = rotate(v[a], 32)


def plain_siphash(key: bytes, data: bytes) -> int:
    """SipHash-2-4 after its paper, section 2."""
    k0, k1 = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    text = b"somepseudorandomlygeneratedbytes"
    start = [int.from_bytes(text[i : i + 8], "big") for i in range(0, 32, 8)]
    v = [word ^ k for word, k in zip(start, (k0, k1, k0, k1), strict=True)]
    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) % 256])
    for i in range(0, len(padded), 8):
        word = int.from_bytes(padded[i : i + 8], "little")
        v[3] ^= word
        rounds(v, 2)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(v, 4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def test_the_vector_of_the_paper():
    assert siphash(bytes(range(16)), bytes(range(15))) == 0xA129CA6149BE45E5


@given(KEY, st.binary(max_size=300))
def test_hash_is_that_of_the_definition(key, data):
    assert siphash(key, data) == plain_siphash(key, data)


@given(KEY, U64, U64)
def test_two_words_hash_as_their_little_endian_bytes(key, a, b):
    data = a.to_bytes(8, "little") + b.to_bytes(8, "little")
    assert siphash_2u64(key, a, b) == plain_siphash(key, data)


@pytest.mark.parametrize("length", [0, 15, 17])
def test_a_key_of_another_length_is_refused(length):
    with pytest.raises(ValueError):
        siphash_2u64(bytes(length), 1, 2)
    with pytest.raises(ValueError):
        siphash(bytes(length), b"")
