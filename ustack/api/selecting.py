"""The standard library's ``select.select`` and ``select.poll``, over the stack and the kernel.

Where only the kernel's descriptors are asked for, the kernel answers. Otherwise a call makes an
eventpoll of its own, which takes time with each descriptor, as select(2) and poll(2) do.
"""

from __future__ import annotations

import errno
import os
import select as _select
from collections.abc import Iterable
from typing import Any

from ustack.api.files import FILES, FIRST_FD, EpollFile
from ustack.api.polling import descriptor, to_wait_us, try_collect
from ustack.api.stacks import default_runtime
from ustack.runtime.hostfiles import HostFile, is_open
from ustack.runtime.threaded import ThreadedRuntime
from ustack.runtime.waiter import NOT_YET
from ustack.sock.wait import (
    EPOLLERR,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    EPOLLPRI,
    EPOLLRDNORM,
    EPOLLWRBAND,
    EPOLLWRNORM,
)

EPOLLRDBAND = 0x80
POLLIN_SET = EPOLLRDNORM | EPOLLRDBAND | EPOLLIN | EPOLLHUP | EPOLLERR
POLLOUT_SET = EPOLLWRBAND | EPOLLWRNORM | EPOLLOUT | EPOLLERR
POLLEX_SET = EPOLLPRI
"""What select(2) takes for readable, writable and exceptional."""
POLL_DEFAULT = EPOLLIN | EPOLLPRI | EPOLLOUT
POLLNVAL = int(_select.POLLNVAL)
FD_SETSIZE = 1024

Events = list[tuple[int, int]]


def select(
    rlist: Iterable[Any],
    wlist: Iterable[Any],
    xlist: Iterable[Any],
    timeout: float | None = None,
    /,
) -> tuple[list[Any], list[Any], list[Any]]:
    """Wait until some of the objects are ready; return three lists of those that are.

    Args:
        timeout: seconds; None: for ever.

    Raises:
        OSError: EBADF, one is no descriptor. ValueError: one is negative, or of the kernel's
            and beyond FD_SETSIZE; a negative timeout.
    """
    lists = [[(descriptor(obj), obj) for obj in objects] for objects in (rlist, wlist, xlist)]
    wanted: dict[int, int] = {}
    for pairs, mask in zip(lists, (POLLIN_SET, POLLOUT_SET, POLLEX_SET), strict=True):
        for fd, _ in pairs:
            if FD_SETSIZE <= fd < FIRST_FD:
                raise ValueError("filedescriptor out of range in select()")
            wanted[fd] = wanted.get(fd, 0) | mask
    if all(fd < FIRST_FD for fd in wanted):
        kernel_fds = [[fd for fd, _ in pairs] for pairs in lists]
        r, w, x = _select.select(kernel_fds[0], kernel_fds[1], kernel_fds[2], timeout)
        return _objects(lists[0], r), _objects(lists[1], w), _objects(lists[2], x)
    if timeout is not None and timeout < 0:
        raise ValueError("timeout must be non-negative")
    if any(not _exists(fd) for fd in wanted):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    events = _wait(wanted, to_wait_us(timeout))
    r, w, x = (
        [fd for fd, what in events if what & mask] for mask in (POLLIN_SET, POLLOUT_SET, POLLEX_SET)
    )
    return _objects(lists[0], r), _objects(lists[1], w), _objects(lists[2], x)


def _objects(pairs: list[tuple[int, Any]], ready: list[int]) -> list[Any]:
    """Return the objects whose descriptors are ready, in the caller's order."""
    found = frozenset(ready)
    return [obj for fd, obj in pairs if fd in found]


class poll:
    """A polling object: descriptors and the events that each is asked for."""

    __slots__ = ("_wanted",)

    def __init__(self) -> None:
        self._wanted: dict[int, int] = {}

    def register(self, fd: Any, eventmask: int = POLL_DEFAULT, /) -> None:
        """Ask for a descriptor's events, other ones if it is asked for already."""
        self._wanted[descriptor(fd)] = eventmask

    def modify(self, fd: Any, eventmask: int, /) -> None:
        """Ask for other events.

        Raises:
            FileNotFoundError: it is not asked for.
        """
        number = descriptor(fd)
        if number not in self._wanted:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        self._wanted[number] = eventmask

    def unregister(self, fd: Any, /) -> None:
        """Ask for it no longer.

        Raises:
            KeyError: it is not asked for.
        """
        del self._wanted[descriptor(fd)]

    def poll(self, timeout: float | None = None, /) -> Events:
        """Wait ``timeout`` milliseconds, None or negative: for ever; return (fd, events) pairs.

        A descriptor that is closed has POLLNVAL.
        """
        if all(fd < FIRST_FD for fd in self._wanted):
            return self._poll_kernel(timeout)
        gone = [(fd, POLLNVAL) for fd in self._wanted if not _exists(fd)]
        wait_us = to_wait_us(None if timeout is None or timeout < 0 else timeout / 1000)
        wanted = {
            fd: mask | EPOLLERR | EPOLLHUP for fd, mask in self._wanted.items() if _exists(fd)
        }
        return gone + _wait(wanted, 0 if gone else wait_us)

    def _poll_kernel(self, timeout: float | None) -> Events:
        asked = _select.poll()
        for fd, mask in self._wanted.items():
            asked.register(fd, mask)
        return asked.poll(timeout)


def _exists(fd: int) -> bool:
    try:
        return is_open(fd) if fd < FIRST_FD else bool(FILES.lookup(fd))
    except OSError:
        return False


def _wait(wanted: dict[int, int], wait_us: int | None) -> Events:
    """Wait for any of the events; return those that came, in the order of ``wanted``."""
    stacked = [FILES.lookup(fd).runtime for fd in wanted if fd >= FIRST_FD]
    runtime = stacked[0] if stacked else default_runtime()
    if any(other is not runtime for other in stacked):
        raise OSError(errno.EINVAL, "sockets of different stacks cannot be waited for together")
    file = EpollFile(runtime)
    try:
        runtime.call(_fill, runtime, file, wanted)
        events = runtime.wait_for(file, wait_us, True, try_collect, file.eventpoll, len(wanted))
    finally:
        if not runtime.closed:
            runtime.call(file.release)
    if events is NOT_YET:
        return []
    found = dict(events)
    return [(fd, found[fd]) for fd in wanted if fd in found]


def _fill(runtime: ThreadedRuntime, file: EpollFile, wanted: dict[int, int]) -> None:
    for fd, mask in wanted.items():
        if fd >= FIRST_FD:
            file.eventpoll.add(fd, FILES.lookup(fd).target, mask)
        else:
            host: HostFile = runtime.watch_host(fd, always_ready=True)
            file.eventpoll.add(fd, host, mask)
