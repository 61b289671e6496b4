"""A stack without a network: pairs of sockets joined by byte buffers, and a wire one can touch.

It keeps to what the edge uses of a Stack and an InetSocket, so that the runtimes, the socket
API and asyncio are tested apart from TCP. A byte written to ``wire`` stands for a packet: the
next poll calls what ``on_wire`` holds.
"""

from __future__ import annotations

import errno
import os
import select
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from ustack.lib.clock import StackClock
from ustack.sock.wait import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP, WaitQueue

MSG_PEEK = 2
BUFFER_BYTES = 4096


class FakeSocket:
    """One end of a connection, or a listener."""

    def __init__(self, stack: FakeStack) -> None:
        self.stack = stack
        self.wq = WaitQueue()
        self.on_release: list[Callable[[Any], None]] = []
        self.rcvlowat = 1
        self.peer: FakeSocket | None = None
        self.received = bytearray()
        self.accept_queue: deque[FakeSocket] = deque()
        self.listening = self.closed = self.fin = self.wr_shut = False
        self.connecting = False
        self.error = 0
        self.name = (0, 0)
        self.peername: tuple[int, int] | None = None
        self.options: dict[tuple[int, int], Any] = {}

    def bind(self, addr: int, port: int) -> None:
        """Take a port, a free one for 0."""
        port = port or self.stack.next_port()
        if (addr, port) in self.stack.listeners:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        self.name = (addr, port)

    def listen(self, backlog: int) -> None:
        """Be found by connect()."""
        self.listening = True
        self.stack.listeners[self.name] = self

    def accept(self) -> FakeSocket:
        """Take what connect() queued."""
        if not self.accept_queue:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return self.accept_queue.popleft()

    def connect(self, addr: int, port: int) -> None:
        """Begin, the next poll completes it; or report how it went."""
        if self.peername is not None:
            if self.connecting:
                raise BlockingIOError(errno.EALREADY, os.strerror(errno.EALREADY))
            if self.error:
                self.send(b"")
            return
        self.name = (addr, self.stack.next_port())
        self.peername = (addr, port)
        self.connecting = True
        self.stack.pending.append(self._complete_connect)
        raise BlockingIOError(errno.EINPROGRESS, os.strerror(errno.EINPROGRESS))

    def _complete_connect(self) -> None:
        assert self.peername is not None
        if self.peername[1] == self.stack.black_hole_port:
            return
        listeners = self.stack.listeners
        listener = listeners.get(self.peername) or listeners.get((0, self.peername[1]))
        self.connecting = False
        if listener is None:
            self.error = errno.ECONNREFUSED
            self.wq.wake_up(EPOLLERR | EPOLLHUP | EPOLLIN | EPOLLOUT)
            return
        child = FakeSocket(self.stack)
        child.name, child.peername = self.peername, self.name
        child.peer, self.peer = self, child
        listener.accept_queue.append(child)
        listener.wq.wake_up(EPOLLIN)
        self.wq.wake_up(EPOLLOUT)

    def send(self, data: Any, flags: int = 0) -> int:
        """Give the peer what its buffer holds."""
        if self.error:
            error, self.error = self.error, 0
            raise OSError(error, os.strerror(error))
        if self.wr_shut or self.peer is None or self.peer.closed:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        view = memoryview(data).cast("B")
        n = min(view.nbytes, BUFFER_BYTES - len(self.peer.received))
        if n <= 0 < view.nbytes:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        self.stack.deliver(self.peer, bytes(view[:n]))
        return n

    def recv(self, n: int, flags: int = 0) -> bytes:
        """Take what is there."""
        if not self.received:
            if self.error:
                error, self.error = self.error, 0
                raise OSError(error, os.strerror(error))
            if self.fin:
                return b""
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        data = bytes(self.received[:n])
        if not flags & MSG_PEEK:
            del self.received[:n]
            if self.peer is not None:
                self.peer.wq.wake_up(EPOLLOUT)
        return data

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """Take what is there."""
        view = memoryview(buffer).cast("B")
        data = self.recv(nbytes or view.nbytes, flags)
        view[: len(data)] = data
        return len(data)

    def rcv_ready(self, target: int) -> bool:
        """Whether a reader need not sleep."""
        return len(self.received) >= target or self.fin or bool(self.error)

    def poll(self) -> int:
        """What is true now."""
        if self.listening:
            return EPOLLIN if self.accept_queue else 0
        if self.connecting:
            return 0
        mask = EPOLLIN if self.rcv_ready(self.rcvlowat) else 0
        if self.error:
            mask |= EPOLLERR | EPOLLHUP | EPOLLOUT
        if self.fin:
            mask |= EPOLLRDHUP
        if self.peer is None:
            return mask | EPOLLHUP | EPOLLOUT
        return mask | (EPOLLOUT if len(self.peer.received) < BUFFER_BYTES else 0)

    def shutdown(self, how: int) -> None:
        """End one direction or both."""
        if self.peer is None:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        if how != 1:
            self.fin = True
            self.wq.wake_up(EPOLLIN | EPOLLRDHUP)
        if how != 0:
            self.wr_shut = True
            self.stack.deliver(self.peer, b"")

    def reset(self) -> None:
        """As if RST had come from the peer."""
        self.error = errno.ECONNRESET
        self.wq.wake_up(EPOLLIN | EPOLLERR | EPOLLHUP)

    def close(self) -> None:
        """End both directions."""
        assert not self.closed
        for released in tuple(self.on_release):
            released(self)
        self.closed = True
        if self.listening:
            del self.stack.listeners[self.name]
        if self.peer is not None and not self.wr_shut:
            self.stack.deliver(self.peer, b"")

    def getsockname(self) -> tuple[int, int]:
        """The local name."""
        return self.name

    def getpeername(self) -> tuple[int, int]:
        """The remote name."""
        if self.peername is None:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        return self.peername

    def setsockopt(self, level: int, opt: int, value: Any) -> None:
        """Keep an option."""
        self.options[level, opt] = value
        if (level, opt) == (1, 18):
            self.rcvlowat = value or 1

    def getsockopt(self, level: int, opt: int, buflen: int = 0) -> Any:
        """Return SO_ERROR or what was kept."""
        if (level, opt) == (1, 4):
            error, self.error = self.error, 0
            return error
        return self.options.get((level, opt), 0)


