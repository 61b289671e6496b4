"""``ustack redirect --sockmap [on|off]``: local sockets hand each other their bytes directly.

What the daemon's sockets that are connected to each other over lo send is put into the peer's
receive queue, as a BPF sockmap does; ``ustack nstat SockmapRedirects SockmapBytes`` counts.
"""

from __future__ import annotations

import argparse

from ustack.cli.client import Client
from ustack.daemon.messages import RedirectRequest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare redirect's options."""
    parser.add_argument(
        "--sockmap",
        nargs="?",
        choices=("on", "off"),
        const="on",
        required=True,
        help="between two sockets of the stack, without the stack (on)",
    )


def run(args: argparse.Namespace, client: Client) -> int:
    """Switch it."""
    client.ask(RedirectRequest(args.sockmap == "on"))
    return 0
