"""What pip makes of this tree: an sdist that builds, a wheel that runs without the sources."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHIPPED = ["pyproject.toml", "README.md", "LICENSE", "ustack", "ustack_c"]

BUILD = """
import sys
from setuptools import build_meta
print(getattr(build_meta, sys.argv[1])(sys.argv[2]))
"""

ECHO = """
import threading, ustack
from ustack import socket
server = socket.create_server(("127.0.0.1", 7))
def serve():
    sk, _ = server.accept()
    with sk:
        while data := sk.recv(65536):
            sk.sendall(data)
threading.Thread(target=serve, daemon=True).start()
with socket.create_connection(("127.0.0.1", 7), timeout=10) as sk:
    sk.sendall(b"from a wheel")
    sk.shutdown(socket.SHUT_WR)
    with sk.makefile("rb") as reply:
        print(reply.read().decode(), ustack.__file__)
"""


def python(*arguments: str, cwd: Path, **environ: str) -> str:
    """Run this interpreter in ``cwd`` and return what it printed last."""
    run = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, text=True, capture_output=True, check=False,
        timeout=280, env={**os.environ, **environ},
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    return run.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution of a copy of this tree, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    tree = folder / "tree"
    tree.mkdir()
    junk = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info")
    for name in SHIPPED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=junk)
        else:
            shutil.copy(source, tree)
    name = python("-c", BUILD, "build_sdist", str(folder), cwd=tree)
    shutil.unpack_archive(folder / name, folder / "unpacked")
    (unpacked,) = (folder / "unpacked").iterdir()
    return unpacked


def test_the_sdist_holds_every_source_of_the_extension(sdist: Path):
    names = {p.relative_to(ROOT) for p in ROOT.glob("ustack_c/**/*.[ch]")}
    assert {n for n in names if not (sdist / n).is_file()} == set()
    assert (sdist / "LICENSE").is_file()


@pytest.mark.slow
def test_a_wheel_from_the_sdist_runs_without_the_source_tree(sdist: Path, tmp_path: Path):
    name = python("-c", BUILD, "build_wheel", str(tmp_path), cwd=sdist)
    site = tmp_path / "site"
    with zipfile.ZipFile(tmp_path / name) as wheel:
        wheel.extractall(site)
        names = wheel.namelist()
    assert not [n for n in names if n.startswith(("tests", "tools", "ustack_c/src"))]
    shutil.rmtree(sdist)
    answer = python("-P", "-c", ECHO, cwd=tmp_path, PYTHONPATH=str(site))
    assert answer == f"from a wheel {site / 'ustack' / '__init__.py'}"


def test_the_console_scripts_are_installed_and_say_what_they_are():
    for script in ("ustack", "ustackd"):
        path = Path(sys.executable).with_name(script)
        run = subprocess.run([path, "--help"], capture_output=True, text=True, check=False)
        assert run.returncode == 0 and script in run.stdout
