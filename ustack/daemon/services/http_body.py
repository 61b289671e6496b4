"""Request bodies: where they end, and nothing else (RFC 9112 §6 and §7).

A reader is fed views of what arrived and passes the body's bytes on without copying them.
It takes no more than belongs to the body, so that a pipelined request behind it stays put.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from http import HTTPStatus

from ustack.daemon.services.http_request import HttpError

MAX_CHUNK_LINE_BYTES = 256
"""A chunk's size with its extensions, which are ignored."""
MAX_TRAILER_BYTES = 8 * 1024

Sink = Callable[[memoryview], object]


class LengthBody:
    """A body of ``length`` bytes."""

    def __init__(self, length: int, sink: Sink) -> None:
        self._left = length
        self._sink = sink
        self.complete = length == 0

    def feed(self, data: memoryview) -> int:
        """Take the body's part of ``data``; return how many bytes that was."""
        taken = min(len(data), self._left)
        if taken:
            self._sink(data[:taken])
            self._left -= taken
            self.complete = self._left == 0
        return taken


class _Part(enum.Enum):
    SIZE = enum.auto()
    DATA = enum.auto()
    DATA_END = enum.auto()
    TRAILER = enum.auto()


class ChunkedBody:
    """A body in chunks; trailer fields are read and dropped."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._part = _Part.SIZE
        self._line = bytearray()
        self._left = 0
        self._trailer_bytes = 0
        self.complete = False

    def feed(self, data: memoryview) -> int:
        """Take the body's part of ``data``; return how many bytes that was.

        Raises:
            HttpError: the chunks are malformed; the client's fault.
        """
        taken = 0
        while taken < len(data) and not self.complete:
            rest = data[taken:]
            taken += self._take_data(rest) if self._part is _Part.DATA else self._take_line(rest)
        return taken

    def _take_data(self, data: memoryview) -> int:
        taken = min(len(data), self._left)
        self._sink(data[:taken])
        self._left -= taken
        if not self._left:
            self._part = _Part.DATA_END
        return taken

    def _take_line(self, data: memoryview) -> int:
        """Take up to the end of the present line and act on it once it is complete."""
        window = bytes(data[: MAX_CHUNK_LINE_BYTES + 2])
        end = window.find(b"\n")
        taken = len(window) if end < 0 else end + 1
        self._line += window[:taken]
        limit = MAX_TRAILER_BYTES if self._part is _Part.TRAILER else MAX_CHUNK_LINE_BYTES
        if len(self._line) > limit:
            raise HttpError(HTTPStatus.BAD_REQUEST, "chunk line too long")
        if end < 0:
            return taken
        if not self._line.endswith(b"\r\n"):
            raise HttpError(HTTPStatus.BAD_REQUEST, "bare LF in a chunk line")
        line = bytes(self._line[:-2])
        self._line.clear()
        self._line_read(line)
        return taken

    def _line_read(self, line: bytes) -> None:
        if self._part is _Part.SIZE:
            self._left = _chunk_size(line)
            self._part = _Part.DATA if self._left else _Part.TRAILER
        elif self._part is _Part.DATA_END:
            if line:
                raise HttpError(HTTPStatus.BAD_REQUEST, "chunk longer than its size")
            self._part = _Part.SIZE
        elif line:
            self._trailer_bytes += len(line)
            if self._trailer_bytes > MAX_TRAILER_BYTES:
                raise HttpError(HTTPStatus.BAD_REQUEST, "trailer too long")
        else:
            self.complete = True


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip(b" \t")
    if not 0 < len(digits) <= 15 or digits.strip(b"0123456789abcdefABCDEF"):
        raise HttpError(HTTPStatus.BAD_REQUEST, "bad chunk size")
    return int(digits, 16)


def body_reader(length: int | None, sink: Sink) -> LengthBody | ChunkedBody:
    """Return the reader for a body of ``length`` bytes, None meaning chunked."""
    return ChunkedBody(sink) if length is None else LengthBody(length, sink)
