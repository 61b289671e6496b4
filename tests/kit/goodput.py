"""Goodput in virtual time: two stacks over the bottleneck, the cells of the table, the seeds.

Goodput is what an application has read in ``SECONDS`` from connect() on, in Mbit/s. The end
that listens sends, as kit.traffic's chargen does for two kernels (kit.linux_path).
"""

from __future__ import annotations

from typing import NamedTuple

from kit.bottleneck import Path
from kit.host import two_hosts
from kit.transfer import Flow, connected
from ustack.config import TcpConfig

SECONDS = 20
SECONDS_OF_1_MS = 5
"""For two stacks: those are thousands of round trips, and a simulation is slow where much moves."""
STAGGER_US = 200_000


class Cell(NamedTuple):
    """A path and the sender's congestion control."""

    path: Path
    control: str

    def __str__(self) -> str:
        return f"{self.control}, {self.path}"


CELLS = [
    Cell(Path(rtt_ms, loss_percent, reordered), control)
    for reordered in (False, True)
    for rtt_ms in (1, 20, 100)
    for loss_percent in (0, 0.1, 1, 3)
    for control in ("reno", "cubic")
]
LINUX_CELLS = [cell for cell in CELLS if not cell.path.reordered or not cell.path.loss_percent]
"""Those that are measured with two kernels too."""
LINUX_SEEDS = (1, 2, 3, 4, 5)
FAIRNESS = {
    f"{flows} flows, {cell}": (cell, flows)
    for flows in (2, 10)
    for cell in (Cell(Path(20, 0), "reno"), Cell(Path(20, 0), "cubic"))
}


def seeds(path: Path) -> tuple[int, ...]:
    """Return the runs of a cell: one where nothing is left to chance, or chance evens out."""
    if path.rtt_ms == 1 or not (path.loss_percent or path.reordered):
        return (1,)
    return LINUX_SEEDS if path.loss_percent else LINUX_SEEDS[:3]


def goodputs(cell: Cell, seed: int, flows: int = 1) -> list[float]:
    """Return each flow's goodput, Mbit/s.

    Flows begin one after another; the time begins with the last one's connect().
    """
    path, control = cell
    seconds = SECONDS_OF_1_MS if path.rtt_ms == 1 else SECONDS
    a, b = two_hosts(
        seed=seed, impair=(path.there, path.back), tcp=TcpConfig(tcp_congestion_control=control)
    )
    world = a.world
    running: list[Flow] = []
    for number in range(flows):
        world.advance_us(STAGGER_US if number else 0)
        begin_us, begun = world.now_us, [flow.received for flow in running] + [0]
        reader, sender = connected(b, a, port=80 + number)
        running.append(Flow(sender, reader))
        world.moving.append(running[-1])
    world.advance_us(begin_us + seconds * 1_000_000 - world.now_us)
    return [
        (flow.received - before) * 8 / seconds / 1e6
        for flow, before in zip(running, begun, strict=True)
    ]


def jain(rates: list[float]) -> float:
    """Return Jain's index of fairness: 1 if all are equal, 1/n if one has everything."""
    return sum(rates) ** 2 / len(rates) / sum(rate * rate for rate in rates)
