"""The socket as the application holds it, on top of TCP (net/ipv4/af_inet.c).

Every call here returns at once: what would wait raises BlockingIOError, and ``wq`` tells
when it is worth asking again. The runtimes and the public API add waiting, timeouts and
names on top. Addresses are (int, port), flags and options Linux's numbers.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ustack.lib.addresses import INADDR_BROADCAST, is_multicast
from ustack.lib.socket_error import socket_error
from ustack.native.lib import lib
from ustack.sock.sock import RCV_SHUTDOWN, SEND_SHUTDOWN, SHUTDOWN_MASK
from ustack.sock.wait import (
    EPOLLERR,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    EPOLLPRI,
    EPOLLRDHUP,
    EPOLLRDNORM,
    EPOLLWRNORM,
    WaitEntry,
    WaitQueue,
)
from ustack.tcp.close import tcp_abort_connect, tcp_disconnect, tcp_shutdown_write
from ustack.tcp.connect import tcp_connect, tcp_v4_connect
from ustack.tcp.data import tcp_epollin_ready
from ustack.tcp.fast_rx import run_events
from ustack.tcp.fastopen import tcp_passive_fastopen
from ustack.tcp.fastopen_client import FastopenRequest, tcp_fastopen_client_enabled
from ustack.tcp.ioctl import tcp_ioctl
from ustack.tcp.listen import (
    inet_csk_accept,
    inet_csk_accept_many,
    inet_csk_listen_stop,
    inet_listen,
    listen_queues,
)
from ustack.tcp.offer import tcp_withdraw
from ustack.tcp.options import tcp_getsockopt, tcp_setsockopt
from ustack.tcp.outbox import LETTER_BYTES
from ustack.tcp.park import tcp_unpark
from ustack.tcp.parked import (
    tcp_close_parked,
    tcp_nodelay_parked,
    tcp_poll_parked,
    tcp_recv_into_parked,
    tcp_recv_parked,
    tcp_send_parked,
)
from ustack.tcp.ports import inet_csk_get_port
from ustack.tcp.recvmsg import (
    tcp_has_plain_text,
    tcp_peek_offset,
    tcp_recv_busy,
    tcp_recv_into_now,
    tcp_recv_now,
    tcp_recv_wait,
    tcp_recvmsg,
)
from ustack.tcp.release import tcp_close
from ustack.tcp.sendmsg import (
    sk_stream_wait_room,
    tcp_may_send_now,
    tcp_send_now,
    tcp_sendmsg,
    tcp_sendmsg_now,
)
from ustack.tcp.sndbuf import sk_stream_is_writeable
from ustack.tcp.splice import (
    tcp_splice_read,
    tcp_splice_read_now,
    tcp_splice_read_parked,
    tcp_splice_write,
    tcp_splice_write_now,
    tcp_splice_write_parked,
)
from ustack.tcp.states import (
    TCP_CLOSE,
    TCP_ESTABLISHED,
    TCP_LISTEN,
    TCP_SYN_RECV,
    TCP_SYN_SENT,
    TcpEvent,
)
from ustack.tcp.urgent import tcp_at_mark, tcp_recv_urg, tcp_urgent_waits
from ustack.tcp.zerocopy import sk_page_frag, tcp_send_ref, tcp_sendpage

if TYPE_CHECKING:
    from ustack.tcp.inbox import TextReader
    from ustack.tcp.outbox import TextSender
    from ustack.tcp.protocol import TcpProt
    from ustack.tcp.sock import TcpSock

AF_INET = 2
SOCK_STREAM = 1
IPPROTO_TCP = 6
SHUT_RD, SHUT_WR, SHUT_RDWR = 0, 1, 2

MSG_OOB = 0x1
MSG_PEEK = 0x2
MSG_TRUNC = 0x20
MSG_DONTWAIT = 0x40
MSG_WAITALL = 0x100
MSG_NOSIGNAL = 0x4000
MSG_MORE = 0x8000
SEND_FLAGS = MSG_OOB | MSG_DONTWAIT | MSG_NOSIGNAL | MSG_MORE
RECV_FLAGS = MSG_OOB | MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT | MSG_WAITALL

CONNECTING = (TCP_SYN_SENT, TCP_SYN_RECV)
Accepted = tuple["InetSocket", tuple[int, int], tuple[int, int], bool]
"""A connection, its own address and the peer's, and whether the inbox does not tell all of it."""


