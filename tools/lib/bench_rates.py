"""The rates part of the bench: many connections at once, beside Linux's sockets over veth.

The client is ``load.c`` on Linux's sockets, on the second processor; the server, on the first,
is in C or Python on Linux's sockets over veth, the same Python on ustack in process or on the
sockets of a ustackd (``ustack.connect()``), or ustackd's own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compiling import compile_program
from rich.console import Console
from rich.progress import track
from rich.table import Table

import kit.services
from kit.lab import Daemon, LabError, Namespace, stop
from ustack.cli.run import environment

SERVICES = str(Path(kit.services.__file__))
SIZE = "64"
PORT = 5001


BULK = ("send", "receive", "both")
"""The client's modes that discard and chargen serve."""


@dataclass(frozen=True)
class Measure:
    """One row: the client's mode, its arguments behind the address, and what of it is shown."""

    title: str
    mode: str
    connections: int
    figure: str
    unit: str


MEASURES = [
    Measure("ping-pong of 64 bytes, 64 connections", "pingpong", 64, "rate", "k/s"),
    Measure("ping-pong of 64 bytes, 1 connection, median", "pingpong", 1, "p50_us", "us"),
    Measure("connect, 64 bytes each way, close; 64 at a time", "connect", 64, "rate", "k/s"),
    Measure("bulk, 16 connections each way at once", "both", 32, "gbit", "Gbit/s"),
    Measure("the same: Jain's index of the worse way", "both", 32, "jain", ""),
]


@dataclass(frozen=True)
class Subject:
    """One column: which stack, the style of its server, and what is peculiar about it."""

    title: str
    stack: str
    style: str
    settings: tuple[str, ...] = ()
    """For kit.services; "offloads=off" is for veth, too."""

    @property
    def offloads(self) -> str:
        """Whether its device takes super-frames and checksums: "on" or "off"."""
        return "off" if "offloads=off" in self.settings else "on"

    def measures(self, measure: Measure) -> bool:
        """Whether its server can do it: only epoll and threads discard and generate."""
        return measure.mode not in BULK or self.style in ("thread", "epoll", "services")


SUBJECTS = [
    Subject("Linux veth, C", "linux", "C"),
    Subject("Linux veth, epoll", "linux", "epoll"),
    Subject("ustack, epoll", "ustack", "epoll"),
    Subject("Linux veth, thread", "linux", "thread"),
    Subject("ustack, thread", "ustack", "thread"),
    Subject("Linux veth, asyncio", "linux", "protocol"),
    Subject("ustack, asyncio", "ustack", "protocol"),
    Subject("ustackd, epoll", "client", "epoll"),
    Subject("ustackd's own", "daemon", "services"),
]
QUICK_SUBJECTS = SUBJECTS[:3]
WAYS = [
    Subject("Linux veth", "linux", "epoll"),
    Subject("ustack", "ustack", "epoll"),
    Subject("busy polling", "ustack", "epoll", ("busy_poll_us=50",)),
    Subject("Python alone", "ustack", "epoll", ("tcp_fastpath=0",)),
    Subject("Linux, offloads off", "linux", "epoll", ("offloads=off",)),
    Subject("ustack, offloads off", "ustack", "epoll", ("offloads=off",)),
]
"""For the ways part: the same server, and what its segments pass."""
WAYS_MEASURES = [
    Measure("bulk, Linux to server, 1 connection", "send", 1, "gbit", "Gbit/s"),
    Measure("bulk, server to Linux, 1 connection", "receive", 1, "gbit", "Gbit/s"),
    *MEASURES[:3],
]
THROUGH_DAEMON = [
    SUBJECTS[0],
    Subject("C through ustackd", "preload", "C"),
    SUBJECTS[1],
    Subject("epoll through ustackd", "preload", "epoll"),
    *SUBJECTS[-2:],
]
"""For the daemon part: Linux's servers, unmodified, by the preload library."""
Samples = dict[tuple[str, str], list[float]]


