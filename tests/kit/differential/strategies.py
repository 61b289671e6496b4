"""Random scripts: a connection, then segments and calls from a small grid of numbers.

The grid makes collisions likely: overlaps, repeats, holes, edges of the window, old and
impossible ACKs. What a step does depends on nothing before it, so scripts shrink well.
"""

from __future__ import annotations

from hypothesis import strategies as st

OPENINGS = ["passive", "passive sack", "passive ws", "active", "active sack"]
STAMPED = ["passive ts", "passive all", "active all"]
SEQS = [0, 1, 1, 1, 51, 101, 101, 151, 201, 301, 1001, 64241, 500_000]
LENGTHS = [0, 0, 1, 50, 100, 100, 200, 1000]
TOO_OLD, TOO_OLD_WINDOW = 4_290_000_000, 64_000
"""An ACK outside RFC 5961 §5's limits, and a window of its own that nobody predicts."""
ACKS = [1, 1, 1, 101, 201, 51, 2, 0, 5000, TOO_OLD]
FLAGS = [
    ".",
    ".",
    ".",
    "P.",
    "P.",
    "P.",
    "F.",
    "FP.",
    "R",
    "R.",
    "S",
    "S.",
    "F",
    "P",
    "U.",
    "PU.",
    "FU.",
    "SF",
    "SF.",
]
WINDOWS = [65535, 65535, 65535, 1000, 100, 0]
CALLS = [
    "send 100", "send 100", "send 1000", "send 3000", "recv 100", "recv 100000", "shutdown w",
    "shutdown r", "close", "set TCP_NODELAY 1", "set TCP_QUICKACK 1", "poll", "accept",
    "wait 45", "wait 130", "send 1 oob", "send 50 more", "recv 1 oob", "recv 50 peek",
    "set TCP_CORK 1", "set TCP_CORK 0", "set SO_OOBINLINE 1", "set SO_LINGER 1,0", "get SO_ERROR",
    "set TCP_QUICKACK 0", "shutdown rw", "set SO_RCVLOWAT 200", "listen", "get TCP_MAXSEG",
]  # fmt: skip


@st.composite
def segments(draw: st.DrawFn, *, stamped: bool) -> str:
    """Draw a line that sends a segment."""
    flags = draw(st.sampled_from(FLAGS))
    seq, size = draw(st.sampled_from(SEQS)), draw(st.sampled_from(LENGTHS))
    line = f"> {flags} {seq}:{seq + size}({size})"
    window = draw(st.sampled_from(WINDOWS))
    if "." in flags:
        ack = draw(st.sampled_from(ACKS))
        line += f" ack {ack}"
        window = TOO_OLD_WINDOW if ack in (0, TOO_OLD) else window
    line += f" win {window}"
    if "U" in flags:
        line += f" urg {draw(st.sampled_from([0, 1, 1, 50, 100, 300, 65535]))}"
    if stamped and draw(st.integers(0, 9)):
        line += f" <nop,nop,TS val {draw(st.sampled_from([101, 110, 120, 120, 50]))} ecr *>"
    return line + draw(st.sampled_from(["", "", "", " &"]))


@st.composite
def script_texts(draw: st.DrawFn) -> str:
    """Draw the text of a whole script."""
    opening = draw(st.sampled_from(OPENINGS + STAMPED))
    step = st.one_of(
        segments(stamped=opening in STAMPED),
        segments(stamped=opening in STAMPED),
        st.sampled_from(CALLS),
    )
    steps = draw(st.lists(step, min_size=1, max_size=9))
    return "\n".join([opening, *steps, "wait 200"])
