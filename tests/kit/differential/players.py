"""The kernel's side: a namespace and a playing program for each set of sysctls.

``play`` gives the events of every script. All scripts of one set run at the same time, their
starts spread so that the program is never busy for long; what the machine made late anyway,
and what the caller asks for again, runs in smaller company.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from kit.differential.script import Script
from kit.lab import Namespace

RMEM = "4096 131072 6291456"
SYSCTLS = {
    "net.ipv4.tcp_no_metrics_save": "1",
    "net.ipv4.tcp_rmem": RMEM,
    "net.ipv4.tcp_wmem": "4096 16384 4194304",
    "net.ipv4.ip_local_port_range": "61000 65000",
}
"""What differs between machines, and what would let scripts disturb each other."""
STARTS_PER_S = 60
TOO_LATE_MS = 15

Log = list[list[object]]
_TESTS = Path(__file__).parents[2]


class KernelPlayers:
    """Namespaces with a running player each; a context manager."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self.late: set[str] = set()
        """Names of the scripts whose last play ran late."""
        self._players: dict[tuple[tuple[str, str], ...], subprocess.Popen[Any]] = {}

    def __enter__(self) -> KernelPlayers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._stack.close()

    def play(
        self, scripts: Sequence[Script], *, tries: int = 3, starts_per_s: float = STARTS_PER_S
    ) -> dict[str, Log]:
        """Play all scripts; those that ran late again, with fewer beside them each time."""
        logs: dict[str, Log] = {}
        todo = list(scripts)
        for n in range(tries):
            late = self._batch(todo, logs, starts_per_s / 3**n)
            if not late:
                break
            todo = late
        return logs

    def _batch(
        self, scripts: Sequence[Script], logs: dict[str, Log], starts_per_s: float
    ) -> list[Script]:
        """Play once; return the scripts that ran late."""
        groups: dict[tuple[tuple[str, str], ...], list[Script]] = {}
        for script in scripts:
            groups.setdefault(script.sysctls, []).append(script)
        spread_s = len(scripts) / starts_per_s
        for key, group in groups.items():
            order = {"scripts": [(s.name, "\n".join(s.lines), s.slot_ms) for s in group]}
            pipe = self._player(key).stdin
            assert pipe is not None
            pipe.write(json.dumps({**order, "spread_s": spread_s}) + "\n")
            pipe.flush()
        late = []
        for key, group in groups.items():
            for script, result in zip(group, self._answer(key), strict=True):
                logs[script.name] = result["log"]
                self.late.discard(script.name)
                if result["late_ms"] > TOO_LATE_MS:
                    late.append(script)
                    self.late.add(script.name)
        return late

    def _answer(self, key: tuple[tuple[str, str], ...]) -> list[dict[str, Any]]:
        pipe = self._player(key).stdout
        assert pipe is not None
        line = pipe.readline()
        assert line, "the player in the namespace has ended"
        answer: list[dict[str, Any]] = json.loads(line)
        return answer

    def _player(self, key: tuple[tuple[str, str], ...]) -> subprocess.Popen[Any]:
        if key not in self._players:
            ns = self._stack.enter_context(Namespace("diff"))
            for name, value in SYSCTLS.items():
                ns.sysctl(name, f"'{value}'")
            for name, value in key:
                ns.sysctl(f"net.ipv4.{name}", f"'{value}'")
            self._players[key] = ns.start(
                sys.executable, "-m", "kit.differential.kernel",
                stdin=subprocess.PIPE, stderr=None, text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(_TESTS), *sys.path])},
            )  # fmt: skip
        return self._players[key]
