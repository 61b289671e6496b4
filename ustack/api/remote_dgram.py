"""``ustack.socket.socket`` of datagrams when the stack is a running ustackd's.

The descriptor carries each datagram behind a header with its address (``ustack_proto.h``).
The first one to a destination goes through the control socket, whose answer is what sendto()
says; those after it are simply written, and an error that one of them meets is the next
call's.
"""

from __future__ import annotations

import errno
import os
import select
import socket as _socket
from collections.abc import Sequence
from typing import Any

from ustack.api import messages, protocol
from ustack.api.names import core_address
from ustack.api.protocol import (
    DATAGRAM,
    HAS_ERROR,
    HAS_MORE,
    IPPROTO_IP,
    Ancillary,
    DatagramHeader,
    pack_datagram,
    parse_datagram,
)
from ustack.api.remote import SOL_SOCKET, RemoteSocket
from ustack.inet.dgram import Message

MSG_PEEK, MSG_TRUNC, MSG_DONTWAIT = 0x2, 0x20, 0x40
MSG_WAITALL, MSG_ERRQUEUE, MSG_MORE = 0x100, 0x2000, 0x8000
MSG_OOB = int(_socket.MSG_OOB)
IP_RECVERR = 11
RECVERR_BYTES = 32
"""struct sock_extended_err and the offender's struct sockaddr_in."""
DATAGRAM_BYTES = 0xFFFF
KNOWN_MAX = 64
LENGTH_TO_ASK = 65000
"""Longer ones may be too long."""

CoreAddress = tuple[int, int]


