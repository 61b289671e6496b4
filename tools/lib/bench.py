"""The bench, part by part; each part's own file says what it measures.

All parts run in network namespaces of their own and give medians; nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import bench_bulk
import bench_churn
import bench_epoll
import bench_lo
import bench_loss
import bench_memory
import bench_million
import bench_modes
import bench_rates
import bench_reverse
import bench_tap
from rich.console import Console
from rich.table import Table

from kit.lab import CONGESTION_CONTROL, LabError

PARTS = (
    "frames", "bulk", "rates", "ways", "stages", "modes", "loss", "lo", "epoll", "daemon", "memory",
    "million", "reverse", "churn",
)  # fmt: skip
FILE_COLUMNS = 160
"""Width of what does not go to a terminal: the widest table's."""
ASKED_FOR = ("million", "reverse", "churn")
"""Parts that are only run when they are named: a million connections take minutes, and more."""
BULK_NOTE = (
    f"Linux's sockets use {CONGESTION_CONTROL}, ustack CUBIC, its default; checksum, TSO and large"
    " receive on; server on the first processor, client on the second. The x is the ratio to the"
    " first column, above 1 is better.\n"
)
RATES_NOTE = (
    f"Linux's sockets use {CONGESTION_CONTROL}. The client is in C; so is the first column's echo,"
    " the least that a server on Linux's sockets costs. The x is the ratio to the first figure of"
    " the row.\n"
)
WAYS_NOTE = (
    "One server in Python, one thread that waits by epoll, on Linux's sockets and on ustack in"
    " process: as it is, looking 50 us for frames before it sleeps, with net.ustack.tcp_fastpath=0,"
    " and with frames of 1514 bytes. The x is the ratio to Linux with the same offloads.\n"
)
FRAMES_NOTE = (
    "What one processor can do, from its time per frame: in: a packet socket fills the TAP's queue,"
    " then it is emptied, by ustack up to TCP's handler; out: written, by ustack from IP down. The"
    " loop in C reads and writes without and with virtio headers (which super-frames need); the"
    " ratio is to the latter.\n"
)
MODES_NOTE = (
    "ustackd's echo and a Linux client, a processor each. Polling takes a whole processor, whether"
    " there is work or not; its interrupts are none.\n"
)
LOSS_NOTE = (
    "A bottleneck of 50 Mbit/s with a drop-tail queue of one bandwidth-delay product; frames are"
    f" lost before it. Both use {bench_loss.CONTROL}. The x is the ratio to Linux, above 1 is"
    " better.\n"
)
LO_NOTE = (
    "Both sockets in one process and thread. The sockmap shortcut puts bytes into the peer's"
    " receive queue without TCP's output, IP, lo and the softirq.\n"
)
DAEMON_NOTE = (
    "The same servers for Linux's sockets as on veth, unmodified, in a process of their own on"
    " ustackd's stack by the preload library; a Python server that knows of it"
    " (ustack.connect()) and ustackd's own services beside them.\n"
)
MEMORY_NOTE = (
    "What a process has more in RAM, divided by its connections: Python, tables and allocators are"
    " in it. Linux: slab objects of one end.\n"
)
MILLION_NOTE = (
    "An echo service that keeps no object of an idle connection, and Linux clients, all on this"
    " machine. A round trip is this process's processor time; 64, first: they had idled until"
    " then.\n"
)
REVERSE_NOTE = (
    "Both ends are in one process, so that a connection is two control blocks; all of it goes"
    " through Python, as everything does over lo. Processor time, but for the seconds to open.\n"
)
CHURN_NOTE = (
    "Nine ways to end, half-open connections among them, in virtual time over a wire in memory."
    " The peers' segments are in the time.\n"
)
STAGES_NOTE = (
    "Processor time. A stage is the difference of two medians, the path cut off by a sink behind"
    " it and before it: small ones drown in noise. The fast path in C is off, GRO too but in"
    " its own row.\n"
)
SIMPLE_PARTS: tuple[tuple[str, Any, str], ...] = (
    ("modes", bench_modes, MODES_NOTE),
    ("loss", bench_loss, LOSS_NOTE),
    ("lo", bench_lo, LO_NOTE),
)
"""Those that one module runs and prints by itself, and the note below its table."""
FIGURE_PARTS: tuple[tuple[str, Any, str, str], ...] = (
    ("reverse", bench_reverse, "reverse: connections to itself", REVERSE_NOTE),
    ("churn", bench_churn, "churn: through every state", CHURN_NOTE),
)
"""Those that give single figures by name: the title of their table, and the note below it."""


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="tools/bench", description=__doc__.splitlines()[0])
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="PART",
        help=f"{', '.join(PARTS)} (all but {', '.join(ASKED_FOR)})",
    )
    parser.add_argument(
        "--quick", action="store_true", help="half a second, once; fewer frames and subjects"
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="samples of bulk (5); twice as many of frames"
    )
    parser.add_argument("--seconds", type=float, help="length of a bulk sample (2; --quick: 0.5)")
    parser.add_argument("--frames", type=int, default=4000, help="frames of a sample, to 10000")
    parser.add_argument("--json", metavar="FILE", help="write all samples to FILE (- : stdout)")
    parser.add_argument(
        "--only", choices=bench_bulk.SUBJECTS, action="append", help="these subjects of bulk alone"
    )
    parser.add_argument("--plan", choices=("A", "B"), action="append", help="of million (both)")
    parser.add_argument(
        "--connections", type=int, default=0, help="of million, reverse (1000000), churn (10000000)"
    )
    chosen = parser.parse_args()
    if wrong := [part for part in chosen.parts if part not in PARTS]:
        parser.error(f"no such part: {' '.join(wrong)} (there are {', '.join(PARTS)})")
    if not 1 <= chosen.frames <= 10_000 or chosen.rounds < 1:
        parser.error("frames from 1 to 10000, rounds from 1")
    usual = [part for part in PARTS if part not in ASKED_FOR]
    chosen.parts = [part for part in PARTS if part in (chosen.parts or usual)]
    chosen.plan = chosen.plan or ["A", "B"]
    chosen.comings = chosen.connections or (3000 if chosen.quick else 10_000_000)
    chosen.connections = chosen.connections or (3000 if chosen.quick else 1_000_000)
    if chosen.quick:
        chosen.rounds, chosen.frames = 1, 500
    chosen.seconds = chosen.seconds or (0.5 if chosen.quick else 2.0)
    chosen.count_rounds = 2 * chosen.rounds + 1
    return chosen


