"""The arena: all memory that the NIC can reach, and the socket buffers and objects.

A buddy allocator (orders 0 to 10) hands out its pages; addresses are offsets into it
(``us_dma_addr_t``). Linux: alloc_pages(), get_page(), put_page(), /proc/buddyinfo.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt
from typing import Any

from ustack.native.lib import ffi, lib

PAGE_SIZE: int = lib.US_PAGE_SIZE
"""Bytes of a page."""
MAX_ORDER: int = lib.US_MAX_ORDER
"""The largest block is 2**MAX_ORDER pages."""
NO_PAGE: int = lib.US_NO_PAGE
"""The address that no page has."""
DMA_MAPPED: int = lib.US_DMA_MAPPED
"""The bit of addresses of memory that is not the arena's (``Mem.dma_map``)."""


def min_free_pages(arena_bytes: int) -> int:
    """Return how much of an arena is kept back, by Linux's rule (init_per_zone_wmark_min)."""
    return isqrt(16 * (arena_bytes >> 10)) * 1024 // PAGE_SIZE


class Mem:
    """One arena of ``size_bytes``, mapped lazily.

    The mapping lives as long as anything that was cut from ``view``: no slice can come
    to point at unmapped memory. Pointers from C (slab objects) are not counted and must
    not be used after ``close``.

    Raises:
        MemoryError: The address space or the bookkeeping cannot be had.
    """

    __slots__ = ("_mapping", "_on_close", "lent", "ptr", "view")

    def __init__(self, size_bytes: int) -> None:
        mem = lib.us_mem_create(size_bytes)
        if mem == ffi.NULL:
            raise MemoryError(f"no arena of {size_bytes} bytes")
        self.ptr: Any = mem
        self._mapping: Any = ffi.gc(lib.us_mem_base(mem), lambda _base: lib.us_mem_destroy(mem))
        self._on_close: list[Callable[[], None]] = []
        self.view = memoryview(ffi.buffer(self._mapping, lib.us_mem_size(mem))).cast("B")
        self.lent: dict[int, tuple[memoryview, Callable[[], None]]] = {}
        """Buffers that are sent from where they lie, by the number of their mapping."""

    def alloc_pages(self, order: int) -> int:
        """Return the address of 2**order pages, not zeroed, with one reference.

        Raises:
            MemoryError: No block of this order is free.
        """
        addr: int = lib.us_alloc_pages(self.ptr, order)
        if addr == NO_PAGE:
            raise MemoryError(f"no block of order {order}")
        return addr

    def get_page(self, addr: int) -> None:
        """Take a reference to the block that ``addr`` lies in.

        Raises:
            ValueError: There is no allocated block: a bug of the caller.
        """
        if lib.us_get_page(self.ptr, addr):
            raise ValueError(f"get_page of {addr:#x}, which is not allocated")

    def put_page(self, addr: int) -> None:
        """Drop a reference to the block that ``addr`` lies in; the last one frees it.

        Raises:
            ValueError: There is no allocated block: a bug of the caller.
        """
        if lib.us_put_page(self.ptr, addr):
            raise ValueError(f"put_page of {addr:#x}, which is not allocated")

    def dma_map(self, view: memoryview, released: Callable[[], None]) -> int:
        """Let the bytes of ``view`` be sent from where they lie.

        Args:
            view: contiguous bytes, not to be changed until ``released`` is called; the buffer
                cannot be resized or unmapped so long.
            released: called by ``reap_lent`` once nothing refers to them; must not raise.

        Returns:
            Their address, with one reference for ``put_page``.

        Raises:
            MemoryError: There are too many mappings, or no bytes.
        """
        with ffi.from_buffer(view) as pointer:  # kept, CPython 3.11's gc may crash (gh-77894)
            addr: int = lib.us_dma_map(self.ptr, pointer, view.nbytes)
        if addr == NO_PAGE:
            raise MemoryError("no mapping is left")
        self.lent[addr >> 32 & 0xFFFF] = (view, released)
        return addr

    def dma_unmap(self, addr: int) -> None:
        """Undo ``dma_map`` while nobody else refers to the bytes; ``released`` is not called."""
        number = addr >> 32 & 0xFFFF
        self.lent[number] = (self.lent[number][0], _nothing)
        self.put_page(addr)
        self.reap_lent()

    def reap_lent(self) -> None:
        """Give back the buffers that nothing refers to any more; called while any are lent."""
        while (number := lib.us_dma_unmapped(self.ptr)) >= 0:
            view, released = self.lent.pop(number)
            view.release()
            released()

    def read_at(self, addr: int, length: int) -> memoryview:
        """Return bytes of the arena or of a lent buffer; to be read only."""
        if addr & DMA_MAPPED:
            start = addr & 0xFFFFFFFF
            return self.lent[addr >> 32 & 0xFFFF][0][start : start + length]
        return self.view[addr : addr + length]

    @property
    def free_pages(self) -> int:
        """Pages that are not allocated; page 0 never is."""
        count: int = lib.us_mem_free_pages(self.ptr)
        return count

    @property
    def min_free(self) -> int:
        """Pages that byte queues leave free, and slabs half of them (min_free_kbytes).

        Rings, frames on their way and text that its reader has nothing else of may have them.
        """
        count: int = lib.us_mem_min_free(self.ptr)
        return count

    @min_free.setter
    def min_free(self, pages: int) -> None:
        lib.us_mem_set_min_free(self.ptr, pages)

    def buddyinfo(self) -> list[int]:
        """Return the number of free blocks of each order, as /proc/buddyinfo does."""
        counts = ffi.new("uint32_t[]", MAX_ORDER + 1)
        lib.us_mem_buddyinfo(self.ptr, counts)
        return list(counts)

    def keep_mapped(self, on_close: Callable[[], None]) -> object:
        """Return what keeps the arena mapped while it is held; ``close`` calls ``on_close``."""
        self._on_close.append(on_close)
        return self._mapping

    def close(self) -> None:
        """Give the arena back, as soon as no slice of ``view`` is left."""
        for on_close in self._on_close:
            on_close()
        self._on_close.clear()
        self.ptr = ffi.NULL
        self.view.release()
        self._mapping = None


def _nothing() -> None:
    """Whoever lent the bytes knows already."""
