"""Who has which local port (Linux's bhash), and which sockets may share one.

``inet_csk_get_port`` serves bind() and listen(); ``hash_connect.py`` finds ports for connect()
without bind(). The rules are ``inet_csk_bind_conflict``'s: SO_REUSEADDR lets sockets share a
port of which none listens, SO_REUSEPORT lets those share it that all asked for it.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from ustack.config import LINUX_310
from ustack.lib.socket_error import socket_error
from ustack.native.lib import lib
from ustack.tcp.states import TCP_ESTABLISHED, TCP_LISTEN

if TYPE_CHECKING:
    from ustack.tcp.protocol import TcpProt
    from ustack.tcp.sock import TcpSock

NOBODY_BOUND = -1
"""``fastreuse`` and ``fastreuseport`` of a port that only connect() has given out."""
FASTREUSEPORT_ANY = 1
FASTREUSEPORT_STRICT = 2


class Sharer(NamedTuple):
    """What a connection's port may be shared by: all that are alike stand in a bucket as one."""

    rcv_saddr: int
    reuse: bool
    reuseport: bool
    by_connect: bool
    state: int = TCP_ESTABLISHED
    """No listener."""


class BindBucket:
    """One port in use (struct inet_bind_bucket) and the sockets on it."""

    __slots__ = (
        "fast_rcv_saddr",
        "fastreuse",
        "fastreuseport",
        "owners",
        "port",
        "shares",
    )

    def __init__(self, port: int) -> None:
        self.port = port
        self.owners: dict[TcpSock, None] = {}
        """Sockets that bound it, in the order they came."""
        self.shares: dict[Sharer, int] = {}
        """Connections and mini-sockets that came by it through a listener or connect(): the
        number of C's counter for each kind that there has been (struct us_bind_share)."""
        self.fastreuse = NOBODY_BOUND
        """1: all owners have SO_REUSEADDR and none listened when it came; 0: not so."""
        self.fastreuseport = NOBODY_BOUND
        """Whether all owners that bound have SO_REUSEPORT: 0, FASTREUSEPORT_ANY or _STRICT."""
        self.fast_rcv_saddr = 0
        """Their address, where FASTREUSEPORT_STRICT wants it looked at."""

    @property
    def by_connect(self) -> bool:
        """Whether connect() may give the port out again."""
        return self.fastreuse == NOBODY_BOUND and self.fastreuseport == NOBODY_BOUND


def _bind_bucket(prot: TcpProt, port: int) -> BindBucket:
    bucket = prot.bhash.get(port)
    if bucket is None:
        bucket = prot.bhash[port] = BindBucket(port)
    return bucket


def _sharers(prot: TcpProt, bucket: BindBucket) -> list[Sharer]:
    """Return those kinds of which there are connections now."""
    counters = prot.fast.ptr.shares
    return [kind for kind, index in bucket.shares.items() if counters[index].count]


def bind_bucket_add(prot: TcpProt, sk: TcpSock, port: int) -> BindBucket:
    """Put a socket that binds on ``port``'s bucket, made if need be (inet_bind_hash)."""
    bucket = _bind_bucket(prot, port)
    bucket.owners[sk] = None
    return bucket


def _sharer(sk: TcpSock | Sharer) -> Sharer:
    return Sharer(sk.rcv_saddr, sk.reuse, sk.reuseport, sk.by_connect)


def bind_bucket_share(prot: TcpProt, sk: TcpSock | Sharer, rec: Any, port: int) -> BindBucket:
    """Put a connection or a mini-socket on ``port``'s bucket (__inet_inherit_port).

    Args:
        rec: its C struct, which has the share from now on.

    Raises:
        MemoryError: there is none for another kind of connections; nothing has changed.
    """
    bucket = prot.bhash.get(port) or BindBucket(port)
    kind = _sharer(sk)
    index = bucket.shares.get(kind)
    if index is None:
        index = lib.us_bind_share_alloc(prot.fast.ptr, port)
        if not index:
            raise MemoryError("no memory for another kind of connections on a port")
        bucket.shares[kind] = index
        prot.bhash[port] = bucket
    lib.us_bind_share_get(prot.fast.ptr, index)
    rec.bind_share = index
    return bucket


def set_reuse(sk: TcpSock, *, reuse: bool | None = None, reuseport: bool | None = None) -> None:
    """Set SO_REUSEADDR or SO_REUSEPORT; on a connection others are to see it as it is now."""
    bucket = sk.bind_bucket
    shared = bucket if bucket is not None and sk not in bucket.owners else None
    if shared is not None:
        bind_bucket_remove(sk.prot, sk, sk.tp, shared)
    sk.reuse = sk.reuse if reuse is None else reuse
    sk.reuseport = sk.reuseport if reuseport is None else reuseport
    if shared is not None:
        sk.bind_bucket = bind_bucket_share(sk.prot, sk, sk.tp, shared.port)


