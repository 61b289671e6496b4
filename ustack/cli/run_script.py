"""``ustack run script.py [args]``: a Python program on ustack, in this process.

Which stack: with --tap one of its own, by options or the variables USTACK_TAP, USTACK_ADDRESS,
USTACK_GATEWAY, USTACK_HOST_ADDRESS, USTACK_NAMESERVER. Else the running daemon's that --socket or
USTACK_SOCKET names. With neither it has a loopback device only.
"""

from __future__ import annotations

import argparse
import os
import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ustack.cli.client import ClientError

OPTIONS = {
    "tap": "TAP device, made if there is none",
    "address": "the stack's address, as 10.0.0.2/24",
    "gateway": "its default router",
    "host-address": "given to the kernel's side of the TAP, as 10.0.0.1/24",
    "nameserver": "who is asked for names",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; they stand before the script's name."""
    for name, text in OPTIONS.items():
        variable = "USTACK_" + name.upper().replace("-", "_")
        parser.add_argument(
            f"--{name}", default=os.environ.get(variable), help=f"{text} ({variable})"
        )
    parser.add_argument("-m", dest="module", metavar="MODULE", help="run a module by its name")


def run_script(args: argparse.Namespace) -> int:
    """Bring the stack up, put it in the kernel's place and run the program as __main__."""
    from ustack.takeover import install

    with _stack(args):
        install()
        if args.module:
            sys.argv = [args.module, *args.command]
            sys.path.insert(0, os.getcwd())
            runpy.run_module(args.module, run_name="__main__", alter_sys=True)
        else:
            script = args.command[0]
            sys.argv = list(args.command)
            sys.path.insert(0, os.path.dirname(os.path.abspath(script)))
            runpy.run_path(script, run_name="__main__")
    return 0


@contextmanager
def _stack(args: argparse.Namespace) -> Iterator[None]:
    """Have the stack that is asked for while the block runs.

    Raises:
        ClientError: the daemon that is named does not answer.
    """
    import ustack

    path = args.socket or os.environ.get("USTACK_SOCKET")
    if path and not args.tap:
        try:
            ustack.connect(path, nameserver=args.nameserver)
        except OSError as error:
            raise ClientError(f"run: {path}: {error.strerror}") from None
        try:
            yield
        finally:
            ustack.down()
        return
    given = {name.replace("-", "_"): getattr(args, name.replace("-", "_")) for name in OPTIONS}
    with ustack.up(**{name: value for name, value in given.items() if value is not None}):
        yield
