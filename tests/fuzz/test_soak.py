"""Mutated and random frames for as long as a run has time for, through the whole stack.

Each example is a host on a wire in memory, with the device's offloads on or off, that is sent
anything while an application uses it. Then all is closed, the timers run out, and no page and
no slab object may be missing. ``kit.budget`` says how long, and from which seed.
"""

from __future__ import annotations

import random
import struct
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, seed, settings
from hypothesis import strategies as st

from kit.budget import fuzz_budget
from kit.checksum import checksum
from kit.host import PLAIN_NIC, TEST_CONFIG, Host, host
from kit.peer import PEER_MAC
from kit.segment import Segment, build_ip, pattern
from kit.strategies import ethernet_frames, mutated_packets, near_numbers, options
from kit.tcp_invariants import leftovers, pages_to_spare
from ustack.config import NicConfig

EXAMPLES_PER_SEED = 40
BUDGET = fuzz_budget()
PEER = 0x0A000001
HOST_MAC = bytes.fromhex("020000000002")
PAGE_BYTES = 4096
AFTER_ALL_TIMERS_US = 4_000_000_000
"""Retransmissions of what nobody acknowledges end by tcp_retries2, about a quarter of an hour."""

pytestmark = pytest.mark.timeout(int(BUDGET.seconds) + 300)

Op = tuple[Any, ...]

nics = st.builds(
    NicConfig,
    large_receive=st.booleans(), rx_checksum=st.booleans(), tx_checksum=st.booleans(),
    tso=st.booleans(), pause=st.booleans(), rx_ring=st.sampled_from([64, 256]),
)  # fmt: skip
vnet_headers = st.one_of(
    st.just(bytes(10)),
    st.sampled_from([0, 1, 2, 3, 255]).flatmap(
        lambda flags: st.builds(
            lambda kind, *fields: struct.pack("<BBHHHH", flags, kind, *fields),
            st.sampled_from([0, 1, 3, 4, 0x81, 255]),
            st.sampled_from([0, 14, 54, 66, 65535]), st.sampled_from([0, 1, 536, 1448, 65535]),
            st.sampled_from([0, 14, 34, 60, 65535]), st.sampled_from([0, 6, 16, 65535]),
        )
    ),
)  # fmt: skip
frames = st.tuples(st.just("frame"), vnet_headers, ethernet_frames(HOST_MAC, PEER_MAC))
packets = st.tuples(st.just("packet"), vnet_headers, mutated_packets())
arps = st.tuples(
    st.just("arp"), st.integers(0, 4), st.sampled_from([PEER, 0x0A000002, 0, 0x0A0000FF]),
    st.sampled_from([PEER, 0x0A000002, 0x0A000003]), st.binary(max_size=8),
)  # fmt: skip
fragments = st.tuples(
    st.just("fragment"), st.integers(0, 3), st.integers(0, 0x3FFF),
    st.integers(0, 10).map(lambda words: 4 * words), st.sampled_from([1, 6, 17, 99]),
    st.integers(0, 3000), st.binary(max_size=40),
)  # fmt: skip
segments = st.tuples(
    st.just("segment"), vnet_headers, st.integers(0, 0xFF), near_numbers, near_numbers,
    st.sampled_from([0, 1, 100, 1448, 9000, 60_000]), st.sampled_from([0, 1, 500, 65535]),
    options(),
)  # fmt: skip
calls = st.tuples(
    st.just("call"),
    st.sampled_from(["send", "recv", "shut", "close", "connect", "ping", "ping nobody"]),
)
waits = st.tuples(st.just("wait"), st.sampled_from([0, 1000, 300_000, 3_000_000, 31_000_000]))
storms = st.tuples(st.just("storm"), st.integers(0, 0xFFFFFFFF), st.sampled_from([1, 10, 100, 300]))
"""Many frames that one seed makes: Hypothesis takes longer to draw a frame than we to take it."""
scripts = st.lists(
    st.one_of(
        storms, storms, frames, packets, arps, fragments, fragments, segments, segments, calls,
        waits,
    ),
    min_size=1, max_size=40,
)  # fmt: skip