def bind_bucket_remove(prot: TcpProt, sk: TcpSock, rec: Any, bucket: BindBucket) -> None:
    """Take ``sk``, whose C struct is ``rec``, off its bucket."""
    if rec.bind_share:
        lib.us_bind_share_put(prot.fast.ptr, rec.bind_share)
        rec.bind_share = 0
        bind_buckets_reap(prot)
    else:
        del bucket.owners[sk]
        _settle(prot, bucket)


def bind_buckets_reap(prot: TcpProt) -> None:
    """See to the ports that C has given shares of back: to be called before anybody asks."""
    ptr = prot.fast.ptr
    while ptr.emptied_shares:
        bucket = prot.bhash.get(ptr.shares[lib.us_bind_share_emptied(ptr)].port)
        if bucket is not None:
            _settle(prot, bucket)


def _settle(prot: TcpProt, bucket: BindBucket) -> None:
    """Some have left a port; an empty bucket goes (inet_bind_bucket_destroy).

    Since 6.18 a port is connect()'s again once nobody is left who bound it; before, only
    once nobody at all was.
    """
    if bucket.owners:
        return
    sharers = _sharers(prot, bucket)
    if not sharers:
        if prot.bhash.get(bucket.port) is bucket:
            del prot.bhash[bucket.port]
            for index in bucket.shares.values():
                lib.us_bind_share_free(prot.fast.ptr, index)
    elif prot.profile != LINUX_310 and all(kind.by_connect for kind in sharers):
        bucket.fastreuse = bucket.fastreuseport = NOBODY_BOUND


def inet_rcv_saddr_equal(addr: int, other: int) -> bool:
    """Whether two sockets' addresses overlap; 0 is every address."""
    return addr == other or not addr or not other


def inet_csk_bind_conflict(
    sk: TcpSock, addr: int, bucket: BindBucket, *, relax: bool = True, reuseport_ok: bool = True
) -> bool:
    """Whether ``sk`` may not share the port with its other owners.

    Args:
        relax: the application named the port: SO_REUSEADDR on both sides is enough.
        reuseport_ok: so is SO_REUSEPORT on both sides.
    """
    others: Iterable[TcpSock | Sharer] = chain(bucket.owners, _sharers(sk.prot, bucket))
    return any(
        inet_rcv_saddr_equal(addr, other.rcv_saddr)
        and inet_bind_conflict(sk, other, relax=relax, reuseport_ok=reuseport_ok)
        for other in others
        if other is not sk
    )


def inet_bind_conflict(
    sk: TcpSock, other: TcpSock | Sharer, *, relax: bool, reuseport_ok: bool
) -> bool:
    """Whether two sockets whose addresses overlap may not have the same port."""
    share_port = sk.reuseport and other.reuseport
    if sk.reuse and other.reuse and other.state != TCP_LISTEN:
        return not relax or (not reuseport_ok and share_port)
    return not (reuseport_ok and share_port)


def sk_reuseport_match(bucket: BindBucket, sk: TcpSock, addr: int) -> bool:
    """Whether SO_REUSEPORT alone lets ``sk`` in, without a look at the owners."""
    if bucket.fastreuseport <= 0 or not sk.reuseport:
        return False
    return (
        bucket.fastreuseport == FASTREUSEPORT_ANY
        or not bucket.fast_rcv_saddr
        or bucket.fast_rcv_saddr == addr
    )


def inet_csk_update_fastreuse(
    bucket: BindBucket, sk: TcpSock, addr: int, *, listening: bool = False
) -> None:
    """Note in the bucket what its newest owner, who has bound it, allows others.

    Since the second hash (6.1) Linux takes no owner for the first one here: SO_REUSEADDR has
    no short cut any more, and SO_REUSEPORT's holds for one address.
    """
    reuse = sk.reuse and not listening
    alone = list(bucket.owners) == [sk] and not _sharers(sk.prot, bucket)
    first = alone and sk.prot.profile == LINUX_310
    if first:
        bucket.fastreuse = int(reuse)
    elif alone and bucket.by_connect:
        bucket.fastreuse = bucket.fastreuseport = 0
    elif not reuse:
        bucket.fastreuse = 0
    if not sk.reuseport:
        bucket.fastreuseport = 0
    elif first or not sk_reuseport_match(bucket, sk, addr):
        bucket.fastreuseport = FASTREUSEPORT_ANY if first else FASTREUSEPORT_STRICT
        bucket.fast_rcv_saddr = addr


