"""Caches of fixed-size C objects, as /proc/slabinfo shows them.

``alloc`` returns a typed cffi pointer: ``tp.snd_nxt`` reads and writes the field itself.
Linux: kmem_cache_create(), kmem_cache_zalloc(), kmem_cache_free().
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ustack.native.lib import ffi, lib
from ustack.native.mem import PAGE_SIZE, Mem


class SlabInfo(NamedTuple):
    """One line of /proc/slabinfo; sizes in bytes."""

    name: str
    active_objs: int
    num_objs: int
    objsize: int
    objperslab: int
    pagesperslab: int
    active_slabs: int
    num_slabs: int

    @property
    def size(self) -> int:
        """Bytes of all its slabs."""
        return self.num_slabs * self.pagesperslab * PAGE_SIZE

    @property
    def use(self) -> int:
        """Percent of its objects that are in use."""
        return 100 * self.active_objs // self.num_objs if self.num_objs else 0


class KmemCache:
    """A cache of objects of the C type ``ctype``, for instance "struct us_tcp_sock".

    Closing the arena closes it, whatever is still in use.

    Raises:
        MemoryError: The cache's own bookkeeping cannot be had.
    """

    __slots__ = ("_cast", "_mapping", "_pointer", "name", "ptr")

    def __init__(self, mem: Mem, name: str, ctype: str) -> None:
        cache = lib.us_kmem_cache_create(mem.ptr, name.encode(), ffi.sizeof(ctype))
        if cache == ffi.NULL:
            raise MemoryError(f"no slab cache {name}")
        self.name = name
        self.ptr: Any = cache
        self._mapping = mem.keep_mapped(self._arena_closed)
        self._pointer = ffi.typeof(f"{ctype} *")
        self._cast = ffi.cast

    def alloc(self) -> Any:
        """Return a pointer to a new object, all zero. It does not keep the arena alive.

        Raises:
            MemoryError: The arena is full, or closed.
        """
        obj = lib.us_kmem_cache_zalloc(self.ptr)
        if not obj:
            raise MemoryError(f"slab cache {self.name}: no memory")
        return self._cast(self._pointer, obj)

    def free(self, obj: Any) -> None:
        """Give ``obj`` back.

        Raises:
            ValueError: It is not an object of this cache in use: a bug of the caller.
        """
        if lib.us_kmem_cache_free(self.ptr, obj):
            raise ValueError(f"slab cache {self.name}: {obj!r} is not in use")

    def info(self) -> SlabInfo:
        """Return the figures that /proc/slabinfo shows."""
        out = ffi.new("struct us_slabinfo *")
        lib.us_kmem_cache_info(self.ptr, out)
        return SlabInfo(
            self.name,
            out.active_objs,
            out.num_objs,
            out.objsize,
            out.objperslab,
            out.pagesperslab,
            out.active_slabs,
            out.num_slabs,
        )

    def shrink(self) -> int:
        """Give the empty slab back that is kept (kmem_cache_shrink); return its pages."""
        pages: int = lib.us_kmem_cache_shrink(self.ptr)
        return pages

    def close(self) -> None:
        """Destroy the cache; closing it again does nothing.

        Raises:
            ValueError: Objects are still in use: a bug of the caller.
        """
        if self.ptr != ffi.NULL and lib.us_kmem_cache_destroy(self.ptr):
            raise ValueError(f"slab cache {self.name}: objects are in use")
        self._arena_closed()

    def _arena_closed(self) -> None:
        self.ptr = ffi.NULL
        self._mapping = None
