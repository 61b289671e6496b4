"""Text that C moves to and from descriptors, two stacks on one wire in virtual time."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from kit.host import Host, two_hosts
from kit.transfer import connected
from ustack.config import NicConfig
from ustack.native.lib import lib
from ustack.sock.wait import EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP, WaitEntry
from ustack.tcp.joins import AT_ONCE, Joins

SO_SNDBUF = 7


class Joined:
    """A connection joined to one end of a pair, whose other end a client would have."""

    def __init__(
        self, hosts: tuple[Host, Host], near: Any, far: Any, is_offered: bool = False
    ) -> None:
        self.a, self.b = hosts
        self.near, self.far = near, far
        """The peer's socket, and ours that is joined."""
        self.epoll = select.epoll()
        self.joins = Joins(self.b.stack.tcp, self.epoll.fileno())
        self.ours, self.theirs = socket.socketpair()
        for end in (self.ours, self.theirs):
            end.setblocking(False)
        self.fd = self.ours.fileno()
        self.epoll.register(self.fd, select.EPOLLIN)
        self.told: list[int] = []
        far.wq.add(WaitEntry(self._tell))
        self.joins.join(far.handle, self.fd, is_offered)

    def _tell(self, events: int) -> bool:
        self.told.append(events)
        return True

    def close(self) -> None:
        self.joins.close()
        self.epoll.close()
        self.ours.close()
        self.theirs.close()

    def told_of(self, event: int) -> bool:
        return any(events & event for events in self.told)

    def fill(self) -> int:
        """Let the peer send until the pair takes no more; return how much the pair has."""
        while not self.told_of(EPOLLIN):
            self.near.send(bytes(20_000))
            self.a.settle()
            self.a.advance_us(50_000)
        return sum(map(len, self.read_all()))

    def read_all(self) -> list[bytes]:
        texts = []
        while True:
            try:
                texts.append(self.theirs.recv(1 << 20))
            except BlockingIOError:
                return texts


def two_ends() -> tuple[tuple[Host, Host], Any, Any]:
    hosts = two_hosts(nic=NicConfig())
    near, far = connected(*hosts)
    for one, other in (near, far), (far, near):  # until it is acknowledged, Python has it
        one.send(b"first")
        hosts[0].settle()
        hosts[0].advance_us(300_000)
        assert other.recv(10) == b"first"
    return hosts, near, far


@pytest.fixture
def joined() -> Iterator[Joined]:
    joined = Joined(*two_ends())
    yield joined
    joined.close()


@pytest.fixture
def accepted() -> Iterator[Joined]:
    """One that needs no object, offered to a client, as the next ones of a listener are."""
    hosts, near, far = two_ends()
    for end in connected(*hosts, port=2):
        end.close()
    hosts[0].settle()
    assert hosts[1].stack.tcp.parking.park(far._sk)
    accepted = Joined(hosts, near, far, is_offered=True)
    yield accepted
    accepted.close()


def test_what_a_client_closes_is_closed_behind_all_that_it_has_written(accepted):
    accepted.theirs.bind("")
    accepted.theirs.send(b"last words")
    accepted.theirs.close()
    ((fd, _, is_closed, *rest),) = accepted.joins.poll()
    assert (fd, is_closed, rest) == (accepted.fd, True, [0, b""])
    accepted.b.settle()
    assert accepted.near.recv(100) == b"last words" and accepted.near.recv(100) == b""
    assert accepted.far.handle not in accepted.b.stack.tcp.socks


def test_the_peers_end_and_the_clients_close_need_nobody_else(accepted):
    accepted.theirs.bind("")
    accepted.near.shutdown(socket.SHUT_WR)
    accepted.a.settle()
    assert accepted.theirs.recv(100) == b""
    accepted.theirs.close()
    assert [left[2] for left in accepted.joins.poll()] == [True]
    accepted.b.settle()
    assert accepted.near.recv(100) == b"" and accepted.told == []
    accepted.a.advance_us(100_000)
    assert not accepted.b.stack.tcp.fast.ptr.orphans


def test_what_nobody_has_accepted_is_left_to_the_caller(accepted):
    accepted.theirs.close()
    assert [left[1:4] for left in accepted.joins.poll()] == [(EPOLLIN | EPOLLHUP, False, 0)]
    assert accepted.far.established


def test_a_client_that_has_not_read_all_is_left_to_the_caller_with_the_error(accepted):
    accepted.theirs.bind("")
    accepted.near.send(b"unread")
    accepted.a.settle()
    accepted.theirs.close()
    assert [left[2:4] for left in accepted.joins.poll()] == [(False, errno.ECONNRESET)]
    assert accepted.b.stack.tcp.fast.ptr.orphans == 0


def test_what_comes_lies_in_the_descriptor_and_nobody_is_woken(joined):
    joined.near.send(b"hello")
    joined.a.settle()
    assert joined.theirs.recv(100) == b"hello"
    assert joined.told == []
    assert not joined.far.rcv_ready(1)


def test_what_the_client_writes_is_sent_and_nothing_is_left_to_do(joined):
    copied = joined.b.stack.tcp.copied_bytes
    joined.theirs.send(b"hello")
    assert joined.joins.poll() == []
    assert joined.joins.sent
    joined.b.settle()
    assert joined.near.recv(100) == b"hello"
    assert joined.b.stack.tcp.copied_bytes == copied + 5


def test_nothing_ready_is_nothing(joined):
    assert joined.joins.poll() is None
    assert not joined.joins.sent


def test_it_is_acknowledged_as_read_text_is(joined):
    for _ in range(50):
        joined.near.send(bytes(20_000))
        joined.a.settle()
        joined.a.advance_us(50_000)
        joined.read_all()
    assert joined.near.send_queue_empty()


