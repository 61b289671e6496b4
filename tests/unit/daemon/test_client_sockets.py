"""Sockets through the daemon: real descriptors that behave as the kernel's TCP sockets do."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import http.client
import http.server
import os
import select
import selectors
import socket as std
import ssl
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import ustack
from kit.calls_daemon import CallsDaemon, connected
from ustack import socket
from ustack.api import protocol
from ustack.api.protocol import Call
from ustack.daemon import join as daemon_join
from ustack.daemon.messages import SocketsRequest
from ustack.daemon.views import Views

pytestmark = pytest.mark.timeout(60)
CERTIFICATE = Path(__file__).parents[2] / "apps" / "localhost.pem"


def until(daemon: CallsDaemon, states: list[str]) -> None:
    """Wait for the stack's connections to be in these states."""
    for _ in range(1000):
        if daemon.states() == states:
            return
        select.select([], [], [], 0.005)
    assert daemon.states() == states


def test_a_connection_has_both_ends_names_and_carries_bytes_both_ways(pair):
    client, server = pair
    assert isinstance(client, socket.socket)
    assert client.getpeername() == server.getsockname()
    assert server.getpeername() == client.getsockname()
    client.sendall(b"ping")
    assert server.recv(100) == b"ping"
    server.sendall(b"pong")
    assert client.recv(100) == b"pong"


def test_what_is_told_has_no_answer_and_sets_only_what_cannot_be_refused(daemon, pair):
    client, server = pair
    nodelay, rcvbuf = (std.IPPROTO_TCP, std.TCP_NODELAY), (std.SOL_SOCKET, std.SO_RCVBUF)
    before = server.getsockopt(*rcvbuf)
    server.setsockopt(*nodelay, 1)
    assert server.getsockopt(*nodelay) == 1
    for key in (server._key, bytes(8), server._key[:7], b""):
        for option in (nodelay, rcvbuf):
            assert server._link.tell(Call(protocol.TELL, *option, 0, data=key))
    assert server.getsockopt(*nodelay) == 0
    assert server.getsockopt(*rcvbuf) == before
    assert client.getsockopt(*nodelay) == 0


def test_a_connection_that_is_over_is_told_in_vain(daemon, pair):
    client, server = pair
    server.close()
    client.close()
    while daemon.ask(lambda: len(daemon.hub)) > 1:
        select.select([], [], [], 0.005)
    assert server._link.tell(
        Call(protocol.TELL, std.IPPROTO_TCP, std.TCP_NODELAY, 1, data=server._key)
    )
    assert server._link.call(Call(protocol.HELLO)).value == protocol.VERSION


def test_what_a_client_took_before_it_was_counted_fills_no_backlog(daemon, listener, monkeypatch):
    outq = daemon_join.outq
    monkeypatch.setattr(daemon_join, "outq", lambda fd: 0)
    taken = socket.create_connection(listener.getsockname()), listener.accept()[0]
    monkeypatch.setattr(daemon_join, "outq", outq)
    waiting = [socket.create_connection(listener.getsockname()) for _ in range(3)]
    until(daemon, ["ESTAB"] * 8 + ["LISTEN"])
    rows = daemon.ask(lambda: daemon.stack.inet.diag(["tcp"]))
    assert [row["recv_q"] for row in rows if row["state"] == "LISTEN"] == [3]
    for sock in (*taken, *waiting):
        sock.close()


