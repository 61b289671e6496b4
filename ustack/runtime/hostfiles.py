"""The kernel's own descriptors among the stack's files: what an epoll over both watches.

A ``HostFile`` stands for one ordinary descriptor. It hangs in an epoll of the kernel's, edge
triggered, that lies among the stack's wires: so whoever waits for a packet wakes for a pipe as
well, without another thread, and the stack's eventpoll treats both alike. Whether it is ready
is asked of the kernel (poll(2)) each time the eventpoll wants to know.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from typing import Any

from ustack.sock.wait import WaitQueue

EVERYTHING = select.EPOLLIN | select.EPOLLPRI | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
ASKED = (
    select.POLLIN | select.POLLPRI | select.POLLOUT | select.POLLRDHUP | select.POLLRDNORM
    | select.POLLWRNORM | select.POLLRDBAND | select.POLLWRBAND
)  # fmt: skip
EVENTS_A_TIME = 64


class HostFile:
    """One ordinary descriptor; as a socket it can be watched."""

    __slots__ = ("_poll", "fd", "on_release", "watchers", "wq")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.wq = WaitQueue()
        self.on_release: list[Callable[[Any], None]] = []
        self.watchers = 0
        self._poll = select.poll()
        self._poll.register(fd, ASKED)

    def poll(self) -> int:
        """Return the events that are true of it now; none of one that is closed."""
        ready = self._poll.poll(0)
        return ready[0][1] & ~select.POLLNVAL if ready else 0


class HostFiles:
    """The ordinary descriptors that one runtime's eventpolls watch."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._files: dict[int, HostFile] = {}

    def fileno(self) -> int:
        """Return the descriptor that is readable when something has happened to one."""
        return self._epoll.fileno()

    def watch(self, fd: int, *, always_ready: bool = False) -> HostFile:
        """Return the file of a descriptor and count one more who watches it.

        Args:
            always_ready: take what cannot be waited for, an ordinary file, as ready.

        Raises:
            OSError: EBADF; EPERM, it cannot be waited for.
        """
        file = self._files.get(fd)
        try:
            self._epoll.register(fd, EVERYTHING)
            if file is not None:  # another file has the number now
                self._forget(file)
            file = None
        except FileExistsError:
            pass
        except PermissionError:
            if not always_ready:
                raise
        if file is None:
            file = self._files[fd] = HostFile(fd)
        file.watchers += 1
        return file

    def find(self, fd: int) -> HostFile | None:
        """Return the file of a descriptor that is watched."""
        return self._files.get(fd)

    def unwatch(self, file: HostFile) -> None:
        """One of those who watch ``file`` does so no longer."""
        file.watchers -= 1
        if not file.watchers and self._files.get(file.fd) is file:
            del self._files[file.fd]
            try:
                self._epoll.unregister(file.fd)
            except OSError:
                return  # closed, or never there

    def wake(self) -> None:
        """Wake who watches what has become ready; under the runtime's lock."""
        for fd, events in self._epoll.poll(0, EVENTS_A_TIME):
            file = self._files.get(fd)
            if file is not None:
                file.wq.wake_up(events)

    def close(self) -> None:
        """Watch nothing any more."""
        self._epoll.close()

    def _forget(self, file: HostFile) -> None:
        for release in tuple(file.on_release):
            release(file)


def is_open(fd: int) -> bool:
    """Whether ``fd`` is a descriptor of the kernel's."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
