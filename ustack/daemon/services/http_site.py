"""What the HTTP service has: the files of one folder and the status page.

Paths are resolved with every symbolic link followed and must stay inside the folder; only
regular files and folders are served, so that no FIFO or device blocks the loop. Bodies are
produced piece by piece as the connection asks for them (``http.py``).
"""

from __future__ import annotations

import html
import mimetypes
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from ustack.daemon.services.http_request import HttpError, RequestHead

PIECE_BYTES = 256 * 1024
"""Read and written at a time."""


@dataclass(slots=True)
class Response:
    """A status, headers, and a body that knows its length."""

    status: HTTPStatus
    headers: dict[str, str] = field(default_factory=dict)
    length: int = 0
    pieces: Iterator[bytes] = field(default_factory=lambda: iter(()))

    def send_file(self, transport: Any) -> int | None:
        """Pass a part of the file behind the body on without copying it.

        Returns:
            How many bytes; 0 if the body or the transport has no such way, or it is at its
            end; None if there is no room now.
        """
        send_to = getattr(self.pieces, "send_to", None)
        send_file = getattr(transport, "send_file", None)
        if send_to is None or send_file is None:
            return 0
        sent: int | None = send_to(send_file)
        return sent

    def close(self) -> None:
        """Release the file behind the body, read to its end or not."""
        close = getattr(self.pieces, "close", None)
        if close is not None:
            close()


def text_response(
    text: str, status: HTTPStatus = HTTPStatus.OK, content_type: str = "text/plain"
) -> Response:
    """Make a response of a short text."""
    body = text.encode()
    headers = {"Content-Type": f"{content_type}; charset=utf-8"}
    return Response(status, headers, len(body), iter((body,)))


class HttpSite:
    """The resources; ``respond`` finds the one that a GET or HEAD asks for."""

    def __init__(self, folder: Path, status_text: Callable[[], str]) -> None:
        self._root = folder.resolve()
        self._status_text = status_text
        mimetypes.init()  # reads files: not in the middle of the first request

    def respond(self, head: RequestHead) -> Response:
        """Answer a GET or HEAD (the caller leaves HEAD's body out).

        Raises:
            HttpError: there is no such resource, or it cannot be read.
        """
        raw_path = target_path(head.target)
        if raw_path == "/status":
            response = text_response(self._status_text())
            response.headers["Cache-Control"] = "no-store"
            return response
        return self._file_or_folder(raw_path, head)

    def _file_or_folder(self, raw_path: str, head: RequestHead) -> Response:
        path = self._locate(raw_path)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except PermissionError:
            raise HttpError(HTTPStatus.FORBIDDEN) from None
        except OSError:
            raise HttpError(HTTPStatus.NOT_FOUND) from None
        mode = os.fstat(fd).st_mode
        if stat.S_ISREG(mode):
            return file_response(fd, path, head.header("range"))
        os.close(fd)
        if not stat.S_ISDIR(mode):
            raise HttpError(HTTPStatus.FORBIDDEN)
        if not raw_path.endswith("/"):
            moved = Response(HTTPStatus.MOVED_PERMANENTLY)
            moved.headers["Location"] = quote(os.fsencode("/" + raw_path.strip("/") + "/"))
            return moved
        if (path / "index.html").is_file():
            return self._file_or_folder(raw_path + "index.html", head)
        return listing_response(path, raw_path)

    def _locate(self, raw_path: str) -> Path:
        """Return the real path of ``raw_path``, which lies inside the folder."""
        if "\0" in raw_path or ".." in raw_path.split("/"):
            raise HttpError(HTTPStatus.BAD_REQUEST, "bad path")
        try:
            path = (self._root / raw_path.lstrip("/")).resolve()
        except (OSError, RuntimeError):  # a loop of symbolic links, a name too long
            raise HttpError(HTTPStatus.NOT_FOUND) from None
        if not path.is_relative_to(self._root):
            raise HttpError(HTTPStatus.NOT_FOUND)
        return path


