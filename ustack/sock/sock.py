"""What every transport's socket has in common (Linux's struct sock), without the protocol.

The application's side (``inet.sockets``) and the protocol's side meet here: the pending
error, the wait queue, the options of SOL_SOCKET. Nothing here sends or receives.
"""

from __future__ import annotations

from ustack.sock.wait import (
    EPOLLERR,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    EPOLLRDHUP,
    EPOLLRDNORM,
    EPOLLWRNORM,
    WaitQueue,
)

RCV_SHUTDOWN = 1
SEND_SHUTDOWN = 2
SHUTDOWN_MASK = 3

POLL_READABLE = EPOLLIN | EPOLLRDNORM
POLL_WRITABLE = EPOLLOUT | EPOLLWRNORM
POLL_ERROR = EPOLLERR | POLL_READABLE | POLL_WRITABLE
POLL_STATE = POLL_READABLE | POLL_WRITABLE | EPOLLHUP | EPOLLRDHUP
"""What ``sk_state_change`` announces; the waiter asks ``poll`` which of it is true."""


class Sock:
    """The protocol's half of a socket; a transport subclasses it."""

    __slots__ = (
        "keepopen",
        "linger_s",
        "nospace",
        "reuse",
        "reuseport",
        "sk_err",
        "sk_err_soft",
        "wq",
    )

    def __init__(self) -> None:
        self.sk_err = 0
        """errno that the next call returns once (sock_error)."""
        self.sk_err_soft = 0
        """errno of an ICMP message: reported if the connection then times out."""
        self.reuse = False
        """SO_REUSEADDR."""
        self.reuseport = False
        """SO_REUSEPORT."""
        self.keepopen = False
        """SO_KEEPALIVE."""
        self.linger_s: int | None = None
        """SO_LINGER's time in seconds; None: off."""
        self.nospace = False
        """A writer waits for room (SOCK_NOSPACE)."""
        self.wq = WaitQueue()

    def take_error(self) -> int:
        """Return the pending errno and clear it (sock_error); 0 if there is none."""
        err, self.sk_err = self.sk_err, 0
        return err

    def wake_up(self, events: int) -> None:
        """Announce that ``events`` have come true."""
        self.wq.wake_up(events)

    def sk_data_ready(self) -> None:
        """Announce that there is something to read or accept (sock_def_readable)."""
        self.wake_up(POLL_READABLE)

    def sk_write_space(self) -> None:
        """Announce that there is room to write (sk_stream_write_space)."""
        self.nospace = False
        self.wake_up(POLL_WRITABLE)

    def sk_state_change(self) -> None:
        """Announce that the connection's state has changed (sock_def_wakeup)."""
        self.wake_up(POLL_STATE)

    def sk_error_report(self) -> None:
        """Announce a pending error (sock_def_error_report)."""
        self.wake_up(POLL_ERROR)