def test_what_the_descriptor_does_not_take_stays_and_somebody_is_told(joined):
    joined.near.setsockopt(1, SO_SNDBUF, 1 << 20)
    got = joined.fill()
    assert got and joined.far.rcv_ready(1)


def test_a_full_descriptor_is_left_alone_until_it_is_said_to_take_more(joined):
    joined.near.setsockopt(1, SO_SNDBUF, 1 << 20)
    joined.fill()
    joined.joins.set_full(joined.fd, True)
    joined.told.clear()
    joined.near.send(b"more")
    joined.a.settle()
    assert joined.told == [] and joined.read_all() == []
    joined.joins.set_full(joined.fd, False)
    joined.near.send(b"and more")
    joined.a.settle()
    assert b"".join(joined.read_all()).endswith(b"moreand more")


def test_the_peers_end_is_told_behind_its_text(joined):
    joined.near.send(b"last")
    joined.near.shutdown(socket.SHUT_WR)
    joined.a.settle()
    assert joined.theirs.recv(100) == b"last"
    assert joined.theirs.recv(100) == b""
    assert joined.told == []
    assert joined.joins.unjoin(joined.fd)


def test_the_peers_end_is_told_to_the_caller_whose_descriptor_is_full(joined):
    joined.joins.set_full(joined.fd, True)
    joined.near.shutdown(socket.SHUT_WR)
    joined.a.settle()
    assert joined.told_of(EPOLLRDHUP)
    assert not joined.joins.unjoin(joined.fd)


def test_the_clients_end_is_left_to_the_caller(joined):
    joined.theirs.shutdown(socket.SHUT_WR)
    (left,) = joined.joins.poll()
    assert left[0] == joined.fd and left[1] & select.EPOLLIN and left[2:] == (False, 0, b"")


def test_a_client_that_is_gone_is_left_to_the_caller_with_what_it_has_written(joined):
    joined.theirs.send(b"last words")
    joined.theirs.close()
    (left,) = joined.joins.poll()
    assert left[0] == joined.fd and left[1] & select.EPOLLHUP
    assert joined.ours.recv(100) == b"last words"


def test_a_full_send_buffer_leaves_the_descriptor_to_the_caller(joined):
    while True:
        joined.theirs.send(bytes(60_000))
        left = joined.joins.poll()
        if left:
            break
    assert left == [(joined.fd, select.EPOLLIN, False, 0, b"")]
    assert not joined.far.poll() & EPOLLOUT


def test_text_without_memory_for_it_comes_back(joined):
    joined.theirs.send(b"x" * 5000)
    lib.us_mem_fail_alloc(joined.b.stack.net.mem.ptr, 100)
    (left,) = joined.joins.poll()
    lib.us_mem_fail_alloc(joined.b.stack.net.mem.ptr, 0)
    fd, events, is_closed, error, unsent = left
    assert (fd, events, is_closed, error) == (joined.fd, select.EPOLLIN, False, 0)
    joined.b.settle()
    assert len(unsent) and joined.near.rcv_ready(1) == (len(unsent) < 5000)
    with pytest.raises(BlockingIOError):
        joined.ours.recv(1)


def test_after_unjoin_everything_is_the_callers(joined):
    joined.joins.unjoin(joined.fd)
    joined.near.send(b"hello")
    joined.theirs.send(b"there")
    joined.a.settle()
    assert joined.told_of(EPOLLIN) and joined.far.recv(10) == b"hello"
    assert joined.joins.poll() == [(joined.fd, select.EPOLLIN, False, 0, b"")]


def test_a_connection_that_is_over_is_left_to_the_caller(joined):
    joined.near.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER, 0 s
    joined.near.close()
    joined.a.settle()
    joined.far.close()
    joined.theirs.send(b"too late")
    assert joined.joins.poll() == [(joined.fd, select.EPOLLIN, False, 0, b"")]


def test_other_descriptors_of_the_epoll_are_the_callers(joined):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        joined.epoll.register(ours, select.EPOLLIN | select.EPOLLOUT)
        assert joined.joins.poll() == [(ours.fileno(), select.EPOLLOUT, False, 0, b"")]


def test_more_descriptors_than_one_call_looks_at_come_with_the_next(joined):
    pairs = [socket.socketpair() for _ in range(AT_ONCE + 10)]
    for ours, theirs in pairs:
        joined.epoll.register(ours, select.EPOLLIN)
        theirs.send(b"x")
    first, second = joined.joins.poll(), joined.joins.poll()
    assert len(first) == AT_ONCE
    assert {left[0] for left in first + second} == {ours.fileno() for ours, _ in pairs}
    for pair in pairs:
        for end in pair:
            end.close()


def test_a_descriptor_that_nobody_reads_is_told_with_the_text_still_there(joined):
    joined.theirs.shutdown(socket.SHUT_RD)
    joined.near.send(b"hello")
    joined.a.settle()
    assert joined.told_of(EPOLLIN) and joined.far.recv(10) == b"hello"


def test_writes_of_several_clients_leave_when_all_have_been_read(joined):
    near, far = connected(joined.a, joined.b, port=2)
    near.send(b"first")
    joined.a.settle()
    joined.a.advance_us(300_000)
    far.recv(10)
    other = Joined((joined.a, joined.b), near, far)
    other.epoll.close()
    joined.joins.join(far.handle, other.fd)
    joined.epoll.register(other.fd, select.EPOLLIN)
    joined.theirs.send(b"one")
    other.theirs.send(b"two")
    assert joined.joins.poll() == []
    assert not joined.b.stack.tcp.fast.ptr.doorbell
    joined.b.settle()
    assert (joined.near.recv(10), near.recv(10)) == (b"one", b"two")
