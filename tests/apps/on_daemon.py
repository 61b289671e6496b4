"""Run a program whose ``import socket`` means a daemon's stack: ``on_daemon.py SOCKET PROGRAM``."""

from __future__ import annotations

import runpy
import sys

import ustack


def main(socket: str, program: str, *arguments: str) -> None:
    """Become the program."""
    ustack.connect(socket)
    ustack.install()
    sys.argv = [program, *arguments]
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
