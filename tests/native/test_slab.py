"""Slab caches: every object its own, zeroed, and given back to the buddy when it can be."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ustack.native.lib import ffi, lib
from ustack.native.mem import PAGE_SIZE, Mem
from ustack.native.slab import KmemCache

CTYPE = "struct us_tcp_sock"


@pytest.fixture
def mem():
    mem = Mem(64 * PAGE_SIZE)
    yield mem
    mem.close()


def address(obj) -> int:
    return int(ffi.cast("uintptr_t", obj))


@given(st.lists(st.integers(-40, 40), max_size=120))
def test_objects_in_use_are_disjoint_zeroed_and_counted(picks):
    mem = Mem(64 * PAGE_SIZE)
    first = mem.buddyinfo()
    cache = KmemCache(mem, "TCP", CTYPE)
    live: dict[int, object] = {}
    for pick in picks:
        if pick >= 0 or not live:
            obj = cache.alloc()
            assert address(obj) not in live
            assert not any(bytes(ffi.buffer(obj)))
            ffi.memmove(obj, b"\xff" * ffi.sizeof(CTYPE), ffi.sizeof(CTYPE))
            live[address(obj)] = obj
        else:
            cache.free(live.pop(sorted(live)[pick % len(live)]))
        assert cache.info().active_objs == len(live)
    ordered = sorted(live)
    size = ffi.sizeof(CTYPE)
    assert all(b - a >= size for a, b in pairwise(ordered))
    for obj in live.values():
        cache.free(obj)
    cache.close()
    assert mem.buddyinfo() == first
    mem.close()


def test_fields_are_read_and_written_in_place(mem):
    tp = KmemCache(mem, "TCP", CTYPE).alloc()
    tp.snd_nxt = 2**32 - 1
    tp.receive_queue.len = 7
    assert (tp.snd_nxt, tp.receive_queue.len, tp.rcv_nxt) == (2**32 - 1, 7, 0)
    with pytest.raises(OverflowError):
        tp.snd_nxt = 2**32


def test_large_objects_begin_on_a_cache_line(mem):
    cache = KmemCache(mem, "TCP", CTYPE)
    assert {address(cache.alloc()) % 64 for _ in range(30)} == {0}


def test_one_empty_slab_is_kept_and_the_others_go_back(mem):
    cache = KmemCache(mem, "TCP", CTYPE)
    objs = [cache.alloc() for _ in range(3 * cache.info().objperslab)]
    assert (cache.info().active_slabs, cache.info().num_slabs) == (3, 3)
    for obj in objs:
        cache.free(obj)
    assert (cache.info().active_slabs, cache.info().num_slabs) == (0, 1)
    free = mem.free_pages
    cache.free(cache.alloc())
    assert mem.free_pages == free
    cache.close()
    assert mem.free_pages == 63


def test_freeing_twice_or_elsewhere_is_refused(mem):
    cache = KmemCache(mem, "TCP", CTYPE)
    other = KmemCache(mem, "request_sock_TCP", "struct us_request_sock")
    tp = cache.alloc()
    for wrong in (other.alloc(), ffi.NULL, ffi.cast("char *", tp) + 8):
        with pytest.raises(ValueError):
            cache.free(wrong)
    cache.free(tp)
    with pytest.raises(ValueError):
        cache.free(tp)
    assert cache.info().active_objs == 0


def test_a_full_arena_is_a_memory_error_and_an_object_freed_cures_it(mem):
    cache = KmemCache(mem, "TCP", CTYPE)
    objs = []
    with pytest.raises(MemoryError):
        while True:
            objs.append(cache.alloc())
    assert len(objs) == cache.info().num_objs
    cache.free(objs.pop())
    cache.alloc()


def test_a_cache_in_use_cannot_be_closed_but_goes_with_its_arena():
    mem = Mem(64 * PAGE_SIZE)
    cache = KmemCache(mem, "TCP", CTYPE)
    tp = cache.alloc()
    with pytest.raises(ValueError):
        cache.close()
    mem.close()
    with pytest.raises(MemoryError):
        cache.alloc()
    with pytest.raises(ValueError):
        cache.free(tp)
    cache.close()


def test_a_page_of_a_slab_cannot_be_put(mem):
    cache = KmemCache(mem, "TCP", CTYPE)
    addr = address(cache.alloc()) - address(lib.us_mem_base(mem.ptr))
    with pytest.raises(ValueError):
        mem.put_page(addr)
