"""tools/bench counts frames, stages and modes, and its JSON is complete; no figure is judged."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kit.lab import stop

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None, reason="the loop in C needs gcc")
def test_frames_and_stages_are_counted_beside_the_loop_in_c():
    # An empty part would mean the working directory, where there may be no compiled module.
    parts = [str(ROOT / "tests"), str(ROOT / "tools" / "lib"), os.environ.get("PYTHONPATH")]
    path = os.pathsep.join([part for part in parts if part])
    bench = subprocess.Popen(
        [sys.executable, str(ROOT / "tools" / "lib" / "bench.py"),
         "frames", "rates", "stages", "modes", "loss", "lo",
         "--quick", "--seconds", "0.2", "--json", "-"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        out, err = bench.communicate(timeout=280)
    finally:
        stop(bench)  # it has namespaces to take down, if we are stopped
    assert bench.returncode == 0, err
    answer = json.loads(out)
    kinds = {row["what"] for row in answer["frames"]}
    assert {"read plain", "read vnet", "write plain", "write vnet", "receive", "transmit"} <= kinds
    assert {row["bytes"] for row in answer["frames"] if row["what"] == "receive"} == {
        64, 256, 512, 1514, 64294,
    }  # fmt: skip
    assert {row["way"] for row in answer["stages"]} == {"up", "down"}
    assert {row["mode"] for row in answer["modes"] if row["figure"] == "p50_us"} == {
        "adaptive interrupts", "no moderation", "--busy-poll-us 50", "--poll",
    }  # fmt: skip
    polled = {row["figure"]: row["median"] for row in answer["modes"] if row["mode"] == "--poll"}
    assert polled["interrupts"] == 0
    rates = {(row["measure"][:9], row["subject"]): row["median"] for row in answer["rates"]}
    assert rates["ping-pong", "ustack, epoll"] > 0 < rates["connect, ", "Linux veth, C"]
    lossy = {row["subject"]: row["median"] for row in answer["loss"]}
    assert lossy["ustack in process"] > 0 < lossy["Linux"]
    assert [row["way"] for row in answer["lo"]] == ["lo, 127.0.0.1", "lo, own address", "sockmap"]
    assert "results" not in answer
