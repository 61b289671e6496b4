"""A listener's two queues, SYN queue and accept queue (struct request_sock_queue), and listen().

linux-6: both are bounded by min(backlog, somaxconn) and the test is ``> limit``, so each holds
one more. linux-3.10: the SYN queue is a table whose size is settled at listen()
(``reqsk_queue_alloc``). A listener keeps the rules of the profile it was made under.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from struct import Struct
from typing import TYPE_CHECKING, Any

from ustack.config import LINUX_310
from ustack.lib.socket_error import socket_error
from ustack.native.lib import ffi, lib
from ustack.native.siphash import siphash_2u64
from ustack.tcp.close import tcp_abort, tcp_destroy
from ustack.tcp.fastopen import (
    TFO_SERVER_ENABLE,
    TFO_SERVER_WO_SOCKOPT1,
    FastopenQueue,
    reqsk_fastopen_remove,
)
from ustack.tcp.offer import tcp_withdraw, tcp_withdraw_all
from ustack.tcp.ports import inet_csk_listen_port
from ustack.tcp.request_sock import RequestHash, reqsk_drop
from ustack.tcp.reuseport import inet_hash, inet_unhash
from ustack.tcp.states import TCP_CLOSE, TCP_LISTEN, TcpEvent

if TYPE_CHECKING:
    from ustack.core.timer import Timer
    from ustack.tcp.protocol import FlowKey, TcpProt
    from ustack.tcp.sock import TcpSock

MIN_NR_TABLE_ENTRIES = 8
_ACCEPTED = Struct("=QIIHHI")
"""struct us_tcp_accepted: handle, saddr, daddr, sport, dport, is_left."""


class ListenTable:
    """A 3.10 listener's SYN table (struct listen_sock)."""

    __slots__ = ("clock_hand", "max_qlen_log", "syn_table", "timer")

    def __init__(self, backlog: int, max_syn_backlog: int) -> None:
        entries = reqsk_queue_entries(backlog, max_syn_backlog)
        self.max_qlen_log = max(3, entries.bit_length() - 1)
        self.syn_table: list[dict[FlowKey, None]] = [{} for _ in range(entries)]
        self.clock_hand = 0
        """Chain that the pruning goes on with."""
        self.timer: Timer | None = None
        """Looks for SYN-ACKs to repeat every 200 ms while there are requests."""

    def chain(self, prot: TcpProt, key: FlowKey) -> dict[FlowKey, None]:
        """Return the chain that a peer's request belongs to (inet_synq_hash)."""
        digest = siphash_2u64(prot.secret, key[2], 3 << 32 | key[3])
        return self.syn_table[digest % len(self.syn_table)]


def reqsk_queue_entries(backlog: int, max_syn_backlog: int) -> int:
    """Return the chains of a 3.10 SYN table (reqsk_queue_alloc): at least 16."""
    entries = max(min(backlog, max_syn_backlog), MIN_NR_TABLE_ENTRIES)
    return 1 << entries.bit_length()  # roundup_pow_of_two(entries + 1)


class AcceptQueue:
    """Handles of the children that wait for accept(); the queue is C's."""

    __slots__ = ("_c",)

    def __init__(self, c: Any) -> None:
        self._c = c

    def append(self, handle: int) -> None:
        """Let a child wait (inet_csk_reqsk_queue_add)."""
        if lib.us_acceptq_add(self._c, handle):
            raise MemoryError("no memory for the accept queue")

    def popleft(self) -> int:
        """Take the one that has waited longest."""
        return int(lib.us_acceptq_remove(self._c))

    def __len__(self) -> int:
        return int(self._c.accept_len)

    def __iter__(self) -> Iterator[int]:
        return (lib.us_acceptq_at(self._c, i) for i in range(len(self)))


class ListenQueues:
    """What makes a socket a listener; an option of listeners set before makes it early."""

    __slots__ = (
        "accept_queue",
        "c",
        "defer_accept",
        "fastopen",
        "in_hand",
        "offers",
        "syn_queue",
        "synq_overflow_us",
        "table",
    )

    def __init__(self, sk: TcpSock) -> None:
        c = lib.us_tcp_listen_create(sk.tp)
        if c == ffi.NULL:
            raise MemoryError("no memory for a listener's queues")
        self.c: Any = ffi.gc(c, lib.us_tcp_listen_destroy)
        """struct us_tcp_listen: both queues."""
        self.offers: dict[int, Any] = {}
        """By own address, what C knows of the children there: ``offer.py``."""
        self.syn_queue = RequestHash(sk.prot, self.c)
        self.accept_queue = AcceptQueue(self.c)
        self.table: ListenTable | None = None
        """Of a listener made under linux-3.10."""
        self.defer_accept = 0
        """TCP_DEFER_ACCEPT, as SYN-ACK timeouts to wait for data."""
        self.fastopen: FastopenQueue | None = None
        """TCP_FASTOPEN: None, off."""
        self.synq_overflow_us: int | None = None
        """When a cookie last went out; without one lately no ACK can bring one back."""
        self.in_hand: Callable[[], int] | None = None
        """How many the edge has accepted ahead of an application that has not taken them."""

    @property
    def max_ack_backlog(self) -> int:
        """The limit that listen() has set."""
        return int(self.c.max_ack_backlog)

    @property
    def qlen_young(self) -> int:
        """Requests whose SYN-ACK has not been repeated."""
        return int(self.c.young)

    def ack_backlog(self) -> int:
        """Return how many connections wait for the application (sk_ack_backlog)."""
        if self.in_hand is not None:
            self.c.ahead = self.in_hand()
        return len(self.accept_queue) + int(self.c.ahead)

    def accept_queue_is_full(self) -> bool:
        """sk_acceptq_is_full: one more than the limit fits."""
        return self.ack_backlog() > self.max_ack_backlog

    def syn_queue_is_full(self) -> bool:
        """inet_csk_reqsk_queue_is_full; linux-6: one more than the limit fits."""
        if self.table is not None:
            return bool(len(self.syn_queue) >> self.table.max_qlen_log)
        return len(self.syn_queue) > self.max_ack_backlog

    def syn_queue_limit(self) -> int:
        """Requests that the SYN queue is said to hold, for ``ss``."""
        return 1 << self.table.max_qlen_log if self.table is not None else self.max_ack_backlog

    def drops_syn_for_accept_queue(self) -> bool:
        """Whether a SYN is dropped because of the accept queue.

        linux-6 (since 4.10): whenever it is full. linux-3.10: only if two young requests wait
        for their third ACK already.
        """
        return self.accept_queue_is_full() and (self.table is None or self.qlen_young > 1)


