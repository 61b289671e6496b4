"""The memory part of the bench: bytes of one connection in each state, Linux's beside them.

ustack: a process of its own for each row opens connections over a wire in memory, and what it
has more in RAM afterwards (Python, tables and allocators included) is divided by their number.
Linux: both ends of connections in a namespace, and the slabs that have grown.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

from rich.table import Table

from kit.lab import Namespace

STATES = ("ESTABLISHED", "ESTABLISHED, sockets kept", "ESTABLISHED, after an echo", "CLOSE_WAIT",
          "FIN_WAIT2, orphan", "TIME_WAIT")  # fmt: skip
WARM = 10_000
LINUX_PAIRS = 9000

LINUX = """
import gc, json, socket, sys
n = int(sys.argv[1])
names = (
    "TCP", "sock_inode_cache", "dentry", "filp", "tw_sock_TCP", "tcp_bind_bucket",
    "tcp_bind2_bucket", "request_sock_TCP",
)
def slabs():
    out = {}
    for line in open("/proc/slabinfo"):
        field = line.split()
        if field[0] in names:
            out[field[0]] = int(field[1]), int(field[3])
    return out
lsk = socket.create_server(("127.0.0.1", 0), backlog=4096)
def opened(count):
    pairs = []
    for _ in range(count):
        near = socket.create_connection(lsk.getsockname())
        pairs.append((near, lsk.accept()[0]))
    return pairs
warm = opened(200)
before = slabs()
pairs = opened(n)
established = slabs()
for near, far in pairs:
    near.close()
half = slabs()
for near, far in pairs:
    far.close()
over = slabs()
grown = lambda a, b: {k: [b[k][0] - a.get(k, (0, 0))[0], b[k][1]] for k in b}
found = {"established": established, "half": half, "over": over}
print(json.dumps({when: grown(before, slabs) for when, slabs in found.items()}))
"""
"""The near end closes first: FIN_WAIT2, then TIME_WAIT; the far end stands in CLOSE_WAIT."""


def run(chosen: argparse.Namespace) -> dict[str, Any]:
    """Measure every state."""
    count = 5000 if chosen.quick else 50_000
    states = STATES[:1] if chosen.quick else STATES
    rows = {state: measured(state, count) for state in states}
    return {"connections": count, "ustack": rows, "linux": linux(1000 if chosen.quick else 0)}


def measured(state: str, count: int) -> dict[str, Any]:
    """Measure one state in a process of its own."""
    command = [sys.executable, __file__, state, str(count)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def linux(pairs: int = 0) -> dict[str, float]:
    """Return Linux's bytes of slab objects by state, of one end."""
    pairs = pairs or LINUX_PAIRS
    with Namespace("memory") as ns:
        run = ns.run(sys.executable, "-c", LINUX, str(pairs))
    if run.returncode:
        return {}  # /proc/slabinfo is root's alone
    grown = json.loads(run.stdout)
    size = {
        when: {name: objects * each / pairs for name, (objects, each) in slabs.items()}
        for when, slabs in grown.items()
    }
    both = sum(size["established"].values())
    return {
        "ESTABLISHED": both / 2,
        "FIN_WAIT2, orphan": size["half"].get("tw_sock_TCP", 0),
        "CLOSE_WAIT": both / 2,
        "TIME_WAIT": size["over"].get("tw_sock_TCP", 0),
    }


def table(answer: dict[str, Any]) -> Table:
    """Lay the rows out."""
    title = f"memory: bytes of one connection, of {answer['connections']} (slab: the objects alone)"
    out = Table("state", title=title, title_justify="left")
    for heading in ("ustack", "slab", "Linux", "of Linux's"):
        out.add_column(heading, justify="right")
    for state, found in answer["ustack"].items():
        theirs = answer["linux"].get(state.partition(", s")[0].partition(", a")[0])
        out.add_row(
            state,
            f"{found['bytes']:.0f}",
            f"{found['slab']:.0f}",
            f"{theirs:.0f}" if theirs else "",
            f"{found['bytes'] / theirs:.2f}" if theirs else "",
        )
    return out


def measure(state: str, count: int) -> dict[str, float]:
    """Open ``count`` connections, bring them into ``state``, return what one takes."""
    import gc

    from kit.crowd import ACK, FIN, PSH, Crowd, rss_bytes

    crowd = Crowd(arena_bytes=4 << 30)
    kept: list[Any] = []
    keep = kept.append if state == STATES[1] else None

    def reach(first: int, last: int) -> None:
        peers = range(first, last)
        for start in range(first, last, 1000):
            some = peers[start - first : start - first + 1000]
            accepted: list[Any] = []
            crowd.open(some)
            crowd.accept_all(keep or accepted.append)
            if state == STATES[2]:
                crowd.tell(some, PSH | ACK, b"x" * 64)
                for sock in accepted:
                    sock.send(sock.recv(100))
                crowd.tell(some, ACK)
            elif state == STATES[3]:
                crowd.tell(some, FIN | ACK)
            elif state in STATES[4:]:
                for sock in accepted:
                    sock.close()
                crowd.poll()
                crowd.tell(some, ACK if state == STATES[4] else FIN | ACK)
        crowd.wait(3_000_000)
        gc.collect()

    def used() -> int:
        caches = crowd.stack.memory_info().values()
        return sum(cache.active_objs * cache.objsize for cache in caches)

    reach(0, WARM)
    rss, slab = rss_bytes(), used()
    reach(WARM, WARM + count)
    return {"bytes": (rss_bytes() - rss) / count, "slab": (used() - slab) / count}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