def test_megabytes_arrive_whole_in_both_directions_at_once(pair):
    data = os.urandom(1 << 20) * 3

    def both(sock: std.socket, got: list[bytes]) -> None:
        writer = threading.Thread(target=lambda: (sock.sendall(data), sock.shutdown(std.SHUT_WR)))
        writer.start()
        with sock.makefile("rb") as file:
            got.append(file.read())
        writer.join()

    received: tuple[list[bytes], list[bytes]] = ([], [])
    threads = [threading.Thread(target=both, args=a) for a in zip(pair, received, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert received == ([data], [data])


def test_a_reader_that_stops_stops_the_writer_and_costs_bounded_memory(daemon, pair):
    client, server = pair
    client.setblocking(False)
    sent = 0
    idle = 0
    while idle < 20:
        try:
            sent += client.send(bytes(65536))
            idle = 0
        except BlockingIOError:
            idle += 1
            select.select([], [client], [], 0.01)
    assert sent < 30 << 20
    server.settimeout(5)
    got = 0
    while got < sent:
        got += len(server.recv(1 << 20))
    assert got == sent


def test_a_client_that_does_not_read_can_still_write(pair):
    client, server = pair
    server.setblocking(False)
    for _ in range(20):  # as much as anything on the way takes
        try:
            while True:
                server.send(bytes(65536))
        except BlockingIOError:
            select.select([], [server], [], 0.01)
    server.settimeout(30)
    writer = threading.Thread(target=lambda: (client.sendall(bytes(20 << 20)), client.close()))
    writer.start()
    got = 0
    with contextlib.suppress(ConnectionResetError):  # the client leaves its own unread
        while piece := server.recv(1 << 20):
            got += len(piece)
    writer.join(30)
    assert not writer.is_alive() and got > 10 << 20


def test_bytes_in_the_descriptors_count_in_recv_q_and_send_q(daemon, pair):
    client, server = pair
    client.setblocking(False)
    sent = 0
    for _ in range(40):  # until nothing moves any more
        try:
            while True:
                sent += client.send(bytes(65536))
        except BlockingIOError:
            select.select([], [client], [], 0.01)

    def queues() -> tuple[int, int]:
        views = Views(daemon.stack, daemon.runtime.call, daemon.hub.bytes_in_pairs)
        rows = daemon.ask(lambda: list(views._sockets(SocketsRequest())))
        by_port = {row.local[1]: row for row in rows if row.state == "ESTAB"}
        ours, theirs = (by_port[s.getsockname()[1]] for s in (client, server))
        return ours.send_q, theirs.recv_q

    for _ in range(2000):
        send_q, recv_q = queues()
        if send_q + recv_q == sent:
            break
        select.select([], [], [], 0.01)
    assert send_q + recv_q == sent
    assert recv_q > daemon.ask(lambda: max(r["recv_q"] for r in daemon.stack.tcp.diag()))


def test_the_end_of_the_stream_leaves_the_other_direction_open(daemon, pair):
    client, server = pair
    client.sendall(b"last words")
    client.shutdown(std.SHUT_WR)
    assert server.recv(100) == b"last words"
    assert server.recv(100) == b""
    server.sendall(b"still here")
    assert client.recv(100) == b"still here"
    with pytest.raises(BrokenPipeError):
        client.send(b"x")
    server.close()
    assert client.recv(100) == b""
    assert client.recv(100) == b""


def test_nothing_can_be_read_or_written_before_there_is_a_connection(listener):
    with socket.socket() as sock:
        for one in (sock, sock.dup(), listener):
            for read in (lambda s=one: s.recv(1), lambda s=one: s.recv_into(bytearray(1))):
                with pytest.raises(OSError) as caught:
                    read()
                assert caught.value.errno == errno.ENOTCONN
            for write in (one.send, one.sendall):
                with pytest.raises(BrokenPipeError):
                    write(b"x")
        sock.connect(listener.getsockname())
        sock.send(b"x")
    server, _ = listener.accept()
    assert server.recv(10) == b"x"
    server.close()


def test_a_refused_connection_says_so(daemon):
    with socket.socket() as sock, pytest.raises(ConnectionRefusedError):
        sock.connect(("127.0.0.1", 9))


def test_a_non_blocking_connect_becomes_writable_when_it_is_over(listener):
    with socket.socket() as sock:
        sock.setblocking(False)
        assert sock.connect_ex(listener.getsockname()) == errno.EINPROGRESS
        assert select.select([], [sock], [], 5)[1]
        assert sock.getsockopt(std.SOL_SOCKET, std.SO_ERROR) == 0
        assert sock.connect_ex(listener.getsockname()) in (0, errno.EISCONN)


def test_a_connect_that_nobody_answers_is_not_writable_before_its_time(daemon):
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        filler = socket.create_connection(full.getsockname())
        with socket.socket() as sock:
            sock.settimeout(0.2)
            with pytest.raises(TimeoutError):
                sock.connect(full.getsockname())
            assert not select.select([], [sock], [], 0)[1]
        filler.close()


def test_a_reset_is_econnreset_and_then_the_end(pair):
    client, server = pair
    server.setsockopt(std.SOL_SOCKET, std.SO_LINGER, struct.pack("ii", 1, 0))
    server.close()
    with pytest.raises(ConnectionResetError):
        client.recv(10)
    assert client.recv(10) == b""
    with pytest.raises(BrokenPipeError):
        client.send(b"x")


def test_closing_with_unread_data_in_the_descriptor_resets_the_peer(daemon, pair):
    client, server = pair
    client.sendall(b"never read")
    assert select.select([server], [], [], 5)[0]
    server.close()
    with pytest.raises(ConnectionResetError):
        client.recv(10)


def test_the_fin_goes_with_the_last_reference(daemon, pair):
    client, server = pair
    second = client.dup()
    client.close()
    until(daemon, ["ESTAB", "ESTAB", "LISTEN"])
    second.sendall(b"me too")
    assert server.recv(10) == b"me too"
    second.close()
    assert server.recv(10) == b""


def test_a_listener_is_readable_when_a_connection_waits(listener):
    assert not select.select([listener], [], [], 0)[0]
    with socket.create_connection(listener.getsockname()) as client:
        assert select.select([listener], [], [], 5)[0]
        server, address = listener.accept()
        assert address == client.getsockname()
        server.close()
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_connections_waiting_in_the_descriptor_count_in_the_accept_queue(daemon):
    with socket.create_server(("127.0.0.1", 0), backlog=3) as listener:
        clients = [socket.socket() for _ in range(8)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex(listener.getsockname())

        def waiting() -> list[int]:
            rows = daemon.ask(daemon.stack.tcp.diag)
            return [row["recv_q"] for row in rows if row["state"] == "LISTEN"]

        for _ in range(1000):
            if waiting() == [4]:
                break
            select.select([], [], [], 0.005)
        assert waiting() == [4]
        assert len(daemon.hub) == 1 + 8 + 4  # all of them lie in the descriptor
        for client in clients:
            client.close()


def test_options_and_figures_are_the_connections(pair):
    client, _ = pair
    assert client.getsockopt(std.IPPROTO_TCP, std.TCP_NODELAY) == 0
    client.setsockopt(std.IPPROTO_TCP, std.TCP_NODELAY, 1)
    assert client.getsockopt(std.IPPROTO_TCP, std.TCP_NODELAY) == 1
    info = client.getsockopt(std.IPPROTO_TCP, std.TCP_INFO, 256)
    assert len(info) > 200 and info[0] == 1
    assert client.getsockopt(std.SOL_SOCKET, std.SO_TYPE) == std.SOCK_STREAM
    with pytest.raises(OSError) as caught:
        client.setsockopt(std.IPPROTO_TCP, 200, 1)
    assert caught.value.errno == errno.ENOPROTOOPT


def test_rcvlowat_holds_bytes_back_until_there_are_enough(pair):
    client, server = pair
    server.setsockopt(std.SOL_SOCKET, std.SO_RCVLOWAT, 20)
    client.sendall(bytes(10))
    assert not select.select([server], [], [], 0.1)[0]
    client.sendall(bytes(15))
    assert select.select([server], [], [], 5)[0]
    assert len(server.recv(100)) == 25


def test_urgent_data_is_out_of_band_at_both_ends(pair):
    client, server = pair
    client.sendall(b"ab")
    client.send(b"!", std.MSG_OOB)
    client.sendall(b"cd")
    poll = select.poll()
    poll.register(server, select.POLLPRI)
    assert poll.poll(5000)
    assert server.recv(1, std.MSG_OOB) == b"!"
    assert server.recv(10) == b"ab"
    assert server.recv(10) == b"cd"


def test_a_forked_child_shares_the_connection_and_makes_its_own(daemon, listener):
    with socket.create_connection(listener.getsockname()) as client:
        server, _ = listener.accept()
        pid = os.fork()
        if not pid:
            status = 1
            try:
                server.sendall(b"from the child")
                with socket.create_connection(listener.getsockname()) as own:
                    own.sendall(b"mine")
                status = 0
            finally:
                os._exit(status)
        server.close()
        assert client.recv(100) == b"from the child"
        assert client.recv(100) == b""
        other, _ = listener.accept()
        with other:
            assert other.recv(100) == b"mine"
        assert os.waitpid(pid, 0)[1] == 0


def test_a_socket_can_be_passed_to_another_process(daemon, pair):
    client, server = pair
    ours, theirs = std.socketpair()
    with ours, theirs:
        std.send_fds(ours, [b"x"], [server.fileno()])
        server.close()
        _, fds, _, _ = std.recv_fds(theirs, 1, 1)
        with socket.socket(fileno=fds[0]) as again:
            assert again.getpeername() == client.getsockname()
            again.sendall(b"passed on")
    assert client.recv(100) == b"passed on"


def test_selectors_and_asyncio_run_on_it(listener):
    async def serve_once() -> bytes:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.read())
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(echo, sock=listener)
        async with server:
            sock = socket.socket()
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, listener.getsockname())
            reader, writer = await asyncio.open_connection(sock=sock)
            assert writer.get_extra_info("peername") == listener.getsockname()
            writer.write(b"x" * 300_000)
            writer.write_eof()
            data = await reader.read()
            writer.close()
            await writer.wait_closed()
            return data

    assert asyncio.run(serve_once()) == b"x" * 300_000
    with selectors.DefaultSelector() as selector:
        assert not selector.select(0)


def test_ustack_epoll_watches_them(listener):
    with ustack.epoll() as ep:
        ep.register(listener.fileno(), select.EPOLLIN)
        with socket.create_connection(listener.getsockname()):
            assert ep.poll(5) == [(listener.fileno(), select.EPOLLIN)]


def test_each_client_has_its_limit_and_all_together_theirs(tmp_path: Path):
    with connected(tmp_path / "u.sock", client_sockets=3, sockets=10):
        held = [socket.socket() for _ in range(3)]
        with pytest.raises(OSError) as caught:
            socket.socket()
        assert caught.value.errno == errno.EMFILE
        held.pop().close()
        held.append(socket.socket())
        for sock in held:
            sock.close()


def test_a_connection_for_which_there_is_no_room_waits_in_the_accept_queue(tmp_path: Path):
    with (
        connected(tmp_path / "u.sock", client_sockets=4),
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        clients = [socket.socket() for _ in range(3)]
        listener.settimeout(30)
        for client in clients:
            client.connect(listener.getsockname())
        assert not select.select([listener], [], [], 0.05)[0]
        clients.pop().close()
        for _ in range(3):
            listener.accept()[0].close()
        for client in clients:
            client.close()


def test_what_comes_after_reading_was_shut_down_can_be_read_by_all_who_hold_the_socket(pair):
    client, server = pair
    server.shutdown(std.SHUT_RD)
    assert server.recv(10) == b""
    client.sendall(b"late" * 1000)
    with server.dup() as other:
        got = b""
        while len(got) < 4000:
            got += other.recv(10_000)
        assert got == b"late" * 1000
        assert other.recv_into(bytearray(10)) == 0
    server.sendall(b"still writes")
    assert client.recv(100) == b"still writes"
    client.shutdown(std.SHUT_WR)
    assert server.recv(10) == b""


@pytest.mark.linux("inet_csk_listen_stop")
def test_a_closed_listener_resets_those_alone_who_were_never_accepted(listener):
    clients = [socket.create_connection(listener.getsockname()) for _ in range(3)]
    accepted, _ = listener.accept()
    listener.close()
    for client in clients[1:]:
        with client, pytest.raises(ConnectionResetError):
            client.recv(1)
    accepted.close()
    with clients[0] as client:
        assert client.recv(1) == b""


def test_a_shutdown_of_both_ways_is_the_end_and_no_error(pair):
    client, _ = pair
    client.shutdown(std.SHUT_RDWR)
    assert client.recv(10) == b""
    assert client.recv(10) == b""
    with pytest.raises(BrokenPipeError):
        client.send(b"x")


def test_a_name_with_a_sockets_number_is_not_the_socket(daemon, pair, tmp_path: Path):
    from ustack.daemon.join_hub import socket_inode

    with std.socket(std.AF_UNIX) as named:
        named.bind(str(tmp_path / "name"))
        path = os.open(tmp_path / "name", os.O_PATH)
        device = os.fstat(pair[0].fileno()).st_dev
        assert socket_inode(path, device) is None
        assert socket_inode(named.fileno(), device) == os.fstat(named.fileno()).st_ino
        os.close(path)


def test_ports_below_the_limit_are_for_privileged_users(daemon):
    from ustack.daemon.calls import PortRule

    rule = PortRule(lambda: 1024, frozenset([4242]))
    assert rule.permits(0, 80) and rule.permits(4242, 80) and not rule.permits(4243, 80)
    assert rule.permits(4243, 1024) and rule.permits(4243, 0)


def test_nobody_can_name_a_socket_that_he_does_not_hold(daemon, pair):
    from ustack.api import protocol
    from ustack.api.stacks import daemon_link

    link = daemon_link()
    assert link is not None
    strangers = std.socketpair()
    for fd in (-1, strangers[0].fileno(), 0):
        with pytest.raises(OSError) as caught:
            link.call(protocol.Call(protocol.GETPEERNAME), fd)
        assert caught.value.errno in (errno.ENOTSOCK, errno.ENOTCONN)
    for end in strangers:
        end.close()


def test_a_daemon_that_is_about_to_end_has_no_network_any_more(daemon, pair):
    daemon.ask(daemon.hub.close)
    for call in (socket.socket, pair[0].getpeername):
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == errno.ENETDOWN


def test_a_daemon_that_ends_gives_blocked_clients_an_error(tmp_path: Path):
    errors: list[int | None] = []

    def read(sock: std.socket) -> None:
        try:
            sock.recv(10)
        except OSError as error:
            errors.append(error.errno)

    with CallsDaemon(tmp_path / "u.sock") as daemon:
        ustack.connect(str(daemon.path))
        listener = socket.create_server(("127.0.0.1", 0))
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        readers = [threading.Thread(target=read, args=(s,)) for s in (client, server)]
        for reader in readers:
            reader.start()
    for reader in readers:
        reader.join(1)
        assert not reader.is_alive()
    assert errors == [errno.ECONNRESET] * 2
    with CallsDaemon(tmp_path / "u.sock"):
        with socket.create_server(("127.0.0.1", 0)) as again:
            socket.create_connection(again.getsockname()).close()
        with pytest.raises(OSError):
            client.recv(10)
    ustack.down()
    for sock in (listener, client, server):
        sock.close()


def test_a_listener_whose_daemon_has_gone_says_so_once_and_then_has_its_caller_wait(tmp_path: Path):
    with connected(tmp_path / "u.sock"):
        listener = socket.create_server(("127.0.0.1", 0))
        shut = socket.create_server(("127.0.0.1", 0))
        shut.shutdown(std.SHUT_RD)
        copy = listener.dup()
    assert select.select([listener], [], [], 1)[0]
    errors = [failure(sock.accept) for sock in (listener, copy, listener, shut, shut)]
    assert errors == ["ENETDOWN", "ENFILE", "ENFILE", "EINVAL", "EINVAL"]
    begin = time.monotonic()
    for _ in range(5):
        failure(listener.accept)
    assert time.monotonic() - begin > 0.04
    for sock in (listener, copy, shut):
        sock.close()


def failure(function: Callable[[], object]) -> str:
    with pytest.raises(OSError) as caught:
        function()
    return errno.errorcode[caught.value.errno or 0]


def test_wrap_socket_and_the_standard_librarys_http_run_over_it(listener):
    """SSLContext.wrap_socket needs a real descriptor: OpenSSL reads and writes it itself."""
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(CERTIFICATE)
    trusting = ssl.create_default_context(cafile=str(CERTIFICATE))
    body = os.urandom(200_000)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    def serve() -> None:
        conn, address = listener.accept()
        with serving.wrap_socket(conn, server_side=True) as secure:
            Handler(secure, address, None)  # type: ignore[arg-type]

    server = threading.Thread(target=serve)
    server.start()
    client = socket.create_connection(listener.getsockname(), timeout=30)
    with trusting.wrap_socket(client, server_hostname="localhost") as secure:
        secure.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = http.client.HTTPResponse(secure)
        answer.begin()
        assert answer.read() == body
    server.join(30)
    assert not server.is_alive()