def listen_queues(sk: TcpSock) -> ListenQueues:
    """Return ``sk``'s queues, made now if it has none."""
    if sk.listen is None:
        sk.listen = ListenQueues(sk)
    return sk.listen


def inet_listen(sk: TcpSock, backlog: int) -> None:
    """Make ``sk`` a listener, or change the accept queue's length of one (inet_listen).

    Raises:
        OSError: EINVAL, it is connected; EADDRINUSE, another listener has the port.
    """
    prot = sk.prot
    limit = prot.somaxconn if backlog < 0 else min(backlog, prot.somaxconn)
    if sk.tp.state not in (TCP_CLOSE, TCP_LISTEN):
        raise socket_error(errno.EINVAL)
    if sk.tp.state == TCP_CLOSE:
        _inet_csk_listen_start(sk, limit)
    listen_queues(sk).c.max_ack_backlog = limit


def _inet_csk_listen_start(sk: TcpSock, limit: int) -> None:
    prot = sk.prot
    inet_csk_listen_port(prot, sk)
    queues = listen_queues(sk)
    queues.table = None
    if prot.profile == LINUX_310:
        queues.table = ListenTable(limit, prot.config.tcp_max_syn_backlog)
    everywhere = TFO_SERVER_WO_SOCKOPT1 | TFO_SERVER_ENABLE
    if prot.config.tcp_fastopen & everywhere == everywhere and queues.fastopen is None:
        queues.fastopen = FastopenQueue(limit)
    sk.set_state(TcpEvent.LISTEN)
    inet_hash(sk)
    tcp_withdraw_all(prot, sk.tp.sport)  # it may be nearer than who had all addresses


def inet_csk_accept(sk: TcpSock) -> int:
    """Take the child that has waited longest (inet_csk_accept); return its handle.

    Raises:
        OSError: EINVAL, not a listener; BlockingIOError (EAGAIN), nobody waits.
    """
    if sk.tp.state != TCP_LISTEN or sk.listen is None:
        raise socket_error(errno.EINVAL)
    if not sk.listen.accept_queue:
        raise socket_error(errno.EAGAIN)
    handle = sk.listen.accept_queue.popleft()
    _accept_fastopen(sk.prot, handle)
    return handle


def inet_csk_accept_many(
    sk: TcpSock, limit: int, letters: bool = True
) -> Iterator[tuple[int, ...]]:
    """Take up to ``limit`` children, 64 at most, each for somebody who is told what happens to it.

    Args:
        letters: he is a reader whom the inbox brings its text.

    Returns:
        Of each: handle, own address, the peer's, own port, the peer's, and whether something
        has happened to it, or come for it, that does not lie in the inbox.

    Raises:
        OSError: EINVAL, not a listener.
    """
    if sk.tp.state != TCP_LISTEN or sk.listen is None:
        raise socket_error(errno.EINVAL)
    prot = sk.prot
    if letters:
        prot.inbox.open()
    fast = prot.fast
    genid = prot.ip.fib.genid
    out = fast.accepted
    limit = min(limit, len(out))
    now_us = prot.clock.now_us
    n = lib.us_tcp_accept(fast.ptr, sk.listen.c, out, limit, letters, now_us, genid)
    accepted = _ACCEPTED.iter_unpack(ffi.buffer(out, n * _ACCEPTED.size)[:])
    if not prot.fastopen_rsk:
        return accepted
    records = list(accepted)
    for handle, *_ in records:
        _accept_fastopen(prot, handle)
    return iter(records)


def _accept_fastopen(prot: TcpProt, handle: int) -> None:
    """A child is taken, perhaps before its handshake is over."""
    child = prot.socks.get(handle)
    request = prot.fastopen_rsk.get(child) if child is not None else None
    if request is not None:
        request.sk = None


def inet_csk_listen_stop(sk: TcpSock) -> None:
    """Empty both queues of a listener that goes: requests vanish, children are reset."""
    queues = sk.listen
    if queues is None:
        return
    tcp_withdraw(sk)
    inet_unhash(sk)
    for request in list(queues.syn_queue.values()):
        reqsk_drop(request)
    while queues.accept_queue:
        _inet_child_forget(sk.prot.sock_of(queues.accept_queue.popleft()))
    if queues.fastopen is not None:
        queues.fastopen.forget_resets()
    queues.synq_overflow_us = None


def _inet_child_forget(child: TcpSock) -> None:
    """Reset a child that nobody will ever accept."""
    child.dead = True
    request = child.prot.fastopen_rsk.get(child)
    if request is not None:
        reqsk_fastopen_remove(child, request, reset=False)
    lib.us_bq_purge(child.prot.mem.ptr, child.rcvq)
    tcp_abort(child)
    tcp_destroy(child)