def inet_csk_get_port(prot: TcpProt, sk: TcpSock, addr: int, port: int) -> None:
    """Give ``sk`` the local port ``port``, or a free one if it is 0.

    Raises:
        OSError: EADDRINUSE, another socket has it or none is free (the application's).
    """
    if not port:
        port = inet_csk_find_open_port(prot, sk, addr)
    else:
        bucket = prot.bhash.get(port)
        if bucket is not None and not inet_csk_may_share(sk, addr, bucket):
            raise socket_error(errno.EADDRINUSE)
        sk.port_locked = True
    sk.bind_bucket = bind_bucket_add(prot, sk, port)
    inet_csk_update_fastreuse(sk.bind_bucket, sk, addr)
    sk.bind_addr = addr
    sk.tp.sport = port


def inet_csk_listen_port(prot: TcpProt, sk: TcpSock) -> None:
    """Make sure of the port of a socket that is to listen: SO_REUSEADDR is not enough now.

    Raises:
        OSError: EADDRINUSE, another listens on it, or none is free (the application's).
    """
    bucket = sk.bind_bucket
    if bucket is None:
        inet_csk_get_port(prot, sk, sk.bind_addr, 0)
        bucket = sk.bind_bucket
    elif not inet_csk_may_share(sk, sk.bind_addr, bucket, listening=True):
        raise socket_error(errno.EADDRINUSE)
    assert bucket is not None
    inet_csk_update_fastreuse(bucket, sk, sk.bind_addr, listening=True)


def inet_csk_may_share(
    sk: TcpSock, addr: int, bucket: BindBucket, *, listening: bool = False
) -> bool:
    """Whether ``sk`` may have a named port that is in use: what the bucket says, or a look."""
    if bucket.fastreuse > 0 and sk.reuse and not listening:
        return True
    return sk_reuseport_match(bucket, sk, addr) or not inet_csk_bind_conflict(sk, addr, bucket)


def inet_csk_find_open_port(prot: TcpProt, sk: TcpSock, addr: int) -> int:
    """Find a port for bind() without one (inet_csk_find_open_port).

    Raises:
        OSError: EADDRINUSE, none is free.
    """
    for relax in (False, True) if prot.config.ip_autobind_reuse else (False,):
        for port in bind_candidates(prot, sk):
            if port in prot.config.ip_local_reserved_ports:
                continue
            bucket = prot.bhash.get(port)
            if bucket is None or not inet_csk_bind_conflict(
                sk, addr, bucket, relax=relax, reuseport_ok=False
            ):
                return port
    raise socket_error(errno.EADDRINUSE)


def inet_sk_local_port_range(prot: TcpProt, sk: TcpSock) -> tuple[int, int]:
    """Return the range of ports to choose from: IP_LOCAL_PORT_RANGE narrows the sysctl's.

    An end of the socket's range that is outside of the sysctl's has no effect
    (inet_sk_get_local_port_range).
    """
    low, high = prot.config.ip_local_port_range
    sk_low, sk_high = sk.opts.local_port_range
    if low <= sk_low <= high:
        low = sk_low
    if low <= sk_high <= high:
        high = sk_high
    return low, high


def bind_candidates(prot: TcpProt, sk: TcpSock) -> Iterator[int]:
    """Yield the ports that bind() without one may take, in the order it tries them.

    3.10 goes through the range from a random port on. Since 4.2 connect() has the ports of the
    parity of the range's first, and bind() begins with the others; with SO_REUSEADDR the lower
    half of the range comes first.
    """
    low, high = inet_sk_local_port_range(prot, sk)
    if prot.profile == LINUX_310:
        span = high - low + 1
        start = prot.rng.randrange(span)
        yield from (low + (start + i) % span for i in range(span))
        return
    high += 1
    parts = [(low, high)]
    if sk.reuse and high - low >= 4:
        half = low + (high - low >> 2 << 1)
        parts = [(low, half), (half, high)]
    for first, end in parts:
        yield from _one_parity_first(first, end, prot.rng.randrange(_span(first, end)) | 1)


def _span(low: int, end: int) -> int:
    """An even number of ports, or the only one."""
    span = end - low
    return span & ~1 if span > 1 else span


def _one_parity_first(low: int, end: int, offset: int) -> Iterator[int]:
    """Yield every second port from ``low + offset`` on, round the range, then the others."""
    span = _span(low, end)
    for begin in (offset, offset - 1):
        port = low + begin
        for _ in range(0, span, 2):
            if port >= end:
                port -= span
            yield port
            port += 2
