"""``ustack run``: a program on ustack; ``-- CMD`` on a running ustackd, ``script.py`` on its own.

A script stays in this process, see ``run_script.py``. A command is executed in our place with
the preload library in front of the C library, so that its TCP sockets are the daemon's. It
must be linked dynamically, and its children inherit.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

import ustack.native
from ustack.cli import run_script
from ustack.cli.client import ClientError, find_socket

PRELOAD = Path(ustack.native.__path__[0]) / "libustack_preload.so"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    run_script.add_arguments(parser)
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="-- CMD [ARG...] | SCRIPT.py [ARG...]"
    )


def environment(socket_path: Path) -> dict[str, str]:
    """Return the environment in which a program's sockets are the daemon's at ``socket_path``."""
    before = os.environ.get("LD_PRELOAD", "")
    preload = f"{PRELOAD}:{before}" if before else str(PRELOAD)
    return {
        **os.environ,
        "LD_PRELOAD": preload,
        "USTACK_SOCKET": str(socket_path.absolute()),
    }


def run(args: argparse.Namespace) -> int:
    """Become the program, or run the script.

    Raises:
        ClientError: no daemon is running, or there is no such program.
    """
    if args.module or (args.command and args.command[0] != "--"):
        return run_script.run_script(args)
    command = args.command[1:] if args.command[:1] == ["--"] else []
    if not command:
        raise ClientError("run: which program? (ustack run -- CMD, ustack run script.py)")
    program = shutil.which(command[0])
    if program is None:
        raise ClientError(f"run: {command[0]}: command not found")
    path = find_socket(args.socket)
    sys.stdout.flush()
    os.execve(program, command, environment(path))
