"""``ustack slabtop``: the caches of the arena in the layout of procps' slabtop.

Made from /proc/slabinfo, as the original is. Without -o the screen is painted again every few
seconds until Ctrl-C.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from ustack.cli.client import Client
from ustack.daemon.messages import CatRequest, LineRow
from ustack.native.slab import SlabInfo

CLEAR = "\x1b[H\x1b[J"
HEADER = "  OBJS ACTIVE  USE OBJ SIZE  SLABS OBJ/SLAB CACHE SIZE NAME                   "


ORDERS: dict[str, Callable[[SlabInfo], int]] = {
    "a": lambda cache: cache.active_objs,
    "b": lambda cache: cache.objperslab,
    "c": lambda cache: cache.size,
    "l": lambda cache: cache.num_slabs,
    "v": lambda cache: cache.active_slabs,
    "o": lambda cache: cache.num_objs,
    "p": lambda cache: cache.pagesperslab,
    "s": lambda cache: cache.objsize,
    "u": lambda cache: cache.use,
}
"""The criteria of -s, greatest first; ``n`` sorts by name."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare slabtop's arguments."""
    parser.add_argument("-o", "--once", action="store_true", help="print once and leave")
    parser.add_argument(
        "-d", "--delay", type=float, default=3.0, metavar="SECS", help="between two pictures (3)"
    )
    parser.add_argument(
        "-s", "--sort", default="o", choices=sorted([*ORDERS, "n"]), help="criterion (o: objects)"
    )


def run(args: argparse.Namespace, client: Client) -> int:
    """Print the picture, or one after the other."""
    while True:
        lines = client.rows(CatRequest("/proc/slabinfo"), LineRow)
        caches = sort_caches(parse_slabinfo(row.text for row in lines), args.sort)
        picture = "\n".join(format_slabtop(caches))
        if args.once:
            print(picture)
            return 0
        print(CLEAR + picture, flush=True)
        time.sleep(max(args.delay, 0.1))


def parse_slabinfo(lines: Iterable[str]) -> list[SlabInfo]:
    """Read /proc/slabinfo, version 2.1."""
    caches = []
    for line in lines:
        words = line.split()
        if line.startswith(("slabinfo", "#")) or len(words) < 16:
            continue
        caches.append(SlabInfo(words[0], *map(int, words[1:6]), *map(int, words[13:15])))
    return caches


def sort_caches(caches: Iterable[SlabInfo], criterion: str) -> list[SlabInfo]:
    """Sort as -s says."""
    if criterion == "n":
        return sorted(caches)
    return sorted(caches, key=ORDERS[criterion], reverse=True)


def format_slabtop(caches: Sequence[SlabInfo]) -> Iterator[str]:
    """Yield the lines of the picture."""
    yield _share("Objects", sum(c.active_objs for c in caches), sum(c.num_objs for c in caches))
    yield _share("Slabs", sum(c.active_slabs for c in caches), sum(c.num_slabs for c in caches))
    yield _share("Caches", sum(1 for c in caches if c.active_objs), len(caches))
    active = sum(c.active_objs * c.objsize for c in caches) / 1024
    total = sum(c.num_objs * c.objsize for c in caches) / 1024
    share = 100 * active / total if total else 0.0
    yield f" {'Active / Total Size (% used)':<34} : {active:.2f}K / {total:.2f}K ({share:.1f}%)"
    sizes = [c.objsize / 1024 for c in caches] or [0.0]
    objects = sum(c.num_objs for c in caches)
    three = (min(sizes), total / objects if objects else 0.0, max(sizes))
    figures = " / ".join([f"{size:.2f}K" for size in three])
    yield f" {'Minimum / Average / Maximum Object':<34} : {figures}"
    yield ""
    yield HEADER
    for c in caches:
        yield (
            f"{c.num_objs:6d} {c.active_objs:6d} {c.use:3d}% {c.objsize / 1024:7.2f}K "
            f"{c.num_slabs:6d} {c.objperslab:8d} {c.size // 1024:9d}K {c.name:<23}"
        )


def _share(what: str, active: int, total: int) -> str:
    percent = 100 * active / total if total else 0.0
    return f" {f'Active / Total {what} (% used)':<34} : {active} / {total} ({percent:.1f}%)"
