"""Who has which local port (Linux's bhash) and how a free one is chosen.

``inet_csk_get_port`` serves bind(), ``inet_hash_connect`` serves connect() without bind().
linux-6 (since 4.2) keeps the two apart by parity: connect() tries the ports of the same
parity as the range's first, bind(0) the others, each falling back to the rest.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from ustack.lib.socket_error import socket_error
from ustack.native.siphash import siphash_2u64
from ustack.tcp.states import TCP_LISTEN

if TYPE_CHECKING:
    from ustack.tcp.protocol import TcpProt
    from ustack.tcp.sock import TcpSock


class BindBucket:
    """One port in use (struct inet_bind_bucket) and the sockets on it."""

    __slots__ = ("by_connect", "owners", "port")

    def __init__(self, port: int, *, by_connect: bool) -> None:
        self.port = port
        self.owners: dict[object, None] = {}
        """TcpSocks and TimewaitSocks, in the order they came."""
        self.by_connect = by_connect
        """Made by connect(): shared by four-tuples that differ (fastreuse -1)."""


def bind_bucket_add(prot: TcpProt, owner: object, port: int, *, by_connect: bool) -> BindBucket:
    """Put ``owner`` on ``port``'s bucket, making the bucket if need be."""
    bucket = prot.bhash.get(port)
    if bucket is None:
        bucket = prot.bhash[port] = BindBucket(port, by_connect=by_connect)
    bucket.owners[owner] = None
    return bucket


def bind_bucket_remove(prot: TcpProt, owner: object, bucket: BindBucket) -> None:
    """Take ``owner`` off its bucket; an empty bucket goes."""
    del bucket.owners[owner]
    if not bucket.owners and prot.bhash.get(bucket.port) is bucket:
        del prot.bhash[bucket.port]


def inet_csk_bind_conflict(sk: TcpSock, addr: int, bucket: BindBucket) -> bool:
    """Whether ``sk`` may not share the port with its other owners."""
    for other in bucket.owners:
        if other is sk:
            continue
        other_addr = getattr(other, "bind_addr", 0)
        if addr and other_addr and addr != other_addr:
            continue
        if sk.reuse and getattr(other, "reuse", False) and getattr(other, "state", 0) != TCP_LISTEN:
            continue
        if not (sk.reuseport and getattr(other, "reuseport", False)):
            return True
    return False


def inet_csk_get_port(prot: TcpProt, sk: TcpSock, addr: int, port: int) -> None:
    """Give ``sk`` the local port ``port``, or a free one if it is 0.

    Raises:
        OSError: EADDRINUSE, another socket has it or none is free (the application's).
    """
    if not port:
        port = _find_open_port(prot, sk, addr)
    else:
        bucket = prot.bhash.get(port)
        if bucket is not None and inet_csk_bind_conflict(sk, addr, bucket):
            raise socket_error(errno.EADDRINUSE)
        sk.port_locked = True
    sk.bind_bucket = bind_bucket_add(prot, sk, port, by_connect=False)
    sk.bind_addr = addr
    sk.tp.sport = port


def _find_open_port(prot: TcpProt, sk: TcpSock, addr: int) -> int:
    low, high = prot.config.ip_local_port_range
    remaining = high - low + 1
    start = prot.rng.randrange(remaining)
    for parity in (1, 0):
        for i in range(remaining):
            port = low + (start + i) % remaining
            if (port - low) & 1 != parity:
                continue
            bucket = prot.bhash.get(port)
            if bucket is None or not inet_csk_bind_conflict(sk, addr, bucket):
                return port
    raise socket_error(errno.EADDRINUSE)


def inet_hash_connect(prot: TcpProt, sk: TcpSock) -> None:
    """Choose the local port of a connecting socket and put it into the established hash.

    The walk starts at a keyed hash of the addresses (RFC 6056 §3.3.3) plus a hint that moves
    on with every connection, and takes the first port on which the four-tuple is free.

    Raises:
        OSError: EADDRNOTAVAIL, the range is used up towards this destination.
    """
    tp = sk.tp
    if sk.bind_bucket is not None:
        if prot.established_lookup(sk.key) is not None:
            raise socket_error(errno.EADDRNOTAVAIL)
        prot.ehash[sk.key] = sk
        return
    low, high = prot.config.ip_local_port_range
    remaining = high - low + 1
    digest = siphash_2u64(prot.secret, tp.saddr << 32 | tp.daddr, tp.dport)
    start = (digest + prot.port_hint) % remaining & ~1
    for parity in (0, 1):
        for i in range(0, remaining, 2):
            offset = (start + i + parity) % remaining
            port = low + offset
            bucket = prot.bhash.get(port)
            if bucket is not None and not bucket.by_connect:
                continue
            key = (tp.saddr, port, tp.daddr, tp.dport)
            if bucket is not None and prot.established_lookup(key) is not None:
                continue
            prot.port_hint += i + 2
            tp.sport = port
            sk.bind_bucket = bind_bucket_add(prot, sk, port, by_connect=True)
            prot.ehash[key] = sk
            return
    raise socket_error(errno.EADDRNOTAVAIL)
