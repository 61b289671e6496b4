"""The views: what a real stack, with nothing plugged in, answers to each request."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from ustack.daemon.messages import (
    AnyRequest,
    CaptureRequest,
    CounterRow,
    CountersRequest,
    Done,
    DropsRequest,
    EthtoolRequest,
    LatencyRequest,
    LinkRow,
    LinksRequest,
    NeighbourChange,
    NeighbourRow,
    NeighboursRequest,
    PingRequest,
    RedirectRequest,
    RouteRow,
    RoutesRequest,
    Rows,
    SocketRow,
    SocketsRequest,
    SocketSummaryRequest,
    StopRequest,
    TcpMetricsDelete,
    TcpMetricsRequest,
    TcpMetricsRow,
    TraceRequest,
    ValueRow,
    decode_reply,
)
from ustack.daemon.status import status_text
from ustack.daemon.views import Views, socket_row
from ustack.lib.addresses import INADDR_LOOPBACK, parse_ipv4
from ustack.lib.drop_reason import DropReason
from ustack.stack import Stack


def call(function: Callable[..., Any], *args: Any) -> Any:
    """As InlineRuntime.call, without a clock."""
    return function(*args)


def rows(stack: Stack, request: AnyRequest, row_type: type[Any]) -> list[Any]:
    """Return the rows of a whole answer."""
    *chunks, last = [decode_reply(m) for m in Views(stack, call).answer(request)]
    assert last == Done()
    raws = [raw for chunk in chunks if isinstance(chunk, Rows) for raw in chunk.rows]
    return [msgspec.json.decode(raw, type=row_type) for raw in raws]


def test_counters_and_drops_are_the_stacks(stack: Stack):
    stack.net.mib.tcp_ext.ListenDrops = 3
    stack.net.drops.count(DropReason.NO_SOCKET)
    assert CounterRow("TcpExt", "ListenDrops", 3) in rows(stack, CountersRequest(), CounterRow)
    assert rows(stack, DropsRequest(), CounterRow) == [CounterRow("", "NO_SOCKET", 1)]


def test_bytes_by_copy_and_by_reference_are_counters(stack: Stack):
    stack.tcp.copied_bytes, stack.tcp.ref_bytes = 7, 8
    counters = rows(stack, CountersRequest(), CounterRow)
    assert {c.table + c.name: c.value for c in counters}.items() >= {
        ("CopiedBytes", 7), ("RefBytes", 8),
    }  # fmt: skip


def test_listeners_and_connections_are_shown(stack: Stack):
    listener = stack.socket()
    listener.bind(INADDR_LOOPBACK, 80)
    listener.listen(5)
    client = stack.socket()
    with pytest.raises(BlockingIOError):
        client.connect(INADDR_LOOPBACK, 80)
    while stack.poll(1_000_100):
        pass
    client.send(b"abc")
    sockets = rows(stack, SocketsRequest(), SocketRow)
    assert {sock.state for sock in sockets} == {"LISTEN", "ESTAB"}
    listening = next(sock for sock in sockets if sock.state == "LISTEN")
    assert (listening.recv_q, listening.send_q) == (1, 5)
    assert listening.local == ("127.0.0.1", 80)
    assert listening.extended["accq"] == "1/5"
    connected = next(sock for sock in sockets if sock.peer[1] == 80)
    assert connected.info["mss"] > 0
    assert rows(stack, SocketsRequest(("LISTEN",)), SocketRow) == [listening]
    summary = rows(stack, SocketSummaryRequest(), CounterRow)
    assert CounterRow("", "ESTAB", 2) in summary


def test_datagram_sockets_are_shown_and_counted(stack: Stack):
    sock, raw = stack.socket(2), stack.socket(3, 1)
    sock.bind(0, 53)
    sock.connect(INADDR_LOOPBACK, 99)
    found = rows(stack, SocketsRequest((), ("raw", "udp")), SocketRow)
    assert [(row.netid, row.state, row.local[1], row.peer) for row in found] == [
        ("raw", "UNCONN", 1, ("0.0.0.0", 0)),
        ("udp", "ESTAB", 53, ("127.0.0.1", 99)),
    ]
    assert found[1].skmem["rb"] == 212_992
    summary = rows(stack, SocketSummaryRequest(), CounterRow)
    assert {CounterRow("inuse", "UDP", 1), CounterRow("inuse", "RAW", 1)} <= set(summary)
    with pytest.raises(LookupError):
        rows(stack, SocketsRequest((), ("sctp",)), SocketRow)
    raw.close()


def test_a_record_becomes_a_row():
    record = {
        "state": "ESTAB", "recv_q": 1, "send_q": 2, "local": (0x0A000002, 80),
        "peer": (0x0A000001, 4000), "timer": ("on", 200_000, 1), "orphan": True, "cwnd": 10,
        "skmem": {"r": 4096},
    }  # fmt: skip
    row = socket_row(record)
    assert (row.local, row.peer) == (("10.0.0.2", 80), ("10.0.0.1", 4000))
    assert row.timer is not None and row.timer.retries == 1
    assert row.info == {"cwnd": 10}
    assert row.extended == {"orphan": 1}


def test_routes_of_both_tables(stack: Stack):
    main = rows(stack, RoutesRequest(), RouteRow)
    assert RouteRow("unicast", "default", "eth0", gateway="10.0.0.1") in main
    assert any(route.destination == "10.0.0.0/24" and route.scope == "link" for route in main)
    local = rows(stack, RoutesRequest("local"), RouteRow)
    assert {route.type for route in local} == {"local", "broadcast"}


def test_links_have_their_addresses(stack: Stack):
    lo, eth0 = rows(stack, LinksRequest(), LinkRow)
    assert lo.loopback and lo.addresses[0].scope == "host"
    assert eth0.mac == "02:00:00:00:00:01"
    assert (eth0.addresses[0].address, eth0.addresses[0].prefix_len) == ("10.0.0.2", 24)
    assert {"UP", "BROADCAST"} <= set(eth0.flags)
    assert "rx_packets" in eth0.stats


def test_neighbours_appear_when_they_are_asked_for(stack: Stack):
    client = stack.socket()
    with pytest.raises(BlockingIOError):
        client.connect(parse_ipv4("10.0.0.9"), 80)
    (neigh,) = rows(stack, NeighboursRequest(), NeighbourRow)
    assert neigh == NeighbourRow("10.0.0.9", "eth0", "", "INCOMPLETE")


def test_ethtool_shows_the_nic_and_refuses_what_a_device_lacks(stack: Stack):
    def view(name: str, device: str = "eth0") -> dict[str, Any]:
        return {r.name: r.value for r in rows(stack, EthtoolRequest(device, name), ValueRow)}

    assert "rx_packets" in view("stats")
    assert view("drvinfo")["driver"] == "igb"
    assert view("ring")["rx_pending"] == 256
    assert view("features")["tcp-segmentation-offload"] in (True, False)
    for device, name in (("eth9", "stats"), ("eth0", "nonsense"), ("lo", "ring")):
        with pytest.raises(LookupError):
            view(name, device)


def test_an_unknown_table_is_refused(stack: Stack):
    with pytest.raises(LookupError):
        rows(stack, RoutesRequest("x"), RouteRow)


def test_the_status_page_names_what_has_counted(stack: Stack):
    stack.net.mib.ip.InReceives = 5
    page = status_text(stack, 0)
    assert "uptime 1 s" in page
    assert "eth0 02:00:00:00:00:01 mtu 1500 10.0.0.2/24" in page
    assert "  InReceives 5" in page


def test_every_request_has_a_view():
    answered = set(Views(Stack(rng=random.Random(1)), call)._views)
    streams = (CaptureRequest, TraceRequest, PingRequest, LatencyRequest, StopRequest)
    named = {t for t in AnyRequest.__args__ if t not in streams}
    assert answered == named


MAC = "02:00:00:00:00:07"


def test_static_neighbours_come_and_go(stack: Stack):
    add = NeighbourChange("add", "10.0.0.7", "eth0", MAC)
    assert rows(stack, add, NeighbourRow) == []
    entry = NeighbourRow("10.0.0.7", "eth0", MAC, "PERMANENT")
    assert entry in rows(stack, NeighboursRequest(), NeighbourRow)
    with pytest.raises(LookupError, match="File exists"):
        rows(stack, add, NeighbourRow)
    rows(stack, NeighbourChange("replace", "10.0.0.7", "eth0", "02:00:00:00:00:08"), NeighbourRow)
    (changed,) = rows(stack, NeighboursRequest(), NeighbourRow)
    assert changed.mac == "02:00:00:00:00:08"
    rows(stack, NeighbourChange("del", "10.0.0.7", "eth0"), NeighbourRow)
    assert rows(stack, NeighboursRequest(), NeighbourRow) == []
    with pytest.raises(LookupError, match="No such file or directory"):
        rows(stack, NeighbourChange("del", "10.0.0.7", "eth0"), NeighbourRow)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (NeighbourChange("add", "10.0.0.7", "eth9", MAC), "Cannot find device"),
        (NeighbourChange("add", "10.0.0.7", "lo", MAC), "Invalid argument"),
        (NeighbourChange("add", "224.0.0.1", "eth0", MAC), "Invalid argument"),
        (NeighbourChange("add", "10.0.0.7", "eth0", "01:00:00:00:00:07"), "Invalid argument"),
        (NeighbourChange("add", "10.0.0.7", "eth0", "x"), "x"),
        (NeighbourChange("add", "10.0.0.777", "eth0", MAC), "10.0.0.777"),
    ],
)
def test_neighbours_that_cannot_be(stack: Stack, change: NeighbourChange, why: str):
    with pytest.raises(LookupError, match=why):
        rows(stack, change, NeighbourRow)


def test_the_shortcut_between_local_sockets_is_switched(stack: Stack):
    for on in (True, False):
        assert rows(stack, RedirectRequest(on), ValueRow) == []
        assert (stack.tcp.sockmap is not None) is on


def test_what_tcp_remembers_of_a_peer_is_shown_and_forgotten(stack):
    def known() -> list[TcpMetricsRow]:
        return rows(stack, TcpMetricsRequest(), TcpMetricsRow)

    near, peers = parse_ipv4("10.0.0.2"), ("10.0.0.1", "10.0.0.3", "10.0.0.4")
    for n, peer in enumerate(peers):
        block = stack.tcp.metrics.lookup_or_create(near, parse_ipv4(peer))
        block.c.rtt, block.c.cwnd = 800 << n, 10
    stack.clock.now_us += 5
    assert known()[0] == TcpMetricsRow("10.0.0.1", "10.0.0.2", 5, cwnd=10, rtt_us=100)
    assert rows(stack, TcpMetricsDelete("10.0.0.3"), TcpMetricsRow) == []
    assert [row.address for row in known()] == ["10.0.0.1", "10.0.0.4"]
    with pytest.raises(LookupError, match="No such process"):
        rows(stack, TcpMetricsDelete("10.0.0.3"), TcpMetricsRow)
    rows(stack, TcpMetricsDelete(), TcpMetricsRow)
    assert known() == []