def target_path(target: str) -> str:
    """Return the decoded path of a request target in origin or absolute form.

    Raises:
        HttpError: it is neither.
    """
    if target.lower().startswith(("http://", "https://")):
        _, _, rest = target.partition("://")
        target = "/" + rest.partition("/")[2]
    if not target.startswith("/"):
        raise HttpError(HTTPStatus.BAD_REQUEST, "bad request target")
    path = target.partition("?")[0].partition("#")[0]
    return os.fsdecode(unquote_to_bytes(path))


def file_response(fd: int, path: Path, range_header: str) -> Response:
    """Answer with an open file, or the part of it that a Range header names."""
    info = os.fstat(fd)
    content_type, encoding = mimetypes.guess_type(path.name)
    headers = {
        "Content-Type": (content_type if not encoding else None) or "application/octet-stream",
        "Last-Modified": formatdate(info.st_mtime, usegmt=True),
        "Accept-Ranges": "bytes",
    }
    wanted = parse_range(range_header, info.st_size)
    if wanted is None:
        return Response(HTTPStatus.OK, headers, info.st_size, file_pieces(fd, 0, info.st_size))
    start, end = wanted
    if start >= end:
        os.close(fd)
        headers["Content-Range"] = f"bytes */{info.st_size}"
        return Response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers)
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{info.st_size}"
    pieces = file_pieces(fd, start, end)
    return Response(HTTPStatus.PARTIAL_CONTENT, headers, end - start, pieces)


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """Read a single byte range (RFC 9110 §14.1.2).

    Returns:
        ``(start, end)`` with ``end`` excluded, empty if it lies behind the file; None if
        there is no range that we serve: the whole file is the answer then.
    """
    unit, _, spec = header.partition("=")
    first, dash, last = spec.strip().partition("-")
    if unit.strip().lower() != "bytes" or not dash or not (first + last).isdigit():
        return None
    if not first:
        return max(size - int(last), 0), size
    start = int(first)
    if last and int(last) < start:
        return None
    return start, min(int(last) + 1, size) if last else size


def file_pieces(fd: int, start: int, end: int) -> Iterator[bytes]:
    """Yield a file's bytes and close it; stops short if the file has shrunk."""
    return _FilePieces(fd, start, end)


class _FilePieces:
    """An iterator that owns the descriptor from the start, iterated over or not."""

    def __init__(self, fd: int, start: int, end: int) -> None:
        self._fd = fd
        self._next = start
        self._end = end

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        want = min(PIECE_BYTES, self._end - self._next)
        data = os.pread(self._fd, want, self._next) if want > 0 and self._fd >= 0 else b""
        if not data:
            self.close()
            raise StopIteration
        self._next += len(data)
        return data

    def send_to(self, send_file: Callable[[int, int, int], int | None]) -> int | None:
        """Have ``send_file`` take the next part; return what it returns."""
        left = self._end - self._next
        if left <= 0 or self._fd < 0:
            return 0
        sent = send_file(self._fd, self._next, left)
        self._next += sent or 0
        return sent

    def close(self) -> None:
        """Close the file; may be called again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self.close()


def listing_response(folder: Path, raw_path: str) -> Response:
    """Answer with the names in a folder as a page of links."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        raise HttpError(HTTPStatus.FORBIDDEN) from None
    title = html.escape(printable(raw_path))
    lines = [f"<!DOCTYPE html>\n<meta charset=utf-8>\n<title>{title}</title>\n<ul>"]
    for entry in entries:
        name = entry.name + ("/" if os.path.isdir(entry.path) else "")
        link = html.escape(quote(os.fsencode("./" + name)))
        lines.append(f'<li><a href="{link}">{html.escape(printable(name))}</a>')
    return text_response("\n".join([*lines, "</ul>\n"]), content_type="text/html")


def printable(name: str) -> str:
    """Make a file name that may hold undecodable bytes fit for a page."""
    return os.fsencode(name).decode("utf-8", "replace")
