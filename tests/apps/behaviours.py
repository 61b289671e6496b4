"""What a TCP stack answers its applications, as a table: run on Linux and on ustack alike.

Each function below plays one scene on the loopback address and returns what it saw. As a
command it prints the table as JSON, made with whatever ``socket`` and ``select`` are.
"""

import ctypes
import errno
import json
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

PORT = 18000
SO_PEEK_OFF = 42
SCENES: list[Callable[[], Any]] = []
LONG_S = 60


def scene(function: Callable[[], Any]) -> Callable[[], Any]:
    SCENES.append(function)
    return function


def pair() -> tuple[socket.socket, socket.socket]:
    """A client's socket and the server's for it."""
    with socket.create_server(("127.0.0.1", PORT)) as listener:
        client = socket.create_connection(("127.0.0.1", PORT))
        server, _ = listener.accept()
    return client, server


def outcome(function: Callable[..., Any], *args: Any) -> Any:
    """What a call returns, or the name of its error."""
    try:
        result = function(*args)
    except OSError as exc:
        return errno.errorcode.get(exc.errno or 0, type(exc).__name__)
    return result.decode("latin-1") if isinstance(result, bytes) else result


def arrived(sock: socket.socket, n: int) -> None:
    """Wait until ``n`` bytes are there to read."""
    end = time.monotonic() + LONG_S
    while time.monotonic() < end:
        try:
            if len(sock.recv(n, socket.MSG_PEEK | socket.MSG_DONTWAIT)) >= n:
                return
        except BlockingIOError:
            pass
        time.sleep(0.001)
    raise AssertionError("nothing arrives")


def names(events: int) -> list[str]:
    known = ("EPOLLIN", "EPOLLOUT", "EPOLLERR", "EPOLLHUP", "EPOLLRDHUP", "EPOLLPRI")
    return [name for name in known if events & getattr(select, name)]


def events_of(sock: socket.socket, mask: int = -1, wait: float = 0.0) -> list[str]:
    everything = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLPRI
    with select.epoll() as epoll:
        epoll.register(sock, everything if mask == -1 else mask)
        ready = epoll.poll(wait)
    return names(ready[0][1]) if ready else []


@scene
def unconnected() -> Any:
    with socket.socket() as sock:
        return [
            outcome(sock.recv, 1),
            outcome(sock.send, b"x"),
            outcome(sock.getpeername),
            outcome(sock.accept),
            outcome(sock.shutdown, socket.SHUT_WR),
            events_of(sock),
            sock.getsockname(),
        ]


@scene
def listening() -> Any:
    with socket.create_server(("127.0.0.1", PORT)) as sock:
        return [
            events_of(sock),
            outcome(sock.recv, 1),
            outcome(sock.send, b"x"),
            outcome(sock.listen, 5),
            outcome(sock.getpeername),
            outcome(sock.connect, ("127.0.0.1", PORT)),
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN),
        ]


@scene
def binding() -> Any:
    with socket.socket() as a, socket.socket() as b, socket.socket() as c:
        a.bind(("127.0.0.1", PORT))
        return [
            outcome(b.bind, ("127.0.0.1", PORT)),
            outcome(a.bind, ("127.0.0.1", PORT + 1)),
            outcome(b.bind, ("192.0.2.1", PORT)),
            outcome(c.bind, ("", 0)),
            c.getsockname()[1] > 0,
        ]


@scene
def refused() -> Any:
    with socket.socket() as sock, socket.socket() as other:
        other.setblocking(False)
        first = outcome(other.connect, ("127.0.0.1", PORT))
        seen = events_of(other, wait=LONG_S)
        error = errno.errorcode[other.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)]
        return [outcome(sock.connect, ("127.0.0.1", PORT)), first, seen, error]


@scene
def connected() -> Any:
    client, server = pair()
    with client, server:
        return [
            events_of(client),
            outcome(client.connect, ("127.0.0.1", PORT)),
            outcome(client.listen, 1),
            outcome(client.accept),
            outcome(client.shutdown, 7),
            outcome(client.bind, ("127.0.0.1", PORT + 1)),
            client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR),
        ]


@scene
def fin() -> Any:
    client, server = pair()
    with client, server:
        client.sendall(b"last")
        client.shutdown(socket.SHUT_WR)
        arrived(server, 4)
        seen = [events_of(server, wait=LONG_S), outcome(client.send, b"x")]
        seen += [outcome(server.recv, 100) for _ in range(3)]
        seen += [events_of(server), events_of(client)]
        server.shutdown(socket.SHUT_WR)
        arrival = outcome(client.recv, 1)
        return [*seen, arrival, events_of(server), events_of(client)]


@scene
def reset() -> Any:
    client, server = pair()
    with client:
        client.sendall(b"unread")
        arrived(server, 6)
        server.close()
        seen = [events_of(client, select.EPOLLIN, LONG_S), events_of(client)]
        return [*seen, outcome(client.recv, 1), outcome(client.recv, 1),
                outcome(client.send, b"x"), events_of(client)]  # fmt: skip


