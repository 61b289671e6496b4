"""The HTTP service as a protocol: requests in, responses out, limits kept."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.daemon.fakes import FakeLoop, FakeTransport, deliver
from ustack.daemon.services.http import HttpConnection
from ustack.daemon.services.http_site import HttpSite

BIG = os.urandom(1_000_000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a few files, and something outside it."""
    root = tmp_path_factory.mktemp("site")
    www = root / "www"
    (www / "sub" / "empty").mkdir(parents=True)
    (www / "hello.txt").write_bytes(b"hello\n")
    (www / "big.bin").write_bytes(BIG)
    (www / "a <b>&.txt").write_bytes(b"odd")
    (www / "sub" / "index.html").write_bytes(b"<p>index")
    (www / "sub" / "empty" / "x").write_bytes(b"")
    (root / "secret").write_bytes(b"secret")
    (www / "out").symlink_to(root / "secret")
    (www / "in").symlink_to("hello.txt")
    (www / "loop").symlink_to("loop")
    os.mkfifo(www / "fifo")
    return www


class Server:
    """One connection to the service."""

    def __init__(self, folder: Path, room: int = 1 << 40) -> None:
        self.loop = FakeLoop()
        site = HttpSite(folder, lambda: "counters\n")
        self.protocol = HttpConnection(site, memoryview(bytearray(65536)), self.loop)  # type: ignore[arg-type]
        self.transport = FakeTransport(self.protocol, room)
        self.protocol.connection_made(self.transport)  # type: ignore[arg-type]

    def send(self, data: bytes, size: int = 1 << 30) -> None:
        """Deliver bytes and let the loop come to rest."""
        deliver(self.protocol, data, size)
        self.loop.run_soon()

    def responses(self, *, head_only: bool = False) -> list[tuple[int, dict[str, str], bytes]]:
        """Take apart what has been written."""
        data, found = bytes(self.transport.written), []
        while data:
            head, _, data = data.partition(b"\r\n\r\n")
            status, *lines = head.decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines)
            length = 0 if head_only else int(headers.get("content-length", "0"))
            found.append((int(status.split()[1]), headers, data[:length]))
            data = data[length:]
        return found

    def get(self, target: str, *lines: str) -> tuple[int, dict[str, str], bytes]:
        """Ask for one resource."""
        self.transport.written.clear()
        head = [f"GET {target} HTTP/1.1", "Host: s", *lines, "", ""]
        self.send("\r\n".join(head).encode())
        return self.responses()[0]


@pytest.fixture
def server(folder: Path) -> Server:
    """A fresh connection."""
    return Server(folder)


def test_a_file_is_served_with_its_type_and_length(server: Server):
    status, headers, body = server.get("/hello.txt")
    assert (status, body) == (200, b"hello\n")
    assert headers["content-type"] == "text/plain"
    assert headers["connection"] == "keep-alive"
    assert server.transport.reading and not server.transport.closed


def test_a_large_file_is_written_piece_by_piece_as_room_comes(folder: Path):
    server = Server(folder, room=1000)
    server.send(b"GET /big.bin HTTP/1.1\r\nHost: s\r\n\r\n")
    assert len(server.transport.written) < 600_000
    assert not server.transport.reading
    while server.transport.paused:
        server.transport.make_room(100_000)
        server.loop.run_soon()
    assert server.responses()[0][2] == BIG
    assert server.transport.reading


def test_a_pipelined_request_waits_for_the_response_before_it(folder: Path):
    server = Server(folder, room=1000)
    server.send(
        b"GET /big.bin HTTP/1.1\r\nHost: s\r\n\r\nGET /hello.txt HTTP/1.1\r\nHost: s\r\n\r\n"
    )
    while server.transport.paused:
        server.transport.make_room(100_000)
        server.loop.run_soon()
    assert [body for _, _, body in server.responses()] == [BIG, b"hello\n"]


