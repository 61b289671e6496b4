"""What a blocking call tries, under the runtime's lock, each time it may have become possible.

Each returns NOT_YET as long as Linux's call would sleep. The rules of waiting are tcp_recvmsg's
(sock_rcvlowat: MSG_WAITALL, SO_RCVLOWAT) and tcp_sendmsg's (sk_stream_wait_memory).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ustack.inet.sockets import InetSocket
from ustack.runtime.waiter import NOT_YET
from ustack.sock.wait import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP

if TYPE_CHECKING:
    from ustack.inet.dgram import Ancillary, DgramSocket

    CoreSocket = InetSocket | DgramSocket

MSG_PEEK = 0x2
MSG_WAITALL = 0x100
SHUT_WR = 1


def try_recv(core: CoreSocket, n: int, flags: int) -> Any:
    """Receive what there is."""
    try:
        return core.recv(n, flags)
    except BlockingIOError:
        return NOT_YET


def wait_recv(core: CoreSocket, n: int, flags: int) -> Any:
    """Receive once there is as much as SO_RCVLOWAT asks for."""
    if not flags and n and isinstance(core, InetSocket):
        text = core.recv_now(n)
        if text is not None:
            return text
    if not core.rcv_ready(max(1, min(core.rcvlowat, n)), flags):
        return NOT_YET
    return try_recv(core, n, flags)


def try_recv_into(core: CoreSocket, buffer: Any, n: int, flags: int) -> Any:
    """Receive what there is into ``buffer``."""
    try:
        return core.recv_into(buffer, n, flags)
    except BlockingIOError:
        return NOT_YET


def wait_recv_into(core: CoreSocket, buffer: Any, n: int, flags: int) -> Any:
    """Receive into ``buffer`` once there is as much as SO_RCVLOWAT asks for."""
    if not core.rcv_ready(max(1, min(core.rcvlowat, n)), flags):
        return NOT_YET
    return try_recv_into(core, buffer, n, flags)


def try_recvmsg(core: DgramSocket, n: int, flags: int) -> Any:
    """Receive a datagram."""
    try:
        return core.recvmsg(n, flags)
    except BlockingIOError:
        return NOT_YET


def wait_recvmsg(core: DgramSocket, n: int, flags: int) -> Any:
    """Receive a datagram once there is one."""
    return try_recvmsg(core, n, flags) if core.rcv_ready(1) else NOT_YET


def sendmsg(
    core: DgramSocket,
    data: Any,
    flags: int,
    to: tuple[int, int] | None,
    ancillary: list[Ancillary],
) -> int:
    """Send a datagram, which never has to wait."""
    return core.sendmsg(data, flags, to, ancillary)


class RecvAll:
    """MSG_WAITALL: fill ``view`` or end with what came before FIN, an error or the deadline."""

    __slots__ = ("copied", "view")

    def __init__(self, view: memoryview) -> None:
        self.view = view
        self.copied = 0

    def __call__(self, core: CoreSocket, flags: int) -> Any:
        """Take what there is; MSG_PEEK has to wait until all of it is there."""
        total = self.view.nbytes
        if flags & MSG_PEEK and not core.rcv_ready(max(1, total), flags):
            return NOT_YET
        while self.copied < total:
            try:
                n = core.recv_into(self.view[self.copied :], 0, flags & ~MSG_WAITALL)
            except BlockingIOError:
                return NOT_YET
            except OSError:
                if self.copied:
                    break
                raise
            self.copied += n
            if n == 0 or flags & MSG_PEEK:
                break
        return self.copied


class SendAll:
    """Send all of ``view``, sleeping for buffer space; ``sent`` tells how far it came.

    A short ``bytes`` object serves as well: what is left of it is copied if it must wait.
    """

    __slots__ = ("sent", "view")

    def __init__(self, view: memoryview | bytes) -> None:
        self.view = view
        self.sent = 0

    def __call__(self, core: CoreSocket, flags: int) -> Any:
        """Send what the socket takes."""
        total = len(self.view)
        while True:
            try:
                self.sent += core.send(self.view[self.sent :] if self.sent else self.view, flags)
            except BlockingIOError:
                return NOT_YET
            if self.sent >= total:
                return self.sent


def try_send(core: CoreSocket, data: Any, flags: int) -> Any:
    """Send what the socket takes."""
    try:
        return core.send(data, flags)
    except BlockingIOError:
        return NOT_YET


def try_page_frag(core: InetSocket, want: int) -> Any:
    """Take memory to fill for sendpage, once the send buffer has room."""
    try:
        return core.page_frag(want)
    except BlockingIOError:
        return NOT_YET


def try_accept(core: CoreSocket) -> Any:
    """Take a connection from the accept queue."""
    try:
        return core.accept()
    except BlockingIOError:
        return NOT_YET


def connect_done(core: CoreSocket) -> Any:
    """Return whether the handshake has come to an end, good or bad."""
    return True if core.poll() & (EPOLLOUT | EPOLLERR | EPOLLHUP) else NOT_YET


def close_gracefully(core: CoreSocket) -> bool:
    """Send FIN, unless unread data makes the close an abort; return whether it is under way."""
    if core.rcv_ready(1) and core.poll() & EPOLLIN and not core.poll() & EPOLLRDHUP:
        return False
    try:
        core.shutdown(SHUT_WR)
    except OSError:
        return False
    return True


def all_acknowledged(core: CoreSocket) -> Any:
    """Return whether the peer has everything that was sent, the FIN included."""
    return True if core.send_queue_empty() else NOT_YET
