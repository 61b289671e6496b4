"""The loss part of the bench: bulk to a Linux client over 20 ms that lose one frame in a hundred.

The path is the simulator's bottleneck in real time (kit.relay); behind it sends Linux, or a
Python application on ``ustack.socket`` whose TAP is bridged to the same path. Both use CUBIC.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path as File
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

import kit.ustack_traffic
from kit.bottleneck import Path
from kit.linux_path import FIRST, Joined, fetched, joined, linux_goodput

PATH = Path(20, 1)
CONTROL = "cubic"
TIMES = 5
"""A sample is so many times longer than one of bulk: losses are few and by chance."""
USTACK = "10.0.7.3"
SUBJECTS = ("Linux", "ustack in process")
Samples = dict[str, list[float]]


def run(chosen: argparse.Namespace) -> Samples:
    """Measure both, round by round, each round with the same losses for both."""
    samples: Samples = {subject: [] for subject in SUBJECTS}
    seconds = chosen.seconds * TIMES
    console = Console(stderr=True)
    for seed in track(range(chosen.rounds), "measuring", console=console, transient=True):
        samples["Linux"].append(linux_goodput(PATH, CONTROL, seed, seconds)[0])
        samples["ustack in process"].append(ustack_goodput(seed, seconds))
    return samples


def ustack_goodput(seed: int, seconds: float) -> float:
    """Have a kernel read from ustack for so long; Mbit/s."""
    with joined(PATH, seed) as both, served(both):
        return fetched(both, USTACK, seconds)


@contextlib.contextmanager
def served(both: Joined) -> Iterator[None]:
    """Start ustack's server, and bridge its TAP to the path."""
    arguments = ("chargen", "tap8", USTACK, "10.0.8.1", "5001")
    command = [sys.executable, str(File(kit.ustack_traffic.__file__)), *arguments]
    with both.sender.serving(*FIRST, *command):
        for words in (
            "link add br0 type bridge", "link set br0 up", "addr flush dev tap1",
            "link set tap1 master br0", "link set tap8 master br0",
        ):  # fmt: skip
            both.sender.output("ip", *words.split())
        yield


def table(samples: Samples, chosen: argparse.Namespace) -> Table:
    """Lay the medians out."""
    seconds = chosen.seconds * TIMES
    out = Table("", title=f"loss: median of {chosen.rounds} x {seconds:g} s", title_justify="left")
    base = statistics.median(samples["Linux"])
    cells = []
    for subject in SUBJECTS:
        values = samples[subject]
        value = statistics.median(values)
        out.add_column(subject, justify="right")
        cells.append(
            f"{value:.2f} Mbit/s\n{min(values):.2f}-{max(values):.2f}, x{value / base:.2f}"
        )
    out.add_row(f"bulk to Linux, {PATH}", *cells)
    return out


def as_json(samples: Samples) -> list[dict[str, Any]]:
    """Return every sample."""
    return [
        {"path": str(PATH), "subject": s, "median": statistics.median(v), "samples": v}
        for s, v in samples.items()
    ]
