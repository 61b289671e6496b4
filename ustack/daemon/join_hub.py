"""All joins of a daemon: one epoll that watches the clients' ends, and what bounds them.

A client's sockets count against its own limit (EMFILE) and the daemon's (ENFILE). The errno
of a connection that broke is kept for its client to ask for; only so many of them.
"""

from __future__ import annotations

import errno
import os
import random
import resource
import select
import socket
import stat
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ustack.api.protocol import KEY_BYTES
from ustack.daemon.client_end import ClientEnd
from ustack.daemon.join import Join
from ustack.daemon.join_dgram import DgramJoin
from ustack.daemon.limits import RLIM_INFINITY, FileLimits, Owner
from ustack.daemon.shut_ends import ShutEnds
from ustack.daemon.unix_diag import unread_bytes
from ustack.native.lib import ffi, lib
from ustack.native.siphash import KEY_BYTES as SIPHASH_KEY_BYTES
from ustack.native.siphash import siphash_2u64
from ustack.tcp.joins import Joins

if TYPE_CHECKING:
    from ustack.inet.dgram import DgramSocket
    from ustack.inet.sockets import InetSocket
    from ustack.runtime.inline import InlineRuntime

SCRATCH_BYTES = 256 * 1024
NAME_BITS = 48
SOCK_STREAM, SOCK_SEQPACKET = int(socket.SOCK_STREAM), int(socket.SOCK_SEQPACKET)
MAX_GRAVES = 4096
RESERVED_FILES = 128
"""Descriptors that the daemon keeps for itself: wires, control connections, files."""
SHORTAGE_S = 0.01


PairBytes = dict[tuple[tuple[int, int], tuple[int, int]], tuple[int, int]]
"""By local and peer address: bytes that wait for the client, and bytes that it has written."""


