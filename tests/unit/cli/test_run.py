"""``ustack run -- CMD``: the program is executed with the library in front, or a line says why."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ustack.cli.main import main
from ustack.cli.run import PRELOAD, environment


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "ustack: run: which program? (ustack run -- CMD, ustack run script.py)\n"),
        (["--", "no-such-program"], "ustack: run: no-such-program: command not found\n"),
    ],
)
def test_what_cannot_be_run_is_one_line(words: list[str], line: str, capsys):
    assert main(["run", *words]) == 1
    assert capsys.readouterr().err == line


def test_the_library_comes_before_those_that_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("LD_PRELOAD", "/other.so")
    monkeypatch.chdir(tmp_path)
    env = environment(Path("u.sock"))
    assert env["LD_PRELOAD"] == f"{PRELOAD}:/other.so"
    assert env["USTACK_SOCKET"] == str(tmp_path / "u.sock")
    assert PRELOAD.is_file()


def test_the_program_takes_our_place_with_its_arguments_and_status(tmp_path: Path):
    code = "import os, sys; print(os.environ['USTACK_SOCKET'], sys.argv[1:]); sys.exit(3)"
    command = [sys.executable, "-m", "ustack.cli.main", "--socket", str(tmp_path / "s"), "run"]
    run = subprocess.run(
        [*command, "--", sys.executable, "-c", code, "--socket", "-x"],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert run.returncode == 3, run.stderr
    assert run.stdout == f"{tmp_path / 's'} ['--socket', '-x']\n"
