"""A counter or a drop reason stands in its table only if some code raises it."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

import ustack
from ustack.lib.counters import IpExtMib, TcpExtMib
from ustack.lib.drop_reason import DropReason

ROOT = Path(str(ustack.__file__)).parent
TABLES = {ROOT / "lib" / "counters.py", ROOT / "lib" / "drop_reason.py"}
TESTS = Path(__file__).parent.parent
CASES = "\n".join(path.read_text() for path in TESTS.rglob("test_every_*.py"))
CODE = "\n".join(path.read_text() for path in ROOT.rglob("*.py") if path not in TABLES)


@pytest.mark.parametrize("table", [TcpExtMib, IpExtMib])
def test_every_extended_counter_is_raised(table):
    """The Ip, Icmp, Tcp and Udp rows are Linux's whole rows; these two are only what we have."""
    idle = [f.name for f in fields(table) if not re.search(rf"\.{f.name} [+-]=", CODE)]
    assert not idle


def test_every_drop_reason_is_given():
    idle = [reason.name for reason in DropReason if f"DropReason.{reason.name}" not in CODE]
    assert not idle


def test_every_drop_reason_has_a_case_in_some_table():
    """Each layer's table holds its own; this is that none falls between them."""
    missing = [r.name for r in DropReason if not re.search(rf'^    "{r.name}": ', CASES, re.M)]
    assert not missing