class JoinHub:
    """Makes, finds and ends joins.

    Args:
        runtime: Drives the stack and has the loop.
        client_sockets: How many sockets one client process may have.
        sockets: How many all of them may have; at most what the limit of open files allows.
        log: told of what an administrator should know.
    """

    def __init__(
        self,
        runtime: InlineRuntime,
        *,
        client_sockets: int = RLIM_INFINITY,
        sockets: int = RLIM_INFINITY,
        log: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.runtime = runtime
        self.scratch = memoryview(bytearray(SCRATCH_BYTES))
        capacity = min(sockets, raise_file_limit() - RESERVED_FILES)
        self.limits = FileLimits(
            runtime.stack, client_sockets=client_sockets, capacity=capacity, log=log
        )
        self._epoll = select.epoll()
        self._epoll_fd = self._epoll.fileno()
        self._new_pair: Any = ffi.new("struct us_pair *")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as any_socket:
            self._device = os.fstat(any_socket.fileno()).st_dev
        self._shut_ends = ShutEnds()
        self.joins = Joins(runtime.stack.tcp, self._epoll_fd)
        self._joins: dict[int, ClientEnd] = {}
        self._by_inode: dict[int, ClientEnd] = {}
        self._secret = os.urandom(SIPHASH_KEY_BYTES)
        self._by_key: dict[bytes, ClientEnd] = {}
        self._waiting: set[Callable[[], None]] = set()
        self._graves: OrderedDict[int, int] = OrderedDict()
        runtime.add_source(self._epoll_fd, self.settle)
        runtime.loop.add_reader(self._shut_ends.fileno(), runtime.call, self.settle)

    def __len__(self) -> int:
        return len(self._joins)

    def close(self) -> None:
        """End all joins: every client's descriptor hangs up."""
        for join in tuple(self._joins.values()):
            self.runtime.call(join.close)
        if not self._epoll.closed:
            self.runtime.remove_source()
            self.runtime.loop.remove_reader(self._shut_ends.fileno())
            self.joins.close()
            self._shut_ends.close()
            self._epoll.close()

    @property
    def closed(self) -> bool:
        """Whether the daemon is about to end."""
        return self._epoll.closed

    def check_room(self, owner: Owner) -> None:
        """See whether ``owner`` may have one more socket.

        Raises:
            OSError: EMFILE, it has as many as it may; ENFILE, all together have.
        """
        error = self.limits.reason_against(owner)
        if error:
            raise OSError(error, os.strerror(error))

    def join(self, core: InetSocket, owner: Owner, events: int = 0) -> tuple[Join, int]:
        """Make a pair for a TCP socket; return our side, and the descriptor that is the client's.

        Args:
            events: that our side watches for at first.

        Raises:
            OSError: no descriptors are left; ``core`` is closed.
        """
        fd, end, inode = self._pair(core, SOCK_STREAM, events)
        join = Join(self, core, fd, inode, owner, events)
        self._add(join)
        return join, end

    def join_dgram(self, core: DgramSocket, owner: Owner) -> int:
        """Make a pair for a datagram socket; return the client's descriptor.

        Raises:
            OSError: as ``join``.
        """
        fd, end, inode = self._pair(core, SOCK_SEQPACKET, 0)
        join = DgramJoin(self, core, fd, inode, owner)
        self._add(join)
        join.begin()
        return end

    def _pair(self, core: InetSocket | DgramSocket, kind: int, events: int) -> tuple[int, int, int]:
        pair = self._new_pair
        number = random.getrandbits(NAME_BITS)
        error = lib.us_pair_open(pair, kind, number, self._epoll_fd, events)
        if error:
            core.close()
            raise OSError(-error, os.strerror(-error))
        return pair.fd, pair.end, pair.inode

    def _add(self, join: ClientEnd) -> None:
        self._joins[join.fd] = join
        self._by_inode[join.inode] = join
        self._graves.pop(join.inode, None)
        join.owner.sockets += 1
        self.limits.nr_files += 1

    def find(self, client_end: int) -> ClientEnd | None:
        """Return the join whose client's end this descriptor is: having it is the permission."""
        inode = socket_inode(client_end, self._device)
        return None if inode is None else self._by_inode.get(inode)

    def key_of(self, join: Join) -> bytes:
        """Return what its client may name an accepted connection by, without its descriptor."""
        join.key = siphash_2u64(self._secret, join.inode, join.fd).to_bytes(KEY_BYTES, "little")
        self._by_key[join.key] = join
        return join.key

    def find_key(self, key: bytes) -> ClientEnd | None:
        """Return the join that ``key_of`` has given this key to, if it is still there."""
        return self._by_key.get(key)

    def bytes_in_pairs(self) -> PairBytes:
        """Return what lies between us and the clients: part of Recv-Q and Send-Q (``ss``)."""
        if not self._joins:
            return {}
        try:
            unread = unread_bytes()
        except OSError:
            return {}  # a kernel without unix_diag
        held: PairBytes = {}
        for join in self._joins.values():
            counts = unread.get(join.inode, 0), unread.get(os.fstat(join.fd).st_ino, 0)
            if join.is_stream and any(counts):
                held[join.core.getsockname(), join.core.getpeername()] = counts
        return held

    def forget(self, join: ClientEnd) -> None:
        """``join`` has ended; called before its descriptor is closed, and unwatched by that."""
        if self._joins.pop(join.fd, None) is None:
            return
        self._shut_ends.remove(join)
        self._by_inode.pop(join.inode, None)
        self._by_key.pop(join.key, None)
        join.owner.sockets -= 1
        self.limits.nr_files -= 1
        while self._waiting:
            self.runtime.defer(self._waiting.pop())

    def when_there_is_room(self, resume: Callable[[], None]) -> None:
        """Call ``resume`` once a join has ended."""
        self._waiting.add(resume)

    def bury(self, inode: int, error: int) -> None:
        """Keep how a connection ended, for the client to ask: an errno, or 0 for in order."""
        self._graves[inode] = error
        if len(self._graves) > MAX_GRAVES:
            self._graves.popitem(last=False)

    def exhume(self, client_end: int) -> int:
        """Return how a connection ended, an error only once; ECONNRESET if we never had it."""
        inode = socket_inode(client_end, self._device)
        if inode is None:
            raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK))
        error = self._graves.get(inode, errno.ECONNRESET)
        self.bury(inode, 0)
        return error

    def watch(self, fd: int, mask: int) -> None:
        """Be told of ``mask`` from now on; of a hang-up always."""
        self._epoll.modify(fd, mask)

    def unwatch(self, fd: int) -> None:
        """Be told of nothing any more."""
        try:
            self._epoll.unregister(fd)
        except (OSError, ValueError):
            pass  # it is not watched

    def watch_for_close(self, join: ClientEnd) -> None:
        """``join`` is shut down both ways, and still held: be told of its close alone."""
        self.unwatch(join.fd)
        self._shut_ends.add(join)

    def later(self, callback: Callable[[], None]) -> None:
        """Call when memory may have come free."""
        self.runtime.loop.call_later(SHORTAGE_S, self.runtime.call, callback)

    def settle(self) -> bool:
        """See to what has happened to the clients' ends: a close() comes before a later call.

        Returns:
            Whether anything had.
        """
        ready = self.joins.poll()
        if self.joins.sent:
            self.runtime.answered = True
        # Looked up first: a number whose join ends meanwhile may soon be another's.
        left = ready or []
        joins = [self._joins[fd] for fd, *_ in left]
        for join, (_, events, is_closed, error, unsent) in zip(joins, left, strict=True):
            if join.core.closed:
                continue
            if is_closed:
                join.is_over()
                continue
            if error or unsent:
                join.read_ahead(error, unsent)
            join.event(events)
        for shut in self._shut_ends.take_closed() if self._shut_ends else ():
            if not shut.core.closed:
                shut.closed_by_client()
        return ready is not None


def socket_inode(fd: int, device: int) -> int | None:
    """Return the number that the kernel knows a socket by; None for any other file.

    A socket's name in a folder may have the same number: ``device`` is where sockets are kept.
    """
    status = os.fstat(fd)
    if not stat.S_ISSOCK(status.st_mode):
        return None
    return status.st_ino if status.st_dev == device else None


def raise_file_limit() -> int:
    """Take as many descriptors as we may; return how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
