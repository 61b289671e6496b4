"""What UDP, raw and ping sockets have in common: a queue of datagrams (net/core/datagram.c).

A protocol's handler calls ``sock_queue_rcv_skb``; ``skb_recv_datagram`` takes a datagram out
for ``inet.dgram``. Each datagram counts against SO_RCVBUF with the memory that Linux would
hold for it, so that a queue is full after as many.
"""

from __future__ import annotations

import errno
import struct
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from ustack.ipv4.datagram import IP_PMTUDISC_WANT, IpCookie
from ustack.lib.socket_error import socket_error
from ustack.sock.sock import RCV_SHUTDOWN, Sock
from ustack.sock.wait import EPOLLERR

if TYPE_CHECKING:
    from ustack.core.net import Net
    from ustack.core.skb import Skb
    from ustack.ipv4.protocol import Ipv4

SK_BUFF_BYTES = 256
"""sizeof(struct sk_buff), as slabinfo has it."""
SHARED_INFO_BYTES = 320
HEADROOM_BYTES = 64
"""NET_SKB_PAD, in front of every frame."""
LINK_AND_NETWORK_BYTES = 34
PAGE_BYTES = 4096

SO_EE_ORIGIN_LOCAL = 1
SO_EE_ORIGIN_ICMP = 2
EXTENDED_ERR = struct.Struct("=IBBBBII")
"""struct sock_extended_err: errno, origin, type, code, pad, info, data."""

MSG_PEEK = 0x2
_TOS_AT, _TTL_AT = 1, 8
Address = tuple[int, int]


