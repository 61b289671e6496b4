"""``ustack ps``: the daemon's threads and tasks, and each context's ksoftirqd."""

from __future__ import annotations

import argparse

from ustack.cli.client import Client
from ustack.daemon.messages import LineRow, ShowRequest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare nothing: there are no options."""
    del parser


def run(args: argparse.Namespace, client: Client) -> int:
    """Print the list."""
    del args
    for row in client.rows(ShowRequest("ps"), LineRow):
        print(row.text)
    return 0
