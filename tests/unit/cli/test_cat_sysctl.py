"""``ustack cat`` and ``ustack sysctl`` against the daemon's own views of a real stack."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from unit.cli.fake_daemon import ViewsDaemon
from ustack.config import CoreConfig, StackConfig
from ustack.stack import Stack


@pytest.fixture
def daemon(tmp_path: Path) -> ViewsDaemon:
    """A stack with only lo behind a control socket."""
    config = StackConfig(core=CoreConfig(arena_bytes=4 << 20))
    return ViewsDaemon(Stack(config, rng=random.Random(1)), tmp_path / "control.sock")


def test_cat_prints_files_one_after_the_other(
    daemon: ViewsDaemon, capsys: pytest.CaptureFixture[str]
):
    assert daemon.run("cat", "/proc/net/ptype", "/proc/net/softnet_stat") == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "Type Device      Function"
    assert out[-1] == " ".join(["00000000"] * 15)


def test_cat_of_what_is_not_there(daemon: ViewsDaemon, capsys: pytest.CaptureFixture[str]):
    assert daemon.run("cat", "/proc/nothing") == 1
    assert capsys.readouterr().err == "ustack: cat: /proc/nothing: No such file or directory\n"


def test_sysctl_reads_and_writes_with_effect(
    daemon: ViewsDaemon, capsys: pytest.CaptureFixture[str]
):
    assert daemon.run("sysctl", "net.core.netdev_budget", "net.ipv4.tcp_rmem") == 0
    assert capsys.readouterr().out == (
        "net.core.netdev_budget = 300\nnet.ipv4.tcp_rmem = 4096\t131072\t6291456\n"
    )
    assert daemon.run("sysctl", "-w", "net.core.netdev_budget=600") == 0
    assert daemon.stack.net.config.core.netdev_budget == 600
    assert daemon.run("sysctl", "net.core.netdev_budget = 8") == 0
    assert daemon.run("sysctl", "-n", "net.core.netdev_budget") == 0
    assert capsys.readouterr().out == (
        "net.core.netdev_budget = 600\nnet.core.netdev_budget = 8\n8\n"
    )


def test_nstat_shows_ksoftirqds_wake_ups_and_netstat_only_linuxs_tables(
    daemon: ViewsDaemon, capsys: pytest.CaptureFixture[str]
):
    daemon.stack.net.softnet.ksoftirqd_wakeups = 3
    assert daemon.run("nstat", "Ksoftirqd*") == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["KsoftirqdWakes", "3", "0.0"]
    assert daemon.run("netstat", "-s") == 0
    assert "Ksoftirqd" not in capsys.readouterr().out


def test_sysctl_a_prints_all(daemon: ViewsDaemon, capsys: pytest.CaptureFixture[str]):
    assert daemon.run("sysctl", "-a") == 0
    out = capsys.readouterr().out.splitlines()
    assert "net.core.dev_weight = 64" in out
    assert len(out) > 30


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no variables specified"),
        (["-w", "net.core.somaxconn"], "must be of the form name=value"),
        (["net.core.somaxconn=x"], 'setting key "net.core.somaxconn": Invalid argument'),
        (["net.core.nothing"], "cannot stat /proc/sys/net/core/nothing: No such file"),
    ],
)
def test_sysctl_says_what_is_wrong(
    daemon: ViewsDaemon, capsys: pytest.CaptureFixture[str], words: list[str], message: str
):
    assert daemon.run("sysctl", *words) == 1
    error = capsys.readouterr().err
    assert error.startswith("ustack: sysctl: ") and message in error


def test_open_files_have_their_limits_and_their_number(
    daemon: ViewsDaemon, capsys: pytest.CaptureFixture[str]
):
    assert daemon.run("sysctl", "-w", "fs.nr_open=2000", "fs.file-max=99") == 0
    assert daemon.run("cat", "/proc/sys/fs/file-nr") == 0
    assert daemon.run("sysctl", "-n", "fs.file-nr") == 0
    assert daemon.run("ulimit", "-n", "1000") == 0
    assert daemon.run("ulimit", "-Sn", "100") == 0
    assert daemon.run("ulimit", "-n") == daemon.run("ulimit", "-Hn") == 0
    assert daemon.run("ulimit", "-n", "hard") == daemon.run("ulimit", "-n") == 0
    out = capsys.readouterr().out
    assert out.splitlines() == [
        "fs.nr_open = 2000", "fs.file-max = 99", "0\t0\t99", "0\t0\t99", "100", "1000", "1000",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("-n", "1048577"), "Operation not permitted"),
        (("-Sn", "x"), "Invalid argument"),
        (("-n", "--pid", "1"), "No such process"),
    ],
)
def test_ulimit_says_what_is_wrong(
    daemon: ViewsDaemon, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], reason: str
):
    assert daemon.run("ulimit", *words) == 1
    error = capsys.readouterr().err
    assert error == f"ustack: ulimit: open files: cannot modify limit: {reason}\n"
