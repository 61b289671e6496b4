"""``ustack ulimit``: how many sockets a client process may have, in the shell's words."""

from __future__ import annotations

import argparse

from ustack.cli.client import Client, ClientError
from ustack.daemon.messages import UlimitRequest, ValueRow

MAX_FILES = 1 << 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ulimit's options."""
    flag = parser.add_argument
    flag("-S", dest="soft", action="store_true", help="the soft limit")
    flag("-H", dest="hard", action="store_true", help="the hard limit")
    flag("-n", dest="files", action="store_true", help="open files: the only limit there is")
    flag("--pid", type=int, default=0, help="of one client process, as prlimit(1)")
    flag("limit", nargs="?", help="set it, both without -S or -H; a number, soft or hard")


def run(args: argparse.Namespace, client: Client) -> int:
    """Print the limit or set it."""
    try:
        old = _limits(client, UlimitRequest(args.pid))
        if args.limit is None:
            print(old["hard" if args.hard and not args.soft else "soft"])
            return 0
        value = _number(args.limit, old)
        both = args.soft == args.hard
        soft = value if both or args.soft else None
        hard = value if both or args.hard else None
        _limits(client, UlimitRequest(args.pid, soft, hard))
    except ClientError as error:
        raise ClientError(f"ulimit: open files: cannot modify limit: {error}") from None
    return 0


def _limits(client: Client, request: UlimitRequest) -> dict[str, str]:
    return {row.name: str(row.value) for row in client.rows(request, ValueRow)}


def _number(text: str, limits: dict[str, str]) -> int:
    if text in limits:
        text = limits[text]
    if not text.isdecimal() or int(text) > MAX_FILES:
        raise ClientError("Invalid argument")
    return int(text)
