"""A client's descriptor joined to a datagram socket: UDP, raw, ping.

The pair keeps boundaries (SOCK_SEQPACKET); each message is a datagram behind a header that
says from whom or to whom it is. What lies in the pair counts against SO_RCVBUF, so that a
client that does not read loses datagrams where Linux's would. A pending error is told by a
hint among the datagrams; it stays with the socket until the client asks for it.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Any

from ustack.api.protocol import (
    DATAGRAM,
    ERROR_HINT,
    HAS_MORE,
    Answer,
    DatagramHeader,
    pack_datagram,
    parse_datagram,
)
from ustack.daemon.client_end import HUP, IN, OUT, ClientEnd, outq
from ustack.sock.dgram import skb_truesize
from ustack.sock.sock import SHUTDOWN_MASK

if TYPE_CHECKING:
    from ustack.daemon.join_hub import JoinHub
    from ustack.daemon.limits import Owner
    from ustack.inet.dgram import Message

PAIR_SNDBUF = 40_000
"""Doubled by the kernel: room for the largest datagram, and not for much more than that."""
DATAGRAM_BYTES = 0xFFFF
DATAGRAMS_PER_TURN = 64
AT_ONCE = int(socket.MSG_DONTWAIT) | int(socket.MSG_NOSIGNAL)
MSG_DONTWAIT, MSG_ERRQUEUE, MSG_MORE = 0x40, 0x2000, 0x8000
ERROR_DATA_BYTES = 1024


class DgramJoin(ClientEnd):
    """One datagram socket of a client."""

    __slots__ = ("_hinted", "_shut", "_unsent")

    def __init__(self, hub: JoinHub, core: Any, fd: int, inode: int, owner: Owner) -> None:
        super().__init__(hub, core, fd, inode, owner)
        self._hinted = False
        """The client has been told that there is an error."""
        self._shut = 0
        """Which ways are shut: RCV_SHUTDOWN, SEND_SHUTDOWN."""
        self._unsent: Message | None = None
        """Received from the socket when the pair was full."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PAIR_SNDBUF)
        core.count_ahead(self._in_hand)

    def begin(self) -> None:
        """Take what the client writes from now on."""
        self._watch(IN)

    # What the client asks for.

    def connect(self, addr: int, port: int, client_end: int) -> None:
        """Talk to one peer, once all is sent that was written before."""
        self._drain()
        self.core.connect(addr, port)

    def disconnect(self) -> None:
        """Talk to anybody again."""
        self._drain()
        self.core.disconnect()

    def send_datagram(self, message: memoryview) -> int:
        """Send a datagram behind its header, after all that was written before.

        Raises:
            OSError: as the socket's ``sendmsg``; an error that is pending.
        """
        self._drain()
        return self._send(message)

    def receive_error(self) -> Answer:
        """Return an entry of the error queue: IP_RECVERR's value, then the datagram's start.

        Raises:
            BlockingIOError: it is empty.
        """
        message = self.core.recvmsg(ERROR_DATA_BYTES, MSG_ERRQUEUE | MSG_DONTWAIT)
        ((_, _, value),) = message.ancillary
        addr, port = message.address
        return Answer(message.length, addr, port, value + message.data)

    def shutdown(self, how: int, client_end: int) -> bool:
        """Shut down as ``DgramSocket.shutdown``; readers find the end, writers EPIPE."""
        self._drain()
        self._shut |= how + 1
        try:
            self.core.shutdown(how)
        finally:
            if how in (socket.SHUT_RD, socket.SHUT_RDWR):
                self._to_client()
                self._sock.shutdown(socket.SHUT_WR)
            if how in (socket.SHUT_WR, socket.SHUT_RDWR):
                self._sock.shutdown(socket.SHUT_RD)
        return True

    def refresh(self) -> None:
        """The error is told: datagrams flow again."""
        self._hinted = False
        self._to_client()

    # Events.

    def event(self, events: int) -> None:
        """The client's end has changed: datagrams to send, room for more, or its end."""
        if events & HUP:
            self._drain()
            if self._shut == SHUTDOWN_MASK:  # perhaps it is shut down, and still held
                self._hub.bury(self.inode, 0)
            self.close()
            return
        if events & OUT:
            self._watch(self._mask & ~OUT)
            self._to_client()
        if events & IN:
            for _ in range(DATAGRAMS_PER_TURN):
                if not self._from_client():
                    break

    def _changed(self) -> None:
        self._to_client()

    # Moving datagrams.

    def _to_client(self) -> None:
        """Give the client what has arrived, as long as its pair has room."""
        core = self.core
        try:
            while self._unsent is not None or (core.has_datagram and not core.has_error):
                self._give(self._unsent or core.recvmsg(DATAGRAM_BYTES, MSG_DONTWAIT))
            if core.has_error and not self._hinted:
                self._sock.send(ERROR_HINT, AT_ONCE)
                self._hinted = True
        except BlockingIOError:
            self._watch(self._mask | OUT)
        except OSError:
            pass  # nobody reads

    def _give(self, message: Message) -> None:
        self._unsent = message
        header = pack_datagram(DatagramHeader(message.address, message.ancillary))
        self._sock.sendmsg([header, message.data], (), AT_ONCE)
        self._unsent = None

    def _in_hand(self) -> int:
        """Return the memory of the datagrams that the client has not read, though we have."""
        waiting = self._unsent
        return outq(self.fd) + (0 if waiting is None else skb_truesize(waiting.length))

    def _drain(self) -> None:
        while self._from_client():
            pass

    def _from_client(self) -> bool:
        """Send one datagram that the client has written; return whether there may be more."""
        scratch = self._hub.scratch
        try:
            count = self._sock.recv_into(scratch)
        except OSError:
            return False
        if not count:
            self._watch(self._mask & ~IN)  # it has shut its end down
            return False
        try:
            self._send(scratch[:count])
        except OSError as error:  # the client's next call tells
            self.core.report_error(error.errno)
        except struct.error:
            pass  # no datagram
        return True

    def _send(self, message: memoryview) -> int:
        header = parse_datagram(message)
        flags = MSG_MORE if header.has & HAS_MORE else 0
        data = message[DATAGRAM.size :]
        return int(self.core.sendmsg(data, flags, header.address, header.ancillary))
