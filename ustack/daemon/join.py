"""A client's descriptor joined to a TCP socket.

Bytes move in C between the daemon's end of the pair and TCP's queues (``tcp.splice``), as far
as each side has room.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ustack.api.attempts import close_gracefully
from ustack.api.protocol import ACCEPTED
from ustack.daemon.client_end import HUP, IN, OUT, ClientEnd, outq
from ustack.daemon.lingering import Lingerers
from ustack.native.lib import lib

if TYPE_CHECKING:
    from ustack.daemon.join_hub import JoinHub
    from ustack.daemon.limits import Owner
    from ustack.inet.sockets import InetSocket

PLUG = bytes(64 * 1024)
"""Enough to make a descriptor whose connection is not there yet unwritable."""
LISTENER_SNDBUF = 64 * 1024
LISTENER_BYTES = LISTENER_SNDBUF // 2
"""What waits in a listener's pair before it counts as full (unix_writable): the kernel doubles
SO_SNDBUF, and wants to see three quarters of it free."""
MSG_OOB = int(socket.MSG_OOB)
MSG_PEEK = int(socket.MSG_PEEK)
MSG_TRUNC = int(socket.MSG_TRUNC)

IDLE, DEFERRED, CONNECTING, LISTENING, STREAM, SHUT, HUNG_UP = range(7)
FIRST_WRITE_BYTES = 64 * 1024


class Join(ClientEnd):
    """One TCP socket of a client."""

    __slots__ = (
        "_all_written", "_blocked", "_error", "_fin_given", "_hung", "_leftover", "_lingerers",
        "_mode", "_offered", "_plug", "_promised", "_read_shut", "_unit", "_unread", "_write_shut",
    )  # fmt: skip

    def __init__(
        self, hub: JoinHub, core: InetSocket, fd: int, inode: int, owner: Owner, events: int
    ) -> None:
        super().__init__(hub, core, fd, inode, owner, events)
        self._mode = IDLE
        self._plug = 0
        self._unit = 0
        """Bytes that one connection in a listener's pair counts for (SIOCOUTQ)."""
        self._leftover = b""
        """Read from the client when the stack was out of memory."""
        self._blocked = False
        self._fin_given = False
        self._read_shut = False
        self._write_shut = False
        self._all_written = False
        """What the client will ever write has been read."""
        self._offered = False
        """It was put into a listener's pair, and perhaps not taken from there."""
        self._error = 0
        self._promised = False
        """The client was told that it is connected (TCP_FASTOPEN_CONNECT)."""
        self._hung = False
        """The client is gone, though its attempt to connect goes on."""
        self._lingerers: Lingerers | None = None
        self._unread = False
        """The client's end was closed before all that it had been given was read."""

    # What the client asks for.

    def connect(self, addr: int, port: int, client_end: int) -> None:
        """Connect as ``InetSocket.connect``; ``client_end`` becomes writable at its end."""
        try:
            self.core.connect(addr, port)
        except BlockingIOError as error:
            if error.errno == errno.EINPROGRESS:
                self._stop_up(client_end)
                self._mode = CONNECTING
            raise
        if self._mode == IDLE:
            self._promised = True
            self._mode = DEFERRED
            self._watch(IN)

    def disconnect(self) -> None:
        """Give up an attempt to connect; a connection's pair cannot begin anew.

        Raises:
            OSError: EOPNOTSUPP.
        """
        if self._mode not in (IDLE, DEFERRED, CONNECTING):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        self.core.disconnect()
        self._discard(self._plug)
        self._plug = 0
        self._promised = False
        self._mode = IDLE
        self._watch(0)

    def send_fastopen(self, data: bytes, addr: int, port: int, client_end: int) -> int:
        """Connect as ``InetSocket.send_fastopen``; goes on as ``connect`` does."""
        try:
            return self.core.send_fastopen(data, addr, port)
        finally:
            if self._mode in (IDLE, DEFERRED) and self.core.connecting:
                if self._mode == IDLE:
                    self._stop_up(client_end)
                self._watch(0)
                self._mode = CONNECTING

    def linger(self) -> tuple[int, int]:
        """Give a client what it can wait with in close(), if SO_LINGER wants that."""
        seconds = self.core.linger_s
        if not seconds:
            return 0, -1
        self._unjoin()
        if self._lingerers is None:
            self._lingerers = Lingerers(self._hub.runtime.loop, self._is_closing)
        return seconds, self._lingerers.line()

    def listen(self, backlog: int) -> None:
        """Listen; connections go into the pair as ``struct ustack_accepted``."""
        self.core.listen(backlog)
        if self._mode != LISTENING:
            self._mode = LISTENING
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LISTENER_SNDBUF)
        self.core.count_ahead(self.in_hand)

    def shutdown(self, how: int, client_end: int) -> bool:
        """Shut a connection down both ways, or begin what the client's own shutdown completes.

        Raises:
            OSError: as ``InetSocket.shutdown``.
        """
        if self._mode == LISTENING:
            self.core.shutdown(how)
        elif how in (socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR) and (
            self._mode == STREAM or self._promised
        ):
            if how != socket.SHUT_WR:
                self._read_shut = True
                self._unjoin()
            self._write_shut = self._write_shut or how != socket.SHUT_RD
        else:
            self.core.shutdown(how)
        if self._mode != STREAM or not (self._read_shut and self._write_shut):
            return False
        self._shut_both_ways(client_end)
        return True

    def _shut_both_ways(self, client_end: int) -> None:
        """What the client has written goes out, with the FIN behind it; what came stays."""
        with borrowed(client_end) as end:
            end.shutdown(socket.SHUT_RDWR)
        self._mode = SHUT
        self._hub.watch_for_close(self)
        self._go_on_shut()

    def _go_on_shut(self) -> None:
        self._blocked = False
        while not self._all_written and not self.core.poll() & select.EPOLLERR:
            if not self._from_client():
                return

    def receive_late(self, size: int, flags: int) -> bytes:
        """Return what came after SHUT_RD, which the pair does not take any more."""
        try:
            return self.core.recv(size, flags & MSG_PEEK) if self._read_shut else b""
        except BlockingIOError:
            return b""

    def send_oob(self, data: bytes) -> int:
        """Send urgent data behind all that the client has written before."""
        while self._mode == STREAM and self._from_client():
            pass
        return self.core.send(data, MSG_OOB)

    def begin_stream(self) -> None:
        """The connection is there: let bytes flow."""
        self._mode = STREAM
        self._watch(IN)
        if self._leftover:
            self._from_client()
        else:
            self._leave_to_c()
        self._to_client()

    def begin_accepted(self, is_left: bool) -> None:
        """The connection is there, and offered to the client; ``is_left``: so is something else."""
        self._offered = True
        self._mode = STREAM
        self._leave_to_c()
        if is_left:
            self._to_client()

    @property
    def is_stream(self) -> bool:
        """Whether bytes flow: the connection is there, and so is the client."""
        return self._mode == STREAM and self.core.poll() & HUP == 0

    def in_hand(self) -> int:
        """Return how many connections wait in a listener's pair."""
        waiting = outq(self.fd)
        return -(-waiting // self._unit) if self._unit else 0

    # Events.

    def _changed(self) -> None:
        if self._mode == STREAM:
            self._to_client()
        elif self._mode == LISTENING:
            self._hand_over()
            self.core.count_ahead(self.in_hand)
        elif self._mode == CONNECTING:
            self._attempt_over()
        elif self._mode == SHUT:
            self._go_on_shut()
        elif self._mode == HUNG_UP:
            self._finish()

    def event(self, events: int) -> None:
        """The client's end has changed (epoll)."""
        if events & HUP:
            self.closed_by_client()
            return
        if events & OUT:
            self._hub.joins.set_full(self.fd, False)
            self._watch(self._mask & ~OUT)
            self._look()
        if events & IN and not self.core.closed:
            if self._mode == DEFERRED:
                self._first_write()
            else:
                self._from_client()

    def read_ahead(self, error: int, unsent: bytes) -> None:
        """C has read from the client: an errno, or what found no memory to be sent from."""
        self._unread = self._unread or error == errno.ECONNRESET
        if unsent:
            self._keep(unsent)

    def _leave_to_c(self) -> None:
        """Bytes flow without us, while there are none to go before them."""
        if not self._read_shut:
            self._hub.joins.join(self.core.handle, self.fd, self._offered)

    def _unjoin(self) -> None:
        if self._hub.joins.unjoin(self.fd):
            self._fin_given = True

    def _keep(self, unsent: bytes) -> None:
        self._leftover = unsent
        self._unjoin()

    def _watch(self, mask: int) -> None:
        if self._mode < SHUT and not self._hung:
            super()._watch(mask)

    # Connecting and accepting.

    def _stop_up(self, client_end: int) -> None:
        """Make the client's end unwritable, as a socket is that is not connected yet."""
        self._discard(1 << 30)
        with borrowed(client_end) as end, contextlib.suppress(OSError):
            self._plug = end.send(PLUG, socket.MSG_DONTWAIT)

    def _discard(self, count: int) -> None:
        while count > 0:
            try:
                got = self._sock.recv_into(self._hub.scratch, min(count, len(self._hub.scratch)))
            except OSError:
                return
            if not got:
                return
            count -= got

    def _attempt_over(self) -> None:
        """The attempt to connect has ended, one way or the other: the client may ask which."""
        if not self.core.poll():
            return
        self._discard(self._plug)
        self._plug = 0
        try:
            self.core.getpeername()
        except OSError:
            self._mode = IDLE
            if self._promised:
                self._fail()
        else:
            if self._hung:
                self._mode = HUNG_UP
                self._finish()
            else:
                self.begin_stream()

    def _first_write(self) -> None:
        """What the client writes first goes with the SYN, as much of it as fits."""
        try:
            data = self._sock.recv(FIRST_WRITE_BYTES)
        except OSError:
            return
        self._mode = CONNECTING
        self._watch(0)
        taken = 0
        try:
            taken = self.core.send(data)
        except BlockingIOError:
            pass
        except OSError as error:
            self._error = error.errno or errno.EIO
            self._fail()
            return
        self._leftover = data[taken:]

    def _hand_over(self) -> None:
        """Put waiting connections into the pair, some ahead of the client's accept()."""
        hub = self._hub
        while room := hub.limits.room(self.owner):
            free = LISTENER_BYTES - outq(self.fd)
            if free < 0:
                self._watch(OUT)
                return
            fitting = free // self._unit + 1 if self._unit else 1
            try:
                children = self.core.accept_many(min(room, fitting), letters=False)
            except OSError:
                return  # it listens no longer
            for child in children:
                self._hand_over_one(*child)
            if not children:
                return
        hub.limits.reason_against(self.owner)
        hub.when_there_is_room(self._look)

    def _hand_over_one(
        self, child: InetSocket, local: tuple[int, int], peer: tuple[int, int], is_left: bool
    ) -> None:
        hub = self._hub
        try:
            join, end = hub.join(child, self.owner, IN)
        except OSError:
            return
        message = ACCEPTED.pack(peer[0], local[0], peer[1], local[1], hub.key_of(join))
        if lib.us_pair_hand_over(self.fd, end, message, len(message)):
            join.refuse()
            return
        if not self._unit:
            self._unit = outq(self.fd)  # 0: it has been taken already
        join.begin_accepted(is_left)

    # Moving bytes.

    def _to_client(self) -> None:
        """Give the client what has arrived, then what has happened to the connection."""
        core = self.core
        try:
            if self._read_shut:
                pass
            elif core.rcvlowat <= 1 or core.rcv_ready(core.rcvlowat) or outq(self.fd):
                self._move_to_client()
        except BlockingIOError:
            self._hub.joins.set_full(self.fd, True)
            self._watch(self._mask | OUT)
            self._go_on_reading(core.poll())
            return
        except OSError:
            pass  # nobody reads: what is unread stays unread
        state = core.poll()
        if self._error or state & select.EPOLLERR:
            self._fail()
            return
        if state & select.EPOLLRDHUP and not self._fin_given:
            self._fin_given = True
            lib.us_pair_end_stream(self.fd)
        self._go_on_reading(state)

    def _go_on_reading(self, state: int) -> None:
        if self._blocked and state & select.EPOLLOUT:
            self._blocked = False
            self._watch(self._mask | IN)

    def _move_to_client(self) -> None:
        """Move bytes; the urgent one at its place among them.

        Raises:
            OSError: EAGAIN, the pair is full; EPIPE, nobody reads.
        """
        core = self.core
        if core.splice_read_now(self.fd):
            return
        moved = 1
        while moved:
            if core.at_mark() and core.poll() & select.EPOLLPRI:
                byte = core.recv(1, MSG_OOB | socket.MSG_PEEK)
                self._sock.send(byte, MSG_OOB | socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
                core.recv(1, MSG_OOB)
            moved = core.splice_read(self.fd)

    def _from_client(self) -> bool:
        """Send what the client has written; return whether there may be more to read at once."""
        core, scratch = self.core, self._hub.scratch
        try:
            moved = None if self._leftover else core.splice_write_now(self.fd, scratch)
            if moved is None:
                room = self._room()
                if not room:
                    return False
                moved = core.splice_write(self.fd, scratch, room)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            self._unread = True
            return False
        got, taken = moved
        if got > taken:
            self._keep(bytes(self._hub.scratch[taken:got]))
            self._wait_for_room()
            return False
        self._all_written = not got
        if not got and self._mode in (STREAM, SHUT):
            self._watch(self._mask & ~IN)
            with contextlib.suppress(OSError):
                core.shutdown(socket.SHUT_WR if self._mode == STREAM else socket.SHUT_RDWR)
        return bool(got)

    def _room(self) -> int:
        """Return how much may be sent behind what was left over; 0: nothing now, seen to."""
        core = self.core
        try:
            room: int = core.send_room()
            if self._leftover:
                self._leftover = self._leftover[core.send(self._leftover) :]
                if self._leftover:
                    return 0
                if self._mode == STREAM:
                    self._leave_to_c()
                return core.send_room()
        except BlockingIOError:
            self._wait_for_room()
            return 0
        except OSError as error:
            self._watch(self._mask & ~IN)
            self._error = error.errno or errno.EPIPE
            if self._mode == STREAM:
                self._to_client()
            return 0
        return room

    def _wait_for_room(self) -> None:
        self._blocked = True
        self._watch(self._mask & ~IN)
        if self._leftover:  # no ACK may come that would tell: memory is short
            self._hub.later(self._changed_in_time)

    def _changed_in_time(self) -> None:
        if self._leftover and not self.core.closed:
            self._from_client()
            self._look()

    # Ends.

    def _fail(self) -> None:
        """The connection is broken: the client's end is told, its errno kept to be asked for."""
        error = self._error or self.core.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._hub.bury(self.inode, int(error))
        self.close()

    def refuse(self) -> None:
        """Reset a connection that nobody has accepted (inet_child_forget)."""
        with contextlib.suppress(OSError):
            self.core.disconnect()
        self.close()

    def closed_by_client(self) -> None:
        """Nobody holds the client's end any more; what it has written still goes out."""
        if self._offered and not lib.us_pair_is_taken(self.fd):
            self.refuse()
            return
        if self._mode == DEFERRED:
            self._first_write()
            if self.core.closed:
                return
        self._unjoin()
        if self._all_written:
            self._see_what_was_unread()
        streaming = self._mode in (STREAM, SHUT)
        if self._fin_given:  # perhaps it is shut down, and still held
            self._hub.bury(self.inode, 0)
        if self._mode == CONNECTING and self._promised:
            self._hung = True
            self._hub.unwatch(self.fd)
            return
        self._mode = HUNG_UP
        if streaming:
            if self._lingerers and self.core.linger_s:
                self._hub.runtime.loop.call_later(
                    self.core.linger_s, self._hub.runtime.call, self._linger_is_over
                )
            self._finish()
            if not self.core.closed:
                self._hub.unwatch(self.fd)
        else:
            self.close()

    def is_over(self) -> None:
        """C has closed the connection, and the client its end; perhaps that is still held."""
        self._hub.bury(self.inode, 0)
        self.core.forget()
        self._let_go()

    def _see_what_was_unread(self) -> None:
        """The kernel tells the pair's other end, behind all that was written."""
        try:
            self._sock.recv(1)
        except OSError:
            self._unread = True

    def _finish(self) -> None:
        """Take the client's last bytes as the send buffer has room, then close."""
        self._blocked = False
        while self._from_client():
            pass
        if self._blocked:
            return
        if not self._lingers():
            self.close(unread=self._unread)

    def close(self, **how: Any) -> None:
        """Let go of both sides, and of who waits for that."""
        self._unjoin()
        super().close(**how)
        if self._lingerers is not None:
            self._lingerers.let_go()

    def _is_closing(self) -> bool:
        """Whether the client that has just closed its end held the last one (SO_LINGER)."""
        self._hub.runtime.call(self._hub.settle)
        return self._mode == HUNG_UP and not self.core.closed

    def _lingers(self) -> bool:
        """Whether somebody waits for the FIN's acknowledgement; sends the FIN."""
        if not self._lingerers or self._unread or not self.core.linger_s:
            return False
        return close_gracefully(self.core) and not self.core.send_queue_empty()

    def _linger_is_over(self) -> None:
        """SO_LINGER's time is up: who waits is let go, and the rest happens in the background."""
        if self._lingerers is not None:
            self._lingerers.let_go()
        self._look()


@contextlib.contextmanager
def borrowed(client_end: int) -> Iterator[socket.socket]:
    """A socket object for a client's descriptor, which stays the caller's."""
    end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=client_end)
    try:
        yield end
    finally:
        end.detach()
