"""``ustack show``: tables of the stack's inside that Linux has no command for."""

from __future__ import annotations

import argparse

from ustack.cli.client import Client
from ustack.daemon.messages import LineRow, ShowRequest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare show's argument."""
    parser.add_argument("what", metavar="TABLE", help="softnet, rps or xps")


def run(args: argparse.Namespace, client: Client) -> int:
    """Print one table."""
    for row in client.rows(ShowRequest(args.what), LineRow):
        print(row.text)
    return 0
