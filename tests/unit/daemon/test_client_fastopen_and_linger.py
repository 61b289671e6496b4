"""Through the daemon: data in the SYN, a close() that waits, bytes that nobody wants."""

from __future__ import annotations

import errno
import select
import socket as std
import struct
import threading
import time

import pytest

from kit.calls_daemon import CallsDaemon
from ustack import socket
from ustack.config import StackConfig, TcpConfig

pytestmark = pytest.mark.timeout(60)
PATIENCE_S = 30.0
TCP_FASTOPEN_CONNECT = 30
MSG_FASTOPEN = std.MSG_FASTOPEN


@pytest.fixture
def config() -> StackConfig:
    return StackConfig(tcp=TcpConfig(tcp_fastopen=3))


@pytest.fixture
def listener(listener: std.socket) -> std.socket:
    listener.setsockopt(std.IPPROTO_TCP, std.TCP_FASTOPEN, 5)
    listener.settimeout(PATIENCE_S)
    return listener


def in_syn(daemon: CallsDaemon) -> int:
    return int(daemon.ask(lambda: daemon.stack.net.mib.tcp_ext.TCPFastOpenActive))


def read_all(sock: std.socket) -> bytes:
    with sock, sock.makefile("rb") as file:
        return file.read()


@pytest.mark.parametrize("size", [5, 200_000])
def test_sendto_with_msg_fastopen_connects_and_sends(daemon, listener, size):
    call = (bytes(size), MSG_FASTOPEN, listener.getsockname())
    for _ in range(2):  # the first asks for a cookie
        with socket.socket() as sock:
            writer = threading.Thread(target=sock.sendto, args=call)
            writer.start()
            conn, _ = listener.accept()
            got = 0
            while got < size:
                got += len(conn.recv(1 << 16))
            writer.join()
            conn.close()
    assert in_syn(daemon) == 1


def test_without_waiting_the_first_msg_fastopen_is_einprogress(listener):
    with socket.socket() as sock:
        sock.setblocking(False)
        with pytest.raises(BlockingIOError) as caught:
            sock.sendto(b"hello", MSG_FASTOPEN, listener.getsockname())
        assert caught.value.errno == errno.EINPROGRESS
        assert select.select([], [sock], [], PATIENCE_S)[1]
        assert sock.getsockopt(std.SOL_SOCKET, std.SO_ERROR) == 0
        sock.send(b"hello")
        conn, _ = listener.accept()
        assert conn.recv(10) == b"hello"
        with pytest.raises(OSError) as caught:
            sock.sendto(b"again", MSG_FASTOPEN, listener.getsockname())
        assert caught.value.errno == errno.EISCONN
        conn.close()


def test_with_tcp_fastopen_connect_the_first_write_goes_with_the_syn(daemon, listener):
    for _ in range(2):  # the first asks for a cookie
        with socket.socket() as sock:
            sock.setsockopt(std.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
            sock.connect(listener.getsockname())
            sock.sendall(b"x" * 100_000)
            sock.shutdown(std.SHUT_WR)
            assert read_all(listener.accept()[0]) == b"x" * 100_000
    assert in_syn(daemon) == 1


def test_what_is_written_before_a_close_goes_with_the_syn_too(daemon, listener):
    for data in (b"cookie", b"last words"):
        sock = socket.socket()
        sock.setsockopt(std.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
        sock.connect(listener.getsockname())
        sock.sendall(data)
        sock.close()
        assert read_all(listener.accept()[0]) == data
    assert in_syn(daemon) == 1


def test_a_connection_that_was_promised_and_refused_is_an_error_for_the_reader(daemon, listener):
    address = listener.getsockname()
    with socket.socket() as sock:  # gets a cookie
        sock.sendto(b"x", MSG_FASTOPEN, address)
        listener.accept()[0].close()
    listener.close()
    with socket.socket() as sock:
        sock.setsockopt(std.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
        sock.connect(address)
        sock.send(b"anybody?")
        with pytest.raises(ConnectionRefusedError):
            sock.recv(10)


def lingering(sock: std.socket, seconds: int) -> None:
    sock.setsockopt(std.SOL_SOCKET, std.SO_LINGER, struct.pack("ii", 1, seconds))


def test_a_lingering_close_waits_until_the_peer_has_all(daemon, pair):
    client, server = pair
    lingering(client, 30)
    client.sendall(bytes(100_000))
    client.close()
    states = daemon.states()
    assert "FIN-WAIT-2" in states or "CLOSE-WAIT" in states
    assert len(read_all(server)) == 100_000


def test_a_lingering_close_gives_up_when_its_time_is_over(listener):
    listener.setsockopt(std.SOL_SOCKET, std.SO_RCVBUF, 4096)
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()  # and does not read
    client.setblocking(False)
    for _ in range(20):
        try:
            while True:
                client.send(bytes(65536))
        except BlockingIOError:
            select.select([], [client], [], 0.01)
    lingering(client, 1)
    started = time.monotonic()
    client.close()
    assert 0.9 < time.monotonic() - started < 20
    server.close()


def test_only_the_last_close_lingers(daemon, pair):
    client, server = pair
    lingering(client, 30)
    second = client.dup()
    started = time.monotonic()
    client.close()
    assert time.monotonic() - started < 20
    assert daemon.states().count("ESTAB") == 2
    second.close()
    assert "ESTAB" not in daemon.states()
    assert server.recv(10) == b""


def test_msg_trunc_takes_bytes_that_nobody_wants(pair):
    client, server = pair
    client.sendall(b"unwanted|wanted")
    while len(server.recv(15, std.MSG_PEEK)) < 15:
        pass
    buffer = bytearray(b"keep this")
    assert server.recv_into(buffer, 4, std.MSG_TRUNC) == 4
    assert buffer == b"keep this"
    assert len(server.recv(5, std.MSG_TRUNC)) == 5
    assert server.recv(100) == b"wanted"
