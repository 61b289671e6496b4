"""Capture filters: libpcap's verdict on each packet, whatever part of it is looked at."""

from __future__ import annotations

import struct

import cypcap
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.netbed import OUR_MAC, PEER_MAC, icmp_packet, udp_packet
from unit.daemon.fakes import FakeNet, FakeSkb
from ustack.daemon.bpf import (
    MAX_INSTRUCTIONS,
    Instruction,
    PacketFilter,
    compile_filter,
    reach,
    sk_chk_filter,
    unpack_program,
)
from ustack.wire.ethernet import build_ethernet

ETH = build_ethernet(OUR_MAC, PEER_MAC, 0x0800)
PING = ETH + icmp_packet(8, payload=bytes(40))
DATAGRAM = ETH + udp_packet(b"hello", dport=53)
ARP = build_ethernet(b"\xff" * 6, PEER_MAC, 0x0806) + bytes.fromhex(
    "0001080006040001" + "020000000001" + "0a000001" + "000000000000" + "0a000002"
)
TCP = ETH + bytes.fromhex("4500003c000040004006000" + "00a0000010a000002") + bytes.fromhex(
    "04d200500000000100000000a0021000" + "00000000" + "020405b4" * 5
)  # fmt: skip
FRAMES = {"ping": PING, "datagram": DATAGRAM, "arp": ARP, "tcp": TCP}


def wanted(expression: str) -> set[str]:
    packet_filter = PacketFilter(compile_filter(expression))
    found = set()
    for name, frame in FRAMES.items():
        if packet_filter.matches(FakeNet(), FakeSkb(frame), len(frame)):  # type: ignore[arg-type]
            found.add(name)
    return found


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("icmp", {"ping"}),
        ("arp", {"arp"}),
        ("not arp", {"ping", "datagram", "tcp"}),
        ("udp port 53", {"datagram"}),
        ("tcp dst port 80", {"tcp"}),
        ("tcp src port 80", set()),
        ("tcp[tcpflags] & tcp-syn != 0", {"tcp"}),
        ("host 10.0.0.1 and not tcp", {"ping", "datagram", "arp"}),
        ("net 192.168.0.0/16", set()),
        ("ether src 02:00:00:00:00:01", {"ping", "datagram", "arp", "tcp"}),
        ("ether broadcast", {"arp"}),
        ("greater 75", {"ping"}),
        ("icmp[icmptype] = icmp-echo", {"ping"}),
        ("tcp[((tcp[12] & 0xf0) >> 2) - 4 : 4] = 0x020405b4", {"tcp"}),
    ],
)
def test_an_expression_selects_what_tcpdump_would(expression: str, names: set[str]):
    assert wanted(expression) == names


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("tcp prot 80", "can't parse filter expression: syntax error"),
        ("port http8080x", "unknown port 'http8080x'"),
        ("host 10.0.0.300", "invalid IPv4 address '10.0.0.300'"),
        ("ip6 protochain 6", "'protochain' needs a loop, which the tap does not run"),
        ("inbound", "'inbound', 'outbound' and the like are -Q in and -Q out here"),
    ],
)
def test_a_bad_expression_is_libpcaps_own_words(expression: str, says: str):
    with pytest.raises(ValueError) as refusal:
        compile_filter(expression)
    assert str(refusal.value) == says


EXPRESSIONS = (
    "icmp", "tcp port 80", "host 10.0.0.1", "ip[6:2] & 0x1fff = 0 and udp", "greater 60",
    "tcp[13] & 2 != 0", "ip proto 6", "tcp[((tcp[12] & 0xf0) >> 2):4] = 0", "icmp[0] = 8 or arp",
    "ip6 proto 6", "len >= 40 and ip[2:2] > 30",
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(EXPRESSIONS),
    st.sampled_from([*FRAMES.values(), b""]),
    st.binary(max_size=80),
    st.integers(0, 90),
)
def test_what_is_out_of_reach_changes_no_verdict(
    expression: str, frame: bytes, noise: bytes, cut: int
):
    packed = compile_filter(expression)
    data = frame[:cut] + noise
    whole = cypcap.BpfProgram(unpack_program(packed)).offline_filter(
        cypcap.Pkthdr(caplen=len(data), len=len(data)), data
    )
    ours = PacketFilter(packed).matches(FakeNet(), FakeSkb(data), len(data))  # type: ignore[arg-type]
    assert ours is bool(whole)


def test_ordinary_filters_reach_into_headers_only():
    reaches = {e: reach(unpack_program(compile_filter(e))) for e in EXPRESSIONS}
    assert reaches["icmp"] == 24
    assert reaches["tcp port 80"] == 60 + 18
    assert reaches["greater 60"] == 0
    assert reaches["tcp[((tcp[12] & 0xf0) >> 2):4] = 0"] is None


def test_payload_in_the_arena_is_looked_at_where_the_filter_needs_it():
    packed = compile_filter("ip[28:4] = 0x10111213")
    frags = FakeSkb(PING[:42], [(0x10, 4)])
    assert PacketFilter(packed).matches(FakeNet(), frags, 46)  # type: ignore[arg-type]
    assert not PacketFilter(packed).matches(FakeNet(), FakeSkb(PING[:42], [(0x11, 4)]), 46)  # type: ignore[arg-type]


RETURN = (0x06, 0, 0, 1)


@pytest.mark.parametrize(
    "program",
    [
        [],
        [(0x28, 0, 0, 12)],
        [(0x15, 1, 0, 0), RETURN],
        [(0x15, 0, 1, 0), RETURN],
        [(0x05, 0, 0, 1), RETURN],
        [(0x05, 0, 0, 0xFFFFFFFF), RETURN],
        [(0x60, 0, 0, 16), RETURN],
        [(0x02, 0, 0, 99), RETURN],
        [(0x34, 0, 0, 0), RETURN],
        [(0x94, 0, 0, 0), RETURN],
        [(0xFFFF, 0, 0, 0), RETURN],
        [(0xB4, 0, 0, 0), RETURN],
        [RETURN] * (MAX_INSTRUCTIONS + 1),
    ],
)
def test_a_program_that_could_run_wild_is_refused(program: list[Instruction]):
    with pytest.raises(ValueError):
        sk_chk_filter(program)


def test_half_an_instruction_is_refused():
    with pytest.raises(ValueError, match="whole number"):
        PacketFilter(compile_filter("icmp")[:-1])


_words = st.tuples(
    st.one_of(st.sampled_from(range(0, 0x100)), st.integers(0, 0xFFFF)),
    st.integers(0, 12),
    st.integers(0, 12),
    st.one_of(st.integers(0, 64), st.integers(0, 0xFFFFFFFF)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(_words, max_size=12), st.binary(max_size=64))
def test_no_program_that_passes_the_check_does_harm(program: list[Instruction], data: bytes):
    packed = b"".join(struct.pack("<HBBI", *word) for word in [*program, RETURN])
    try:
        packet_filter = PacketFilter(packed)
    except ValueError:
        return
    packet_filter.matches(FakeNet(), FakeSkb(data), len(data))  # type: ignore[arg-type]
