"""Byte queues and descriptors: what one gives the other has, in order, once."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import pytest

from ustack.native.lib import ffi, lib
from ustack.native.mem import PAGE_SIZE, Mem

PATTERN = bytes(range(251)) * 4000


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        yield ours, theirs


class Queue:
    def __init__(self, pages: int = 512) -> None:
        self.mem = Mem(pages * PAGE_SIZE)
        self.bq = ffi.new("struct us_bq *")
        self.scratch = bytearray(100_000)

    def out(self, fd: int, length: int) -> int:
        return int(lib.us_bq_splice_out(self.mem.ptr, self.bq, fd, length))

    def take_in(self, fd: int, length: int) -> tuple[int, int]:
        taken = ffi.new("uint32_t *")
        scratch = ffi.from_buffer(self.scratch)
        got = lib.us_bq_splice_in(self.mem.ptr, self.bq, fd, scratch, length, taken)
        return int(got), taken[0]


def test_a_full_descriptor_takes_a_part_and_the_rest_stays(ends):
    ours, theirs = ends
    queue = Queue()
    for start in range(0, 600_000, 1000):  # many chunks
        piece = PATTERN[start : start + 1000]
        assert lib.us_bq_append(queue.mem.ptr, queue.bq, piece, 1000) == 1000
    received = b""
    while queue.bq.len:
        moved = queue.out(ours.fileno(), queue.bq.len)
        assert moved > 0 or moved == -errno.EAGAIN
        while True:
            try:
                received += theirs.recv(1 << 20)
            except BlockingIOError:
                break
    assert received == PATTERN[:600_000]
    assert queue.mem.free_pages == Queue().mem.free_pages


def test_a_queue_in_more_pieces_than_a_call_takes_goes_in_several(ends):
    ours, theirs = ends
    queue = Queue()
    for byte in PATTERN[:100]:
        room = ffi.new("struct us_frag *")
        assert lib.us_bq_alloc_chunk(queue.mem.ptr, 1, room) == 0
        ffi.buffer(ffi.from_buffer(queue.mem.view[room.addr : room.addr + 1]))[:] = bytes([byte])
        assert lib.us_bq_append_chunk(queue.mem.ptr, queue.bq, room.addr, 1) == 0
    while queue.bq.len:
        assert queue.out(ours.fileno(), queue.bq.len) > 0
    assert theirs.recv(200) == PATTERN[:100]


def test_nobody_reading_is_epipe_and_changes_nothing(ends):
    ours, theirs = ends
    queue = Queue()
    lib.us_bq_append(queue.mem.ptr, queue.bq, b"abc", 3)
    theirs.close()
    assert queue.out(ours.fileno(), 3) == -errno.EPIPE
    assert queue.bq.len == 3


def test_what_is_written_is_queued_and_the_end_is_told(ends):
    ours, theirs = ends
    queue = Queue()
    assert queue.take_in(ours.fileno(), 100) == (-errno.EAGAIN, 0)
    theirs.send(PATTERN[:5000])
    assert queue.take_in(ours.fileno(), 4000) == (4000, 4000)
    assert queue.take_in(ours.fileno(), 4000) == (1000, 1000)
    theirs.shutdown(socket.SHUT_WR)
    assert queue.take_in(ours.fileno(), 4000) == (0, 0)
    out = bytearray(5000)
    assert lib.us_bq_read(queue.mem.ptr, queue.bq, ffi.from_buffer(out), 5000) == 5000
    assert out == PATTERN[:5000]


def test_what_the_arena_has_no_room_for_stays_in_scratch(ends):
    ours, theirs = ends
    queue = Queue(pages=8)
    theirs.send(PATTERN[:60_000])
    got, taken = queue.take_in(ours.fileno(), 60_000)
    assert got == 60_000 and 0 < taken < got
    assert bytes(queue.scratch[taken:got]) == PATTERN[taken:got]
