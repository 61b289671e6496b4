"""The path of one packet: its order is written down in golden/, and it costs nothing when off."""

from __future__ import annotations

import dis
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from kit.host import Host, host
from kit.netbed import PEER, PEER_MAC, icmp_packet
from ustack.runtime.trace import KINDS, PacketTracer, PathTrace
from ustack.wire.ethernet import build_ethernet

pytestmark = pytest.mark.usefixtures("profiler")

GOLDEN = Path(__file__).with_name("golden")


class Ticks:
    """A clock on which every reading takes a microsecond."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        self.now_ns += 1000
        return self.now_ns


def traced(one: Host, kind: str, act: Callable[[], object]) -> list[PathTrace]:
    """Do something under a tracer, and end it."""
    found: list[PathTrace] = []
    tracer = PacketTracer(one.stack, kind, Ticks(), found.append)
    tracer.start()
    try:
        act()
        one.settle()
    finally:
        tracer.stop()
    return found


def receive_data() -> list[PathTrace]:
    one = host()
    _, peer = one.established()
    return traced(one, "rx", lambda: peer.send("P. 1:6(5) ack 1"))


def send_data() -> list[PathTrace]:
    one = host()
    sk, _ = one.established()
    return traced(one, "tx", lambda: sk.send(b"hello"))


def talk_to_oneself() -> list[PathTrace]:
    one = host()
    one.listen(80)
    sk = one.connect("10.0.0.2", 80)
    return traced(one, "lo", lambda: sk.send(b"hello"))


WAYS = {"rx": receive_data, "tx": send_data, "lo": talk_to_oneself}


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_the_hops_is_the_golden_one(kind: str):
    (trace,) = WAYS[kind]()
    lines = [f"{hop.stage:<10} {hop.function}" for hop in trace.hops]
    assert "\n".join(lines) + "\n" == (GOLDEN / f"trace_{kind}.txt").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_times_are_the_given_clocks_and_rise(kind: str):
    (trace,) = WAYS[kind]()
    times = [hop.at_ns for hop in trace.hops]
    assert times == [1000 * (i + 1) for i in range(len(times))]
    assert trace.end_ns == times[-1] + 1000


def test_the_packet_itself_is_in_the_trace():
    (trace,) = receive_data()
    assert (trace.kind, trace.device, trace.length) == ("rx", "eth0", len(trace.data))
    assert len(trace.data) == 14 + 20 + 20 + 5
    (trace,) = send_data()
    assert trace.data.endswith(b"hello")
    (trace,) = talk_to_oneself()
    assert (trace.device, trace.data[-5:]) == ("lo", b"hello")


def test_one_packet_is_traced_and_no_more():
    one = host()
    _, peer = one.established()

    def two() -> None:
        peer.send("P. 1:6(5) ack 1")
        one.settle()
        peer.send("P. 6:11(5) ack 1")

    assert len(traced(one, "rx", two)) == 1


def test_what_goes_another_way_is_not_taken_for_it():
    one = host()
    one.listen(80)
    sk = one.connect("10.0.0.2", 80)
    assert traced(one, "tx", lambda: sk.send(b"over lo")) == []
    one = host()
    sk, peer = one.established()
    assert traced(one, "lo", lambda: (sk.send(b"out"), peer.send("P. 1:2(1) ack 1"))) == []


def test_data_that_must_wait_is_not_on_its_way():
    one = host()
    sk, _ = one.established(win=0)
    assert traced(one, "tx", lambda: sk.send(b"no window")) == []


def test_a_poll_without_a_frame_begins_nothing():
    one = host()
    assert traced(one, "rx", one.settle) == []


def test_another_stacks_packet_is_not_ours():
    one, other = host(), host()
    sk, peer = other.established()

    def act() -> None:
        sk.send(b"x")
        peer.send("P. 1:2(1) ack 1")
        other.settle()

    for kind in KINDS:
        assert traced(one, kind, act) == []


def test_an_echo_is_a_packet_that_is_sent():
    one = host()
    assert one.net is not None
    frame = build_ethernet(one.mac, PEER_MAC, 0x0800) + icmp_packet(8, payload=b"ping")
    one.stack.arp.table.set_permanent(one.adapter, PEER, PEER_MAC)
    (trace,) = traced(one, "tx", lambda: one.net.wire.send_frame(bytes(10) + frame))
    functions = [hop.function for hop in trace.hops]
    assert functions[0] == "icmp_xmit" and functions[-1] == "igb_clean_tx_irq"
    assert trace.data.endswith(b"ping")


def test_only_one_trace_at_a_time_and_nothing_is_left_of_it():
    one = host()
    tracer = PacketTracer(one.stack, "rx", Ticks(), lambda trace: None)
    tracer.start()
    with pytest.raises(ValueError, match="another trace"):
        PacketTracer(one.stack, "tx", Ticks(), lambda trace: None).start()
    tracer.stop()
    tracer.stop()
    assert sys.getprofile() is None
    assert one.stack.net.ptype_all == ()


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError):
        PacketTracer(host().stack, "sideways", Ticks(), lambda trace: None)


def test_when_off_the_packets_path_does_not_know_of_it():
    """The cost when off is none: no function on the way names the tracer or asks for it."""
    codes = {code for kind in KINDS for code in _path_codes(kind)}
    assert len(codes) > 20
    for code in codes:
        names = {str(i.argval) for i in dis.get_instructions(code)}
        assert not names & {"PacketTracer", "setprofile", "getprofile", "trace", "tracer"}, code


def _path_codes(kind: str) -> set[types.CodeType]:
    tracer = PacketTracer(host().stack, kind, Ticks(), lambda trace: None)
    own = PacketTracer.packet_rcv.__code__
    return {code for code in tracer._steps if code is not own}
