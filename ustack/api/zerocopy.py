"""``sendfile`` and ``send_ref``: bytes that are not copied at the socket.

A file is read by the kernel straight into arena memory that then becomes part of the send
queue. That is one copy less than read() and send(), and one more than Linux's sendfile,
whose queue refers to the page cache itself; mapping the file here would make somebody who
truncates it kill the whole stack (SIGBUS). The read happens outside of the stack's lock.
A buffer given to ``send_ref`` is sent, and repeated, from where it lies: no copy at all
before the wire's.
"""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any

from ustack.api import attempts
from ustack.runtime.waiter import NOT_YET
from ustack.sock.wait import EPOLLOUT, WaitQueue

if TYPE_CHECKING:
    from ustack.api.files import SocketFile
    from ustack.api.sockets import socket
    from ustack.inet.sockets import InetSocket

READ_BYTES = 256 * 1024
"""How much is read at a time from what is no ordinary file."""
CHUNK_BYTES = 64 * 1024


class SentBuffer:
    """What became of one ``send_ref``."""

    def __init__(self, file: SocketFile) -> None:
        self._runtime = file.runtime
        self._lent = 0
        self.wq = WaitQueue()
        self.sent = 0
        """Bytes that the socket has taken."""
        self.copied = False
        """Some of them were copied after all, being few (SO_EE_CODE_ZEROCOPY_COPIED)."""

    @property
    def released(self) -> bool:
        """Whether nothing refers to the buffer any more; it changes only while the stack runs."""
        return self._lent == 0

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the peer has what was sent and the buffer is the caller's again.

        Returns:
            Whether it is; False when ``timeout`` (seconds) is over.
        """
        timeout_us = None if timeout is None else int(timeout * 1_000_000)
        done = self._runtime.wait_for(self, timeout_us, False, self._is_done)
        return done is not NOT_YET

    def hold(self) -> None:
        """Nothing to count: the object itself is what a sleeper uses."""

    def release(self) -> None:
        """See ``hold``."""

    def take(self, core: Any, view: memoryview, flags: int) -> Any:
        """Send what the socket takes; under the runtime's lock."""
        while True:
            try:
                self._lent += 1
                taken, copied = core.send_ref(view[self.sent :], self._returned, flags)
            except BlockingIOError:
                self._lent -= 1
                return NOT_YET
            except OSError:
                self._lent -= 1
                raise
            self.sent += taken
            self.copied = self.copied or copied
            if self.sent >= view.nbytes:
                return self

    def _returned(self) -> None:
        self._lent -= 1
        if not self._lent:
            self.wq.wake_up(EPOLLOUT)

    def _is_done(self) -> Any:
        return True if self.released else NOT_YET


def send_ref(sock: socket, data: Any, flags: int) -> SentBuffer:
    """Do ``socket.send_ref``.

    Raises:
        OSError: as ``send``; what was taken before the error stays lent until the connection
            is over. TimeoutError: nothing was taken in time.
    """
    file = sock._open_file()
    timeout_us = sock._wait_us(flags, file.sndtimeo_us)
    sent = SentBuffer(file)
    with memoryview(data) as whole:
        view = whole.cast("B")
        if view.nbytes:
            result = file.runtime.wait_for(
                file, timeout_us, False, sent.take, file.stream, view, flags
            )
            if result is NOT_YET and not sent.sent:
                raise sock._expired(timeout_us)
    return sent


def sendfile(sock: socket, file: Any, offset: int, count: int | None) -> int:
    """Do ``socket.sendfile``; the file's position ends behind what was sent."""
    try:
        fd = file.fileno()
        os.pread(fd, 0, 0)  # neither a pipe nor a socket
    except (AttributeError, io.UnsupportedOperation, OSError):
        return _send_read(sock, file, offset, count)
    sent = 0
    try:
        while count is None or sent < count:
            want = CHUNK_BYTES if count is None else min(CHUNK_BYTES, count - sent)
            taken = _send_chunk(sock, fd, offset + sent, want)
            if not taken:
                break
            sent += taken
    finally:
        file.seek(offset + sent)
    return sent


def _send_chunk(sock: socket, fd: int, offset: int, want: int) -> int:
    """Have the kernel read into the queue's memory; return the bytes sent, 0 at the end."""
    file = sock._open_file()
    runtime, core = file.runtime, file.stream
    timeout_us = sock._wait_us(0, file.sndtimeo_us)
    room = runtime.wait_for(file, timeout_us, False, attempts.try_page_frag, core, want)
    if room is NOT_YET:
        raise sock._expired(timeout_us)
    addr, size = room
    got = 0
    try:
        got = core.read_page(addr, size, lambda view: os.preadv(fd, [view], offset))
    finally:
        if not got:
            runtime.call(core.put_page, addr)
    return runtime.call(core.sendpage, addr, got) if got else 0


def send_chunk(core: InetSocket, fd: int, offset: int, count: int) -> int:
    """Do the same where there is no lock and no waiting: in the thread of an inline runtime.

    Raises:
        BlockingIOError: the send buffer is full. OSError: as ``send``, or reading failed.
    """
    addr, size = core.page_frag(count)
    got = 0
    try:
        got = core.read_page(addr, size, lambda view: os.preadv(fd, [view], offset))
    finally:
        if not got:
            core.put_page(addr)
    return core.sendpage(addr, got) if got else 0


def _send_read(sock: socket, file: Any, offset: int, count: int | None) -> int:
    if offset:
        file.seek(offset)
    sent = 0
    while count is None or sent < count:
        left = READ_BYTES if count is None else min(READ_BYTES, count - sent)
        data = file.read(left)
        if not data:
            break
        sock.sendall(data)
        sent += len(data)
    if hasattr(file, "seek"):
        file.seek(offset + sent)
    return sent
