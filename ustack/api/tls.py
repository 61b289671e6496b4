"""``SSLContext.wrap_socket`` on the stack's sockets, while ``ustack.install()`` holds.

OpenSSL reads and writes a descriptor itself. A daemon's socket is one; a listener of its kind
needs the daemon to accept, so the wrapped socket is both. A socket of a stack in this process
is none, and says so.
"""

from __future__ import annotations

import errno
import ssl
from typing import Any

from ustack.api.remote import RemoteSocket
from ustack.api.sockets import socket
from ustack.api.stacks import daemon_link

NO_DESCRIPTOR = (
    "wrap_socket() needs a real descriptor, which a socket of a stack in this process has not: "
    "use asyncio's TLS, or a running ustackd (ustack.connect(), ustack run --)"
)


class StackSSLSocket(ssl.SSLSocket):
    """What ``SSLContext.sslsocket_class`` is: chooses by the socket that is to be wrapped."""

    @classmethod
    def _create(cls, sock: Any, *args: Any, **kwargs: Any) -> Any:
        made: Any = ssl.SSLSocket
        if isinstance(sock, RemoteSocket):
            made = RemoteSSLSocket
        elif isinstance(sock, socket):
            raise OSError(errno.EOPNOTSUPP, NO_DESCRIPTOR)
        return made._create(sock, *args, **kwargs)


class _Plain(RemoteSocket):
    """What is below the encryption; made with ``socket.socket``'s arguments."""

    def __init__(self, family: int, type: int, proto: int, fileno: int) -> None:
        link = daemon_link()
        assert link is not None
        super().__init__(link, type, proto, fileno)


class RemoteSSLSocket(ssl.SSLSocket, _Plain):  # type: ignore[misc]
    """An encrypted connection of a daemon, or a listener that accepts such."""


def wrap_stack_sockets(on: bool) -> None:
    """Let ``SSLContext.wrap_socket`` know the stack's sockets, or no longer."""
    ssl.SSLContext.sslsocket_class = StackSSLSocket if on else ssl.SSLSocket
