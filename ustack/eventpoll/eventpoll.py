"""epoll, as fs/eventpoll.c does it: a ready list that the sockets themselves fill.

An ``EpItem`` hangs on its target's wait queue; when the target wakes (from the softirq),
``ep_poll_callback`` links the item to ``rdllist`` and wakes who sleeps in epoll_wait.
``collect`` walks only that list, so an event costs the same however many targets are
watched. A target is anything with ``poll()`` and ``wq``: a socket, or another EventPoll.
The edge waits (runtime), this only tells.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from errno import EBADF, EEXIST, EINVAL, ELOOP, ENOENT
from typing import Any, Protocol

from ustack.sock.wait import (
    EPOLLERR,
    EPOLLET,
    EPOLLEXCLUSIVE,
    EPOLLHUP,
    EPOLLIN,
    EPOLLONESHOT,
    EPOLLOUT,
    EPOLLRDNORM,
    WaitEntry,
    WaitQueue,
)

EPOLLWAKEUP = 1 << 29
EP_PRIVATE_BITS = EPOLLWAKEUP | EPOLLONESHOT | EPOLLET | EPOLLEXCLUSIVE
EPOLLEXCLUSIVE_OK_BITS = (
    EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLWAKEUP | EPOLLET | EPOLLEXCLUSIVE
)
EP_MAX_NESTS = 4
"""How deep an epoll may watch an epoll that watches an epoll (fs/eventpoll.c)."""


class Pollable(Protocol):
    """What can be watched."""

    @property
    def wq(self) -> WaitQueue:
        """Woken with the events that have come true."""

    @property
    def on_release(self) -> list[Callable[[Any], None]]:
        """Called when the last reference to it is gone."""

    def poll(self) -> int:
        """Return the EPOLL* events that are true now."""


class EpItem:
    """One watched target (struct epitem)."""

    __slots__ = ("entry", "ep", "events", "key", "linked", "target")

    def __init__(self, ep: EventPoll, key: Any, target: Pollable, events: int) -> None:
        self.ep = ep
        self.key = key
        self.target = target
        self.events = events
        self.linked = False
        """Whether it stands on rdllist."""
        self.entry = WaitEntry(self.ep_poll_callback, exclusive=bool(events & EPOLLEXCLUSIVE))

    def ep_poll_callback(self, events: int) -> bool:
        """The target woke us: become ready, wake a sleeper.

        Returns:
            Whether an exclusive wake-up is used up by this.
        """
        mine = self.events
        if not mine & ~EP_PRIVATE_BITS or (events and not events & mine):
            return False
        ep = self.ep
        if not self.linked:
            self.linked = True
            ep.rdllist.append(self)
        if not ep.wq.entries:
            return not mine & EPOLLEXCLUSIVE
        ep.wq.wake_up(EPOLLIN | EPOLLRDNORM)
        return not mine & EPOLLEXCLUSIVE or _uses_up(mine, events)

    def target_released(self, target: Pollable) -> None:
        """The target is closed for good (eventpoll_release_file): forget it."""
        self.ep.forget(self)

    def ready_events(self) -> int:
        """Return what is true of the target now and was asked for (ep_item_poll)."""
        return self.target.poll() & self.events


class EventPoll:
    """One epoll instance (struct eventpoll); every call returns at once."""

    def __init__(self) -> None:
        self.items: dict[tuple[Any, int], EpItem] = {}
        """By (key, identity of the target): Linux's tree is keyed by (file, descriptor)."""
        self.rdllist: deque[EpItem] = deque()
        self.wq = WaitQueue()
        """Who sleeps in epoll_wait, and epolls that watch this one."""
        self.on_release: list[Callable[[Any], None]] = []
        self.closed = False

    def add(self, key: Any, target: Pollable, events: int) -> None:
        """Watch ``target`` for ``events``, reported under ``key`` (EPOLL_CTL_ADD, ep_insert).

        Raises:
            FileExistsError: it is watched already under this key.
            OSError: EINVAL for events that EPOLLEXCLUSIVE does not go with, or for itself;
                ELOOP for epolls that watch each other or are nested too deep.
        """
        self._check_open()
        where = (key, id(target))
        if target is self:
            raise OSError(EINVAL, "Invalid argument")
        if events & EPOLLEXCLUSIVE and (
            events & ~EPOLLEXCLUSIVE_OK_BITS or isinstance(target, EventPoll)
        ):
            raise OSError(EINVAL, "Invalid argument")
        if where in self.items:
            raise FileExistsError(EEXIST, "File exists")
        if isinstance(target, EventPoll):
            self._check_loops(target)
        item = EpItem(self, key, target, events | EPOLLERR | EPOLLHUP)
        self.items[where] = item
        target.wq.add(item.entry)
        target.on_release.append(item.target_released)
        self._link_if_ready(item)

    def modify(self, key: Any, target: Pollable, events: int) -> None:
        """Watch for other events (EPOLL_CTL_MOD, ep_modify); re-arms a one-shot item.

        Raises:
            FileNotFoundError: it is not watched under this key.
            OSError: EINVAL when EPOLLEXCLUSIVE is or was asked for.
        """
        self._check_open()
        item = self._item(key, target)
        if (events | item.events) & EPOLLEXCLUSIVE:
            raise OSError(EINVAL, "Invalid argument")
        item.events = events | EPOLLERR | EPOLLHUP
        self._link_if_ready(item)

    def remove(self, key: Any, target: Pollable) -> None:
        """Watch no longer (EPOLL_CTL_DEL, ep_remove).

        Raises:
            FileNotFoundError: it is not watched under this key.
        """
        self._check_open()
        self.forget(self._item(key, target))

    def poll(self) -> int:
        """Return EPOLLIN when an event waits to be collected (ep_eventpoll_poll)."""
        for _ in range(len(self.rdllist)):
            item = self.rdllist[0]
            if item.ready_events():
                return EPOLLIN | EPOLLRDNORM
            self.rdllist.popleft()
            item.linked = False
        return 0

    def collect(self, maxevents: int) -> list[tuple[Any, int]]:
        """Return at most ``maxevents`` of (key, events), fairly (ep_send_events).

        A level-triggered item goes to the end of the ready list to be looked at again; an
        edge-triggered one leaves it until it is woken anew, a one-shot one until modify().
        """
        out: list[tuple[Any, int]] = []
        ready = self.rdllist
        for _ in range(len(ready)):
            if len(out) >= maxevents:
                break
            item = ready.popleft()
            item.linked = False
            asked = item.events
            revents = item.target.poll() & asked
            if not revents:
                continue
            out.append((item.key, revents))
            if asked & EPOLLONESHOT:
                item.events &= EP_PRIVATE_BITS
            elif not asked & EPOLLET:
                item.linked = True
                ready.append(item)
        if ready and self.wq.entries:
            self.wq.wake_up(EPOLLIN | EPOLLRDNORM)  # the next sleeper's turn
        return out

    def close(self) -> None:
        """Forget every target (ep_free); who sleeps finds it closed."""
        if self.closed:
            return
        for item in tuple(self.items.values()):
            self.forget(item)
        for released in tuple(self.on_release):
            released(self)
        self.closed = True
        self.wq.wake_up(EPOLLHUP)

    def watches(self, other: EventPoll) -> bool:
        """Whether ``other`` is among the targets, or among theirs."""
        return any(
            target is other or target.watches(other)
            for target in (item.target for item in self.items.values())
            if isinstance(target, EventPoll)
        )

    def depth(self) -> int:
        """Return how many epolls deep this one is: 1 if it watches only sockets."""
        inner = [i.target.depth() for i in self.items.values() if isinstance(i.target, EventPoll)]
        return 1 + max(inner, default=0)

    def _check_loops(self, target: EventPoll) -> None:
        if target.watches(self) or target.depth() >= EP_MAX_NESTS:
            raise OSError(ELOOP, "Too many levels of symbolic links")

    def _item(self, key: Any, target: Pollable) -> EpItem:
        item = self.items.get((key, id(target)))
        if item is None:
            raise FileNotFoundError(ENOENT, "No such file or directory")
        return item

    def forget(self, item: EpItem) -> None:
        """Take an item away (ep_remove)."""
        del self.items[item.key, id(item.target)]
        item.target.wq.remove(item.entry)
        del item.entry  # which has the item, too
        item.target.on_release.remove(item.target_released)
        item.events = 0  # if it stands on rdllist, collect() finds it not ready and lets go

    def _link_if_ready(self, item: EpItem) -> None:
        if not item.linked and item.ready_events():
            item.linked = True
            self.rdllist.append(item)
            if self.wq.entries:
                self.wq.wake_up(EPOLLIN | EPOLLRDNORM)

    def _check_open(self) -> None:
        if self.closed:
            raise OSError(EBADF, "Bad file descriptor")


def _uses_up(asked: int, events: int) -> bool:
    """Whether an exclusive item that asked for ``asked`` is served by ``events``.

    ep_poll_callback: an item that waits only to write does not swallow a wake-up for a
    reader, and a wake-up for both goes to all.
    """
    what = events & (EPOLLIN | EPOLLOUT)
    if what == EPOLLIN | EPOLLOUT:
        return False
    return not what or bool(asked & what)
