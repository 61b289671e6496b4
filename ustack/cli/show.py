"""``ustack show``: tables of the stack's inside that Linux has no command for."""

from __future__ import annotations

import argparse

from ustack.cli.client import Client
from ustack.daemon.messages import LineRow, ShowRequest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare show's arguments."""
    parser.add_argument(
        "what", metavar="TABLE", help="softnet, rps, xps; of sockets: rqueue, ofo, wqueue, waitq"
    )
    parser.add_argument(
        "port", metavar="PORT", nargs="?", type=int, default=0, help="only sockets with this port"
    )


def run(args: argparse.Namespace, client: Client) -> int:
    """Print one table."""
    for row in client.rows(ShowRequest(args.what, args.port), LineRow):
        print(row.text)
    return 0
