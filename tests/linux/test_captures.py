"""Real conversations, captured by tcpdump on the TAP and held against the RFCs with dpkt."""

from __future__ import annotations

import hashlib
import random
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from kit.capture import (
    fins,
    flow_of,
    frames,
    handshake,
    outside_window,
    resets,
    tcp_segments,
    wrong_checksums,
    wrong_vnet_hdr,
)
from kit.checkers import check
from kit.lab import Daemon, Namespace, stop, wait_for
from kit.segment import FIN, SYN, Segment
from kit.vnet_sniffer import records

SNIFFER = Path(__file__).parents[1] / "kit" / "vnet_sniffer.py"
STACK = 0x0A000002
SYN_OPTIONS = ["mss", "sackOK", "TS", "nop", "wscale"]


@dataclass(frozen=True)
class Conversations:
    """One capture of everything at once, and how the daemon was set."""

    path: Path
    segments: list[Segment]
    units: list[bytes]
    """Frames with their virtio headers, as the kernel saw them."""
    offloads: bool
    csum_errors: int
    timeouts: int
    """How often a timer of the stack's had something sent again: the machine was busy."""


@pytest.fixture(scope="module")
def talk(ns: Namespace, daemon: Daemon, www: Path) -> Conversations:
    """Downloads, an upload, an echo and pings: all of them end well."""
    (www / "big.bin").write_bytes(random.Random(1).randbytes(3_000_000))
    units_path = ns.folder / "units"
    before, timeouts = ns.nstat()["TcpInCsumErrors"], resent(daemon)
    sniffer = ns.start(sys.executable, str(SNIFFER), daemon.tap, str(units_path), text=True)
    assert sniffer.stdout is not None and sniffer.stdout.readline().strip() == "ready"
    with ns.capture(daemon.tap) as path:
        _converse(ns, daemon, www)
    stop(sniffer)
    return Conversations(
        path, tcp_segments(path), records(units_path), daemon.offloads,
        ns.nstat()["TcpInCsumErrors"] - before, resent(daemon) - timeouts,
    )  # fmt: skip


def resent(daemon: Daemon) -> int:
    """Count retransmission timeouts and tail loss probes."""
    names = ("TcpExtTCPTimeouts", "TcpExtTCPLossProbes")
    lines = daemon.cli("nstat", "-az", *names).splitlines()[1:]
    return sum(int(line.split()[1]) for line in lines)


def _converse(ns: Namespace, daemon: Daemon, www: Path) -> None:
    want = hashlib.sha256((www / "big.bin").read_bytes()).hexdigest()
    for _ in range(3):
        body = ns.run("curl", "-sSf", "http://10.0.0.2/big.bin", text=False).stdout
        assert hashlib.sha256(body).hexdigest() == want
    reply = ns.output("curl", "-sSf", "-T", str(www / "big.bin"), "http://10.0.0.2/upload")
    assert want in reply
    echoed = ns.run("nc", "-N", "-w", "60", "10.0.0.2", "7", input=body[:500_000], text=False)
    assert echoed.stdout == body[:500_000]
    ns.ping("10.0.0.2", count=3)
    wait_for(lambda: not daemon.connections(), "every connection closed")


def test_the_capture_is_whole(talk: Conversations):
    starts = {flow_of(s) for s in talk.segments if s.flags & SYN and s.saddr != STACK}
    assert len(starts) == 5
    assert len(talk.segments) > 100


def test_every_checksum_is_right_or_partial(talk: Conversations):
    """Off: complete on the wire. On: what is not complete is the kernel's own to complete."""
    if not talk.offloads:
        assert wrong_checksums(talk.segments) == []


def test_the_vnet_headers_say_what_is_in_the_frames(talk: Conversations):
    tcp = [u for u in talk.units if u[22:24] == b"\x08\x00" and u[33] == 6]
    assert len(tcp) > 100
    wrong = {why for u in tcp if (why := wrong_vnet_hdr(u))}
    assert wrong == set()


def test_super_frames_travel_both_ways_only_with_offloads_on(talk: Conversations):
    big = {s.saddr == STACK for s in talk.segments if len(s.payload) > 1460}
    assert big == ({True, False} if talk.offloads else set())


def test_the_kernel_found_no_wrong_checksum(talk: Conversations):
    assert talk.csum_errors == 0


def test_options_stand_in_linux_order(talk: Conversations):
    syn, syn_ack, ack = handshake(talk.segments, 80)
    assert [name for name, _ in syn_ack.options] == SYN_OPTIONS
    assert [name for name, _ in syn.options] == SYN_OPTIONS
    assert [name for name, _ in ack.options] == ["nop", "nop", "TS"]
    assert syn_ack.option("mss") == (1460,)
    ours = [s for s in talk.segments if s.saddr == STACK and not s.flags & SYN]
    orders = {tuple(n for n, _ in s.options) for s in ours}
    assert orders <= {("nop", "nop", "TS"), ("nop", "nop", "TS", "nop", "nop", "sack")}


def test_every_segment_carries_a_timestamp_that_never_goes_back(talk: Conversations):
    last: dict[object, int] = {}
    for seg in (s for s in talk.segments if s.saddr == STACK):
        ts = seg.option("TS")
        assert ts is not None and ts[0] is not None
        assert ts[0] >= last.get(flow_of(seg), 0)
        last[flow_of(seg)] = ts[0]


def test_nothing_is_sent_outside_the_window(talk: Conversations):
    assert outside_window(talk.segments) == []


def test_nobody_resets_a_connection_that_ends_well(talk: Conversations):
    assert resets(talk.segments) == []


def test_each_side_sends_its_fin(talk: Conversations):
    flows = {flow_of(s) for s in talk.segments if s.flags & SYN}
    assert len(flows) == 10
    assert {f: fins(talk.segments, f) for f in flows} == dict.fromkeys(flows, 1)


def test_nothing_was_sent_twice(talk: Conversations):
    """Unless an acknowledgment was late, on a wire that loses nothing."""
    seen: set[tuple[object, int]] = set()
    again = []
    for seg in talk.segments:
        if seg.saddr == STACK and (seg.payload or seg.flags & (SYN | FIN)):
            key = (flow_of(seg), seg.seq)
            if key in seen:
                again.append(key)
            seen.add(key)
    assert len(again) <= talk.timeouts


def test_segments_fit_the_mtu_with_offloads_off(talk: Conversations):
    if not talk.offloads:
        assert max(len(s.payload) for s in talk.segments) == 1448


def test_the_stacks_ping_replies_are_right_to_the_last_byte(talk: Conversations):
    requests, replies = [], []
    for _, frame in frames(talk.path):
        if frame[12:14] == b"\x08\x00" and frame[23] == 1:
            (requests if frame[34] == 8 else replies).append(frame)
    assert len(requests) == len(replies) == 3
    for asked, answered in zip(requests, replies, strict=True):
        check(answered).ip(src="10.0.0.2", dst="10.0.0.1").icmp(0).body(asked[42:])


def test_a_refusal_is_one_reset_that_acknowledges_the_syn(ns: Namespace, daemon: Daemon):
    """RFC 9293 §3.10.7.1: <SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>."""
    with ns.capture(daemon.tap, "port", "4242") as path:
        ns.run("nc", "-w", "60", "10.0.0.2", "4242")
    syn, *again, rst = tcp_segments(path)
    assert all(s.flags in (SYN, rst.flags) for s in again)  # to a daemon that was late
    assert (rst.flags, rst.seq, rst.ack) == (0x14, 0, (syn.seq + 1) & 0xFFFFFFFF)
    assert rst.window == 0 and rst.options == ()
