"""HTTP/1.1 request heads, as bytes in and a value out (RFC 9112).

Strict where leniency lets two parsers disagree about where a message ends: bare LF, folded
lines, spaces before the colon, both Content-Length and Transfer-Encoding are refused.
``http.py`` collects the bytes and acts on the result; ``http_body.py`` reads what follows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus

MAX_HEAD_BYTES = 16 * 1024
"""Request line and headers together."""
MAX_TARGET_BYTES = 4096
MAX_HEADERS = 100

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_VERSION = re.compile(rb"HTTP/(\d)\.(\d)\Z")
_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_BARE_LF = re.compile(rb"(?<!\r)\n")
_SINGLE = frozenset(["host", "content-length", "transfer-encoding", "range", "expect"])
"""Headers for which a second line is refused; others are joined with commas."""


class HttpError(Exception):
    """The request cannot be served; ``status`` and the text go to the client."""

    def __init__(self, status: HTTPStatus, text: str = "") -> None:
        super().__init__(text or status.phrase)
        self.status = status


@dataclass(frozen=True, slots=True)
class RequestHead:
    """One request without its body."""

    method: str
    target: str
    version: tuple[int, int]
    headers: dict[str, str]
    """Lower-case names."""

    @property
    def keep_alive(self) -> bool:
        """Whether the client wants the connection to stay open (RFC 9112 §9.3)."""
        options = {option.strip().lower() for option in self.header("connection").split(",")}
        if "close" in options:
            return False
        return self.version >= (1, 1) or "keep-alive" in options

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for 100 before the body (RFC 9110 §10.1.1)."""
        return self.version >= (1, 1) and self.header("expect").lower() == "100-continue"

    def header(self, name: str) -> str:
        """Return a header's value, empty if it is missing."""
        return self.headers.get(name, "")

    def body_length(self) -> int | None:
        """Return the body's length in bytes; None for a chunked one (RFC 9112 §6.3).

        Raises:
            HttpError: the length is not a number, or the coding is not known.
        """
        coding = self.header("transfer-encoding")
        length = self.header("content-length")
        if coding:
            if length:
                raise HttpError(HTTPStatus.BAD_REQUEST, "both lengths given")
            if coding.lower() != "chunked":
                raise HttpError(HTTPStatus.NOT_IMPLEMENTED, "unknown transfer coding")
            return None
        if not length:
            return 0
        if not (length.isascii() and length.isdigit()) or len(length) > 18:
            raise HttpError(HTTPStatus.BAD_REQUEST, "bad Content-Length")
        return int(length)


def find_head_end(data: bytes | bytearray) -> int:
    """Return where the head ends, its empty line included; -1 if it is not complete.

    Raises:
        HttpError: it is too large, or a line ends in a bare LF.
    """
    end = data.find(b"\r\n\r\n")
    head_bytes = len(data) if end < 0 else end + 4
    if head_bytes > MAX_HEAD_BYTES:
        first_line = data.find(b"\r\n")
        if not 0 <= first_line <= MAX_TARGET_BYTES:
            raise HttpError(HTTPStatus.REQUEST_URI_TOO_LONG)
        raise HttpError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    if _BARE_LF.search(data, 0, head_bytes):
        raise HttpError(HTTPStatus.BAD_REQUEST, "bare LF")
    return -1 if end < 0 else end + 4


def parse_request_head(head: bytes) -> RequestHead:
    """Read a complete head, up to and with its empty line.

    Raises:
        HttpError: it is malformed; the client's fault.
    """
    request_line, *lines = head[:-4].split(b"\r\n")
    method, target, version = _parse_request_line(request_line)
    headers = _parse_headers(lines)
    if version >= (1, 1) and "host" not in headers:
        raise HttpError(HTTPStatus.BAD_REQUEST, "no Host header")
    return RequestHead(method, target, version, headers)


def _parse_request_line(line: bytes) -> tuple[str, str, tuple[int, int]]:
    parts = line.split(b" ")
    if len(parts) != 3 or not _TOKEN.match(parts[0]) or not parts[1]:
        raise HttpError(HTTPStatus.BAD_REQUEST, "bad request line")
    if len(parts[1]) > MAX_TARGET_BYTES:
        raise HttpError(HTTPStatus.REQUEST_URI_TOO_LONG)
    match = _VERSION.match(parts[2])
    if not match or not parts[1].isascii() or _BAD_VALUE.search(parts[1]):
        raise HttpError(HTTPStatus.BAD_REQUEST, "bad request line")
    version = (int(match[1]), int(match[2]))
    if version[0] != 1:
        raise HttpError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
    return parts[0].decode("ascii"), parts[1].decode("ascii"), version


def _parse_headers(lines: list[bytes]) -> dict[str, str]:
    if len(lines) > MAX_HEADERS:
        raise HttpError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    headers: dict[str, str] = {}
    for line in lines:
        raw_name, colon, raw_value = line.partition(b":")
        value = raw_value.strip(b" \t")
        if not colon or not _TOKEN.match(raw_name) or _BAD_VALUE.search(value):
            raise HttpError(HTTPStatus.BAD_REQUEST, "bad header line")
        name = raw_name.decode("ascii").lower()
        text = value.decode("latin-1")
        if name not in headers:
            headers[name] = text
        elif name in _SINGLE:
            raise HttpError(HTTPStatus.BAD_REQUEST, f"{name} given twice")
        else:
            headers[name] += ", " + text
    return headers
