"""A half-open connection on a listener's SYN queue, until the third ACK makes it a socket.

``RequestSock`` and its SYN-ACK: sent, repeated, given up. ``conn_request.py`` makes requests
out of SYNs, ``check_req.py`` judges what comes next from the peer (net/ipv4/tcp_minisocks.c,
inet_connection_sock.c).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ustack.core.timer import Timer
from ustack.ipv4.route import ip_route_output
from ustack.lib.seqnum import SEQ_MASK
from ustack.native.lib import ffi, lib
from ustack.tcp.cookies import cookie_init_timestamp
from ustack.tcp.ip_header import IpHeader, ip_dont_fragment, tcp_reqsk_tos
from ustack.tcp.md5 import tcp_md5_do_lookup
from ustack.tcp.rtt import TCP_RTO_MAX_US, TCP_TIMEOUT_INIT_US
from ustack.tcp.transmit import tcp_v4_send_bare
from ustack.tcp.window import tcp_initial_clamp, tcp_select_initial_window
from ustack.wire.tcp import (
    ACK,
    ECE,
    SYN,
    TCP_MSS_DEFAULT,
    TCPOLEN_TSTAMP_ALIGNED,
    FastopenOption,
    Segment,
    syn_options,
)

if TYPE_CHECKING:
    from ustack.ipv4.route import Route
    from ustack.tcp.listen import ListenQueues
    from ustack.tcp.protocol import FlowKey, TcpProt
    from ustack.tcp.sock import TcpSock

"""RFC 9293 §3.7.1: what an absent MSS option means."""
TCP_SYNQ_INTERVAL_US = 200_000
"""linux-3.10: how often a listener looks for SYN-ACKs to repeat."""


class RequestSock:
    """One request: a view of the C struct, which is all that stays; equal are those of one."""

    __slots__ = ("lsk", "prot", "req", "sk")

    def __init__(self, lsk: TcpSock, req: Any = None) -> None:
        """Look at a listener's request, or make one that is on no queue.

        Raises:
            MemoryError: the arena is full.
        """
        self.prot: TcpProt = lsk.prot
        self.lsk = lsk
        self.req: Any = self.prot.request_cache.alloc() if req is None else req
        self.sk: TcpSock | None = None
        """Fast Open: the child, until the application accepts it."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RequestSock) and self.req == other.req

    def __hash__(self) -> int:
        return hash(self.req)

    @property
    def key(self) -> FlowKey:
        """The four-tuple: own address and port, the peer's address and port."""
        req = self.req
        return (req.loc_addr, req.loc_port, req.rmt_addr, req.rmt_port)

    def free(self) -> None:
        """Give back the memory of a request that is on no queue (reqsk_free)."""
        self.prot.request_cache.free(self.req)
        self.req = None


class RequestHash:
    """Requests by four-tuple, those of one listener or of all; reads like a mapping.

    Table and requests are C's (``tcp_reqsk.c``).
    """

    __slots__ = ("_listen", "_prot")

    def __init__(self, prot: TcpProt, listen: Any = ffi.NULL) -> None:
        """Look at the requests of ``listen`` (``struct us_tcp_listen *``), by default all of
        linux-6: a listener of linux-3.10 has them to itself."""
        self._prot = prot
        self._listen = listen

    def get(self, key: FlowKey) -> RequestSock | None:
        """Return the request with this four-tuple."""
        req = lib.us_reqsk_lookup(self._prot.fast.ptr, *key)
        return self._view(req) if req and self._has(req) else None

    def values(self) -> Iterator[RequestSock]:
        """Yield every request, oldest first."""
        ptr = self._prot.fast.ptr
        count = lib.us_reqsk_list(ptr, self._listen, ffi.NULL, 0)
        found = ffi.new("struct us_request_sock *[]", count)
        lib.us_reqsk_list(ptr, self._listen, found, count)
        mine = sorted(filter(self._has, found), key=lambda req: req.generation)
        return map(self._view, mine)

    def items(self) -> Iterator[tuple[FlowKey, RequestSock]]:
        """Yield four-tuples and requests."""
        return ((request.key, request) for request in self.values())

    def _has(self, req: Any) -> bool:
        return req.listen == self._listen if self._listen else not req.in_table

    def _view(self, req: Any) -> RequestSock:
        return RequestSock(self._prot.socks[lib.us_tcp_handle(req.listen.tp)], req)

    def __getitem__(self, key: FlowKey) -> RequestSock:
        request = self.get(key)
        if request is None:
            raise KeyError(key)
        return request

    def __iter__(self) -> Iterator[FlowKey]:
        return (request.key for request in self.values())

    def __len__(self) -> int:
        return int(self._listen.qlen) if self._listen else sum(1 for _ in self.values())


