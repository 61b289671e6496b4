"""The bench: the same Linux client against a Linux server over veth, and against ustack over a TAP.

Bulk each way and ping-pong; the server is Linux's own sockets, a Python application on
``ustack.socket`` in process, or ustackd's services. Server on one processor, client on the
other; cases are interleaved round by round and the median is given.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.progress import track
from rich.table import Table

import kit.traffic
from kit.lab import CONGESTION_CONTROL, Daemon, LabError, Namespace, stop

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
    def _server(self, ns: Namespace, *command: str) -> Iterator[None]:
        log = (ns.folder / "server.log").open("w+")
        child = ns.start(sys.executable, *command, stderr=log, text=True)
        try:
            assert child.stdout is not None
            if child.stdout.readline().strip() != "ready":
                log.seek(0)
                raise LabError(f"{' '.join(command)}: {log.read()}")
            yield
        finally:
            stop(child)
            log.close()

    @contextlib.contextmanager
    def _linux(self, measure: Measure) -> Iterator[str]:
        with self._server(self.server, TRAFFIC, measure.service, "10.0.9.2", "5001"):
            yield "10.0.9.2 5001"

    @contextlib.contextmanager
    def _in_process(self, measure: Measure) -> Iterator[str]:
        arguments = [measure.service, "tap8", "10.0.8.2", "10.0.8.1", "5001"]
        with self._server(self.client, USTACK_TRAFFIC, *arguments):
            yield "10.0.8.2 5001"

    @contextlib.contextmanager
    def _daemon(self, measure: Measure) -> Iterator[str]:
        with Daemon(self.client) as daemon:
            os.sched_setaffinity(daemon.process.pid, {min(os.sched_getaffinity(0))})
            yield f"10.0.0.2 {measure.daemon_port}"


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="tools/bench", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="half a second each, once")
    parser.add_argument("--rounds", type=int, default=5, help="samples of each (default 5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a sample")
    parser.add_argument("--json", metavar="FILE", help="write all samples to FILE (- : stdout)")
    parser.add_argument("--only", choices=SUBJECTS, action="append", help="these subjects alone")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.rounds, chosen.seconds = 1, 0.5
    return chosen


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
    title = f"median of {chosen.rounds} x {chosen.seconds:g} s"
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


def as_json(results: Results, chosen: argparse.Namespace) -> str:
    """Return every sample with what it was measured with."""
    return json.dumps(
        {
            "congestion_control": CONGESTION_CONTROL,
            "seconds": chosen.seconds,
            "rounds": chosen.rounds,
            "python": sys.version.split()[0],
            "kernel": os.uname().release,
            "cpus": len(os.sched_getaffinity(0)),
            "results": [
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
            ],
        },
        indent=2,
    )


def _stop(signum: int, frame: FrameType | None) -> None:
    for again in (signal.SIGINT, signal.SIGTERM):
        signal.signal(again, signal.SIG_IGN)  # taking down is not to be stopped
    raise KeyboardInterrupt


def main() -> int:
    """Measure and print."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _stop)
    chosen = arguments()
    subjects = chosen.only or SUBJECTS
    try:
        results = run(chosen, subjects)
    except (LabError, subprocess.TimeoutExpired) as error:
        print(f"tools/bench failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("tools/bench: stopped, everything taken down", file=sys.stderr)
        return 130
    if chosen.json == "-":
        print(as_json(results, chosen))
        return 0
    if chosen.json:
        Path(chosen.json).write_text(as_json(results, chosen) + "\n")
    console = Console(highlight=False)
    console.print(table(results, subjects, chosen))
    console.print(
        f"Linux's sockets use {CONGESTION_CONTROL}, ustack its Reno; checksum, TSO and large"
        f" receive on;\nPython {sys.version.split()[0]} on both sides, kernel {os.uname().release},"
        f" {len(os.sched_getaffinity(0))} processors:\nserver on the first, client on the second."
        " The x is the ratio to the first column, above 1 is better."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
