"""``SSLContext.wrap_socket`` on sockets of a stack in this process, beside the kernel's."""

from __future__ import annotations

import contextlib
import os
import select as std_select
import socket as std
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ustack import select, socket
from ustack.api.tls import StackSSLSocket

pytestmark = pytest.mark.timeout(60)
OP_IGNORE_UNEXPECTED_EOF = 1 << 7
"""With this option of a context OpenSSL 3 takes a ragged end for an ordinary one: Debian 12's
CPython sets it, and has no name for it."""
CERTIFICATE = Path(__file__).parents[2] / "apps" / "localhost.pem"


def context(side: ssl.Purpose, **attributes: Any) -> ssl.SSLContext:
    made = ssl.create_default_context(side, cafile=str(CERTIFICATE))
    if side is ssl.Purpose.CLIENT_AUTH:
        made.load_cert_chain(CERTIFICATE)
    made.sslsocket_class = StackSSLSocket
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


@pytest.fixture
def serving() -> ssl.SSLContext:
    return context(ssl.Purpose.CLIENT_AUTH)


@pytest.fixture
def trusting() -> ssl.SSLContext:
    return context(ssl.Purpose.SERVER_AUTH)


def kernel_pair() -> tuple[Any, Any]:
    return std.socketpair()


def stack_pair() -> tuple[Any, Any]:
    return socket.socketpair()


@pytest.fixture(params=[stack_pair, kernel_pair], ids=["ustack", "kernel"])
def plain(request: pytest.FixtureRequest) -> Iterator[tuple[Any, Any]]:
    """A connected pair of sockets; the scenes end alike on both kinds."""
    ends = request.param()
    yield ends
    for end in ends:
        end.close()


def both(first: Callable[[], Any], second: Callable[[], Any]) -> tuple[Any, Any]:
    """Do two things at once; return what they return, or their errors."""
    results: list[Any] = [None, None]

    def run(i: int, what: Callable[[], Any]) -> None:
        try:
            results[i] = what()
        except Exception as exc:
            results[i] = exc

    thread = threading.Thread(target=run, args=(0, first))
    thread.start()
    run(1, second)
    thread.join(30)
    return results[0], results[1]


def wrap(plain: tuple[Any, Any], trusting: ssl.SSLContext, serving: ssl.SSLContext) -> Any:
    return both(
        lambda: trusting.wrap_socket(plain[0], server_hostname="localhost"),
        lambda: serving.wrap_socket(plain[1], server_side=True),
    )


@pytest.fixture
def secure(plain, trusting, serving) -> Iterator[tuple[ssl.SSLSocket, ssl.SSLSocket]]:
    """Both ends of an encrypted connection."""
    client, server = wrap(plain, trusting, serving)
    yield client, server
    client.close()
    server.close()


def test_both_ends_know_whom_they_speak_with_and_how(plain, trusting, serving):
    for side in (trusting, serving):
        side.set_alpn_protocols(["one", "two"])
    client, server = wrap(plain, trusting, serving)
    with client, server:
        assert isinstance(client, ssl.SSLSocket) and client.context is trusting
        assert client.version() == server.version() == "TLSv1.3"
        assert client.cipher() == server.cipher() is not None
        assert client.selected_alpn_protocol() == server.selected_alpn_protocol() == "one"
        assert ("DNS", "localhost") in client.getpeercert()["subjectAltName"]
        assert server.getpeercert() is None and server.server_side and not client.server_side
        assert client.server_hostname == "localhost"
        assert plain[0].fileno() == -1 != client.fileno()


def test_megabytes_go_both_ways_at_once(secure):
    data = os.urandom(3_000_000)

    def read(end: ssl.SSLSocket) -> bytes:
        pieces = bytearray()
        while len(pieces) < len(data):
            pieces += end.recv(100_000)
        return bytes(pieces)

    writers = [threading.Thread(target=end.sendall, args=(data,)) for end in secure]
    for writer in writers:
        writer.start()
    assert both(lambda: read(secure[0]), lambda: read(secure[1])) == (data, data)
    for writer in writers:
        writer.join(30)


def test_a_record_is_read_in_pieces_and_the_next_one_stays_readable(secure):
    client, server = secure
    assert client.send(bytes(50_000)) == 50_000
    assert [len(server.recv(50_000)) for _ in range(4)] == [16384, 16384, 16384, 848]
    client.send(b"0123456789")
    client.send(b"next")
    assert (server.recv(4), server.pending()) == (b"0123", 6)
    waits = select if isinstance(server, socket.socket) else std_select
    assert waits.select([server], [], [], 5)[0] == [server]
    buffer = bytearray(20)
    assert (server.recv_into(buffer), buffer[:6], server.pending()) == (6, b"456789", 0)
    with server.makefile("rb") as file:
        assert file.read(4) == b"next"


