"""The C code alone, under AddressSanitizer and UBSan, with random operations and hostile input.

The tests themselves are in ``harness/``; this file compiles them with ``ustack_c/src``
and plays each for a fraction of a second, those that take frames for a quarter of a minute.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kit.budget import fuzz_budget

BUDGET = fuzz_budget()
FRAME_TESTS = ("frames", "rings", "nic_against_nonsense", "driver_against_nonsense")
"""Half of the time is the first's, which knows what frames look like."""
ROOT = Path(__file__).parents[2]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
WARN = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
INCLUDE = [f"-I{ROOT}/ustack_c/abi", f"-I{ROOT}/ustack_c/src"]
CC = shutil.which(os.environ.get("CC", "cc"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CC is None, reason="no C compiler"),
]


def run(*command: str, timeout_s: float = 280) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
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


@pytest.mark.timeout(int(BUDGET.seconds) + 300)
@pytest.mark.parametrize("name", FRAME_TESTS)
def test_frames_of_any_kind_for_as_long_as_there_is_time(harness, name):
    """A failure prints how to play its round again: seed, test and round."""
    share = 1 / 2 if name == FRAME_TESTS[0] else 1 / 2 / (len(FRAME_TESTS) - 1)
    ms = str(int(BUDGET.seconds / 2 * share * 1000))
    seed = str(BUDGET.seed)
    print(f"again: harness --seed {seed} --test {name} --ms {ms}")
    limit_s = BUDGET.seconds + 100
    played = run(harness, "--seed", seed, "--test", name, "--ms", ms, timeout_s=limit_s)
    assert int(played.split()[1]) > 0, played


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 6))
def test_more_rounds_from_other_seeds(harness, seed):
    run(harness, "--seed", str(seed), "--ms", "2000")
