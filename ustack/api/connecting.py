"""The standard library's shortcuts: create_connection and create_server, on the stack."""

from __future__ import annotations

import socket as _socket
from typing import Any

from ustack.api.lookups import getaddrinfo
from ustack.api.sockets import GLOBAL_DEFAULT_TIMEOUT, socket


def create_connection(
    address: tuple[str, int],
    timeout: Any = GLOBAL_DEFAULT_TIMEOUT,
    source_address: tuple[str, int] | None = None,
    *,
    all_errors: bool = False,
) -> socket:
    """Connect to ``address`` and return the socket.

    Args:
        timeout: seconds, set on the socket before it connects; without it the default one.
        all_errors: raise an ExceptionGroup of what each address of the host met.

    Raises:
        OSError: no address of the host could be connected to.
    """
    host, port = address
    failures: list[Exception] = []
    for family, kind, proto, _name, peer in getaddrinfo(host, port, 0, _socket.SOCK_STREAM):
        sock = socket(family, kind, proto)
        try:
            if timeout is not GLOBAL_DEFAULT_TIMEOUT:
                sock.settimeout(timeout)
            if source_address:
                sock.bind(source_address)
            sock.connect(peer)
        except OSError as exc:
            sock.close()
            failures.append(exc)
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    if all_errors:
        raise ExceptionGroup("create_connection failed", failures)
    raise failures[-1]


def create_server(
    address: tuple[str, int],
    *,
    family: int = _socket.AF_INET,
    backlog: int | None = None,
    reuse_port: bool = False,
    dualstack_ipv6: bool = False,
) -> socket:
    """Return a socket that listens on ``address`` (host, port).

    Raises:
        OSError: the address cannot be bound; EAFNOSUPPORT: not AF_INET.
        ValueError: ``dualstack_ipv6``: the stack has no IPv6.
    """
    if dualstack_ipv6:
        raise ValueError("dualstack_ipv6 not supported on this platform")
    sock = socket(family, _socket.SOCK_STREAM)
    try:
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEPORT, 1)
        try:
            sock.bind(address)
        except OSError as exc:
            message = f"{exc.strerror} (while attempting to bind on address {address!r})"
            raise OSError(exc.errno, message) from None
        sock.listen(128 if backlog is None else backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def has_dualstack_ipv6() -> bool:
    """Return False: the stack has no IPv6."""
    return False