def test_what_does_not_block_says_what_it_wants(plain, trusting, serving):
    for end in plain:
        end.setblocking(False)
    client = trusting.wrap_socket(
        plain[0], server_hostname="localhost", do_handshake_on_connect=False
    )
    server = serving.wrap_socket(plain[1], server_side=True, do_handshake_on_connect=False)
    with client, server:
        done = [False, False]
        while not all(done):
            for i, end in enumerate((client, server)):
                try:
                    end.do_handshake()
                    done[i] = True
                except ssl.SSLWantReadError as wants:
                    assert wants.errno == ssl.SSL_ERROR_WANT_READ
        with pytest.raises(ssl.SSLWantReadError):
            server.recv(1)
        sent = 0
        with pytest.raises(ssl.SSLWantWriteError):
            while True:
                sent += client.send(bytes(16384))
        got = 0
        while got < sent:
            try:
                got += len(server.recv(65536))
            except ssl.SSLWantReadError:
                client.send(b"")  # what could not be sent
        assert got == sent


def test_a_timeout_is_for_the_whole_operation(secure):
    client, _ = secure
    client.settimeout(0.02)
    with pytest.raises(TimeoutError, match="The read operation timed out"):
        client.recv(1)
    with pytest.raises(TimeoutError, match="The write operation timed out"):
        client.sendall(bytes(16 << 20))


def test_the_end_of_the_encryption_leaves_what_follows_it(secure):
    client, server = secure

    def end_and_speak() -> Any:
        plain = client.unwrap()
        plain.sendall(b"in clear")
        return client.version()

    def read_to_the_end() -> Any:
        assert server.recv(10) == b""
        return server.unwrap().recv(100)

    assert both(end_and_speak, read_to_the_end) == (None, b"in clear")


@pytest.mark.parametrize("suppress", [True, False])
def test_an_end_without_notice_is_an_end_unless_that_is_to_be_told(
    plain, trusting, serving, suppress
):
    told = not suppress and not serving.options & OP_IGNORE_UNEXPECTED_EOF
    client, server = wrap(plain, trusting, serving)
    server.suppress_ragged_eofs = suppress
    server.send(b"x")
    assert client.recv(1) == b"x"  # and with it the tickets: nothing is unread
    client.close()
    with pytest.raises(ssl.SSLEOFError) if told else contextlib.nullcontext():
        assert server.recv(1) == b""
    server.close()


def test_who_is_not_trusted_is_told_so(plain, serving):
    doubting = ssl.create_default_context()
    doubting.sslsocket_class = StackSSLSocket
    client, server = wrap(plain, doubting, serving)
    assert isinstance(client, ssl.SSLCertVerificationError)
    assert isinstance(server, ssl.SSLError) and "UNKNOWN_CA" in str(server)


def test_a_connection_that_was_reset_before_is_not_taken_for_an_encrypted_one(plain, trusting):
    plain[1].sendall(b"forged")
    plain[1].close()
    with pytest.raises((ssl.SSLError, OSError)):
        trusting.wrap_socket(plain[0], server_hostname="localhost").recv(10)


def test_what_cannot_be_is_refused(plain, trusting, serving):
    with pytest.raises(ValueError, match="check_hostname requires server_hostname"):
        trusting.wrap_socket(plain[0])
    with pytest.raises(ValueError, match="only be specified in client mode"):
        serving.wrap_socket(plain[0], server_side=True, server_hostname="localhost")
    plain[0].setblocking(False)
    with pytest.raises(ValueError, match="non-blocking"):
        trusting.wrap_socket(plain[0], server_hostname="localhost")


def test_a_listener_accepts_encrypted_connections_and_a_socket_connects_encrypted(
    listener, trusting, serving
):
    secure_listener = serving.wrap_socket(listener, server_side=True)
    with trusting.wrap_socket(socket.socket(), server_hostname="localhost") as client:
        accepted, _ = both(
            secure_listener.accept, lambda: client.connect(secure_listener.getsockname())
        )
        server, address = accepted
        with server:
            assert address == client.getsockname() == server.getpeername()
            server.sendall(b"welcome")
            assert client.recv(10) == b"welcome"
            with pytest.raises(ValueError, match="already-connected"):
                client.connect(address)
            assert isinstance(server, socket.socket) and "laddr" in repr(server)
    secure_listener.close()


def test_a_session_is_taken_up_again(listener, trusting, serving):
    for side in (trusting, serving):
        side.maximum_version = ssl.TLSVersion.TLSv1_2
    secure_listener = serving.wrap_socket(listener, server_side=True)
    there = secure_listener.getsockname()
    session = None
    for again in (False, True):
        plain = socket.create_connection(there)
        accepted, client = both(
            secure_listener.accept,
            lambda plain=plain, session=session: trusting.wrap_socket(
                plain, server_hostname="localhost", session=session
            ),
        )
        assert client.session_reused == again
        session = client.session
        client.close()
        accepted[0].close()
    secure_listener.close()


def test_after_close_there_is_no_connection_left(stack, trusting, serving):
    for end in wrap(socket.socketpair(), trusting, serving):
        end.close()
        assert end.fileno() == -1
    assert "ESTAB" not in [row["state"] for row in stack.runtime.call(stack.stack.tcp.diag)]