def measure(chosen: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Run the chosen parts, print their tables, return everything for the JSON file."""
    answer: dict[str, Any] = {
        "congestion_control": CONGESTION_CONTROL,
        "seconds": chosen.seconds,
        "rounds": chosen.rounds,
        "frames_per_sample": chosen.frames,
        "python": sys.version.split()[0],
        "kernel": os.uname().release,
        "cpus": len(os.sched_getaffinity(0)),
    }
    counting = [part for part in chosen.parts if part in ("frames", "stages")]
    if counting:
        costs = bench_tap.run(counting, chosen.count_rounds, chosen.frames)
        answer["frames"] = bench_tap.as_json(costs)
        if "frames" in counting:
            console.print(bench_tap.frames_table(costs, chosen.count_rounds), FRAMES_NOTE, sep="\n")
        if "stages" in counting:
            answer["stages"] = bench_tap.stages_json(costs)
            console.print(bench_tap.stages_table(costs, chosen.count_rounds), STAGES_NOTE, sep="\n")
    if "bulk" in chosen.parts:
        subjects = chosen.only or bench_bulk.SUBJECTS
        results = bench_bulk.run(chosen, subjects)
        answer["results"] = bench_bulk.as_json(results)
        console.print(bench_bulk.table(results, subjects, chosen), BULK_NOTE, sep="\n")
    if "rates" in chosen.parts:
        columns = bench_rates.QUICK_SUBJECTS if chosen.quick else bench_rates.SUBJECTS
        rates = bench_rates.run(chosen, columns)
        answer["rates"] = bench_rates.as_json(rates)
        console.print(bench_rates.table(rates, chosen, columns), RATES_NOTE, sep="\n")
    if "ways" in chosen.parts:
        ways = bench_rates.WAYS, bench_rates.WAYS_MEASURES
        passed = bench_rates.run(chosen, *ways)
        answer["ways"] = bench_rates.as_json(passed)
        console.print(bench_rates.table(passed, chosen, *ways, "ways"), WAYS_NOTE, sep="\n")
    for part, module, note in SIMPLE_PARTS:
        if part in chosen.parts:
            samples = module.run(chosen)
            answer[part] = module.as_json(samples)
            console.print(module.table(samples, chosen), note, sep="\n")
    for part, module, title, note in FIGURE_PARTS:
        if part in chosen.parts:
            answer[part] = module.run(chosen)
            console.print(figures_table(answer[part], title), note, sep="\n")
    if "epoll" in chosen.parts:
        waits = bench_epoll.run(chosen)
        answer["epoll"] = bench_epoll.as_json(waits)
        console.print(bench_epoll.table(waits))
    if "daemon" in chosen.parts:
        answer["daemon"] = measure_daemon(chosen, console)
    if "memory" in chosen.parts:
        answer["memory"] = bench_memory.run(chosen)
        console.print(bench_memory.table(answer["memory"]), MEMORY_NOTE, sep="\n")
    if "million" in chosen.parts:
        answer["million"] = bench_million.run(chosen)
        console.print(bench_million.table(answer["million"]), MILLION_NOTE, sep="\n")
    console.print(
        f"Python {answer['python']}, kernel {answer['kernel']}, {answer['cpus']} processors; what"
        " else runs on this machine is in every figure."
    )
    return answer


def figures_table(figures: dict[str, Any], title: str) -> Table:
    """Lay single figures out, a row each."""
    out = Table("", "ustack", title=title, title_justify="left")
    out.columns[1].justify = "right"
    for name, value in figures.items():
        out.add_row(name, f"{value:,.4g}" if isinstance(value, float) else str(value))
    return out


def measure_daemon(chosen: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Measure programs on a daemon's stack: bulk and rates, each beside veth."""
    subjects = ["Linux veth", "ustackd", bench_bulk.THROUGH_DAEMON]
    bulk = bench_bulk.run(chosen, subjects)
    console.print(bench_bulk.table(bulk, subjects, chosen))
    rates = bench_rates.run(chosen, bench_rates.THROUGH_DAEMON)
    console.print(bench_rates.table(rates, chosen, bench_rates.THROUGH_DAEMON))
    console.print(DAEMON_NOTE)
    return {"bulk": bench_bulk.as_json(bulk), "rates": bench_rates.as_json(rates)}


def _stop(signum: int, frame: FrameType | None) -> None:
    for again in (signal.SIGINT, signal.SIGTERM):
        signal.signal(again, signal.SIG_IGN)  # taking down is not to be stopped
    raise KeyboardInterrupt


def main() -> int:
    """Measure and print."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _stop)
    chosen = arguments()
    width = None if sys.stdout.isatty() else FILE_COLUMNS
    console = Console(highlight=False, quiet=chosen.json == "-", width=width)
    try:
        answer = measure(chosen, console)
    except (LabError, subprocess.TimeoutExpired) as error:
        print(f"tools/bench failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("tools/bench: stopped, everything taken down", file=sys.stderr)
        return 130
    text = json.dumps(answer, indent=2)
    if chosen.json == "-":
        print(text)
    elif chosen.json:
        Path(chosen.json).write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
