"""How long a run fuzzes, and from which seed.

Half a minute in every run, ten minutes with the long profile; ``USTACK_FUZZ_S`` says
otherwise. The short run has one seed, so that it tells of the change and not of its luck; each
long run draws its own, which the summary names and ``USTACK_FUZZ_SEED`` plays again.
Frames against a stack (Hypothesis) and the C harness have half of the time each. The long run
gives the same time again to TCP's invariants, so an hour of those is
``USTACK_FUZZ_S=3600 HYPOTHESIS_PROFILE=long pytest -m long tests/fuzz``.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass

_SHORT_S, _LONG_S = 30.0, 600.0
_SHORT_SEED = 1
_DRAWN = secrets.randbelow(1 << 32)


@dataclass(frozen=True)
class Budget:
    """The time for all fuzzing of a run, and its first seed."""

    seconds: float
    seed: int


def is_long_run() -> bool:
    """Whether this is ``tools/test --long``."""
    return os.environ.get("HYPOTHESIS_PROFILE") == "long"


def fuzz_budget() -> Budget:
    """Return this run's budget, the same wherever it is asked for."""
    is_long = is_long_run()
    seconds = float(os.environ.get("USTACK_FUZZ_S") or (_LONG_S if is_long else _SHORT_S))
    seed = int(os.environ.get("USTACK_FUZZ_SEED") or (_DRAWN if is_long else _SHORT_SEED))
    return Budget(seconds, seed)
