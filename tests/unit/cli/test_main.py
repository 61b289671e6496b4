"""The ``ustack`` command: which daemon it asks, and what it says when it cannot."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from unit.cli.fake_daemon import FakeDaemon
from ustack.cli import client as client_module
from ustack.cli.client import ClientError, find_socket
from ustack.cli.main import main
from ustack.daemon.messages import (
    CounterRow,
    CountersRequest,
    DropsRequest,
    Failure,
    SocketsRequest,
    Started,
    encode,
)


@pytest.fixture(autouse=True)
def no_daemon_of_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Look for daemons in a folder of the test's own."""
    monkeypatch.delenv("USTACK_SOCKET", raising=False)
    folder = tmp_path / "run"
    folder.mkdir()
    monkeypatch.setattr(client_module.find_socket, "__defaults__", (folder,))
    return folder


def dead_socket(path: Path) -> Path:
    """Leave what a killed daemon leaves."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.bind(str(path))
    return path


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """Return stderr, which must be one line, with nothing on stdout."""
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1
    return err


def test_without_a_daemon_it_is_one_line_and_status_1(capsys: pytest.CaptureFixture[str]):
    assert main(["ss", "-ant"]) == 1
    assert "no ustackd is running" in one_line(capsys)


def test_a_socket_that_nobody_listens_at_is_no_daemon(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], no_daemon_of_the_machine: Path
):
    dead_socket(no_daemon_of_the_machine / "tap0.sock")
    assert main(["ss"]) == 1
    assert "no ustackd is running" in one_line(capsys)
    assert main(["--socket", str(dead_socket(tmp_path / "d.sock")), "ss"]) == 1
    assert "d.sock" in one_line(capsys)
    assert main(["ss", "--socket", str(tmp_path / "none")]) == 1
    assert "no ustackd is running at" in one_line(capsys)


def test_the_only_daemon_is_found_and_of_two_one_must_be_chosen(no_daemon_of_the_machine: Path):
    folder = no_daemon_of_the_machine
    dead_socket(folder / "old.sock")
    (folder / "note.txt").write_text("not a socket")
    with FakeDaemon(folder / "tap0.sock", {}):
        assert find_socket(None) == folder / "tap0.sock"
        with FakeDaemon(folder / "tap1.sock", {}), pytest.raises(ClientError, match=r"tap1\.sock"):
            find_socket(None)


def test_the_option_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("USTACK_SOCKET", "/from/environment")
    assert find_socket(None) == Path("/from/environment")
    assert find_socket("/from/option") == Path("/from/option")


@pytest.mark.parametrize(
    "argv",
    [[], ["frobnicate"], ["ss", "--nonsense"], ["ethtool", "eth0"], ["ethtool", "-S"], ["ip"],
     ["ethtool", "-S", "-k", "eth0"], ["tcpdump", "-c", "x"]],
)  # fmt: skip
def test_a_wrong_command_line_is_one_line_and_status_2(
    argv: list[str], capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert one_line(capsys).startswith("ustack")


def test_a_refusal_of_the_daemon_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "d.sock"
    with FakeDaemon(path, lambda request: [encode(Failure("No such device"))]):
        assert main(["--socket", str(path), "ethtool", "-S", "eth9"]) == 1
    assert one_line(capsys) == "ustack: No such device\n"


@pytest.mark.parametrize("reply", [b"{", b'{"reply":"rows","rows":[{"a":1}]}', encode(Started())])
def test_a_daemon_that_talks_nonsense_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], reply: bytes
):
    path = tmp_path / "d.sock"
    with FakeDaemon(path, lambda request: [reply]):
        assert main(["--socket", str(path), "nstat"]) == 1
    one_line(capsys)


def test_a_daemon_that_dies_in_the_middle_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def die(request: object) -> list[bytes]:
        raise OSError

    path = tmp_path / "d.sock"
    with FakeDaemon(path, die):
        assert main(["--socket", str(path), "nstat"]) == 1
    assert "gone" in one_line(capsys)


def test_the_command_prints_what_the_daemon_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "d.sock"
    answers = {
        CountersRequest: [CounterRow("Tcp", "InSegs", 7), CounterRow("TcpExt", "TCPTimeouts", 0)],
        DropsRequest: [CounterRow("", "NO_SOCKET", 3)],
        SocketsRequest: [],
    }
    with FakeDaemon(path, answers) as daemon:
        assert main(["--socket", str(path), "netstat", "-s", "--drops"]) == 0
        assert main(["--socket", str(path), "nstat", "-az", "TcpExt*"]) == 0
        assert main(["--socket", str(path), "nstat"]) == 0
        assert main(["--socket", str(path), "ss", "-lnt"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out == [
        "Tcp:",
        "    7 segments received",
        "TcpExt:",
        "Reason    Packets",
        "NO_SOCKET 3",
        "#kernel",
        "TcpExtTCPTimeouts               0                0.0",
        "#kernel",
        "TcpInSegs                       7                0.0",
        "State Recv-Q Send-Q Local Address:Port Peer Address:Port Process",
    ]
    assert daemon.requests[-1] == SocketsRequest(("LISTEN",))


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path):
    import subprocess
    import sys

    path = tmp_path / "d.sock"
    rows = [CounterRow("Tcp", f"Counter{i}", i) for i in range(1, 20_000)]
    with FakeDaemon(path, {CountersRequest: rows}):
        command = f"'{sys.executable}' -m ustack.cli.main --socket '{path}' nstat | head -2"
        run = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("#kernel\n")
    assert run.stderr == ""
