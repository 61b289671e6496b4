"""Blocking calls of many threads, on a stack in this process and through a daemon, as on Linux.

One acceptor a connection, each byte to one reader, what close() and shutdown() do to a thread
that is blocked, signals.
"""

from __future__ import annotations

import errno
import signal
import socket as std
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ustack
from kit.calls_daemon import connected
from ustack import socket

pytestmark = pytest.mark.timeout(120)
PATIENCE_S = 60.0
BLOCKED_S = 0.05
"""Long enough for a thread to be in its call; if it is not yet, the test is easier, not wrong."""


@pytest.fixture(params=["in process", "through a daemon"], autouse=True)
def stack(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    if request.param == "in process":
        with ustack.up():
            yield
        return
    with connected(tmp_path / "u.sock"):
        yield


@pytest.fixture
def listener(stack: None) -> Iterator[Any]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def pair(listener: Any) -> Iterator[tuple[Any, Any]]:
    with socket.create_connection(listener.getsockname()) as client:
        server, _ = listener.accept()
        with server:
            yield client, server


class Thread(threading.Thread):
    """Calls a function and keeps what it returns or raises."""

    def __init__(self, call: Callable[..., Any], *args: Any) -> None:
        super().__init__(daemon=True)
        self._call, self._args = call, args
        self.outcome: Any = None
        self.start()

    def run(self) -> None:
        try:
            self.outcome = self._call(*self._args)
        except OSError as error:
            self.outcome = error

    def result(self) -> Any:
        self.join(PATIENCE_S)
        assert not self.is_alive()
        return self.outcome


def blocked(call: Callable[..., Any], *args: Any) -> Thread:
    thread = Thread(call, *args)
    thread.join(BLOCKED_S)
    return thread


@pytest.mark.linux("inet_csk_wait_for_connect: prepare_to_wait_exclusive")
def test_one_of_several_acceptors_has_a_connection_and_the_others_wait_on(listener):
    acceptors = [blocked(listener.accept) for _ in range(3)]
    clients = []
    for left in (2, 1, 0):
        clients.append(socket.create_connection(listener.getsockname()))
        end = time.monotonic() + PATIENCE_S
        while sum(thread.is_alive() for thread in acceptors) > left and time.monotonic() < end:
            time.sleep(0.001)
        time.sleep(BLOCKED_S)
        assert sum(thread.is_alive() for thread in acceptors) == left
    accepted = [thread.result() for thread in acceptors]
    assert {address for _, address in accepted} == {c.getsockname() for c in clients}
    for sock in [conn for conn, _ in accepted] + clients:
        sock.close()


def test_connections_are_shared_among_acceptors_each_has_its_own(listener):
    served: list[tuple[str, int]] = []

    def serve() -> None:
        while True:
            conn, address = listener.accept()
            with conn:
                if conn.recv(1) == b"q":
                    return
                served.append(address)

    acceptors = [Thread(serve) for _ in range(4)]
    asked = []
    for _ in range(40):
        with socket.create_connection(listener.getsockname()) as client:
            asked.append(client.getsockname())
            client.send(b"x")
            assert client.recv(1) == b""
    for _ in acceptors:
        with socket.create_connection(listener.getsockname()) as client:
            client.send(b"q")
    for thread in acceptors:
        thread.result()
    assert sorted(served) == sorted(asked)


def test_readers_lose_and_double_nothing(pair):
    client, server = pair
    total = 5_000

    def read() -> list[bytes]:
        pieces = []
        while piece := server.recv(4, std.MSG_WAITALL if not daemon_socket(server) else 0):
            pieces.append(piece)
        return pieces

    readers = [Thread(read) for _ in range(4)]
    data = b"".join(struct.pack("!I", number) for number in range(total))
    for at in range(0, len(data), 4000):
        client.sendall(data[at : at + 4000])
    client.shutdown(std.SHUT_WR)
    pieces = [piece for thread in readers for piece in thread.result()]
    assert sum(map(len, pieces)) == len(data)
    whole = sorted(struct.unpack("!I", piece)[0] for piece in pieces if len(piece) == 4)
    assert whole == sorted(set(whole))


def daemon_socket(sock: Any) -> bool:
    return isinstance(sock, std.socket)


def test_writers_lose_and_double_nothing(pair):
    client, server = pair
    size, count = 1000, 200
    writers = [
        Thread(lambda mark=mark: [client.sendall(bytes([mark]) * size) for _ in range(count)])
        for mark in range(4)
    ]
    seen = [0] * 4
    while sum(seen) < 4 * size * count:
        for byte in (data := server.recv(1 << 16)):
            seen[byte] += 1
        assert data
    assert seen == [size * count] * 4
    for writer in writers:
        writer.result()


@pytest.mark.linux("a call holds its own reference to the file (fdget)")
def test_a_close_in_another_thread_leaves_a_blocked_reader_alone(pair):
    client, server = pair
    reader = blocked(server.recv, 100)
    server.close()
    client.settimeout(0.1)
    with pytest.raises(TimeoutError):
        client.recv(1)  # no FIN: the reader still holds the connection
    assert reader.is_alive()
    client.sendall(b"for the one who waits")
    assert reader.result() == b"for the one who waits"
    client.settimeout(PATIENCE_S)
    assert client.recv(1) == b""


@pytest.mark.linux("inet_shutdown")
@pytest.mark.parametrize("how", [std.SHUT_RD, std.SHUT_RDWR])
def test_a_shutdown_in_another_thread_wakes_a_blocked_reader(pair, how):
    _, server = pair
    reader = blocked(server.recv, 100)
    server.shutdown(how)
    assert reader.result() == b""


@pytest.mark.linux("inet_csk_accept: EINVAL")
def test_a_shutdown_of_a_listener_wakes_blocked_acceptors(listener):
    acceptors = [blocked(listener.accept) for _ in range(2)]
    listener.shutdown(std.SHUT_RD)
    assert [thread.result().errno for thread in acceptors] == [errno.EINVAL] * 2


def test_a_shutdown_in_another_thread_ends_a_blocked_writer(pair):
    client, _ = pair

    def write() -> None:
        while True:
            client.sendall(bytes(1 << 20))

    writer = Thread(write)
    writer.join(0.5)
    client.shutdown(std.SHUT_WR)
    assert writer.result().errno == errno.EPIPE


def test_a_reset_wakes_every_blocked_reader(pair):
    client, server = pair
    readers = [blocked(server.recv, 100) for _ in range(3)]
    client.setsockopt(std.SOL_SOCKET, std.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    ends = [thread.result() for thread in readers]
    resets = [end for end in ends if isinstance(end, ConnectionResetError)]
    assert len(resets) == 1 and ends.count(b"") == 2  # the error is told once, then the end


def test_a_signal_whose_handler_returns_does_not_end_a_call(pair):
    client, server = pair
    caught = []
    before = signal.signal(signal.SIGALRM, lambda *args: caught.append(args))
    later = threading.Timer(0.2, client.sendall, (b"late",))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.03, 0.03)
        later.start()
        assert server.recv(100) == b"late"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        later.join()
    assert caught


@pytest.mark.parametrize("call", ["recv", "accept", "sendall", "recvfrom"])
def test_ctrl_c_ends_a_blocked_call_and_leaves_the_socket_usable(listener, pair, call):
    client, server = pair
    with socket.socket(std.AF_INET, std.SOCK_DGRAM) as datagrams:
        datagrams.bind(("127.0.0.1", 0))
        calls = {
            "recv": lambda: client.recv(1),
            "accept": listener.accept,
            "sendall": lambda: client.sendall(bytes(64 << 20)),
            "recvfrom": lambda: datagrams.recvfrom(1),
        }
        before = signal.signal(signal.SIGALRM, signal.default_int_handler)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(KeyboardInterrupt):
                calls[call]()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        server.sendall(b"x")
        assert client.recv(1) == b"x"
        socket.create_connection(listener.getsockname()).close()
        listener.accept()[0].close()
        datagrams.sendto(b"y", datagrams.getsockname())
        assert datagrams.recvfrom(1)[0] == b"y"
