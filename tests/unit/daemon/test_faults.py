"""Bugs at run time are told once and never stop the daemon."""

from __future__ import annotations

import pytest

from unit.daemon.fakes import FakeLoop
from ustack.daemon.faults import FaultLog


def fault(text: str) -> Exception:
    """Raise and catch at one place."""
    try:
        raise KeyError(text)
    except KeyError as error:
        return error


def test_a_fault_is_printed_once_and_counted_always(capsys: pytest.CaptureFixture[str]):
    resumed: list[None] = []
    log = FaultLog(lambda: resumed.append(None))
    for number in range(3):
        log(FakeLoop(), {"message": "in a callback", "exception": fault(str(number))})  # type: ignore[arg-type]
    log(FakeLoop(), {"message": "something else"})  # type: ignore[arg-type]
    err = capsys.readouterr().err
    assert err.count("Traceback") == 1
    assert err.count("in a callback") == err.count("something else") == 1
    assert sorted(log.seen.values()) == [1, 3]
    assert len(resumed) == 4
