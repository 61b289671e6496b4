"""``ustack slabtop`` against a real stack's caches, held beside procps' own."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from unit.cli.fake_daemon import ViewsDaemon
from ustack.cli import slabtop
from ustack.native.slab import SlabInfo
from ustack.stack import Stack

LINE = (
    "TCP                  120    140    576   14    2 : tunables    0    0    0"
    " : slabdata      9     10      0"
)


@pytest.fixture
def stack() -> Stack:
    return Stack(rng=random.Random(1))


@pytest.fixture
def daemon(stack: Stack, tmp_path: Path) -> ViewsDaemon:
    return ViewsDaemon(stack, tmp_path / "control.sock")


def test_a_line_of_slabinfo_is_read(stack: Stack):
    (cache,) = slabtop.parse_slabinfo(["slabinfo - version: 2.1", "# name", LINE])
    assert cache == ("TCP", 120, 140, 576, 14, 2, 9, 10)
    assert (cache.size, cache.use) == (10 * 2 * 4096, 85)


def test_the_picture_counts_what_there_is(stack: Stack, daemon: ViewsDaemon, capsys):
    socks = [stack.socket() for _ in range(20)]
    assert daemon.run("slabtop", "-o") == 0
    out = capsys.readouterr().out.splitlines()
    info = stack.memory_info()["TCP"]
    assert out[0].endswith(f": 20 / {info.num_objs} ({2000 / info.num_objs:.1f}%)")
    assert out[2].split(":")[1] == " 1 / 4 (25.0%)"
    tcp = next(line.split() for line in out if line.endswith("TCP" + " " * 20))
    assert tcp[:2] == [str(info.num_objs), "20"] and tcp[4] == str(info.num_slabs)
    assert tcp[6] == f"{info.num_slabs * info.pagesperslab * 4}K"
    for sock in socks:
        sock.close()


def test_caches_are_sorted_as_asked():
    one, two = (SlabInfo("a", 9, 10, 8, 5, 1, 2, 2), SlabInfo("b", 1, 20, 4, 9, 1, 3, 3))
    assert slabtop.sort_caches([one, two], "o") == [two, one]
    assert slabtop.sort_caches([one, two], "a") == [one, two]
    assert slabtop.sort_caches([two, one], "n") == [one, two]


def test_an_arena_without_objects_has_a_picture_too():
    assert next(iter(slabtop.format_slabtop([]))).endswith(": 0 / 0 (0.0%)")


@pytest.mark.other_kernels
def test_the_lines_look_like_procps_own():
    if shutil.which("slabtop") is None:
        pytest.skip("no slabtop here")
    real = subprocess.run(
        ["slabtop", "-o"], capture_output=True, text=True, check=False, timeout=20
    )
    if real.returncode:
        pytest.skip("slabtop may not read /proc/slabinfo")
    theirs = real.stdout.splitlines()
    ours = list(slabtop.format_slabtop(slabtop.parse_slabinfo([LINE])))
    assert ours[6].split() == theirs[6].split()
    for mine, other in zip(ours[:5], theirs[:5], strict=True):
        assert mine.split(":")[0].rstrip() == other.split(":")[0].rstrip()
        assert re.sub(r"[\d.]+", "9", mine) == re.sub(r"[\d.]+", "9", other)
    assert re.sub(r"[^ ]", "x", ours[7][50:61]) and len(ours[7].split()) == len(theirs[7].split())


def test_dropping_caches_gives_empty_slabs_back(stack: Stack, daemon: ViewsDaemon, capsys):
    stack.socket().close()
    assert stack.memory_info()["TCP"].num_slabs == 1
    assert daemon.run("sysctl", "vm.drop_caches=1") == 0
    assert stack.memory_info()["TCP"].num_slabs == 1
    assert daemon.run("sysctl", "vm.drop_caches=2") == 0
    assert stack.memory_info()["TCP"].num_slabs == 0
    assert daemon.run("sysctl", "vm.drop_caches=9") == 1
    assert "Invalid argument" in capsys.readouterr().err
