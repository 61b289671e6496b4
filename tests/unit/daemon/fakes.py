"""A loop, a transport and a stack for tests of the daemon: plain objects, no I/O, no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any


class FakeHandle:
    """What call_later returns."""

    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeLoop:
    """A loop whose time the test sets."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self._soon: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self._later: list[tuple[float, FakeHandle, Callable[..., Any], tuple[Any, ...]]] = []

    def time(self) -> float:
        return self.now_s

    def call_soon(self, callback: Callable[..., Any], *args: Any) -> None:
        self._soon.append((callback, args))

    def call_later(self, delay_s: float, callback: Callable[..., Any], *args: Any) -> FakeHandle:
        handle = FakeHandle()
        self._later.append((self.now_s + delay_s, handle, callback, args))
        return handle

    def run_soon(self) -> None:
        """Run everything that was put off, and what that puts off."""
        while self._soon:
            callback, args = self._soon.pop(0)
            callback(*args)

    def advance(self, seconds: float) -> None:
        """Let time pass; timers fire in order."""
        end = self.now_s + seconds
        while due := [timer for timer in self._later if timer[0] <= end]:
            timer = min(due, key=lambda entry: entry[0])
            self._later.remove(timer)
            self.now_s = max(self.now_s, timer[0])
            if not timer[1].cancelled:
                timer[2](*timer[3])
            self.run_soon()
        self.now_s = end


class FakeTransport:
    """Collects what a protocol writes; ``room`` bytes fit before it pauses the protocol."""

    def __init__(self, protocol: Any, room: int = 1 << 40) -> None:
        self.protocol = protocol
        self.room = room
        self.written = bytearray()
        self.reading = True
        self.eof = False
        self.closed = False
        self.aborted = False
        self.paused = False
        self.buffered = 0

    def write(self, data: bytes) -> None:
        assert not self.eof, "write after write_eof"
        if self.closed:
            return
        self.written += data
        self.room -= len(data)
        if self.room <= 0 and not self.paused:
            self.paused = True
            self.protocol.pause_writing()

    def make_room(self, size: int) -> None:
        """The peer has read ``size`` bytes."""
        self.room = size
        self.paused = False
        self.protocol.resume_writing()

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def write_eof(self) -> None:
        self.eof = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return self.buffered


def deliver(protocol: Any, data: bytes, size: int = 1 << 30) -> None:
    """Hand ``data`` to a buffered protocol, at most ``size`` bytes at a time."""
    while data:
        buffer = protocol.get_buffer(-1)
        piece = data[: min(size, len(buffer))]
        buffer[: len(piece)] = piece
        protocol.buffer_updated(len(piece))
        data = data[len(piece) :]


class FakeDevice:
    """As much of a NetDevice as the views read."""

    def __init__(self, name: str) -> None:
        self.name = name

    def ethtool_stats(self) -> dict[str, int]:
        return {"rx_packets": 3, "tx_packets": 4}


class FakeTable:
    """Counters by name."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def snapshot(self) -> dict[str, Any]:
        return self._values

    def nonzero(self) -> dict[str, Any]:
        return self._values


class FakeNet:
    """A net with devices, counters and packet taps."""

    def __init__(self) -> None:
        self.devices = {"lo": FakeDevice("lo"), "eth0": FakeDevice("eth0")}
        self.mib = FakeTable({"Ip": {"InReceives": 7}, "TcpExt": {"ListenDrops": 2}})
        self.drops = FakeTable({"NO_SOCKET": 5})
        self.taps: list[Callable[..., None]] = []
        self.mem = FakeMem()

    def dev_add_pack(self, ptype: int | None, func: Callable[..., None]) -> None:
        assert ptype is None
        self.taps.append(func)

    def dev_remove_pack(self, ptype: int | None, func: Callable[..., None]) -> None:
        assert ptype is None
        self.taps.remove(func)

    def pass_packet(self, data: bytes, dev: str = "eth0", outgoing: bool = False) -> None:
        """Let a packet go by the taps."""
        for tap in tuple(self.taps):
            tap(FakeSkb(data), self.devices[dev], outgoing)


class FakeMem:
    """An arena of known bytes."""

    def __init__(self) -> None:
        self.view = memoryview(bytes(range(256)) * 16)

    def read_at(self, addr: int, length: int) -> memoryview:
        return self.view[addr : addr + length]


class FakeSkb:
    """A packet: linear data and frags."""

    def __init__(self, data: bytes, frags: Iterable[tuple[int, int]] = ()) -> None:
        self.data = data
        self.frags = list(frags)

    def __len__(self) -> int:
        return len(self.data) + sum(size for _, size in self.frags)


class FakeTcp:
    """What ``ss`` asks."""

    def __init__(self, sockets: list[dict[str, Any]]) -> None:
        self.sockets = sockets

    def diag(self) -> list[dict[str, Any]]:
        return self.sockets


class FakeStack:
    """A stack with two devices and the sockets given."""

    def __init__(self, sockets: list[dict[str, Any]] | None = None) -> None:
        self.net = FakeNet()
        self.tcp = FakeTcp(sockets or [])
