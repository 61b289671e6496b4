"""Socket calls of client processes: the binary messages of the control socket.

The layout is ``ustack_c/preload/ustack_proto.h``'s. A request about a socket brings the
client's end of it along, so that nobody can name a socket that he does not hold. No call
waits here; each is answered at once, and a client that does not fetch its answers is hung
up on.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ustack.api.protocol import (
    BIND,
    CONNECT,
    DATAGRAM,
    DISCONNECT,
    FASTOPEN,
    GETPEERNAME,
    GETSOCKNAME,
    GETSOCKOPT,
    HELLO,
    IOCTL,
    KEY_BYTES,
    LINGER,
    LISTEN,
    MAX_DATA,
    MAX_REQUEST_BYTES,
    NEW_PRIORITY,
    RECV,
    RECVERR,
    REQUEST,
    SENDMSG,
    SENDOOB,
    SETSOCKOPT,
    SHUTDOWN,
    SOCKET,
    SURE_OPTIONS,
    TELL,
    VERSION,
    Answer,
    Call,
    pack_answer,
    pack_call,
    parse_call,
    rights,
    rights_in,
)
from ustack.daemon.client_end import ClientEnd
from ustack.daemon.join_hub import JoinHub
from ustack.daemon.limits import Owner

REQUESTS_PER_TURN = 16
RIGHTS_BYTES = socket.CMSG_SPACE(4)
RECV_FLAGS = int(socket.MSG_DONTWAIT) | int(socket.MSG_CMSG_CLOEXEC)
TOLD = pack_call(Call(TELL))[:4]
"""How a message begins that has no answer."""
TOLD_BYTES = REQUEST.size + KEY_BYTES
SOL_SOCKET, SO_ERROR = int(socket.SOL_SOCKET), int(socket.SO_ERROR)


class PortRule(NamedTuple):
    """Who may bind ports below ``below``: root, the daemon's user, and who is listed."""

    below: Callable[[], int]
    users: frozenset[int] = frozenset()

    def permits(self, uid: int, port: int) -> bool:
        """Whether a process of ``uid`` may bind ``port``."""
        return not 0 < port < self.below() or uid in self.users or uid in (0, os.geteuid())


class CallServer:
    """Performs calls; one for all clients."""

    def __init__(self, hub: JoinHub, ports: PortRule) -> None:
        self.hub = hub
        self._ports = ports
        self._handlers: Mapping[int, Callable[[Call, ClientEnd, int, Owner], Answer | None]] = {
            BIND: self._bind,
            LISTEN: _listen,
            CONNECT: _connect,
            SHUTDOWN: _shutdown,
            GETSOCKNAME: _getsockname,
            GETPEERNAME: _getpeername,
            SETSOCKOPT: _setsockopt,
            GETSOCKOPT: _getsockopt,
            IOCTL: _ioctl,
            SENDOOB: _sendoob,
            DISCONNECT: _disconnect,
            SENDMSG: _sendmsg,
            RECVERR: _recverr,
            RECV: _recv,
            FASTOPEN: _fastopen,
        }

    def perform(self, call: Call, fd: int, owner: Owner) -> tuple[Answer, int]:
        """Do what is asked; a new socket's client end comes with the answer.

        Args:
            fd: the descriptor that came with the request, -1 if none did.

        Returns:
            The answer, and a descriptor that goes with it, -1: none.

        Raises:
            OSError: what the call gives.
        """
        if call.op == HELLO:
            return Answer(VERSION), -1
        if self.hub.closed:
            raise OSError(errno.ENETDOWN, os.strerror(errno.ENETDOWN))
        self.hub.runtime.call(self.hub.settle)
        if call.op == SOCKET:
            return Answer(), self._socket(call, owner)
        handler = self._handlers.get(call.op)
        if handler is None and call.op != LINGER:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        join = self.hub.find(fd) if fd >= 0 else None
        if join is None:
            return self._after_the_end(call, fd), -1
        if handler is None:
            seconds, line = self.hub.runtime.call(join.linger)
            return Answer(seconds), line
        return self.hub.runtime.call(handler, call, join, fd, owner) or Answer(), -1

    def take_note(self, message: bytes) -> None:
        """Set an option that cannot be refused, if the connection is there (TELL)."""
        if len(message) != TOLD_BYTES:
            return
        _, _, _, level, name, value, _, _, _ = REQUEST.unpack_from(message)
        join = self.hub.find_key(message[REQUEST.size :])
        if join is not None and (level, name) in SURE_OPTIONS:
            self.hub.runtime.call(join.core.setsockopt, level, name, value)

    def _socket(self, call: Call, owner: Owner) -> int:
        if call.level != socket.AF_INET:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        if call.name == socket.SOCK_RAW and owner.uid not in (0, os.geteuid()):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        self.hub.check_room(owner)
        runtime = self.hub.runtime
        core = runtime.call(runtime.stack.socket, call.name, call.value, (owner.gid,))
        if call.name == socket.SOCK_STREAM:
            end = self.hub.join(core, owner)[1]
            sock = socket.socket(fileno=end)
            sock.setsockopt(SOL_SOCKET, socket.SO_PRIORITY, NEW_PRIORITY)
            return sock.detach()
        return runtime.call(self.hub.join_dgram, core, owner)

    def _after_the_end(self, call: Call, fd: int) -> Answer:
        """Answer for a connection that is over, while its descriptor is still open."""
        if fd < 0:
            raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK))
        if (call.op, call.level, call.name) == (GETSOCKOPT, SOL_SOCKET, SO_ERROR):
            return Answer(data=struct.pack("i", self.hub.exhume(fd)))
        if call.op in (SETSOCKOPT, LINGER):
            return Answer()
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))

    def _bind(self, call: Call, join: ClientEnd, fd: int, owner: Owner) -> None:
        if not self._ports.permits(owner.uid, call.port):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        join.core.bind(call.addr, call.port)


