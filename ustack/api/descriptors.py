"""What the module ``socket`` does with descriptors, and pairs of sockets."""

from __future__ import annotations

import errno
import os
import socket as _socket
from typing import Any

from ustack.api.files import FILES, FIRST_FD, duplicate
from ustack.api.sockets import socket
from ustack.api.stacks import daemon_link, kernel_has_other_families


def close(fd: int) -> None:
    """Close one of the stack's descriptors.

    Raises:
        OSError: EBADF: it is none of ours.
    """
    if fd < FIRST_FD and (kernel_has_other_families() or daemon_link() is not None):
        os.close(fd)
    else:
        FILES.close(fd)


def dup(fd: int) -> int:
    """Return a second number for the file behind ``fd``.

    Raises:
        OSError: EBADF: it is none of ours.
    """
    if daemon_link() is not None:
        return _socket.dup(fd)
    return duplicate(fd)


def fromfd(fd: int, family: int, type: int, proto: int = 0) -> socket:
    """Return a socket for a duplicate of ``fd``, one of the stack's numbers.

    Raises:
        OSError: EBADF: it is none; a descriptor of the kernel's is no socket of the stack.
    """
    if 0 <= fd < FIRST_FD and daemon_link() is None:
        raise OSError(errno.EBADF, f"{fd} is the kernel's descriptor, not the stack's")
    return socket(family, type, proto, fileno=dup(fd))


def socketpair(
    family: int | None = None, type: int = _socket.SOCK_STREAM, proto: int = 0
) -> tuple[Any, Any]:
    """Return two sockets that are connected to each other, over the loopback device.

    They are of AF_INET, AF_UNIX being none of the stack's; after ``ustack.install()`` the
    kernel makes a pair of Unix sockets.

    Raises:
        OSError: EAFNOSUPPORT, ESOCKTNOSUPPORT.
    """
    if family in (None, _socket.AF_UNIX):
        if kernel_has_other_families():
            return _socket.socketpair(_socket.AF_UNIX, type, proto)
        family = _socket.AF_INET
    a = socket(family, type, proto)
    try:
        if a.type == _socket.SOCK_STREAM:
            return a, _connect_stream(a)
        b = socket(family, type, proto)
    except BaseException:
        a.close()
        raise
    for one in (a, b):
        one.bind(("127.0.0.1", 0))
    a.connect(b.getsockname())
    b.connect(a.getsockname())
    return a, b


def _connect_stream(a: socket) -> socket:
    """Connect ``a`` over a listener of our own; whoever else comes there first is sent away."""
    timeout = a.gettimeout()
    a.settimeout(None)
    with socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        a.connect(listener.getsockname())
        while True:
            b, peer = listener.accept()
            if peer == a.getsockname():
                break
            b.close()
    for one in (a, b):
        one.settimeout(timeout)
    return b
