"""Bytes through a connection in virtual time: an application that reads and writes when it can."""

from __future__ import annotations

import contextlib
import hashlib
import random
from typing import Any

from kit.host import Host
from ustack.sock.wait import WaitEntry


class Transfer:
    """Sends ``total`` bytes of a seeded stream from one socket to another, then shuts down.

    It moves whenever the world comes to rest, as an application on a non-blocking socket.
    """

    def __init__(
        self, source: Any, sink: Any, total: int, *, seed: int = 0, chunk: int = 65536,
        read: int = 65536, finish: bool = True,
    ) -> None:  # fmt: skip
        self.source, self.sink = source, sink
        self.total = total
        self.sent = 0
        self.received = 0
        self.finished = False
        """The sink has seen the end of the stream."""
        self._finish = finish
        self._shut = False
        self._chunk, self._read = chunk, read
        self._data = memoryview(random.Random(seed).randbytes(min(total, 1 << 20)))
        self._want, self._have = hashlib.sha256(), hashlib.sha256()

    @property
    def equal(self) -> bool:
        """Whether what arrived is what was sent, all of it."""
        same = self._want.digest() == self._have.digest()
        return same and self.sent == self.received == self.total

    def next_deadline_us(self) -> int | None:
        """It waits for its sockets alone."""
        return None

    def pump(self, now_us: int) -> bool:
        """Write what the send buffer takes, read what is there; return whether bytes moved."""
        del now_us
        moved = self._write()
        return self._drain() or moved

    def _write(self) -> bool:
        moved = False
        while self.sent < self.total:
            at = self.sent % len(self._data)
            piece = self._data[at : at + min(self._chunk, self.total - self.sent)]
            try:
                taken = self.source.send(piece)
            except BlockingIOError:
                return moved
            self._want.update(piece[:taken])
            self.sent += taken
            moved = True
        if self._finish and not self._shut:
            self.source.shutdown(1)
            self._shut = moved = True
        return moved

    def _drain(self) -> bool:
        moved = False
        while not self.finished and self.received < self.total + 1:
            try:
                data = self.sink.recv(self._read)
            except BlockingIOError:
                return moved
            moved = True
            if not data:
                self.finished = True
                break
            self._have.update(data)
            self.received += len(data)
        return moved


class Flow:
    """Zeros without end: both ends block, and go on when they are woken."""

    def __init__(self, source: Any, sink: Any) -> None:
        self.source, self.sink = source, sink
        self.received = 0
        self._woken = True
        self._zeros, self._buffer = bytes(1 << 18), bytearray(1 << 18)
        for end in (source, sink):
            end.wq.add(WaitEntry(self._wake))

    def _wake(self, events: int) -> bool:
        del events
        self._woken = True
        return True

    def next_deadline_us(self) -> int | None:
        """It waits for its sockets alone."""
        return None

    def pump(self, now_us: int) -> bool:
        """Write and read, if woken, until neither goes on."""
        del now_us
        if not self._woken:
            return False
        self._woken = False
        with contextlib.suppress(BlockingIOError):
            while True:
                self.source.send(self._zeros)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.received += self.sink.recv_into(self._buffer)
        return True


def connected(client: Host, server: Host, port: int = 80) -> tuple[Any, Any]:
    """Return both ends of a connection between two hosts, established."""
    lsk = server.listen(port)
    near = client.connect(server.addr, port)
    accepted: list[Any] = []

    def done() -> bool:
        try:
            accepted.append(lsk.accept())
        except BlockingIOError:
            return False
        return True

    assert client.world.run_until(done), "the handshake did not finish in a minute"
    return near, accepted[0]
