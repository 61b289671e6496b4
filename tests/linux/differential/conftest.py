"""The kernel's players, one set for the whole run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kit.differential.players import KernelPlayers


@pytest.fixture(scope="session")
def players(machine: None) -> Iterator[KernelPlayers]:
    """Programs in namespaces that play scripts against the running kernel."""
    del machine
    with KernelPlayers() as running:
        yield running