class FakeTcp:
    """What down() looks at."""

    def diag(self) -> list[dict[str, Any]]:
        """No connection outlives its socket."""
        return []


class FakeStack:
    """The part of Stack that the edge uses."""

    def __init__(self, now_us: int = 0, *, wires: int = 1) -> None:
        self.clock = StackClock(now_us)
        self.tcp = FakeTcp()
        self.net = SimpleNamespace(netdev_notifiers=[], busy_polled_us=0)
        self.listeners: dict[tuple[int, int], FakeSocket] = {}
        self.pending: deque[Callable[[], None]] = deque()
        self.timers: list[tuple[int, Callable[[], None]]] = []
        self.on_wire: deque[Callable[[], None]] = deque()
        self.black_hole_port = 9
        self.polls = 0
        self.closed = False
        self._port = 40000
        self._pipes = [os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) for _ in range(wires)]

    def next_port(self) -> int:
        """A port that nobody has."""
        self._port += 1
        return self._port

    def socket(self, type: int = 1, protocol: int = 0) -> FakeSocket:
        """A new socket."""
        return FakeSocket(self)

    def deliver(self, sock: FakeSocket, data: bytes) -> None:
        """Have the next poll hand ``data`` to ``sock``; b"" is a FIN."""

        def arrive() -> None:
            sock.received += data
            if data:
                sock.wq.wake_up(EPOLLIN)
            else:
                sock.fin = True
                sock.wq.wake_up(EPOLLIN | EPOLLRDHUP)

        self.pending.append(arrive)

    def packet(self, what: Callable[[], None], wire: int = 0) -> None:
        """Make a wire readable; the poll that reads it calls ``what`` (any thread)."""
        self.on_wire.append(what)
        os.write(self._pipes[wire][1], b"p")

    def deliver_text(self) -> None:
        """Nobody reads by being handed text."""

    def send_posted(self) -> None:
        """Nobody answers what he was handed."""

    def poll(self, now_us: int) -> bool:
        """Read the wires, run what is pending and due."""
        self.polls += 1
        for reader, _ in self._pipes:
            if select.select([reader], [], [], 0)[0]:
                for _ in os.read(reader, 64):
                    self.on_wire.popleft()()
        for _ in range(len(self.pending)):
            self.pending.popleft()()
        due = [fn for when, fn in self.timers if when <= now_us]
        self.timers = [(when, fn) for when, fn in self.timers if when > now_us]
        for fn in due:
            fn()
        return bool(self.pending)

    def busy_poll(self, looks: int, wakefd: int) -> bool | None:
        """Wait for a packet for some microseconds."""
        fds = [reader for reader, _ in self._pipes] + [wakefd] * (wakefd >= 0)
        ready = select.select(fds, [], [], looks / 2e6)[0]
        return True if [fd for fd in ready if fd != wakefd] else None

    @property
    def is_pending(self) -> bool:
        """Whether work is pending."""
        return bool(self.pending)

    def next_deadline_us(self) -> int | None:
        """0 when work is pending, else the first timer."""
        if self.pending:
            return 0
        return min((when for when, _ in self.timers), default=None)

    def filenos(self) -> list[int]:
        """The wires' readable ends."""
        return [] if self.closed else [reader for reader, _ in self._pipes]

    def close(self) -> None:
        """Close the wires."""
        if not self.closed:
            self.closed = True
            for pair in self._pipes:
                for fd in pair:
                    os.close(fd)
