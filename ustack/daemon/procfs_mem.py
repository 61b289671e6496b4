"""Files of /proc about memory as Linux 6 prints them: what the arena is cut into.

There is one node with one zone, Normal: the NIC reaches all of the arena. Pages have one
migrate type, Unmovable, because whoever holds a page knows it by its address. Only what there
is is shown: no page cache, no swap, no processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ustack.native.mem import MAX_ORDER, PAGE_SIZE

if TYPE_CHECKING:
    from ustack.stack import Stack

ZONE = "Normal"


def buddyinfo(stack: Stack) -> Iterator[str]:
    """Yield /proc/buddyinfo: free blocks of each order (frag_show_print)."""
    counts = stack.net.mem.buddyinfo()
    yield f"Node 0, zone {ZONE:>8} " + "".join([f"{count:6d} " for count in counts])


def pagetypeinfo(stack: Stack) -> Iterator[str]:
    """Yield /proc/pagetypeinfo: the same by migrate type, of which there is one."""
    mem = stack.net.mem
    yield f"Page block order: {MAX_ORDER}"
    yield f"Pages per block:  {1 << MAX_ORDER}"
    yield ""
    orders = "".join([f"{order:6d} " for order in range(MAX_ORDER + 1)])
    yield f"{'Free pages count per migrate type at order':<43} {orders}"
    counts = "".join([f"{count:6d} " for count in mem.buddyinfo()])
    yield f"Node {0:4d}, zone {ZONE:>8}, type {'Unmovable':>12} {counts}"
    yield ""
    yield f"{'Number of blocks type':<23}{'Unmovable':>12} "
    blocks = -(-_pages(stack) >> MAX_ORDER)
    yield f"Node {0}, zone {ZONE:>8} {blocks:12d} "


def zoneinfo(stack: Stack) -> Iterator[str]:
    """Yield /proc/zoneinfo (zoneinfo_show): sizes, marks and what the pages are used for.

    Byte queues leave ``min`` pages to others; ``low`` and ``high`` are a quarter and a half
    above, as in Linux, and nobody looks at them: there is no kswapd.
    """
    mem = stack.net.mem
    pages, least = _pages(stack), mem.min_free
    yield f"Node 0, zone {ZONE:>8}"
    yield "  per-node stats"
    yield f"      {'nr_slab_reclaimable':<12} 0"
    yield f"      {'nr_slab_unreclaimable':<12} {_slab_pages(stack)}"
    yield f"  pages free     {mem.free_pages}"
    for name, value in (
        ("min", least), ("low", least + least // 4), ("high", least + least // 2),
        ("spanned", pages), ("present", pages), ("managed", pages - 1),
    ):  # fmt: skip
        yield f"        {name:<8} {value}"
    yield f"      {'nr_free_pages':<12} {mem.free_pages}"
    yield "  start_pfn:           0"


def meminfo(stack: Stack) -> Iterator[str]:
    """Yield /proc/meminfo, those lines of it that mean something here (meminfo_proc_show)."""
    mem = stack.net.mem
    slab = _slab_pages(stack)
    for name, pages in (
        ("MemTotal", _pages(stack) - 1), ("MemFree", mem.free_pages),
        ("MemAvailable", max(mem.free_pages - mem.min_free, 0)),
        ("Slab", slab), ("SReclaimable", 0), ("SUnreclaim", slab),
    ):  # fmt: skip
        yield f"{name + ':':<16}{pages * PAGE_SIZE // 1024:8d} kB"


def slabinfo(stack: Stack) -> Iterator[str]:
    """Yield /proc/slabinfo (cache_show)."""
    yield "slabinfo - version: 2.1"
    yield (
        "# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab>"
        " : tunables <limit> <batchcount> <sharedfactor>"
        " : slabdata <active_slabs> <num_slabs> <sharedavail>"
    )
    for name, info in stack.memory_info().items():
        yield (
            f"{name:<17} {info.active_objs:6d} {info.num_objs:6d} {info.objsize:6d} "
            f"{info.objperslab:4d} {info.pagesperslab:4d} : tunables {0:4d} {0:4d} {0:4d}"
            f" : slabdata {info.active_slabs:6d} {info.num_slabs:6d} {0:6d}"
        )


def _pages(stack: Stack) -> int:
    """Pages of the arena, the first, which nobody gets, among them."""
    return len(stack.net.mem.view) // PAGE_SIZE


def _slab_pages(stack: Stack) -> int:
    return sum(info.num_slabs * info.pagesperslab for info in stack.memory_info().values())
