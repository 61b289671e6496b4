"""Run as a program: measure rows of goodput.table anew and write them down.

``record_goodput.py ours|linux|fairness [NAME ...]``: all, or those rows whose name contains one of
the words; as many runs at a time as there are processors. ``linux`` needs root and takes 26
minutes on two of them.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path as File

from kit.goodput import (
    CELLS,
    FAIRNESS,
    LINUX_CELLS,
    LINUX_SEEDS,
    SECONDS,
    Cell,
    goodputs,
    jain,
    seeds,
)
from kit.goodput_table import Table
from kit.linux_path import linux_goodput

TABLE = File(__file__).with_name("goodput.table")
Runs = dict[str, list[Future[float]]]


def one_flow(cell: Cell, seed: int) -> float:
    """Two stacks, one connection."""
    return goodputs(cell, seed)[0]


def two_kernels(cell: Cell, seed: int) -> float:
    """Two kernels, one connection."""
    return linux_goodput(*cell, seed, SECONDS)[0]


def fairness(cell: Cell, flows: int) -> float:
    """Two stacks, several connections: Jain's index."""
    return jain(goodputs(cell, 1, flows))


def begin(what: str, pool: Executor, words: list[str]) -> Runs:
    """Hand every run of the chosen rows to ``pool``."""
    if what == "fairness":
        return {n: [pool.submit(fairness, *args)] for n, args in FAIRNESS.items() if _is(n, words)}
    if what == "ours":
        cells, call = [(cell, seeds(cell.path)) for cell in CELLS], one_flow
    else:
        cells, call = [(cell, LINUX_SEEDS) for cell in LINUX_CELLS], two_kernels
    return {
        str(cell): [pool.submit(call, cell, seed) for seed in runs]
        for cell, runs in cells
        if _is(str(cell), words)
    }


def _is(name: str, words: list[str]) -> bool:
    return not words or any(word in name for word in words)


def main(what: str, *words: str) -> None:
    """Measure; the table is written after each row."""
    pools = {"ours": ProcessPoolExecutor, "fairness": ProcessPoolExecutor}
    with pools.get(what, ThreadPoolExecutor)(os.cpu_count()) as pool:
        for name, runs in begin(what, pool, list(words)).items():
            figures = [run.result() for run in runs]
            table = Table(TABLE)
            row = table.rows[name]
            if what == "linux":
                row.linux = figures
            else:
                row.ours = figures
            table.write()
            print(row, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