@scene
def reset_and_send() -> Any:
    client, server = pair()
    with client:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        server.close()
        events_of(client, select.EPOLLIN, LONG_S)
        return [outcome(client.send, b"x") for _ in range(3)] + [outcome(client.recv, 1)]


@scene
def shut_for_reading() -> Any:
    client, server = pair()
    with client, server:
        server.shutdown(socket.SHUT_RD)
        seen = [events_of(server), outcome(server.recv, 10)]
        client.sendall(b"late")
        arrived(server, 4)
        return [*seen, outcome(server.recv, 10), outcome(server.recv, 10)]


@scene
def after_a_shutdown_of_both_ways() -> Any:
    client, server = pair()
    with client, server:
        client.sendall(b"unread")
        arrived(server, 6)
        server.shutdown(socket.SHUT_RD)
        server.shutdown(socket.SHUT_WR)
        seen = [outcome(server.getpeername) == client.getsockname(), outcome(client.recv, 1)]
        seen += [events_of(server, select.EPOLLIN), outcome(server.recv, 2)]
        seen += [outcome(server.recv, 100), outcome(server.recv, 100)]
        client.sendall(b"too late")
        events_of(client, 0, LONG_S)
        return [*seen, outcome(client.send, b"x"), outcome(server.recv, 1), outcome(server.recv, 1)]


@scene
def closed_after_a_shutdown_of_both_ways() -> Any:
    client, server = pair()
    with client:
        client.sendall(b"unread")
        arrived(server, 6)
        server.shutdown(socket.SHUT_RDWR)
        seen = [outcome(client.recv, 1)]
        server.close()
        events_of(client, 0, LONG_S)
        return [*seen, outcome(client.send, b"x")]


@scene
def a_reader_is_woken_by_shutdown() -> Any:
    client, server = pair()
    got: list[Any] = []
    with client, server:
        thread = threading.Thread(target=lambda: got.append(outcome(server.recv, 10)))
        thread.start()
        time.sleep(0.05)
        server.shutdown(socket.SHUT_RDWR)
        thread.join(LONG_S)
    return got


@scene
def low_water() -> Any:
    client, server = pair()
    with client, server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 20)
        client.sendall(b"a" * 10)
        arrived(server, 10)
        seen = [events_of(server, select.EPOLLIN), outcome(server.recv, 5)]
        seen.append(outcome(server.recv, 100, socket.MSG_DONTWAIT))
        client.sendall(b"b" * 20)
        seen += [events_of(server, select.EPOLLIN, LONG_S), outcome(server.recv, 100)]
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 0)
        return [*seen, server.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)]


@scene
def flags() -> Any:
    client, server = pair()
    with client, server:
        seen = [outcome(server.recv, 1, socket.MSG_DONTWAIT)]
        client.sendall(b"0123456789")
        arrived(server, 10)
        seen.append(outcome(server.recv, 3, socket.MSG_PEEK))
        seen.append(outcome(server.recv_into, bytearray(4), 4, socket.MSG_TRUNC))
        seen.append(outcome(server.recv, 3, socket.MSG_WAITALL))
        client.shutdown(socket.SHUT_WR)
        return [*seen, outcome(server.recv, 100, socket.MSG_WAITALL), outcome(server.recv, 0)]


@scene
def timeouts() -> Any:
    client, server = pair()
    with client, server:
        server.settimeout(0.02)
        seen = [outcome(server.recv, 1)]
        server.setblocking(False)
        seen.append(outcome(server.recv, 1))
        server.setblocking(True)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 0, 20_000))
        seen.append(outcome(server.recv, 1))
        client.sendall(b"x")
        arrived(server, 1)
        return [*seen, outcome(server.recv, 10, socket.MSG_WAITALL)]


@scene
def edges() -> Any:
    client, server = pair()
    with client, server, select.epoll() as epoll:
        epoll.register(server, select.EPOLLIN | select.EPOLLET)
        client.sendall(b"1")
        seen = [len(epoll.poll(LONG_S)), len(epoll.poll(0))]
        client.sendall(b"2")
        seen += [len(epoll.poll(LONG_S)), len(epoll.poll(0))]
        epoll.modify(server, select.EPOLLIN | select.EPOLLET)
        seen += [len(epoll.poll(0)), len(epoll.poll(0))]
        return seen


@scene
def one_shot() -> Any:
    client, server = pair()
    with client, server, select.epoll() as epoll:
        epoll.register(server, select.EPOLLIN | select.EPOLLONESHOT)
        client.sendall(b"1")
        seen = [len(epoll.poll(LONG_S)), len(epoll.poll(0))]
        client.sendall(b"2")
        client.shutdown(socket.SHUT_WR)
        seen.append(len(epoll.poll(0.02)))
        epoll.modify(server, select.EPOLLIN | select.EPOLLONESHOT)
        return [*seen, len(epoll.poll(LONG_S)), len(epoll.poll(0))]


