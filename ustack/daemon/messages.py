"""What travels over the control socket: JSON structs, one per SOCK_SEQPACKET message.

A client sends one request; the daemon answers with any number of row messages and ends with
``Done`` or ``Failure``. Every message stays under ``MAX_MESSAGE_BYTES``, so that a list of
any length costs either side only one message of memory. The first byte of a JSON message
is ``{``: the fixed binary layout of socket calls can share the socket later.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import msgspec

MAX_MESSAGE_BYTES = 64 * 1024 - 1
"""Nothing larger is sent or accepted, in either direction."""
CHUNK_BYTES = 48 * 1024
"""Rows are gathered into a message until it has about this size."""
PACKET_PIECE_BYTES = 32 * 1024
"""Captured bytes in one message; base64 makes it 43 KiB."""


class Request(msgspec.Struct, tag_field="op", forbid_unknown_fields=True, frozen=True):
    """What every request has in common: its tag, ``op``."""


class SocketsRequest(Request, tag="sockets", frozen=True):
    """The sockets of ``ss``; ``states`` are Linux's names (ESTAB), empty for all."""

    states: tuple[str, ...] = ()
    netids: tuple[str, ...] = ("tcp",)
    """Transports by ss's names: tcp, udp, raw."""


class SocketSummaryRequest(Request, tag="socket-summary", frozen=True):
    """How many sockets are in each state (``ss -s``), without listing them."""


class CountersRequest(Request, tag="counters", frozen=True):
    """The SNMP and Linux counter tables (``netstat -s``, ``nstat``)."""


class DropsRequest(Request, tag="drops", frozen=True):
    """Packets lost by drop reason."""


class EthtoolRequest(Request, tag="ethtool", frozen=True):
    """One view of a device: ``stats``, ``drvinfo``, ``ring``, ``channels``, ``coalesce``,
    ``pause``, ``rxfh`` or ``features``."""

    device: str
    view: str


class EthtoolSetRequest(Request, tag="ethtool-set", frozen=True):
    """Change a device: the views' names, ``link`` (up), ``mtu`` and ``irq``; what has no
    value stays."""

    device: str
    setting: str
    values: dict[str, int | bool | str | list[int]]


class NeighboursRequest(Request, tag="neighbours", frozen=True):
    """The neighbour table."""


class NeighbourChange(Request, tag="neighbour-change", frozen=True):
    """Make or delete a neighbour's entry (``ip neigh add|replace|del``); the answer is empty."""

    action: Literal["add", "replace", "del"]
    address: str
    device: str
    mac: str = ""
    """Needed to add and replace."""


class TcpMetricsRequest(Request, tag="tcp-metrics", frozen=True):
    """What TCP remembers of its peers."""


class TcpMetricsDelete(Request, tag="tcp-metrics-delete", frozen=True):
    """Forget a peer, or all of them; the answer is empty."""

    address: str = ""
    """Empty: all."""


class RoutesRequest(Request, tag="routes", frozen=True):
    """One routing table: ``main`` or ``local``."""

    table: str = "main"


class LinksRequest(Request, tag="links", frozen=True):
    """The devices with flags, counters and addresses (``ip addr``, ``ip -s link``)."""


class QdiscsRequest(Request, tag="qdiscs", frozen=True):
    """The queue disciplines (``tc -s qdisc``) of one device, or of all if it is empty."""

    device: str = ""


class ShowRequest(Request, tag="show", frozen=True):
    """A table of the stack's inside (show.SHOWN), or the queues of sockets (show_queues.SHOWN)."""

    what: str
    port: int = 0
    """Only sockets with this port at either end; 0: all."""


class RingRequest(Request, tag="ring", frozen=True):
    """The descriptors of a ring, as lines of text (igb_dump)."""

    device: str
    direction: Literal["rx", "tx"]
    queue: int = 0


class FaultRequest(Request, tag="fault", frozen=True):
    """A fault on purpose, for a bounded time; the answer is empty."""

    kind: Literal["freeze-softirq", "fail-alloc"]
    duration_us: int
    count: int = 0
    """fail-alloc: allocations."""


