"""The standard library's ``socket.socket``, on the stack: AF_INET.

The core's sockets never block. Here a call is attempted under the runtime's lock and, unless
the socket is non-blocking, attempted again each time the socket's wait queue is woken, until
its timeout (``streams``, ``messages``). Names, arguments, return values and errors are the
standard library's.
"""

from __future__ import annotations

import errno
import io
import os
import socket as _socket
import warnings
from operator import index
from typing import Any

from ustack.api import attempts, messages, sockopts, streams, zerocopy
from ustack.api.files import FILES, SocketFile, close_quietly, duplicate
from ustack.api.names import api_address, core_address
from ustack.api.stacks import daemon_link, default_runtime, kernel_has_other_families
from ustack.inet.dgram import Message
from ustack.inet.sockets import InetSocket
from ustack.runtime.waiter import NOT_YET

SOCK_TYPE_MASK = 0xF
MSG_DONTWAIT = int(_socket.MSG_DONTWAIT)
MSG_FASTOPEN = int(_socket.MSG_FASTOPEN)
MSG_WAITALL = int(_socket.MSG_WAITALL)
SOCK_STREAM = int(_socket.SOCK_STREAM)
KERNEL_FAMILIES = (_socket.AF_UNIX, _socket.AF_NETLINK, _socket.AF_PACKET)
"""Families that have nothing to do with the stack."""
GLOBAL_DEFAULT_TIMEOUT: Any = _socket._GLOBAL_DEFAULT_TIMEOUT  # type: ignore[attr-defined]


