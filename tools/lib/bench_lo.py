"""The lo part of the bench: a round trip between two sockets of one stack, by way.

Over 127.0.0.1, over an own address of the NIC's, and by the sockmap shortcut, in this process
and thread: 64 bytes there and back, the stack polled after each send as an event loop would.
The ways take turns, so that what else runs on the machine is in all of them.
"""

from __future__ import annotations

import argparse
import random
import statistics
from time import perf_counter_ns
from typing import Any

from rich.table import Table

from ustack.lib.addresses import INADDR_LOOPBACK, parse_interface
from ustack.nic.pair import wire_pair
from ustack.runtime.clock import monotonic_us
from ustack.stack import Stack

WAYS = ("lo, 127.0.0.1", "lo, own address", "sockmap")
OWN = parse_interface("10.0.0.2/24")
PAYLOAD = bytes(64)
Samples = dict[str, list[float]]


def run(chosen: argparse.Namespace) -> Samples:
    """Measure each way in turn; a sample is the median round trip of a turn, in microseconds."""
    stack = Stack(rng=random.Random(1), now_us=monotonic_us())
    wire, _ = wire_pair()
    stack.add_igb(wire, address=OWN)
    pairs = {way: connect(stack, INADDR_LOOPBACK if "127" in way else OWN.addr) for way in WAYS}
    samples: Samples = {way: [] for way in WAYS}
    for _ in range(chosen.count_rounds):
        for way, ends in pairs.items():
            stack.redirect_sockmap(way == "sockmap")
            samples[way].append(measure(stack, *ends, chosen.frames))
    stack.close()
    return samples


def settle(stack: Stack) -> None:
    """Poll until there is nothing to do."""
    while stack.poll(monotonic_us()):
        pass


def connect(stack: Stack, addr: int) -> tuple[Any, Any]:
    """Return both ends of a new connection within the stack."""
    lsk = stack.socket()
    lsk.bind(addr, 0)
    lsk.listen(1)
    near = stack.socket()
    try:
        near.connect(addr, lsk.getsockname()[1])
    except BlockingIOError:
        settle(stack)
    return near, lsk.accept()


def measure(stack: Stack, near: Any, far: Any, count: int) -> float:
    """Return the median of ``count`` round trips, in microseconds."""
    times = []
    for _ in range(count):
        began = perf_counter_ns()
        for one, other in ((near, far), (far, near)):
            one.send(PAYLOAD)
            settle(stack)
            other.recv(len(PAYLOAD))
        times.append(perf_counter_ns() - began)
    return statistics.median(times) / 1000


def table(samples: Samples, chosen: argparse.Namespace) -> Table:
    """Lay the medians out, the ratio to the first way beside them."""
    title = f"lo: median of {chosen.count_rounds} x {chosen.frames} round trips, 64 bytes over TCP"
    out = Table("way", title=title, title_justify="left")
    for heading in ("us", "range", "of 127.0.0.1"):
        out.add_column(heading, justify="right")
    base = statistics.median(samples[WAYS[0]])
    for way, values in samples.items():
        median = statistics.median(values)
        span = f"{min(values):.1f}-{max(values):.1f}"
        out.add_row(way, f"{median:.1f}", span, f"{median / base:.2f}")
    return out


def as_json(samples: Samples) -> list[dict[str, Any]]:
    """Return every sample."""
    return [
        {"way": way, "median_us": statistics.median(values), "samples_us": values}
        for way, values in samples.items()
    ]
