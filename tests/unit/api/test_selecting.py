"""select, poll and epoll over the stack's sockets and the kernel's descriptors together."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator

import pytest

import ustack
from ustack import select


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe's reading and writing ends."""
    ends = os.pipe()
    yield ends
    for fd in ends:
        try:
            os.close(fd)
        except OSError:
            continue


def later(function, *args) -> None:
    threading.Timer(0.02, function, args).start()


def test_select_finds_both_kinds_and_returns_the_objects(udp, pipe):
    reader, writer = pipe
    assert select.select([udp, reader], [], [], 0) == ([], [], [])
    assert select.select([udp], [udp, writer], [], 0) == ([], [udp, writer], [])
    os.write(writer, b"x")
    assert select.select([udp, reader], [], [], 60) == ([reader], [], [])
    udp.sendto(b"x", udp.getsockname())
    assert select.select([reader, udp], [], [], 60) == ([reader, udp], [], [])


def test_select_waits_for_either(udp, pipe):
    reader, writer = pipe
    later(os.write, writer, b"x")
    assert select.select([udp, reader], [], []) == ([reader], [], [])
    os.read(reader, 1)
    later(udp.sendto, b"x", udp.getsockname())
    assert select.select([udp, reader], [], []) == ([udp], [], [])


def test_select_of_the_kernels_own_is_the_kernels(pipe):
    reader, writer = pipe
    assert select.select([reader], [writer], [], 0) == ([], [writer], [])
    with pytest.raises(ValueError, match="out of range"):
        select.select([5000], [], [], 0)


def test_what_is_closed_is_a_bad_descriptor(udp, pipe):
    os.close(pipe[0])
    for gone in (pipe[0], 1 << 25):
        with pytest.raises(OSError) as caught:
            select.select([udp, gone], [], [], 0)
        assert caught.value.errno == errno.EBADF
    asked = select.poll()
    asked.register(udp, select.POLLOUT)
    asked.register(pipe[0])
    assert asked.poll() == [(pipe[0], select.POLLNVAL), (udp.fileno(), select.POLLOUT)]


def test_poll_waits_changes_its_mind_and_forgets(udp, pipe):
    reader, writer = pipe
    asked = select.poll()
    asked.register(udp, select.POLLIN)
    asked.register(reader, select.POLLIN)
    assert asked.poll(1) == []
    later(os.write, writer, b"x")
    assert asked.poll() == [(reader, select.POLLIN)]
    asked.unregister(reader)
    asked.modify(udp, select.POLLOUT)
    assert asked.poll(0) == [(udp.fileno(), select.POLLOUT)]
    with pytest.raises(KeyError):
        asked.unregister(reader)
    with pytest.raises(FileNotFoundError):
        asked.modify(reader, 0)


def test_an_ordinary_file_is_always_ready(udp, tmp_path):
    with (tmp_path / "file").open("w") as file:
        assert select.select([udp, file], [file], [], 60) == ([file], [file], [])
        with ustack.epoll() as epoll, pytest.raises(PermissionError):
            epoll.register(file)


def test_epoll_is_level_triggered_for_a_pipe_too(udp, pipe):
    reader, writer = pipe
    with ustack.epoll() as epoll:
        epoll.register(udp, select.EPOLLIN)
        epoll.register(reader, select.EPOLLIN)
        later(os.write, writer, b"xy")
        for _ in range(2):
            assert epoll.poll(60) == [(reader, select.EPOLLIN)]
            os.read(reader, 1)
        assert epoll.poll(0) == []


def test_epoll_edge_and_one_shot_for_a_pipe(pipe):
    reader, writer = pipe
    with ustack.epoll() as epoll:
        epoll.register(reader, select.EPOLLIN | select.EPOLLET)
        os.write(writer, b"x")
        assert [len(epoll.poll(0)), len(epoll.poll(0))] == [1, 0]
        epoll.modify(reader, select.EPOLLIN | select.EPOLLONESHOT)
        assert [len(epoll.poll(0)), len(epoll.poll(0))] == [1, 0]


def test_epoll_forgets_a_number_that_was_closed_and_given_out_again(pipe):
    reader, _ = pipe
    with ustack.epoll() as epoll:
        epoll.register(reader, select.EPOLLIN)
        with pytest.raises(FileExistsError):
            epoll.register(reader, select.EPOLLIN)
        os.close(reader)
        with pytest.raises(OSError, match="Bad file descriptor"):
            epoll.unregister(reader)
        other, writer = os.pipe()
        try:
            assert other == reader
            epoll.register(other, select.EPOLLIN)
            os.write(writer, b"x")
            assert epoll.poll(60) == [(other, select.EPOLLIN)]
        finally:
            os.close(writer)


def test_two_epolls_watch_one_pipe(pipe):
    reader, writer = pipe
    with ustack.epoll() as one, ustack.epoll() as other:
        one.register(reader, select.EPOLLIN)
        other.register(reader, select.EPOLLIN)
        one.unregister(reader)
        os.write(writer, b"x")
        assert (one.poll(0), other.poll(60)) == ([], [(reader, select.EPOLLIN)])
        with pytest.raises(FileNotFoundError):
            one.unregister(reader)


def test_epoll_fromfd_takes_a_number_over():
    made = ustack.epoll()
    same = ustack.epoll.fromfd(made.fileno())
    same.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        made.poll(0)
    made.close()
    assert made.closed
