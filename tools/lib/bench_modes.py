"""The modes part of the bench: ustackd taking interrupts beside ustackd polling all the time.

The same Linux client bounces 64 bytes; daemon on one processor, client on the other. What
polling gains in latency it pays for in processor time, of which it takes all, idle or not.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

import kit.traffic
from kit.lab import Daemon, Namespace

TRAFFIC = str(Path(kit.traffic.__file__))
MODES: dict[str, tuple[str, ...]] = {
    "adaptive interrupts": (),
    "no moderation": (),
    "--busy-poll-us 50": ("--busy-poll-us", "50"),
    "--poll": ("--poll",),
}
FIGURES = {
    "p50_us": "round trip, median, us",
    "p99_us": "round trip, 99th percentile, us",
    "busy_percent": "processor while bouncing, %",
    "idle_percent": "processor while idle, %",
    "interrupts": "interrupts for each round trip",
}
Samples = dict[tuple[str, str], list[float]]


def run(chosen: argparse.Namespace) -> Samples:
    """Measure every mode, round by round."""
    samples: Samples = {}
    cases = [mode for _ in range(chosen.rounds) for mode in MODES]
    with Namespace("modes") as ns:
        console = Console(stderr=True)
        for mode in track(cases, "measuring", console=console, transient=True):
            for figure, value in measure(ns, mode, chosen.seconds).items():
                samples.setdefault((figure, mode), []).append(value)
    return samples


def measure(ns: Namespace, mode: str, seconds: float) -> dict[str, float]:
    """Start a daemon in one mode and return its figures."""
    with Daemon(ns, *MODES[mode], serve="echo") as daemon:
        os.sched_setaffinity(daemon.process.pid, {min(os.sched_getaffinity(0))})
        if mode == "no moderation":
            daemon.cli("ethtool", "-C", "eth0", "rx-usecs", "0")
        pid = daemon.process.pid
        before = processor_s(pid), time.monotonic()
        time.sleep(seconds / 2)
        idle = share(pid, *before)
        irqs, before = interrupts(daemon), (processor_s(pid), time.monotonic())
        answer = ns.output(sys.executable, TRAFFIC, "pingpong", "10.0.0.2", "7", str(seconds))
        busy = share(pid, *before)
        got: dict[str, Any] = json.loads(answer)
        turns = got["round_trips"] / 0.9  # the first tenth is not in the percentiles
        return {
            "p50_us": got["p50_us"],
            "p99_us": got["p99_us"],
            "busy_percent": busy,
            "idle_percent": idle,
            "interrupts": (interrupts(daemon) - irqs) / turns,
        }


def processor_s(pid: int) -> float:
    """Return the processor time that a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def share(pid: int, since_s: float, began_s: float) -> float:
    """Return the percentage of a processor that a process has used since then."""
    return 100 * (processor_s(pid) - since_s) / (time.monotonic() - began_s)


def interrupts(daemon: Daemon) -> int:
    """Return how often the NIC has interrupted."""
    rows = re.findall(r"^ *\d+: +(\d+) PCI", daemon.cli("cat", "/proc/interrupts"), re.M)
    return sum(map(int, rows))


def table(samples: Samples, chosen: argparse.Namespace) -> Table:
    """Lay the medians out, the range below."""
    title = f"modes: median of {chosen.rounds} x {chosen.seconds:g} s, 64 bytes over TCP"
    out = Table("", title=title, title_justify="left")
    for mode in MODES:
        out.add_column(mode, justify="right")
    for figure, text in FIGURES.items():
        cells = [samples[figure, mode] for mode in MODES]
        out.add_row(
            text,
            *[f"{statistics.median(c):.1f}\n{min(c):.1f}-{max(c):.1f}" for c in cells],
        )
    return out


def as_json(samples: Samples) -> list[dict[str, Any]]:
    """Return every sample."""
    return [
        {
            "figure": figure,
            "mode": mode,
            "median": statistics.median(values),
            "samples": values,
        }
        for (figure, mode), values in samples.items()
    ]
