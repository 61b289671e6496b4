"""Sockets that are shut down both ways, and not closed: to the kernel a pair looks the same.

Each further change of such a pair wakes those who wait for edges. There is only one: the last
reference to the client's end goes.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ustack.daemon.client_end import ClientEnd


class ShutEnds:
    """Waits for their close; ``fileno`` is readable when one has come."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._ends: dict[int, ClientEnd] = {}
        self._closed: list[ClientEnd] = []

    def __len__(self) -> int:
        return len(self._ends)

    def fileno(self) -> int:
        """Return a descriptor to watch for reading."""
        return self._epoll.fileno()

    def close(self) -> None:
        """Wait no longer."""
        self._epoll.close()

    def add(self, end: ClientEnd) -> None:
        """Wait for the close of ``end``, whose pair is shut down; the client still holds it."""
        self._epoll.register(end.fd, select.EPOLLET)
        self._look()  # tells of the shutdown itself
        self._ends[end.fd] = end

    def remove(self, end: ClientEnd) -> None:
        """``end`` is no more."""
        if self._ends.pop(end.fd, None) is not None:
            self._epoll.unregister(end.fd)

    def take_closed(self) -> list[ClientEnd]:
        """Return those that have been closed; they are waited for no longer."""
        self._look()
        closed, self._closed = self._closed, []
        return closed

    def _look(self) -> None:
        for fd, _ in self._epoll.poll(0, max(len(self._ends) + 1, 1)):
            end = self._ends.pop(fd, None)
            if end is not None:
                self._epoll.unregister(fd)
                self._closed.append(end)
