"""``SSLContext.wrap_socket`` on the stack's sockets, while ``ustack.install()`` holds.

OpenSSL reads and writes a descriptor itself. A daemon's socket is one; a listener of its kind
needs the daemon to accept, so the wrapped socket is both. A socket of a stack in this process
has none: there the standard SSLSocket stands on such a socket, and on ``tls_records``.
"""

from __future__ import annotations

import errno
import socket as _socket
import ssl
from collections.abc import Callable
from typing import Any

from ustack.api.remote import RemoteSocket
from ustack.api.sockets import socket
from ustack.api.stacks import daemon_link
from ustack.api.tls_records import Records


class StackSSLSocket(ssl.SSLSocket):
    """What ``SSLContext.sslsocket_class`` is: chooses by the socket that is to be wrapped."""

    @classmethod
    def _create(cls, sock: Any, *args: Any, **kwargs: Any) -> Any:
        made: Any = ssl.SSLSocket
        if isinstance(sock, RemoteSocket):
            made = RemoteSSLSocket
        elif isinstance(sock, socket):
            made = InProcessSSLSocket
        return made._create(sock, *args, **kwargs)


class _Plain(RemoteSocket):
    """What is below the encryption; made with ``socket.socket``'s arguments."""

    def __init__(self, family: int, type: int, proto: int, fileno: int) -> None:
        link = daemon_link()
        assert link is not None
        super().__init__(link, type, proto, fileno)


class RemoteSSLSocket(ssl.SSLSocket, _Plain):  # type: ignore[misc]
    """An encrypted connection of a daemon, or a listener that accepts such."""


def _of_raw(name: str) -> Callable[..., Any]:
    def method(self: _InProcess, *args: Any) -> Any:
        return getattr(self._raw, name)(*args)

    method.__name__ = name
    return method


class _InProcess(_socket.socket):
    """A standard socket that has no descriptor, but a stack's socket: what SSLSocket is above."""

    is_ustack_socket = True

    def __init__(self, raw: socket) -> None:
        self._raw = raw
        self._io_refs, self._closed = 0, False  # the standard socket's own

    accept = _of_raw("accept")
    bind = _of_raw("bind")
    connect = _of_raw("connect")
    connect_ex = _of_raw("connect_ex")
    detach = _of_raw("detach")
    fileno = _of_raw("fileno")
    get_inheritable = _of_raw("get_inheritable")
    getblocking = _of_raw("getblocking")
    getpeername = _of_raw("getpeername")
    getsockname = _of_raw("getsockname")
    getsockopt = _of_raw("getsockopt")
    gettimeout = _of_raw("gettimeout")
    listen = _of_raw("listen")
    recv = _of_raw("recv")
    recv_into = _of_raw("recv_into")
    recvfrom = _of_raw("recvfrom")
    recvfrom_into = _of_raw("recvfrom_into")
    send = _of_raw("send")
    sendall = _of_raw("sendall")
    sendfile = _of_raw("sendfile")
    sendto = _of_raw("sendto")
    set_inheritable = _of_raw("set_inheritable")
    setblocking = _of_raw("setblocking")
    setsockopt = _of_raw("setsockopt")
    settimeout = _of_raw("settimeout")
    shutdown = _of_raw("shutdown")
    _real_close = _of_raw("close")

    @property
    def family(self) -> _socket.AddressFamily:
        """AF_INET."""
        return self._raw.family

    @property
    def type(self) -> _socket.SocketKind:
        """SOCK_STREAM."""
        return self._raw.type

    @property
    def proto(self) -> int:
        """The protocol number that the socket was made with."""
        return self._raw.proto

    @property
    def timeout(self) -> float | None:
        """The timeout in seconds: None blocks for ever, 0.0 never."""
        return self._raw.gettimeout()

    def __repr__(self) -> str:
        return repr(self._raw).replace("ustack.socket.socket", "ssl.SSLSocket", 1)


class InProcessSSLSocket(ssl.SSLSocket, _InProcess):
    """An encrypted connection of a stack in this process, or a listener that accepts such."""

    do_handshake_on_connect: bool
    suppress_ragged_eofs: bool
    _connected: bool
    _context: Any
    _session: Any
    _sslobj: Any

    @classmethod
    def _create(
        cls,
        sock: Any,
        server_side: bool = False,
        do_handshake_on_connect: bool = True,
        suppress_ragged_eofs: bool = True,
        server_hostname: str | None = None,
        context: Any = None,
        session: Any = None,
    ) -> InProcessSSLSocket:
        _check(sock, server_side, server_hostname, context, session)
        self = cls.__new__(cls)
        _InProcess.__init__(self, socket(fileno=sock.fileno()))
        self.settimeout(sock.gettimeout())
        sock.detach()
        self._context, self._session, self._sslobj = context, session, None
        self.server_side, self.server_hostname = server_side, server_hostname
        self.do_handshake_on_connect = do_handshake_on_connect
        self.suppress_ragged_eofs = suppress_ragged_eofs
        try:
            self._connected = _is_connected(self._raw)
            if self._connected:
                self._encrypt()
                self._shake_hands()
        except (OSError, ValueError):
            self.close()
            raise
        return self

    def _encrypt(self) -> None:
        self._sslobj = Records(
            self._raw, self._context,
            server_side=self.server_side, server_hostname=self.server_hostname,
            session=self._session,
        )  # fmt: skip

    def _shake_hands(self) -> None:
        if not self.do_handshake_on_connect:
            return
        if self.gettimeout() == 0.0:
            raise ValueError(
                "do_handshake_on_connect should not be specified for non-blocking sockets"
            )
        self.do_handshake()

    def _real_connect(self, addr: Any, connect_ex: bool) -> int | None:
        if self.server_side:
            raise ValueError("can't connect in server-side mode")
        if self._connected or self._sslobj is not None:
            raise ValueError("attempt to connect already-connected SSLSocket!")
        self._encrypt()
        try:
            error = None
            if connect_ex:
                error = self._raw.connect_ex(addr)
            else:
                self._raw.connect(addr)
            if not error:
                self._connected = True
                if self.do_handshake_on_connect:
                    self.do_handshake()
        except (OSError, ValueError):
            self._sslobj = None
            raise
        return error

    def unwrap(self) -> _socket.socket:
        """End the encryption; return the socket, which goes on without."""
        super().unwrap()
        return self


def _check(
    sock: Any, server_side: bool, server_hostname: str | None, context: Any, session: Any
) -> None:
    if sock.type != _socket.SOCK_STREAM:
        raise NotImplementedError("only stream sockets are supported")
    if server_side and server_hostname:
        raise ValueError("server_hostname can only be specified in client mode")
    if server_side and session is not None:
        raise ValueError("session can only be specified in client mode")
    if context.check_hostname and not server_hostname:
        raise ValueError("check_hostname requires server_hostname")


def _is_connected(raw: socket) -> bool:
    """Whether there is anybody to shake hands with.

    Raises:
        SSLError: there was, and what he sent in clear would be taken for the encrypted stream's.
    """
    try:
        raw.getpeername()
        return True
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise
    try:
        unencrypted = raw.recv(1, _socket.MSG_DONTWAIT)
    except OSError as error:
        if error.errno not in (errno.ENOTCONN, errno.EINVAL):
            raise
        return False
    if unencrypted:
        raise ssl.SSLError("Closed before TLS handshake with data in recv buffer.")
    return False


def wrap_stack_sockets(on: bool) -> None:
    """Let ``SSLContext.wrap_socket`` know the stack's sockets, or no longer."""
    ssl.SSLContext.sslsocket_class = StackSSLSocket if on else ssl.SSLSocket
