"""Ctrl-C must not tear the core in two.

KeyboardInterrupt is raised between any two bytecodes of the main thread, also in the middle
of the softirq. While a runtime is up, a SIGINT handler in the place of Python's own looks where
the main thread is: within the core it only marks the runtimes, which raise as soon as the core
is left; everywhere else, a blocked call above all, it raises at once. A program's own handler
is left alone, and ours passes for ``signal.default_int_handler``, by which asyncio and others
see whether the program has one.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, Protocol
from weakref import WeakSet


class Interruptible(Protocol):
    """What the guard marks."""

    interrupted: bool


PYTHONS_HANDLER = signal.default_int_handler
PROTECTED: set[CodeType] = set()
"""Functions that run the core; filled by the decorators when modules are loaded."""
EXPOSED: set[CodeType] = set()
"""Functions called by those that only sleep."""


def protected(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a function that must not be interrupted in the middle."""
    PROTECTED.add(fn.__code__)
    return fn


def exposed(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a function that may be interrupted although a protected one calls it."""
    EXPOSED.add(fn.__code__)
    return fn


def within_core(frame: FrameType | None) -> bool:
    """Whether the innermost marked function that ``frame`` stands in is a protected one."""
    while frame is not None:
        code = frame.f_code
        if code in EXPOSED:
            return False
        if code in PROTECTED:
            return True
        frame = frame.f_back
    return False


class InterruptGuard:
    """The SIGINT handler while runtimes are up."""

    def __init__(self) -> None:
        self.runtimes: WeakSet[Interruptible] = WeakSet()

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        if not within_core(frame):
            raise KeyboardInterrupt
        for runtime in self.runtimes:
            runtime.interrupted = True


def guard(runtime: Interruptible) -> None:
    """Have ``runtime`` marked; only possible, and only needed, from the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return
    handler = signal.getsignal(signal.SIGINT)
    if handler is PYTHONS_HANDLER:
        handler = InterruptGuard()
        signal.signal(signal.SIGINT, handler)
        signal.default_int_handler = handler  # type: ignore[assignment]
    if isinstance(handler, InterruptGuard):
        handler.runtimes.add(runtime)


def unguard(runtime: Interruptible) -> None:
    """Forget ``runtime``; the last one gives Python's handler back."""
    handler = signal.getsignal(signal.SIGINT)
    if not isinstance(handler, InterruptGuard):
        return
    handler.runtimes.discard(runtime)
    if not handler.runtimes and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, PYTHONS_HANDLER)
        signal.default_int_handler = PYTHONS_HANDLER