class _SocketType(type):
    """Lets sockets of a daemon be instances of ``socket`` too."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return super().__instancecheck__(instance) or (
            cls is socket and getattr(instance, "is_ustack_socket", False)
        )


class socket(metaclass=_SocketType):
    """A socket of this process's stack (see ``ustack.up``) or of a daemon's: TCP, UDP, raw, ping.

    Raises:
        OSError: EAFNOSUPPORT, ESOCKTNOSUPPORT or EPROTONOSUPPORT: the stack has only IPv4
            and these; EACCES: see ``net.ipv4.ping_group_range``; EBADF: ``fileno`` is none
            of ours.
    """

    __module__ = "ustack.socket"
    __slots__ = (
        "__weakref__", "_closed", "_fd", "_file", "_io_refs", "_kind", "_proto", "_timeout_us",
    )  # fmt: skip

    def __new__(cls, family: int = -1, *args: Any, **kwargs: Any) -> Any:
        """Make a ``RemoteSocket`` instead if this process uses a daemon (``ustack.connect``).

        After ``ustack.install()`` families that have nothing to do with IP are the kernel's.
        """
        if family in KERNEL_FAMILIES and kernel_has_other_families():
            return _socket.socket(family, *args, **kwargs)
        link = daemon_link() if cls is socket else None
        if link is None:
            return super().__new__(cls)
        from ustack.api.remote_kinds import remote_socket

        return remote_socket(link, family, *args, **kwargs)

    def __init__(
        self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None
    ) -> None:
        self._closed = True
        self._kind = SOCK_STREAM
        self._io_refs = 0
        self._file: SocketFile | None = None
        self._fd = -1
        self._proto = max(proto, 0)
        nonblocking = False
        if fileno is None:
            nonblocking = type != -1 and bool(type & _socket.SOCK_NONBLOCK)
            kind = _check_kind(family, type)
            runtime = default_runtime()
            groups = () if kind == SOCK_STREAM else (os.getegid(), *os.getgroups())
            core = runtime.call(runtime.stack.socket, kind, self._proto, groups)
            self._adopt(FILES.install(SocketFile(runtime, core)))
        else:
            self._adopt(fileno)
            if proto == -1:
                self._proto = self._open_file().core.protocol
        default = _socket.getdefaulttimeout()
        self._timeout_us: int | None = 0 if nonblocking else _to_us(default)

    def _adopt(self, fd: int) -> None:
        file = FILES.lookup(fd)
        if not isinstance(file, SocketFile):
            raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK))
        self._file = file
        self._fd = fd
        self._kind = file.core.type
        self._closed = False

    @property
    def family(self) -> _socket.AddressFamily:
        """AF_INET."""
        return _socket.AF_INET

    @property
    def type(self) -> _socket.SocketKind:
        """SOCK_STREAM, SOCK_DGRAM or SOCK_RAW."""
        return _socket.SocketKind(self._kind)

    @property
    def proto(self) -> int:
        """The protocol number that the socket was made with."""
        return self._proto

    @property
    def timeout(self) -> float | None:
        """The timeout in seconds: None blocks for ever, 0.0 never."""
        return self.gettimeout()

    def __repr__(self) -> str:
        name = f"{type(self).__module__}.{type(self).__qualname__}"
        text = f"<{name}{' [closed]' if self._closed else ''} fd={self._fd}, "
        text += f"family={self.family:d}, type={self.type:d}, proto={self._proto}"
        for name, query in (("laddr", self.getsockname), ("raddr", self.getpeername)):
            try:
                text += f", {name}={query()}"
            except OSError:
                continue
        return text + ">"

    def __enter__(self) -> socket:
        return self

    def __exit__(self, *exc: object) -> None:
        if not self._closed:
            self.close()

    def __getstate__(self) -> None:
        raise TypeError(f"cannot pickle {self.__class__.__name__!r} object")

    def __del__(self) -> None:
        file = getattr(self, "_file", None)
        if file is None:
            return
        fd, self._file = self._fd, None
        file.runtime.defer(lambda: close_quietly(fd, file))
        warnings.warn(f"unclosed ustack socket fd={fd}", ResourceWarning, source=self, stacklevel=2)

    # Waiting.

    def settimeout(self, timeout: float | None) -> None:
        """Set how long calls may block, in seconds; None: for ever, 0: not at all."""
        if timeout is not None:
            timeout = timeout if isinstance(timeout, float) else index(timeout)
            if timeout < 0:
                raise ValueError("Timeout value out of range")
        self._timeout_us = _to_us(timeout)

    def gettimeout(self) -> float | None:
        """Return the timeout in seconds, None if there is none."""
        return None if self._timeout_us is None else self._timeout_us / 1e6

    def setblocking(self, flag: bool) -> None:
        """Block for ever, or not at all."""
        self._timeout_us = None if flag else 0

    def getblocking(self) -> bool:
        """Return False when calls return at once."""
        return self._timeout_us != 0

    def _open_file(self) -> SocketFile:
        if self._file is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._file

    def _wait_us(self, flags: int, option_us: int | None) -> int | None:
        """Return how long a call may wait: MSG_DONTWAIT, our timeout, or SO_xxxTIMEO."""
        if flags & MSG_DONTWAIT:
            return 0
        return option_us if self._timeout_us is None else self._timeout_us

    def _expired(self, timeout_us: int | None) -> OSError:
        """Return the error of a call whose time is over."""
        if self._timeout_us and timeout_us:
            return TimeoutError("timed out")
        return BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    # Names and connections.

    def bind(self, address: Any) -> None:
        """Give the socket its local (host, port)."""
        file = self._open_file()
        file.runtime.call(file.core.bind, *core_address(address, "bind"))

    def listen(self, backlog: int = 128) -> None:
        """Accept connections; ``backlog`` of them may wait for accept()."""
        file = self._open_file()
        file.runtime.call(file.core.listen, max(0, index(backlog)))

    def accept(self) -> tuple[socket, tuple[str, int]]:
        """Wait for a connection; return its socket and the peer's address."""
        file = self._open_file()
        timeout_us = self._wait_us(0, file.rcvtimeo_us)
        core = file.runtime.wait_for(file, timeout_us, True, attempts.try_accept, file.core)
        if core is NOT_YET:
            raise self._expired(timeout_us)
        return self._accepted(SocketFile(file.runtime, core)), api_address(core.getpeername())

    def _accepted(self, file: SocketFile) -> socket:
        """Make the socket of a connection that was accepted."""
        conn = object.__new__(socket)
        conn._file, conn._fd = file, FILES.install(file)
        conn._kind, conn._proto = self._kind, self._proto
        conn._io_refs, conn._closed = 0, False
        conn._timeout_us = _to_us(_socket.getdefaulttimeout())
        return conn

    def connect(self, address: Any) -> None:
        """Connect to (host, port).

        Raises:
            OSError: ConnectionRefusedError, TimeoutError, BlockingIOError (EINPROGRESS: the
                socket does not block), ...
        """
        error = self._connect(core_address(address, "connect"))
        if error == errno.EAGAIN and self._timeout_us:
            raise TimeoutError("timed out")
        if error:
            raise OSError(error, os.strerror(error))

    def connect_ex(self, address: Any) -> int:
        """Connect as connect() does, but return the error number, 0 if there is none."""
        return self._connect(core_address(address, "connect_ex"))

    def disconnect(self) -> None:
        """End the connection, or a connect() under way, and be a new socket again.

        This is what C has connect() with an AF_UNSPEC address for; the standard module has no
        way to say that. The peer is reset, what was not read is lost, options and a port that
        bind() named stay; a listener is one no longer. The socket's next call may report
        ECONNRESET, and then it can connect() or listen() again.
        """
        file = self._open_file()
        file.runtime.call(file.core.disconnect)

    def _connect(self, address: tuple[int, int]) -> int:
        file = self._open_file()
        try:
            file.runtime.call(file.core.connect, *address)
            return 0
        except OSError as exc:
            error = exc.errno or errno.EINVAL
        timeout_us = self._wait_us(0, file.sndtimeo_us)
        if timeout_us == 0 or error not in (errno.EINPROGRESS, errno.EALREADY):
            return error
        if error == errno.EALREADY and self._timeout_us is not None:
            return error
        return self._await_connect(file, address, timeout_us)

    def _await_connect(
        self, file: SocketFile, address: tuple[int, int], timeout_us: int | None
    ) -> int:
        """Wait for an attempt's end; return its error number, 0 if it has succeeded."""
        done = file.runtime.wait_for(file, timeout_us, False, attempts.connect_done, file.core)
        if done is NOT_YET:
            return errno.EAGAIN if self._timeout_us else errno.EINPROGRESS
        try:
            file.runtime.call(file.core.connect, *address)  # reports how it ended
        except OSError as exc:
            return exc.errno or errno.EINVAL
        return 0

    def getsockname(self) -> tuple[str, int]:
        """Return the local (host, port)."""
        file = self._open_file()
        return api_address(file.runtime.call(file.core.getsockname))

    def getpeername(self) -> tuple[str, int]:
        """Return the remote (host, port)."""
        file = self._open_file()
        return api_address(file.runtime.call(file.core.getpeername))

    # Receiving.

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """Receive up to ``bufsize`` bytes; b"" when the peer has sent its last."""
        if not flags and type(bufsize) is int and bufsize > 0:
            file = self._file or self._open_file()
            core = file.core
            if isinstance(core, InetSocket):
                if self._timeout_us is not None:
                    text = file.runtime.call_now(core.recv_now, bufsize)
                else:
                    text = file.runtime.call_busy(core.recv_wait, bufsize)
                if text is not None:
                    return text
        return streams.recv(self, bufsize, flags)

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """Receive into ``buffer``, at most ``nbytes`` (0: its length); return how many bytes."""
        if not flags and not nbytes and type(buffer) is bytearray:
            file = self._file or self._open_file()
            core = file.core
            if isinstance(core, InetSocket):
                waits = self._timeout_us != 0
                attempt = core.recv_busy if waits else core.recv_into_now
                if got := file.runtime.call_now(attempt, buffer):
                    return got
        with messages.writable(buffer, "recv_into") as whole, whole.cast("B") as view:
            if nbytes < 0:
                raise ValueError("negative buffersize in recv_into")
            if nbytes > view.nbytes:
                raise ValueError("buffer too small for requested bytes")
            n = nbytes or view.nbytes
            if flags & MSG_WAITALL and self._kind == SOCK_STREAM:
                return streams.recv_all(self, view[:n], flags)
            return streams.recv_into(self, view, n, flags)

    def _receive(self, bufsize: int, flags: int) -> Message:
        return messages.receive(self, bufsize, flags)

    def recvfrom(self, bufsize: int, flags: int = 0) -> tuple[bytes, tuple[str, int] | None]:
        """Receive, and tell from whom; a stream has no address of origin."""
        if self._kind == SOCK_STREAM:
            return self.recv(bufsize, flags), None
        if bufsize < 0:
            raise ValueError("negative buffersize in recvfrom")
        message = self._receive(bufsize, flags)
        return message.data, messages.origin(message)

    def recvfrom_into(
        self, buffer: Any, nbytes: int = 0, flags: int = 0
    ) -> tuple[int, tuple[str, int] | None]:
        """Receive into a buffer, and tell from whom; a stream has no address of origin."""
        if self._kind == SOCK_STREAM:
            return self.recv_into(buffer, nbytes, flags), None
        return messages.recvfrom_into(self._receive, buffer, nbytes, flags)

    def recvmsg(
        self, bufsize: int, ancbufsize: int = 0, flags: int = 0
    ) -> tuple[bytes, list[tuple[int, int, bytes]], int, tuple[str, int] | None]:
        """Receive with ancillary data: (data, ancillary data, flags, address)."""
        if bufsize < 0:
            raise ValueError("negative buffer size in recvmsg()")
        return messages.recvmsg(self._receive, bufsize, ancbufsize, flags)

    def recvmsg_into(
        self, buffers: Any, ancbufsize: int = 0, flags: int = 0
    ) -> tuple[int, list[tuple[int, int, bytes]], int, tuple[str, int] | None]:
        """Receive into several buffers: (bytes, ancillary data, flags, address)."""
        return messages.recvmsg_into(self._receive, buffers, ancbufsize, flags)

    # Sending.

    def send(self, data: Any, flags: int = 0) -> int:
        """Send; return how many bytes were taken: all of them if the socket blocks for ever."""
        sent = self._send_now(data, flags)
        if not sent:
            return streams.send(self, data, flags)
        if sent == len(data) or self._timeout_us is not None:
            return sent
        try:
            return sent + streams.send(self, memoryview(data)[sent:], flags)
        except OSError:
            return sent  # the next call tells

    def _send_now(self, data: Any, flags: int) -> int:
        """Return how many bytes could be sent without further ado."""
        file = self._file or self._open_file()
        core = file.core
        if flags or type(data) is not bytes or not isinstance(core, InetSocket):
            return 0
        return file.runtime.call_now(core.send_now, data) or 0

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send all of ``data``, or raise; the timeout is for the whole."""
        sent = self._send_now(data, flags)
        if not sent:
            streams.sendall(self, data, flags)
        elif sent < len(data):
            streams.sendall(self, memoryview(data)[sent:], flags)

    def sendto(self, data: Any, *args: Any) -> int:
        """Send to an address: ``sendto(data, address)`` or ``sendto(data, flags, address)``.

        A stream ignores the address, unless MSG_FASTOPEN is set: then this connects as well,
        and what a SYN takes goes with it (RFC 7413).
        """
        if not 1 <= len(args) <= 2:
            raise TypeError(f"sendto() takes 2 or 3 arguments ({1 + len(args)} given)")
        flags = args[0] if len(args) > 1 else 0
        if self._kind != SOCK_STREAM:
            return messages.send(self, data, flags, core_address(args[-1], "sendto"))
        if flags & MSG_FASTOPEN:
            return streams.send_fastopen(self, data, flags & ~MSG_FASTOPEN, args[-1])
        return self.send(data, flags)

    def sendmsg(self, buffers: Any, ancdata: Any = (), flags: int = 0, address: Any = None) -> int:
        """Send several pieces as one, with ancillary data (IP_PKTINFO, IP_TTL, IP_TOS)."""
        return messages.sendmsg(self, buffers, ancdata, flags, address)

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        """Send a file opened in binary mode; return how many bytes.

        The kernel reads an ordinary file straight into the send queue's memory: no copy at the
        socket. From what has no descriptor it is read, and copied.
        """
        if self._timeout_us == 0:
            raise ValueError("non-blocking sockets are not supported")
        if self._kind != SOCK_STREAM:
            raise ValueError("only SOCK_STREAM type sockets are supported")
        if count is not None and count <= 0:
            raise ValueError(f"count must be a positive integer (got {count!r})")
        return zerocopy.sendfile(self, file, offset, count)

    def send_ref(self, data: Any, flags: int = 0) -> zerocopy.SentBuffer:
        """Send all of ``data`` from where it lies, without a copy at the socket (MSG_ZEROCOPY).

        Blocking and timeouts are ``send``'s, and a non-blocking socket may take less of it.

        Returns:
            What tells how much was taken (``sent``) and, by ``wait``, when the peer has all
            of that: until then ``data`` must not change, and cannot be resized.
        """
        return zerocopy.send_ref(self, data, flags)

    # Options.

    def setsockopt(self, level: int, optname: int, value: Any, optlen: int | None = None) -> None:
        """Set an option; SO_RCVTIMEO and SO_SNDTIMEO take a struct timeval."""
        sockopts.setsockopt(self, level, optname, value, optlen)

    def getsockopt(self, level: int, optname: int, buflen: int = 0) -> Any:
        """Return an option: a number, or ``buflen`` bytes at most."""
        return sockopts.getsockopt(self, level, optname, buflen)

    def ioctl(self, request: int) -> int:
        """Return what SIOCINQ, SIOCOUTQ, SIOCOUTQNSD or SIOCATMARK say of the queues: bytes.

        The numbers are Linux's: ``termios.FIONREAD``, ``termios.TIOCOUTQ``, 0x894B, 0x8905.
        """
        file = self._open_file()
        return file.runtime.call(file.core.ioctl, request)

    # Descriptors and the end.

    def fileno(self) -> int:
        """Return the stack's number for the socket, -1 once closed; no kernel descriptor."""
        return self._fd

    def shutdown(self, how: int) -> None:
        """Shut down reading, writing or both, whoever else holds the connection."""
        file = self._open_file()
        file.runtime.call(file.core.shutdown, how)

    def close(self) -> None:
        """Give up the socket; the connection ends when nobody else holds it."""
        self._closed = True
        if self._io_refs <= 0:
            self._real_close()

    def _real_close(self) -> None:
        file = self._file
        if file is None:
            return
        self._file, fd, self._fd = None, self._fd, -1
        try:
            _linger(file)
        finally:
            FILES.close(fd)

    def _decref_socketios(self) -> None:
        """A file made by makefile() was closed."""
        if self._io_refs > 0:
            self._io_refs -= 1
        if self._closed:
            self.close()

    def detach(self) -> int:
        """Let go of the descriptor without closing it; return its number."""
        self._closed = True
        self._file, fd, self._fd = None, self._fd, -1
        return fd

    def dup(self) -> socket:
        """Return another socket for the same connection."""
        copy = socket(fileno=duplicate(self._fd))
        copy._timeout_us = self._timeout_us
        copy._proto = self._proto
        return copy

    def get_inheritable(self) -> bool:
        """Return False: the stack ends with the process."""
        return False

    def set_inheritable(self, inheritable: bool) -> None:
        """Accept False only.

        Raises:
            OSError: EOPNOTSUPP: a program that is executed cannot have the stack's sockets.
        """
        if inheritable:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    def makefile(
        self,
        mode: str = "r",
        buffering: int | None = None,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> Any:
        """Return a file object on the connection, as open() would for ``mode``."""
        if not set(mode) <= {"r", "w", "b"}:
            raise ValueError(f"invalid mode {mode!r} (only r, w, b allowed)")
        writing = "w" in mode
        reading = "r" in mode or not writing
        raw = _socket.SocketIO(self, ("r" if reading else "") + ("w" if writing else ""))  # type: ignore[arg-type]
        self._io_refs += 1
        if buffering == 0:
            if "b" not in mode:
                raise ValueError("unbuffered streams must be binary")
            return raw
        size = io.DEFAULT_BUFFER_SIZE if buffering is None or buffering < 0 else buffering
        buffered: Any
        if reading and writing:
            buffered = io.BufferedRWPair(raw, raw, size)
        else:
            buffered = io.BufferedReader(raw, size) if reading else io.BufferedWriter(raw, size)
        if "b" in mode:
            return buffered
        text = io.TextIOWrapper(buffered, io.text_encoding(encoding), errors, newline)
        text.mode = mode  # type: ignore[misc]
        return text


def _check_kind(family: int, type: int) -> int:
    """Return the socket type without its flags, or say that only AF_INET is supported."""
    if family not in (-1, _socket.AF_INET):
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
    return SOCK_STREAM if type == -1 else int(type) & SOCK_TYPE_MASK


def _to_us(timeout: float | None) -> int | None:
    """Turn seconds into microseconds, rounded up so that a short timeout is not none."""
    return None if timeout is None else -int(-timeout * 1_000_000 // 1)


def _linger(file: SocketFile) -> None:
    """SO_LINGER: send FIN and wait for its acknowledgement before the last close."""
    core, runtime = file.core, file.runtime
    if runtime.closed or file.refs > 1 or not core.linger_s:
        return
    if runtime.call(attempts.close_gracefully, core):
        timeout_us = core.linger_s * 1_000_000
        runtime.wait_for(file, timeout_us, False, attempts.all_acknowledged, core)
