"""The C code alone, under AddressSanitizer and UBSan, with random operations and hostile input.

The tests themselves are in ``harness/``; this file compiles them with ``ustack_c/src``
and plays each for a fraction of a second.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
WARN = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
INCLUDE = [f"-I{ROOT}/ustack_c/abi", f"-I{ROOT}/ustack_c/src"]
CC = shutil.which(os.environ.get("CC", "cc"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CC is None, reason="no C compiler"),
]


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def harness(tmp_path_factory) -> str:
    """The harness, compiled: its path."""
    folder = tmp_path_factory.mktemp("harness")

    def compile_one(source: Path) -> str:
        target = str(folder / f"{source.parent.name}-{source.stem}.o")
        flags = ["-std=gnu11", "-g", "-O1", *SANITIZE, *WARN, *INCLUDE]
        run(CC, *flags, "-c", str(source), "-o", target)
        return target

    sources = [*ROOT.glob("ustack_c/src/*.c"), *Path(__file__).parent.glob("harness/*.c")]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, sources))
    run(CC, *SANITIZE, *objects, "-o", str(folder / "harness"))
    return str(folder / "harness")


def test_random_rounds_of_every_test_leave_the_sanitizers_silent(harness):
    played = run(harness, "--seed", "1", "--ms", "300")
    names = run(harness, "--list").split()
    assert len(names) > 5
    assert [line.split(":")[0] for line in played.splitlines()] == names


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 6))
def test_more_rounds_from_other_seeds(harness, seed):
    run(harness, "--seed", str(seed), "--ms", "2000")
