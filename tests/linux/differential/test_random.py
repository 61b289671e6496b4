"""Random scripts: ustack and the running kernel do the same, or hypothesis shows the shortest.

An example is a batch of scripts that are played at the same time. A difference counts only if
it shows at every pace: a timer of the kernel that expires at the moment of a step may come
before it on one side and after it on the other, but not at all paces. The short run has fixed
examples, the long one draws its own and many more.
"""

from __future__ import annotations

import os

import hypothesis
import pytest
from hypothesis import strategies as st

from kit.differential.compare import difference
from kit.differential.players import KernelPlayers
from kit.differential.script import SLOT_MS, parse
from kit.differential.stack import play_on_stack
from kit.differential.strategies import script_texts

BATCH = 25
EXAMPLES = 120 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 8
PACES_MS = (SLOT_MS, 97, 49, SLOT_MS)


def first_difference(players: KernelPlayers, texts: list[str]) -> str:
    """Return the text and the difference of the first script that differs at every pace."""
    left = dict(enumerate(texts))
    shown = ""
    for pace_ms in PACES_MS:
        scripts = [parse(str(i), text, pace_ms) for i, text in left.items()]
        logs = players.play(scripts) if scripts else {}
        found = {s.name: difference(logs[s.name], play_on_stack(s), s.end_ms) for s in scripts}
        left = {i: text for i, text in left.items() if found[str(i)]}
        shown = next((f"{text}\n\n{found[str(i)]}" for i, text in left.items()), "")
    return shown


@pytest.mark.tap
@pytest.mark.long
@pytest.mark.timeout(7200)
@hypothesis.settings(max_examples=EXAMPLES, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(texts=st.lists(script_texts(), min_size=1, max_size=BATCH))
def test_ustack_does_what_the_kernel_does(players: KernelPlayers, texts: list[str]) -> None:
    shown = first_difference(players, texts)
    assert not shown, f"K kernel, U ustack\n{shown}"
