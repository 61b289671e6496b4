"""Large pings between the kernel and the stack, both ways, over a real TAP of MTU 1500."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from kit.lab import Daemon, Namespace

HERE = Path(__file__).parent


def counters(daemon: Daemon) -> dict[str, int]:
    """Return the stack's counters, as nstat names them."""
    rows = re.findall(r"^(\w+)\s+(\d+)", daemon.cli("nstat", "-az"), flags=re.M)
    return {name: int(value) for name, value in rows}


@pytest.mark.parametrize("size", [1473, 2000, 4000, 9000, 65_000, 65_507])
def test_linux_pings_the_stack_with_any_size(ns: Namespace, daemon: Daemon, size: int):
    before = counters(daemon)
    text = ns.ping("10.0.0.2", "-s", str(size), count=5)
    assert "wrong data" not in text and "Frag" not in text
    after = counters(daemon)
    assert after["IpReasmOKs"] - before["IpReasmOKs"] == 5
    assert after["IpFragOKs"] - before["IpFragOKs"] == 5
    pieces = -(-(size + 8) // 1480)
    assert after["IpFragCreates"] - before["IpFragCreates"] == 5 * pieces
    assert after["IpReasmReqds"] - before["IpReasmReqds"] == 5 * pieces


def test_a_flood_of_large_pings_loses_nothing(ns: Namespace, daemon: Daemon):
    # As much as is on its way at a time on a slow machine: 44 fragments each.
    ns.output("ip", "link", "set", daemon.tap, "txqueuelen", "20000")
    assert ns.flood("10.0.0.2", 300, "-s", "65000") == 300


@pytest.mark.parametrize(
    ("seed", "size", "mtu"), [(1, 65_000, 1500), (2, 9000, 200), (3, 3000, 68)]
)
def test_fragments_in_any_order_some_twice_are_answered(
    ns: Namespace, daemon: Daemon, seed: int, size: int, mtu: int
):
    program = str(HERE / "raw_echo.py")
    text = ns.output(sys.executable, program, daemon.tap, str(seed), str(size), str(mtu))
    assert "right" in text


def test_linux_sees_the_route_that_its_ping_recorded(ns: Namespace, daemon: Daemon):
    text = ns.ping("10.0.0.2", "-R")
    route = re.findall(r"^(?:RR:)?\s+(10\.0\.0\.\d)$", text.replace("RR: ", "RR:\t"), flags=re.M)
    assert route == ["10.0.0.1", "10.0.0.2", "10.0.0.2", "10.0.0.1"], text


def test_linux_sees_the_times_that_its_ping_asked_for(ns: Namespace, daemon: Daemon):
    text = ns.ping("10.0.0.2", "-T", "tsandaddr")
    assert "1 received" in text, text
    assert (
        len(re.findall(r"10\.0\.0\.2\s+-?\d+ (?:absolute not-standard|not-standard)?", text)) >= 1
    )


@pytest.mark.tap
@pytest.mark.parametrize("mode", ["vnet", "bare"])
def test_the_stack_pings_linux_with_any_size(mode: str):
    with Namespace() as own:
        before = own.nstat()
        seen = json.loads(own.output(sys.executable, str(HERE / "ping_host.py"), "tap1", mode))
        after = own.nstat()
    assert seen == {
        "intact": [0, 1, 56, 1472, 1473, 4000, 65_000, 65_507],
        "ttl": [64],
        "burst": 20,
        "lost": [3, 1],
        "counters": {
            "OutEchos": 29, "InEchoReps": 28, "ReasmOKs": 24, "ReasmFails": 0, "FragOKs": 24,
        },
    }  # fmt: skip
    assert after["IpReasmOKs"] - before["IpReasmOKs"] == 24
    assert after["IcmpInCsumErrors"] == before["IcmpInCsumErrors"]
