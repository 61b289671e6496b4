"""The control socket: a Unix SOCK_SEQPACKET server inside the daemon's event loop.

A connection whose first message is no JSON is for socket calls (``calls.py``). Else one
``ControlClient`` per connection, one request at a time. An answer is an iterator of
encoded messages that is only advanced while the client reads, so that neither a long list
nor a slow client costs memory; a client that accepts nothing for ``STALL_S`` is dropped.
Answers come from ``views.py``; streams, which go on until stopped, from ``capture.py``,
``trace.py`` and ``ping.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ustack.api.protocol import MAGIC
from ustack.daemon.calls import CallClient, CallServer
from ustack.daemon.command_line import CONTROL_FOLDER
from ustack.daemon.messages import (
    MAX_MESSAGE_BYTES,
    AnyRequest,
    Failure,
    StopRequest,
    StreamRequest,
    decode_request,
    encode,
)

MAX_CLIENTS = 64
"""Management connections at a time; the next one is answered with ``Failure`` and closed."""
MAX_CONNECTIONS = 4096
"""Connections of all kinds; the next one is closed."""
STALL_S = 10.0
"""How long a client may refuse the next message."""
MESSAGES_PER_TURN = 8
"""Sent to one client before the packets get their turn again."""


class Stream(Protocol):
    """An answer that grows while the stack works: a capture, a trace, a ping."""

    finished: bool
    """Whether its last message has been given out."""

    def messages(self) -> Iterator[bytes]:
        """Yield what there is; the next call goes on where this one ended."""

    def stop(self) -> None:
        """Let it end; what there is is still given out."""


StartStream = Callable[[StreamRequest, Callable[[], None]], Stream]
"""Called with the request and what to call when there are messages."""


class ControlError(Exception):
    """The control socket cannot be set up; the text says why in one line."""


def claim_path(path: Path) -> None:
    """Make room for a control socket at ``path``: a dead one is removed, ``CONTROL_FOLDER`` made.

    Raises:
        ControlError: a daemon answers there, something else than a socket is in the way, there
            is no such folder, or we may not.
    """
    try:
        if path.parent == CONTROL_FOLDER:
            CONTROL_FOLDER.mkdir(mode=0o755, exist_ok=True)
        mode = path.lstat().st_mode
    except FileNotFoundError as error:
        if path.parent.is_dir():
            return
        raise ControlError(f"control socket {path}: no folder {path.parent}") from error
    except OSError as error:
        raise ControlError(f"control socket {path}: {error.strerror}") from error
    if not stat.S_ISSOCK(mode):
        raise ControlError(f"{path} exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError:
            pass  # it refuses us in another way: somebody is there
    raise ControlError(f"control socket {path} is in use by a running daemon (see --socket)")


@dataclass(frozen=True)
class SocketAccess:
    """Who may open the control socket: its file's mode and group (None: the daemon's)."""

    mode: int = 0o600
    gid: int | None = None


OWNER_ONLY = SocketAccess()


def bind_control_socket(path: Path, access: SocketAccess = OWNER_ONLY) -> socket.socket:
    """Listen at ``path``, open to nobody but those named; ``claim_path`` comes first.

    Raises:
        ControlError: the path is taken or cannot be used.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    umask = os.umask(0o177)
    try:
        listener.setblocking(False)
        listener.bind(str(path))
        if access.gid is not None:
            os.chown(path, -1, access.gid)
        os.chmod(path, access.mode)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise ControlError(f"control socket {path}: {error.strerror or error}") from error
    finally:
        os.umask(umask)
    return listener


