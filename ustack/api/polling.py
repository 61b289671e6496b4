"""The standard library's ``select.epoll``, on the stack's own eventpoll.

The eventpoll keeps the ready list; this class turns descriptors into files and sleeps, through
the runtime, until the list has something. It serves sockets (and epolls) of one stack together
with the kernel's own descriptors, which are told apart by their numbers.
"""

from __future__ import annotations

import errno
import os
import select
from contextlib import suppress
from typing import Any

from ustack.api.files import FILES, FIRST_FD, EpollFile, close_quietly
from ustack.api.stacks import daemon_link, default_runtime
from ustack.eventpoll.eventpoll import EventPoll, Pollable
from ustack.runtime.hostfiles import HostFile
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
            raise ValueError("negative sizehint")
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
            self._runtime.defer(lambda: close_quietly(fd, file))

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._file is None

    def fileno(self) -> int:
        """Return the stack's number for the epoll, which another epoll may watch."""
        self._open_file()
        return self._fd

    @classmethod
    def fromfd(cls, fd: int) -> Any:
        """Return an epoll object for a number that ``fileno`` gave; it is then the object's.

        Raises:
            OSError: EBADF, EINVAL: it is no epoll of the stack's.
        """
        if daemon_link() is not None:
            return select.epoll.fromfd(fd)
        file = FILES.lookup(fd)
        if not isinstance(file, EpollFile):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        made = cls.__new__(cls)
        made._runtime, made._file, made._fd = file.runtime, file, fd
        return made

    def register(self, fd: Any, eventmask: int = ALL_EVENTS) -> None:
        """Watch a socket, another descriptor, or what has a fileno(), for ``eventmask``.

        Raises:
            FileExistsError: it is watched already.
            OSError: EBADF: no descriptor; EINVAL: of another stack, or events that do not go
                together; EPERM: an ordinary file.
        """
        number, eventpoll = descriptor(fd), self._open_file().eventpoll
        self._runtime.call(_add, self._runtime, eventpoll, number, eventmask & 0xFFFFFFFF)

    def modify(self, fd: Any, eventmask: int) -> None:
        """Watch for other events; re-arm a one-shot registration.

        Raises:
            FileNotFoundError: it is not watched.
        """
        number, eventpoll = descriptor(fd), self._open_file().eventpoll
        target = _target(self._runtime, number)
        self._runtime.call(eventpoll.modify, number, target, eventmask & 0xFFFFFFFF)

    def unregister(self, fd: Any) -> None:
        """Watch no longer.

        Raises:
            FileNotFoundError: it is not watched.
        """
        number, eventpoll = descriptor(fd), self._open_file().eventpoll
        target = _target(self._runtime, number)
        self._runtime.call(_remove, self._runtime, eventpoll, number, target)

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
        timeout_us = to_wait_us(None if timeout is None or timeout < 0 else timeout)
        events = self._runtime.wait_for(
            file, timeout_us, True, try_collect, file.eventpoll, maxevents
        )
        return [] if events is NOT_YET else events

    def close(self) -> None:
        """Close the epoll; what it watches stays open."""
        if self._file is not None:
            self._file, fd, self._fd = None, self._fd, -1
            with suppress(OSError):  # ``fromfd`` may have made a second owner
                FILES.close(fd)

    def _open_file(self) -> EpollFile:
        if self._file is None:
            raise ValueError("I/O operation on closed epoll object")
        return self._file


def _target(runtime: ThreadedRuntime, number: int) -> Pollable:
    """Return what a descriptor that may be watched stands for.

    Raises:
        OSError: EBADF, EINVAL: of another stack; ENOENT: the kernel's, and not watched.
    """
    if number < FIRST_FD:
        os.fstat(number)
        host = runtime.host_file(number)
        if host is None:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return host
    file = FILES.lookup(number)
    if file.runtime is not runtime:
        raise OSError(errno.EINVAL, "an epoll watches sockets of its own stack only")
    return file.target


def _add(runtime: ThreadedRuntime, eventpoll: EventPoll, number: int, events: int) -> None:
    if number >= FIRST_FD:
        eventpoll.add(number, _target(runtime, number), events)
        return
    host = runtime.watch_host(number)
    try:
        eventpoll.add(number, host, events)
    except OSError:
        runtime.unwatch_host(host)
        raise


def _remove(runtime: ThreadedRuntime, eventpoll: EventPoll, number: int, target: Pollable) -> None:
    eventpoll.remove(number, target)
    if isinstance(target, HostFile):
        runtime.unwatch_host(target)


def descriptor(fd: Any) -> int:
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


def to_wait_us(timeout: float | None) -> int | None:
    """Turn seconds into microseconds, rounded up; None stays: for ever."""
    return None if timeout is None else -int(-timeout * 1e6 // 1)


def try_collect(eventpoll: EventPoll, maxevents: int) -> Any:
    """Take what is ready; an attempt for ``wait_for``."""
    if eventpoll.closed:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return eventpoll.collect(maxevents) or NOT_YET
