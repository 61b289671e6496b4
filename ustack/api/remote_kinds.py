"""Sockets of a daemon by their kind: which class one is, and what makes it."""

from __future__ import annotations

import socket as _socket

from ustack.api import protocol
from ustack.api.daemon_link import DaemonLink
from ustack.api.protocol import Call
from ustack.api.remote import RemoteSocket
from ustack.api.remote_dgram import RemoteDgram

SOCK_TYPE_MASK = 0xF
SO_PROTOCOL = 38
SOL_SOCKET, SO_TYPE = int(_socket.SOL_SOCKET), int(_socket.SO_TYPE)
SOCK_STREAM = int(_socket.SOCK_STREAM)


def remote_socket(
    link: DaemonLink, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None
) -> RemoteSocket:
    """Make a socket of the daemon that ``link`` leads to; arguments as ``socket.socket``'s.

    Args:
        fileno: a descriptor that is such a socket already.
    """
    kind = SOCK_STREAM if type == -1 else type & SOCK_TYPE_MASK
    if fileno is None:
        domain = int(_socket.AF_INET) if family == -1 else int(family)
        fileno = link.socket(Call(protocol.SOCKET, domain, kind, max(proto, 0)))
    else:
        kind = _option(link, fileno, SO_TYPE) if type == -1 else kind
        proto = _option(link, fileno, SO_PROTOCOL) if proto == -1 else proto
    cls = RemoteSocket if kind == SOCK_STREAM else RemoteDgram
    sock = cls(link, kind, max(proto, 0), fileno)
    if type != -1 and type & _socket.SOCK_NONBLOCK:
        sock.setblocking(False)
    return sock


def _option(link: DaemonLink, fd: int, name: int) -> int:
    answer = link.call(Call(protocol.GETSOCKOPT, SOL_SOCKET, name, 4), fd)
    return int.from_bytes(answer.data, "little")
