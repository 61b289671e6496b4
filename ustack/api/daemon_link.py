"""This process's line to a running ustackd: one request, one answer, no waiting in between.

A forked child opens its own line, since two could not share the answers. A daemon that was
restarted is found again by the next call; sockets of the one before stay broken.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from pathlib import Path
from threading import Lock

from ustack.api.protocol import (
    HELLO,
    MAX_DATA,
    REPLY,
    Answer,
    Call,
    pack_call,
    parse_answer,
    rights,
    rights_in,
)

ANSWER_TIMEOUT = struct.pack("ll", 30, 0)
"""A daemon that says nothing for so long is taken for stuck (struct timeval)."""
RIGHTS_BYTES = socket.CMSG_SPACE(4)


class DaemonLink:
    """A line to the daemon whose control socket is at ``path``.

    Raises:
        OSError: nobody answers there, or we may not.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self._lock = Lock()
        self._sock: socket.socket | None = None
        self.lingers = False
        """SO_LINGER was set on some socket: close() has to ask."""
        with self._lock:
            self._open()
        os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        """The parent's line is not ours, and its lock may be held by a thread that is not here."""
        self._lock = Lock()
        self._hang_up()

    def _hang_up(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _open(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            for which in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):  # cheaper than settimeout()
                sock.setsockopt(socket.SOL_SOCKET, which, ANSWER_TIMEOUT)
            sock.connect(self.path)
            sock.send(pack_call(Call(HELLO)))
            parse_answer(sock.recv(REPLY.size))
        except BaseException:
            sock.close()
            raise
        self._sock = sock
        return sock

    def call(self, call: Call, fd: int = -1) -> Answer:
        """Have the daemon perform ``call`` on the socket that ``fd`` is.

        Raises:
            OSError: what the call gives; ENETDOWN: no daemon is there.
        """
        return self.exchange(call, fd)[0]

    def tell(self, call: Call) -> bool:
        """Have the daemon perform a call that has no answer; return whether it was sent."""
        message = pack_call(call)
        try:
            with self._lock:
                (self._sock or self._open()).send(message)
        except OSError:
            return False
        return True

    def socket(self, call: Call) -> int:
        """Have the daemon make a socket; return its descriptor.

        Raises:
            OSError: as ``call``; EMFILE: this process may have no more descriptors.
        """
        fds = self.exchange(call, -1)[1]
        if not fds:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return fds[0]

    def exchange(self, call: Call, fd: int) -> tuple[Answer, list[int]]:
        """Do as ``call``; return the descriptors as well that come with the answer."""
        message = pack_call(call)
        with self._lock:
            for _attempt in range(2):
                try:
                    sock = self._sock or self._open()
                    sock.sendmsg([message], rights(fd))
                    data, ancillary, _, _ = sock.recvmsg(
                        REPLY.size + MAX_DATA, RIGHTS_BYTES, socket.MSG_CMSG_CLOEXEC
                    )
                except OSError:
                    if fd >= 0:
                        os.fstat(fd)  # EBADF is the caller's
                    data = b""
                if data:
                    break
                self._hang_up()  # an older daemon's line: try once with the present one
            else:
                raise OSError(errno.ENETDOWN, os.strerror(errno.ENETDOWN))
        fds = rights_in(ancillary)
        try:
            return parse_answer(data), fds
        except OSError:
            for passed in fds:
                with contextlib.suppress(OSError):
                    os.close(passed)
            raise
