"""The stream behind ``ustack trace``."""

from __future__ import annotations

import sys

import pytest

from kit.host import host
from ustack.daemon.messages import Done, PacketTrace, Started, TraceRequest, decode_reply
from ustack.daemon.trace import TraceStream

pytestmark = pytest.mark.usefixtures("profiler")


def replies(stream: TraceStream) -> list[object]:
    """Read what there is."""
    return [decode_reply(message) for message in stream.messages()]


def test_one_packet_and_the_stream_is_over():
    one = host()
    sk, _ = one.established()
    notified: list[None] = []
    ticks = iter(range(0, 10**6, 1000))
    stream = TraceStream(
        one.stack, TraceRequest("tx"), lambda: notified.append(None), lambda: next(ticks)
    )
    assert replies(stream) == [Started()]
    sk.send(b"x")
    one.settle()
    assert len(notified) == 1
    trace, done = replies(stream)
    assert isinstance(trace, PacketTrace) and done == Done()
    assert stream.finished
    assert (trace.kind, trace.device) == ("tx", "eth0")
    assert [hop.at_ns for hop in trace.hops] == list(range(0, 1000 * len(trace.hops), 1000))
    assert trace.total_ns == 1000 * len(trace.hops)


def test_a_client_that_stops_gets_no_packet():
    one = host()
    stream = TraceStream(one.stack, TraceRequest("rx"), lambda: None)
    stream.stop()
    assert replies(stream) == [Started(), Done()]
    assert sys.getprofile() is None


def test_two_at_a_time_are_refused():
    one = host()
    stream = TraceStream(one.stack, TraceRequest("rx"), lambda: None)
    with pytest.raises(ValueError):
        TraceStream(one.stack, TraceRequest("lo"), lambda: None)
    stream.stop()


def test_a_request_and_its_reply_are_two_messages_on_one_clock():
    one = host()
    sk, peer = one.established()
    ticks = iter(range(5000, 10**6, 1000))
    stream = TraceStream(one.stack, TraceRequest("conn"), lambda: None, lambda: next(ticks))
    assert replies(stream) == [Started()]
    peer.send("P. 1:6(5) ack 1")
    assert replies(stream) == []
    sk.send(b"answer")
    one.settle()
    request, reply, done = replies(stream)
    assert isinstance(request, PacketTrace) and isinstance(reply, PacketTrace) and done == Done()
    assert (request.kind, reply.kind) == ("rx", "tx")
    assert request.hops[0].at_ns == 0
    assert request.total_ns < reply.hops[0].at_ns < reply.total_ns
