"""``ustack debug``: faults on purpose, which end by themselves after ten seconds at most.

``freeze-softirq 1s`` lets nothing be polled while the NIC goes on; ``fail-alloc 100 [2s]``
lets the next hundred allocations of pages fail, within two seconds. 0 ends a fault.
"""

from __future__ import annotations

import argparse
import re

from ustack.cli.client import Client
from ustack.daemon.messages import FaultRequest

UNITS_US = {"us": 1, "ms": 1_000, "s": 1_000_000, "": 1_000_000}
"""Microseconds of each unit; seconds unless another is named."""
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare debug's faults."""
    faults = parser.add_subparsers(dest="fault", metavar="FAULT", required=True)
    freeze = faults.add_parser("freeze-softirq", help="poll nothing for a while")
    freeze.add_argument("duration", type=duration_us, metavar="TIME", help="1s, 200ms; at most 10s")
    fail = faults.add_parser("fail-alloc", help="let allocations of pages fail")
    fail.add_argument("count", type=int, metavar="N", help="how many")
    fail.add_argument(
        "duration", nargs="?", type=duration_us, default=2_000_000, metavar="TIME",
        help="for how long at most (2s)",
    )  # fmt: skip


def run(args: argparse.Namespace, client: Client) -> int:
    """Begin the fault; it ends by itself."""
    client.ask(FaultRequest(args.fault, args.duration, getattr(args, "count", 0)))
    return 0


def duration_us(text: str) -> int:
    """Read ``1s``, ``200ms``, ``0.5`` (seconds).

    Raises:
        argparse.ArgumentTypeError: it is no time.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"not a time: {text!r} (try 1s or 200ms)")
    return round(float(match[1]) * UNITS_US[match[2]])
