"""``ustack.socket.socket`` of TCP when the stack is a running ustackd's: a real descriptor.

The descriptor is one end of a socketpair whose other end the daemon has joined to the TCP
socket. So reading, writing, waiting and closing are the standard library's and the kernel's
own; what a socketpair does not know is asked of the daemon, and the plain end of the stream or
EPIPE that it shows for any failure is turned into the error that it was.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket as _socket
import struct
import time
from collections.abc import Sequence
from operator import index
from typing import Any, NoReturn

from ustack.api import protocol
from ustack.api.daemon_link import DaemonLink
from ustack.api.messages import readable
from ustack.api.names import api_address, core_address
from ustack.api.protocol import ACCEPTED, SURE_OPTIONS, Answer, Call
from ustack.native.lib import ffi, lib

_AF_INET, SOCK_STREAM = int(_socket.AF_INET), int(_socket.SOCK_STREAM)
SOL_SOCKET = int(_socket.SOL_SOCKET)
IDLE_PRIORITIES = (protocol.NEW_PRIORITY, protocol.LISTENER_PRIORITY)
AFTER_SHUT_RD = {
    protocol.CONNECTED_PRIORITY: protocol.READ_SHUT_PRIORITY,
    protocol.LISTENER_PRIORITY: protocol.NEW_PRIORITY,
    protocol.ORPHAN_PRIORITY: protocol.NEW_PRIORITY,
}
NO_DAEMON_PAUSE_S = 0.01
OWN_OPTIONS = frozenset((20, 21, 42))
"""SO_RCVTIMEO, SO_SNDTIMEO and SO_PEEK_OFF: the descriptor is what one waits for and reads."""
SO_RCVLOWAT = int(_socket.SO_RCVLOWAT)
SO_PRIORITY = int(_socket.SO_PRIORITY)
SO_LINGER = int(_socket.SO_LINGER)
SO_ERROR = int(_socket.SO_ERROR)
MSG_PEEK = int(_socket.MSG_PEEK)
MSG_TRUNC = int(_socket.MSG_TRUNC)
MSG_OOB = int(_socket.MSG_OOB)
MSG_FASTOPEN = int(_socket.MSG_FASTOPEN)
OPTION_BYTES_MAX = 1024
LINGER_GRACE_S = 1.0
BROKEN = (errno.ECONNRESET, errno.EPIPE)

# Called by name, for every message: super() looks them up again each time.
_recv = _socket.SocketType.recv
_recv_into = _socket.SocketType.recv_into
_send = _socket.SocketType.send
_sendall = _socket.SocketType.sendall


class RemoteSocket(_socket.socket):
    """A socket of the daemon that ``link`` leads to; see ``remote_socket``."""

    is_ustack_socket = True
    """``isinstance(sock, ustack.socket.socket)`` holds, whatever the sockets are made of."""

    def __init__(
        self, link: DaemonLink, type: int, proto: int, fileno: int, key: bytes = b""
    ) -> None:
        self._link = link
        super().__init__(_AF_INET, type, proto, fileno)
        self._key = key
        """Names an accepted connection in what needs no answer."""
        self._idle = not key and self._priority() in IDLE_PRIORITIES
        """Nobody has told it to connect."""

    def _call(self, op: int, **values: Any) -> Answer:
        return self._link.call(Call(op, **values), self._open_fileno())

    def _open_fileno(self) -> int:
        fd = self.fileno()
        if fd < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return fd

    def __reduce__(self) -> Any:
        """Let multiprocessing pass the socket on, as it does the standard library's."""
        from multiprocessing.reduction import DupFd

        kind = type(self), int(self.type), self.proto
        return _rebuild, (self._link.path, DupFd(self.fileno()), *kind)

    def dup(self) -> RemoteSocket:
        """Return a second socket object with a descriptor of its own."""
        fd = _socket.dup(self.fileno())
        sock = self.__class__(self._link, self.type, self.proto, fd)
        sock.settimeout(self.gettimeout())
        return sock

    # Names and connections.

    def bind(self, address: Any) -> None:
        """Give the socket its local (host, port)."""
        addr, port = core_address(address, "bind")
        self._call(protocol.BIND, addr=addr, port=port)

    def listen(self, backlog: int = 128) -> None:
        """Accept connections; ``backlog`` of them may wait for accept()."""
        self._call(protocol.LISTEN, value=max(0, index(backlog)))
        self._set_priority(protocol.LISTENER_PRIORITY)

    def accept(self) -> tuple[RemoteSocket, tuple[str, int]]:
        """Wait for a connection; return its socket and the peer's address."""
        message = bytearray(ACCEPTED.size)
        fd = self._accept(message)
        if fd < 0:
            fd = self._accept_later(message, fd)
        _, _, peer_port, _, key = ACCEPTED.unpack(message)
        conn = RemoteSocket(self._link, SOCK_STREAM, self.proto, fd, key)
        if _socket.getdefaulttimeout() is None and self.gettimeout():
            conn.setblocking(True)
        return conn, (_socket.inet_ntoa(message[:4]), peer_port)

    def _accept(self, message: bytearray) -> int:
        """Take a connection if one waits; return its descriptor, or the negative errno."""
        buffer = ffi.from_buffer(message)
        fd: int = lib.us_client_accept(
            self.fileno(), protocol.LISTENER_PRIORITY, buffer, len(message)
        )
        return fd

    def _accept_later(self, message: bytearray, error: int) -> int:
        """Wait for a connection unless ``error``, a negative errno, speaks against it."""
        timeout = self.gettimeout()
        end = None if timeout is None else time.monotonic() + timeout
        while error == -errno.EAGAIN:
            if timeout == 0 or (timeout is None and not os.get_blocking(self.fileno())):
                break
            left = None if end is None else max(0.0, end - time.monotonic())
            if not self._wait(select.POLLIN, left):
                raise TimeoutError("timed out")
            error = self._accept(message)
        if error in (-errno.EINVAL, -errno.ENETDOWN):
            error = -self._why_nobody_comes()
        if error < 0:
            self._raise(-error)
        return error

    def _why_nobody_comes(self) -> int:
        """Return accept()'s errno. Of a daemon that has gone it says so once.

        Then it is ENFILE, of which servers know that they had better wait, and takes a little
        while, since some do not, and the descriptor is readable for good.
        """
        priority = self._priority()
        if priority == protocol.LISTENER_PRIORITY:
            self._set_priority(protocol.ORPHAN_PRIORITY)
            return errno.ENETDOWN
        if priority != protocol.ORPHAN_PRIORITY:
            return errno.EINVAL
        time.sleep(NO_DAEMON_PAUSE_S)
        return errno.ENFILE

    def connect(self, address: Any) -> None:
        """Connect to (host, port), as the standard library's."""
        error = self._connect(core_address(address, "connect"))
        if error == errno.EAGAIN and self.gettimeout():
            raise TimeoutError("timed out")
        if error:
            raise OSError(error, os.strerror(error))

    def disconnect(self) -> None:
        """End the connection, or be connected to nobody; be a new socket again."""
        self._call(protocol.DISCONNECT)

    def connect_ex(self, address: Any) -> int:
        """Connect as connect() does, but return the error number, 0 if there is none."""
        return self._connect(core_address(address, "connect_ex"))

    def _connect(self, address: tuple[int, int]) -> int:
        error = self._attempt(address)
        timeout = self.gettimeout()
        if error not in (errno.EINPROGRESS, errno.EALREADY) or timeout == 0:
            return error
        if error == errno.EALREADY and timeout is not None:
            return error
        return self._await_connect(address, timeout)

    def _await_connect(self, address: tuple[int, int], timeout: float | None) -> int:
        if not self._wait(select.POLLOUT, timeout):
            return errno.EAGAIN
        return self._attempt(address)

    def _attempt(self, address: tuple[int, int]) -> int:
        self._begin()
        try:
            self._call(protocol.CONNECT, addr=address[0], port=address[1])
        except OSError as exc:
            return exc.errno or errno.EINVAL
        return 0

    def _priority(self) -> int:
        """Return what it was told to do, by whoever holds it."""
        return super().getsockopt(SOL_SOCKET, SO_PRIORITY)

    def _set_priority(self, priority: int) -> None:
        super().setsockopt(SOL_SOCKET, SO_PRIORITY, priority)

    def _begin(self) -> None:
        """It is told to connect: from now on reading and writing wait for that."""
        self._set_priority(protocol.CONNECTED_PRIORITY)
        self._idle = False

    def _wait(self, events: int, timeout: float | None) -> bool:
        """Wait for the descriptor; return whether the time was enough."""
        poll = select.poll()
        poll.register(self.fileno(), events)
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if end is None else max(0.0, end - time.monotonic()) * 1e3
            if poll.poll(left):
                return True
            if end is not None and time.monotonic() >= end:
                return False

    def shutdown(self, how: int) -> None:
        """Close one direction or both, whoever else holds the socket."""
        done = self._call(protocol.SHUTDOWN, value=how).value
        after = AFTER_SHUT_RD.get(self._priority())
        if how != _socket.SHUT_WR and after is not None:
            self._set_priority(after)
        if not done:
            super().shutdown(how)

    def getsockname(self) -> tuple[str, int]:
        """Return the local (host, port)."""
        answer = self._call(protocol.GETSOCKNAME)
        return api_address((answer.addr, answer.port))

    def getpeername(self) -> tuple[str, int]:
        """Return the remote (host, port)."""
        answer = self._call(protocol.GETPEERNAME)
        return api_address((answer.addr, answer.port))

    # Options.

    def getsockopt(self, level: int, optname: int, buflen: int = 0) -> Any:
        """Return an option: an int, or with ``buflen`` that many bytes at most."""
        if level == SOL_SOCKET and optname in OWN_OPTIONS:
            return super().getsockopt(level, optname, buflen)
        if not 0 <= buflen <= OPTION_BYTES_MAX:
            raise OSError("getsockopt buflen out of range")
        answer = self._call(
            protocol.GETSOCKOPT, level=int(level), name=int(optname), value=buflen or 4
        )
        return answer.data if buflen else struct.unpack("i", answer.data)[0]

    def setsockopt(self, level: int, optname: int, value: Any, optlen: int = 0) -> None:
        """Set an option, of the connection in the daemon or of the descriptor."""
        if level == SOL_SOCKET and optname in OWN_OPTIONS:
            super().setsockopt(level, optname, value)
            return
        if self._key and (level, optname) in SURE_OPTIONS and self._tell(level, optname, value):
            return
        if value is None and optlen:
            self._raise(errno.EFAULT)  # a null pointer
        data = struct.pack("i", value) if isinstance(value, int) else bytes(readable(value))
        if (level, optname) == (SOL_SOCKET, SO_LINGER):
            self._link.lingers = True
        self._call(protocol.SETSOCKOPT, level=int(level), name=int(optname), data=data)
        if (level, optname) == (SOL_SOCKET, SO_RCVLOWAT):
            super().setsockopt(level, optname, data)

    def _tell(self, level: int, optname: int, value: Any) -> bool:
        """Have an option set that is sure to be; return whether that was said."""
        if type(value) not in (int, bool) or self.fileno() < 0:
            return False
        return self._link.tell(Call(protocol.TELL, level, optname, value, data=self._key))

    # Moving bytes: the standard library's, but for what failures are called.

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """Receive up to ``bufsize`` bytes; b"" when the peer has sent its last."""
        if self._idle:
            if index(bufsize) < 0:
                raise ValueError("negative buffersize in recv")
            self._raise(errno.ENOTCONN)
        if flags and flags & MSG_TRUNC:
            return bytes(self.recv_into(bytearray(bufsize), 0, flags))
        try:
            data = _recv(self, bufsize, flags)
        except OSError as exc:
            self._explain(exc)
        return data if data or not bufsize else self._end(bufsize, flags)

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """Receive into ``buffer``; return how many bytes came."""
        if self._idle:
            self._raise(errno.ENOTCONN)
        if flags and flags & MSG_TRUNC:  # bytes that nobody wants
            buffer, flags = bytearray(nbytes or memoryview(buffer).nbytes), flags & ~MSG_TRUNC
        try:
            count = _recv_into(self, buffer, nbytes, flags)
        except OSError as exc:
            self._explain(exc)
        if count:
            return count
        wanted = nbytes or memoryview(buffer).nbytes
        return self._end_into([buffer], wanted, flags) if wanted else 0

    def recvfrom(self, bufsize: int, flags: int = 0) -> tuple[bytes, None]:
        """Receive; a stream has no address of origin."""
        return self.recv(bufsize, flags), None

    def recvfrom_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> tuple[int, None]:
        """Receive into a buffer; a stream has no address of origin."""
        return self.recv_into(buffer, nbytes, flags), None

    def recvmsg(self, bufsize: int, ancbufsize: int = 0, flags: int = 0) -> Any:
        """Receive; a stream has neither ancillary data nor an address of origin."""
        return self.recv(bufsize, flags), [], 0, None

    def recvmsg_into(self, buffers: Any, ancbufsize: int = 0, flags: int = 0) -> Any:
        """Receive into several buffers; see ``recvmsg``."""
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        try:
            count = super().recvmsg_into(views, 0, flags)[0]
        except OSError as exc:
            self._explain(exc)
        if not count and (wanted := sum(view.nbytes for view in views)):
            count = self._end_into(views, wanted, flags)
        return count, [], 0, None

    def send(self, data: Any, flags: int = 0) -> int:
        """Send; return how many bytes were taken."""
        if self._idle:
            readable(data).release()
            self._raise(errno.EPIPE)
        if flags and flags & MSG_OOB:
            return self._call(protocol.SENDOOB, data=bytes(data)).value
        try:
            return _send(self, data, flags)
        except OSError as exc:
            self._explain(exc)

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send all of ``data``, or raise; the timeout is for the whole."""
        if self._idle or (flags and flags & MSG_OOB):
            self.send(data, flags)
            return
        try:
            _sendall(self, data, flags)
        except OSError as exc:
            self._explain(exc)

    def sendto(self, data: Any, *args: Any) -> int:
        """Send; the address is ignored, as for any connected stream, but for MSG_FASTOPEN."""
        if not 1 <= len(args) <= 2:
            raise TypeError(f"sendto() takes 2 or 3 arguments ({1 + len(args)} given)")
        flags = args[0] if len(args) > 1 else 0
        if flags & MSG_FASTOPEN:
            return self._send_fastopen(data, flags & ~MSG_FASTOPEN, args[-1])
        return self.send(data, flags)

    def _send_fastopen(self, data: Any, flags: int, address: Any) -> int:
        """Connect with data in the SYN; what does not fit follows once there is a connection."""
        addr, port = core_address(address, "sendto")
        with memoryview(data) as whole, whole.cast("B") as view:
            try:
                self._begin()
                first = bytes(view[: protocol.MAX_DATA])
                sent = self._call(protocol.FASTOPEN, addr=addr, port=port, data=first).value
            except BlockingIOError:
                if self.gettimeout() == 0:
                    raise
                sent = 0
            if sent == len(view) or self.gettimeout() == 0:
                return sent
            if error := self._await_connect((addr, port), self.gettimeout()):
                raise OSError(error, os.strerror(error))
            return sent + self.send(view[sent:], flags)

    def sendmsg(self, buffers: Any, ancdata: Any = (), flags: int = 0, address: Any = None) -> int:
        """Send several buffers as one."""
        try:
            return super().sendmsg(buffers, ancdata, flags)
        except OSError as exc:
            self._explain(exc)

    # The end.

    def _real_close(self, *args: Any) -> None:
        """Close the descriptor; with SO_LINGER wait, if it was the last one."""
        line, seconds = self._linger_line() if self._link.lingers else (None, 0)
        super()._real_close(*args)  # type: ignore[misc]
        if line is None:
            return
        with line:
            line.settimeout(seconds + LINGER_GRACE_S)
            with contextlib.suppress(OSError):
                line.send(b"x")
                line.recv(1)

    def _linger_line(self) -> tuple[_socket.socket | None, int]:
        """Return what tells when close() may return, and how long that may take."""
        try:
            answer, fds = self._link.exchange(Call(protocol.LINGER), self.fileno())
        except OSError:
            return None, 0
        return (_socket.socket(fileno=fds[0]) if fds else None), answer.value

    # Failures.

    def _pending_error(self) -> int:
        """Return the errno of a connection that broke; of the daemon if it is gone."""
        try:
            return int(self.getsockopt(SOL_SOCKET, SO_ERROR))
        except OSError:
            return errno.ECONNRESET

    def _end(self, wanted: int, flags: int) -> bytes:
        """Return what has come behind the end that SHUT_RD has made: b"" if nothing has."""
        if self._priority() == protocol.READ_SHUT_PRIORITY:
            room = min(wanted, protocol.MAX_DATA)
            try:
                return self._call(protocol.RECV, name=flags & MSG_PEEK, value=room).data
            except OSError as exc:
                if exc.errno not in (errno.ENOTCONN, errno.ENETDOWN):
                    raise
        self._check_end()
        return b""

    def _end_into(self, buffers: Sequence[Any], wanted: int, flags: int) -> int:
        """Do as ``_end``, into buffers; return how many bytes there were."""
        data = left = self._end(wanted, flags)
        for buffer in buffers if data else ():
            with memoryview(buffer) as whole, whole.cast("B") as view:
                size = min(len(view), len(left))
                view[:size], left = left[:size], left[size:]
        return len(data)

    def _check_end(self) -> None:
        """A hang-up that is no FIN is an error."""
        if lib.us_client_has_hung_up(self.fileno()):
            error = self._pending_error()
            if error:
                raise OSError(error, os.strerror(error))

    def _explain(self, exc: OSError) -> NoReturn:
        """Raise ``exc``, or the error that it stands for."""
        if exc.errno not in BROKEN:
            raise exc
        error = self._pending_error() or exc.errno
        raise OSError(error, os.strerror(error)) from None

    def _raise(self, error: int) -> NoReturn:
        error = error if self.fileno() >= 0 else errno.EBADF
        raise OSError(error, os.strerror(error))


def _rebuild(
    path: str, passed: Any, cls: type[RemoteSocket], type: int, proto: int
) -> RemoteSocket:
    """Make a socket that another process has passed on."""
    from ustack.api.stacks import daemon_link

    return cls(daemon_link() or DaemonLink(path), type, proto, passed.detach())
