"""Wait queues: who wants to know that a socket has changed (include/linux/wait.h).

A socket calls ``wake_up`` with the poll events that have come true; entries decide what
waking means. The runtime's entries release a blocked thread, eventpoll's put an item on a
ready list, asyncio's schedule a callback. At most one exclusive entry is woken a time
(``__wake_up_common`` with nr_exclusive 1): no thundering herd in accept().
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

EPOLLIN = 0x001
EPOLLPRI = 0x002
EPOLLOUT = 0x004
EPOLLERR = 0x008
EPOLLHUP = 0x010
EPOLLRDNORM = 0x040
EPOLLWRNORM = 0x100
EPOLLWRBAND = 0x200
EPOLLRDHUP = 0x2000
EPOLLEXCLUSIVE = 1 << 28
EPOLLONESHOT = 1 << 30
EPOLLET = 1 << 31


class WaitEntry:
    """One waiter (struct wait_queue_entry)."""

    __slots__ = ("exclusive", "func")

    def __init__(self, func: Callable[[int], bool], *, exclusive: bool = False) -> None:
        self.func = func
        """Called with the events; returns whether it woke somebody (try_to_wake_up)."""
        self.exclusive = exclusive


class WaitQueue:
    """The waiters of one socket or one eventpoll: non-exclusive ones first."""

    __slots__ = ("entries",)

    def __init__(self) -> None:
        self.entries: list[WaitEntry] = []
        """In the order in which they are woken; to be looked at only."""

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[WaitEntry]:
        return iter(self.entries)

    def add(self, entry: WaitEntry) -> None:
        """Put ``entry`` on the queue; exclusive ones go to the tail (add_wait_queue)."""
        if entry.exclusive:
            self.entries.append(entry)
        else:
            self.entries.insert(0, entry)

    def remove(self, entry: WaitEntry) -> None:
        """Take ``entry`` off; nothing happens if it is not there (finish_wait)."""
        if entry in self.entries:
            self.entries.remove(entry)

    def remove_func(self, func: Callable[[int], bool]) -> None:
        """Take off the entries that call ``func``."""
        self.entries = [entry for entry in self.entries if entry.func != func]

    def wake_up(self, events: int) -> None:
        """Tell every non-exclusive waiter and one exclusive one that ``events`` came true."""
        entries = self.entries
        if len(entries) == 1:
            entries[0].func(events)
            return
        for entry in tuple(entries):
            if entry.func(events) and entry.exclusive:
                break
