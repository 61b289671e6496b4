"""``ustack dump-ring eth0 rx 0``: a ring's registers, indices and descriptors.

What was written back shows DD, and EOP on the last descriptor of a frame; ``posted`` ones are
the device's. A ring is emptied faster than one can look: freeze the softirq first.
"""

from __future__ import annotations

import argparse

from ustack.cli.client import Client
from ustack.daemon.messages import LineRow, RingRequest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare dump-ring's arguments."""
    parser.add_argument("device", metavar="DEVICE", help="e.g. eth0")
    parser.add_argument("direction", choices=("rx", "tx"), metavar="rx|tx")
    parser.add_argument("queue", nargs="?", type=int, default=0, metavar="QUEUE", help="default 0")


def run(args: argparse.Namespace, client: Client) -> int:
    """Print the ring."""
    request = RingRequest(args.device, args.direction, args.queue)
    for row in client.rows(request, LineRow):
        print(row.text)
    return 0
