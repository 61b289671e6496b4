"""The table of goodput, tests/sim/goodput.table: golden figures of ours and Linux's beside them.

A row is ``cell | ours, a run each | Linux's, a run each | why``. The last column is for cells
that are outside: worse than Linux by more than ``TOLERANCE``, and than its worst run.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from pathlib import Path as File

from kit.goodput import CELLS, FAIRNESS

TOLERANCE = 0.15


@dataclass
class Row:
    """What is known of a cell, Mbit/s."""

    cell: str
    ours: list[float] = field(default_factory=list)
    linux: list[float] = field(default_factory=list)
    why: str = ""

    @property
    def ratio(self) -> float:
        """Our median to Linux's."""
        return statistics.median(self.ours) / statistics.median(self.linux)

    @property
    def outside(self) -> bool:
        """Whether it needs a reason."""
        if not self.linux:
            return False
        return self.ratio < 1 - TOLERANCE and statistics.median(self.ours) < min(self.linux)

    def __str__(self) -> str:
        ours, linux = (" ".join(f"{x:.2f}" for x in runs) for runs in (self.ours, self.linux))
        return f"{self.cell:31} | {ours:29} | {linux:29} | {self.why}".rstrip()


class Table:
    """The file: comments, then a row for each cell and for what is measured of fairness."""

    def __init__(self, path: File) -> None:
        self.path = path
        lines = path.read_text().splitlines()
        self.head = [line for line in lines if line.startswith("#")]
        rows = {name: Row(name) for name in (*map(str, CELLS), *FAIRNESS)}
        self.rows = rows | {row.cell: row for row in map(_row, lines[len(self.head) :])}

    def write(self) -> None:
        """Write the file anew."""
        rows = [str(row) for row in self.rows.values()]
        self.path.write_text("\n".join([*self.head, *rows]) + "\n")


def _row(line: str) -> Row:
    cell, ours, linux, why = (part.strip() for part in line.split("|", 3))
    return Row(cell, [float(x) for x in ours.split()], [float(x) for x in linux.split()], why)
