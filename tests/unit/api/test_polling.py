"""ustack.epoll over sockets of a loopback-only stack: select.epoll's shape and Linux's events."""

from __future__ import annotations

import errno
import threading
import time

import pytest

import ustack
from ustack import select, socket

PORT = 8000
ADDRESS = ("127.0.0.1", PORT)


@pytest.fixture
def ep():
    with ustack.epoll() as ep:
        yield ep


def test_poll_tells_descriptors_and_events(ep, pair):
    client, server = pair
    ep.register(server, select.EPOLLIN)
    assert ep.poll(0) == []
    client.send(b"x")
    assert ep.poll(5) == [(server.fileno(), select.EPOLLIN)]
    server.recv(1)
    assert ep.poll(0) == []


def test_a_fresh_connection_is_writable_and_a_listener_readable_when_one_waits(ep, listener):
    ep.register(listener, select.EPOLLIN)
    with socket.create_connection(ADDRESS) as client:
        assert ep.poll(5) == [(listener.fileno(), select.EPOLLIN)]
        ep.register(client.fileno(), select.EPOLLOUT)
        assert (client.fileno(), select.EPOLLOUT) in ep.poll(5)
        listener.accept()[0].close()


def test_the_peers_fin_is_rdhup_and_both_fins_are_hup(ep, pair):
    client, server = pair
    ep.register(server, select.EPOLLIN | select.EPOLLRDHUP)
    client.shutdown(socket.SHUT_WR)
    assert ep.poll(5) == [(server.fileno(), select.EPOLLIN | select.EPOLLRDHUP)]
    server.shutdown(socket.SHUT_WR)
    events = dict(ep.poll(5))[server.fileno()]
    assert events == select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP


def test_a_reset_is_an_error_and_a_hang_up(ep, pair):
    client, server = pair
    ep.register(client, 0)
    client.send(b"x")
    while not server.recv(1, socket.MSG_PEEK):
        pass
    server.close()
    events = dict(ep.poll(5))[client.fileno()]
    assert events == select.EPOLLERR | select.EPOLLHUP


def test_a_refused_connection_is_told_by_epoll(ep):
    with socket.socket() as sock:
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.connect(("127.0.0.1", 9))
        ep.register(sock, select.EPOLLOUT)
        assert ep.poll(5)[0][1] & (select.EPOLLERR | select.EPOLLHUP)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED


def test_rcvlowat_holds_epoll_back(ep, pair):
    client, server = pair
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 20)
    ep.register(server, select.EPOLLIN)
    client.sendall(b"a" * 10)
    assert ep.poll(0.01) == []
    client.sendall(b"a" * 10)
    assert ep.poll(5) == [(server.fileno(), select.EPOLLIN)]


def test_edges_are_told_once_and_one_shots_until_modified(ep, pair):
    client, server = pair
    ep.register(server, select.EPOLLIN | select.EPOLLET)
    ep.register(client, select.EPOLLOUT | select.EPOLLONESHOT)
    client.send(b"x")
    first = {server.fileno(): select.EPOLLIN, client.fileno(): select.EPOLLOUT}
    assert dict(ep.poll(5)) == first
    assert server.fileno() not in dict(ep.poll(0))
    assert client.fileno() not in dict(ep.poll(0))
    client.send(b"y")
    assert ep.poll(5) == [(server.fileno(), select.EPOLLIN)]
    ep.modify(client, select.EPOLLOUT | select.EPOLLONESHOT)
    assert ep.poll(5) == [(client.fileno(), select.EPOLLOUT)]


def test_a_sleeping_poll_is_woken_by_another_threads_bytes(ep, pair, calls):
    client, server = pair
    ep.register(server, select.EPOLLIN)
    poll = calls(ep.poll)
    client.send(b"x")
    assert poll.wait() == [(server.fileno(), select.EPOLLIN)]


def test_one_of_several_sleepers_is_woken_per_connection(ep, listener, calls):
    ep.register(listener, select.EPOLLIN | select.EPOLLET)
    polls = [calls(ep.poll) for _ in range(3)]
    for still_asleep in (2, 1, 0):
        with socket.create_connection(ADDRESS):
            while sum(poll.blocked for poll in polls) > still_asleep:
                threading.Event().wait(0.0005)
            assert sum(poll.blocked for poll in polls) == still_asleep
            listener.accept()[0].close()
    for poll in polls:
        assert poll.wait() == [(listener.fileno(), select.EPOLLIN)]


def test_the_timeout_is_in_seconds(ep):
    before = time.monotonic()
    assert ep.poll(0.02) == []
    assert 0.02 <= time.monotonic() - before < 10
    assert ep.poll(timeout=0) == []


def test_maxevents_bounds_the_list(ep, pair):
    client, server = pair
    ep.register(client, select.EPOLLOUT)
    ep.register(server, select.EPOLLOUT)
    assert len(ep.poll(5, maxevents=1)) == 1
    assert {fd for _ in range(2) for fd, _ in ep.poll(5, 1)} == {client.fileno(), server.fileno()}
    with pytest.raises(ValueError):
        ep.poll(0, 0)


def test_closing_a_socket_takes_it_out_but_a_duplicate_keeps_it_in(ep, pair):
    client, server = pair
    number = server.fileno()
    ep.register(server, select.EPOLLIN)
    copy = server.dup()
    server.close()
    client.send(b"x")
    assert ep.poll(5) == [(number, select.EPOLLIN)]
    copy.recv(1)
    copy.close()
    assert ep.poll(0) == []
    assert not ep._file.eventpoll.items


def test_an_epoll_watches_an_epoll(ep, pair):
    client, server = pair
    with ustack.epoll() as outer:
        ep.register(server, select.EPOLLIN)
        outer.register(ep, select.EPOLLIN)
        assert outer.poll(0) == []
        client.send(b"x")
        assert outer.poll(5) == [(ep.fileno(), select.EPOLLIN)]


def test_mistakes_are_answered_as_by_the_standard_module(ep, pair):
    client, server = pair
    ep.register(server)
    with pytest.raises(FileExistsError):
        ep.register(server)
    with pytest.raises(FileNotFoundError):
        ep.modify(client, select.EPOLLIN)
    with pytest.raises(FileNotFoundError):
        ep.unregister(client)
    with pytest.raises(TypeError):
        ep.register("socket")
    with pytest.raises(OSError) as caught:
        ep.register(999_999)
    assert caught.value.errno == errno.EBADF
    client.close()
    with pytest.raises(ValueError):
        ep.register(client)
    with pytest.raises(ValueError):
        ustack.epoll(0)


def test_a_closed_epoll_says_so():
    ep = ustack.epoll()
    assert not ep.closed
    ep.close()
    ep.close()
    assert ep.closed
    for call in (ep.fileno, lambda: ep.poll(0), lambda: ep.register(1)):
        with pytest.raises(ValueError, match="closed epoll"):
            call()
