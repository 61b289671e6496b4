"""The HTTP/1.1 service: one ``HttpConnection`` protocol per connection (RFC 9110, 9112).

Bytes come in through the buffered-protocol interface into one buffer that all connections
share: the transport fills it and hands it over in one go, and nothing keeps a view of it.
Uploads are hashed from there. Responses go out in pieces, the next one when the transport
has room. One request is served at a time; what is pipelined behind it waits unread.
"""

from __future__ import annotations

import asyncio
import enum
import hashlib
import json
from email.utils import formatdate
from http import HTTPStatus
from typing import cast

from ustack.daemon.services.http_body import ChunkedBody, LengthBody, body_reader
from ustack.daemon.services.http_request import (
    HttpError,
    RequestHead,
    find_head_end,
    parse_request_head,
)
from ustack.daemon.services.http_site import HttpSite, Response, target_path, text_response

JOIN_BYTES = 16 * 1024
"""A body up to this size leaves together with its head."""
HEAD_TIMEOUT_S = 20.0
"""From the first byte of a request to the end of its head."""
IDLE_TIMEOUT_S = 60.0
"""Without any progress: between requests, in a body, in a response."""
LINGER_S = 2.0
"""After an error: how long what the client still sends is read and dropped."""
TICK_S = 10.0
"""How often a connection looks at the limits above."""


class _Phase(enum.Enum):
    HEAD = enum.auto()
    BODY = enum.auto()
    RESPONSE = enum.auto()
    LINGER = enum.auto()


