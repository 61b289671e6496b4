"""What two kernels reach over the bottleneck: a namespace each, and kit.relay between them."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path as File

import kit.relay
import kit.traffic
from kit.bottleneck import Path
from kit.lab import Namespace
from kit.relay import THERE

RELAY = str(File(kit.relay.__file__))
TRAFFIC = str(File(kit.traffic.__file__))
FIRST = ("chrt", "-r", "5")
"""Both ends run before what else there is to do on this machine; the relay before them."""


@dataclass
class Joined:
    """Two namespaces and the path between them; ``report`` is the relay's, once it has ended."""

    reader: Namespace
    sender: Namespace
    report: dict[str, int]


@contextlib.contextmanager
def joined(path: Path, seed: int) -> Iterator[Joined]:
    """Make the namespaces and the relay."""
    with Namespace("reader") as reader, Namespace("sender") as sender:
        both = Joined(reader, sender, {})
        relay = (sys.executable, RELAY, str(path), str(seed), sender.name)
        with reader.serving(*relay) as child:
            yield both
            child.terminate()
            assert child.stdout is not None
            both.report.update(json.loads(child.stdout.read()))


def linux_goodput(path: Path, cc: str, seed: int, seconds: float) -> tuple[float, dict[str, int]]:
    """Have one kernel read from another for so long; Mbit/s, and the sender's and wire's counters.

    The route names the congestion control: ``cubic`` cannot be a namespace's sysctl everywhere.
    """
    with joined(path, seed) as both:
        sender = both.sender
        sender.output("ip", "route", "replace", "10.0.7.0/24", "dev", "tap1", "congctl", cc)
        with sender.serving(*FIRST, sys.executable, TRAFFIC, "chargen", THERE, "5001"):
            mbit_s = fetched(both, THERE, seconds)
            counters = sender.nstat()
    return mbit_s, counters | both.report


def fetched(both: Joined, address: str, seconds: float) -> float:
    """Have the reader read from a server for so long; Mbit/s."""
    answer = both.reader.output(
        *FIRST, sys.executable, TRAFFIC, "fetch", address, "5001", str(seconds),
        timeout_s=seconds + 60,
    )  # fmt: skip
    got = json.loads(answer)
    return float(got["bytes"]) * 8 / float(got["seconds"]) / 1e6
