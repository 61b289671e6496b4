"""Named trace points: free when nobody listens.

A component owns a ``TracePoint`` and fires it as ``if tp.on: tp(args)``. Logging stays out
of the protocol code; tests and the daemon attach what they want to see.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class TracePoint:
    """One place in the code that observers can attach to."""

    __slots__ = ("_changed", "_probes", "name", "on")

    def __init__(self, name: str, changed: Callable[[], None] | None = None) -> None:
        """Make a trace point; ``changed()`` is told when ``on`` may have changed."""
        self.name = name
        self._changed = changed
        self.on = False
        self._probes: list[Callable[..., None]] = []

    def attach(self, probe: Callable[..., None]) -> None:
        """Call ``probe`` with the trace point's arguments from now on."""
        self._probes.append(probe)
        self._set(True)

    def detach(self, probe: Callable[..., None]) -> None:
        """Stop calling ``probe``.

        Raises:
            ValueError: it was not attached (the caller's bug).
        """
        self._probes.remove(probe)
        self._set(bool(self._probes))

    def _set(self, on: bool) -> None:
        self.on = on
        if self._changed is not None:
            self._changed()

    def __call__(self, *args: Any) -> None:
        for probe in tuple(self._probes):
            probe(*args)
