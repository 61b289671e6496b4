"""Request heads: what is accepted and what is refused, and with which status."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ustack.daemon.services.http_request import (
    MAX_HEAD_BYTES,
    HttpError,
    find_head_end,
    parse_request_head,
)

GET = b"GET / HTTP/1.1\r\nHost: a\r\n"


def status_of(head: bytes) -> int:
    with pytest.raises(HttpError) as caught:
        parse_request_head(head).body_length()
    return caught.value.status.value


def test_a_plain_request_is_read():
    head = parse_request_head(b"GET /a?b HTTP/1.1\r\nHost: stack\r\nX-Y:  z \r\n\r\n")
    assert (head.method, head.target, head.version) == ("GET", "/a?b", (1, 1))
    assert head.headers == {"host": "stack", "x-y": "z"}
    assert head.body_length() == 0


def test_repeated_headers_are_joined():
    head = parse_request_head(GET + b"Accept: a\r\nAccept: b\r\n\r\n")
    assert head.header("accept") == "a, b"


@pytest.mark.rfc("9112", "9.3")
@pytest.mark.parametrize(
    ("version", "connection", "kept"),
    [("1.1", "", True), ("1.1", "close", False), ("1.0", "", False), ("1.0", "keep-alive", True),
     ("1.1", "Upgrade, Close", False)],
)  # fmt: skip
def test_persistence_follows_version_and_connection(version: str, connection: str, kept: bool):
    head = parse_request_head(
        f"GET / HTTP/{version}\r\nHost: a\r\nConnection: {connection}\r\n\r\n".encode()
    )
    assert head.keep_alive is kept


@pytest.mark.parametrize(
    "head",
    [
        b"GET /\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        b"G@T / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / http/1.1\r\nHost: a\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        GET + b"no colon\r\n\r\n",
        GET + b"Bad Name: x\r\n\r\n",
        GET + b"Name : x\r\n\r\n",
        GET + b" folded\r\n\r\n",
        GET + b": x\r\n\r\n",
        GET + b"X: a\x00b\r\n\r\n",
        GET + b"X: a\rb\r\n\r\n",
        GET + b"Content-Length: -1\r\n\r\n",
        GET + b"Content-Length: +1\r\n\r\n",
        GET + b"Content-Length: 1, 1\r\n\r\n",
        GET + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        GET + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        GET + b"Content-Length: 9999999999999999999\r\n\r\n",
    ],
)
def test_malformed_heads_are_400(head: bytes):
    assert status_of(head) == 400


def test_other_refusals_have_their_own_status():
    assert status_of(b"GET / HTTP/2.0\r\nHost: a\r\n\r\n") == 505
    assert status_of(b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: a\r\n\r\n") == 414
    assert status_of(GET + b"Transfer-Encoding: gzip\r\n\r\n") == 501
    assert status_of(GET + b"X: y\r\n" * 101 + b"\r\n") == 431


def test_the_end_of_a_head_is_found_when_it_is_there():
    assert find_head_end(GET) == -1
    assert find_head_end(GET + b"\r\nbody") == len(GET) + 2


@pytest.mark.parametrize("data", [b"GET / HTTP/1.0\n\n", b"GET / HTTP/1.1\r\nHost: a\n\r\n\r\n"])
def test_bare_line_feeds_are_refused_at_once(data: bytes):
    with pytest.raises(HttpError) as caught:
        find_head_end(data)
    assert caught.value.status == 400


def test_a_bare_line_feed_in_the_body_is_none_of_our_business():
    assert find_head_end(GET + b"\r\na\nb") == len(GET) + 2


def test_a_head_without_end_is_refused_when_it_has_grown_too_large():
    find_head_end(GET + b"X: " + b"y" * (MAX_HEAD_BYTES - len(GET) - 3))
    with pytest.raises(HttpError) as caught:
        find_head_end(GET + b"X: " + b"y" * MAX_HEAD_BYTES)
    assert caught.value.status == 431
    with pytest.raises(HttpError) as caught:
        find_head_end(b"G" * (MAX_HEAD_BYTES + 1))
    assert caught.value.status == 414


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_an_http_error(data: bytes):
    try:
        end = find_head_end(data + b"\r\n\r\n")
        parse_request_head((data + b"\r\n\r\n")[:end]).body_length()
    except HttpError:
        pass
