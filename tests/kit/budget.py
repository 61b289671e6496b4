"""How long a run fuzzes, and from which seed.

Half a minute in every run, ten minutes with the long profile; ``USTACK_FUZZ_S`` says
otherwise. Each run has a seed of its own, which its summary names; ``USTACK_FUZZ_SEED`` plays
one again. Hypothesis and the C harness have half of the time each.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass

_SHORT_S, _LONG_S = 30.0, 600.0
_DRAWN = secrets.randbelow(1 << 32)


@dataclass(frozen=True)
class Budget:
    """The time for all fuzzing of a run, and its first seed."""

    seconds: float
    seed: int


def fuzz_budget() -> Budget:
    """Return this run's budget, the same wherever it is asked for."""
    usual = _LONG_S if os.environ.get("HYPOTHESIS_PROFILE") == "long" else _SHORT_S
    seconds = float(os.environ.get("USTACK_FUZZ_S") or usual)
    return Budget(seconds, int(os.environ.get("USTACK_FUZZ_SEED") or _DRAWN))
