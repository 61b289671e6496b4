"""Our own mistakes at run time: logged once each, and the daemon goes on.

An exception that reaches the event loop is a bug, never the peer's doing. The first of each
kind is printed with its traceback, the others are only counted, so that nobody can fill a
log. The stack's runtime is then set going again, because the bug may have cut its run short.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any


class FaultLog:
    """An event loop's exception handler (``loop.set_exception_handler``)."""

    def __init__(self, resume: Callable[[], None]) -> None:
        """``resume`` is called after each fault."""
        self._resume = resume
        self.seen: Counter[tuple[str, str]] = Counter()
        """Faults by type and place."""

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Take note of one fault."""
        error = context.get("exception")
        fault = describe(error) if error is not None else ("", str(context.get("message")))
        self.seen[fault] += 1
        if self.seen[fault] == 1:
            print(f"ustackd: internal error: {context.get('message')}", file=sys.stderr)
            if error is not None:
                traceback.print_exception(error, file=sys.stderr)
            sys.stderr.flush()
        self._resume()


def describe(error: BaseException) -> tuple[str, str]:
    """Return an exception's type and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return type(error).__name__, place
