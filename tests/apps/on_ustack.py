"""Load a program so that its ``import socket`` and ``import select`` mean the stack's.

As a command: ``on_ustack.py TAP ADDRESS PROGRAM ARGUMENT...`` runs it on a TAP device.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import ustack
from ustack import select, socket


def load(name: str) -> dict[str, Any]:
    """Return the globals of the program ``name`` of this folder, made on ustack's modules."""
    path = Path(__file__).parent / name
    with mock.patch.dict(sys.modules, {"socket": socket, "select": select}):
        return runpy.run_path(str(path))


def main(tap: str, address: str, program: str, *arguments: str) -> None:
    with ustack.up(tap, address):
        run = load(program)["main"]
        run("", *[int(argument) for argument in arguments])


if __name__ == "__main__":
    main(*sys.argv[1:])