class Bench:
    """One host, an established connection, and an application that is not careful."""

    def __init__(self, nic: NicConfig) -> None:
        self.server: Host = host(TEST_CONFIG, nic=nic)
        self.stack = self.server.stack
        self.pages = pages_to_spare(self.stack)
        self.lsk = self.server.listen(80)
        self.peer = self.server.peer()
        self.peer.handshake("mss 1460,nop,nop,sackOK,nop,wscale 7", 65535)
        self.sk = self.lsk.accept()
        self.more: list[Any] = []

    def frame(self, header: bytes, frame: bytes) -> None:
        assert self.server.net is not None
        self.server.net.wire.send_frame(header + frame)

    def packet(self, header: bytes, packet: bytes) -> None:
        self.frame(header, HOST_MAC + PEER_MAC + b"\x08\x00" + packet)

    def arp(self, op: int, sender: int, target: int, tail: bytes) -> None:
        body = struct.pack(
            ">HHBBH6sI6sI", 1, 0x800, 6, 4, op, PEER_MAC, sender, bytes(6), target
        )  # fmt: skip
        cut = body[: len(body) - len(tail)] if op == 4 else body + tail
        self.frame(bytes(10), b"\xff" * 6 + PEER_MAC + b"\x08\x06" + cut)

    def fragment(
        self, ident: int, frag: int, opts: int, proto: int, length: int, field: bytes
    ) -> None:
        field = field[:opts] + bytes(opts - len(field[:opts]))
        header = struct.pack(
            ">BBHHHBBHII", 0x45 + opts // 4, 0, 20 + opts + length, ident,
            (frag & 0x2007) | (0x2000 if length & 8 else 0), 64, proto, 0, PEER, self.server.addr,
        ) + field  # fmt: skip
        header = header[:10] + struct.pack(">H", checksum(header)) + header[12:]
        self.packet(bytes(10), header + pattern(0, length))

    def segment(
        self, header: bytes, flags: int, seq: int, ack: int, length: int, window: int, opts: Any
    ) -> None:
        seg = Segment(
            PEER, self.server.addr, self.peer.port, 80, (self.peer.iss + 1 + seq) & 0xFFFFFFFF,
            ((self.peer.host_iss or 0) + 1 + ack) & 0xFFFFFFFF, flags, window, bytes(length),
            options=opts,
        )  # fmt: skip
        self.packet(header, build_ip(seg))

    def storm(self, number: int, count: int) -> None:
        """Right packets of every kind, of which most then change in a few bytes."""
        rng = random.Random(number)
        for sent in range(count):
            packet = bytearray(self._right(rng))
            for _ in range(rng.choice([0, 0, 1, 1, 2, 5])):
                packet[rng.randrange(min(len(packet), rng.choice([20, 40, 60])))] = rng.randrange(
                    256
                )
            if rng.random() < 0.6:  # let more than the header's own checksum see it
                size = max(20, min(4 * (packet[0] & 15), len(packet)))
                packet[10:12] = bytes(2)
                packet[10:12] = struct.pack(">H", checksum(bytes(packet[:size])))
            header = bytes(10) if rng.random() < 0.8 else rng.randbytes(10)
            cut = len(packet) if rng.random() < 0.95 else rng.randrange(len(packet))
            self.packet(header, bytes(packet[:cut]))
            if sent % 16 == 15:
                self.server.settle()

    def _right(self, rng: random.Random) -> bytes:
        kind = rng.randrange(8)
        near = rng.choice([0, 0, 1448, 2896, -1448, 65_000, 1 << 31])
        if kind < 5:
            seg = Segment(
                PEER, self.server.addr, self.peer.port, rng.choice([80, 80, 80, 81]),
                (self.peer.iss + 1 + near) & 0xFFFFFFFF,
                ((self.peer.host_iss or 0) + 1) & 0xFFFFFFFF,
                rng.choice([0x10, 0x10, 0x18, 0x11, 0x02, 0x04]), rng.choice([0, 100, 65535]),
                bytes(rng.choice([0, 1, 1448])),
            )  # fmt: skip
            return build_ip(seg)
        proto = rng.choice([1, 17, 99])
        body = rng.choice([b"\x08\0\xf7\xff\0\0\0\0", b"\x03\x01\xfc\xfe\0\0\0\0E"])
        body += rng.randbytes(rng.choice([0, 8, 100, 1400]))
        frag = rng.choice([0, 0, 0x2000, 1, 2, 185, 0x20B9])
        header = struct.pack(
            ">BBHHHBBHII", 0x45, 0, 20 + len(body), rng.randrange(4), frag, 64, proto, 0, PEER,
            self.server.addr,
        )  # fmt: skip
        return header[:10] + struct.pack(">H", checksum(header)) + header[12:] + body

    def call(self, what: str) -> None:
        try:
            if what == "send":
                self.sk.send(bytes(30_000))
            elif what == "recv":
                self.sk.recv(70_000)
            elif what == "shut":
                self.sk.shutdown(1)
            elif what == "close":
                self.sk.close()
            elif what == "connect":
                self.more.append(self.server.connect(PEER, 81))
            else:
                addr = PEER if what == "ping" else 0x0A000063
                self.stack.ip.icmp.ping.send_echo(addr, size=3000, seq=len(self.more) + 1)
        except OSError:
            return

    def wait(self, delta_us: int) -> None:
        self.server.advance_us(delta_us)

    def play(self, script: list[Op]) -> None:
        for name, *arguments in script:
            getattr(self, name)(*arguments)
            self.server.settle()

    def close(self) -> None:
        """Close everything: what is then still held, or missing, is leaked."""
        assert self.server.net is not None
        for sk in [self.sk, *self.more, self.lsk]:
            sk.close()
        self.server.advance_us(AFTER_ALL_TIMERS_US)
        self.server.net.other.clear()
        assert (self.stack.ip.frags.mem, len(self.stack.ip.frags)) == (0, 0)
        assert len(self.stack.ip.icmp.ping) == 0
        assert leftovers(self.stack) == {}
        assert pages_to_spare(self.stack) == self.pages, "a buffer has leaked"
        self.stack.close()
        everything = TEST_CONFIG.core.arena_bytes // PAGE_BYTES - 1  # page 0 is nobody's
        assert pages_to_spare(self.stack) == everything, "the rings were not given back"


