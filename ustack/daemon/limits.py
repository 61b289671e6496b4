"""Limits of open files, of each client process and of all (fs/file.c, fs/file_table.c).

A client has a soft and a hard limit as setrlimit(2) has them; the soft one and
``fs.nr_open`` give EMFILE, ``fs.file-max`` gives ENFILE to all but root. A file is a socket
that the daemon holds for a client. The client's own descriptors are its kernel's affair.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import NamedTuple

from ustack.stack import Stack

ROOT = 0
RLIM_INFINITY = 1 << 30


class Rlimit(NamedTuple):
    """RLIMIT_NOFILE."""

    soft: int
    hard: int


class Owner:
    """A client process that has asked for sockets."""

    __slots__ = ("gid", "nofile", "pid", "sockets", "uid")

    def __init__(self, pid: int, uid: int, gid: int) -> None:
        self.pid = pid
        self.uid = uid
        self.gid = gid
        self.sockets = 0
        self.nofile: Rlimit | None = None
        """Its own limit; None: what all have."""


class FileLimits:
    """What there is, and whether there may be more.

    Args:
        client_sockets: every client's limit, soft and hard, until ``set_rlimit``.
        capacity: what this process's own limit of open files leaves for clients.
        log: told when ``fs.file-max`` is reached, in the kernel's words.
    """

    def __init__(
        self,
        stack: Stack,
        *,
        client_sockets: int = RLIM_INFINITY,
        capacity: int = RLIM_INFINITY,
        log: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._stack = stack
        self._log = log
        most = min(client_sockets, stack.config.fs.nr_open)
        self.nofile = Rlimit(most, most)
        self.capacity = capacity
        self.nr_files = 0
        self._old_max = 0
        """How many there were when the limit was logged last."""
        self.owners: dict[int, Owner] = {}

    def owner(self, pid: int, uid: int, gid: int) -> Owner:
        """Return the account of a client process; all its connections share it."""
        for other in [o for o in self.owners.values() if not o.sockets and o.pid != pid]:
            del self.owners[other.pid]
        found = self.owners.get(pid)
        if found is None or found.uid != uid:
            found = self.owners[pid] = Owner(pid, uid, gid)
        return found

    def reason_against(self, owner: Owner) -> int:
        """Return 0, or why ``owner`` cannot have one more file: EMFILE, ENFILE.

        Two checks, as in ``sock_map_fd``: a number (alloc_fd, expand_files) and a file
        (get_empty_filp; ``fs.file-max`` does not bind CAP_SYS_ADMIN, which is root here).
        """
        fs = self._stack.config.fs
        if owner.sockets >= min((owner.nofile or self.nofile).soft, fs.nr_open):
            return errno.EMFILE
        if self.nr_files >= fs.file_max and owner.uid != ROOT:
            if self.nr_files > self._old_max:
                self._log(f"VFS: file-max limit {fs.file_max} reached")
                self._old_max = self.nr_files
            return errno.ENFILE
        return errno.ENFILE if self.nr_files >= self.capacity else 0

    def room(self, owner: Owner) -> int:
        """Return how many more files ``owner`` can have; at 0 ``reason_against`` says why."""
        fs = self._stack.config.fs
        room = min(
            min((owner.nofile or self.nofile).soft, fs.nr_open) - owner.sockets,
            self.capacity - self.nr_files,
        )
        if owner.uid != ROOT:
            room = min(room, fs.file_max - self.nr_files)
        return max(room, 0)

    def file_nr(self) -> str:
        """Return ``fs.file-nr``: files allocated, 0 for those unused, ``fs.file-max``."""
        return f"{self.nr_files}\t0\t{self._stack.config.fs.file_max}"

    def rlimit(self, pid: int) -> Rlimit:
        """Return a client's limits; with 0 those of clients that have none of their own.

        Raises:
            LookupError: ESRCH, no such client.
        """
        return self.nofile if not pid else self._owner_of(pid).nofile or self.nofile

    def set_rlimit(self, pid: int, soft: int | None, hard: int | None) -> None:
        """Set a client's limits, or with 0 those of all that have none; None: as it is.

        Raises:
            LookupError: ESRCH; EINVAL, the soft one above the hard one; EPERM, the hard one
                above ``fs.nr_open`` (do_prlimit).
        """
        old = self.rlimit(pid)
        new = Rlimit(old.soft if soft is None else soft, old.hard if hard is None else hard)
        if new.soft > new.hard or new.soft < 0:
            raise LookupError(os.strerror(errno.EINVAL))
        if hard is not None and new.hard > self._stack.config.fs.nr_open:
            raise LookupError(os.strerror(errno.EPERM))
        if pid:
            self._owner_of(pid).nofile = new
        else:
            self.nofile = new

    def _owner_of(self, pid: int) -> Owner:
        if pid not in self.owners:
            raise LookupError(os.strerror(errno.ESRCH))
        return self.owners[pid]