@given(size=st.integers(1, 80))
def test_requests_are_served_however_they_are_cut(folder: Path, size: int):
    server = Server(folder)
    one = b"\r\nGET /hello.txt HTTP/1.1\r\nHost: s\r\n\r\n"
    upload = b"PUT /upload HTTP/1.1\r\nHost: s\r\nContent-Length: 5\r\n\r\nabcde"
    chunked = (
        b"POST /upload HTTP/1.1\r\nHost: s\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )
    server.send(one + upload + chunked + one, size)
    bodies = [body for _, _, body in server.responses()]
    assert bodies[0] == bodies[3] == b"hello\n"
    assert bodies[1] == bodies[2]
    digest = hashlib.sha256(b"abcde").hexdigest()
    assert json.loads(bodies[1]) == {"size": 5, "sha256": digest}


def test_head_has_the_length_but_no_body(server: Server):
    server.send(b"HEAD /big.bin HTTP/1.1\r\nHost: s\r\n\r\n")
    ((status, headers, _),) = server.responses(head_only=True)
    assert (status, headers["content-length"]) == (200, "1000000")
    server.transport.written.clear()
    server.send(b"HEAD /nothing HTTP/1.1\r\nHost: s\r\n\r\n")
    assert server.transport.written.endswith(b"\r\n\r\n")


def test_the_status_page_shows_what_the_stack_says(server: Server):
    assert server.get("/status")[2] == b"counters\n"


def test_a_folder_shows_its_index_or_a_listing(server: Server):
    assert server.get("/sub/")[2] == b"<p>index"
    listing = server.get("/")[2].decode()
    assert 'href="./a%20%3Cb%3E%26.txt"' in listing
    assert "a &lt;b&gt;&amp;.txt" in listing
    status, headers, _ = server.get("/sub")
    assert (status, headers["location"]) == (301, "/sub/")


@pytest.mark.parametrize(
    "target",
    ["/../secret", "/%2e%2e/secret", "/sub/../../secret", "//../secret", "/..%2fsecret", "/out",
     "/sub/%2e%2e/%2e%2e/secret", "http://s/../secret", "/hello.txt%00"],
)  # fmt: skip
def test_nothing_outside_the_folder_is_served(server: Server, target: str):
    status, _, body = server.get(target)
    assert status in (400, 404)
    assert b"secret" not in body


@pytest.mark.parametrize(
    ("target", "status"), [("/nothing", 404), ("/loop", 404), ("/fifo", 403), ("/in", 200),
                           ("/hello.txt/x", 404), ("/" + "n" * 300, 404)]
)  # fmt: skip
def test_what_is_no_file_has_its_status_and_the_connection_stays(
    server: Server, target: str, status: int
):
    assert server.get(target)[0] == status
    assert server.get("/hello.txt")[0] == 200


@pytest.mark.rfc("9110", "14.1.2")
@pytest.mark.parametrize(
    ("value", "status", "body"),
    [
        ("bytes=0-1", 206, b"he"),
        ("bytes=4-", 206, b"o\n"),
        ("bytes=-2", 206, b"o\n"),
        ("bytes=-99", 206, b"hello\n"),
        ("bytes=0-99", 206, b"hello\n"),
        ("bytes=6-", 416, b""),
        ("bytes=3-1", 200, b"hello\n"),
        ("bytes=0-1,3-4", 200, b"hello\n"),
        ("lines=0-1", 200, b"hello\n"),
        ("bytes=-", 200, b"hello\n"),
        ("bytes=a-b", 200, b"hello\n"),
    ],
)
def test_a_single_range_is_served(server: Server, value: str, status: int, body: bytes):
    got = server.get("/hello.txt", f"Range: {value}")
    assert (got[0], got[2]) == (status, body)


@pytest.mark.rfc("9110", "10.1.1")
def test_a_client_that_expects_continue_is_told_to(server: Server):
    server.send(
        b"PUT /upload HTTP/1.1\r\nHost: s\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    )
    assert server.transport.written == b"HTTP/1.1 100 Continue\r\n\r\n"
    server.send(b"abc")
    assert json.loads(server.responses()[1][2])["size"] == 3


def test_an_upload_of_nothing_is_answered(server: Server):
    server.send(b"POST /upload HTTP/1.1\r\nHost: s\r\n\r\n")
    assert json.loads(server.responses()[0][2])["size"] == 0


def test_a_refused_upload_is_read_for_a_while_and_then_closed(server: Server):
    server.send(b"PUT /elsewhere HTTP/1.1\r\nHost: s\r\nContent-Length: 99999\r\n\r\nabc")
    assert server.responses()[0][0] == 404
    assert server.transport.eof and not server.transport.closed
    server.send(b"x" * 1000)
    server.loop.advance(3)
    assert server.transport.closed


@pytest.mark.parametrize(
    ("request_line", "status"),
    [("DELETE / HTTP/1.1", 405), ("BREW / HTTP/1.1", 501), ("GET / HTTP/3.1", 505),
     ("GET nothing HTTP/1.1", 400), ("nonsense", 400)],
)  # fmt: skip
def test_requests_that_cannot_be_served_have_their_status(
    server: Server, request_line: str, status: int
):
    server.send(request_line.encode() + b"\r\nHost: s\r\n\r\n")
    assert server.responses()[0][0] == status


def test_http_1_0_closes_after_the_response(server: Server):
    server.send(b"GET /hello.txt HTTP/1.0\r\n\r\n")
    assert server.responses()[0][2] == b"hello\n"
    assert server.transport.closed


def test_requests_before_the_clients_fin_are_still_answered(folder: Path):
    server = Server(folder, room=1000)
    server.send(
        b"GET /big.bin HTTP/1.1\r\nHost: s\r\n\r\nGET /hello.txt HTTP/1.1\r\nHost: s\r\n\r\n"
    )
    assert server.protocol.eof_received()
    while server.transport.paused:
        server.transport.make_room(100_000)
        server.loop.run_soon()
    assert [body for _, _, body in server.responses()] == [BIG, b"hello\n"]
    assert server.transport.closed


def test_half_a_request_before_the_clients_fin_is_given_up(server: Server):
    server.send(b"GET /hel")
    server.protocol.eof_received()
    server.loop.run_soon()
    assert server.transport.closed
    assert not server.transport.written


def test_an_idle_connection_is_closed(server: Server):
    server.get("/hello.txt")
    server.loop.advance(100)
    assert server.transport.closed and not server.transport.aborted


def test_a_head_that_drips_in_is_timed_out(server: Server):
    for _ in range(12):
        server.send(b"G")
        server.loop.advance(5)
    assert server.responses()[0][0] == 408


def test_a_client_that_does_not_read_is_reset_but_a_slow_one_is_not(folder: Path):
    server = Server(folder, room=1000)
    server.send(b"GET /big.bin HTTP/1.1\r\nHost: s\r\n\r\n")
    for buffered in range(200_000, 100_000, -10_000):
        server.transport.buffered = buffered
        server.loop.advance(50)
        assert not server.transport.closed
    server.loop.advance(100)
    assert server.transport.aborted


def test_a_file_that_shrinks_resets_the_connection(folder: Path, tmp_path: Path):
    path = tmp_path / "shrinks"
    path.write_bytes(BIG)
    server = Server(tmp_path, room=1000)
    server.send(b"GET /shrinks HTTP/1.1\r\nHost: s\r\n\r\n")
    path.write_bytes(b"")
    server.transport.make_room(1 << 30)
    assert server.transport.aborted


def test_a_lost_connection_releases_the_file(folder: Path):
    before = set(os.listdir("/proc/self/fd"))
    server = Server(folder, room=1000)
    server.send(b"GET /big.bin HTTP/1.1\r\nHost: s\r\n\r\n")
    server.protocol.connection_lost(None)
    assert set(os.listdir("/proc/self/fd")) <= before


@given(data=st.binary(max_size=200))
def test_no_bytes_break_the_service(folder: Path, data: bytes):
    server = Server(folder)
    server.send(data + b"\r\n\r\n")
    parts: list[Any] = server.responses()
    assert all(status >= 400 for status, _, _ in parts)
