"""What an encrypted connection of a stack in this process reads and writes with.

OpenSSL reads and writes descriptors itself, and these sockets have none. So it works on memory,
and what it wants goes by ``wait_for``, as in any blocking call. Never more is read than the
record that is waited for: what select() says of the socket and ``pending()`` of the record is
as with a descriptor, and what follows the end of the encryption is not touched.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING, Any

from ustack.api import attempts
from ustack.runtime.clock import monotonic_us
from ustack.runtime.waiter import NOT_YET

if TYPE_CHECKING:
    from collections.abc import Callable

    from ustack.api.sockets import socket

HEADER_BYTES = 5
"""Of a record: type, version, length (RFC 8446 §5.1)."""


RECORD_BYTES = 1 << 14
"""What one holds at most (RFC 8446 §5.1)."""


class Records:
    """What ``SSLSocket._sslobj`` is: an ``SSLObject`` whose records we carry.

    The methods and attributes that are not here are the SSLObject's.

    Args:
        sock: The connection below; its timeout bounds each operation as a whole.
        context: The SSLContext.
        arguments: ``SSLContext.wrap_bio``'s.
    """

    def __init__(self, sock: socket, context: ssl.SSLContext, **arguments: Any) -> None:
        self._sock = sock
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object: Any = context.wrap_bio(self._in, self._out, **arguments)
        self._header = b""
        self._left = 0
        """Bytes of the record at hand that have not come yet."""
        self._unsent: attempts.SendAll | None = None
        self._using = Lock()
        """Held while OpenSSL works, never while anybody waits."""
        self._sending = Lock()
        self._receiving = Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._object, name)

    @property
    def session(self) -> Any:
        """The SSLSession, which a client may set."""
        return self._object.session

    @session.setter
    def session(self, session: Any) -> None:
        self._object.session = session

    @property
    def context(self) -> Any:
        """The SSLContext, which a server's SNI callback may set."""
        return self._object.context

    @context.setter
    def context(self, context: Any) -> None:
        self._object.context = context

    # What OpenSSL does.

    def do_handshake(self) -> None:
        """Do the handshake."""
        end_us = self._end_us()
        self._call("handshake", end_us, self._object.do_handshake)
        self._flush("handshake", end_us)

    def shutdown(self) -> None:
        """End the encryption: tell the peer, and wait for it to do so."""
        end_us = self._end_us()
        self._call("shutdown", end_us, self._object.unwrap)
        self._flush("shutdown", end_us)

    def verify_client_post_handshake(self) -> None:
        """Ask a client for its certificate."""
        self._object.verify_client_post_handshake()
        self._flush("write", self._end_us())

    def read(self, *args: Any) -> Any:
        """Decrypt what has come, as ``SSLObject.read``."""
        result = self._call("read", self._end_us(), self._object.read, *args)
        with suppress(OSError):
            self._flush_at_once()  # a key update's answer
        return result

    def write(self, data: Any) -> int:
        """Encrypt and send ``data``; return how much of it, all but if that would block."""
        end_us = self._end_us()
        self._flush("write", end_us)
        with memoryview(data) as whole, whole.cast("B") as view:
            taken = self._write_record(view[:RECORD_BYTES], end_us)
            while taken < len(view) and self._unsent is None:
                taken += self._write_record(view[taken : taken + RECORD_BYTES], end_us)
        return taken

    def _write_record(self, part: memoryview, end_us: int | None) -> int:
        with part:
            taken: int = self._call("write", end_us, self._object.write, part)
        with suppress(ssl.SSLWantWriteError):  # the next call sends the rest
            self._flush("write", end_us)
        return taken

    # Carrying.

    def _end_us(self) -> int | None:
        """Return when an operation that begins now has to end; None: never, 0: at once."""
        timeout_us = self._sock._timeout_us
        return monotonic_us() + timeout_us if timeout_us else timeout_us

    def _call(self, what: str, end_us: int | None, call: Callable[..., Any], *args: Any) -> Any:
        """Call OpenSSL until it needs no more from the peer."""
        while True:
            try:
                with self._using:
                    return call(*args)
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                with suppress(OSError):
                    self._flush(what, end_us)  # an alert
                raise
            if what == "read":
                self._flush_at_once()
            else:
                self._flush(what, end_us)
            self._fill(what, end_us)

    def _flush(self, what: str, end_us: int | None) -> None:
        """Send what OpenSSL has to say, and what could not be sent before."""
        while self._out.pending or self._unsent is not None:
            with self._sending:
                self._send(what, end_us)

    def _flush_at_once(self) -> None:
        """Send what can be sent now; a writer sends the rest, or who comes next.

        A reader must not wait for that: the peer may read no more before it is read from.
        """
        if (self._out.pending or self._unsent is not None) and self._sending.acquire(False):
            try:
                self._send("read", 0)
            except ssl.SSLWantWriteError:
                pass
            finally:
                self._sending.release()

    def _send(self, what: str, end_us: int | None) -> None:
        if self._unsent is None:
            with self._using:
                self._unsent = attempts.SendAll(self._out.read())  # perhaps nothing any more
        if self._wait(end_us, self._unsent, 0) is NOT_YET:
            raise self._expired(what, end_us, ssl.SSLWantWriteError)
        self._unsent = None

    def _fill(self, what: str, end_us: int | None) -> None:
        """Receive more of the record that is waited for."""
        with self._receiving:
            if self._in.pending:
                return  # another thread was quicker
            wanted = self._left or HEADER_BYTES - len(self._header)
            data = self._wait(end_us, attempts.try_recv, wanted, 0)
            if data is NOT_YET:
                raise self._expired(what, end_us, ssl.SSLWantReadError)
            with self._using:
                self._take(data)

    def _take(self, data: bytes) -> None:
        if not data:
            self._in.write_eof()
        elif self._left:
            self._left -= len(data)
            self._in.write(data)
        else:
            self._header += data
            if len(self._header) == HEADER_BYTES:
                self._in.write(self._header)
                self._left = int.from_bytes(self._header[3:], "big")
                self._header = b""

    def _wait(self, end_us: int | None, attempt: Callable[..., Any], *args: Any) -> Any:
        file = self._sock._open_file()
        left_us = max(0, end_us - monotonic_us()) if end_us else end_us
        return file.runtime.wait_for(file, left_us, False, attempt, file.core, *args)

    def _expired(self, what: str, end_us: int | None, wants: type[ssl.SSLError]) -> OSError:
        """Return the error of an operation whose time is over."""
        reading = wants is ssl.SSLWantReadError
        kind = "read" if reading else "write"
        if end_us:
            name = what if what == "handshake" else kind
            return TimeoutError(f"The {name} operation timed out")
        number = ssl.SSL_ERROR_WANT_READ if reading else ssl.SSL_ERROR_WANT_WRITE
        return wants(number, f"The operation did not complete ({kind})")
