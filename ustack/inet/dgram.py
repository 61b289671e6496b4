"""A datagram socket as the application holds it (net/ipv4/af_inet.c, inet_dgram_ops).

Over a UDP, raw or ping sock, with the same calls as ``InetSocket`` where both have them, so
that files, epoll and the API need not tell them apart. Nothing here waits.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from ustack.ipv4.datagram import IpCookie, datagram_route
from ustack.ipv4.fib import RTN_BROADCAST
from ustack.lib.addresses import INADDR_BROADCAST, is_multicast
from ustack.lib.socket_error import socket_error
from ustack.sock.dgram import (
    MSG_PEEK,
    Address,
    Datagram,
    DgramSock,
    skb_queue_purge,
    skb_recv_datagram,
)
from ustack.sock.dgram_options import (
    IP_PKTINFO,
    IP_RECVERR,
    IP_TOS,
    IP_TTL,
    IPPROTO_IP,
    Getters,
    Setters,
    dgram_getsockopt,
    dgram_setsockopt,
)
from ustack.sock.sock import RCV_SHUTDOWN, SHUTDOWN_MASK
from ustack.sock.wait import (
    EPOLLERR,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    EPOLLRDHUP,
    EPOLLRDNORM,
    EPOLLWRBAND,
    EPOLLWRNORM,
    WaitQueue,
)

AF_INET = 2
SOL_SOCKET = 1
SO_TYPE = 3
SCM_RIGHTS, SCM_CREDENTIALS = 1, 2
"""Ancillary data of Unix sockets, which IP ignores."""
MSG_TRUNC = 0x20
MSG_DONTWAIT = 0x40
MSG_ERRQUEUE = 0x2000
SIOCINQ = 0x541B
SIOCOUTQ = 0x5411

_PKTINFO = struct.Struct("=iII")
Ancillary = tuple[int, int, bytes]


class Message(NamedTuple):
    """What recvmsg() found."""

    data: bytes
    """As much of the datagram as was asked for."""
    length: int
    """Bytes of the whole datagram."""
    address: Address | None
    ancillary: list[Ancillary]
    flags: int
    """MSG_TRUNC: it was longer; MSG_ERRQUEUE: it is an error."""


END = Message(b"", 0, None, [], 0)
"""Nothing more is received: SHUT_RD."""


class DgramSocket:
    """A non-blocking datagram socket (struct socket)."""

    __slots__ = (
        "_getters", "_setters", "_sk", "closed", "family", "on_release", "protocol", "type", "wq",
    )  # fmt: skip

    def __init__(self, sk: DgramSock, type: int, setters: Setters, getters: Getters) -> None:
        self._sk = sk
        self._setters = setters
        self._getters = getters
        self.wq: WaitQueue = sk.wq
        self.family = AF_INET
        self.type = type
        self.protocol = sk.protocol
        self.closed = False
        self.on_release: list[Callable[[DgramSocket], None]] = []
        """Called at the last close: eventpoll takes its item away (eventpoll_release)."""

    def _live(self) -> DgramSock:
        if self.closed:
            raise socket_error(errno.EBADF)
        return self._sk

    # Names and peers.

    def bind(self, addr: int, port: int) -> None:
        """Take a local address and port, any port if it is 0 (__inet_bind).

        Raises:
            OSError: EINVAL, it has one; EADDRNOTAVAIL, the address is neither ours nor a
                broadcast or multicast address; EADDRINUSE.
        """
        sk = self._live()
        local = not addr or sk.ip.is_local_address(addr)
        if not local and not self._is_to_many(sk, addr):
            raise socket_error(errno.EADDRNOTAVAIL)
        if sk.connected or sk.port_locked or (sk.sport and not sk.binds_late):
            raise socket_error(errno.EINVAL)
        sk.rehash(addr)
        sk.saddr = addr if local else 0
        if not (sk.sport and sk.binds_late):
            try:
                sk.get_port(port)
            except OSError:
                sk.saddr = sk.rcv_saddr = 0
                raise
        sk.addr_locked = bool(addr)
        sk.port_locked = bool(port) and not sk.binds_late

    def _is_to_many(self, sk: DgramSock, addr: int) -> bool:
        entry = sk.ip.fib.local.lookup(addr)
        broadcast = entry is not None and entry.rt_type == RTN_BROADCAST
        return broadcast or addr == INADDR_BROADCAST or is_multicast(addr)

    def connect(self, addr: int, port: int) -> None:
        """Talk to one peer only from now on; to another one if called again (ip4_datagram_connect).

        Raises:
            OSError: ENETUNREACH; EACCES, a broadcast without SO_BROADCAST; EAGAIN, no port is
                free.
        """
        sk = self._live()
        if not sk.sport:
            try:
                sk.get_port(0)
            except OSError:
                raise socket_error(errno.EAGAIN) from None
        rt = datagram_route(sk.ip, addr, sk.cookie())
        sk.saddr = sk.saddr or rt.saddr
        if not sk.rcv_saddr:
            sk.rehash(rt.saddr)
        sk.daddr, sk.dport = rt.daddr, port
        sk.connected = True

    def disconnect(self) -> None:
        """Talk to anybody again: connect() to AF_UNSPEC (__udp_disconnect)."""
        sk = self._live()
        sk.connected = False
        sk.daddr = sk.dport = 0
        if not sk.addr_locked:
            sk.saddr = 0
            sk.rehash(0)
        if not sk.port_locked:
            sk.unhash()

    def listen(self, backlog: int = 128) -> None:
        """EOPNOTSUPP (sock_no_listen)."""
        raise socket_error(errno.EOPNOTSUPP)

    def accept(self) -> Any:
        """EOPNOTSUPP (sock_no_accept)."""
        raise socket_error(errno.EOPNOTSUPP)

    def getsockname(self) -> Address:
        """Return the local address and port; zeros while there are none."""
        sk = self._live()
        return sk.rcv_saddr or sk.saddr, sk.sport

    def getpeername(self) -> Address:
        """Return the peer's address and port.

        Raises:
            OSError: ENOTCONN.
        """
        sk = self._live()
        if not sk.dport or not sk.connected:
            raise socket_error(errno.ENOTCONN)
        return sk.daddr, sk.dport

    # Sending.

    def send(self, data: Any, flags: int = 0) -> int:
        """Send a datagram to the peer; return its length."""
        return self.sendmsg(data, flags)

    def sendmsg(
        self,
        data: Any,
        flags: int = 0,
        to: Address | None = None,
        ancillary: Iterable[Ancillary] = (),
    ) -> int:
        """Send a datagram to ``to``, or to the peer.

        Raises:
            OSError: as the protocol's ``sendmsg``; EINVAL, ancillary data that is none.
        """
        sk = self._live()
        cookie = sk.cookie()
        for level, kind, value in ancillary:
            if level == IPPROTO_IP:
                _ip_cmsg_send(cookie, kind, value)
            elif level == SOL_SOCKET and kind not in (SCM_RIGHTS, SCM_CREDENTIALS):
                raise socket_error(errno.EINVAL)
        return sk.sendmsg(bytes(data), to, flags, cookie)

    # Receiving.

    def recvmsg(self, n: int, flags: int = 0) -> Message:
        """Receive one datagram, or with MSG_ERRQUEUE one error.

        Raises:
            BlockingIOError: there is none. OSError: the pending error.
        """
        sk = self._live()
        if flags & MSG_ERRQUEUE:
            return _ip_recv_error(sk, n)
        datagram = skb_recv_datagram(sk, flags)
        if datagram is None:
            if flags & MSG_DONTWAIT:
                raise socket_error(errno.EAGAIN)
            return END
        sk.received(peeking=bool(flags & MSG_PEEK))
        data = datagram.data
        ancillary = _ip_cmsg_recv(sk, datagram)
        address = (datagram.saddr, datagram.sport)
        cut = len(data) > n
        return Message(data[:n] if cut else data, len(data), address, ancillary, cut * MSG_TRUNC)

    def recv(self, n: int, flags: int = 0) -> bytes:
        """Receive one datagram, cut to ``n`` bytes."""
        return self.recvmsg(n, flags).data

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """Receive one datagram into ``buffer``; return its length (with MSG_TRUNC, uncut)."""
        view = memoryview(buffer).cast("B")
        message = self.recvmsg(nbytes or view.nbytes, flags)
        view[: len(message.data)] = message.data
        return message.length if flags & MSG_TRUNC else len(message.data)

    def rcv_ready(self, target: int, flags: int = 0) -> bool:
        """Whether a read need not wait: for a datagram, an error or the end."""
        sk = self._live()
        return bool(sk.receive_queue or sk.sk_err or sk.shutdown & RCV_SHUTDOWN)

    @property
    def has_datagram(self) -> bool:
        """Whether there is one to read."""
        return bool(self._sk.receive_queue)

    @property
    def has_error(self) -> bool:
        """Whether the next call reports an error."""
        return bool(self._sk.sk_err)

    def report_error(self, error: int) -> None:
        """Have the next call report ``error``."""
        self._sk.sk_err = error
        self._sk.sk_error_report()

    def count_ahead(self, in_hand: Callable[[], int]) -> None:
        """Count memory that ``in_hand`` tells against SO_RCVBUF: of what was taken ahead of
        the application's reads."""
        self._sk.rmem_ahead = in_hand

    # Closing.

    def shutdown(self, how: int) -> None:
        """Close one direction or both (inet_shutdown): blocked readers find the end.

        Raises:
            OSError: EINVAL, no such direction; ENOTCONN, not connected: it is done all the same.
        """
        sk = self._live()
        if how not in (0, 1, 2):
            raise socket_error(errno.EINVAL)
        sk.shutdown |= how + 1
        sk.sk_state_change()
        if not sk.connected:
            raise socket_error(errno.ENOTCONN)

    def close(self) -> None:
        """Let go of the socket and of all that it has not read. Twice is once."""
        if self.closed:
            return
        for release in tuple(self.on_release):
            release(self)
        self.closed = True
        sk = self._sk
        sk.unhash()
        skb_queue_purge(sk)

    # Asking.

    def poll(self) -> int:
        """Return the poll events that are true now (datagram_poll)."""
        if self.closed:
            return EPOLLERR | EPOLLHUP
        sk = self._sk
        mask = EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND
        if sk.sk_err or sk.error_queue:
            mask |= EPOLLERR
        if sk.shutdown & RCV_SHUTDOWN:
            mask |= EPOLLRDHUP | EPOLLIN | EPOLLRDNORM
        if sk.shutdown == SHUTDOWN_MASK:
            mask |= EPOLLHUP
        if sk.receive_queue:
            mask |= EPOLLIN | EPOLLRDNORM
        return mask

    def ioctl(self, request: int) -> int:
        """Answer SIOCINQ, the next datagram's length, or SIOCOUTQ (udp_ioctl).

        Raises:
            OSError: ENOTTY, another request.
        """
        sk = self._live()
        if request == SIOCINQ:
            return len(sk.receive_queue[0].data) if sk.receive_queue else 0
        if request == SIOCOUTQ:
            return 0
        raise socket_error(errno.ENOTTY)

    @property
    def rcvlowat(self) -> int:
        """1: a datagram is read whole, whatever SO_RCVLOWAT says."""
        return 1

    @property
    def linger_s(self) -> int | None:
        """None: there is nothing to linger for."""
        return None

    def send_queue_empty(self) -> bool:
        """Always: datagrams are not acknowledged."""
        return True

    def setsockopt(self, level: int, opt: int, value: int | bytes) -> None:
        """Set an option; see ``sock.dgram_options``."""
        dgram_setsockopt(self._live(), self._setters, level, opt, value)

    def getsockopt(self, level: int, opt: int, buflen: int = 0) -> int | bytes:
        """Return an option; see ``sock.dgram_options``."""
        if (level, opt) == (SOL_SOCKET, SO_TYPE):
            return struct.pack("i", self.type)[:buflen] if buflen else self.type
        return dgram_getsockopt(self._live(), self._getters, level, opt, buflen)