def tcp_openreq_init_rwin(request: RequestSock, rt: Route) -> None:
    """Choose the window of the SYN-ACK, and its scale where the peer takes one."""
    req = request.req
    tp = request.lsk.tp
    mss = min(rt.mtu - 40, tp.user_mss or 65535) - TCPOLEN_TSTAMP_ALIGNED * req.tstamp_ok
    req.rcv_wnd, wscale = tcp_select_initial_window(
        request.prot.config, mss, tp.sk_rcvbuf, tcp_initial_clamp(request.lsk)
    )
    req.rcv_wscale = wscale if req.wscale_ok else 0


def reqsk_timeout_us(req: Any) -> int:
    """Return how long to wait for the answer to the latest SYN-ACK (reqsk_timeout)."""
    return int(min(TCP_TIMEOUT_INIT_US << req.num_timeout, TCP_RTO_MAX_US))


def inet_csk_reqsk_queue_hash_add(request: RequestSock) -> None:
    """Put a request on its listener's SYN queue and start its timer.

    linux-6: it has a timer of its own. linux-3.10: it stands in the listener's table as well,
    which one timer looks through, first a second after the queue was empty.
    """
    prot = request.prot
    queues = _queues(request)
    req = request.req
    table = queues.table
    req.expires_us = prot.clock.now_us + TCP_TIMEOUT_INIT_US
    req.in_table = table is not None
    req.generation = prot.next_generation()
    lib.us_reqsk_queue_add(prot.fast.ptr, queues.c, req)
    if table is None:
        return
    table.chain(prot, request.key)[request.key] = None
    if len(queues.syn_queue) == 1:
        if table.timer is None:
            table.timer = Timer(inet_csk_reqsk_queue_prune, request.lsk)
        prot.timers.mod_timer(table.timer, req.expires_us)


def reqsk_drop(request: RequestSock) -> None:
    """Take a request off the SYN queue and free it (inet_csk_reqsk_queue_drop)."""
    prot = request.prot
    queues = _queues(request)
    lib.us_reqsk_queue_remove(prot.fast.ptr, request.req)
    if request.req.in_table and queues.table is not None:
        table = queues.table
        del table.chain(prot, request.key)[request.key]
        if not queues.syn_queue and table.timer is not None:
            prot.timers.del_timer(table.timer)
    request.free()


def _queues(request: RequestSock) -> ListenQueues:
    queues = request.lsk.listen
    assert queues is not None, "a listener has its queues"
    return queues


# The SYN-ACK.


def tcp_send_synack(
    request: RequestSock, *, cookie: bool = False, fastopen: FastopenOption | None = None
) -> None:
    """Send the SYN-ACK of a request (tcp_make_synack).

    Args:
        cookie: it is a SYN cookie: the timestamp holds options.
        fastopen: a Fast Open cookie to give.
    """
    req = request.req
    prot = request.prot
    seg = Segment(None, req.rmt_addr, req.loc_addr)
    seg.sport, seg.dport = req.rmt_port, req.loc_port
    rt = ip_route_output(prot.ip, req.rmt_addr, req.loc_addr)
    advmss = rt.mtu - 40 if rt is not None else TCP_MSS_DEFAULT
    tstamp = None
    key = tcp_md5_do_lookup(request.lsk, req.rmt_addr)
    if key is not None and req.sack_ok and not cookie:
        req.tstamp_ok = 0  # beside both there is no room for a signed SACK block
    if req.tstamp_ok:
        stamp = cookie_init_timestamp(request) if cookie else prot.tcp_time_stamp()
        tsval = stamp + req.tsoffset & SEQ_MASK
        req.snt_tsval_first = req.snt_tsval_first or tsval
        req.snt_tsval_last = tsval
        tstamp = (tsval, req.ts_recent)
    options = syn_options(
        min(advmss, request.lsk.tp.user_mss or advmss),
        sack_ok=bool(req.sack_ok),
        tstamp=tstamp,
        wscale=req.rcv_wscale if req.wscale_ok else None,
        fastopen=fastopen,
        signed=key is not None,
    )
    flags = SYN | ACK | (ECE if req.ecn_ok else 0)
    lsk = request.lsk
    df = ip_dont_fragment(lsk)
    ident = 0 if df else -1  # ip_build_and_send_pkt: what is never cut needs none
    header = IpHeader(tcp_reqsk_tos(request), lsk.tp.ttl, df, ident)
    tcp_v4_send_bare(prot, seg, req.snt_isn, req.rcv_nxt, flags, req.rcv_wnd, options, key, header)