def check(nic: NicConfig, script: list[Op]) -> None:
    bench = Bench(nic)
    bench.play(script)
    bench.close()


def test_whatever_comes_no_buffer_is_lost():
    """Seeds one after the other until the time is over; a failure names its own."""
    end = time.monotonic() + BUDGET.seconds / 2
    number = BUDGET.seed
    while True:
        rounds = settings(
            max_examples=EXAMPLES_PER_SEED, deadline=None, database=None, derandomize=False,
            print_blob=True, suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        )  # fmt: skip
        print(f"again: USTACK_FUZZ_SEED={number} pytest {__file__}")
        seed(number)(rounds(given(nics, scripts)(check)))()
        number += 1
        if time.monotonic() >= end:
            break
    assert number > BUDGET.seed


@settings(max_examples=5)
@given(nics, scripts)
@example(PLAIN_NIC, [])
@example(PLAIN_NIC, [("fragment", 0, 0x2000, 0, 17, 8, b""), ("call", "send"), ("call", "close")])
@example(NicConfig(), [("storm", 1, 300), ("storm", 2, 300), ("wait", 31_000_000)])
@example(NicConfig(), [("call", "ping nobody"), ("call", "send"), ("call", "connect")])
def test_cases_that_were_found_before(nic: NicConfig, script: list[Op]):
    check(nic, script)
