"""``ustack ping`` beside iputils' ping."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from unit.cli.fake_daemon import FakeDaemon
from ustack.cli.main import main
from ustack.cli.ping import format_rtt
from ustack.daemon.messages import (
    Done,
    Failure,
    PingRequest,
    PingResult,
    PingSummary,
    Started,
    encode,
)


@pytest.fixture
def ping(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Run ``ustack ping`` against prepared replies: status, lines, requests."""

    def run(replies: list[Any], *argv: str) -> tuple[int, list[str], list[Any]]:
        path = tmp_path / "d.sock"
        with FakeDaemon(path, lambda r: [encode(m) for m in (Started(), *replies)]) as daemon:
            status = main(["--socket", str(path), "ping", *argv])
        path.unlink()
        out, err = capsys.readouterr()
        return status, (out + err).splitlines(), daemon.requests

    return run


def test_replies_and_their_statistics(ping):
    replies = [
        PingResult(1, rtt_us=45, ttl=64, length=64),
        PingResult(2, rtt_us=1234, ttl=64, length=64),
        PingResult(3),
        PingSummary(3, 2_034_567),
        Done(),
    ]
    status, lines, requests = ping(replies, "10.0.0.1", "-c", "3", "-i", "0.5", "-W", "2")
    assert lines == [
        "PING 10.0.0.1 (10.0.0.1) 56(84) bytes of data.",
        "64 bytes from 10.0.0.1: icmp_seq=1 ttl=64 time=0.045 ms",
        "64 bytes from 10.0.0.1: icmp_seq=2 ttl=64 time=1.23 ms",
        "",
        "--- 10.0.0.1 ping statistics ---",
        "3 packets transmitted, 2 received, 33.3333% packet loss, time 2034ms",
        "rtt min/avg/max/mdev = 0.045/0.639/1.234/0.595 ms",
    ]
    assert status == 0
    assert requests == [PingRequest("10.0.0.1", count=3, interval_us=500_000, timeout_us=2_000_000)]


def test_errors_say_who_sent_them_and_what_they_mean(ping):
    replies = [
        PingResult(1, error=(3, 1), sender="10.0.0.2"),
        PingResult(2, error=(3, 4), sender="10.0.0.3", mtu=1400),
        PingResult(3, error=(11, 0), sender="10.0.0.3"),
        PingResult(65_540, failure="Network is unreachable"),
        PingSummary(4, 3_000_000),
        Done(),
    ]
    status, lines, _ = ping(replies, "10.0.0.9", "-s", "1000", "-M", "do", "-t", "3")
    assert lines == [
        "PING 10.0.0.9 (10.0.0.9) 1000(1028) bytes of data.",
        "From 10.0.0.2 icmp_seq=1 Destination Host Unreachable",
        "From 10.0.0.3 icmp_seq=2 Frag needed and DF set (mtu = 1400)",
        "From 10.0.0.3 icmp_seq=3 Time to live exceeded",
        "ping: sendmsg: Network is unreachable",
        "",
        "--- 10.0.0.9 ping statistics ---",
        "4 packets transmitted, 0 received, +4 errors, 100% packet loss, time 3000ms",
    ]
    assert status == 1


def test_quiet_prints_only_the_summary_and_changed_data_is_said(ping):
    replies = [PingResult(65_537, rtt_us=9, length=8, intact=False), PingSummary(1, 0), Done()]
    _, lines, _ = ping(replies, "10.0.0.1", "-q", "-s", "0")
    assert len(lines) == 5
    _, lines, _ = ping(replies, "10.0.0.1")
    assert lines[1] == "8 bytes from 10.0.0.1: icmp_seq=1 ttl=0 time=0.009 ms (wrong data)"


def test_a_refusal_and_a_bad_address_are_one_line(ping):
    status, lines, _ = ping([Failure("no")], "10.0.0.1")
    assert (status, lines[-1]) == (1, "ustack: no")
    status, lines, requests = ping([], "10.0.0.256")
    assert (status, lines) == (1, ["ustack: ping: 10.0.0.256: not an IPv4 address"])
    assert requests == []


@pytest.mark.parametrize("argv", [["-s", "65508"], ["-i", "0"], ["-c", "x"], ["-W", "nan"]])
def test_numbers_out_of_range_are_refused(ping, argv: list[str]):
    with pytest.raises(SystemExit):
        ping([], "10.0.0.1", *argv)


@pytest.mark.parametrize(
    ("rtt_us", "text"),
    [(5, "0.005"), (999, "0.999"), (1000, "1.00"), (9994, "9.99"), (9995, "10.0"),
     (99_949, "99.9"), (99_950, "100"), (1_234_567, "1235")],
)  # fmt: skip
def test_times_have_iputils_digits(rtt_us: int, text: str):
    assert format_rtt(rtt_us) == text
