"""``ustack``: one command, a subcommand per Linux tool, each against a running ustackd.

Each subcommand is a module with ``add_arguments(parser)`` and ``run(args, client)``. They
print plain text in the original's columns, because scripts read it.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from ustack.cli.client import Client, ClientError, find_socket
from ustack.daemon.command_line import OneLineParser

SUBCOMMANDS = {
    "ss": "list sockets",
    "netstat": "counters (-s) and drop reasons (--drops)",
    "nstat": "counters by name",
    "ethtool": "the emulated NIC",
    "ip": "neighbours (show, add, replace, del), routes, addresses, links",
    "tcpdump": "packets as they pass",
    "cat": "files of /proc",
    "slabtop": "the caches of the arena (-o: once)",
    "sysctl": "read and set fs.*, net.core.* and net.ipv4.*",
    "ulimit": "-n: open files of a client process",
    "ping": "echo requests from the stack",
    "tc": "queue disciplines (-s: counters)",
    "show": "the stack's inside: softnet, rps, xps; of sockets: rqueue, ofo, wqueue, waitq",
    "ps": "the daemon's threads and tasks, and ksoftirqd",
    "lat": "how long handshakes, connect() and wake-ups take, as a histogram",
    "trace": "the path of one packet, or of a request and its reply",
    "dump-ring": "a ring's descriptors",
    "capacity": "how many connections a machine holds, from what one is measured to take",
    "redirect": "short cuts: --sockmap, between local sockets",
    "debug": "faults on purpose: freeze-softirq, fail-alloc",
    "run": "a program on ustack: run -- CMD on the daemon's, run script.py on a stack of its own",
    "help": "pages: questions and the commands that answer them, python, daemon, supported, speed",
}
"""Each is the module of that name in this package, with _ for -."""
NO_DAEMON = ("capacity", "help", "lat", "run")
"""Those that need no daemon, always: their ``run`` takes the arguments alone."""


def load(name: str) -> Any:
    """Return a subcommand's module; only the one in use is imported (dpkt takes its time)."""
    return importlib.import_module(f"ustack.cli.{name.replace('-', '_')}")


def build_parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser of the whole command, complete for what ``argv`` names."""
    parser = OneLineParser(prog="ustack", description="Look into a running ustackd.")
    socket_help = "control socket (default: USTACK_SOCKET, or the only one)"
    parser.add_argument("--socket", metavar="PATH", help=socket_help)
    own_words = argv[: argv.index("run") + 1] if "run" in argv else argv
    subparsers = parser.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)
    for name, text in SUBCOMMANDS.items():
        subparser = subparsers.add_parser(name, help=text, description=text)
        subparser.add_argument(
            "--socket", default=argparse.SUPPRESS, metavar="PATH", help=socket_help
        )
        if name in own_words:
            load(name).add_arguments(subparser)
    return parser


def _run(args: argparse.Namespace) -> int:
    command = load(args.subcommand)
    if args.subcommand in NO_DAEMON:
        return int(command.run(args))
    with Client(find_socket(args.socket)) as client:
        return int(command.run(args, client))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the console script ``ustack``.

    Returns:
        0; 1, or what the original of the command has, if the daemon cannot be asked or refuses;
        argparse leaves with 2 by itself.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    args = build_parser(words).parse_args(words)
    try:
        status = _run(args)
        sys.stdout.flush()
        return status
    except ClientError as error:
        print(f"ustack: {error}", file=sys.stderr)
        return error.status
    except (BrokenPipeError, KeyboardInterrupt) as error:
        if args.subcommand == "run":
            raise  # the script's own
        if isinstance(error, KeyboardInterrupt):
            return 130
        # The reader of our output is gone, as in `ustack ss | head`: no message, and nothing
        # left for the interpreter to flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


if __name__ == "__main__":
    sys.exit(main())