def tcp_rtx_synack(request: RequestSock) -> None:
    """Repeat the SYN-ACK (tcp_rtx_synack); its answer measures nothing any more (Karn)."""
    request.req.num_retrans = min(request.req.num_retrans + 1, 255)
    request.prot.mib.RetransSegs += 1
    request.prot.mib_ext.TCPSynRetrans += 1
    tcp_send_synack(request)


# Its timer.


def reqsk_run_timers(prot: TcpProt, limit: int) -> int:
    """See to SYN-ACKs that were not answered in time, ``limit`` at most; return how many."""
    ptr = prot.fast.ptr
    fired = 0
    while fired < limit and (req := lib.us_reqsk_expired(ptr)):
        fired += 1
        reqsk_timer_handler(RequestSock(prot.socks[lib.us_tcp_handle(req.listen.tp)], req))
    return fired


def reqsk_timer_handler(request: RequestSock) -> None:
    """linux-6: repeat the SYN-ACK, or give up."""
    if _synack_timeout(request, _fewer_retries(request.lsk)):
        lib.us_reqsk_rearm(request.prot.fast.ptr, request.req)
    else:
        reqsk_drop(request)


def inet_csk_reqsk_queue_prune(lsk: TcpSock) -> None:
    """linux-3.10: look through some chains of the table for SYN-ACKs whose time is over.

    All are looked through twice a second, so a SYN-ACK may be half a second late.
    """
    queues = lsk.listen
    assert queues is not None and queues.table is not None
    table = queues.table
    retries = _fewer_retries(lsk)
    entries = len(table.syn_table)
    now_us = lsk.prot.clock.now_us
    budget = max(2 * (entries // (TCP_TIMEOUT_INIT_US // TCP_SYNQ_INTERVAL_US)), 1)
    for _ in range(budget):
        for key in list(table.syn_table[table.clock_hand]):
            request = queues.syn_queue[key]
            if now_us >= request.req.expires_us and not _synack_timeout(request, retries):
                reqsk_drop(request)
        table.clock_hand = (table.clock_hand + 1) % entries
    if queues.syn_queue and table.timer is not None:
        lsk.prot.timers.mod_timer(table.timer, now_us + TCP_SYNQ_INTERVAL_US)


def _fewer_retries(lsk: TcpSock) -> int:
    """Return how often a SYN-ACK is repeated, less often when old requests clog the queue.

    Half of the room is reserved for young ones.
    """
    queues = lsk.listen
    assert queues is not None
    retries: int = lsk.opts.syn_retries or lsk.prot.config.tcp_synack_retries
    qlen = len(queues.syn_queue)
    if queues.table is not None:
        crowded = bool(qlen >> queues.table.max_qlen_log - 1)
    else:
        crowded = qlen << 1 > max(8, queues.max_ack_backlog)
    if crowded:
        young = queues.qlen_young << 1
        while retries > 2 and qlen >= young:
            retries -= 1
            young <<= 1
    return retries


def _synack_timeout(request: RequestSock, retries: int) -> bool:
    """The peer has been silent for too long; return whether the request stays for another time.

    While TCP_DEFER_ACCEPT waits for data nothing is repeated until its end, when the peer gets
    one more chance (syn_ack_recalc). ``expires_us`` becomes the next time.
    """
    req = request.req
    prot = request.prot
    queues = _queues(request)
    defer = queues.defer_accept
    expire = req.num_timeout >= retries
    resend = True
    if defer:
        expire = expire and (not req.acked or req.num_timeout >= defer)
        resend = not req.acked or req.num_timeout >= defer - 1
    prot.mib_ext.TCPTimeouts += 1
    if expire:
        return False
    if resend:
        tcp_rtx_synack(request)
    if not req.num_timeout:
        queues.c.young -= 1
    req.num_timeout += 1
    req.expires_us = prot.clock.now_us + reqsk_timeout_us(req)
    return True