def _listen(call: Call, join: ClientEnd, fd: int, owner: Owner) -> None:
    join.listen(max(call.value, 0))


def _connect(call: Call, join: ClientEnd, fd: int, owner: Owner) -> None:
    join.connect(call.addr, call.port, fd)


def _shutdown(call: Call, join: ClientEnd, fd: int, owner: Owner) -> Answer:
    return Answer(join.shutdown(call.value, fd))


def _getsockname(call: Call, join: ClientEnd, fd: int, owner: Owner) -> Answer:
    return Answer(0, *join.core.getsockname())


def _getpeername(call: Call, join: ClientEnd, fd: int, owner: Owner) -> Answer:
    return Answer(0, *join.core.getpeername())


def _setsockopt(call: Call, join: ClientEnd, fd: int, owner: Owner) -> None:
    join.core.setsockopt(call.level, call.name, call.data)


def _ioctl(call: Call, join: ClientEnd, fd: int, owner: Owner) -> Answer:
    return Answer(join.core.ioctl(call.name))


def _sendoob(call: Call, join: ClientEnd, fd: int, owner: Owner) -> Answer:
    return Answer(join.send_oob(call.data))


def _disconnect(call: Call, join: ClientEnd, fd: int, owner: Owner) -> None:
    join.disconnect()


def _sendmsg(call: Call, join: ClientEnd, fd: int, owner: Owner) -> Answer:
    if len(call.data) < DATAGRAM.size:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return Answer(join.send_datagram(memoryview(call.data)))


def _fastopen(call: Call, join: ClientEnd, fd: int, owner: Owner) -> Answer:
    return Answer(join.send_fastopen(call.data, call.addr, call.port, fd))


def _recv(call: Call, join: ClientEnd, fd: int, owner: Owner) -> Answer:
    return Answer(data=join.receive_late(min(max(call.value, 0), MAX_DATA), call.name))


def _recverr(call: Call, join: ClientEnd, fd: int, owner: Owner) -> Answer:
    return join.receive_error()


def _getsockopt(call: Call, join: ClientEnd, fd: int, owner: Owner) -> Answer:
    room = min(max(call.value, 0), MAX_DATA)
    value = join.core.getsockopt(call.level, call.name, room)
    if (call.level, call.name) == (SOL_SOCKET, SO_ERROR):
        join.refresh()
    data = value if isinstance(value, bytes) else struct.pack("i", value)[:room]
    return Answer(data=data)


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


class CallClient:
    """One client process's connection to the control socket."""

    def __init__(
        self,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        server: CallServer,
        registry: set[CallClient],
    ) -> None:
        self._sock = sock
        self._loop = loop
        self._server = server
        self._registry = registry
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        self._owner = server.hub.limits.owner(*struct.unpack("iII", credentials))
        registry.add(self)
        loop.add_reader(sock.fileno(), self._readable)

    def close(self) -> None:
        """Hang up; the client's sockets live as long as their descriptors."""
        if self in self._registry:
            self._registry.discard(self)
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()

    def _readable(self) -> None:
        for _ in range(REQUESTS_PER_TURN):
            try:
                data, ancillary, _flags, _address = self._sock.recvmsg(
                    MAX_REQUEST_BYTES + 1, RIGHTS_BYTES, RECV_FLAGS
                )
            except BlockingIOError:
                return
            except OSError:
                self.close()
                return
            fds = rights_in(ancillary) if ancillary else ()
            if not data:
                _close_all(fds)
            if not data or not self.request(data, fds):
                self.close()
                return

    def request(self, data: bytes, fds: Sequence[int] = ()) -> bool:
        """Perform one request and answer it; return whether an answer could be sent if it has one.

        Args:
            data: the request.
            fds: what came with it; closed before the answer goes, or the client's own close()
                would not be the last one.
        """
        if data.startswith(TOLD):
            self._server.take_note(data)
            _close_all(fds)
            return True
        error, answer, end = 0, Answer(), -1
        fd = fds[0] if len(fds) == 1 else -1
        try:
            answer, end = self._server.perform(parse_call(data), fd, self._owner)
        except OSError as exc:
            error = exc.errno or errno.EIO
        except Exception as exc:  # a bug of ours must not leave the client waiting
            error = errno.EIO
            self._loop.call_exception_handler({"message": "a socket call", "exception": exc})
        finally:
            _close_all(fds)
        try:
            self._sock.sendmsg([pack_answer(error, answer)], rights(end), socket.MSG_DONTWAIT)
        except OSError:
            return False
        finally:
            if end >= 0:
                os.close(end)
        return True
