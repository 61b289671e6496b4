"""The OSError that an errno means to the application, with Linux's own text.

``os.strerror`` is out of the core's reach, and the texts are part of what users of the
socket API see; the table has the errnos that a socket call can give.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping

ERRNO_TEXT: Mapping[int, str] = {
    errno.EPERM: "Operation not permitted",
    errno.EINTR: "Interrupted system call",
    errno.EBADF: "Bad file descriptor",
    errno.EAGAIN: "Resource temporarily unavailable",
    errno.ENOMEM: "Cannot allocate memory",
    errno.EACCES: "Permission denied",
    errno.EFAULT: "Bad address",
    errno.EINVAL: "Invalid argument",
    errno.EPIPE: "Broken pipe",
    errno.EPROTO: "Protocol error",
    errno.ENOTSOCK: "Socket operation on non-socket",
    errno.EDESTADDRREQ: "Destination address required",
    errno.EMSGSIZE: "Message too long",
    errno.EPROTOTYPE: "Protocol wrong type for socket",
    errno.ENOPROTOOPT: "Protocol not available",
    errno.EPROTONOSUPPORT: "Protocol not supported",
    errno.ESOCKTNOSUPPORT: "Socket type not supported",
    errno.ENOTTY: "Inappropriate ioctl for device",
    errno.EOPNOTSUPP: "Operation not supported",
    errno.EAFNOSUPPORT: "Address family not supported by protocol",
    errno.EADDRINUSE: "Address already in use",
    errno.EADDRNOTAVAIL: "Cannot assign requested address",
    errno.ENETDOWN: "Network is down",
    errno.ENETUNREACH: "Network is unreachable",
    errno.ECONNABORTED: "Software caused connection abort",
    errno.ECONNRESET: "Connection reset by peer",
    errno.ENOBUFS: "No buffer space available",
    errno.EISCONN: "Transport endpoint is already connected",
    errno.ENOTCONN: "Transport endpoint is not connected",
    errno.ETIMEDOUT: "Connection timed out",
    errno.ECONNREFUSED: "Connection refused",
    errno.EHOSTDOWN: "Host is down",
    errno.EHOSTUNREACH: "No route to host",
    errno.EALREADY: "Operation already in progress",
    errno.EINPROGRESS: "Operation now in progress",
    errno.ENONET: "Machine is not on the network",
}


def socket_error(err: int) -> OSError:
    """Return the exception for ``err``; OSError picks the subclass (ConnectionResetError ...)."""
    return OSError(err, ERRNO_TEXT.get(err, f"error {err}"))
