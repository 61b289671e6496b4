"""shutdown() through the daemon: both ways at once, and what was on the way when it happened."""

from __future__ import annotations

import contextlib
import select
import socket as std

import pytest

from kit.calls_daemon import CallsDaemon

pytestmark = pytest.mark.timeout(60)


def fill(sock: std.socket) -> int:
    """Send until nobody takes any more; return how many bytes that were."""
    sock.setblocking(False)
    sent = idle = 0
    while idle < 20:
        try:
            sent += sock.send(bytes(65536))
            idle = 0
        except BlockingIOError:
            idle += 1
            select.select([], [sock], [], 0.01)
    return sent


def recv_q(daemon: CallsDaemon, sock: std.socket) -> int:
    rows = daemon.ask(daemon.stack.tcp.diag)
    return next(int(row["recv_q"]) for row in rows if row["peer"][1] == sock.getpeername()[1])


def read_all(sock: std.socket) -> int:
    """Return how many bytes there were: a peer that goes on sending is reset (TCPAbortOnData)."""
    count = 0
    with contextlib.suppress(ConnectionResetError):
        while got := len(sock.recv(1 << 20)):
            count += got
    return count


@pytest.mark.linux("tcp_recvmsg_locked")
@pytest.mark.parametrize("hows", [(std.SHUT_RDWR,), (std.SHUT_RD, std.SHUT_WR)])
def test_what_had_arrived_is_read_behind_a_shutdown_of_both_ways(daemon, pair, hows):
    client, server = pair
    fill(client)
    in_tcp = recv_q(daemon, server)
    assert in_tcp > 100_000
    with server.dup() as other:
        for how in hows:
            server.shutdown(how)
        in_pair = len(server.recv(1 << 20))
        assert in_pair + read_all(other) >= in_pair + in_tcp


@pytest.mark.linux("tcp_close")
def test_a_close_behind_it_is_known_and_resets_if_something_was_unread(daemon, pair):
    client, server = pair
    other = server.dup()
    client.sendall(b"unread")
    assert server.recv(1) == b"u"
    server.shutdown(std.SHUT_RDWR)
    assert client.recv(1) == b""
    server.close()
    assert len(daemon.ask(lambda: list(daemon.hub._joins))) == 3
    other.close()
    while len(daemon.ask(lambda: list(daemon.hub._joins))) == 3:
        pass
    assert daemon.stack.net.mib.tcp_ext.TCPAbortOnClose == 1


def test_what_was_written_before_it_arrives_however_slowly_the_peer_reads(pair):
    client, server = pair
    sent = fill(client)
    client.shutdown(std.SHUT_RDWR)
    with pytest.raises(BrokenPipeError):
        client.send(b"x")
    client.close()
    assert read_all(server) == sent
