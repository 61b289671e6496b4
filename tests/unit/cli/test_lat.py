"""``ustack lat``: histograms."""

from __future__ import annotations

from pathlib import Path

import pytest

from unit.cli.fake_daemon import FakeDaemon
from ustack.cli.lat import histogram_lines, measure_wakeups
from ustack.cli.main import main
from ustack.daemon.messages import Done, LatencyRequest, LatencyResult, Started, encode


def test_a_line_for_each_bucket_and_one_for_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "d.sock"
    answer = [encode(m) for m in (Started(), LatencyResult([0, 0, 4, 0, 1], 36), Done())]
    with FakeDaemon(path, lambda r: answer) as daemon:
        assert main(["--socket", str(path), "lat", "handshake"]) == 0
    assert daemon.requests == [LatencyRequest("handshake")]
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "                   usecs : count    distribution",
        "         4 -> 7          : 4        |****************************************|",
        "         8 -> 15         : 0        |                                        |",
        "        16 -> 31         : 1        |**********                              |",
        "avg = 7 usecs, total: 36 usecs, count: 5",
    ]
    assert err == "counting (handshake)\n"


def test_the_lowest_bucket_holds_nothing_and_one():
    assert "         0 -> 1          : 2" in list(histogram_lines([2], 1))[1]


def test_of_nothing_there_is_only_the_count():
    assert list(histogram_lines([], 0)) == ["count = 0"]


def test_a_message_wakes_its_reader():
    slept, ran = measure_wakeups(20)
    assert sum(slept.buckets) == sum(ran.buckets)
    assert 0 < sum(ran.buckets) <= 4 * 20  # both sleep once a message, but for who leads
    assert slept.total >= ran.total
