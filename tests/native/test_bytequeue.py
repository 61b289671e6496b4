"""Byte queues: compared with a bytearray."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ustack.native.lib import ffi, lib
from ustack.native.mem import PAGE_SIZE, Mem

HEADER = 40
"""Bytes of a chunk that are not queued."""
PATTERN = bytes(range(251)) * 600
LENGTHS = st.integers(0, 300) | st.integers(0, 70_000) | st.sampled_from([4056, 4057, 65_496])


class Queue:
    """One queue in an arena of its own."""

    def __init__(self, pages: int = 128) -> None:
        self.mem = Mem(pages * PAGE_SIZE)
        self.bq = ffi.new("struct us_bq *")

    def append(self, data: bytes) -> int:
        return lib.us_bq_append(self.mem.ptr, self.bq, data, len(data))

    def peek(self, off: int, length: int) -> bytes:
        out = bytearray(length)
        count = lib.us_bq_peek(self.mem.ptr, self.bq, off, ffi.from_buffer(out), length)
        return bytes(out[:count])

    def read(self, length: int) -> bytes:
        out = bytearray(length)
        count = lib.us_bq_read(self.mem.ptr, self.bq, ffi.from_buffer(out), length)
        return bytes(out[:count])

    def drop(self, length: int) -> int:
        return lib.us_bq_drop(self.mem.ptr, self.bq, length)

    def frags(self, off: int, length: int, room: int = 40) -> list[tuple[int, int]] | int:
        frags = ffi.new("struct us_frag[]", room)
        count = lib.us_bq_frags(self.mem.ptr, self.bq, off, length, frags, room)
        return count if count < 0 else [(f.addr, f.len) for f in frags[0:count]]

    def bytes_of(self, frags: list[tuple[int, int]]) -> bytes:
        return b"".join(self.mem.read_at(addr, length) for addr, length in frags)

    def put(self, frags: list[tuple[int, int]]) -> None:
        for addr, _ in frags:
            self.mem.put_page(addr)


class AgainstBytearray(RuleBasedStateMachine):
    """Every operation gives what slicing a bytearray gives."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = Queue()
        self.first = self.queue.mem.buddyinfo()
        self.plain = bytearray()
        self.held: list[tuple[list[tuple[int, int]], bytes]] = []
        self.lent = self.returned = 0

    @rule(length=LENGTHS, shift=st.integers(0, 250))
    def append(self, length: int, shift: int) -> None:
        data = PATTERN[shift : shift + length]
        done = self.queue.append(data)
        assert done == length or self.queue.mem.free_pages == 0
        self.plain += data[:done]

    @rule(length=st.integers(1, 70_000), shift=st.integers(0, 250))
    def append_chunk(self, length: int, shift: int) -> None:
        queue = self.queue
        room = ffi.new("struct us_frag *")
        if lib.us_bq_alloc_chunk(queue.mem.ptr, length, room):
            assert queue.mem.free_pages == 0
            return
        data = PATTERN[shift : shift + min(length, room.len)]
        queue.mem.view[room.addr : room.addr + len(data)] = data
        assert not lib.us_bq_append_chunk(queue.mem.ptr, queue.bq, room.addr, len(data))
        self.plain += data

    @rule(
        order=st.integers(0, 4),
        skip=st.integers(HEADER, 80) | st.integers(0, 70_000),
        length=st.integers(0, 70_000),
        shift=st.integers(0, 250),
    )
    def append_block(self, order: int, skip: int, length: int, shift: int) -> None:
        mem = self.queue.mem
        block = lib.us_alloc_pages(mem.ptr, order)
        if not block:
            assert not any(mem.buddyinfo()[order:])
            return
        data = PATTERN[shift : shift + length]
        fits = skip >= HEADER and length and skip + length <= PAGE_SIZE << order
        if fits:
            mem.view[block + skip : block + skip + length] = data
            self.plain += data
        refused = lib.us_bq_append_block(mem.ptr, self.queue.bq, block, skip, length)
        assert bool(refused) == (not fits)
        if refused:
            mem.put_page(block)

    @rule(length=st.integers(1, 70_000), shift=st.integers(0, 250))
    def append_ref(self, length: int, shift: int) -> None:
        mem = self.queue.mem
        data = bytearray(PATTERN[shift : shift + length])
        addr = mem.dma_map(memoryview(data), self.back)
        if lib.us_bq_append_ref(mem.ptr, self.queue.bq, addr, length):
            assert mem.free_pages == 0
            mem.dma_unmap(addr)
            return
        self.lent += 1
        self.plain += data

    def back(self) -> None:
        self.returned += 1

    @rule()
    def reap(self) -> None:
        self.queue.mem.reap_lent()
        assert len(self.queue.mem.lent) == self.lent - self.returned

    @rule(length=LENGTHS)
    def read(self, length: int) -> None:
        assert self.queue.read(length) == self.plain[:length]
        del self.plain[:length]

    @rule(length=LENGTHS)
    def drop(self, length: int) -> None:
        assert self.queue.drop(length) == len(self.plain[:length])
        del self.plain[:length]

    @rule(off=LENGTHS, length=LENGTHS)
    def peek(self, off: int, length: int) -> None:
        assert self.queue.peek(off, length) == self.plain[off : off + length]

    @precondition(lambda self: self.plain and len(self.held) < 8)
    @rule(data=st.data())
    def frags(self, data: st.DataObject) -> None:
        off = data.draw(st.integers(0, len(self.plain)))
        length = data.draw(st.integers(0, min(len(self.plain) - off, 65_536)))
        frags = self.queue.frags(off, length)
        expected = bytes(self.plain[off : off + length])
        assert self.queue.bytes_of(frags) == expected
        self.held.append((frags, expected))

    @precondition(lambda self: self.held)
    @rule()
    def transmit_is_complete(self) -> None:
        frags, expected = self.held.pop(0)
        assert self.queue.bytes_of(frags) == expected
        self.queue.put(frags)

    @invariant()
    def owns_pages_only_while_it_holds_bytes(self) -> None:
        bq = self.queue.bq
        assert bq.len == len(self.plain)
        assert bq.truesize % PAGE_SIZE == 0
        assert (bq.truesize == 0) == (bq.len == 0)

    def teardown(self) -> None:
        lib.us_bq_purge(self.queue.mem.ptr, self.queue.bq)
        while self.held:
            self.transmit_is_complete()
        self.reap()
        assert self.lent == self.returned
        assert self.queue.mem.buddyinfo() == self.first
        assert (self.queue.bq.head, self.queue.bq.tail, self.queue.bq.truesize) == (0, 0, 0)


