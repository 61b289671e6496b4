"""The application of a differential script: one method a call, the same for both sides.

The sockets have ``ustack.inet.sockets.InetSocket``'s interface and never wait. A call's
result is a word or two: what it returned, or its errno's name.
"""

from __future__ import annotations

import errno
import socket
import struct
import zlib
from collections.abc import Callable
from typing import Any

from kit.segment import pattern

OPTIONS = {
    name: (level, getattr(socket, name, number))
    for level, names in {
        socket.SOL_SOCKET: {
            "SO_LINGER": 13, "SO_KEEPALIVE": 9, "SO_RCVBUF": 8, "SO_SNDBUF": 7, "SO_ERROR": 4,
            "SO_OOBINLINE": 10, "SO_RCVLOWAT": 18, "SO_REUSEADDR": 2, "SO_ACCEPTCONN": 30,
            "SO_MAX_PACING_RATE": 47,
        },
        socket.IPPROTO_TCP: {
            "TCP_NODELAY": 1, "TCP_MAXSEG": 2, "TCP_CORK": 3, "TCP_KEEPIDLE": 4,
            "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 6, "TCP_SYNCNT": 7, "TCP_LINGER2": 8,
            "TCP_DEFER_ACCEPT": 9, "TCP_WINDOW_CLAMP": 10, "TCP_QUICKACK": 12,
            "TCP_THIN_LINEAR_TIMEOUTS": 16, "TCP_THIN_DUPACK": 17, "TCP_USER_TIMEOUT": 18,
            "TCP_NOTSENT_LOWAT": 25, "TCP_RTO_MAX_MS": 44,
        },
    }.items()
    for name, number in names.items()
}  # fmt: skip
FLAGS = {
    "oob": socket.MSG_OOB, "more": socket.MSG_MORE, "peek": socket.MSG_PEEK,
    "trunc": socket.MSG_TRUNC,
}  # fmt: skip
HOW = {"r": socket.SHUT_RD, "w": socket.SHUT_WR, "rw": socket.SHUT_RDWR}


class App:
    """A program with at most one listener and the sockets it accepted or connected."""

    def __init__(self, new_socket: Callable[[], Any], port: int, peer: int, peer_port: int) -> None:
        self._new_socket = new_socket
        self._port = port
        self._peer = (peer, peer_port)
        self.listener: Any = None
        self.sockets: list[Any] = []
        self._sent: dict[int, int] = {}

    def call(self, text: str) -> str:
        """Do what the line says; return how it went."""
        word, *args = text.split()
        try:
            return str(getattr(self, f"call_{word}")(*args))
        except OSError as error:
            return errno.errorcode.get(error.errno or 0, str(error))

    @property
    def _one(self) -> Any:
        """The socket that calls are about: the last one accepted or connected."""
        if self.sockets:
            return self.sockets[-1]
        if self.listener is None:
            self.listener = self._new_socket()
        return self.listener

    def call_socket(self) -> str:
        """A socket of the connecting side, for options before connect()."""
        self.sockets.append(self._new_socket())
        return "ok"

    def call_bind(self) -> str:
        """Bind the current socket to the script's own port."""
        self._one.bind(0, self._port)
        return "ok"

    def call_listen(self, backlog: str = "8") -> str:
        """Listen on the script's port; a second call changes the length."""
        if self.listener is None:
            self.listener = self._new_socket()
        if not self.listener.getsockname()[1]:
            self.listener.bind(0, self._port)
        self.listener.listen(int(backlog))
        return "ok"

    def call_accept(self) -> str:
        """Take a connection; it is the one that later calls are about."""
        if self.listener is None:
            return "no listener"
        self.sockets.append(self.listener.accept())
        return "ok"

    def call_connect(self) -> str:
        """Connect to the peer, with a new socket unless there is one."""
        if not self.sockets:
            self.call_socket()
        self._one.connect(*self._peer)
        return "ok"

    def call_send(self, size: str, *flags: str) -> int:
        """Send the next bytes of the pattern."""
        one = self._one
        start = self._sent.get(id(one), 0)
        taken: int = one.send(pattern(start, int(size)), _flags(flags))
        self._sent[id(one)] = start + taken
        return taken

    def call_recv(self, size: str, *flags: str) -> str:
        """Receive; the bytes are told by length and checksum."""
        data: bytes = self._one.recv(int(size), _flags(flags))
        return f"{len(data)}:{zlib.crc32(data):08x}"

    def call_shutdown(self, how: str, which: str = "") -> str:
        """Shut down reading (r), writing (w) or both, of the listener with ``listener``."""
        (self.listener if which else self._one).shutdown(HOW[how])
        return "ok"

    def call_close(self, which: str = "") -> str:
        """Close the current socket, or the listener."""
        if which or not self.sockets:
            if self.listener is None:
                return "no listener"
            one, self.listener = self.listener, None
            one.close()
        else:
            self.sockets.pop().close()
        return "ok"

    def call_set(self, name: str, value: str) -> str:
        """Set an option; SO_LINGER takes "onoff,seconds"."""
        level, number = OPTIONS[name]
        packed: int | bytes = (
            struct.pack("ii", *map(int, value.split(","))) if "," in value else int(value)
        )
        self._one.setsockopt(level, number, packed)
        return "ok"

    def call_get(self, name: str) -> int:
        """Ask for an option."""
        value: int = self._one.getsockopt(*OPTIONS[name])
        return value

    def call_poll(self, which: str = "") -> str:
        """Ask what a poll for everything says."""
        return f"{(self.listener if which else self._one).poll():#x}"


def _flags(words: tuple[str, ...]) -> int:
    return sum(FLAGS[word] for word in words)