class Rates:
    """Two namespaces joined by veth, and the load generator."""

    def __init__(self, client: Namespace, server: Namespace, seconds: float) -> None:
        self.client = client
        self.server = server
        self.seconds = str(seconds)
        self.load = compile_program("load", client.folder)
        client.output(
            "ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth1",
            "netns", server.name,
        )  # fmt: skip
        for ns, device, address in (
            (client, "veth0", "10.0.9.1/24"),
            (server, "veth1", "10.0.9.2/24"),
        ):
            ns.output("ip", "addr", "add", address, "dev", device)
            ns.output("ip", "link", "set", device, "up")
            ns.sysctl("net.ipv4.ip_local_port_range", "1024 65535")
            ns.sysctl("net.ipv4.tcp_tw_reuse", 1)  # the client is who closes

    def sample(self, measure: Measure, subject: Subject) -> dict[str, float]:
        """Start the subject's server and load it once."""
        with self._server(subject) as (address, ports):
            bulk = measure.mode in BULK
            where = [address, *ports[1:]] if bulk else [address, ports[0]]
            size = [] if bulk else [SIZE]
            got = json.loads(
                self.client.output(
                    self.load, measure.mode, *where, self.seconds, str(measure.connections), *size
                )
            )
        if "bytes" in got:
            return {"gbit": got["bytes"] * 8e-9 / got["seconds"], "jain": got["jain"]}
        return {"rate": got["count"] / got["seconds"] / 1e3, "p50_us": got["p50_us"]}

    @contextlib.contextmanager
    def _server(self, subject: Subject) -> Iterator[tuple[str, list[str]]]:
        ports = [str(PORT + i) for i in range(3)]
        if subject.stack == "daemon":
            with Daemon(self.client) as daemon:
                os.sched_setaffinity(daemon.process.pid, {min(os.sched_getaffinity(0))})
                yield "10.0.0.2", ["7", "9", "19"]
            return
        if subject.stack in ("preload", "client"):
            with Daemon(self.client) as daemon:
                os.sched_setaffinity(daemon.process.pid, {min(os.sched_getaffinity(0))})
                program = [self.load, "serve"]
                env = environment(daemon.socket_path)
                if subject.stack == "client":
                    program = [sys.executable, SERVICES, "daemon", subject.style]
                    env = {**os.environ, "USTACK_SOCKET": str(daemon.socket_path)}
                elif subject.style != "C":
                    program = [sys.executable, SERVICES, "linux", subject.style]
                child = self._start(self.client, *program, "10.0.0.2", ports[0], env=env)
                try:
                    yield "10.0.0.2", ports
                finally:
                    stop(child)
            return
        if subject.style == "C":
            address = "10.0.9.2"
            children = [self._start(self.server, self.load, "serve", address, ports[0])]
        elif subject.stack == "linux":
            address = "10.0.9.2"
            self._set_offloads(subject.offloads)
            children = [self._start(self.server, sys.executable, SERVICES, "linux", subject.style,
                                    address, ports[0])]  # fmt: skip
        else:
            address = "10.0.8.2"
            children = [self._start(self.client, sys.executable, SERVICES, "ustack", subject.style,
                                    address, ports[0], "tap8", "10.0.8.1",
                                    *subject.settings)]  # fmt: skip
        try:
            yield address, ports
        finally:
            for child in children:
                stop(child)

    def _set_offloads(self, state: str) -> None:
        """Switch veth's super-frames and checksums on or off."""
        for ns, device in (self.client, "veth0"), (self.server, "veth1"):
            kinds = [word for kind in ("tx", "tso", "gso", "gro") for word in (kind, state)]
            ns.output("ethtool", "-K", device, *kinds)

    def _start(
        self, ns: Namespace, *command: str, env: dict[str, str] | None = None
    ) -> subprocess.Popen[Any]:
        log = ns.folder / "server.log"
        with log.open("w") as errors:
            child = ns.start(*command, stderr=errors, text=True, env=env)
        assert child.stdout is not None
        if child.stdout.readline().strip() != "ready":
            raise LabError(f"{' '.join(command)}: {log.read_text()}")
        return child


def run(
    chosen: argparse.Namespace, subjects: list[Subject], measures: list[Measure] = MEASURES
) -> Samples:
    """Measure ``subjects``, round by round; measures of one mode share their samples."""
    samples: Samples = {}
    cases = [
        (measure, subject)
        for _ in range(chosen.rounds)
        for measure in measures
        for subject in subjects
        if measure.figure != "jain" and subject.measures(measure)
    ]
    with Namespace("client") as client, Namespace("server") as server:
        rates = Rates(client, server, chosen.seconds)
        console = Console(stderr=True)
        for measure, subject in track(cases, "measuring", console=console, transient=True):
            figures = rates.sample(measure, subject)
            for row in measures:
                if (row.mode, row.connections) == (measure.mode, measure.connections):
                    key = row.title, subject.title
                    samples.setdefault(key, []).append(figures[row.figure])
    return samples


def table(
    samples: Samples,
    chosen: argparse.Namespace,
    subjects: list[Subject],
    measures: list[Measure] = MEASURES,
    name: str = "rates",
) -> Table:
    """Lay the medians out, with the ratio to the first with the same offloads and the spread."""
    title = f"{name}: median of {chosen.rounds} x {chosen.seconds:g} s"
    out = Table("", title=title, title_justify="left")
    measured = [s for s in subjects if any(subject == s.title for _, subject in samples)]
    for subject in measured:
        out.add_column(subject.title, justify="right")
    for measure in measures:
        bases = {
            subject.offloads: statistics.median(values)
            for subject in reversed(measured)
            if (values := samples.get((measure.title, subject.title)))
        }
        out.add_row(
            measure.title,
            *(_cell(samples, measure, s.title, bases[s.offloads]) for s in measured),
        )
    return out


def _cell(samples: Samples, measure: Measure, subject: str, base: float) -> str:
    values = samples.get((measure.title, subject))
    if values is None:
        return ""
    value = statistics.median(values)
    if measure.figure == "jain":
        return f"{value:.3f}"
    ratio = base / value if measure.unit == "us" else value / base
    return f"{value:.1f} {measure.unit}\n{min(values):.1f}-{max(values):.1f}, x{ratio:.2f}"


def as_json(samples: Samples) -> list[dict[str, Any]]:
    """Return every sample."""
    return [
        {"measure": title, "subject": subject, "median": statistics.median(values),
         "samples": values}
        for (title, subject), values in samples.items()
    ]  # fmt: skip
