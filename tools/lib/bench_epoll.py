"""The epoll part of the bench: what one event costs, by how many idle sockets are watched beside.

One datagram socket of each epoll is spoken to and waited for, all the others are silent. Linux's
epoll does the same for comparison, up to the open files that the machine allows.
"""

from __future__ import annotations

import argparse
import resource
import select
import socket
import statistics
from contextlib import ExitStack
from time import perf_counter_ns
from typing import Any

from rich.table import Table

import ustack
import ustack.select
import ustack.socket

WATCHED = (10, 100, 1000, 10_000, 100_000)
STACKS: dict[str, tuple[Any, Any]] = {
    "Linux": (socket, select),
    "ustack": (ustack.socket, ustack.select),
}
SPARE_FILES = 200
Samples = dict[tuple[str, int], list[float]]


def run(chosen: argparse.Namespace) -> Samples:
    """Measure each number in turn, some rounds; a sample is the median event's microseconds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    samples: Samples = {}
    try:
        with ustack.up():
            for count in WATCHED[: 4 if chosen.quick else None]:
                for name, modules in STACKS.items():
                    if name == "ustack" or count + SPARE_FILES < hard:
                        samples[name, count] = measure(*modules, count, chosen)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return samples


def measure(sockets: Any, selects: Any, count: int, chosen: argparse.Namespace) -> list[float]:
    """Return what an event costs, watched among ``count`` idle sockets: once a round."""
    kind = (sockets.AF_INET, sockets.SOCK_DGRAM)
    with ExitStack() as opened:
        epoll = opened.enter_context(selects.epoll())
        for _ in range(count):
            epoll.register(opened.enter_context(sockets.socket(*kind)), selects.EPOLLIN)
        busy = opened.enter_context(sockets.socket(*kind))
        busy.bind(("127.0.0.1", 0))
        busy.connect(busy.getsockname())
        for idle in range(0, count, max(1, count // 10)):
            assert not epoll.poll(0), idle  # an unbound socket is not readable
        epoll.register(busy, selects.EPOLLIN)
        return [events(busy, epoll, chosen.frames) for _ in range(chosen.rounds)]


def events(busy: Any, epoll: Any, turns: int) -> float:
    """Send to itself, wait, receive; return the median time of waiting, in microseconds."""
    took = []
    for _ in range(turns):
        busy.send(b"x")
        begun = perf_counter_ns()
        ready = epoll.poll(1)
        took.append(perf_counter_ns() - begun)
        assert len(ready) == 1
        busy.recv(1)
    return statistics.median(took) / 1000


def as_json(samples: Samples) -> dict[str, dict[int, list[float]]]:
    """Return the samples in microseconds, by stack and number."""
    return {
        name: {count: values for (of, count), values in samples.items() if of == name}
        for name in STACKS
    }


def table(samples: Samples) -> Table:
    """Return the medians, a row a number of sockets."""
    out = Table(title="One event of epoll, microseconds", title_justify="left")
    out.add_column("idle sockets watched", justify="right")
    for name in STACKS:
        out.add_column(name, justify="right")
    for count in WATCHED:
        cells = [samples.get((name, count)) for name in STACKS]
        if any(cells):
            texts = [f"{statistics.median(cell):.2f}" if cell else "-" for cell in cells]
            out.add_row(f"{count:,}", *texts)
    return out
