"""Hypothesis strategies: segments that are right, segments that are not, and any frame."""

from __future__ import annotations

from hypothesis import strategies as st

from kit.segment import Option, Segment, build_ip, pattern

HOST_ADDR = 0x0A000002
PEER_ADDR = 0x0A000001

u8 = st.integers(0, 0xFF)
u16 = st.integers(0, 0xFFFF)
u32 = st.integers(0, 0xFFFFFFFF)
ports = st.integers(1, 0xFFFF)

near_numbers = st.one_of(
    st.integers(-3, 3), st.integers(-70_000, 70_000), st.sampled_from([1 << 31, -(1 << 31), 1460])
)
"""Distances from a sequence number that matters: edges are where the bugs are."""


def options() -> st.SearchStrategy[tuple[Option, ...]]:
    """TCP options in any order, malformed ones among them, that fit 40 bytes."""
    one = st.one_of(
        st.tuples(st.just("mss"), st.tuples(u16)),
        st.tuples(st.just("wscale"), st.tuples(u8)),
        st.tuples(st.just("TS"), st.tuples(u32, u32)),
        st.tuples(st.just("sack"), st.tuples(u32, u32)),
        st.sampled_from([("sackOK", ()), ("nop", ()), ("eol", ())]),
        st.tuples(st.just("raw"), st.lists(u8, min_size=1, max_size=6).map(tuple)),
    )
    return st.lists(one, max_size=4).map(tuple)


@st.composite
def segments(draw: st.DrawFn, sport: int = 40_000, dport: int = 80) -> Segment:
    """Segments from the peer to the host with any flags, numbers and options."""
    length = draw(st.one_of(st.just(0), st.integers(1, 64), st.just(1460)))
    return Segment(
        PEER_ADDR, HOST_ADDR, sport, dport, draw(u32), draw(u32), draw(st.integers(0, 0xFF)),
        draw(u16), pattern(0, length), draw(st.one_of(st.just(0), u16)), draw(options()),
    )  # fmt: skip


@st.composite
def mutated_packets(draw: st.DrawFn) -> bytes:
    """IPv4 packets that were right before a few bytes were changed, cut off or added."""
    packet = bytearray(build_ip(draw(segments())))
    for _ in range(draw(st.integers(0, 4))):
        packet[draw(st.integers(0, len(packet) - 1))] = draw(u8)
    cut = draw(st.one_of(st.none(), st.integers(0, len(packet))))
    tail = draw(st.binary(max_size=16))
    return bytes(packet[:cut]) + tail


def ethernet_frames(destination: bytes, source: bytes) -> st.SearchStrategy[bytes]:
    """Frames with anything in them, mostly of the EtherTypes that the stack looks at."""
    ethertypes = st.one_of(
        st.sampled_from([b"\x08\x00", b"\x08\x06"]), st.binary(min_size=2, max_size=2)
    )
    destinations = st.sampled_from([destination, b"\xff" * 6, b"\x01\x00\x5e\x00\x00\x01", source])
    return st.builds(
        lambda dst, kind, body: dst + source + kind + body,
        destinations, ethertypes, st.one_of(st.binary(max_size=80), mutated_packets()),
    )  # fmt: skip
