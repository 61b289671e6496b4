"""The churn part of the bench: connections that come and go through every state.

In virtual time over a wire in memory, nine ways to end and half-open ones between them
(``kit.churn``). Sampled a hundred times: what they leave behind, memory in RAM, Python objects.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from kit.churn import churn
from kit.crowd import Crowd

SAMPLES = 100


def run(chosen: argparse.Namespace) -> dict[str, Any]:
    """Let them come and go, say on the way how it stands, and return the figures by name."""
    crowd = Crowd(arena_bytes=64 << 20)
    began, spent = time.monotonic(), time.process_time()
    samples = []
    for sample in churn(crowd, chosen.comings, SAMPLES):
        samples.append(sample)
        seconds = time.monotonic() - began
        print(
            f"{sample.connections:,} of {chosen.comings:,} in {seconds:.0f} s,"
            f" {sample.rss_bytes >> 10:,} KiB, {sample.python_objects:,} Python objects",
            file=sys.stderr,
            flush=True,
        )
    spent = time.process_time() - spent
    early, late = samples[min(len(samples) - 1, len(samples) // 8)], samples[-1]
    return {
        "connections": late.connections,
        "seconds": time.monotonic() - began,
        "us a connection": 1e6 * spent / late.connections,
        "slabs, tables, ports, pages as before": all(s.left == early.left for s in samples),
        "bytes in RAM, from an eighth of the way on": late.rss_bytes - early.rss_bytes,
        "Python objects, from there on": late.python_objects - early.python_objects,
    }
