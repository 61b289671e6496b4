"""Goodput over a bottleneck by loss, round trip, reordering and congestion control.

goodput.table holds what it was, and what Linux reached: a fault in loss recovery or congestion
control is a number that changes. After a meant change record_goodput.py writes them down anew.
"""

from __future__ import annotations

from pathlib import Path as File

import pytest

from kit.bottleneck import Path
from kit.goodput import CELLS, FAIRNESS, LINUX_CELLS, LINUX_SEEDS, Cell, goodputs, jain, seeds
from kit.goodput_table import Row, Table

TABLE = Table(File(__file__).with_name("goodput.table"))
QUICK = [
    Cell(Path(100, 1), "reno"),
    Cell(Path(100, 3), "cubic"),
    Cell(Path(100, 3, True), "cubic"),
    Cell(Path(20, 3), "cubic"),
]
"""What a test of every day has the time for."""


def run(cell: Cell, seed: int) -> float:
    return round(goodputs(cell, seed)[0], 2)


@pytest.mark.parametrize("cell", QUICK, ids=str)
def test_the_first_seed_reaches_what_is_written_down(cell):
    assert run(cell, 1) == TABLE.rows[str(cell)].ours[0]


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_every_seed_reaches_what_is_written_down(cell):
    assert [run(cell, seed) for seed in seeds(cell.path)] == TABLE.rows[str(cell)].ours


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", FAIRNESS)
def test_flows_share_the_bottleneck_as_is_written_down(name):
    cell, flows = FAIRNESS[name]
    assert [round(jain(goodputs(cell, 1, flows)), 2)] == TABLE.rows[name].ours


def test_the_table_has_every_run_of_every_cell_and_no_other_row():
    assert list(TABLE.rows) == [*map(str, CELLS), *FAIRNESS]
    for cell in CELLS:
        row = TABLE.rows[str(cell)]
        assert len(row.ours) == len(seeds(cell.path)), row.cell
        assert len(row.linux) == (len(LINUX_SEEDS) if cell in LINUX_CELLS else 0), row.cell
    assert [len(TABLE.rows[name].ours) for name in FAIRNESS] == [1] * len(FAIRNESS)


def test_what_is_outside_has_a_reason_and_nothing_else_has():
    rows = TABLE.rows.values()
    assert [row.cell for row in rows if row.outside] == [row.cell for row in rows if row.why]


@pytest.mark.parametrize(
    ("ours", "linux", "outside"),
    [
        ([9.0], [10.0, 10.1, 9.9], False),
        ([8.0, 9.0, 7.0], [10.0, 10.0, 7.9], False),
        ([8.0, 9.0, 7.0], [10.0, 10.0, 8.1], True),
        ([20.0], [10.0], False),
        ([1.0], [], False),
    ],
)
def test_outside_is_below_the_tolerance_and_linuxs_spread(ours, linux, outside):
    assert Row("", ours, linux).outside == outside


def test_jains_index_of_equal_shares_is_one_and_of_a_single_taker_the_least():
    assert jain([5, 5, 5, 5]) == 1
    assert jain([20, 0, 0, 0]) == 0.25
