"""Fixtures that every test may ask for, and a clean end when the run is stopped."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from types import FrameType

import hypothesis
import pytest

from kit.budget import fuzz_budget

SLOW = [hypothesis.HealthCheck.too_slow]
"""How long an example takes says more about the machine than about the test."""
hypothesis.settings.register_profile(
    "ustack", deadline=None, derandomize=True, database=None, suppress_health_check=SLOW
)
hypothesis.settings.register_profile(
    "long", deadline=None, derandomize=False, database=None, suppress_health_check=SLOW,
    print_blob=True, max_examples=2000,
)  # fmt: skip
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ustack"))


def _stop(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(f"signal {signum}")


def pytest_configure(config: pytest.Config) -> None:
    """A SIGTERM ends the run as Ctrl-C does: fixtures take down what they made."""
    del config
    signal.signal(signal.SIGTERM, _stop)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Under CI nothing is skipped in silence: what a test needs has to be there."""
    outcome = yield
    report = outcome.get_result()
    if os.environ.get("CI") and report.skipped and not item.get_closest_marker("other_kernels"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which is a failure under CI: {report.longrepr}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the seed of what was fuzzed, if anything was."""
    reports = [r for rs in terminalreporter.stats.values() for r in rs if hasattr(r, "when")]
    timed = ("test_soak", "test_harness", "test_any_peer_from_other_seeds")
    if any(name in r.nodeid for r in reports for name in timed):
        budget = fuzz_budget()
        terminalreporter.write_line(
            f"fuzzed for {budget.seconds:g} s, USTACK_FUZZ_SEED={budget.seed} plays it again"
        )
