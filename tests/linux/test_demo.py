"""tools/demo shows what it should and leaves nothing behind, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kit.lab import wait_for

ROOT = Path(__file__).parents[2]


@pytest.fixture
def demo():
    """The demo's program as a process in a session of its own, its output in text."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "PYTHONUNBUFFERED": "1"}
    child = subprocess.Popen(
        [sys.executable, str(ROOT / "tools" / "lib" / "demo.py")],
        cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    yield child
    if child.poll() is None:
        child.terminate()
        child.wait(120)


def left_behind(pid: int) -> list[str]:
    """Return namespaces, folders and processes that carry the demo's name and pid."""
    mark = f"ustack-demo-{pid}-"
    listing = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    left = [line for line in listing.stdout.splitlines() if mark in line]
    left += [str(path) for path in Path("/tmp").glob(f"{mark}*")]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in path.read_bytes():
                left.append(str(path))
        except OSError:
            pass  # it has just ended
    return left


def test_it_shows_everything_and_leaves_nothing(demo):
    output, _ = demo.communicate(timeout=280)
    assert demo.returncode == 0, output
    for shown in ("4 received", "Hello from ustack", "S. 0:0(0) ack 1", "ESTAB", "Gbit/s"):
        assert shown in output
    assert left_behind(demo.pid) == []


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_stopped_in_the_middle_it_leaves_nothing(demo, signum):
    wait_for(lambda: "== ping" in demo.stdout.readline(), "the demo's ping", 120)
    os.killpg(demo.pid, signum)  # as a terminal does: everything in the foreground
    demo.communicate(timeout=120)
    assert demo.returncode == 130
    assert left_behind(demo.pid) == []
