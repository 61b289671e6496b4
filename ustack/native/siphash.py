"""SipHash-2-4: keyed hashes for what a stranger must not foresee.

Initial sequence numbers (RFC 6528), ports (RFC 6056), SYN cookies and hash tables.
Linux: lib/siphash.c.
"""

from __future__ import annotations

from ustack.native.lib import lib

KEY_BYTES = 16
_siphash_2u64 = lib.us_siphash_2u64


def siphash_2u64(key: bytes, a: int, b: int) -> int:
    """Return the 64-bit hash of two 64-bit words.

    Raises:
        ValueError: ``key`` has not 16 bytes: a bug of the caller.
        OverflowError: A word has more than 64 bits: a bug of the caller.
    """
    if len(key) != KEY_BYTES:
        raise ValueError(f"a siphash key has {KEY_BYTES} bytes, not {len(key)}")
    value: int = _siphash_2u64(key, a, b)
    return value


def siphash(key: bytes, data: bytes) -> int:
    """Return the 64-bit hash of ``data``.

    Raises:
        ValueError: ``key`` has not 16 bytes: a bug of the caller.
    """
    if len(key) != KEY_BYTES:
        raise ValueError(f"a siphash key has {KEY_BYTES} bytes, not {len(key)}")
    value: int = lib.us_siphash(key, data, len(data))
    return value
