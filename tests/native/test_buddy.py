"""The arena and its buddy: compared with a buddy in plain Python that knows only sets of blocks."""

from __future__ import annotations

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ustack.native.lib import lib
from ustack.native.mem import MAX_ORDER, NO_PAGE, PAGE_SIZE, Mem

PAGES = 300


class PlainBuddy:
    """Free blocks as sets of page numbers; which of several is taken, C decides."""

    def __init__(self, pages: int) -> None:
        self.free: list[set[int]] = [set() for _ in range(MAX_ORDER + 1)]
        self.pages = pages
        self.used: dict[int, int] = {}
        for page in range(1, pages):
            self.give(page, 0)

    def give(self, page: int, order: int) -> None:
        while order < MAX_ORDER and page ^ 1 << order in self.free[order]:
            self.free[order].remove(page ^ 1 << order)
            page &= ~(1 << order)
            order += 1
        self.free[order].add(page)

    def can_take(self, order: int) -> bool:
        return any(self.free[order:])

    def take(self, page: int, order: int) -> None:
        at = next(o for o in range(order, MAX_ORDER + 1) if self.free[o])
        block = page >> at << at
        self.free[at].remove(block)
        while at > order:
            at -= 1
            half = block + (1 << at)
            self.free[at].add(block if page >= half else half)
            block = half if page >= half else block
        assert block == page, "neither aligned nor the smallest block that fits"
        self.used[page] = order

    def counts(self) -> list[int]:
        return [len(blocks) for blocks in self.free]


@pytest.fixture
def mem():
    mem = Mem(PAGES * PAGE_SIZE)
    yield mem
    mem.close()


def test_allocations_fail_on_purpose_as_often_as_was_asked(mem):
    lib.us_mem_fail_alloc(mem.ptr, 2)
    free = mem.free_pages
    for left in (1, 0):
        with pytest.raises(MemoryError):
            mem.alloc_pages(0)
        assert lib.us_mem_fail_alloc_left(mem.ptr) == left
    assert mem.free_pages == free
    mem.put_page(mem.alloc_pages(0))


OPERATIONS = st.lists(
    st.tuples(st.booleans(), st.integers(0, MAX_ORDER), st.integers(0, 10_000)), max_size=60
)


@given(st.integers(2, PAGES), OPERATIONS)
def test_any_allocations_and_frees_split_and_merge_as_the_plain_buddy_does(pages, operations):
    mem = Mem(pages * PAGE_SIZE)
    plain = PlainBuddy(pages)
    first = mem.buddyinfo()
    assert first == plain.counts()
    for is_alloc, order, pick in operations:
        if is_alloc and plain.can_take(order):
            plain.take(mem.alloc_pages(order) // PAGE_SIZE, order)
        elif is_alloc:
            with pytest.raises(MemoryError):
                mem.alloc_pages(order)
        elif plain.used:
            page = sorted(plain.used)[pick % len(plain.used)]
            mem.put_page(page * PAGE_SIZE)
            plain.give(page, plain.used.pop(page))
        assert mem.buddyinfo() == plain.counts()
        assert mem.free_pages == sum(n << order for order, n in enumerate(plain.counts()))
    for page in list(plain.used):
        mem.put_page(page * PAGE_SIZE)
    assert mem.buddyinfo() == first
    mem.close()


def test_page_zero_is_never_handed_out(mem):
    addresses = [mem.alloc_pages(0) for _ in range(PAGES - 1)]
    assert sorted(addresses) == [page * PAGE_SIZE for page in range(1, PAGES)]
    assert NO_PAGE not in addresses
    with pytest.raises(MemoryError):
        mem.alloc_pages(0)


def test_a_block_is_freed_with_its_last_reference(mem):
    addr = mem.alloc_pages(2)
    mem.get_page(addr + 3 * PAGE_SIZE + 17)  # any address inside names the block
    mem.put_page(addr)
    assert mem.free_pages == PAGES - 1 - 4
    mem.put_page(addr + PAGE_SIZE)
    assert mem.free_pages == PAGES - 1


@pytest.mark.parametrize("addr", [0, 17, PAGE_SIZE, PAGES * PAGE_SIZE, 2**64 - 1])
def test_putting_what_nobody_holds_is_refused_and_changes_nothing(mem, addr):
    before = mem.buddyinfo()
    with pytest.raises(ValueError):
        mem.put_page(addr)
    with pytest.raises(ValueError):
        mem.get_page(addr)
    assert mem.buddyinfo() == before


def test_view_is_the_arena_itself(mem):
    assert (len(mem.view), mem.view.format, mem.view.readonly) == (PAGES * PAGE_SIZE, "B", False)
    mem.view[PAGE_SIZE : PAGE_SIZE + 5] = b"hello"
    assert bytes(mem.view[PAGE_SIZE : PAGE_SIZE + 6]) == b"hello\0"


def test_a_slice_outlives_the_arena():
    mem = Mem(PAGES * PAGE_SIZE)
    part = mem.view[PAGE_SIZE : 2 * PAGE_SIZE]
    part[:4] = b"data"
    mem.close()
    mem.close()
    del mem
    gc.collect()
    assert bytes(part[:4]) == b"data"


def test_an_arena_is_collected_with_what_is_lent_to_it():
    """CPython 3.11 crashes when it collects a memoryview that something has a buffer of."""
    view = memoryview(bytes(PAGE_SIZE))  # older than the arena, so it is cleared first
    mem = Mem(PAGES * PAGE_SIZE)
    mem.dma_map(view, lambda: None)
    mem._on_close.append(mem.close)
    del view, mem
    gc.collect()


@pytest.mark.parametrize("size_bytes", [0, PAGE_SIZE, 2**63])
def test_an_arena_of_impossible_size_is_refused(size_bytes):
    with pytest.raises(MemoryError):
        Mem(size_bytes)
