"""Datagrams with their addresses and ancillary data: recvfrom, sendto, recvmsg, sendmsg.

The functions do what the methods of ``socket`` of the same names promise. Ancillary data
takes room as in a real control buffer (CMSG_LEN, CMSG_SPACE), and MSG_CTRUNC says that there
was not enough.
"""

from __future__ import annotations

import errno
import os
import socket as _socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ustack.api import attempts
from ustack.api.names import api_address, core_address
from ustack.inet.dgram import DgramSocket, Message
from ustack.runtime.waiter import NOT_YET

if TYPE_CHECKING:
    from ustack.api.sockets import socket

MSG_DONTWAIT = int(_socket.MSG_DONTWAIT)
MSG_ERRQUEUE = int(_socket.MSG_ERRQUEUE)
MSG_CTRUNC = int(_socket.MSG_CTRUNC)
MSG_TRUNC = int(_socket.MSG_TRUNC)
SOL_SOCKET = int(_socket.SOL_SOCKET)
IGNORED_CMSGS = (1, 2)
"""SCM_RIGHTS and SCM_CREDENTIALS: TCP looks at neither."""

Address = tuple[str, int]
Ancillary = tuple[int, int, bytes]
Receive = Callable[[int, int], Message]
"""What waits for a message, given room and flags."""


def receive(sock: socket, bufsize: int, flags: int) -> Message:
    """Wait for a message; of a stream it is what recv() returns.

    Raises:
        OSError: TimeoutError, BlockingIOError, the pending error.
    """
    file = sock._open_file()
    core = file.core
    if not isinstance(core, DgramSocket):
        data = sock.recv(bufsize, flags)
        return Message(data, len(data), None, [], 0)
    at_once = flags & MSG_ERRQUEUE
    timeout_us = 0 if at_once else sock._wait_us(flags, file.rcvtimeo_us)
    attempt = attempts.wait_recvmsg
    if timeout_us == 0:
        attempt, flags = attempts.try_recvmsg, flags | MSG_DONTWAIT
    message = file.runtime.wait_for(file, timeout_us, False, attempt, core, bufsize, flags)
    if message is NOT_YET:
        raise sock._expired(timeout_us)
    assert isinstance(message, Message)
    return message


def origin(message: Message) -> Address | None:
    """Return who sent a message, as the application writes addresses."""
    return None if message.address is None else api_address(message.address)


def readable(data: Any) -> memoryview:
    """Return a view of what is to be sent.

    Raises:
        TypeError: it is not bytes-like.
    """
    try:
        return memoryview(data)
    except TypeError:
        kind = type(data).__name__
        raise TypeError(f"a bytes-like object is required, not {kind!r}") from None


def writable(buffer: Any, caller: str) -> memoryview:
    """Return a view of a buffer that can be written to.

    Raises:
        TypeError: it is none.
    """
    try:
        view = memoryview(buffer)
    except TypeError:
        view = memoryview(b"")
    if view.readonly:
        kind = type(buffer).__name__
        raise TypeError(f"{caller}() argument 1 must be read-write bytes-like object, not {kind}")
    return view


def recvfrom_into(
    receive: Receive, buffer: Any, nbytes: int, flags: int
) -> tuple[int, Address | None]:
    """Do ``socket.recvfrom_into`` for a datagram."""
    with writable(buffer, "recvfrom_into") as whole, whole.cast("B") as view:
        if nbytes < 0:
            raise ValueError("negative buffersize in recvfrom_into")
        if nbytes > view.nbytes:
            raise ValueError("nbytes is greater than the length of the buffer")
        message = receive(nbytes or view.nbytes, flags)
        view[: len(message.data)] = message.data
    return message.length if flags & MSG_TRUNC else len(message.data), origin(message)


def recvmsg(
    receive: Receive, bufsize: int, ancbufsize: int, flags: int
) -> tuple[bytes, list[Ancillary], int, Address | None]:
    """Do ``socket.recvmsg``."""
    room = _control_room(ancbufsize)
    message = receive(bufsize, flags)
    ancillary, truncated = _fit_control(message.ancillary, room)
    return message.data, ancillary, message.flags | truncated, origin(message)


def recvmsg_into(
    receive: Receive, buffers: Any, ancbufsize: int, flags: int
) -> tuple[int, list[Ancillary], int, Address | None]:
    """Do ``socket.recvmsg_into``: one message, spread over ``buffers``."""
    room = _control_room(ancbufsize)
    views = [memoryview(buffer).cast("B") for buffer in buffers]
    if any(view.readonly for view in views):
        raise TypeError(
            "recvmsg_into() argument 1 must be an iterable of single-segment read-write buffers"
        )
    message = receive(sum(view.nbytes for view in views), flags)
    at = 0
    for view in views:
        part = message.data[at : at + view.nbytes]
        view[: len(part)] = part
        at += len(part)
    ancillary, truncated = _fit_control(message.ancillary, room)
    return len(message.data), ancillary, message.flags | truncated, origin(message)


def _control_room(ancbufsize: int) -> int:
    if not 0 <= ancbufsize <= 0x7FFFFFFF:
        raise ValueError("invalid ancillary data buffer length")
    return ancbufsize


def _fit_control(ancillary: list[Ancillary], room: int) -> tuple[list[Ancillary], int]:
    """Return as much as there is room for, and MSG_CTRUNC if that is not all (put_cmsg)."""
    fitting: list[Ancillary] = []
    for level, kind, value in ancillary:
        payload_room = room - _socket.CMSG_LEN(0)
        if payload_room < 0:
            return fitting, MSG_CTRUNC
        fitting.append((level, kind, value[:payload_room]))
        if payload_room < len(value):
            return fitting, MSG_CTRUNC
        room = max(0, room - _socket.CMSG_SPACE(len(value)))
    return fitting, 0


def send(sock: socket, data: Any, flags: int, to: tuple[int, int] | None = None) -> int:
    """Send one datagram."""
    return _send_datagram(sock, readable(data), flags, to, [])


def sendmsg(sock: socket, buffers: Any, ancdata: Any, flags: int, address: Any) -> int:
    """Do ``socket.sendmsg``."""
    data = b"".join([readable(buffer).cast("B") for buffer in buffers])
    ancillary = [(int(level), int(kind), bytes(value)) for level, kind, value in ancdata]
    to = None if address is None else core_address(address, "sendmsg")
    if isinstance(sock._open_file().core, DgramSocket):
        return _send_datagram(sock, data, flags, to, ancillary)
    if any(level == SOL_SOCKET and kind not in IGNORED_CMSGS for level, kind, _ in ancillary):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return sock.send(data, flags)


def _send_datagram(
    sock: socket, data: Any, flags: int, to: tuple[int, int] | None, ancillary: list[Ancillary]
) -> int:
    file = sock._open_file()
    assert isinstance(file.core, DgramSocket)
    return file.runtime.call(attempts.sendmsg, file.core, data, flags, to, ancillary)
