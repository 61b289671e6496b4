"""Connections whose text C moves to and from clients' descriptors (``ustack_c/src/tcp_join.c``).

What a joined connection receives goes to its descriptor when the batch of segments is through,
instead of an event that wakes somebody, and so does the end of it; ``poll`` sends what clients
have written, and closes the connections that they have closed. The rest is the caller's: errors,
other ends, descriptors that take no more, connections that C leaves to Python.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any

from ustack.native.lib import ffi, lib
from ustack.tcp.fast_rx import run_events

if TYPE_CHECKING:
    from ustack.tcp.protocol import TcpProt

SCRATCH_BYTES = 256 * 1024
AT_ONCE: int = lib.US_JOINS_AT_ONCE
"""Descriptors that one ``poll`` looks at."""
_LEFT = Struct("=iIIiII")
"""struct us_join_event: fd, events, is_closed, error, start, end."""
_LEFT_SHIFT: int = lib.US_JOINS_LEFT_SHIFT
_SENT: int = lib.US_JOINS_SENT
_MORE: int = lib.US_JOINS_MORE

Left = tuple[int, int, bool, int, bytes]
"""A descriptor, its events, whether the client has closed its socket and C the connection, the
errno that reading it has told, if any, and what was read but not sent for lack of memory."""


class Joins:
    """One stack's joined connections.

    Args:
        prot: The stack's TCP.
        epoll_fd: of an epoll that watches their descriptors, and perhaps others.
    """

    def __init__(self, prot: TcpProt, epoll_fd: int) -> None:
        joins = lib.us_tcp_joins_create(prot.fast.ptr, epoll_fd, SCRATCH_BYTES)
        if joins == ffi.NULL:
            raise MemoryError("no memory for joins")
        self._prot = prot
        self._ptr: Any = joins
        self._left = ffi.buffer(joins.left)
        self._scratch = ffi.buffer(joins.scratch, SCRATCH_BYTES)
        self.sent = False
        """The last ``poll`` has sent something."""

    def close(self) -> None:
        """Forget them all; nothing else is to be called afterwards but ``unjoin``."""
        lib.us_tcp_joins_destroy(self._ptr)
        self._ptr = ffi.NULL

    def join(self, handle: int, fd: int, is_offered: bool = False) -> None:
        """Let the text of a connection flow to and from ``fd``; what has come is yours to move.

        Args:
            is_offered: nobody has accepted it before the client's end has a name.

        Without memory for that, ``poll`` leaves its descriptor to you, and you are woken.
        """
        lib.us_tcp_join(self._ptr, handle, fd, is_offered)

    def unjoin(self, fd: int) -> bool:
        """Leave a descriptor alone, joined or not.

        Returns:
            Whether C has told the client of the end of the stream.
        """
        return bool(self._ptr and lib.us_tcp_unjoin(self._ptr, fd))

    def set_full(self, fd: int, is_full: bool) -> None:
        """``fd`` takes no more, and nobody need be told of text; or it does again."""
        lib.us_tcp_join_set_full(self._ptr, fd, is_full)

    def poll(self) -> list[Left] | None:
        """Send what clients have written.

        Returns:
            What is left to you; None: nothing was ready.
        """
        prot = self._prot
        fast = prot.fast
        done: int = lib.us_tcp_joins_poll(self._ptr, prot.clock.now_us, prot.ip.fib.genid)
        if not done:
            self.sent = False
            return None
        if done & _MORE:
            run_events(fast)
        self.sent = bool(done & _SENT)
        if self.sent:
            prot.copied_bytes += self._ptr.copied
            self._ptr.copied = 0
        size = (done >> _LEFT_SHIFT & 0xFF) * _LEFT.size
        return [
            (fd, events, bool(is_closed), error, self._scratch[start:end])
            for fd, events, is_closed, error, start, end in _LEFT.iter_unpack(self._left[:size])
        ]
