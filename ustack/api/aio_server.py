"""An asyncio server on a listening core socket, on the inline runtime.

The listener's wait queue entry queues ``_accept`` with the runtime; each accepted connection
becomes a transport whose protocol is told at once, in the same loop iteration.
"""

from __future__ import annotations

import asyncio
import socket as _socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from ustack.api.aio_socket import TransportSocket
from ustack.api.aio_transport import StackTransport
from ustack.sock.wait import EPOLLIN, WaitEntry

if TYPE_CHECKING:
    from ustack.inet.sockets import InetSocket
    from ustack.runtime.inline import InlineRuntime

ACCEPT_BATCH = 64
"""Connections taken in one go before others get their turn."""


class StackServer(asyncio.AbstractServer):
    """Accepts on ``listener`` (bound, not yet listening) and makes a protocol for each."""

    def __init__(
        self,
        runtime: InlineRuntime,
        listener: InetSocket,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        backlog: int,
    ) -> None:
        self._runtime = runtime
        self._listener: InetSocket | None = listener
        self._protocol_factory = protocol_factory
        self._backlog = backlog
        self._entry = WaitEntry(self._wake)
        self._queued = False
        self._serving = False
        self._transports: set[StackTransport] = set()
        self._all_gone: list[asyncio.Future[None]] = []
        self._forever: asyncio.Future[None] | None = None

    @property
    def sockets(self) -> tuple[TransportSocket, ...]:
        """The listening socket, for its name and options; empty once closed."""
        if self._listener is None:
            return ()
        return (TransportSocket(self._runtime, self._listener),)

    @property
    def connections(self) -> int:
        """How many accepted connections are open."""
        return len(self._transports)

    @property
    def transports(self) -> tuple[StackTransport, ...]:
        """The accepted connections that are open."""
        return tuple(self._transports)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop that the server runs on."""
        return self._runtime.loop

    def is_serving(self) -> bool:
        """Whether connections are being accepted."""
        return self._serving

    def listen(self) -> None:
        """Begin to accept (what start_serving does, without its coroutine)."""
        if self._serving or self._listener is None:
            return
        self._serving = True
        nodelay = (_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)  # its connections have it, too
        self._runtime.call(self._listener.setsockopt, *nodelay)
        self._listener.wq.add(self._entry)
        self._runtime.call(self._listener.listen, self._backlog)

    async def start_serving(self) -> None:
        """Begin to accept."""
        self.listen()

    async def serve_forever(self) -> None:
        """Accept until the server is closed or the task cancelled."""
        if self._forever is not None:
            raise RuntimeError(f"server {self!r} is already being awaited on serve_forever()")
        if self._listener is None:
            raise RuntimeError(f"server {self!r} is closed")
        self.listen()
        self._forever = self._runtime.loop.create_future()
        try:
            await self._forever
        except asyncio.CancelledError:
            self.close()
            raise
        finally:
            self._forever = None

    def close(self) -> None:
        """Stop listening; open connections go on."""
        listener = self._listener
        if listener is None:
            return
        self._listener = None
        self._serving = False
        listener.wq.remove(self._entry)
        self._runtime.call(listener.close)
        if self._forever is not None and not self._forever.done():
            self._forever.cancel()
        self._wake_waiters_if_empty()

    def close_connections(self) -> None:
        """Close every accepted connection, each after what it has still to send."""
        for transport in tuple(self._transports):
            transport.close()

    async def wait_closed(self) -> None:
        """Return once the server is closed and its last connection is gone."""
        if self._listener is None and not self._transports:
            return
        waiter = self._runtime.loop.create_future()
        self._all_gone.append(waiter)
        await waiter

    def detach(self, transport: StackTransport) -> None:
        """Forget a connection (transports call this)."""
        self._transports.discard(transport)
        self._wake_waiters_if_empty()

    def _wake_waiters_if_empty(self) -> None:
        if self._listener is not None or self._transports:
            return
        for waiter in self._all_gone:
            if not waiter.done():
                waiter.set_result(None)
        self._all_gone.clear()

    def _wake(self, events: int) -> bool:
        if not self._queued:
            self._queued = True
            self._runtime.defer(self._accept)
        return True

    def _accept(self) -> None:
        """Take those who wait; what they have said already they say when all are connected."""
        self._queued = False
        if self._listener is None:
            return
        accepted = self._listener.accept_many(ACCEPT_BATCH)
        if len(accepted) == ACCEPT_BATCH:
            self._wake(EPOLLIN)
        for sock, local, peer, left in accepted:
            self._start(sock, (local, peer), left)
        self._runtime.stack.deliver_text()

    def _start(
        self, sock: InetSocket, addresses: tuple[tuple[int, int], tuple[int, int]], left: bool
    ) -> None:
        try:
            protocol = self._protocol_factory()
        except Exception as exc:
            sock.close()
            context = {"message": "a new connection failed", "exception": exc}
            self._runtime.loop.call_exception_handler(context)
            return
        transport = StackTransport(self._runtime, sock, protocol, addresses, self)
        self._transports.add(transport)
        transport.start(left)
