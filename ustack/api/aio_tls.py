"""TLS on the stack's transports: asyncio's own, whichever loop runs.

uvloop's start_tls() knows uvloop's transports alone; asyncio's needs nothing of its loop that
others have not.
"""

from __future__ import annotations

import asyncio
import ssl
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable
from typing import Any


async def start_tls(
    transport: asyncio.Transport,
    protocol: asyncio.BaseProtocol,
    sslcontext: ssl.SSLContext,
    *,
    server_side: bool = False,
    server_hostname: str | None = None,
    **timeouts: Any,
) -> asyncio.Transport:
    """Encrypt a connection from now on, as asyncio's ``loop.start_tls``; return what to write to.

    Raises:
        OSError: the handshake has failed.
    """
    loop: Any = asyncio.get_running_loop()
    made = await asyncio.BaseEventLoop.start_tls(
        loop, transport, protocol, sslcontext,
        server_side=server_side, server_hostname=server_hostname, **timeouts,
    )  # fmt: skip
    assert made is not None
    return made


class StreamLoop:
    """The running loop for streams, whose ``start_tls`` is the one above."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def start_tls(self, *args: Any, **options: Any) -> asyncio.Transport:
        """Do as the module's ``start_tls``, for ``StreamWriter``'s."""
        return await start_tls(*args, **options)


def secured(
    protocol_factory: Callable[[], asyncio.BaseProtocol],
    sslcontext: ssl.SSLContext,
    **timeouts: Any,
) -> Callable[[], asyncio.BaseProtocol]:
    """Return what makes a server's protocols, each behind the encryption of its connection."""
    loop = asyncio.get_running_loop()

    def factory() -> asyncio.BaseProtocol:
        nobody_waits: Any = None
        return SSLProtocol(
            loop, protocol_factory(), sslcontext, nobody_waits, server_side=True, **timeouts
        )

    return factory


class Handshake:
    """A client's encryption below its protocol, which hears of the connection when it is there."""

    def __init__(
        self,
        protocol: asyncio.BaseProtocol,
        sslcontext: ssl.SSLContext | bool,
        server_hostname: str,
        **timeouts: Any,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = loop.create_future()
        context: Any = sslcontext if isinstance(sslcontext, ssl.SSLContext) else None
        self.below: Any = SSLProtocol(
            loop, protocol, context, self._done, server_hostname=server_hostname, **timeouts
        )

    async def finish(self, transport: asyncio.Transport) -> asyncio.Transport:
        """Wait until it is there; return what the protocol writes to.

        Raises:
            OSError: it has failed; ``transport`` is closed.
        """
        try:
            await self._done
        except BaseException:
            transport.close()
            raise
        made: asyncio.Transport = self.below._get_app_transport()
        return made
