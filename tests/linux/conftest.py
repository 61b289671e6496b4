"""A namespace and a daemon for each test module; without root or a TAP nothing here can run.

With CI in the environment that is a failure: a machine that cannot run these tests has not passed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.lab import CI, Daemon, Namespace, tools_missing

NEEDED = ["ip", "tcpdump", "ping", "curl", "nc", "ethtool", "iperf3"]


@pytest.fixture(scope="session", autouse=True)
def machine() -> None:
    """Hold that this machine can run the tests of this folder."""
    if missing := tools_missing(NEEDED):
        why = f"missing: {', '.join(missing)}"
        if CI:
            pytest.fail(why)
        pytest.skip(why)


@pytest.fixture(scope="module")
def ns() -> Iterator[Namespace]:
    """A network namespace of this module's own."""
    with Namespace() as namespace:
        yield namespace


@pytest.fixture(scope="module")
def www(ns: Namespace) -> Path:
    """The folder that the daemon's http service serves."""
    folder = ns.folder / "www"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module", params=["offloads on", "offloads off"])
def daemon(ns: Namespace, www: Path, request: pytest.FixtureRequest) -> Iterator[Daemon]:
    """ustackd with all its services, with the TAP's offloads and without."""
    services = f"echo,discard,chargen,http={www}"
    with Daemon(ns, serve=services, offloads=request.param == "offloads on") as running:
        yield running
