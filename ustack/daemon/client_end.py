"""What every socket of a client has on the daemon's side, whatever goes through its pair.

The client holds one end of a socketpair. When the last reference to that is gone, by close(),
exit or kill, the kernel says so (EPOLLHUP), and that is the close() of the socket; so
references over dup, fork and passing need no counting here. A pair that is shut down in both
directions looks the same: see ``shut_ends``.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import struct
from typing import TYPE_CHECKING, Any

from ustack.api.protocol import Answer
from ustack.sock.wait import WaitEntry

if TYPE_CHECKING:
    from ustack.daemon.join_hub import JoinHub
    from ustack.daemon.limits import Owner

IN, OUT, HUP = select.EPOLLIN, select.EPOLLOUT, select.EPOLLHUP
SIOCOUTQ = 0x5411


class ClientEnd:
    """One socket of a client; ``inode`` is that of the client's end."""

    __slots__ = (
        "_end",
        "_entry",
        "_hub",
        "_mask",
        "_scheduled",
        "core",
        "fd",
        "inode",
        "key",
        "owner",
    )

    def __init__(
        self, hub: JoinHub, core: Any, fd: int, inode: int, owner: Owner, events: int = 0
    ) -> None:
        self._hub = hub
        self.core = core
        self._end: socket.socket | None = None
        self.fd = fd
        self.inode = inode
        self.key = b""
        """Names it as well, see ``JoinHub.key_of``."""
        self.owner = owner
        self._mask = events
        self._scheduled = False
        self._entry = WaitEntry(self._wake)
        core.wq.add(self._entry)

    # What there is to do; each kind of socket says how.

    @property
    def is_stream(self) -> bool:
        """Whether bytes flow between the connection and the client."""
        return False

    def event(self, events: int) -> None:
        """The client's end has changed (epoll)."""
        raise NotImplementedError

    def closed_by_client(self) -> None:
        """Nobody holds the client's end any more."""
        raise NotImplementedError

    def read_ahead(self, error: int, unsent: bytes) -> None:
        """C has read from the client's end: an errno, or what it could not send."""
        raise NotImplementedError

    def _changed(self) -> None:
        """The socket has changed."""
        raise NotImplementedError

    def connect(self, addr: int, port: int, client_end: int) -> None:
        """Connect; ``client_end`` is a descriptor of the client's."""
        raise NotImplementedError

    def shutdown(self, how: int, client_end: int) -> bool:
        """Shut one direction down, or both; return whether the client's end now is, too."""
        raise NotImplementedError

    def refresh(self) -> None:
        """The client has asked for the pending error: what waited for that goes on."""

    def send_datagram(self, message: memoryview) -> int:
        """Send a datagram behind its header; return its length."""
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    def send_fastopen(self, data: bytes, addr: int, port: int, client_end: int) -> int:
        """Connect with data in the SYN; return how much of it was taken."""
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    def linger(self) -> tuple[int, int]:
        """Say how many seconds close() waits, and give what the client can wait with, or -1."""
        return 0, -1

    def send_oob(self, data: bytes) -> int:
        """Send urgent data."""
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    def receive_late(self, size: int, flags: int) -> bytes:
        """Return what has come since reading was shut down, perhaps nothing."""
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    def receive_error(self) -> Answer:
        """Return an entry of the error queue."""
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def disconnect(self) -> None:
        """Be connected to nobody again."""
        self.core.disconnect()

    def listen(self, backlog: int) -> None:
        """Accept connections."""
        self.core.listen(backlog)

    # What all have in common.

    def close(self, **how: Any) -> None:
        """Let go of both sides; ``how`` is for the socket's close()."""
        if self.core.closed:
            return
        self.core.wq.remove(self._entry)
        self.core.close(**how)
        self._let_go()

    def is_over(self) -> None:
        """C has closed the connection, and the client its end."""
        raise NotImplementedError

    def _let_go(self) -> None:
        self._hub.forget(self)
        if self._end is not None:
            self._end.close()
        else:
            os.close(self.fd)

    @property
    def _sock(self) -> socket.socket:
        """The daemon's end with Python's methods."""
        if self._end is None:
            self._end = socket.socket(fileno=self.fd)
        return self._end

    def _wake(self, events: int) -> bool:
        """The socket's wait queue: look at it once the stack has done with this batch."""
        if not self._scheduled:
            self._scheduled = True
            self._hub.runtime.defer(self._look)
        return True

    def _look(self) -> None:
        self._scheduled = False
        if not self.core.closed:
            self._changed()

    def _watch(self, mask: int) -> None:
        if mask != self._mask:
            self._mask = mask
            self._hub.watch(self.fd, mask)


def outq(fd: int) -> int:
    """Return what a socket's send buffer holds, as the kernel counts it (SIOCOUTQ)."""
    return int(struct.unpack("i", fcntl.ioctl(fd, SIOCOUTQ, b"\0\0\0\0"))[0])
