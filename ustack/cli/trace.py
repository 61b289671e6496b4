"""``ustack trace --one rx|tx|lo`` and ``--conn``: the functions that a packet passes, with times.

The daemon watches until such a packet comes by; while it does so it is slower than usual, and
the times include the tracer's own cost. Each line: time since the first step, time until the
next one, the stage, the function. ``--conn`` shows a request and its reply on one clock.
"""

from __future__ import annotations

import argparse
from typing import Literal

from ustack.cli.client import Client
from ustack.cli.decode import Decoder
from ustack.cli.streaming import note, stop_signals
from ustack.daemon.messages import Done, PacketTrace, Started, TraceRequest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare trace's options."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--one",
        choices=("rx", "tx", "lo"),
        help="the next packet received by a NIC, sent by an application or echoed, or over lo",
    )
    what.add_argument(
        "--conn",
        action="store_true",
        help="the next packet with data of some connection, and the next one the other way",
    )


def run(args: argparse.Namespace, client: Client) -> int:
    """Wait for the packet and print its path.

    Returns:
        1 if it was interrupted before one came.
    """
    client.wait_forever()
    kind: Literal["rx", "tx", "lo", "conn"] = "conn" if args.conn else args.one
    names = ["reply: ", "request: "] if args.conn else [""]
    status = 1
    with stop_signals(client, TraceRequest(kind)):
        while True:
            reply = client.receive()
            if isinstance(reply, Started):
                note(f"waiting for a packet ({kind})")
            elif isinstance(reply, PacketTrace):
                status = 0
                print("\n".join(format_trace(reply, names.pop())), flush=True)
            elif isinstance(reply, Done):
                return status


def format_trace(trace: PacketTrace, name: str = "") -> list[str]:
    """Write a trace as lines."""
    lines = [f"{name}{trace.device}: {Decoder().line(trace.data, trace.length)}"]
    times = [hop.at_ns for hop in trace.hops] + [trace.total_ns]
    for hop, after_ns in zip(trace.hops, times[1:], strict=True):
        at_us, took_us = hop.at_ns / 1000, (after_ns - hop.at_ns) / 1000
        lines.append(f"{at_us:9.1f} us {took_us:+8.1f}  {hop.stage:<10} {hop.function}")
    lines.append(f"{trace.total_ns / 1000:9.1f} us           done")
    return lines
