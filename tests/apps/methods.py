"""Every public method of ``socket.socket``, ``select.epoll`` and ``select.poll``, tried out.

Each function is named after a method and returns what its calls gave: values, or the errors'
classes, numbers and texts. As a command it prints the table as JSON, made with whatever
``socket`` and ``select`` are. Numbers of descriptors are left out: they differ anyway.
"""

import array
import io
import json
import pickle
import select
import socket
import struct
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

PORT = 18100
HERE = ("127.0.0.1", PORT)
LONG_S = 60
SOCKET: dict[str, Callable[[], Any]] = {}
EPOLL: dict[str, Callable[[], Any]] = {}
POLL: dict[str, Callable[[], Any]] = {}


def of(table: dict[str, Callable[[], Any]]) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Enter a function under the name of its method, a trailing underscore left out."""

    def enter(function: Callable[[], Any]) -> Callable[[], Any]:
        table[function.__name__.removesuffix("_")] = function
        return function

    return enter


def seen(function: Callable[..., Any], *args: Any, **named: Any) -> Any:
    """What a call gives: its value, or the class, number and text of its error."""
    try:
        result = function(*args, **named)
    except Exception as exc:
        text = str(exc).split("0x")[0]
        return [type(exc).__name__, getattr(exc, "errno", None), text]
    if isinstance(result, bytes | bytearray):
        return result.decode("latin-1")
    if isinstance(result, tuple):
        return [part.decode("latin-1") if isinstance(part, bytes) else part for part in result]
    return result


def pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(HERE) as listener:
        client = socket.create_connection(HERE)
        return client, listener.accept()[0]


def udp(port: int = 0) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    if port:
        sock.bind(("127.0.0.1", port))
    return sock


def soon(sock: socket.socket, data: bytes, peer: socket.socket) -> None:
    """Send ``data`` to ``peer`` and wait until it is there."""
    sock.sendall(data)
    end = time.monotonic() + LONG_S
    while time.monotonic() < end:
        try:
            if len(peer.recv(1000, socket.MSG_PEEK | socket.MSG_DONTWAIT)) >= min(len(data), 1000):
                return
        except BlockingIOError:
            time.sleep(0.001)
    raise AssertionError("nothing arrives")


@of(SOCKET)
def accept() -> Any:
    with socket.create_server(HERE) as listener, socket.socket() as plain, udp() as dgram:
        listener.settimeout(0.01)
        late = seen(listener.accept)
        listener.setblocking(False)
        none = seen(listener.accept)
        listener.settimeout(LONG_S)
        with socket.create_connection(HERE) as client:
            conn, peer = listener.accept()
            with conn:
                told = [peer == client.getsockname(), conn.gettimeout(), conn.proto]
        return [late, none, told, seen(plain.accept), seen(dgram.accept)]


@of(SOCKET)
def bind() -> Any:
    with socket.socket() as a, socket.socket() as b, udp() as c, udp() as d:
        return [
            seen(a.bind, HERE), seen(a.bind, HERE), seen(b.bind, HERE),
            seen(b.bind, ("192.0.2.1", 1)), seen(b.bind, "127.0.0.1"), seen(b.bind, ("1", 2, 3)),
            seen(b.bind, ("127.0.0.1", 70000)), seen(b.bind, ("127.0.0.1", "x")),
            seen(b.bind, (5, 5)), seen(b.bind, (b"127.0.0.1", 0)), seen(c.bind, HERE),
            seen(c.bind, HERE), seen(d.bind, HERE), seen(d.bind, ("192.0.2.1", 1)),
            seen(d.bind, ("<broadcast>", PORT)), d.getsockname(),
        ]  # fmt: skip


@of(SOCKET)
def close() -> Any:
    sock = socket.socket()
    return [seen(sock.close), seen(sock.close), sock.fileno(), seen(sock.recv, 1), sock.timeout]


@of(SOCKET)
def connect() -> Any:
    with socket.create_server(HERE) as listener, socket.socket() as a, socket.socket() as b:
        c = udp()
        found = [
            seen(a.connect, HERE), seen(a.connect, HERE), seen(listener.connect, HERE),
            seen(b.connect, ("127.0.0.1", PORT + 1)), seen(b.connect, ("127.0.0.1", 0)),
            seen(b.connect, "x"), seen(b.connect, ("127.0.0.1", -1)),
            seen(c.connect, HERE), seen(c.connect, ("127.0.0.1", 9)), seen(c.connect, ("", 9)),
            c.getpeername(), seen(c.connect, ("255.255.255.255", 9)),
        ]  # fmt: skip
        c.close()
        return [*found, seen(c.connect, HERE)]


@of(SOCKET)
def connect_ex() -> Any:
    with socket.socket() as a, socket.socket() as b:
        b.setblocking(False)
        return [a.connect_ex(HERE), a.connect_ex(("127.0.0.1", 0)), b.connect_ex(HERE),
                seen(a.connect_ex, "x")]  # fmt: skip


@of(SOCKET)
def detach() -> Any:
    client, server = pair()
    with server:
        number = client.detach()
        gone = [client.fileno(), seen(client.send, b"x"), seen(client.close)]
        with socket.socket(fileno=number) as again:
            soon(again, b"x", server)
            return [*gone, again.family, again.type, again.proto, number == again.fileno()]


@of(SOCKET)
def dup() -> Any:
    client, server = pair()
    with client, server:
        client.settimeout(5)
        with client.dup() as copy:
            told = [copy.gettimeout(), copy.fileno() == client.fileno(), copy.type, copy.proto]
            client.close()
            soon(copy, b"still", server)
        return [*told, seen(server.recv, 9), seen(server.recv, 9), seen(client.dup)]


@of(SOCKET)
def family() -> Any:
    with socket.socket() as sock:
        return [repr(sock.family), seen(socket.socket, 12345), seen(setattr, sock, "family", 1)]


@of(SOCKET)
def type_() -> Any:
    kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_INET, kind) as sock, udp() as dgram:
        return [repr(sock.type), sock.gettimeout(), repr(dgram.type),
                seen(socket.socket, socket.AF_INET, 5),
                seen(socket.socket, socket.AF_INET, 77)]  # fmt: skip


@of(SOCKET)
def proto() -> Any:
    with socket.socket() as a, socket.socket(proto=6) as b, udp() as c:
        return [a.proto, b.proto, c.proto, seen(socket.socket, proto=17),
                seen(socket.socket, socket.AF_INET, socket.SOCK_DGRAM, 6)]  # fmt: skip


@of(SOCKET)
def fileno() -> Any:
    with socket.socket() as sock:
        first = sock.fileno() >= 0
    return [first, sock.fileno(), seen(partial(socket.socket, fileno=12345))]


@of(SOCKET)
def getblocking() -> Any:
    with socket.socket() as sock:
        found = [sock.getblocking()]
        for seconds in (0, 1, None):
            sock.settimeout(seconds)
            found.append(sock.getblocking())
        return found


@of(SOCKET)
def setblocking() -> Any:
    with socket.socket() as sock:
        found = []
        for flag in (False, True, 0, 1):
            found += [seen(sock.setblocking, flag), sock.gettimeout()]
        return found


@of(SOCKET)
def gettimeout() -> Any:
    with socket.socket() as sock:
        sock.settimeout(1.5)
        return [sock.gettimeout(), sock.timeout]


@of(SOCKET)
def settimeout() -> Any:
    with socket.socket() as sock:
        return [seen(sock.settimeout, value) for value in (None, 0, 0.5, -1, "x")] + [sock.timeout]


@of(SOCKET)
def timeout() -> Any:
    socket.setdefaulttimeout(2.5)
    try:
        with socket.socket() as sock:
            return [sock.timeout, seen(setattr, sock, "timeout", 1)[0]]
    finally:
        socket.setdefaulttimeout(None)


@of(SOCKET)
def get_inheritable() -> Any:
    with socket.socket() as sock:
        return sock.get_inheritable()


@of(SOCKET)
def set_inheritable() -> Any:
    with socket.socket() as sock:
        return [seen(sock.set_inheritable, False), seen(sock.set_inheritable, True)]


@of(SOCKET)
def getpeername() -> Any:
    client, server = pair()
    with client, server, socket.socket() as plain, udp() as dgram:
        return [client.getpeername(), server.getpeername() == client.getsockname(),
                seen(plain.getpeername), seen(dgram.getpeername)]  # fmt: skip


@of(SOCKET)
def getsockname() -> Any:
    with socket.socket() as plain, udp(PORT) as dgram:
        return [plain.getsockname(), dgram.getsockname()]


OPTIONS = [
    (socket.SOL_SOCKET, getattr(socket, name))
    for name in ("SO_TYPE", "SO_ERROR", "SO_REUSEADDR", "SO_REUSEPORT", "SO_KEEPALIVE",
                 "SO_ACCEPTCONN", "SO_PROTOCOL", "SO_DOMAIN", "SO_LINGER", "SO_RCVLOWAT")
]  # fmt: skip


@of(SOCKET)
def getsockopt() -> Any:
    with socket.socket() as sock, udp() as dgram:
        found = [seen(one.getsockopt, *option) for one in (sock, dgram) for option in OPTIONS]
        found += [seen(dgram.getsockopt, socket.SOL_SOCKET, socket.SO_RCVBUF),
                  seen(dgram.getsockopt, socket.SOL_SOCKET, socket.SO_BROADCAST)]  # fmt: skip
        return [*found, seen(sock.getsockopt, 1, 9999), seen(sock.getsockopt, 1, 4, 4),
                seen(sock.getsockopt, 1, 4, 2000), seen(sock.getsockopt, 1),
                seen(sock.getsockopt, socket.SOL_SOCKET, socket.SO_LINGER, 8)]  # fmt: skip


@of(SOCKET)
def setsockopt() -> Any:
    with socket.socket() as sock, udp() as dgram:
        found = [
            seen(sock.setsockopt, socket.SOL_SOCKET, socket.SO_REUSEADDR, 1),
            seen(sock.setsockopt, socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 5)),
            seen(sock.setsockopt, socket.SOL_SOCKET, socket.SO_LINGER, 1),
            seen(sock.setsockopt, socket.SOL_SOCKET, socket.SO_RCVTIMEO, b"short"),
            seen(sock.setsockopt, socket.SOL_SOCKET, 9999, 1),
            seen(sock.setsockopt, socket.IPPROTO_TCP, socket.TCP_NODELAY, b"\1\0\0\0"),
            seen(sock.setsockopt, 1, 2, None, 4), seen(sock.setsockopt, 1, 2, "x"),
            seen(dgram.setsockopt, socket.IPPROTO_IP, socket.IP_TTL, 300),
            seen(dgram.setsockopt, socket.IPPROTO_IP, socket.IP_TOS, b"\x10"),
            seen(dgram.setsockopt, socket.SOL_SOCKET, socket.SO_RCVBUF, 5000),
        ]  # fmt: skip
        return [*found, dgram.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF),
                dgram.getsockopt(socket.IPPROTO_IP, socket.IP_TOS),
                seen(sock.getsockopt, socket.SOL_SOCKET, socket.SO_LINGER, 8)]  # fmt: skip


@of(SOCKET)
def listen() -> Any:
    with socket.socket() as sock, udp() as dgram:
        return [seen(sock.listen), seen(sock.listen, -5), seen(sock.listen, "x"),
                seen(dgram.listen), sock.getsockname()[1] > 0]  # fmt: skip


@of(SOCKET)
def makefile() -> Any:
    client, server = pair()
    with client, server:
        with client.makefile("rw", encoding="utf-8", newline="\n") as file:
            file.write("line\nü\n")
            file.flush()
            reader = server.makefile("rb")
            found = [seen(reader.readline), seen(reader.readline)]
            server.sendall(b"back\n")
            found += [file.readline(), file.mode]
        client.close()
        found += [seen(reader.read), seen(server.makefile, "a"), seen(server.makefile, "r", 0)]
        raw = server.makefile("rb", 0)
        server.close()
        found += [type(raw).__name__, server.fileno() >= 0]
        raw.close()
        reader.close()
        return [*found, server.fileno()]


@of(SOCKET)
def recv() -> Any:
    client, server = pair()
    with client, server, udp(PORT) as dgram, socket.socket() as plain:
        soon(client, b"stream", server)
        found = [seen(server.recv, n) for n in (2, 0, 100)]
        dgram.sendto(b"datagram", HERE)
        found += [seen(dgram.recv, 4, socket.MSG_PEEK), seen(dgram.recv, 100)]
        found += [seen(dgram.recv, 1, socket.MSG_DONTWAIT), seen(server.recv, -1),
                  seen(server.recv), seen(server.recv, "x"), seen(plain.recv, -1)]  # fmt: skip
        client.close()
        return [*found, seen(server.recv, 1)]


@of(SOCKET)
def recv_into() -> Any:
    client, server = pair()
    with client, server:
        soon(client, b"stream", server)
        words, buffer = array.array("H", [0, 0]), bytearray(10)
        found = [seen(server.recv_into, words), words.tobytes().decode()]
        found += [seen(server.recv_into, buffer, 1), buffer.decode(),
                  seen(server.recv_into, b"x"), seen(server.recv_into, buffer, 11),
                  seen(server.recv_into, buffer, -1)]  # fmt: skip
        return [*found, seen(server.recv_into, buffer), buffer.decode()]


@of(SOCKET)
def recvfrom() -> Any:
    client, server = pair()
    with client, server, udp(PORT) as dgram:
        soon(client, b"stream", server)
        dgram.sendto(b"datagram", HERE)
        return [seen(server.recvfrom, 100), seen(dgram.recvfrom, 4), seen(dgram.recvfrom, -1),
                seen(dgram.recvfrom, 1, socket.MSG_DONTWAIT)]  # fmt: skip


@of(SOCKET)
def recvfrom_into() -> Any:
    client, server = pair()
    with client, server, udp(PORT) as dgram:
        soon(client, b"stream", server)
        dgram.sendto(b"datagram", HERE)
        buffer = bytearray(4)
        return [seen(server.recvfrom_into, buffer), buffer.decode(),
                seen(dgram.recvfrom_into, buffer, 3), buffer.decode(),
                seen(dgram.recvfrom_into, buffer, 5),
                seen(dgram.recvfrom_into, buffer, -1)]  # fmt: skip


@of(SOCKET)
def recvmsg() -> Any:
    client, server = pair()
    with client, server, udp(PORT) as dgram:
        soon(client, b"stream", server)
        dgram.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        for _ in range(3):
            dgram.sendto(b"datagram", HERE)
        data, ancillary, *rest = dgram.recvmsg(100, 100)
        found = [seen(server.recvmsg, 100)[:3], len(data), len(ancillary), rest]
        return [*found, seen(dgram.recvmsg, 4), seen(dgram.recvmsg, 100, 3),
                seen(dgram.recvmsg, -1), seen(dgram.recvmsg, 1, -1)]  # fmt: skip


@of(SOCKET)
def recvmsg_into() -> Any:
    with udp(PORT) as dgram:
        dgram.sendto(b"datagram", HERE)
        pieces = [bytearray(3), bytearray(20)]
        found = seen(dgram.recvmsg_into, pieces)
        return [found, [piece.decode() for piece in pieces], seen(dgram.recvmsg_into, 5)[0],
                seen(dgram.recvmsg_into, [b"x"])]  # fmt: skip


@of(SOCKET)
def send() -> Any:
    client, server = pair()
    with client, server, socket.socket() as plain, udp() as dgram:
        found = [seen(client.send, data) for data in (b"a", bytearray(b"b"), b"", "x")]
        found += [seen(client.send, array.array("H", [1, 2])), seen(plain.send, b"x"),
                  seen(dgram.send, b"x"), seen(client.send), seen(plain.send, "x")]  # fmt: skip
        client.shutdown(socket.SHUT_WR)
        return [*found, seen(client.send, b"x")]


@of(SOCKET)
def sendall() -> Any:
    client, server = pair()
    with client, server, udp(PORT) as dgram:
        dgram.connect(HERE)
        return [seen(client.sendall, b"x" * 10), seen(client.sendall, "x"),
                seen(dgram.sendall, b"datagram"), seen(dgram.recv, 100)]  # fmt: skip


@of(SOCKET)
def sendfile() -> Any:
    client, server = pair()
    with client, server, udp() as dgram, tempfile.TemporaryFile() as file:
        file.write(b"0123456789")
        file.seek(0)
        found = [client.sendfile(file, 2, 5), file.tell(), client.sendfile(io.BytesIO(b"mem"))]
        client.shutdown(socket.SHUT_WR)
        found.append(seen(server.recv, 100, socket.MSG_WAITALL))
        found += [seen(dgram.sendfile, file), seen(client.sendfile, file, 0, -1)]
        client.setblocking(False)
        return [*found, seen(client.sendfile, file)]


@of(SOCKET)
def sendmsg() -> Any:
    client, server = pair()
    with client, server, udp(PORT) as dgram:
        found = [seen(client.sendmsg, [b"a", bytearray(b"bc")]), seen(client.sendmsg, b"x"),
                 seen(dgram.sendmsg, [b"d", b"e"], [], 0, HERE), seen(dgram.recv, 10),
                 seen(dgram.sendmsg, [b"d"]), seen(client.sendmsg, ["x"])]  # fmt: skip
        tos = [(socket.IPPROTO_IP, socket.IP_TOS, b"\x10")]
        bad = [(socket.IPPROTO_IP, socket.IP_TTL, b"")]
        return [*found, seen(dgram.sendmsg, [b"d"], tos, 0, HERE),
                seen(dgram.sendmsg, [b"d"], bad, 0, HERE), seen(client.sendmsg)]  # fmt: skip


@of(SOCKET)
def sendto() -> Any:
    client, server = pair()
    with client, server, udp(PORT) as dgram:
        found = [seen(dgram.sendto, b"x", HERE), seen(dgram.sendto, b"x", 0, HERE),
                 seen(dgram.sendto, b"x"), seen(dgram.sendto, b"x", 0, HERE, 1),
                 seen(dgram.sendto, "x", HERE), seen(dgram.sendto, b"x", "y"),
                 seen(dgram.sendto, b"x", ("127.0.0.1", 0)),
                 seen(dgram.sendto, b"x", ("127.0.0.1", 70000)),
                 seen(dgram.sendto, bytes(70000), HERE),
                 seen(dgram.sendto, b"x", ("255.255.255.255", 9))]  # fmt: skip
        return [*found, seen(client.sendto, b"x", HERE), seen(client.sendto, b"x", 0, HERE, 1)]


@of(SOCKET)
def shutdown() -> Any:
    client, server = pair()
    with client, server, socket.socket() as plain, udp() as dgram:
        return [seen(plain.shutdown, 2), seen(dgram.shutdown, 2), seen(client.shutdown, 5),
                seen(client.shutdown, socket.SHUT_WR), seen(client.shutdown, socket.SHUT_WR),
                seen(server.recv, 1), seen(server.shutdown, socket.SHUT_RDWR)]  # fmt: skip


def special() -> Any:
    """What has no name of its own: context manager, pickling, repr, weak references."""
    with socket.socket() as sock:
        closed_within = sock.fileno() >= 0
        text = repr(sock).replace(f"fd={sock.fileno()}", "fd=N").split(".", 1)[1]
    gone = repr(sock).split(".", 1)[1]
    return [closed_within, sock.fileno(), seen(pickle.dumps, sock), text, gone]


def ready(sock: socket.socket, mask: int, epoll: select.epoll) -> Any:
    return [events & mask for _, events in epoll.poll(LONG_S)]


@of(EPOLL)
def register() -> Any:
    client, server = pair()
    with client, server, select.epoll() as epoll:
        found = [seen(epoll.register, client, select.EPOLLOUT), ready(client, 4, epoll),
                 seen(epoll.register, client), seen(epoll.register, -1), seen(epoll.register, "x"),
                 seen(epoll.register, 999_999), seen(epoll.register, epoll)]  # fmt: skip
    return [*found, seen(epoll.register, server)]


@of(EPOLL)
def modify() -> Any:
    client, server = pair()
    with client, server, select.epoll() as epoll:
        epoll.register(client, 0)
        found = [epoll.poll(0), seen(epoll.modify, client, select.EPOLLOUT), len(epoll.poll(0)),
                 seen(epoll.modify, server, 1), seen(epoll.modify, client)]  # fmt: skip
        client.close()
        return [*found, seen(epoll.modify, client, 1), epoll.poll(0)]


@of(EPOLL)
def unregister() -> Any:
    client, server = pair()
    with client, server, select.epoll() as epoll:
        epoll.register(client)
        return [seen(epoll.unregister, client), seen(epoll.unregister, client), epoll.poll(0)]


@of(EPOLL)
def poll() -> Any:
    client, server = pair()
    with client, server, select.epoll() as epoll:
        for sock in (client, server):
            epoll.register(sock, select.EPOLLOUT)
        found = [len(epoll.poll(0, 1)), len(epoll.poll(maxevents=5)), seen(epoll.poll, 0, 0),
                 seen(epoll.poll, 0, -3), seen(epoll.poll, "x")[0]]  # fmt: skip
        epoll.modify(client, 0)
        epoll.modify(server, 0)
        return [*found, epoll.poll(0.001), epoll.poll(0)]


@of(EPOLL)
def closed() -> Any:
    epoll = select.epoll()
    first = epoll.closed
    epoll.close()
    return [first, epoll.closed]


def epoll_close() -> Any:
    epoll = select.epoll()
    return [seen(epoll.close), seen(epoll.close), seen(epoll.fileno), seen(epoll.poll)]


def epoll_fileno() -> Any:
    with select.epoll() as epoll:
        return epoll.fileno() >= 0


def epoll_fromfd() -> Any:
    epoll = select.epoll()
    same = select.epoll.fromfd(epoll.fileno())
    same.close()
    return [same.closed, seen(epoll.poll, 0), seen(epoll.close), epoll.closed,
            seen(select.epoll, 0), seen(select.epoll, -2)]  # fmt: skip


EPOLL |= {"close": epoll_close, "fileno": epoll_fileno, "fromfd": epoll_fromfd}


def poll_all() -> Any:
    client, server = pair()
    with client, server:
        asked = select.poll()
        found = [seen(asked.register, client, select.POLLOUT), len(asked.poll(0)),
                 seen(asked.modify, client, select.POLLIN), asked.poll(1),
                 seen(asked.modify, server, 1), seen(asked.unregister, client),
                 seen(asked.unregister, -1)]  # fmt: skip
        return [*found, seen(asked.register, "x")]


POLL |= dict.fromkeys(("register", "modify", "unregister", "poll"), poll_all)


def main() -> dict[str, Any]:
    """Return all that was seen, by the class's and the method's name."""
    tables = {"socket": {**SOCKET, "special": special}, "epoll": EPOLL, "poll": POLL}
    return {
        f"{name}.{method}": function()
        for name, table in tables.items()
        for method, function in table.items()
    }


if __name__ == "__main__":
    print(json.dumps(main()))
