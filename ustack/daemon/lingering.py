"""Clients that wait in close() for SO_LINGER.

A client cannot know whether it closes the last reference. So it gets a line beforehand,
closes, and says so on the line: by then the kernel has told us if that was the last one.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable


class Lingerers:
    """Who waits for one socket's close(): their lines, hung up on when it may return.

    Args:
        is_closing: says whether nobody holds the socket any more, and it is not done.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, is_closing: Callable[[], bool]) -> None:
        self._loop = loop
        self._is_closing = is_closing
        self._lines: set[socket.socket] = set()

    def __bool__(self) -> bool:
        return bool(self._lines)

    def line(self) -> int:
        """Return a client's end of a line to wait with, a descriptor that is the caller's.

        Raises:
            OSError: no descriptors are left.
        """
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._lines.add(ours)
        self._loop.add_reader(ours.fileno(), self._told, ours)
        return theirs.detach()

    def _told(self, line: socket.socket) -> None:
        """The client has closed the socket, or has gone."""
        with contextlib.suppress(OSError):
            if line.recv(1) and self._is_closing():
                return
        self._hang_up(line)

    def _hang_up(self, line: socket.socket) -> None:
        self._lines.discard(line)
        self._loop.remove_reader(line.fileno())
        line.close()

    def let_go(self) -> None:
        """Let all return from close()."""
        for line in tuple(self._lines):
            self._hang_up(line)
