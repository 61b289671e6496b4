"""Compile the bench's programs in C."""

from __future__ import annotations

import subprocess
from pathlib import Path

from kit.lab import LabError


def compile_program(name: str, folder: Path) -> str:
    """Compile ``name.c``, which stands beside this file, into ``folder``; return its path.

    Raises:
        LabError: gcc does not like it, or is not there.
    """
    program = str(folder / name)
    source = Path(__file__).with_name(f"{name}.c")
    command = ["gcc", "-O2", "-Wall", "-Wextra", "-o", program, str(source)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise LabError(f"gcc {source.name}: {run.stderr}")
    return program
