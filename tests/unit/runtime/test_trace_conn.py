"""A request and its reply in one trace: both paths in golden/, and nobody else's packets."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kit.host import Host, host
from kit.peer import PEER_MAC
from kit.segment import build_ip
from unit.runtime.test_trace import Ticks
from ustack.runtime.trace import PacketTracer, PathTrace
from ustack.runtime.trace_conn import ConnTracer, tcp_data_flow
from ustack.wire.ethernet import build_ethernet

pytestmark = pytest.mark.usefixtures("profiler")

GOLDEN = Path(__file__).with_name("golden")
Legs = tuple[PathTrace, PathTrace]


def traced(one: Host, *acts: Callable[[], Any]) -> list[Legs]:
    """Do one thing after another under a tracer, and end it."""
    found: list[Legs] = []
    tracer = ConnTracer(one.stack, Ticks(), lambda *legs: found.append(legs))
    tracer.start()
    try:
        for act in acts:
            act()
            one.settle()
    finally:
        tracer.stop()
    assert one.stack.net.ptype_all == ()
    return found


def local_pair(one: Host) -> tuple[Any, Any]:
    lsk = one.listen(80)
    near = one.connect("10.0.0.2", 80)
    return near, lsk.accept()


def over_lo() -> Legs:
    """The reply is what the book's chapter on local traffic joins to the request."""
    one = host()
    near, far = local_pair(one)
    (legs,) = traced(one, lambda: near.send(b"GET /"), lambda: far.send(b"200 OK"))
    return legs


def as_server() -> Legs:
    one = host()
    sk, peer = one.established()
    (legs,) = traced(one, lambda: peer.send("P. 1:6(5) ack 1"), lambda: sk.send(b"200 OK"))
    return legs


def as_client() -> Legs:
    one = host()
    sk, peer = one.established()
    (legs,) = traced(one, lambda: sk.send(b"GET /"), lambda: peer.send("P. 1:7(6) ack 6"))
    return legs


WAYS = {"lo": over_lo, "server": as_server, "client": as_client}
KINDS = {"lo": ("lo", "lo"), "server": ("rx", "tx"), "client": ("tx", "rx")}


@pytest.mark.parametrize("way", WAYS)
def test_the_order_of_the_hops_both_ways_is_the_golden_one(way: str):
    lines = []
    for name, leg in zip(("request", "reply"), WAYS[way](), strict=True):
        lines.append(f"{name} {leg.kind} {leg.device}")
        lines += [f"{hop.stage:<10} {hop.function}" for hop in leg.hops]
    assert "\n".join(lines) + "\n" == (GOLDEN / f"trace_conn_{way}.txt").read_text()


@pytest.mark.parametrize("way", WAYS)
def test_the_two_legs_are_of_one_connection_and_one_clock(way: str):
    request, reply = WAYS[way]()
    assert (request.kind, reply.kind) == KINDS[way]
    flow = tcp_data_flow(request.data)
    assert flow is not None
    assert tcp_data_flow(reply.data) == (*flow[2:], *flow[:2])
    times = [hop.at_ns for leg in (request, reply) for hop in leg.hops]
    assert times == sorted(times)
    assert request.end_ns < reply.hops[-1].at_ns < reply.end_ns


def test_other_connections_packets_are_passed_over():
    one = host()
    near, far = local_pair(one)
    lsk = one.listen(81)
    other = one.connect("10.0.0.2", 81)
    accepted = lsk.accept()
    (legs,) = traced(
        one,
        lambda: near.send(b"request"),
        lambda: other.send(b"no reply"),
        lambda: accepted.send(b"nor this"),
        lambda: near.send(b" goes on"),
        lambda: far.send(b"reply"),
    )
    assert legs[0].data.endswith(b"request") and legs[1].data.endswith(b"reply")


def test_what_a_daemons_client_answers_is_the_reply():
    one = host()
    sk, peer = one.established()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"200 OK")

        def answer() -> None:
            assert sk.splice_write_now(ours.fileno(), bytearray(100)) is None  # while it is traced
            assert sk.splice_write(ours.fileno(), bytearray(100), 100) == (6, 6)

        ((_, reply),) = traced(one, lambda: peer.send("P. 1:6(5) ack 1"), answer)
    assert (reply.hops[0].stage, reply.hops[0].function) == ("syscall", "tcp_splice_write")


def test_a_bare_ack_is_neither_request_nor_reply():
    one = host()
    sk, peer = one.established()
    (legs,) = traced(
        one,
        lambda: peer.send(". 1:1(0) ack 1"),
        lambda: sk.send(b"GET /"),
        lambda: peer.send(". 1:1(0) ack 6"),
        lambda: peer.send("P. 1:7(6) ack 6"),
    )
    assert [leg.kind for leg in legs] == ["tx", "rx"]
    assert len(legs[1].data) == 14 + 40 + 6


def test_a_reply_that_comes_behind_an_ack_in_one_batch_is_found():
    one = host()
    sk, peer = one.established()

    def both() -> None:
        for line in (". 1:1(0) ack 6", "P. 1:7(6) ack 6"):
            peer.net.wire.send_frame(bytes(10) + peer_frame(one, peer, line))

    (legs,) = traced(one, lambda: sk.send(b"GET /"), both)
    functions = [hop.function for hop in legs[1].hops]
    assert functions.count("igb_poll") == functions.count("ip_rcv") == 1
    assert functions.count("tcp_queue_rcv") == 1


def peer_frame(one: Host, peer: Any, line: str) -> bytes:
    """Return what ``peer.send`` would put on the wire."""
    return build_ethernet(one.mac, PEER_MAC, 0x0800) + build_ip(peer.segment(line))


def test_without_a_reply_there_is_no_trace():
    one = host()
    near, _ = local_pair(one)
    assert traced(one, lambda: near.send(b"request")) == []


def test_the_sockmaps_shortcut_leaves_nothing_to_trace():
    one = host()
    near, far = local_pair(one)
    one.stack.redirect_sockmap(True)
    assert traced(one, lambda: near.send(b"request"), lambda: far.send(b"reply")) == []


def test_only_one_trace_at_a_time():
    one = host()
    tracer = PacketTracer(one.stack, "rx", Ticks(), lambda trace: None)
    tracer.start()
    with pytest.raises(ValueError, match="another trace"):
        ConnTracer(one.stack, Ticks(), lambda *legs: None).start()
    tracer.stop()


@pytest.mark.parametrize("frame", [b"", bytes(60), bytes(12) + b"\x08\x00" + bytes(46)])
def test_what_is_no_tcp_data_has_no_flow(frame: bytes):
    assert tcp_data_flow(frame) is None
