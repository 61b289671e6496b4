"""The lock of a runtime whose process ends."""

from __future__ import annotations

from threading import Lock, get_ident


class ExitLock:
    """The thread that makes it has it for good; who else would take it never returns."""

    def __init__(self) -> None:
        self._owner = get_ident()
        self._never = Lock()
        self._never.acquire()

    def acquire(self, blocking: bool = True) -> bool:
        """Return True to the owner; False to others, if they cannot wait."""
        if get_ident() == self._owner:
            return True
        return self._never.acquire(blocking)

    def release(self) -> None:
        """Do nothing."""

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *exc: object) -> None:
        """Do nothing."""
