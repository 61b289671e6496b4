"""The host that packet scripts talk to."""

from __future__ import annotations

import pytest

from kit.host import Host, host


@pytest.fixture
def server() -> Host:
    """10.0.0.2 with a plain igb; scripted peers are at 10.0.0.1."""
    return host()
