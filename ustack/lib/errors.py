"""Errors of ours: a broken invariant, never the peer's or the application's fault."""

from __future__ import annotations


class StateError(RuntimeError):
    """A state machine or a table was asked for something it does not have: a bug."""