class RedirectRequest(Request, tag="redirect", frozen=True):
    """Switch the shortcut between local sockets; the answer is empty."""

    on: bool


class RouteGetRequest(Request, tag="route-get", frozen=True):
    """How a packet to ``address`` would go (``ip route get``), from ``source`` if given."""

    address: str
    source: str = ""


class CatRequest(Request, tag="cat", frozen=True):
    """A file of /proc (``/proc/net/softnet_stat``)."""

    path: str


class SysctlRequest(Request, tag="sysctl", frozen=True):
    """A knob of net.core or net.ipv4; an empty name for all."""

    name: str = ""


class SysctlWriteRequest(Request, tag="sysctl-write", frozen=True):
    """Set a knob; the answer is the value that it has now."""

    name: str
    value: str


class UlimitRequest(Request, tag="ulimit", frozen=True):
    """RLIMIT_NOFILE of a client; the answer is two values, "soft" and "hard"."""

    pid: int = 0
    """0: of the clients that have none of their own."""
    soft: int | None = None
    """None: as it is."""
    hard: int | None = None


class CaptureRequest(Request, tag="capture", frozen=True):
    """Packets as they pass, until ``StopRequest``, ``count`` or the client goes away."""

    device: str = ""
    """Empty for all devices."""
    snaplen: int = 262_144
    """Bytes of each packet to send."""
    count: int = 0
    """End after so many packets; 0 for no limit."""
    direction: Literal["in", "out", "inout"] = "inout"
    filter: bytes = b""
    """A classic BPF program, packed struct sock_filter (``bpf.compile_filter``); empty: all."""


class TraceRequest(Request, tag="trace", frozen=True):
    """The path of the next packet: received by a NIC, sent by one, or over lo.

    "conn": of the next packet with data and of its answer, two ``PacketTrace``.
    """

    kind: Literal["rx", "tx", "lo", "conn"]


class PingRequest(Request, tag="ping", frozen=True):
    """Echo requests to a host, until ``count`` have a result or ``StopRequest``."""

    address: str
    count: int = 0
    """0 for no limit."""
    size: int = 56
    """Payload bytes."""
    interval_us: int = 1_000_000
    timeout_us: int = 10_000_000
    """How long to wait for each reply."""
    ttl: int = 0
    """0 for ``ip_default_ttl``."""
    tos: int = 0
    df: bool = False


class LatencyRequest(Request, tag="latency", frozen=True):
    """How long handshakes, or calls of connect(), take from now on, until ``StopRequest``."""

    kind: Literal["handshake", "connect"]


class StopRequest(Request, tag="stop", frozen=True):
    """End what goes on until it is stopped: what is queued comes, then ``Done``."""


AnyRequest = (
    SocketsRequest
    | SocketSummaryRequest
    | CountersRequest
    | DropsRequest
    | EthtoolRequest
    | EthtoolSetRequest
    | NeighboursRequest
    | NeighbourChange
    | TcpMetricsRequest
    | TcpMetricsDelete
    | RoutesRequest
    | LinksRequest
    | QdiscsRequest
    | ShowRequest
    | RingRequest
    | FaultRequest
    | RedirectRequest
    | RouteGetRequest
    | CatRequest
    | SysctlRequest
    | SysctlWriteRequest
    | UlimitRequest
    | CaptureRequest
    | TraceRequest
    | PingRequest
    | LatencyRequest
    | StopRequest
)


StreamRequest = CaptureRequest | TraceRequest | PingRequest | LatencyRequest
"""Requests whose answers go on until they are stopped."""


class Reply(msgspec.Struct, tag_field="reply", frozen=True):
    """What every reply has in common: its tag, ``reply``."""


class Rows(Reply, tag="rows", frozen=True):
    """Some of the rows; which struct they are follows from the request."""

    rows: list[msgspec.Raw]


