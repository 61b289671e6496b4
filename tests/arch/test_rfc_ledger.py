"""The ledger of RFC 9293: every clause has its line, and every line names what exists."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from kit.differential.matrix import scripts as matrix
from kit.differential.script import read_file

ROOT = Path(__file__).parents[2]
LEDGER = Path(__file__).with_name("rfc9293.ledger")
CLAUSES = {
    *(f"MUST-{n}" for n in range(1, 70)),
    *(f"SHLD-{n}" for n in range(1, 32)),
    *(f"MAY-{n}" for n in range(1, 19)),
    "REC-1",
}
"""Appendix B's table, by number."""


@dataclass(frozen=True)
class Line:
    """One clause."""

    clause: str
    section: str
    asks: str
    by: tuple[str, ...]
    held: str

    @property
    def excuse(self) -> str:
        """Why nothing does it, "" if something does."""
        return self.held.removeprefix("no:").strip() if self.held.startswith("no:") else ""


def _lines() -> list[Line]:
    out = []
    for text in LEDGER.read_text().splitlines():
        if not text or text.startswith("#"):
            continue
        clause, section, asks, by, held = (part.strip() for part in text.split(" | "))
        out.append(Line(clause, section, asks, tuple(by.replace("-", "").split()), held))
    return out


def _names(folder: str, suffix: str, pattern: str) -> set[str]:
    found: set[str] = set()
    for path in (ROOT / folder).rglob(f"*{suffix}"):
        found.update(re.findall(pattern, path.read_text(), flags=re.MULTILINE))
    return found


LINES = _lines()
FUNCTIONS = _names("ustack", ".py", r"^\s*def (\w+)") | _names(
    "ustack_c", ".c", r"^\w.*?\b(us_\w+)\("
)
TESTS = _names("tests", ".py", r"^def (test_\w+)")
FILES = (ROOT / "tests/linux/differential").glob("*.script")
SCRIPTS = {script.name for scripts in (*map(read_file, FILES), matrix()) for script in scripts}


def test_every_clause_of_the_rfc_has_one_line() -> None:
    assert sorted(line.clause for line in LINES) == sorted(CLAUSES)


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.clause)
def test_a_clause_names_what_does_it_and_what_holds_it_or_why_not(line: Line) -> None:
    assert re.fullmatch(r"3(\.\d+)+", line.section)
    assert set(line.by) <= FUNCTIONS, "no such function"
    if line.excuse:
        assert len(line.excuse) > 20, "a reason is a sentence"
    else:
        assert line.by, "nothing does it, and there is no reason"
        assert line.held in TESTS | SCRIPTS, f"no such test: {line.held}"
