"""The parts of the bench that count frames: by size and by stage, beside a TAP's own limits.

``taploop.c`` (compiled here) reads and writes the same frames in C with nothing behind;
``bench_stack.py`` does it with ustack. Each runs in a namespace of its own, in turn, round
by round; figures are medians of processor time, so what else runs here matters less. Frames go
to nobody: Linux drops what is written as soon as it has seen the destination's MAC address.
"""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench_stack import SIZES, STAGE_SIZES, SUPER, frames_of, write_units
from compiling import compile_program
from rich.console import Console
from rich.progress import track
from rich.table import Table

from kit.lab import Namespace
from ustack.core.napi import NAPI_POLL_WEIGHT

HERE = Path(__file__).parent
LOOPS = [(call, kind) for call in ("read", "write") for kind in ("plain", "vnet")]

UP = [
    ("dma in: read() of the TAP", "dma"),
    (f"irq, softirq, poll (1/{NAPI_POLL_WEIGHT})", "irq"),
    ("igb_clean_rx_irq, its C part", "clean"),
    ("Skb, eth_type_trans", "driver"),
    ("netif_receive_skb", "ip"),
    ("ip_rcv", "protocol"),
    ("tcp_v4_rcv to the queue, ACKs", "tcp"),
    ("recv_into()", "recv"),
]
DOWN = [
    ("tcp_transmit_skb", "ip"),
    ("ip_queue_xmit", "dev"),
    ("dev_queue_xmit", "driver"),
    ("igb_xmit_frame", "doorbell"),
    ("doorbell, writev(), clean-up", ""),
]


@dataclass
class Costs:
    """Nanoseconds for one frame, all samples, by what was done and the frame's size."""

    samples: dict[tuple[str, int], list[float]] = field(default_factory=dict)

    def add(self, what: str, size: int, spent_ns: int, frames: int) -> None:
        """Keep one sample."""
        self.samples.setdefault((what, size), []).append(spent_ns / frames)

    def ns(self, what: str, size: int) -> float:
        """Return the median."""
        return statistics.median(self.samples[what, size])

    def has(self, what: str, size: int) -> bool:
        """Whether it was measured."""
        return (what, size) in self.samples


def run(parts: list[str], rounds: int, frames: int) -> Costs:
    """Measure, round by round: the loop in C, then ustack."""
    costs = Costs()
    with Namespace("bench") as ns:
        program = compile_program("taploop", ns.folder)
        units = write_units(ns.folder)
        quiet = Console(stderr=True)
        for _ in track(range(rounds), "counting frames", console=quiet, transient=True):
            for call, kind in LOOPS:
                run_loop(ns, program, units, call, kind, frames, costs)
            for part in parts:
                answer = ns.output(
                    sys.executable, str(HERE / "bench_stack.py"), part, str(frames), "1"
                )
                for what, size, spent_ns, count in json.loads(answer):
                    costs.add(what, size, spent_ns, count)
    return costs


def run_loop(
    ns: Namespace, program: str, units: dict[int, tuple[Path, Path]], call: str, kind: str,
    frames: int, costs: Costs,
) -> None:  # fmt: skip
    """Let the loop in C read or write every size once."""
    sizes = {
        str(paths[call == "write"]): size
        for size, paths in units.items()
        if kind == "vnet" or size != SUPER
    }
    pairs = [x for path, size in sizes.items() for x in (str(frames_of(size, frames)), path)]
    for line in ns.output(program, call, kind, *pairs).splitlines():
        path, spent_ns, done = line.split()
        costs.add(f"{call} {kind}", sizes[path], int(spent_ns), int(done))


def frames_table(costs: Costs, rounds: int) -> Table:
    """Frames and bits per second, and the ratio to the loop in C with virtio headers."""
    table = Table("bytes", title=f"frames: median of {rounds}", title_justify="left")
    table.caption, table.caption_justify = "thousands of frames a second, Gbit/s", "left"
    for name in ("TAP in C, plain", "TAP in C, vnet", "ustack", "ratio"):
        table.add_column(name, justify="right", no_wrap=True)
    for size in SIZES:
        for call, ours, arrow in (("read", "receive", "in"), ("write", "transmit", "out")):
            whats = (f"{call} plain", f"{call} vnet", ours)
            cells = [rate(costs.ns(w, size), size) if costs.has(w, size) else "-" for w in whats]
            ratio = costs.ns(f"{call} vnet", size) / costs.ns(ours, size)
            table.add_row(f"{size} {arrow}", *cells, f"{ratio:.3f}")
    return table


def rate(ns: float, size: int) -> str:
    """Say a cost as thousands of frames and Gbit per second."""
    return f"{1e6 / ns:.0f} {size * 8 / ns:7.2f}"


def stage_costs(costs: Costs, size: int) -> tuple[list[float], list[float]]:
    """Return what each stage costs, up and down: the difference of two cuts of the path."""
    irq = costs.ns("irq", 0) / NAPI_POLL_WEIGHT
    clean = costs.ns("clean", size)
    up = [costs.ns("dma", size), irq, clean]
    before = irq + clean
    for _, cut in UP[3:-1]:
        up.append(costs.ns(f"up to {cut}", size) - before)
        before = costs.ns(f"up to {cut}", size)
    up.append(costs.ns("recv", size))
    down, before = [], 0.0
    for _, cut in DOWN:
        until = costs.ns(f"down to {cut}" if cut else "down", size)
        down.append(until - before)
        before = until
    return up, down


def stages_table(costs: Costs, rounds: int) -> Table:
    """Nanoseconds for a frame at each stage, and in all beside the loop in C."""
    table = Table("ns per frame", title=f"stages: median of {rounds}", title_justify="left")
    for size in STAGE_SIZES:
        table.add_column(f"{size} bytes", justify="right")
    columns = [stage_costs(costs, size) for size in STAGE_SIZES]
    for way, names, loop in ((0, UP, "read"), (1, DOWN, "write")):
        for number, (name, _) in enumerate(names):
            table.add_row(name, *[f"{column[way][number]:.0f}" for column in columns])
        limits = [costs.ns(f"{loop} vnet", size) for size in STAGE_SIZES]
        sums = [sum(column[way]) for column in columns]
        table.add_row("all of these", *[f"{spent:.0f}" for spent in sums])
        table.add_row(f"{loop}() in C, vnet", *[f"{limit:.0f}" for limit in limits])
        ratios = [f"{limit / spent:.3f}" for spent, limit in zip(sums, limits, strict=True)]
        table.add_row("ratio", *ratios, end_section=True)
    gro = costs.ns("up to gro", 1514) - costs.ns("up to driver", 1514)
    table.add_row("GRO, merging (then 44 are one)", "-", f"{gro:.0f}", "-")
    return table


def as_json(costs: Costs) -> list[dict[str, Any]]:
    """Return every sample."""
    return [
        {"what": what, "bytes": size, "median_ns": costs.ns(what, size), "samples_ns": samples}
        for (what, size), samples in costs.samples.items()
    ]


def stages_json(costs: Costs) -> list[dict[str, Any]]:
    """Return what each stage costs by frame size."""
    rows = []
    for size in STAGE_SIZES:
        for way, names, values in zip(
            ("up", "down"), (UP, DOWN), stage_costs(costs, size), strict=True
        ):
            rows += [
                {"way": way, "stage": name, "bytes": size, "ns": value}
                for (name, _), value in zip(names, values, strict=True)
            ]
    return rows