class ControlServer:
    """Accepts management clients and answers them."""

    def __init__(
        self,
        path: Path,
        answer: Callable[[AnyRequest], Iterator[bytes]],
        start_stream: StartStream,
        *,
        calls: CallServer | None = None,
        access: SocketAccess = OWNER_ONLY,
    ) -> None:
        self.path = path
        self._answer = answer
        self._start_stream = start_stream
        self._calls = calls
        self._access = access
        self._clients: set[ControlClient] = set()
        self._call_clients: set[CallClient] = set()
        self._listener: socket.socket | None = None
        self._inode: tuple[int, int] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take the path and serve clients on ``loop`` from now on.

        Raises:
            ControlError: the path is taken or cannot be used.
        """
        self._listener = bind_control_socket(self.path, self._access)
        status = os.stat(self.path)
        self._inode = (status.st_dev, status.st_ino)
        self._loop = loop
        loop.add_reader(self._listener.fileno(), self._accept)

    def close(self) -> None:
        """Hang up on everybody and remove the socket from the file system."""
        for client in tuple(self._clients):
            client.close()
        for caller in tuple(self._call_clients):
            caller.close()
        if self._listener is None:
            return
        if self._loop is not None:
            self._loop.remove_reader(self._listener.fileno())
        self._listener.close()
        self._listener = None
        with contextlib.suppress(OSError):
            status = os.stat(self.path)
            if (status.st_dev, status.st_ino) == self._inode:
                os.unlink(self.path)

    def _accept(self) -> None:
        assert self._listener is not None and self._loop is not None
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return  # gone again, or out of descriptors: the next event tries again
        sock.setblocking(False)
        if len(self._clients) + len(self._call_clients) >= MAX_CONNECTIONS:
            sock.close()
            return
        client = ControlClient(sock, self._loop, self._answer, self._start_stream, self._clients)
        client.on_first_message = self._first_message
        self._clients.add(client)

    def _first_message(self, client: ControlClient, data: bytes) -> bool:
        """See what kind of client this is; return whether its message is a management one."""
        if data[0] == MAGIC and self._calls is not None:
            assert self._loop is not None
            sock = client.release()
            caller = CallClient(sock, self._loop, self._calls, self._call_clients)
            if not caller.request(data):
                caller.close()
            return False
        refusal = self._refusal(client)
        if refusal:
            client.refuse(refusal)
        return not refusal

    def _refusal(self, client: ControlClient) -> str:
        """Say why this peer gets no answer, empty if it does."""
        _, uid, _ = client.credentials()
        if uid not in (0, os.geteuid()):
            return "permission denied: the daemon belongs to another user"
        if sum(other.is_management for other in self._clients) >= MAX_CLIENTS:
            return "too many control connections"
        return ""


class ControlClient:
    """One connection to the control socket."""

    def __init__(
        self,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        answer: Callable[[AnyRequest], Iterator[bytes]],
        start_stream: StartStream,
        registry: set[ControlClient],
    ) -> None:
        self._sock = sock
        self._fd = sock.fileno()
        self._loop = loop
        self._answer = answer
        self._start_stream = start_stream
        self._registry = registry
        self._messages: Iterator[bytes] | None = None
        self._unsent: bytes | None = None
        self._stream: Stream | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._kicked = False
        self.is_management = False
        self.on_first_message: Callable[[ControlClient, bytes], bool] = lambda client, data: True
        """Says whether a management client has spoken; asked once."""
        loop.add_reader(self._fd, self._readable)

    def credentials(self) -> tuple[int, int, int]:
        """Return the process, user and group that connected."""
        packed = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid, uid, gid = struct.unpack("iII", packed)
        return pid, uid, gid

    def release(self) -> socket.socket:
        """Let go of the connection: it is for somebody else."""
        sock = socket.socket(fileno=self._sock.detach())
        self._loop.remove_reader(self._fd)
        self._closed = True
        self._registry.discard(self)
        return sock

    def refuse(self, reason: str) -> None:
        """Say why, and hang up."""
        with contextlib.suppress(OSError):
            self._sock.send(encode(Failure(reason)))
        self.close()

    def close(self) -> None:
        """Hang up; a running capture, trace or ping ends."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        if self._stall_timer is not None:
            self._stall_timer.cancel()
        if self._stream is not None:
            self._stream.stop()
        self._sock.close()
        self._registry.discard(self)

    def _readable(self) -> None:
        try:
            data, _, flags, _ = self._sock.recvmsg(MAX_MESSAGE_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        if not data:
            self.close()
            return
        if flags & socket.MSG_TRUNC:
            self._reply(iter([encode(Failure("request too large"))]))
            return
        if not self.is_management:
            if not self.on_first_message(self, data):
                return
            self.is_management = True
        self._request(data)

    def _request(self, data: bytes) -> None:
        try:
            request = decode_request(data)
        except (ValueError, RecursionError) as error:
            self._reply(iter([encode(Failure(f"bad request: {error}"))]))
            return
        if self._stream is not None:
            if isinstance(request, StopRequest):
                self._stream.stop()
            return
        if isinstance(request, StreamRequest):
            self._begin_stream(request)
        elif isinstance(request, StopRequest):
            self._reply(iter([encode(Failure("no capture, trace or ping is running"))]))
        else:
            self._reply(self._answer(request))

    def _begin_stream(self, request: StreamRequest) -> None:
        try:
            self._stream = self._start_stream(request, self._kick)
        except ValueError as error:
            self._reply(iter([encode(Failure(str(error)))]))
            return
        self._messages = self._stream.messages()
        self._pump()

    def _reply(self, messages: Iterator[bytes]) -> None:
        """Send an answer; the next request is read once it is out."""
        self._loop.remove_reader(self._fd)
        self._messages = messages
        self._pump()

    def _kick(self) -> None:
        """Packets wait: send them once the stack has done with this batch."""
        if not (self._kicked or self._closed):
            self._kicked = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Send what the client takes, a bounded number of messages a turn."""
        self._kicked = False
        if self._closed:
            return
        for _ in range(MESSAGES_PER_TURN):
            message = self._next_message()
            if message is None:
                self._rest()
                return
            if not self._send(message):
                break
        if not self._closed:
            self._loop.add_writer(self._fd, self._pump)

    def _next_message(self) -> bytes | None:
        if self._unsent is not None:
            return self._unsent
        if self._messages is None:
            return None
        try:
            return next(self._messages, None)
        except LookupError as error:  # the device or table that was asked for
            message = str(error.args[0]) if error.args else repr(error)
        except Exception as error:  # a bug of ours must not leave the client waiting
            message = f"internal error: {error!r}"
        self._messages = None
        return encode(Failure(message))

    def _send(self, message: bytes) -> bool:
        """Try to send; whether the client may get another one in this turn."""
        try:
            self._sock.send(message)
        except (BlockingIOError, InterruptedError):
            self._unsent = message
            if self._stall_timer is None:
                self._stall_timer = self._loop.call_later(STALL_S, self.close)
            return False
        except OSError:
            self.close()
            return False
        self._unsent = None
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
        return True

    def _rest(self) -> None:
        """Nothing to send now: the answer is complete, or a stream waits for packets."""
        self._loop.remove_writer(self._fd)
        if self._stream is not None and not self._stream.finished:
            self._messages = self._stream.messages()
            return
        self._stream = None
        self._messages = None
        self._loop.add_reader(self._fd, self._readable)
