"""``ustack debug`` and ``ustack dump-ring``: what they ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from unit.cli.fake_daemon import FakeDaemon
from ustack.cli.main import main
from ustack.daemon.messages import FaultRequest, LineRow, RingRequest

LINES = [LineRow("eth0 rx 1: 256 descriptors"), LineRow("desc")]


@pytest.fixture
def ask(tmp_path: Path):
    """Run ``ustack`` and return the status and what the daemon was asked."""

    def run(*argv: str) -> tuple[int, list[object]]:
        path = tmp_path / "d.sock"
        with FakeDaemon(path, {FaultRequest: [], RingRequest: LINES}) as daemon:
            status = main(["--socket", str(path), *argv])
        path.unlink()
        return status, daemon.requests

    return run


@pytest.mark.parametrize(
    ("words", "request_"),
    [
        (("freeze-softirq", "1s"), FaultRequest("freeze-softirq", 1_000_000)),
        (("freeze-softirq", "200ms"), FaultRequest("freeze-softirq", 200_000)),
        (("freeze-softirq", "0.5"), FaultRequest("freeze-softirq", 500_000)),
        (("fail-alloc", "7"), FaultRequest("fail-alloc", 2_000_000, 7)),
        (("fail-alloc", "7", "50us"), FaultRequest("fail-alloc", 50, 7)),
    ],
)
def test_a_fault_is_asked_for(ask, words: tuple[str, ...], request_: FaultRequest):
    assert ask("debug", *words) == (0, [request_])


@pytest.mark.parametrize("words", [("freeze-softirq", "soon"), ("fail-alloc", "x"), ("melt",), ()])
def test_what_is_no_fault_is_one_line(ask, words: tuple[str, ...], capsys):
    with pytest.raises(SystemExit) as left:
        ask("debug", *words)
    assert left.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_ring_is_printed_line_by_line(ask, capsys):
    assert ask("dump-ring", "eth0", "rx", "1") == (0, [RingRequest("eth0", "rx", 1)])
    assert capsys.readouterr().out == "eth0 rx 1: 256 descriptors\ndesc\n"
    assert ask("dump-ring", "eth0", "tx")[1] == [RingRequest("eth0", "tx", 0)]
