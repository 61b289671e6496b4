"""recv() and send() when one attempt is not enough: flags, timeouts, waiting.

``socket``'s methods try C first; what is here goes through the runtime's ``wait_for`` with the
attempts of ``attempts``, for streams, and for reading from datagram sockets as well.
"""

from __future__ import annotations

import errno
import os
import socket as _socket
from operator import index
from typing import TYPE_CHECKING, Any

from ustack.api import attempts
from ustack.api.messages import readable
from ustack.api.names import core_address
from ustack.runtime.waiter import NOT_YET

if TYPE_CHECKING:
    from ustack.api.files import SocketFile
    from ustack.api.sockets import socket

SHORT_BYTES = 4096
SOCK_STREAM = int(_socket.SOCK_STREAM)
MSG_OOB = int(_socket.MSG_OOB)
MSG_DONTWAIT = int(_socket.MSG_DONTWAIT)
MSG_WAITALL = int(_socket.MSG_WAITALL)
MSG_AT_ONCE = MSG_OOB | int(_socket.MSG_ERRQUEUE)
"""What is received with these is there, or it is not: nobody waits for it."""


def recv(sock: socket, bufsize: int, flags: int) -> bytes:
    """Receive up to ``bufsize`` bytes, waiting for them as the socket's timeout says."""
    bufsize = index(bufsize)
    if bufsize < 0:
        raise ValueError("negative buffersize in recv")
    if flags & MSG_WAITALL and sock._kind == SOCK_STREAM:
        buffer = bytearray(bufsize)
        return bytes(buffer[: recv_all(sock, memoryview(buffer), flags)])
    file = sock._open_file()
    timeout_us = 0 if flags & MSG_AT_ONCE else sock._wait_us(flags, file.rcvtimeo_us)
    attempt = attempts.wait_recv
    if timeout_us == 0:
        attempt, flags = attempts.try_recv, flags | MSG_DONTWAIT
    data = file.runtime.wait_for(file, timeout_us, False, attempt, file.core, bufsize, flags)
    if data is NOT_YET:
        data = _rest(sock, file, timeout_us, attempts.try_recv, bufsize, flags)
    return data


def recv_into(sock: socket, view: memoryview, n: int, flags: int) -> int:
    """Receive up to ``n`` bytes into ``view``; return how many."""
    file = sock._open_file()
    timeout_us = 0 if flags & MSG_AT_ONCE else sock._wait_us(flags, file.rcvtimeo_us)
    attempt = attempts.wait_recv_into
    if timeout_us == 0:
        attempt, flags = attempts.try_recv_into, flags | MSG_DONTWAIT
    got = file.runtime.wait_for(file, timeout_us, False, attempt, file.core, view, n, flags)
    if got is NOT_YET:
        got = _rest(sock, file, timeout_us, attempts.try_recv_into, view, n, flags)
    return got


def recv_all(sock: socket, view: memoryview, flags: int) -> int:
    """Receive until ``view`` is full (MSG_WAITALL); return how many bytes came."""
    file = sock._open_file()
    timeout_us = 0 if flags & MSG_OOB else sock._wait_us(flags, file.rcvtimeo_us)
    all_of_it = attempts.RecvAll(view)
    got = file.runtime.wait_for(file, timeout_us, False, all_of_it, file.core, flags)
    if got is NOT_YET and not all_of_it.copied:
        raise sock._expired(timeout_us)
    return all_of_it.copied


def _rest(sock: socket, file: SocketFile, timeout_us: int | None, attempt: Any, *args: Any) -> Any:
    """SO_RCVTIMEO is over: return the little that there is, if any (SO_RCVLOWAT)."""
    if sock._timeout_us is None and timeout_us:
        got = file.runtime.call(attempt, file.core, *args)
        if got is not NOT_YET:
            return got
    raise sock._expired(timeout_us)


def send(sock: socket, data: Any, flags: int) -> int:
    """Send what the socket takes, all of it if it blocks for ever; return how many bytes."""
    file = sock._open_file()
    timeout_us = sock._wait_us(flags, file.sndtimeo_us)
    if sock._timeout_us is None and timeout_us != 0:
        return _send_blocking(sock, file, data, flags, timeout_us)
    sent = file.runtime.wait_for(file, timeout_us, False, attempts.try_send, file.core, data, flags)
    if sent is NOT_YET:
        raise sock._expired(timeout_us)
    return sent


def sendall(sock: socket, data: Any, flags: int) -> None:
    """Send all of ``data``; the timeout is for the whole."""
    file = sock._open_file()
    timeout_us = sock._wait_us(flags, file.sndtimeo_us)
    if type(data) is bytes and len(data) <= SHORT_BYTES:
        send_all = attempts.SendAll(data)
        sent = file.runtime.wait_for(file, timeout_us, False, send_all, file.core, flags)
    else:
        with readable(data) as whole, whole.cast("B") as view:
            send_all = attempts.SendAll(view)
            sent = file.runtime.wait_for(file, timeout_us, False, send_all, file.core, flags)
    if sent is NOT_YET:
        raise sock._expired(timeout_us)


def _send_blocking(
    sock: socket, file: SocketFile, data: Any, flags: int, timeout_us: int | None
) -> int:
    """As Linux's: return early, with what was sent, only for SO_SNDTIMEO or an error."""
    with readable(data) as whole, whole.cast("B") as view:
        send_all = attempts.SendAll(view)
        try:
            sent = file.runtime.wait_for(file, timeout_us, False, send_all, file.core, flags)
        except OSError:
            if not send_all.sent:
                raise
            return send_all.sent
    if sent is NOT_YET and not send_all.sent:
        raise sock._expired(timeout_us)
    return send_all.sent


def send_fastopen(sock: socket, data: Any, flags: int, address: Any) -> int:
    """Connect with data in the SYN; what does not fit follows once there is a connection."""
    file = sock._open_file()
    target = core_address(address, "sendto")
    timeout_us = sock._wait_us(flags, file.sndtimeo_us)
    with readable(data) as whole, whole.cast("B") as view:
        try:
            sent = int(file.runtime.call(file.stream.send_fastopen, view, *target))
        except BlockingIOError as exc:
            if timeout_us == 0 or exc.errno != errno.EINPROGRESS:
                raise
            sent = 0
        if sent == len(view) or timeout_us == 0:
            return sent
        if error := sock._await_connect(file, target, timeout_us):
            raise OSError(error, os.strerror(error))
        return sent + sock.send(view[sent:], flags)