@dataclass(frozen=True, slots=True)
class Upcall:
    """Who is told of events; equal if it is the same, as what parked connections share."""

    prot: TcpProt
    ready: Callable[[InetSocket, int], None]

    def __call__(self, handle: int, events: int) -> None:
        """Tell it, with an object for the socket."""
        self.ready(InetSocket(self.prot, handle), events)


class InetSocket:
    """A non-blocking TCP socket (struct socket with inet_stream_ops)."""

    __slots__ = ("_handle", "_on_release", "_prot", "closed", "connecting")

    family = AF_INET
    type = SOCK_STREAM
    protocol = IPPROTO_TCP

    def __init__(self, prot: TcpProt, handle: int = 0) -> None:
        """Make a socket, or one more object for the one with this handle."""
        self._prot = prot
        self._handle = handle or prot.create().handle
        self.closed = False
        self.connecting = False
        """connect() was called and its outcome not yet reported (SS_CONNECTING)."""
        self._on_release: list[Callable[[InetSocket], None]] | None = None

    @property
    def _sk(self) -> TcpSock:
        """The protocol's socket, whose object may not exist while it idles."""
        return self._prot.sock_of(self._handle)

    @property
    def handle(self) -> int:
        """The connection's number: the same in all objects for it, and never another's."""
        return self._handle

    @property
    def wq(self) -> WaitQueue:
        """Who waits for something to change. Not to be kept: ask each time."""
        sk = self._prot.socks.get(self._handle)
        return sk.wq if sk is not None else self._prot.parking.wq_of(self._handle)

    @property
    def on_release(self) -> list[Callable[[InetSocket], None]]:
        """Called at the last close: eventpoll takes its item away (eventpoll_release)."""
        if self._on_release is None:
            self._on_release = []
        return self._on_release

    def _live(self) -> TcpSock:
        sk = self._prot.socks.get(self._handle) or self._open()
        if sk is None or self.closed or sk.orphaned:
            raise socket_error(errno.EBADF)
        return sk

    def _tcb(self) -> Any:
        """Return the control block of a connection that may have no object."""
        tp = lib.us_tcp_sock_at(self._prot.fast.ptr, self._handle)
        if not tp or self.closed or tp.dead:
            raise socket_error(errno.EBADF)
        return tp

    def _open(self) -> TcpSock | None:
        """Return the protocol's socket unless it was closed, perhaps through another object."""
        if self.closed:
            return None
        try:
            sk = self._prot.socks.get(self._handle) or tcp_unpark(self._prot, self._handle)
        except KeyError:
            return None
        return None if sk.orphaned else sk

    def set_upcall(self, ready: Callable[[InetSocket, int], None] | None) -> None:
        """Have ``ready(socket, events)`` called when something changes; None: no longer.

        Connections of a listener inherit it when they are made, so that a service needs to keep
        no object for those that idle: each call brings a new one, and letting go of it does not
        close the connection. It is called in the softirq, in the middle of ``poll``: it should
        take note of the socket, and come back to it when ``poll`` has returned.
        """
        prot = self._prot
        sk = self._live()
        tcp_withdraw(sk)
        sk.upcall = ready and Upcall(prot, ready)

    def set_reader(self, reader: TextReader | None, *, paused: bool = False) -> None:
        """Hand ``reader`` the text as it comes (``Stack.deliver_text``); None: no longer.

        What comes otherwise, and all of it while ``pause_reader`` says so, is left to be
        received as ever; it lies behind what was handed over before. Of that, and of whatever
        else happens, the reader is told by ``woken``.
        """
        prot = self._prot
        sk = prot.socks.get(self._handle)
        tp = self._tcb() if sk is None else sk.tp
        old = prot.inbox.remove(tp)
        if old is not None and sk is not None:
            sk.wq.remove_func(old.woken)
        if reader is not None:
            prot.inbox.add(tp, reader, paused)
            if sk is not None:
                sk.wq.add(WaitEntry(reader.woken))

    def set_first_reader(self, reader: TextReader) -> None:
        """Do what ``set_reader`` does for a connection that ``accept_many`` has just returned."""
        prot = self._prot
        if self._handle in prot.socks:
            self.set_reader(reader)
        else:
            prot.inbox.readers[self._handle >> 32] = reader

    def pause_reader(self, paused: bool) -> None:
        """Leave the text in the receive queue for a while, whose window then closes."""
        self._prot.inbox.pause(self._live().tp, paused)

    # Opening.

    def bind(self, addr: int, port: int) -> None:
        """Give the socket a local address and port, a free port if 0 (inet_bind).

        Raises:
            OSError: EINVAL, it has one; EADDRNOTAVAIL, not an address of this stack;
                EADDRINUSE, another socket has the port.
        """
        sk = self._live()
        if sk.tp.state != TCP_CLOSE or sk.bind_bucket is not None:
            raise socket_error(errno.EINVAL)
        if not 0 <= port <= 65535:
            raise socket_error(errno.EINVAL)
        ip = sk.prot.ip
        if addr and not ip.config.ip_nonlocal_bind and not ip.is_local_address(addr):
            raise socket_error(errno.EADDRNOTAVAIL)
        if addr and (is_multicast(addr) or addr == INADDR_BROADCAST):
            raise socket_error(errno.EADDRNOTAVAIL)
        if sk.opts.bind_address_no_port and not port:
            sk.bind_addr = addr
        else:
            inet_csk_get_port(sk.prot, sk, addr, port)

    def listen(self, backlog: int = 128) -> None:
        """Become a listener, or change the queue length of one (inet_listen)."""
        inet_listen(self._live(), backlog)

    def accept(self) -> InetSocket:
        """Take the connection that has waited longest.

        Raises:
            BlockingIOError: none waits. OSError: EINVAL, not a listener.
        """
        sk = self._live()
        return InetSocket(sk.prot, inet_csk_accept(sk))

    def accept_many(self, limit: int, *, letters: bool = True) -> list[Accepted]:
        """Take up to ``limit`` of the connections that wait, each to be waited for from now on.

        Args:
            letters: each gets a reader (``set_first_reader``). What has come for them is handed
                out by the next ``Stack.deliver_text``, as far as the inbox has room for it.

        Raises:
            OSError: EINVAL, not a listener.
        """
        prot = self._prot
        records = inet_csk_accept_many(self._live(), limit, letters)
        accepted = [
            (InetSocket(prot, handle), (saddr, sport), (daddr, dport), bool(left))
            for handle, saddr, daddr, sport, dport, left in records
        ]
        run_events(prot.fast)
        return accepted

    def count_ahead(self, in_hand: Callable[[], int]) -> None:
        """Have connections that were accepted ahead of their application count as waiting.

        To be called again when there are more of them: C goes by the number of the last time.
        """
        queues = listen_queues(self._live())
        queues.in_hand = in_hand
        queues.c.ahead = in_hand()

    def connect(self, addr: int, port: int) -> None:
        """Begin to connect, or report how the attempt ended (inet_stream_connect).

        Raises:
            BlockingIOError: EINPROGRESS, the SYN is out; EALREADY, it still is.
            OSError: EISCONN, EINVAL (a listener), or why it failed: ECONNREFUSED, ETIMEDOUT,
                EHOSTUNREACH, ENETUNREACH, EADDRNOTAVAIL.
        """
        sk = self._live()
        state = sk.tp.state
        if state == TCP_LISTEN:
            raise socket_error(errno.EISCONN)
        if self.connecting:
            if state in CONNECTING:
                deferred = sk.fastopen_req is not None and sk.fastopen_req.deferred
                raise socket_error(errno.EISCONN if deferred else errno.EALREADY)
            self.connecting = False
            if state == TCP_CLOSE:
                sk.tp.rcv_shutdown = sk.tp.snd_shutdown = 0  # tcp_disconnect
                raise socket_error(sk.take_error() or errno.ECONNABORTED)
            return
        if state != TCP_CLOSE:
            raise socket_error(errno.EISCONN)
        if sk.sk_err:
            raise socket_error(sk.take_error())
        if not 0 < port <= 65535:
            raise socket_error(errno.ECONNREFUSED if port == 0 else errno.EINVAL)
        if sk.tp.iss:
            sk.reset()
        if sk.prot.trace_connect.on:
            _traced_connect(sk, addr, port)
        else:
            tcp_v4_connect(sk, addr, port)
        self.connecting = True
        if sk.fastopen_req is not None and sk.fastopen_req.deferred:
            return
        raise socket_error(errno.EINPROGRESS)

    def disconnect(self) -> None:
        """End the connection and be a socket that can connect again: connect() to AF_UNSPEC.

        The peer gets a reset (RFC 9293 §3.10.5). A port that bind() named stays; a listener
        is one no longer (tcp_disconnect).
        """
        sk = self._live()
        self.connecting = False
        if sk.tp.state == TCP_LISTEN:
            self._unlisten(sk)
        else:
            tcp_disconnect(sk)

    # Moving bytes.

    def send(self, data: bytes | bytearray | memoryview, flags: int = 0) -> int:
        """Queue bytes for sending; return how many were taken.

        Raises:
            BlockingIOError: the send buffer is full. OSError: EPIPE, ECONNRESET ...;
                EOPNOTSUPP, a flag that is not supported.
        """
        if flags & ~SEND_FLAGS:
            raise socket_error(errno.EOPNOTSUPP)
        if not flags and self._handle not in self._prot.socks and (taken := self.send_now(data)):
            return taken
        sk = self._live()
        if self.connecting and sk.fastopen_req is not None and sk.fastopen_req.deferred:
            return self._send_deferred(sk, data)
        return tcp_sendmsg(sk, data, flags)

    def send_now(self, data: bytes | bytearray | memoryview) -> int:
        """Return how many bytes are taken at once; 0, and nothing has changed: ask ``send``."""
        prot = self._prot
        sk = prot.socks.get(self._handle)
        if sk is None:
            return tcp_send_parked(prot, self._handle, data)
        taken = tcp_send_now(prot, sk.tp, data) if tcp_may_send_now(sk) else 0
        return taken or tcp_sendmsg_now(sk, data)

    def send_soon(self, data: bytes | bytearray | memoryview, sender: TextSender) -> int:
        """Send at once, or a short text perhaps with others', see ``ustack.tcp.outbox``.

        Returns:
            How many bytes were taken: what of them cannot be sent after all comes back to
            ``sender``; 0, and nothing has changed: ask ``send``.
        """
        outbox = self._prot.outbox
        if outbox.is_open:
            if type(data) is bytes and len(data) <= LETTER_BYTES:
                return outbox.post(self._handle, data, sender)
            outbox.flush()
        return self.send_now(data)

    def send_fastopen(self, data: bytes | bytearray | memoryview, addr: int, port: int) -> int:
        """Connect and send in one: ``data`` goes with the SYN (sendto() with MSG_FASTOPEN).

        Returns:
            How many bytes went with the SYN, as many as a segment takes.

        Raises:
            BlockingIOError: EINPROGRESS, the SYN is out and asks for a cookie; the data is
                still the caller's. OSError: as connect(); EOPNOTSUPP, switched off.
        """
        sk = self._live()
        if not tcp_fastopen_client_enabled(sk.prot):
            raise socket_error(errno.EOPNOTSUPP)
        if sk.fastopen_req is not None:
            if sk.fastopen_req.deferred:
                return self._send_deferred(sk, data)
            raise socket_error(errno.EALREADY)
        if sk.tp.state != TCP_CLOSE:
            self.connect(addr, port)  # says what is wrong
        sk.fastopen_req = fo = FastopenRequest(data)
        try:
            self.connect(addr, port)
        except OSError as error:
            if error.errno == errno.EINPROGRESS and fo.copied:
                return fo.copied
            if error.errno != errno.EINPROGRESS:
                sk.fastopen_req = None
            raise
        return fo.copied

    def _send_deferred(self, sk: TcpSock, data: bytes | bytearray | memoryview) -> int:
        """The first send() after TCP_FASTOPEN_CONNECT: now the SYN goes."""
        fo = sk.fastopen_req
        assert fo is not None
        fo.data = data
        tcp_connect(sk)
        if not fo.copied:
            raise socket_error(errno.EINPROGRESS)
        return fo.copied

    def page_frag(self, want: int) -> tuple[int, int]:
        """Return address and size of arena memory to fill for ``sendpage``.

        Raises:
            BlockingIOError: the send buffer is full. OSError: as ``send``; ENOBUFS.
        """
        return sk_page_frag(self._live(), want)

    def read_page(self, addr: int, size: int, read: Callable[[memoryview], int]) -> int:
        """Let ``read`` fill ``page_frag``'s memory, without the stack; return its bytes."""
        with self._prot.net.mem.view[addr : addr + size] as view:
            return read(view)

    def put_page(self, addr: int) -> None:
        """Give ``page_frag``'s memory back unused."""
        self._prot.net.mem.put_page(addr)

    def sendpage(self, addr: int, length: int, flags: int = 0) -> int:
        """Queue what was written at ``page_frag``'s address, which is no longer the caller's.

        Raises:
            OSError: as ``send``; EBADF, closed meanwhile. The memory is given back.
        """
        if self.closed:
            self.put_page(addr)
        return tcp_sendpage(self._live(), addr, length, flags)

    def send_ref(self, data: Any, released: Callable[[], None], flags: int = 0) -> tuple[int, bool]:
        """Queue bytes where they lie; return how many were taken, and whether by copying.

        Args:
            data: a contiguous buffer; what was taken of it must not change until
                ``released`` is called, in the poll in which the last reference went.

        Raises:
            OSError: as ``send``; ENOBUFS, too many buffers are lent. Nothing is lent then.
        """
        if flags & ~SEND_FLAGS:
            raise socket_error(errno.EOPNOTSUPP)
        view = memoryview(data).cast("B")
        return tcp_send_ref(self._live(), view, flags, released) if view.nbytes else (0, True)

    def splice_read(self, fd: int) -> int:
        """Move received bytes to descriptor ``fd``; see ``tcp_splice_read``."""
        return tcp_splice_read(self._live(), fd)

    def splice_read_now(self, fd: int) -> bool:
        """Move all that has arrived to ``fd`` if C can; see ``tcp_splice_read_now``."""
        if self._handle not in self._prot.socks:
            return tcp_splice_read_parked(self._prot, self._tcb(), fd)
        return tcp_splice_read_now(self._live(), fd)

    def splice_write_now(self, fd: int, scratch: Any) -> tuple[int, int] | None:
        """Send what ``fd`` gives if C can; see ``tcp_splice_write_now``."""
        if self._handle not in self._prot.socks:
            return tcp_splice_write_parked(self._prot, self._tcb(), fd, scratch)
        return tcp_splice_write_now(self._live(), fd, scratch)

    def splice_write(self, fd: int, scratch: Any, room: int) -> tuple[int, int]:
        """Send up to ``room`` (``send_room``) bytes that ``fd`` gives; see ``tcp_splice_write``."""
        return tcp_splice_write(self._live(), fd, scratch, room)

    def send_room(self) -> int:
        """Return how many bytes send() would take now.

        Raises:
            BlockingIOError: none; ``wq`` tells when. OSError: as ``send``.
        """
        return sk_stream_wait_room(self._live())

    def recv(self, n: int, flags: int = 0) -> bytes:
        """Return up to ``n`` bytes, b"" at the end of the stream."""
        flags &= ~MSG_DONTWAIT
        if (
            not flags
            and n > 0
            and self._handle not in self._prot.socks
            and (text := self.recv_now(n)) is not None
        ):
            return text
        sk = self._live()
        if n < 0:
            raise socket_error(errno.EINVAL)
        if flags & ~RECV_FLAGS:
            raise socket_error(errno.EOPNOTSUPP)
        if flags & MSG_OOB:
            return tcp_recv_urg(sk, n, flags)
        size = min(n, sk.tp.receive_queue.len)
        buffer = bytearray(size)
        got = tcp_recvmsg(sk, buffer, size, flags) if size or n else 0
        return bytes(buffer) if got == size else bytes(buffer[:got])

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """Fill ``buffer`` (at most ``nbytes`` of it, 0: all); return how many bytes came."""
        flags &= ~MSG_DONTWAIT
        if not flags and self._handle not in self._prot.socks:
            got = self._recv_into_parked(buffer, nbytes)
            if got >= 0:
                return got
        sk = self._live()
        if flags & ~RECV_FLAGS:
            raise socket_error(errno.EOPNOTSUPP)
        view = memoryview(buffer).cast("B")
        if nbytes < 0 or nbytes > len(view):
            raise socket_error(errno.EINVAL)
        length = nbytes or len(view)
        if flags & MSG_OOB:
            urgent = tcp_recv_urg(sk, length, flags)
            view[: len(urgent)] = urgent
            return len(urgent)
        return tcp_recvmsg(sk, view, length, flags) if length else 0

    def _recv_into_parked(self, buffer: Any, nbytes: int) -> int:
        """Do without the protocol's socket what ``recv_into`` does; -1: it has to be made."""
        view = memoryview(buffer).cast("B")
        length = nbytes or len(view)
        if not 0 < length <= len(view):
            return -1
        return tcp_recv_into_parked(self._prot, self._handle, view, length)

    def recv_now(self, n: int) -> bytes | None:
        """Return what there is at once of up to ``n`` > 0 bytes; None: ask ``recv``."""
        prot = self._prot
        sk = prot.socks.get(self._handle)
        if sk is None:
            return tcp_recv_parked(prot, self._handle, n)
        if prot.fast.on and sk.opts.peek_off < 0 and (text := tcp_recv_now(prot, sk.tp, n)):
            return text
        return self.recv(n) if tcp_has_plain_text(sk) else None

    def recv_wait(self, n: int, looks: int, wakefd: int) -> bytes | None:
        """``recv_now`` that looks at the wire ``looks`` times for what is not there yet."""
        prot = self._prot
        if not prot.fast.on:
            return self.recv_now(n)
        sk = prot.socks.get(self._handle)
        tp = lib.us_tcp_sock_at(prot.fast.ptr, self._handle) if sk is None else sk.tp
        if not tp or (sk is not None and sk.opts.peek_off >= 0):
            return None
        return tcp_recv_wait(prot, tp, n, looks, wakefd) or None

    def recv_into_now(self, buffer: bytearray) -> int:
        """Fill ``buffer`` with what C hands over at once; 0: ask ``recv_into``."""
        prot = self._prot
        sk = prot.socks.get(self._handle)
        if sk is None:
            return max(tcp_recv_into_parked(prot, self._handle, buffer, len(buffer)), 0)
        if sk.opts.peek_off >= 0:
            return 0
        return tcp_recv_into_now(prot, sk.tp, buffer, len(buffer))

    def recv_busy(self, buffer: bytearray) -> int:
        """Fill ``buffer`` with what is there and what the device has; 0: ask ``recv_into``."""
        sk = self._prot.socks.get(self._handle)
        return 0 if sk is None else tcp_recv_busy(sk, buffer, len(buffer))

    def rcv_ready(self, target: int, flags: int = 0) -> bool:
        """Whether a read that wants ``target`` bytes need not wait: they, FIN, an error."""
        sk = self._live()
        tp = sk.tp
        if tp.receive_queue.len >= target + tcp_peek_offset(sk, flags) or sk.sk_err:
            return True
        return bool(tp.rcv_shutdown & RCV_SHUTDOWN) or tp.state in (TCP_CLOSE, TCP_LISTEN)

    def at_mark(self) -> bool:
        """Whether the next byte to be read is urgent (SIOCATMARK, sockatmark(3))."""
        return tcp_at_mark(self._live())

    def ioctl(self, request: int) -> int:
        """Answer SIOCINQ, SIOCOUTQ, SIOCOUTQNSD or SIOCATMARK (ioctl(2)); see ``tcp.ioctl``."""
        return tcp_ioctl(self._live(), request)

    # Closing.

    def shutdown(self, how: int) -> None:
        """Close one direction or both, whoever else holds the socket (inet_shutdown).

        Raises:
            OSError: EINVAL, not SHUT_RD, SHUT_WR or SHUT_RDWR; ENOTCONN, not connected.
        """
        sk = self._live()
        if how not in (SHUT_RD, SHUT_WR, SHUT_RDWR):
            raise socket_error(errno.EINVAL)
        mask = how + 1
        tp = sk.tp
        if tp.state == TCP_CLOSE:
            tp.rcv_shutdown |= mask & RCV_SHUTDOWN
            tp.snd_shutdown |= mask & SEND_SHUTDOWN
            raise socket_error(errno.ENOTCONN)
        if tp.state == TCP_LISTEN:
            if mask & RCV_SHUTDOWN:
                self._unlisten(sk)
        elif tp.state == TCP_SYN_SENT:
            self.connecting = False
            tcp_abort_connect(sk)
            sk.sk_err = errno.ECONNRESET
        else:
            if mask & RCV_SHUTDOWN:
                tp.rcv_shutdown |= RCV_SHUTDOWN
            if mask & SEND_SHUTDOWN:
                tcp_shutdown_write(sk)
            sk.sk_state_change()

    def _unlisten(self, sk: TcpSock) -> None:
        """SHUT_RD on a listener: its queues go, and it may bind its port to listen again."""
        inet_csk_listen_stop(sk)
        bucket, sk.bind_bucket = sk.bind_bucket, None
        sk.set_state(TcpEvent.CLOSE)
        sk.bind_bucket = bucket
        sk.sk_state_change()

    def close(self, *, unread: bool = False) -> None:
        """Let go of the socket; what was sent still arrives (tcp_close). Twice is once.

        Args:
            unread: as ``tcp_close``: the peer gets a reset.
        """
        if self.closed:
            return
        for release in tuple(self._on_release or ()):
            release(self)
        prot = self._prot
        unread = prot.inbox.close(self._handle >> 32) or unread
        if unread or self._handle in prot.socks or not tcp_close_parked(prot, self._handle):
            sk = self._open()
            if sk is not None:
                tcp_close(sk, unread=unread)
        prot.parking.wqs.pop(self._handle, None)
        self.closed = True
        mem = prot.net.mem
        if mem.lent:
            mem.reap_lent()

    def forget(self) -> None:
        """Let go of what is kept beside a connection that C has closed (``tcp.joins``)."""
        self._prot.parking.wqs.pop(self._handle, None)
        self.closed = True

    # Asking.

    def poll(self) -> int:
        """Return the poll events that are true now (tcp_poll)."""
        sk = self._prot.socks.get(self._handle)
        if sk is None:
            plain = tcp_poll_parked(self._prot, self._handle)
            if plain >= 0:
                return plain
            sk = self._open()
        if sk is not None and not sk.sk_err:
            plain = lib.us_tcp_poll(sk.prot.fast.ptr, sk.tp)
            if plain >= 0:
                return plain
        return self._poll(sk and self._open())

    def _poll(self, sk: TcpSock | None) -> int:
        """Do without C what ``poll`` does; None: it is closed."""
        if sk is None:
            return EPOLLERR | EPOLLHUP
        tp = sk.tp
        state = tp.state
        if state == TCP_LISTEN:
            waiting = sk.listen is not None and sk.listen.accept_queue
            return EPOLLIN | EPOLLRDNORM if waiting else 0
        mask = EPOLLERR if sk.sk_err else 0
        rcv_shut = tp.rcv_shutdown & RCV_SHUTDOWN
        if state == TCP_CLOSE or (rcv_shut | tp.snd_shutdown) == SHUTDOWN_MASK:
            mask |= EPOLLHUP
        if rcv_shut:
            mask |= EPOLLIN | EPOLLRDNORM | EPOLLRDHUP
        if state in CONNECTING and not tcp_passive_fastopen(sk):
            if sk.fastopen_req is not None and sk.fastopen_req.deferred:
                mask |= EPOLLOUT | EPOLLWRNORM
            return mask
        if tcp_epollin_ready(sk):
            mask |= EPOLLIN | EPOLLRDNORM
        if tcp_urgent_waits(sk):
            mask |= EPOLLPRI
        if tp.snd_shutdown or state == TCP_CLOSE or sk_stream_is_writeable(sk):
            mask |= EPOLLOUT | EPOLLWRNORM
        else:
            sk.nospace = True
        return mask

    @property
    def rcvlowat(self) -> int:
        """SO_RCVLOWAT, in bytes."""
        if self._handle not in self._prot.socks:
            return self._prot.parking.rcvlowat(self._tcb())
        return self._live().rcvlowat

    @property
    def linger_s(self) -> int | None:
        """SO_LINGER's seconds, None if it is off: the edge waits in close()."""
        if self._handle not in self._prot.socks:
            return self._prot.parking.linger_s(self._tcb())
        return self._live().linger_s

    def send_queue_empty(self) -> bool:
        """Whether everything sent, our FIN included, has been acknowledged."""
        tp = self._live().tp
        return bool(tp.snd_una == tp.write_seq)

    def getsockname(self) -> tuple[int, int]:
        """Return the local address and port; zeros while there are none."""
        if self._handle not in self._prot.socks:
            tp = self._tcb()
            return (tp.saddr, tp.sport)
        sk = self._live()
        tp = sk.tp
        return (tp.saddr or sk.bind_addr, tp.sport)

    def getpeername(self) -> tuple[int, int]:
        """Return the peer's address and port.

        Raises:
            OSError: ENOTCONN.
        """
        tp = self._live().tp if self._handle in self._prot.socks else self._tcb()
        if tp.state in (TCP_CLOSE, TCP_LISTEN, TCP_SYN_SENT):
            raise socket_error(errno.ENOTCONN)
        return (tp.daddr, tp.dport)

    def setsockopt(self, level: int, opt: int, value: int | bytes) -> None:
        """Set an option; see ``tcp.options``."""
        prot = self._prot
        if self._handle not in prot.socks and tcp_nodelay_parked(
            prot, self._handle, level, opt, value
        ):
            return
        tcp_setsockopt(self._live(), level, opt, value)

    def getsockopt(self, level: int, opt: int, buflen: int = 0) -> int | bytes:
        """Return an option; see ``tcp.options``."""
        return tcp_getsockopt(self._live(), level, opt, buflen)

    @property
    def established(self) -> bool:
        """Whether the connection is ESTABLISHED."""
        sk = self._open()
        return sk is not None and sk.tp.state == TCP_ESTABLISHED


def _traced_connect(sk: TcpSock, addr: int, port: int) -> None:
    fine_us = sk.prot.clock.fine_us
    began_us = fine_us()
    try:
        tcp_v4_connect(sk, addr, port)
    finally:
        sk.prot.trace_connect(fine_us() - began_us)
