"""What a descriptor of the stack's refers to: struct file, and the process's table of them.

A descriptor number, a dup() of it and a call that sleeps on it each hold one reference; the
socket is closed when the last is given back, so close() does not disturb a blocked reader.
Numbers begin beyond those that the kernel gives out: handed to a real system call they fail
with EBADF instead of hitting somebody else's file.
"""

from __future__ import annotations

import errno
import heapq
import os
from threading import RLock
from typing import TYPE_CHECKING

from ustack.eventpoll.eventpoll import EventPoll, Pollable
from ustack.inet.sockets import InetSocket
from ustack.runtime.hostfiles import HostFile
from ustack.sock.wait import WaitQueue

if TYPE_CHECKING:
    from ustack.inet.dgram import DgramSocket
    from ustack.runtime.threaded import ThreadedRuntime

FIRST_FD = 1 << 24
"""Above fs.nr_open (1 << 20), which no kernel descriptor reaches."""


class File:
    """A reference-counted open file; ``refs`` belongs to the runtime's lock."""

    __slots__ = ("refs", "runtime", "target")

    def __init__(self, runtime: ThreadedRuntime, target: Pollable) -> None:
        self.runtime = runtime
        self.target = target
        """The socket or the epoll."""
        self.refs = 1

    @property
    def wq(self) -> WaitQueue:
        """Where sleepers on this file are woken."""
        return self.target.wq

    def hold(self) -> None:
        """Take a reference (fget); under the runtime's lock."""
        self.refs += 1

    def release(self) -> None:
        """Give a reference back (fput); under the runtime's lock."""
        self.refs -= 1
        if not self.refs and not self.runtime.closed:
            self.final_close()

    def final_close(self) -> None:
        """The last reference is gone (__fput)."""


class SocketFile(File):
    """A core socket and what the edge adds to it."""

    __slots__ = ("core", "rcvtimeo_us", "sndtimeo_us")

    def __init__(self, runtime: ThreadedRuntime, core: InetSocket | DgramSocket) -> None:
        super().__init__(runtime, core)
        self.core = core
        self.rcvtimeo_us: int | None = None
        """SO_RCVTIMEO, None for ever."""
        self.sndtimeo_us: int | None = None

    @property
    def stream(self) -> InetSocket:
        """The socket, for what only a stream can do.

        Raises:
            OSError: EOPNOTSUPP: it is none.
        """
        if not isinstance(self.core, InetSocket):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return self.core

    def final_close(self) -> None:
        """Close the connection: FIN, or RST where Linux sends one."""
        self.core.close()


class EpollFile(File):
    """An EventPoll as a file."""

    __slots__ = ("eventpoll",)

    def __init__(self, runtime: ThreadedRuntime) -> None:
        self.eventpoll = EventPoll()
        super().__init__(runtime, self.eventpoll)

    def final_close(self) -> None:
        """Forget all that was watched."""
        watched = [item.target for item in self.eventpoll.items.values()]
        self.eventpoll.close()
        for target in watched:
            if isinstance(target, HostFile):
                self.runtime.unwatch_host(target)


class FileTable:
    """Descriptor numbers of one process: always the lowest that is free."""

    def __init__(self) -> None:
        self._files: dict[int, File] = {}
        self._free: list[int] = []
        self._next = FIRST_FD
        self._lock = RLock()

    def install(self, file: File) -> int:
        """Give ``file`` a number (fd_install)."""
        with self._lock:
            if self._free:
                fd = heapq.heappop(self._free)
            else:
                fd = self._next
                self._next += 1
            self._files[fd] = file
        return fd

    def lookup(self, fd: int) -> File:
        """Return the file behind ``fd``.

        Raises:
            OSError: EBADF: it is none of ours.
        """
        file = self._files.get(fd)
        if file is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return file

    def remove(self, fd: int) -> File:
        """Take a number back (file_close_fd); its reference is now the caller's.

        Raises:
            OSError: EBADF: it is none of ours.
        """
        with self._lock:
            file = self.lookup(fd)
            del self._files[fd]
            heapq.heappush(self._free, fd)
        return file

    def close(self, fd: int) -> None:
        """Close a descriptor (close(2)).

        Raises:
            OSError: EBADF: it is none of ours.
        """
        file = self.remove(fd)
        if not file.runtime.closed:
            file.runtime.call(file.release)

    def of_runtime(self, runtime: ThreadedRuntime) -> list[File]:
        """Return the open files of one stack."""
        with self._lock:
            return [file for file in self._files.values() if file.runtime is runtime]


FILES = FileTable()
"""The table of this process."""


def close_quietly(fd: int, file: File) -> None:
    """Close for a finalizer, under the runtime's lock, unless ``fd`` is another file's by now."""
    try:
        known = FILES.lookup(fd)
    except OSError:
        return
    if known is file:
        FILES.remove(fd)
        file.release()


def duplicate(fd: int) -> int:
    """Return a second number for the file behind ``fd``.

    Raises:
        OSError: EBADF: it is none of ours.
    """
    file = FILES.lookup(fd)
    file.runtime.call(file.hold)
    return FILES.install(file)
