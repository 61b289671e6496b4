"""``ustack run script.py [args]``: a Python program on ustack, in this process.

Which stack: with --tap one of its own, by options or the variables USTACK_TAP, USTACK_ADDRESS,
USTACK_GATEWAY, USTACK_HOST_ADDRESS, USTACK_NAMESERVER. Else the running daemon's that --socket or
USTACK_SOCKET names. With neither it has a loopback device only.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import runpy
import sys

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
    parser.add_argument(
        "-m", dest="module", nargs=argparse.REMAINDER,
        help="the name of a module to run, and what is for that",
    )  # fmt: skip


def run_script(args: argparse.Namespace) -> int:
    """Bring the stack up, put it in the kernel's place and run the program as __main__.

    Raises:
        ClientError: there is no such program, or no such stack can be had.
    """
    from ustack.takeover import install

    script = None if args.module else args.command[0]
    sys.argv = list(args.module or args.command)
    sys.path.insert(0, os.path.dirname(os.path.abspath(script)) if script else os.getcwd())
    if script is None and not _is_module(sys.argv[0]):
        raise ClientError(f"run: no module named {sys.argv[0]}")
    if script is not None and not os.path.exists(script):
        raise ClientError(f"run: {script}: No such file or directory")
    _bring_up(args)
    install()
    if script is None:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(script, run_name="__main__")
    return 0  # the stack goes at exit, when the script's threads are done


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _bring_up(args: argparse.Namespace) -> None:
    """Make this process's stack the one that is asked for.

    Raises:
        ClientError: the options make no sense, the TAP cannot be had, or the daemon that is
            named does not answer.
    """
    import ustack

    path = args.socket or os.environ.get("USTACK_SOCKET")
    given = {name.replace("-", "_"): getattr(args, name.replace("-", "_")) for name in OPTIONS}
    try:
        if path and not args.tap:
            ustack.connect(path, nameserver=args.nameserver)
        else:
            ustack.up(**{name: value for name, value in given.items() if value is not None})
    except ValueError as error:
        raise ClientError(f"run: {error}") from error
    except OSError as error:
        named = args.tap or path
        where = f"{named}: " if named else ""
        raise ClientError(f"run: {where}{error.strerror or error}") from error
