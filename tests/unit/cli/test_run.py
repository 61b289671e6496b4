"""``ustack run -- CMD``: the program is executed with the library in front, or a line says why."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kit.calls_daemon import CallsDaemon
from ustack.cli.main import main
from ustack.cli.run import PRELOAD, environment


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script gets this process's arguments and path."""
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "ustack: run: which program? (ustack run -- CMD, ustack run script.py)\n"),
        (["--", "no-such-program"], "ustack: run: no-such-program: command not found\n"),
        (["/no/script.py"], "ustack: run: /no/script.py: No such file or directory\n"),
        (["-m", "no.such"], "ustack: run: no module named no.such\n"),
        (["-m", "no.such", "-d", "--tap", "x"], "ustack: run: no module named no.such\n"),
        (["--nameserver", "x", __file__], "ustack: run: not an IPv4 address: 'x'\n"),
        (
            ["--address", "10.0.0.2/24", __file__],
            "ustack: run: an address needs a tap to be reached by\n",
        ),
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


def test_a_script_runs_on_the_daemon_that_the_variable_names(tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(
        "import socket\n"
        "with socket.create_server(('127.0.0.1', 0)) as listener:\n"
        "    with socket.create_connection(listener.getsockname()) as client:\n"
        "        listener.accept()[0].sendall(b'hello')\n"
        "        print(client.recv(5), type(client).__name__)\n"
    )
    with CallsDaemon(tmp_path / "u.sock") as daemon:
        run = subprocess.run(
            [sys.executable, "-m", "ustack.cli.main", "run", str(script)], capture_output=True,
            text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path),
                            "USTACK_SOCKET": str(daemon.path)},
        )  # fmt: skip
        opened = daemon.ask(lambda: daemon.stack.net.mib.tcp.PassiveOpens)
    assert run.stdout == "b'hello' RemoteSocket\n", run.stderr
    assert opened == 1


def test_a_script_whose_daemon_is_gone_is_told_in_one_line(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("USTACK_SOCKET", str(tmp_path / "none"))
    assert main(["run", __file__]) == 1
    line = f"ustack: run: {tmp_path / 'none'}: No such file or directory\n"
    assert capsys.readouterr().err == line