def _ip_cmsg_send(cookie: IpCookie, kind: int, value: bytes) -> None:
    """Take what sendmsg() says beside the data: source address, TTL, TOS (ip_cmsg_send)."""
    if kind == IP_PKTINFO and len(value) == _PKTINFO.size:
        cookie.saddr = int.from_bytes(value[4:8], "big") or cookie.saddr
    elif kind == IP_TTL and len(value) == 4 and 1 <= int.from_bytes(value, "little") <= 255:
        cookie.ttl = value[0]
    elif kind == IP_TOS and len(value) in (1, 4):
        cookie.tos = value[0]
    else:
        raise socket_error(errno.EINVAL)


def _ip_cmsg_recv(sk: DgramSock, datagram: Datagram) -> list[Ancillary]:
    """Return what the options ask to be told of a datagram (ip_cmsg_recv)."""
    found: list[Ancillary] = []
    if sk.pktinfo:
        address = datagram.daddr.to_bytes(4, "big")
        ours = address if sk.ip.is_local_address(datagram.daddr) else sk.saddr.to_bytes(4, "big")
        index = datagram.ifindex.to_bytes(4, "little")
        found.append((IPPROTO_IP, IP_PKTINFO, index + ours + address))
    if sk.recvttl:
        found.append((IPPROTO_IP, IP_TTL, struct.pack("i", datagram.ttl)))
    if sk.recvtos:
        found.append((IPPROTO_IP, IP_TOS, bytes([datagram.tos])))
    return found


def _ip_recv_error(sk: DgramSock, n: int) -> Message:
    """Take an error from the error queue (ip_recv_error)."""
    if not sk.error_queue:
        raise socket_error(errno.EAGAIN)
    error = sk.error_queue.popleft()
    offender = struct.pack("=H", AF_INET if error.offender else 0) + struct.pack(
        "!HI8x", 0, error.offender
    )
    ancillary = [(IPPROTO_IP, IP_RECVERR, error.extended + offender)]
    flags = MSG_ERRQUEUE | (MSG_TRUNC if len(error.data) > n else 0)
    address = (error.addr, error.port)
    return Message(error.data[:n], len(error.data), address, ancillary, flags)
