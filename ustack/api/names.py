"""Addresses between the socket API's text and the core's integers."""

from __future__ import annotations

import socket as _socket
from operator import index
from typing import Any

from ustack.lib.addresses import INADDR_ANY, INADDR_BROADCAST, format_ipv4


def numeric_host(host: str) -> int | None:
    """Return an address that is written in numbers, in any form of inet_aton(3); else None."""
    try:
        return int.from_bytes(_socket.inet_aton(host), "big")
    except (OSError, UnicodeError):
        return None


def resolve_host(host: Any) -> int:
    """Return the IPv4 address that the socket calls take ``host`` for; '' and None: any.

    Raises:
        socket.gaierror: there is no such host. TypeError: ``host`` is not text.
    """
    if isinstance(host, bytes | bytearray):
        host = host.decode("ascii")
    if host is None or host == "":
        return INADDR_ANY
    if not isinstance(host, str):
        raise TypeError("str, bytes or bytearray expected, not " + type(host).__name__)
    numeric = numeric_host(host)
    if numeric is not None:
        return numeric
    return INADDR_BROADCAST if host == "<broadcast>" else _look_up(host)


def _look_up(host: str) -> int:
    from ustack.api.stacks import default_resolver  # which needs sockets, which need this

    return default_resolver().addresses(host)[1][0]


def core_address(address: Any, caller: str) -> tuple[int, int]:
    """Turn the application's ``(host, port)`` into the core's, or complain as ``caller``.

    Raises:
        TypeError: not a pair of text and number.
        OverflowError: the port is not within 0-65535.
        socket.gaierror: there is no such host.
    """
    if not isinstance(address, tuple):
        kind = type(address).__name__
        raise TypeError(f"{caller}(): AF_INET address must be tuple, not {kind}")
    if len(address) != 2:
        raise TypeError("AF_INET address must be a pair (host, port)")
    host, port = address
    port = index(port)
    if not 0 <= port <= 65535:
        raise OverflowError(f"{caller}(): port must be 0-65535.")
    return resolve_host(host), port


def api_address(address: tuple[int, int]) -> tuple[str, int]:
    """Turn the core's address into the application's."""
    return format_ipv4(address[0]), address[1]
