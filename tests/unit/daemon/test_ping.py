"""The stream behind ``ustack ping``, between two hosts in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kit.host import Host, two_hosts
from ustack.daemon.messages import (
    Done,
    PingRequest,
    PingResult,
    PingSummary,
    Started,
    decode_reply,
)
from ustack.daemon.ping import PingStream


class Bench:
    """Two hosts, and a ping from the first."""

    def __init__(self, **request: Any) -> None:
        self.here, self.there = two_hosts()
        self.notified = 0
        self.stream = PingStream(
            self.here.stack,
            self.call,
            PingRequest(**{"address": "10.0.0.2", **request}),
            self.notify,
        )
        self.here.settle()

    def call(self, function: Callable[[], Any]) -> Any:
        self.here.stack.clock.now_us = self.here.world.now_us
        return function()

    def notify(self) -> None:
        self.notified += 1

    def replies(self) -> list[Any]:
        """Read what there is."""
        return [decode_reply(message) for message in self.stream.messages()]


def results(replies: list[Any]) -> list[PingResult]:
    return [reply for reply in replies if isinstance(reply, PingResult)]


def nothing_waits(one: Host) -> bool:
    return len(one.stack.ip.icmp.ping) == 0


def test_each_request_is_answered_at_its_interval():
    bench = Bench(count=3, size=100, interval_us=200_000, ttl=7)
    assert [type(r) for r in bench.replies()] == [Started, PingResult]
    bench.here.advance_us(199_000)
    assert bench.replies() == []
    bench.here.advance_us(1_001)
    assert [r.seq for r in results(bench.replies())] == [2]
    bench.here.advance_us(200_000)
    last, summary, done = bench.replies()
    assert (last.seq, last.length, last.ttl, last.intact) == (3, 108, 64, True)
    assert summary.sent == 3 and 400_000 <= summary.time_us < 402_000
    assert done == Done() and bench.stream.finished
    assert nothing_waits(bench.here)


def test_large_ones_come_in_fragments():
    bench = Bench(count=1, size=65_000)
    (result,) = results(bench.replies())
    assert (result.length, result.intact) == (65_008, True)


def test_a_host_that_is_not_there_is_unreachable():
    bench = Bench(address="10.0.0.77", count=1)
    bench.here.advance_us(4_000_000)
    (result,) = results(bench.replies())
    assert (result.error, result.sender, result.rtt_us) == ((3, 1), "10.0.0.1", None)
    assert bench.stream.finished


def test_no_route_is_a_failure_and_not_a_wait():
    bench = Bench(address="192.0.2.1", count=1)
    _, result, summary, done = bench.replies()
    assert result.failure == "Network is unreachable"
    assert (summary.sent, done) == (1, Done())


def test_silence_ends_by_the_timeout():
    bench = Bench(count=2, interval_us=1000, timeout_us=500_000, address="10.0.0.9")
    bench.here.advance_us(499_000)
    assert results(bench.replies()) == []
    bench.here.advance_us(3_000)
    *both, summary, done = bench.replies()
    assert [(r.rtt_us, r.error) for r in both] == [(None, None)] * 2
    assert summary.sent == 2 and done == Done()
    assert nothing_waits(bench.here)


def test_after_a_reply_the_last_is_waited_for_no_longer_than_an_interval():
    bench = Bench(count=2, interval_us=50_000)
    assert len(results(bench.replies())) == 1
    bench.there.stack.net.dev_close(bench.there.adapter)
    bench.here.advance_us(50_001)
    assert not bench.stream.finished
    bench.here.advance_us(50_001)
    summary, done = bench.replies()
    assert isinstance(summary, PingSummary) and summary.sent == 2 and done == Done()
    assert nothing_waits(bench.here)


def test_a_client_that_stops_hears_how_many_were_sent():
    bench = Bench(address="10.0.0.77")
    bench.here.advance_us(1_000_001)
    bench.stream.stop()
    bench.stream.stop()
    _, summary, done = bench.replies()
    assert (summary.sent, done) == (2, Done())
    assert nothing_waits(bench.here)
    bench.here.advance_us(30_000_000)
    assert bench.replies() == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"address": "nonsense"}, {"size": 65_508}, {"size": -1}, {"interval_us": 999},
        {"timeout_us": 0}, {"ttl": 256}, {"tos": -1}, {"count": -1},
    ],
)  # fmt: skip
def test_nonsense_is_refused(wrong: dict[str, Any]):
    with pytest.raises(ValueError):
        Bench(**wrong)
