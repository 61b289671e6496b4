"""Echo, discard and character generator: RFC 862, RFC 863 and RFC 864.

Echo takes its text as the inbox brings it; the others, who do not want any, have it copied into
a buffer that all connections share. Flow control is the transport's: echo stops reading while its
answers do not leave, the generator writes a prepared block whenever there is room.
"""

from __future__ import annotations

import asyncio
from typing import cast

CHARGEN_LINE_CHARS = 72
"""Characters a line, as in RFC 864's example; CR LF follow."""
CHARGEN_BLOCK_PERIODS = 37
"""How often the pattern, which repeats after 95 lines, stands in a block: 254 KiB in all."""


def chargen_block() -> bytes:
    """Return the pattern of RFC 864: each line begins one printable character further on."""
    ring = bytes(range(32, 127))
    lines = [(ring[i:] + ring[:i])[:CHARGEN_LINE_CHARS] for i in range(len(ring))]
    return b"".join(line + b"\r\n" for line in lines) * CHARGEN_BLOCK_PERIODS


class _Connection(asyncio.BaseProtocol):
    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to write."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the transport."""
        self._transport = None


class _SharedBufferProtocol(_Connection, asyncio.BufferedProtocol):
    def __init__(self, buffer: memoryview) -> None:
        super().__init__()
        self._buffer = buffer

    def get_buffer(self, sizehint: int) -> memoryview:
        """Lend the shared buffer."""
        return self._buffer


class Echo(_Connection, asyncio.Protocol):
    """Send back what comes (RFC 862); after the peer's FIN the rest, then ours."""

    def data_received(self, data: bytes) -> None:
        """Return what has arrived; the transport keeps what it cannot send at once."""
        if self._transport is not None:
            self._transport.write(data)

    def pause_writing(self) -> None:
        """The peer does not read: take no more from it."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The peer reads again."""
        if self._transport is not None:
            self._transport.resume_reading()


class Discard(_SharedBufferProtocol):
    """Read and forget (RFC 863)."""

    def buffer_updated(self, nbytes: int) -> None:
        """Forget what has arrived."""


class Chargen(_SharedBufferProtocol):
    """Send the pattern until the peer closes (RFC 864)."""

    def __init__(self, buffer: memoryview, block: bytes) -> None:
        super().__init__(buffer)
        self._block = block
        self._writable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin at once."""
        super().connection_made(transport)
        self._generate()

    def buffer_updated(self, nbytes: int) -> None:
        """Input is thrown away (RFC 864)."""

    def eof_received(self) -> bool:
        """A peer that has only shut down its sending side still gets characters."""
        return True

    def pause_writing(self) -> None:
        """The transport has enough."""
        self._writable = False

    def resume_writing(self) -> None:
        """The transport has room again."""
        self._writable = True
        self._generate()

    def _generate(self) -> None:
        while self._writable and self._transport is not None and not self._transport.is_closing():
            self._transport.write(self._block)