class Upload:
    """A body on its way in: counted and hashed, not kept."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._size = 0

    def write(self, data: memoryview) -> None:
        """Take the next bytes."""
        self._hash.update(data)
        self._size += len(data)

    def response(self) -> Response:
        """Tell the client what arrived."""
        text = json.dumps({"size": self._size, "sha256": self._hash.hexdigest()})
        response = text_response(text + "\n", HTTPStatus.OK)
        response.headers["Content-Type"] = "application/json"
        return response


class HttpConnection(asyncio.BufferedProtocol):
    """Serves one connection until it is closed."""

    def __init__(self, site: HttpSite, buffer: memoryview, loop: asyncio.AbstractEventLoop) -> None:
        self._site = site
        self._buffer = buffer
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._phase = _Phase.HEAD
        self._waiting = bytearray()
        """Bytes of a head, or what was pipelined behind the present request."""
        self._head: RequestHead | None = None
        self._body: LengthBody | ChunkedBody | None = None
        self._upload: Upload | None = None
        self._response: Response | None = None
        self._writable = True
        self._keep_alive = True
        self._eof = False
        self._advancing = False
        self._unwritten = 0
        self._progress_s = loop.time()
        self._request_s: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the clock."""
        self._transport = cast(asyncio.Transport, transport)
        self._timer = self._loop.call_later(TICK_S, self._tick)

    def connection_lost(self, exc: Exception | None) -> None:
        """Release the file and the timer."""
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        self._finish_response()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Lend the shared buffer."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what has arrived."""
        self._progress_s = self._loop.time()
        if self._phase is _Phase.LINGER:
            return
        try:
            self._received(self._buffer[:nbytes])
        except HttpError as error:
            self._refuse(error)
            return
        self._advance()

    def eof_received(self) -> bool:
        """The client will send no more: answer what is complete, then close."""
        self._eof = True
        if self._phase is _Phase.HEAD and self._waiting:
            self._loop.call_soon(self._advance)
            return True
        return self._phase is _Phase.RESPONSE

    def pause_writing(self) -> None:
        """The transport has enough."""
        self._writable = False

    def resume_writing(self) -> None:
        """The transport has room again."""
        self._writable = True
        self._progress_s = self._loop.time()
        self._send_pieces()

    # The request.

    def _received(self, data: memoryview) -> None:
        if self._phase is _Phase.BODY and not self._waiting:
            assert self._body is not None
            data = data[self._body.feed(data) :]
            if self._body.complete:
                self._body_complete()
        self._waiting += data

    def _advance(self) -> None:
        """Work through what is waiting, until it runs out or a response is on its way."""
        self._advancing = True
        try:
            while self._transport is not None and self._waiting and self._take_waiting():
                pass
        except HttpError as error:
            self._refuse(error)
        finally:
            self._advancing = False
        if self._transport is None:
            return
        if self._phase is _Phase.RESPONSE:
            self._transport.pause_reading()
        elif self._eof and self._phase is not _Phase.LINGER:
            self._close()

    def _take_waiting(self) -> bool:
        """Take the next head or body from what is waiting; False if it must wait longer."""
        if self._phase is _Phase.HEAD:
            return self._read_head()
        if self._phase is _Phase.BODY:
            self._read_body()
            return True
        return False

    def _read_head(self) -> bool:
        """Take a head from ``_waiting`` and begin to serve it; False if it is incomplete."""
        while self._waiting.startswith(b"\r\n"):
            del self._waiting[:2]  # RFC 9112 §2.2: an empty line before the request
        if self._request_s is None:
            self._request_s = self._loop.time()
        end = find_head_end(self._waiting)
        if end < 0:
            return False
        raw = bytes(self._waiting[:end])
        del self._waiting[:end]
        self._request_s = None
        self._serve(parse_request_head(raw))
        return True

    def _serve(self, head: RequestHead) -> None:
        self._head = head
        self._keep_alive = head.keep_alive
        length = head.body_length()
        if head.method in ("PUT", "POST"):
            if target_path(head.target) != "/upload":
                raise HttpError(HTTPStatus.NOT_FOUND)
            self._upload = Upload()
            self._body = body_reader(length, self._upload.write)
        elif head.method in ("GET", "HEAD"):
            self._body = body_reader(length, len)
        else:
            known = head.method in ("DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT")
            status = HTTPStatus.METHOD_NOT_ALLOWED if known else HTTPStatus.NOT_IMPLEMENTED
            raise HttpError(status)
        self._phase = _Phase.BODY
        if self._body.complete:
            self._body_complete()
        elif head.expects_continue and not self._waiting:
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _read_body(self) -> None:
        assert self._body is not None
        waiting = bytes(self._waiting)
        self._waiting.clear()
        taken = self._body.feed(memoryview(waiting))
        self._waiting += waiting[taken:]
        if self._body.complete:
            self._body_complete()

    def _body_complete(self) -> None:
        assert self._head is not None
        self._body = None
        if self._upload is not None:
            response = self._upload.response()
            self._upload = None
        else:
            try:
                response = self._site.respond(self._head)
            except HttpError as error:
                response = error_response(error)
        self._respond(response)

    # The response.

    def _respond(self, response: Response) -> None:
        self._phase = _Phase.RESPONSE
        self._response = response
        head = response_head(response, keep_alive=self._keep_alive)
        if self._head is not None and self._head.method == "HEAD":
            response.close()
            response.pieces = iter(())
            response.length = 0
        if 0 < response.length <= JOIN_BYTES:
            piece = next(response.pieces, b"")
            response.length -= len(piece)
            head += piece
        self._write(head)
        self._send_pieces()

    def _send_pieces(self) -> None:
        """Write while there is room; then go on with the next request."""
        response = self._response
        while response is not None and self._writable and self._transport is not None:
            sent = response.send_file(self._transport)
            if sent is None:
                return  # resume_writing comes
            if sent:
                response.length -= sent
                self._progress_s = self._loop.time()
                continue
            piece = next(response.pieces, None)
            if piece is None:
                self._response_complete(response)
                return
            response.length -= len(piece)
            self._progress_s = self._loop.time()
            self._transport.write(piece)

    def _response_complete(self, response: Response) -> None:
        self._finish_response()
        self._head = None
        if response.length:
            self._abort()  # the file has shrunk: the client must not take it for whole
        elif not self._keep_alive:
            self._close()
        else:
            self._phase = _Phase.HEAD
            self._next_request()

    def _next_request(self) -> None:
        """Read on; ``_advance`` is not called from itself, so pipelining does not recurse."""
        assert self._transport is not None
        if not self._advancing:
            self._transport.resume_reading()
            self._loop.call_soon(self._advance)

    def _finish_response(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None

    def _refuse(self, error: HttpError) -> None:
        """Answer an error. What the client still sends is read for a while, because closing
        with unread bytes would reset the connection and take the answer away with it."""
        if self._transport is None:
            return
        self._keep_alive = False
        response = error_response(error)
        self._waiting.clear()
        self._upload = self._body = None
        self._finish_response()
        self._write(response_head(response, keep_alive=False))
        if self._head is None or self._head.method != "HEAD":
            self._write(b"".join(response.pieces))
        self._phase = _Phase.LINGER
        self._transport.write_eof()
        self._loop.call_later(LINGER_S, self._close)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _tick(self) -> None:
        """Close a connection that has kept us waiting for too long."""
        if self._transport is None:
            return
        now_s = self._loop.time()
        unwritten = self._transport.get_write_buffer_size()
        if unwritten < self._unwritten:
            self._progress_s = now_s
        self._unwritten = unwritten
        slow_head = self._request_s is not None and now_s - self._request_s > HEAD_TIMEOUT_S
        idle = now_s - self._progress_s > IDLE_TIMEOUT_S
        if slow_head and self._phase is _Phase.HEAD:
            self._refuse(HttpError(HTTPStatus.REQUEST_TIMEOUT))
        elif idle and self._phase is _Phase.HEAD and not unwritten:
            self._close()
        elif idle:
            self._abort()
        self._timer = self._loop.call_later(TICK_S, self._tick)


def error_response(error: HttpError) -> Response:
    """Tell the client what was wrong."""
    response = text_response(f"{error.status.value} {error}\n", error.status)
    if error.status is HTTPStatus.METHOD_NOT_ALLOWED:
        response.headers["Allow"] = "GET, HEAD, PUT, POST"
    return response


def response_head(response: Response, *, keep_alive: bool) -> bytes:
    """Write a status line and headers."""
    status = response.status
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        "Server: ustack",
        f"Date: {formatdate(usegmt=True)}",
        f"Content-Length: {response.length}",
        *(f"{name}: {value}" for name, value in response.headers.items()),
        f"Connection: {'keep-alive' if keep_alive else 'close'}",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
