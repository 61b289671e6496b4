"""Connections that come and go through every state: memory is what it was before."""

from __future__ import annotations

import pytest

from kit.churn import ROUND, Memory, churn
from kit.crowd import Crowd


def nothing_is_left(crowd: Crowd, connections: int) -> list[Memory]:
    """Let connections come and go; return what was in use, which is the same each time."""
    samples = list(churn(crowd, connections))
    assert all(sample.left == samples[0].left for sample in samples)
    return samples


def test_some_thousand_connections_leave_nothing_behind():
    nothing_is_left(Crowd(arena_bytes=64 << 20), 4 * ROUND)


def test_nor_do_they_where_every_idle_one_loses_its_object():
    nothing_is_left(Crowd(arena_bytes=64 << 20, live_socks=1), 4 * ROUND)


def test_nor_where_timestamps_pass_the_sign():
    crowd = Crowd(arena_bytes=64 << 20)
    crowd.wait(((1 << 31) - 100_000) * 1000)
    nothing_is_left(crowd, 2 * ROUND)
    assert crowd.now_us > (1 << 31) * 1000


@pytest.mark.long
def test_ten_million_connections_leave_memory_flat():
    _, early, *_, late = nothing_is_left(Crowd(arena_bytes=64 << 20), 10_000_000)
    assert late.rss_bytes - early.rss_bytes < 4 << 20
    assert late.python_objects - early.python_objects < 2000  # ten for each of 146 addresses
