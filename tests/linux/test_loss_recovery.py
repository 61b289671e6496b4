"""ustack sends, a kernel receives, and the wire between them loses and reorders."""

from __future__ import annotations

import hashlib
import random
import re
from pathlib import Path

import pytest

from kit.lab import Daemon, Namespace

pytestmark = pytest.mark.tap
SIZE = 2_000_000


@pytest.fixture(scope="module")
def page(ns: Namespace) -> Path:
    """A folder with two megabytes in it."""
    folder = ns.folder / "lost"
    folder.mkdir()
    (folder / "page").write_bytes(random.Random(6).randbytes(SIZE))
    return folder


def fetched(ns: Namespace, page: Path, faults: str) -> dict[str, int]:
    """Let curl take the page over a wire with ``faults``; return the stack's counters."""
    with Daemon(ns, "--impair", faults, serve=f"http={page}") as daemon:
        body = ns.run(
            "curl", "-sSf", "-m", "100", "http://10.0.0.2/page", text=False, timeout_s=110
        ).stdout
        assert (
            hashlib.sha256(body).digest() == hashlib.sha256((page / "page").read_bytes()).digest()
        )
        text = daemon.cli("nstat", "-az")
    return {name: int(value) for name, value in re.findall(r"^(\w+)\s+(\d+)", text, re.MULTILINE)}


def test_losses_are_repaired_by_sack_and_hardly_ever_by_timeout(ns: Namespace, page: Path):
    seen = fetched(ns, page, "loss=2%,delay=5ms,way=sent,seed=11")
    assert seen["TcpExtTCPSackRecovery"] >= 3
    assert seen["TcpExtTCPFastRetrans"] >= 10
    assert seen["TcpExtTCPTimeouts"] <= seen["TcpExtTCPFastRetrans"] // 4
    assert seen["TcpRetransSegs"] < SIZE // 1448 // 8


def test_the_kernels_sacks_tell_of_reordering(ns: Namespace, page: Path):
    seen = fetched(ns, page, "reorder=2%,delay=5ms,way=sent,seed=12")
    assert seen["TcpExtTCPSACKReorder"] + seen["TcpExtTCPTSReorder"] >= 1
    assert seen["TcpExtTCPTimeouts"] <= 2


def test_the_kernels_d_sacks_arrive(ns: Namespace, page: Path):
    seen = fetched(ns, page, "loss=3%,reorder=5%,delay=5ms,seed=13")
    assert seen["TcpExtTCPSackRecovery"] >= 1
