"""Arithmetic on 32-bit sequence numbers (RFC 9293 §3.4).

All of TCP's comparisons go through here: ``<`` and ``max`` are wrong across the wrap.
Linux's ``before()`` and ``after()`` are the reference.
"""

from __future__ import annotations

SEQ_MASK = 0xFFFFFFFF


def seq_add(seq: int, n: int) -> int:
    """Return ``seq`` moved by ``n`` (which may be negative), modulo 2**32."""
    return (seq + n) & SEQ_MASK


def seq_diff(a: int, b: int) -> int:
    """Return the signed distance ``a - b``, from -2**31 to 2**31 - 1."""
    return ((a - b + 0x80000000) & SEQ_MASK) - 0x80000000


def before(a: int, b: int) -> bool:
    """Whether ``a`` lies before ``b`` in sequence space."""
    return ((a - b) & 0x80000000) != 0


def after(a: int, b: int) -> bool:
    """Whether ``a`` lies after ``b`` in sequence space."""
    return ((b - a) & 0x80000000) != 0


def seq_max(a: int, b: int) -> int:
    """Return the later of two sequence numbers."""
    return b if before(a, b) else a


def seq_min(a: int, b: int) -> int:
    """Return the earlier of two sequence numbers."""
    return a if before(a, b) else b
