"""``ustack cat``: files of /proc and masks in /sys, as if the stack were the kernel."""

from __future__ import annotations

import argparse

from ustack.cli.client import Client, ClientError
from ustack.daemon.messages import CatRequest, LineRow


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare cat's arguments."""
    parser.add_argument("paths", nargs="+", metavar="PATH", help="e.g. /proc/net/softnet_stat")


def run(args: argparse.Namespace, client: Client) -> int:
    """Print the files one after the other."""
    for path in args.paths:
        try:
            for row in client.rows(CatRequest(path), LineRow):
                print(row.text)
        except ClientError as error:
            raise ClientError(f"cat: {error}") from None
    return 0