TestAgainstBytearray = pytest.mark.slow(AgainstBytearray.TestCase)
TestAgainstBytearray.settings = settings(max_examples=30, stateful_step_count=25)


def test_a_small_write_takes_one_page_and_a_large_one_a_large_chunk():
    queue = Queue()
    queue.append(b"x")
    assert queue.bq.truesize == PAGE_SIZE
    queue.drop(1)
    assert queue.bq.truesize == 0
    queue.append(bytes(65_000))
    assert queue.bq.truesize == 65_536


def test_what_the_nic_still_sends_stays_after_the_queue_let_go():
    queue = Queue()
    free = queue.mem.free_pages
    queue.append(b"acknowledged")
    frags = queue.frags(0, 12)
    queue.drop(12)
    queue.append(b"something else")
    assert queue.bytes_of(frags) == b"acknowledged"
    queue.drop(100)
    assert queue.mem.free_pages == free - 1
    queue.put(frags)
    assert queue.mem.free_pages == free


def test_too_little_room_for_frags_takes_no_reference():
    queue = Queue()
    for _ in range(5):
        queue.append(PATTERN[:4064])
    pieces = len(queue.frags(0, 5 * 4064))
    queue.put(queue.frags(0, 0))
    assert pieces > 1
    first = lib.us_page_refcount(queue.mem.ptr, queue.bq.head << 12)
    assert queue.frags(0, 5 * 4064, room=pieces - 1) == -1
    assert lib.us_page_refcount(queue.mem.ptr, queue.bq.head << 12) == first


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_frags_beyond_the_end_are_refused(off, length):
    queue = Queue(4)
    queue.append(b"0123456789")
    frags = queue.frags(off, length)
    assert (
        frags == -22
        if off + length > 10
        else queue.bytes_of(frags) == b"0123456789"[off : off + length]
    )


def test_a_full_arena_shortens_the_append():
    queue = Queue(4)
    assert (
        queue.append(PATTERN[:50_000]) == 3 * PAGE_SIZE - 2 * HEADER
    )  # an order-1 block and a page
    assert queue.append(b"more") == 0
    assert queue.read(50_000) == PATTERN[: 3 * PAGE_SIZE - 2 * HEADER]


@pytest.mark.parametrize("order", [0, 4])
def test_a_queue_falls_back_to_smaller_chunks(order):
    queue = Queue(64)
    held = []
    while queue.mem.free_pages > 8:
        held.append(
            queue.mem.alloc_pages(order) if queue.mem.free_pages > 32 else queue.mem.alloc_pages(0)
        )
    assert queue.append(bytes(20_000)) == 20_000