class RemoteDgram(RemoteSocket):
    """A UDP, raw or ping socket of a daemon."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._known: set[CoreAddress | None] = set()
        """Destinations that a datagram could be sent to; None: the peer."""

    # Peers.

    def _attempt(self, address: CoreAddress) -> int:
        self._known.clear()
        error = super()._attempt(address)
        if not error:
            self._known.add(None)
        return error

    def disconnect(self) -> None:
        """Talk to anybody again."""
        self._known.clear()
        self._call(protocol.DISCONNECT)

    def accept(self) -> Any:
        """EOPNOTSUPP."""
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    def shutdown(self, how: int) -> None:
        """Close one direction or both, whoever else holds the socket."""
        self._call(protocol.SHUTDOWN, value=how)

    # Receiving.

    def receive(self, bufsize: int, flags: int) -> Message:
        """Wait for a datagram.

        Raises:
            OSError: TimeoutError, BlockingIOError; the error of an earlier datagram.
        """
        if flags & MSG_ERRQUEUE:
            return self._receive_error(bufsize)
        header, data = bytearray(DATAGRAM.size), bytearray(min(bufsize, DATAGRAM_BYTES))
        flags = (flags | MSG_TRUNC) & ~MSG_WAITALL
        while True:
            length = _socket.socket.recvmsg_into(self, [header, data], 0, flags)[0]
            if not length:
                self._check_end()
                return Message(b"", 0, None, [], 0)
            address, ancillary, has = parse_datagram(header)
            if not has & HAS_ERROR:
                break
            self._report_error(flags)
        length -= DATAGRAM.size
        cut = MSG_TRUNC if length > len(data) else 0
        return Message(bytes(data[:length]), length, address, list(ancillary), cut)

    def _report_error(self, flags: int) -> None:
        """There was an error; raise it unless somebody else has had it already."""
        error = self._pending_error()
        if error:
            raise OSError(error, os.strerror(error))
        if flags & MSG_PEEK:
            _socket.socket.recv(self, 0, MSG_DONTWAIT)  # the hint, which is stale

    def _receive_error(self, bufsize: int) -> Message:
        answer = self._call(protocol.RECVERR)
        value, data = answer.data[:RECVERR_BYTES], answer.data[RECVERR_BYTES:][:bufsize]
        flags = MSG_ERRQUEUE | (MSG_TRUNC if len(data) < answer.value else 0)
        ancillary = [(IPPROTO_IP, IP_RECVERR, value)]
        return Message(data, answer.value, (answer.addr, answer.port), ancillary, flags)

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """Receive a datagram, cut to ``bufsize`` bytes."""
        if bufsize < 0:
            raise ValueError("negative buffersize in recv")
        return self.receive(bufsize, flags).data

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """Receive a datagram into ``buffer``; return its length (with MSG_TRUNC, uncut)."""
        return self.recvfrom_into(buffer, nbytes, flags)[0]

    def recvfrom(self, bufsize: int, flags: int = 0) -> tuple[bytes, Any]:
        """Receive a datagram, and tell from whom."""
        if bufsize < 0:
            raise ValueError("negative buffersize in recvfrom")
        message = self.receive(bufsize, flags)
        return message.data, messages.origin(message)

    def recvfrom_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        """Receive a datagram into a buffer, and tell from whom."""
        return messages.recvfrom_into(self.receive, buffer, nbytes, flags)

    def recvmsg(self, bufsize: int, ancbufsize: int = 0, flags: int = 0) -> Any:
        """Receive with ancillary data: (data, ancillary data, flags, address)."""
        if bufsize < 0:
            raise ValueError("negative buffer size in recvmsg()")
        return messages.recvmsg(self.receive, bufsize, ancbufsize, flags)

    def recvmsg_into(self, buffers: Any, ancbufsize: int = 0, flags: int = 0) -> Any:
        """Receive into several buffers: (bytes, ancillary data, flags, address)."""
        return messages.recvmsg_into(self.receive, buffers, ancbufsize, flags)

    # Sending.

    def send(self, data: Any, flags: int = 0) -> int:
        """Send a datagram to the peer."""
        return self._send([messages.readable(data)], flags, None)

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send a datagram to the peer."""
        self.send(data, flags)

    def sendto(self, data: Any, *args: Any) -> int:
        """Send to an address: ``sendto(data, address)`` or ``sendto(data, flags, address)``."""
        if not 1 <= len(args) <= 2:
            raise TypeError(f"sendto() takes 2 or 3 arguments ({1 + len(args)} given)")
        flags = args[0] if len(args) > 1 else 0
        return self._send([messages.readable(data)], flags, core_address(args[-1], "sendto"))

    def sendmsg(self, buffers: Any, ancdata: Any = (), flags: int = 0, address: Any = None) -> int:
        """Send several pieces as one, with ancillary data (IP_PKTINFO, IP_TTL, IP_TOS)."""
        pieces = [messages.readable(buffer) for buffer in buffers]
        ancillary = [(int(level), int(kind), bytes(value)) for level, kind, value in ancdata]
        to = None if address is None else core_address(address, "sendmsg")
        return self._send(pieces, flags, to, _checked(ancillary))

    def _send(
        self,
        pieces: list[memoryview],
        flags: int,
        to: CoreAddress | None,
        ancillary: Sequence[Ancillary] = (),
    ) -> int:
        if flags & MSG_OOB:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        has = HAS_MORE if flags & MSG_MORE else 0
        header = pack_datagram(DatagramHeader(to, ancillary, has))
        length = sum(piece.nbytes for piece in pieces)
        if to in self._known and length <= LENGTH_TO_ASK and not self._error_waits():
            return super().sendmsg([header, *pieces], (), flags & MSG_DONTWAIT) - DATAGRAM.size
        return self._send_first(b"".join([header, *pieces]), to)

    def _send_first(self, message: bytes, to: CoreAddress | None) -> int:
        """Send, and hear how it went."""
        if len(message) > DATAGRAM_BYTES:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        self._known.discard(to)
        sent = self._call(protocol.SENDMSG, data=message).value
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        self._known.add(to)
        return sent

    def _error_waits(self) -> bool:
        """Whether what would be read next says that there is an error."""
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        if not poll.poll(0):
            return False
        try:
            header = _socket.socket.recv(self, DATAGRAM.size, MSG_PEEK | MSG_DONTWAIT)
        except OSError:
            return False
        return bool(header and parse_datagram(header).has & HAS_ERROR)


def _checked(ancillary: list[Ancillary]) -> list[Ancillary]:
    """Return what of it there is to send: IP's own.

    Raises:
        OSError: EINVAL, it is malformed or nobody's (ip_cmsg_send, sock_cmsg_send).
    """
    for level, kind, value in ancillary:
        malformed = level == IPPROTO_IP and len(value) not in SIZES.get(kind, ())
        if malformed or (level == SOL_SOCKET and kind not in messages.IGNORED_CMSGS):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return [entry for entry in ancillary if entry[0] == IPPROTO_IP]


SIZES = {protocol.IP_PKTINFO: (12,), protocol.IP_TTL: (4,), protocol.IP_TOS: (1, 4)}
"""How long ancillary data of a kind is."""
