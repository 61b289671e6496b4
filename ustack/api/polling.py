"""The standard library's ``select.epoll``, on the stack's own eventpoll.

The eventpoll keeps the ready list; this class turns descriptors into files and sleeps, through
the runtime, until the list has something. It serves sockets (and epolls) of one stack.
"""

from __future__ import annotations

import errno
import os
import select
from typing import Any

from ustack.api.files import FILES, EpollFile, File
from ustack.api.stacks import daemon_link, default_runtime
from ustack.eventpoll.eventpoll import EventPoll
from ustack.runtime.threaded import ThreadedRuntime
from ustack.runtime.waiter import NOT_YET
from ustack.sock.wait import EPOLLIN, EPOLLOUT, EPOLLPRI

FD_SETSIZE = 1024
"""select.epoll's default number of events is one less."""
ALL_EVENTS = EPOLLIN | EPOLLPRI | EPOLLOUT


class epoll:
    """An epoll object of this process's stack.

    Raises:
        ValueError: ``sizehint`` is neither -1 nor positive.
    """

    __slots__ = ("__weakref__", "_fd", "_file", "_runtime")

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Make the kernel's epoll instead if sockets are a daemon's: real descriptors."""
        if cls is epoll and daemon_link() is not None:
            return select.epoll(*args, **kwargs)
        return super().__new__(cls)

    def __init__(self, sizehint: int = -1, flags: int = 0) -> None:
        self._file: EpollFile | None = None
        self._fd = -1
        if sizehint != -1 and sizehint <= 0:
            raise ValueError("sizehint must be positive or -1")
        self._runtime: ThreadedRuntime = default_runtime()
        self._file = EpollFile(self._runtime)
        self._fd = FILES.install(self._file)

    def __enter__(self) -> epoll:
        self._open_file()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        file = getattr(self, "_file", None)
        if file is not None:
            fd = self._fd
            self._runtime.defer(lambda: FILES.remove(fd).release())

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._file is None

    def fileno(self) -> int:
        """Return the stack's number for the epoll, which another epoll may watch."""
        self._open_file()
        return self._fd

    def register(self, fd: Any, eventmask: int = ALL_EVENTS) -> None:
        """Watch a socket (or its number) for ``eventmask``.

        Raises:
            FileExistsError: it is watched already.
            OSError: EBADF: no descriptor of the stack's; EINVAL: of another stack, or events
                that do not go together.
        """
        eventpoll, number, file = self._locate(fd)
        self._runtime.call(eventpoll.add, number, file.target, eventmask & 0xFFFFFFFF)

    def modify(self, fd: Any, eventmask: int) -> None:
        """Watch for other events; re-arm a one-shot registration.

        Raises:
            FileNotFoundError: it is not watched.
        """
        eventpoll, number, file = self._locate(fd)
        self._runtime.call(eventpoll.modify, number, file.target, eventmask & 0xFFFFFFFF)

    def unregister(self, fd: Any) -> None:
        """Watch no longer.

        Raises:
            FileNotFoundError: it is not watched.
        """
        eventpoll, number, file = self._locate(fd)
        self._runtime.call(eventpoll.remove, number, file.target)

    def poll(self, timeout: float | None = None, maxevents: int = -1) -> list[tuple[int, int]]:
        """Wait for events; return a list of (descriptor, events), empty when the time is over.

        Args:
            timeout: seconds; None or negative: for ever.
            maxevents: how many at most; -1: 1023.
        """
        file = self._open_file()
        if maxevents == -1:
            maxevents = FD_SETSIZE - 1
        elif maxevents <= 0:
            raise ValueError(f"maxevents must be greater than 0, got {maxevents}")
        timeout_us = None if timeout is None or timeout < 0 else -int(-timeout * 1e6 // 1)
        events = self._runtime.wait_for(
            file, timeout_us, True, _try_collect, file.eventpoll, maxevents
        )
        return [] if events is NOT_YET else events

    def close(self) -> None:
        """Close the epoll; what it watches stays open."""
        if self._file is not None:
            self._file, fd, self._fd = None, self._fd, -1
            FILES.close(fd)

    def _open_file(self) -> EpollFile:
        if self._file is None:
            raise ValueError("I/O operation on closed epoll object")
        return self._file

    def _locate(self, fd: Any) -> tuple[EventPoll, int, File]:
        eventpoll = self._open_file().eventpoll
        number = _number(fd)
        file = FILES.lookup(number)
        if file.runtime is not self._runtime:
            raise OSError(errno.EINVAL, "an epoll watches sockets of its own stack only")
        return eventpoll, number, file


def _number(fd: Any) -> int:
    """Return the descriptor of an int or of an object with fileno()."""
    if not isinstance(fd, int):
        if not hasattr(fd, "fileno"):
            raise TypeError("argument must be an int, or have a fileno() method.")
        fd = fd.fileno()
        if not isinstance(fd, int):
            raise TypeError("fileno() returned a non-integer")
    if fd < 0:
        raise ValueError(f"file descriptor cannot be a negative integer ({fd})")
    return fd


def _try_collect(eventpoll: EventPoll, maxevents: int) -> Any:
    if eventpoll.closed:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return eventpoll.collect(maxevents) or NOT_YET
