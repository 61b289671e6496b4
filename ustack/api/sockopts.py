"""Socket options at the edge: the timeouts are the edge's own, the rest is the core's."""

from __future__ import annotations

import errno
import os
import socket as _socket
import struct
from typing import TYPE_CHECKING, Any

from ustack.api.messages import readable

if TYPE_CHECKING:
    from ustack.api.sockets import socket

TIMEVAL = struct.Struct("@ll")
OPTION_BYTES_MAX = 1024


def setsockopt(
    sock: socket, level: int, optname: int, value: Any, optlen: int | None = None
) -> None:
    """Set an option; SO_RCVTIMEO and SO_SNDTIMEO take a struct timeval."""
    file = sock._open_file()
    if level == _socket.SOL_SOCKET and optname in (_socket.SO_RCVTIMEO, _socket.SO_SNDTIMEO):
        timeout_us = _timeval_us(value)
        if optname == _socket.SO_RCVTIMEO:
            file.rcvtimeo_us = timeout_us
        else:
            file.sndtimeo_us = timeout_us
        return
    if value is None and optlen is not None:
        error = errno.EFAULT if optlen else errno.EINVAL  # a null pointer
        raise OSError(error, os.strerror(error))
    if not isinstance(value, int):
        value = bytes(readable(value))
    file.runtime.call(file.core.setsockopt, level, optname, value)


def getsockopt(sock: socket, level: int, optname: int, buflen: int = 0) -> Any:
    """Return an option: a number, or ``buflen`` bytes at most."""
    if not 0 <= buflen <= OPTION_BYTES_MAX:
        raise OSError("getsockopt buflen out of range")
    file = sock._open_file()
    if level == _socket.SOL_SOCKET and optname in (_socket.SO_RCVTIMEO, _socket.SO_SNDTIMEO):
        recv = optname == _socket.SO_RCVTIMEO
        timeout_us = (file.rcvtimeo_us if recv else file.sndtimeo_us) or 0
        packed = TIMEVAL.pack(*divmod(timeout_us, 1_000_000))
        return packed[:buflen] if buflen else timeout_us // 1_000_000
    return file.runtime.call(file.core.getsockopt, level, optname, buflen)


def _timeval_us(value: Any) -> int | None:
    """Read a struct timeval; zero means for ever."""
    if not isinstance(value, bytes | bytearray | memoryview) or len(value) < TIMEVAL.size:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    seconds, microseconds = TIMEVAL.unpack_from(value)
    if not 0 <= microseconds < 1_000_000:
        raise OSError(errno.EDOM, os.strerror(errno.EDOM))
    return seconds * 1_000_000 + microseconds or None
