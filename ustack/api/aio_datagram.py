"""An asyncio datagram transport over one core UDP socket, on the inline runtime.

Received datagrams go to the protocol in the loop's turn after the softirq queued them. A
datagram never waits to be sent, so the protocol is never paused.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ustack.api.aio_socket import TransportSocket
from ustack.api.names import api_address, numeric_host
from ustack.sock.wait import WaitEntry

if TYPE_CHECKING:
    from ustack.inet.dgram import DgramSocket
    from ustack.runtime.inline import InlineRuntime

DATAGRAM_BYTES = 65_535
BATCH = 64
"""Datagrams that are handed over before other work of the loop has its turn."""


class StackDatagramTransport(asyncio.DatagramTransport):
    """A UDP socket; ``protocol`` is an asyncio.DatagramProtocol."""

    def __init__(
        self, runtime: InlineRuntime, sock: DgramSocket, protocol: asyncio.DatagramProtocol
    ) -> None:
        super().__init__()
        self._runtime = runtime
        self._loop = runtime.loop
        self._sock: DgramSocket | None = sock
        self._sockname = api_address(sock.getsockname())
        try:
            self._peername: tuple[str, int] | None = api_address(sock.getpeername())
        except OSError:
            self._peername = None
        self._protocol: Any = protocol
        self._queued = False
        self._closing = False
        self._entry = WaitEntry(self._wake)
        sock.wq.add(self._entry)

    def start(self) -> None:
        """Tell the protocol that it is connected, then hand over what may already be there."""
        try:
            self._protocol.connection_made(self)
        except Exception as exc:
            self._fatal(exc, "protocol.connection_made() failed")
            return
        self._wake(0)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return ``peername``, ``sockname`` or ``socket`` (options only), else ``default``."""
        if name == "sockname":
            return self._sockname
        if name == "peername":
            return self._peername or default
        if name == "socket" and self._sock is not None:
            return TransportSocket(self._runtime, self._sock)
        return default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand the socket to another protocol."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the present protocol."""
        return self._protocol

    def is_closing(self) -> bool:
        """Whether close() or abort() was called, or the socket has failed."""
        return self._closing

    def _wake(self, events: int) -> bool:
        if not self._queued:
            self._queued = True
            self._runtime.defer(self._service)
        return True

    def _service(self) -> None:
        self._queued = False
        for _ in range(BATCH):
            if self._sock is None or not self._sock.rcv_ready(1):
                return
            if not self._receive(self._sock):
                return
        self._wake(0)

    def _receive(self, sock: DgramSocket) -> bool:
        """Hand over one datagram, or one error; return whether there may be more."""
        try:
            message = sock.recvmsg(DATAGRAM_BYTES)
        except BlockingIOError:
            return False
        except OSError as exc:
            self._protocol.error_received(exc)
            return True
        if message.address is None:  # shut down
            return False
        try:
            self._protocol.datagram_received(message.data, api_address(message.address))
        except Exception as exc:
            self._fatal(exc, "protocol.datagram_received() failed")
        return True

    def sendto(self, data: Any, addr: Any = None) -> None:
        """Send a datagram to ``addr``, or to the peer.

        Errors go to the protocol's error_received.

        Raises:
            ValueError: connected, and ``addr`` is not the peer; or it is no numeric address.
            TypeError: ``data`` is not bytes-like.
        """
        if not isinstance(data, bytes | bytearray | memoryview):
            kind = type(data).__name__
            raise TypeError(f"data argument must be a bytes-like object, not {kind!r}")
        if self._peername is not None and addr not in (None, self._peername):
            raise ValueError(f"Invalid address: must be None or {self._peername}")
        if self._sock is None:
            return
        try:
            self._runtime.call(self._sock.sendmsg, data, 0, self._target(addr))
        except OSError as exc:
            self._protocol.error_received(exc)

    def _target(self, addr: tuple[str, int] | None) -> tuple[int, int] | None:
        if addr is None or self._peername is not None:
            return None
        number = numeric_host(addr[0])
        if number is None:
            raise ValueError(f"not a numeric address: {addr[0]!r}")
        return number, addr[1]

    def get_write_buffer_size(self) -> int:
        """Return 0: a datagram never waits."""
        return 0

    def close(self) -> None:
        """Close the socket; the protocol hears of it by connection_lost."""
        self._detach(None)

    def abort(self) -> None:
        """The same: nothing is buffered."""
        self._detach(None)

    def _fatal(self, exc: Exception, message: str) -> None:
        self._loop.call_exception_handler(
            {"message": message, "exception": exc, "transport": self, "protocol": self._protocol}
        )
        self._detach(exc)

    def _detach(self, exc: Exception | None) -> None:
        self._closing = True
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.wq.remove(self._entry)
            self._runtime.call(sock.close)
            self._loop.call_soon(self._protocol.connection_lost, exc)
