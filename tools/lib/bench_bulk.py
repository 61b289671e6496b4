"""The bulk part of the bench: the same Linux client against Linux over veth and ustack over a TAP.

Bulk each way and ping-pong; the server is Linux's own sockets, a Python application on
``ustack.socket`` in process, or ustackd's services. Server on one processor, client on the
other; cases are interleaved round by round and the median is given.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

import kit.traffic
from kit.lab import Daemon, Namespace
from ustack.cli.run import environment

TRAFFIC = str(Path(kit.traffic.__file__))
USTACK_TRAFFIC = str(Path(kit.traffic.__file__).with_name("ustack_traffic.py"))


@dataclass(frozen=True)
class Measure:
    """What is measured: a client's mode and the service that it needs."""

    title: str
    client: str
    service: str
    daemon_port: int
    unit: str


MEASURES = [
    Measure("bulk, Linux to server", "send", "discard", 9, "Gbit/s"),
    Measure("bulk, server to Linux", "receive", "chargen", 19, "Gbit/s"),
    Measure("ping-pong of 64 bytes, median", "pingpong", "echo", 7, "us"),
]

SUBJECTS = ["Linux veth", "ustack in process", "ustackd"]
THROUGH_DAEMON = "through ustackd"
"""Linux's server, unmodified, on the daemon's stack by the preload library."""


@dataclass
class Results:
    """All samples by measure and subject."""

    samples: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def add(self, measure: Measure, subject: str, value: float) -> None:
        """Keep one sample."""
        self.samples.setdefault((measure.title, subject), []).append(value)

    def median(self, measure: Measure, subject: str) -> float:
        """Return the median of what was measured."""
        return statistics.median(self.samples[measure.title, subject])

    def spread(self, measure: Measure, subject: str) -> tuple[float, float]:
        """Return the least and the largest sample."""
        values = self.samples[measure.title, subject]
        return min(values), max(values)


class Bench:
    """Namespaces and the ways to start each subject's server."""

    def __init__(self, client: Namespace, server: Namespace, seconds: float) -> None:
        self.client = client
        self.server = server
        self.seconds = seconds
        self.servers: dict[str, Callable[[Measure], contextlib.AbstractContextManager[str]]] = {
            "Linux veth": self._linux,
            "ustack in process": self._in_process,
            "ustackd": self._daemon,
            THROUGH_DAEMON: self._through_daemon,
        }

    def link(self) -> None:
        """Join the two namespaces by a veth pair."""
        self.client.output(
            "ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth1",
            "netns", self.server.name,
        )  # fmt: skip
        for ns, device, address in (
            (self.client, "veth0", "10.0.9.1/24"),
            (self.server, "veth1", "10.0.9.2/24"),
        ):
            ns.output("ip", "addr", "add", address, "dev", device)
            ns.output("ip", "link", "set", device, "up")

    def measure(self, measure: Measure, subject: str) -> float:
        """Start the subject's server, run the client once, return Gbit/s or microseconds."""
        with self.servers[subject](measure) as where:
            address, port = where.split()
            answer = self.client.output(
                sys.executable, TRAFFIC, measure.client, address, port, str(self.seconds)
            )
        got = json.loads(answer)
        if measure.unit == "us":
            return float(got["p50_us"])
        return float(got["bytes"]) * 8 / float(got["seconds"]) / 1e9

    @contextlib.contextmanager
    def _linux(self, measure: Measure) -> Iterator[str]:
        with self.server.serving(sys.executable, TRAFFIC, measure.service, "10.0.9.2", "5001"):
            yield "10.0.9.2 5001"

    @contextlib.contextmanager
    def _in_process(self, measure: Measure) -> Iterator[str]:
        arguments = [measure.service, "tap8", "10.0.8.2", "10.0.8.1", "5001"]
        with self.client.serving(sys.executable, USTACK_TRAFFIC, *arguments):
            yield "10.0.8.2 5001"

    @contextlib.contextmanager
    def _daemon(self, measure: Measure) -> Iterator[str]:
        with Daemon(self.client) as daemon:
            os.sched_setaffinity(daemon.process.pid, {min(os.sched_getaffinity(0))})
            yield f"10.0.0.2 {measure.daemon_port}"

    @contextlib.contextmanager
    def _through_daemon(self, measure: Measure) -> Iterator[str]:
        with Daemon(self.client) as daemon:
            os.sched_setaffinity(daemon.process.pid, {min(os.sched_getaffinity(0))})
            server = (TRAFFIC, measure.service, "10.0.0.2", "5001")
            with self.client.serving(sys.executable, *server, env=environment(daemon.socket_path)):
                yield "10.0.0.2 5001"


def run(chosen: argparse.Namespace, subjects: list[str]) -> Results:
    """Measure everything, round by round."""
    results = Results()
    cases = [(m, s) for _ in range(chosen.rounds) for m in MEASURES for s in subjects]
    with Namespace("client") as client, Namespace("server") as server:
        bench = Bench(client, server, chosen.seconds)
        bench.link()
        quiet = Console(stderr=True)
        for measure, subject in track(cases, "measuring", console=quiet, transient=True):
            results.add(measure, subject, bench.measure(measure, subject))
    return results


def table(results: Results, subjects: list[str], chosen: argparse.Namespace) -> Table:
    """Lay the medians out, with each subject's ratio to the first."""
    title = f"bulk: median of {chosen.rounds} x {chosen.seconds:g} s"
    out = Table("", title=title, title_justify="left")
    for subject in subjects:
        out.add_column(subject, justify="right")
    for measure in MEASURES:
        cells = []
        base = results.median(measure, subjects[0])
        for subject in subjects:
            value = results.median(measure, subject)
            low, high = results.spread(measure, subject)
            ratio = value / base if measure.unit != "us" else base / value
            cells.append(f"{value:.1f} {measure.unit}\n{low:.1f}-{high:.1f}, x{ratio:.2f}")
        out.add_row(measure.title, *cells)
    return out


def as_json(results: Results) -> list[dict[str, Any]]:
    """Return every sample."""
    return [
        {
            "measure": measure.title,
            "unit": measure.unit,
            "subject": subject,
            "median": results.median(measure, subject),
            "samples": samples,
        }
        for measure in MEASURES
        for (title, subject), samples in results.samples.items()
        if title == measure.title
    ]
