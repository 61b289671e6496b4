"""Every script must make ustack do what the running kernel does, but for what is listed.

All scripts of a run are played at the same time, so the kernel's side takes seconds. What is
compared and how exactly: kit.differential.compare. A machine that is busy can delay the real
side, so a script that differs is played again, in small company, before it counts as
different; one that the player noticed to be late was played again before. ``known.txt`` lists
the differences that are meant, with the reason; a listed script that no longer differs fails.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kit.differential.compare import difference
from kit.differential.matrix import scripts
from kit.differential.players import STARTS_PER_S, KernelPlayers
from kit.differential.script import read_file
from kit.differential.stack import play_on_stack

HERE = Path(__file__).parent
SCRIPTS = {
    s.name: s
    for s in [*scripts(), *(s for f in sorted(HERE.glob("*.script")) for s in read_file(f))]
}
KNOWN = {
    line.strip(): reason.strip()
    for reason, names in re.findall(
        r"^((?:#.*\n)+)((?:(?!#).*\n?)*)", (HERE / "known.txt").read_text(), flags=re.MULTILINE
    )
    for line in names.splitlines()
    if line.strip()
}
TRIES = 4
MOST_UNPLAYABLE = 20

Verdicts = dict[str, str]


@pytest.fixture(scope="module")
def verdicts(players: KernelPlayers, request: pytest.FixtureRequest) -> Verdicts:
    """How each selected script differs, "" where it does not."""
    items = (item for item in request.session.items if isinstance(item, pytest.Function))
    wanted = [item.callspec.params["name"] for item in items
              if item.module is request.module and hasattr(item, "callspec")]  # fmt: skip
    chosen = [SCRIPTS[name] for name in wanted]
    with ThreadPoolExecutor(1) as beside:  # ustack's side computes while the kernel's waits
        computing = beside.submit(lambda: {s.name: play_on_stack(s) for s in chosen})
        logs, ours = players.play(chosen), computing.result()
    seen = {s.name: difference(logs[s.name], ours[s.name], s.end_ms) for s in chosen}
    for _ in range(TRIES):
        again = [s for s in chosen if bool(seen[s.name]) != (s.name in KNOWN)]
        logs = players.play(again, tries=1, starts_per_s=STARTS_PER_S / 10) if again else {}
        seen |= {s.name: difference(logs[s.name], ours[s.name], s.end_ms) for s in again}
    return seen | dict.fromkeys(unplayable(players, seen), "")


def unplayable(players: KernelPlayers, seen: Verdicts) -> set[str]:
    """Scripts that even the last time ran late, and so say nothing; only a few may."""
    names = {name for name in players.late if seen.get(name) and name not in KNOWN}
    return names if len(names) <= MOST_UNPLAYABLE else set()


@pytest.mark.tap
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SCRIPTS)
def test_ustack_does_what_the_kernel_does(name: str, verdicts: Verdicts) -> None:
    if name in KNOWN:
        assert verdicts[name], f"no longer differs, so take it out of known.txt: {KNOWN[name]}"
    else:
        assert not verdicts[name], f"K kernel, U ustack\n{verdicts[name]}"


def test_every_listed_difference_has_a_script_and_a_reason() -> None:
    assert set(KNOWN) <= set(SCRIPTS)
    assert all(len(reason) > 20 for reason in KNOWN.values())
