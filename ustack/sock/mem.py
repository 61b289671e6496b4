"""A protocol's share of memory, in pages: what tcp_mem and udp_mem count (net/core/sock.c)."""

from __future__ import annotations

from ustack.native.mem import PAGE_SIZE

Limits = tuple[int, int, int]


def limits_by_arena(arena_bytes: int) -> Limits:
    """Return the limits of a protocol that nobody has set any for (tcp_init_mem, udp_init).

    Linux takes an eighth of the machine's memory at most. The arena is there for nothing else:
    the limits are 3/8, 1/2 and 3/4 of it.
    """
    limit = max(arena_bytes // PAGE_SIZE // 2, 128)
    low = limit // 4 * 3
    return low, limit, 2 * low


def sk_mem_pages(size: int) -> int:
    """Return how many pages ``size`` bytes take."""
    return -(-size // PAGE_SIZE)
