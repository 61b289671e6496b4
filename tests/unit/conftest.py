"""Fixtures of several packages' tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture
def profiler() -> Iterator[None]:
    """Let pytest's own profiler, if any, have its place back."""
    before = sys.getprofile()
    sys.setprofile(None)
    yield
    left = sys.getprofile()
    sys.setprofile(before)
    assert left is None, "a trace was left running"