def skb_truesize(transport_bytes: int) -> int:
    """Return what a received packet of so many bytes occupies (SKB_TRUESIZE)."""
    need = HEADROOM_BYTES + LINK_AND_NETWORK_BYTES + transport_bytes + SHARED_INFO_BYTES
    if need <= 2 * PAGE_BYTES:
        return SK_BUFF_BYTES + max(512, 1 << (need - 1).bit_length())
    return SK_BUFF_BYTES + -(-need // PAGE_BYTES) * PAGE_BYTES


class Datagram:
    """One datagram in a receive queue, with what its headers said."""

    __slots__ = ("daddr", "data", "ifindex", "saddr", "sport", "tos", "truesize", "ttl")

    def __init__(self, data: bytes, saddr: int, sport: int, daddr: int) -> None:
        self.data = data
        self.saddr = saddr
        self.sport = sport
        self.daddr = daddr
        self.ttl = 0
        self.tos = 0
        self.ifindex = 0
        self.truesize = skb_truesize(len(data))

    def note_header(self, skb: Skb) -> None:
        """Keep what ancillary data may tell: the device, TTL and TOS."""
        self.tos = skb.data[skb.network_offset + _TOS_AT]
        self.ttl = skb.data[skb.network_offset + _TTL_AT]
        self.ifindex = skb.dev.ifindex if skb.dev is not None else 0


class QueuedError:
    """One ICMP error in a socket's error queue (struct sock_exterr_skb)."""

    __slots__ = ("addr", "data", "extended", "offender", "port")

    def __init__(self, data: bytes, addr: int, port: int, extended: bytes, offender: int) -> None:
        self.data = data
        self.addr = addr
        self.port = port
        """Where the datagram went that it is about."""
        self.extended = extended
        self.offender = offender


class DgramSock(Sock):
    """A socket whose unit is the datagram."""

    __slots__ = (
        "addr_locked", "connected", "daddr", "dport", "drops", "error_queue", "hdrincl", "ip",
        "net", "no_check_tx", "pktinfo", "pmtudisc", "port_locked", "protocol", "rcv_saddr",
        "rcvbuf", "rcvlowat", "receive_queue", "recverr", "recvtos", "recvttl", "rmem_ahead",
        "rmem_alloc", "saddr", "shutdown", "sk_broadcast", "sndbuf", "sport", "tos", "ttl",
    )  # fmt: skip

    def __init__(self, net: Net, ip: Ipv4, protocol: int) -> None:
        super().__init__()
        self.net = net
        self.ip = ip
        self.protocol = protocol
        self.saddr = 0
        """What packets have as their source (inet_saddr); 0: the route's."""
        self.rcv_saddr = 0
        """Which destination packets must have (inet_rcv_saddr); 0: any."""
        self.sport = 0
        """Our port, of a raw socket its protocol, of a ping socket its identifier."""
        self.daddr = 0
        self.dport = 0
        self.connected = False
        self.shutdown = 0
        """RCV_SHUTDOWN and SEND_SHUTDOWN."""
        self.addr_locked = False
        """bind() named the address: disconnecting keeps it (SOCK_BINDADDR_LOCK)."""
        self.port_locked = False
        self.receive_queue: deque[Datagram] = deque()
        self.rmem_alloc = 0
        """Bytes that the receive queue occupies."""
        self.rmem_ahead: Callable[[], int] | None = None
        """Tells what datagrams occupy that are no longer in the queue, but not read either."""
        self.rcvbuf = net.config.core.rmem_default
        self.sndbuf = net.config.core.wmem_default
        self.rcvlowat = 1
        self.drops = 0
        """Datagrams for which there was no room (sk_drops)."""
        self.error_queue: deque[QueuedError] = deque()
        self.sk_broadcast = False
        """SO_BROADCAST."""
        self.no_check_tx = False
        """SO_NO_CHECK: send without a checksum."""
        self.tos = 0
        self.ttl = 0
        """IP_TTL; 0: ip_default_ttl."""
        self.pmtudisc = IP_PMTUDISC_WANT
        self.recverr = False
        """IP_RECVERR: errors are queued, and reported though nobody is connected."""
        self.pktinfo = self.recvttl = self.recvtos = False
        """IP_PKTINFO, IP_RECVTTL and IP_RECVTOS: ancillary data of what is received."""
        self.hdrincl = False
        """IP_HDRINCL, of raw sockets."""

    # What a protocol says of itself.

    binds_late = False
    """It has its number from the start, and bind() gives it an address only (raw sockets)."""

    def rmem_schedule(self, size: int) -> bool:
        """Whether the protocol has memory for ``size`` bytes more (sk_rmem_schedule)."""
        del size
        return True

    def rmem_uncharge(self, size: int) -> None:
        """``size`` bytes have left the receive queue (sk_mem_uncharge)."""

    def received(self, *, peeking: bool) -> None:
        """The application has a datagram."""

    def get_port(self, port: int) -> None:
        """Take a local port, any if it is 0 (sk_prot->get_port).

        Raises:
            OSError: EADDRINUSE.
        """

    def unhash(self) -> None:
        """Be found no longer, and give the port back (sk_prot->unhash)."""

    def rehash(self, rcv_saddr: int) -> None:
        """Be found under another address from now on (sk_prot->rehash)."""
        self.rcv_saddr = rcv_saddr

    def sendmsg(self, data: bytes, to: Address | None, flags: int, cookie: IpCookie) -> int:
        """Send a datagram, to ``to`` or to whom we are connected (sk_prot->sendmsg)."""
        raise socket_error(errno.EOPNOTSUPP)

    def cookie(self) -> IpCookie:
        """Return how datagrams go, as the options say (ipcm_init_sk)."""
        return IpCookie(self.saddr, self.tos, self.ttl, self.pmtudisc, self.sk_broadcast)


def sk_rmem_alloc_get(sk: DgramSock) -> int:
    """Return the bytes that count against SO_RCVBUF."""
    return sk.rmem_alloc + (sk.rmem_ahead() if sk.rmem_ahead is not None else 0)


def sock_queue_rcv_skb(sk: DgramSock, datagram: Datagram) -> int:
    """Queue what has come (__udp_enqueue_schedule_skb).

    An empty queue takes one datagram, however small the buffer is.

    Returns:
        0; ENOMEM, the buffer is full; ENOBUFS, the protocol may have no more memory.
    """
    rmem = sk.rmem_alloc if sk.rmem_ahead is None else sk_rmem_alloc_get(sk)
    size = datagram.truesize
    if rmem and rmem + size > sk.rcvbuf:
        sk.drops += 1
        return errno.ENOMEM
    if not sk.rmem_schedule(size):
        sk.drops += 1
        return errno.ENOBUFS
    sk.rmem_alloc += size
    sk.receive_queue.append(datagram)
    sk.sk_data_ready()
    return 0


def skb_queue_purge(sk: DgramSock) -> None:
    """Drop all that waits to be read (inet_sock_destruct)."""
    sk.receive_queue.clear()
    sk.error_queue.clear()
    sk.rmem_uncharge(sk.rmem_alloc)
    sk.rmem_alloc = 0


def skb_recv_datagram(sk: DgramSock, flags: int) -> Datagram | None:
    """Take the first datagram, or look at it with MSG_PEEK.

    Returns:
        None at the end: nothing more is received (SHUT_RD).

    Raises:
        BlockingIOError: there is none. OSError: the pending error.
    """
    if sk.sk_err:
        raise socket_error(sk.take_error())
    queue = sk.receive_queue
    if not queue:
        if sk.shutdown & RCV_SHUTDOWN:
            return None
        raise socket_error(errno.EAGAIN)
    if flags & MSG_PEEK:
        return queue[0]
    datagram = queue.popleft()
    sk.rmem_uncharge(datagram.truesize)
    sk.rmem_alloc -= datagram.truesize
    return datagram


def ip_icmp_error(
    sk: DgramSock, icmp_type: int, code: int, err: int, info: int, payload: bytes, to: Address
) -> None:
    """Queue an ICMP error for who asked for it (IP_RECVERR).

    Args:
        payload: what the error quotes of our datagram's payload.
        to: where that datagram went.
    """
    extended = EXTENDED_ERR.pack(err, SO_EE_ORIGIN_ICMP, icmp_type, code, 0, info, 0)
    _queue_error(sk, QueuedError(payload, *to, extended, sk.ip.icmp.error_from))


def ip_local_error(sk: DgramSock, err: int, info: int, to: Address) -> None:
    """Queue an error that we have found ourselves: a datagram larger than the path's MTU."""
    if sk.recverr:
        extended = EXTENDED_ERR.pack(err, SO_EE_ORIGIN_LOCAL, 0, 0, 0, info, 0)
        _queue_error(sk, QueuedError(b"", *to, extended, 0))


def _queue_error(sk: DgramSock, error: QueuedError) -> None:
    room = sk.rcvbuf // skb_truesize(0)
    if len(sk.error_queue) < room:
        sk.error_queue.append(error)
        sk.wq.wake_up(EPOLLERR)