class PacketPiece(Reply, tag="packet", frozen=True):
    """A captured packet, or a part of a large one: ``last`` ends it."""

    ts_us: int
    """Wall-clock time of capture, microseconds since the epoch."""
    length: int
    """Bytes on the wire."""
    data: bytes
    outgoing: bool = False
    last: bool = True
    device: str = ""


class HopRow(msgspec.Struct, frozen=True):
    """One step of a packet; times in nanoseconds since the first."""

    stage: str
    function: str
    at_ns: int


class PacketTrace(Reply, tag="trace", frozen=True):
    """The path of one packet."""

    kind: str
    device: str
    length: int
    data: bytes
    """The packet's first bytes."""
    hops: list[HopRow]
    total_ns: int


class PingResult(Reply, tag="ping", frozen=True, omit_defaults=True):
    """What became of one echo request: one of ``rtt_us``, ``error`` and ``failure``, or none
    of them, then it timed out.
    """

    seq: int
    """From 1, not cut to 16 bits."""
    rtt_us: int | None = None
    ttl: int = 0
    length: int = 0
    """ICMP bytes of the reply."""
    intact: bool = True
    """The reply's payload is the request's."""
    error: tuple[int, int] | None = None
    """Type and code of an ICMP error, which ``sender`` sent."""
    sender: str = ""
    mtu: int = 0
    failure: str = ""
    """It could not be sent: why."""


class PingSummary(Reply, tag="ping-summary", frozen=True):
    """How many were sent, and how long it took; comes before ``Done``."""

    sent: int
    time_us: int


class LatencyResult(Reply, tag="latency", frozen=True):
    """How many took how long; comes before ``Done``."""

    buckets: list[int]
    """As ``lib.histogram.Log2Histogram`` has them, of microseconds."""
    total_us: int


class Started(Reply, tag="started", frozen=True):
    """What goes on until it is stopped is running; packets from now on are seen."""


class Done(Reply, tag="done", frozen=True):
    """The last message of an answer."""

    received: int = 0
    """Captures: packets that the filter let through."""
    dropped: int = 0
    """Captures: packets lost because the client read too slowly."""


class Failure(Reply, tag="failure", frozen=True):
    """The request could not be answered; the last message."""

    message: str


AnyReply = (
    Rows
    | PacketPiece
    | PacketTrace
    | PingResult
    | PingSummary
    | LatencyResult
    | Started
    | Done
    | Failure
)


class Timer(msgspec.Struct, frozen=True):
    """What ``ss -o`` shows: name (on, keepalive, timewait, persist), time left, retries."""

    name: str
    expires_us: int
    retries: int = 0


class SocketRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """One socket of ``ss``; addresses are dotted quads."""

    state: str
    recv_q: int
    send_q: int
    local: tuple[str, int]
    peer: tuple[str, int]
    timer: Timer | None = None
    skmem: dict[str, int] = {}
    """ss's letters to bytes or packets: r rb t tb f w o bl d."""
    info: dict[str, Any] = {}
    """A connection's figures by the names of ``stack.tcp.diag()`` (struct tcp_info)."""
    extended: dict[str, Any] = {}
    """What ``-e`` adds, in ss's ``name:value``: a listener's queues."""
    netid: str = "tcp"
    """ss's name of the transport."""


class CounterRow(msgspec.Struct, frozen=True):
    """One counter: table is the kernel's row name (``TcpExt``), empty where there is none."""

    table: str
    name: str
    value: int


class ValueRow(msgspec.Struct, frozen=True):
    """A named value of a device, in the driver's order."""

    name: str
    value: int | str | bool


class LineRow(msgspec.Struct, frozen=True):
    """A line of a text file, without its end."""

    text: str


class NeighbourRow(msgspec.Struct, frozen=True):
    """One entry of the neighbour table."""

    address: str
    device: str
    mac: str
    """Empty while unresolved."""
    state: str


class TcpMetricsRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """What TCP remembers of one peer, 0 where it is nothing."""

    address: str
    source: str
    """Our own address."""
    age_us: int
    ssthresh: int = 0
    cwnd: int = 0
    reordering: int = 0
    rtt_us: int = 0
    rttvar_us: int = 0
    fo_mss: int = 0
    fo_syn_drops: int = 0
    fo_syn_drop_age_us: int = 0
    fo_cookie: str = ""
    """Hexadecimal."""


class RouteRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """One route; ``destination`` as iproute2 prints it (``default``, ``10.0.0.0/24``)."""

    type: str
    destination: str
    device: str
    gateway: str = ""
    source: str = ""
    scope: str = ""
    protocol: str = ""


class RouteGetRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """The way to one destination."""

    type: str
    destination: str
    device: str
    gateway: str = ""
    source: str = ""
    mtu: int = 0
    """Learnt by path MTU discovery, 0 if nothing is."""
    mtu_locked: bool = False
    expires_s: int = 0


class AddressRow(msgspec.Struct, frozen=True):
    """One IPv4 address of a device."""

    address: str
    prefix_len: int
    broadcast: str = ""
    scope: str = "global"


class LinkRow(msgspec.Struct, frozen=True):
    """One device."""

    ifindex: int
    name: str
    flags: tuple[str, ...]
    mtu: int
    qdisc: str
    qlen: int
    loopback: bool
    mac: str
    addresses: tuple[AddressRow, ...]
    stats: dict[str, int]
    """struct rtnl_link_stats64's names."""
    details: dict[str, int] = {}
    """What ``ip -d`` adds: minmtu, numtxqueues, gso_max_size ..."""


class QdiscRow(msgspec.Struct, frozen=True):
    """One queue discipline, a root before its leaves."""

    kind: str
    device: str
    parent: str
    """``:1`` and on for mq's leaves; empty for the root."""
    refcnt: int
    options: str
    sent_bytes: int = 0
    sent_packets: int = 0
    dropped: int = 0
    overlimits: int = 0
    requeues: int = 0
    backlog: int = 0
    """Bytes."""
    qlen: int = 0


# Codecs without state, compiled once.
_encoder = msgspec.json.Encoder()
_request_decoder = msgspec.json.Decoder(AnyRequest)
_reply_decoder = msgspec.json.Decoder(AnyReply)


def encode(message: Request | Reply | msgspec.Struct) -> bytes:
    """Write one message or row as JSON."""
    return _encoder.encode(message)


def decode_request(data: bytes) -> AnyRequest:
    """Read a request.

    Raises:
        ValueError: it is not one (msgspec's texts say where); the client's fault.
    """
    try:
        request: AnyRequest = _request_decoder.decode(data)
        return request
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from error


def decode_reply(data: bytes) -> AnyReply:
    """Read a reply.

    Raises:
        ValueError: it is not one: client and daemon are of different versions.
    """
    try:
        reply: AnyReply = _reply_decoder.decode(data)
        return reply
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from error


def row_messages(rows: Iterable[msgspec.Struct]) -> Iterator[bytes]:
    """Pack rows into as few messages as their limit allows; ends with ``Done``.

    A row that alone exceeds the limit is replaced by a ``Failure`` that ends the answer.
    """
    chunk: list[msgspec.Raw] = []
    size = 0
    for row in rows:
        encoded = encode(row)
        if len(encoded) > CHUNK_BYTES:
            yield encode(Failure("a row is too large for a control message"))
            return
        if size + len(encoded) > CHUNK_BYTES:
            yield encode(Rows(chunk))
            chunk, size = [], 0
        chunk.append(msgspec.Raw(encoded))
        size += len(encoded) + 1
    if chunk:
        yield encode(Rows(chunk))
    yield encode(Done())


def packet_messages(
    ts_us: int, length: int, data: bytes, *, outgoing: bool = False, device: str = ""
) -> Iterator[bytes]:
    """Pack one captured packet, in several pieces where it is large."""
    start = 0
    while True:
        piece = data[start : start + PACKET_PIECE_BYTES]
        start += PACKET_PIECE_BYTES
        last = start >= len(data)
        yield encode(PacketPiece(ts_us, length, piece, outgoing, last, device))
        if last:
            return