@scene
def epoll_mistakes() -> Any:
    client, server = pair()
    with client, server, select.epoll() as epoll, select.epoll() as outer:
        epoll.register(server)
        exclusive = select.EPOLLIN | select.EPOLLEXCLUSIVE
        outer.register(epoll, select.EPOLLIN)
        return [
            outcome(epoll.register, server),
            outcome(epoll.modify, client, select.EPOLLIN),
            outcome(epoll.unregister, client),
            outcome(epoll.register, epoll),
            outcome(epoll.register, outer),
            outcome(epoll.register, client, exclusive | select.EPOLLONESHOT),
            outcome(epoll.register, client, exclusive),
            outcome(epoll.modify, client, select.EPOLLIN),
            len(outer.poll(LONG_S)),
        ]


@scene
def a_closed_listeners_children() -> Any:
    with socket.create_server(("127.0.0.1", PORT)) as listener:
        accepted = socket.create_connection(("127.0.0.1", PORT))
        server, _ = listener.accept()
        queued = socket.create_connection(("127.0.0.1", PORT))
    with accepted, server, queued:
        server.sendall(b"still works")
        return [outcome(accepted.recv, 100), outcome(queued.recv, 1),
                outcome(socket.create_connection, ("127.0.0.1", PORT))]  # fmt: skip


@scene
def peeking_at_an_offset() -> Any:
    client, server = pair()
    with client, server:
        fresh = server.getsockopt(socket.SOL_SOCKET, SO_PEEK_OFF)
        client.sendall(b"0123456789")
        arrived(server, 10)
        server.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, 2)
        offset = partial(server.getsockopt, socket.SOL_SOCKET, SO_PEEK_OFF)
        seen = [fresh]
        for size, flags in (
            (3, socket.MSG_PEEK), (3, socket.MSG_PEEK), (4, 0), (1, socket.MSG_PEEK),
            (100, socket.MSG_PEEK), (100, socket.MSG_PEEK), (2, socket.MSG_TRUNC), (100, 0),
        ):  # fmt: skip
            room = bytearray(size)
            seen += [outcome(server.recv_into, room, size, flags | socket.MSG_DONTWAIT)]
            seen += [room.decode() if not flags & socket.MSG_TRUNC else "", offset()]
        client.sendall(b"abc")
        arrived_behind = server.recv(3, socket.MSG_PEEK)
        seen += [arrived_behind.decode(), offset()]
        server.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, -1)
        seen += [outcome(server.recv, 9, socket.MSG_PEEK), offset()]
        client.shutdown(socket.SHUT_WR)
        server.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, 3)
        return [*seen, outcome(server.recv, 9, socket.MSG_PEEK), outcome(server.recv, 9)]


@scene
def a_child_peeks_where_its_listener_was_told_to() -> Any:
    with socket.create_server(("127.0.0.1", PORT)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, 1)
        with socket.create_connection(("127.0.0.1", PORT)):
            server, _ = listener.accept()
            with server:
                return server.getsockopt(socket.SOL_SOCKET, SO_PEEK_OFF)


def disconnect(sock: socket.socket) -> Any:
    """connect() to AF_UNSPEC, for which the standard module has no words."""
    if hasattr(sock, "disconnect"):
        return outcome(sock.disconnect)
    libc = ctypes.CDLL(None, use_errno=True)
    unspec = bytes(16)
    if libc.connect(sock.fileno(), unspec, len(unspec)):
        return errno.errorcode[ctypes.get_errno()]
    return None


@scene
def disconnecting() -> Any:
    with socket.create_server(("127.0.0.1", PORT)) as listener, socket.socket() as client:
        client.bind(("127.0.0.1", PORT + 1))
        client.connect(("127.0.0.1", PORT))
        server, _ = listener.accept()
        client.send(b"unread")
        arrived(server, 6)
        seen = [disconnect(client), outcome(server.recv, 9), outcome(server.recv, 9)]
        seen += [outcome(client.getpeername), outcome(client.recv, 9), outcome(client.send, b"x")]
        seen += [client.getsockname()[1] - PORT, outcome(client.connect, ("127.0.0.1", PORT))]
        server.close()
        server, _ = listener.accept()
        client.send(b"again")
        seen += [outcome(server.recv, 9), disconnect(listener), disconnect(listener)]
        seen += [outcome(socket.create_connection, ("127.0.0.1", PORT))]
        server.close()
        return seen


@scene
def disconnecting_what_never_was_connected() -> Any:
    with socket.socket() as sock:
        return [disconnect(sock), outcome(sock.recv, 1), outcome(sock.getpeername)]


def main() -> dict[str, Any]:
    return {function.__name__: function() for function in SCENES}


if __name__ == "__main__":
    print(json.dumps(main()))
