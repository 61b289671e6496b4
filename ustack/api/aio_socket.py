"""The socket of an asyncio transport, as ``get_extra_info("socket")`` hands it out."""

from __future__ import annotations

import socket as _socket
from typing import TYPE_CHECKING

from ustack.api.names import api_address

if TYPE_CHECKING:
    from ustack.inet.dgram import DgramSocket
    from ustack.inet.sockets import InetSocket
    from ustack.runtime.inline import InlineRuntime


class TransportSocket:
    """Names and options, no data."""

    __slots__ = ("_runtime", "_sock")

    family = _socket.AF_INET

    def __init__(self, runtime: InlineRuntime, sock: InetSocket | DgramSocket) -> None:
        self._runtime = runtime
        self._sock = sock

    @property
    def type(self) -> _socket.SocketKind:
        """SOCK_STREAM or SOCK_DGRAM."""
        return _socket.SocketKind(self._sock.type)

    @property
    def proto(self) -> int:
        """The protocol number."""
        return self._sock.protocol

    def getsockname(self) -> tuple[str, int]:
        """Return the local address."""
        return api_address(self._sock.getsockname())

    def getpeername(self) -> tuple[str, int]:
        """Return the remote address."""
        return api_address(self._sock.getpeername())

    def setsockopt(self, level: int, optname: int, value: int | bytes) -> None:
        """Set an option of the core socket."""
        self._runtime.call(self._sock.setsockopt, level, optname, value)

    def getsockopt(self, level: int, optname: int, buflen: int = 0) -> int | bytes:
        """Return an option of the core socket."""
        return self._runtime.call(self._sock.getsockopt, level, optname, buflen)

    def ioctl(self, request: int) -> int:
        """Answer SIOCINQ, SIOCOUTQ, SIOCOUTQNSD or SIOCATMARK."""
        return self._runtime.call(self._sock.ioctl, request)
