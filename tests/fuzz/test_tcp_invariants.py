"""Hostile segments and any application against one stack: what must hold after each of them.

Sequence numbers lie around the wrap on both sides, numbers are near those that matter, memory
runs out at times, C takes what it predicts or nothing. When all is closed and the timers have
run, nothing may be left behind (kit.tcp_bench). One seed in every run; the long run draws its
own, from USTACK_FUZZ_SEED on, for USTACK_FUZZ_S seconds.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, seed, settings
from hypothesis import strategies as st

from kit.budget import fuzz_budget
from kit.host import TEST_CONFIG, host
from kit.segment import ACK, FIN, PSH, RST, SYN
from kit.tcp_bench import Bench, finish
from kit.tcp_invariants import leftovers
from ustack.config import TcpConfig, UstackConfig

EXAMPLES = 200
EXAMPLES_PER_SEED = 300
BUDGET = fuzz_budget()
RARE: dict[str, Any] = {
    "tcp_mtu_probing": 2,
    "tcp_probe_interval_us": 1_000_000,
}
"""Knobs that are off by default; with them idle connections give their objects back at once."""
SMALL = TcpConfig(tcp_rmem=(4096, 16_384, 262_144), tcp_wmem=(4096, 16_384, 262_144))

flags = st.sampled_from(
    [ACK] * 12 + [ACK | PSH, ACK | FIN, ACK | PSH | FIN] * 2
    + [SYN, SYN | ACK, RST, RST | ACK, 0, FIN, SYN | FIN, 0xFF, ACK | SYN | FIN, ACK | 0x20]
)  # fmt: skip
near = st.sampled_from(
    [0] * 14
    + [-2, -1, 1, 2, 100, -100, 1000, 1448, -1448, 2896, 4344, 8000, -8000, 70_000, 1 << 31]
)
lengths = st.sampled_from([0, 0, 1, 2, 100, 1000, 1448])
windows = st.sampled_from([0, 0, 1, 100, 1460, 4000, 65535])
option_sets = st.sampled_from(["none", "ts", "old ts", "odd ts", "odd sack", "syn", "raw"])
sack_edges = st.lists(
    st.tuples(st.integers(0, 12), st.integers(1, 5), st.sampled_from([0, 0, 0, 1, 100])),
    min_size=1, max_size=4,
)  # fmt: skip
segments = st.tuples(
    st.just("segment"), st.integers(0, 2), flags, near,
    st.tuples(st.sampled_from(["una", "nxt"]), near), lengths, windows, option_sets,
)  # fmt: skip
calls = st.tuples(
    st.just("call"), st.integers(0, 3),
    st.sampled_from(
        ["send 1", "send 100", "send 5000", "send 60000", "recv 1", "recv 70000", "peek",
         "shutdown 0", "shutdown 1", "shutdown 2", "close", "nodelay", "cork", "uncork",
         "keepalive", "linger 0", "rcvbuf", "lowat", "connect", "more", "poll", "drain", "oob",
         "inline"]
    ),
)  # fmt: skip
times = st.tuples(
    st.just("wait"),
    st.sampled_from([0, 1000, 40_000, 200_000, 300_000, 1_000_000, 10_000_000, 130_000_000]),
)
others = st.sampled_from(
    [("accept",), ("accept",), ("connect",), ("relisten",), ("starve", 0), ("starve", 2),
     ("starve", 200), ("squeeze", 1), ("squeeze", 8), ("relieve",),
     ("icmp", 0, 4), ("icmp", 0, 1), ("icmp", 1, 4), ("icmp", 1, 3)]
)  # fmt: skip
overlaps = st.tuples(
    st.just("overlap"), st.integers(0, 2),
    st.lists(st.tuples(st.integers(-5, 60), st.integers(1, 40)), min_size=2, max_size=6),
)  # fmt: skip
urgents = st.tuples(
    st.just("urgent"), st.integers(0, 2), st.sampled_from([0, 0, 0, 1, -1, 100]), lengths,
    st.sampled_from([0, 1, 2, 50, 100, 101, 1000, 1001, 1448, 1449, 5000, 65535]),
)  # fmt: skip
strangers = st.tuples(
    st.just("stranger"), st.integers(0, 2),
    st.sampled_from([RST, RST | ACK, SYN, SYN | ACK, ACK, ACK | PSH, ACK | FIN, FIN, 0]),
    st.sampled_from([1 << 20, -1 << 20, 1 << 30, -1 << 30]), near, lengths,
)  # fmt: skip
odd = st.one_of(overlaps, urgents, strangers)
handshakes = st.tuples(st.just("open"), st.integers(0, 2), st.sampled_from(["plain", "ts", "all"]))
honest = st.one_of(
    st.tuples(st.just("data"), st.integers(0, 2), st.integers(1, 12), st.integers(-1, 4)),
    st.tuples(st.just("ack"), st.integers(0, 2), st.sampled_from([0, 1, 100, 4000, 65535])),
    st.tuples(st.just("dupacks"), st.integers(0, 2), st.integers(1, 5)),
    st.tuples(st.just("fin"), st.integers(0, 2)),
    st.tuples(st.just("sacks"), st.integers(0, 2), st.integers(-1, 4), sack_edges),
    st.tuples(st.just("sacks"), st.integers(0, 2), st.integers(-1, 4), sack_edges),
)
scripts = st.lists(
    st.one_of(
        segments, segments, segments, calls, calls, times, others, handshakes, honest, honest,
        odd,
    ),
    min_size=12, max_size=60,
)  # fmt: skip
prologues = st.sampled_from(
    [[], [("open", 0, "plain"), ("accept",)], [("open", 0, "ts"), ("accept",)],
     [("open", 0, "all"), ("accept",)],
     [("open", 0, "all"), ("accept",), ("call", 0, "send 60000")],
     [("open", 2, "all"), ("call", 0, "send 5000")], [("connect",)]]
)  # fmt: skip
distances = st.sampled_from([1, 2, 100, 2000, 20_000])
Script = list[tuple[Any, ...]]


def play(prologue: Script, script: Script, distance: int, fastpath: bool, rare: bool) -> None:
    tcp = replace(SMALL, **RARE) if rare else SMALL
    config = UstackConfig(tcp_fastpath=fastpath, tcp_live_socks=0 if rare else 1024)
    server = host(TEST_CONFIG, tcp=tcp, ustack=config)
    free_blocks = server.stack.net.mem.buddyinfo()
    bench = Bench(server, distance)
    assert leftovers(bench.stack, listening=True) == {}
    for step in prologue + script:
        bench.run(step)
    finish(bench, free_blocks)


OPENED: Script = [("open", 0, "plain"), ("accept",)]


@pytest.mark.timeout(900)
@settings(max_examples=EXAMPLES, derandomize=True)
@given(prologues, scripts, distances, st.booleans(), st.booleans())
@example(
    OPENED,
    [("segment", 0, ACK, 4344, ("una", 0), 1, 0, "none"), ("data", 0, 4, 1)],
    1,
    False,
    False,
)
@example(OPENED, [("urgent", 0, 0, 2, 0), ("call", 0, "recv 1")], 1, True, False)
@example(
    [("connect",)],
    [
        ("segment", 2, SYN | FIN, 0, ("una", 0), 0, 0, "none"),
        ("call", 0, "shutdown 1"),
        ("segment", 0, ACK, 0, ("una", 0), 0, 0, "none"),
        ("ack", 2, 1),
    ],
    1,
    False,
    False,
)
@example(
    [],
    [
        ("open", 0, "plain"),
        ("data", 0, 2, -1),
        ("starve", 0),
        ("data", 0, 2, -1),
        ("urgent", 0, 0, 0, 0),
        ("urgent", 0, 0, 1448, 0),
    ],
    1,
    False,
    False,
)
def test_any_peer_and_any_application(
    prologue: Script, script: Script, distance: int, fastpath: bool, rare: bool
) -> None:
    play(prologue, script, distance, fastpath, rare)


@pytest.mark.long
@pytest.mark.timeout(int(BUDGET.seconds) + 900)
def test_any_peer_from_other_seeds_for_as_long_as_there_is_time() -> None:
    """Seeds one after the other; a failure names its own."""
    end = time.monotonic() + BUDGET.seconds
    number = BUDGET.seed
    while number == BUDGET.seed or time.monotonic() < end:
        rounds = settings(
            max_examples=EXAMPLES_PER_SEED, deadline=None, database=None, derandomize=False,
            print_blob=True, suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        )  # fmt: skip
        print(f"again: USTACK_FUZZ_SEED={number} pytest {__file__}")
        seed(number)(
            rounds(given(prologues, scripts, distances, st.booleans(), st.booleans())(_fresh()))
        )()
        number += 1


def _fresh() -> Any:
    """Return a function of its own for each seed: Hypothesis keeps what it knows with it."""

    def check(prologue: Script, script: Script, distance: int, fastpath: bool, rare: bool) -> None:
        play(prologue, script, distance, fastpath, rare)

    return check
