"""A connection: the C control block and what only some connections need.

``sk.tp`` is the ``struct us_tcp_sock`` that C and Python share; everything here beside it is
either per-socket policy or made on first use. Made by ``TcpProt.create`` (socket()) or by
``tcp_check_req`` (the third ACK), freed by ``tcp_done`` and the last close.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ustack.core.timer import Timer
from ustack.lib.errors import StateError
from ustack.lib.seqnum import SEQ_MASK
from ustack.native.lib import ffi, lib
from ustack.sock.sock import Sock
from ustack.tcp.cong.registry import tcp_cleanup_congestion_control
from ustack.tcp.ip_header import ip_dont_fragment
from ustack.tcp.rtt import TCP_TIMEOUT_INIT_US
from ustack.tcp.states import (
    STATE_NAMES,
    TCP_CLOSE,
    TCP_CLOSE_WAIT,
    TCP_ESTABLISHED,
    TRANSITIONS,
    TcpEvent,
)

if TYPE_CHECKING:
    from ustack.ipv4.route import Route
    from ustack.tcp.cong.ops import CongestionOps
    from ustack.tcp.fastopen_client import FastopenRequest
    from ustack.tcp.listen import ListenQueues
    from ustack.tcp.md5 import Md5Key
    from ustack.tcp.mtu_probe import MtuProbe
    from ustack.tcp.ofo import OutOfOrderQueue
    from ustack.tcp.pacing import Pacing
    from ustack.tcp.ports import BindBucket
    from ustack.tcp.protocol import TcpProt
    from ustack.tcp.scoreboard import Recovery, TxRec
    from ustack.tcp.urgent import UrgentState

ICSK_TIME_NONE = 0
ICSK_TIME_RETRANS = 1
ICSK_TIME_PROBE0 = 3
ICSK_TIME_EARLY_RETRANS = 4
"""linux-3.10: the delay of an early retransmit."""
ICSK_TIME_LOSS_PROBE = 5
"""Tail loss probe (RFC 8985 §7)."""
ICSK_TIME_REO_TIMEOUT = 6
"""RACK's reordering window (RFC 8985 §6.3)."""

CURR_ESTAB = (TCP_ESTABLISHED, TCP_CLOSE_WAIT)


@dataclass(frozen=True, slots=True)
class RareOptions:
    """Options that hardly any socket sets: all share one object until one does.

    Zero, False: not set, the stack's configuration holds.
    """

    keepalive_time_us: int = 0
    """TCP_KEEPIDLE."""
    keepalive_intvl_us: int = 0
    """TCP_KEEPINTVL."""
    keepalive_probes: int = 0
    """TCP_KEEPCNT."""
    syn_retries: int = 0
    """TCP_SYNCNT."""
    linger2_us: int = 0
    """TCP_LINGER2: how long an orphan stays in FIN_WAIT2; -1: it does not."""
    bind_address_no_port: bool = False
    """IP_BIND_ADDRESS_NO_PORT: bind() without a port leaves the port to connect()."""
    local_port_range: tuple[int, int] = (0, 0)
    """IP_LOCAL_PORT_RANGE."""
    thin_lto: bool = False
    """TCP_THIN_LINEAR_TIMEOUTS."""
    pmtudisc: int = -1
    """IP_MTU_DISCOVER; -1: ip_no_pmtu_disc decides."""
    fastopen_connect: bool = False
    """TCP_FASTOPEN_CONNECT: connect() leaves the SYN to the first send()."""
    fastopen_no_cookie: bool = False
    """TCP_FASTOPEN_NO_COOKIE: data in the SYN needs no cookie, either way."""
    peek_off: int = -1
    """SO_PEEK_OFF: where the next MSG_PEEK begins; -1: where reading does."""
    md5_keys: tuple[Md5Key, ...] = ()
    """TCP_MD5SIG: who must sign, and with what."""


NO_OPTIONS = RareOptions()


class TcpSock(Sock):
    """One TCP socket, whatever its state."""

    __slots__ = (
        "bind_addr",
        "bind_bucket",
        "by_connect",
        "ca",
        "ca_initialized",
        "ca_priv",
        "ca_setsockopt",
        "dead",
        "drops",
        "dst",
        "duplicate_sack",
        "fastopen_req",
        "keepalive_timer",
        "listen",
        "mtup",
        "ofo",
        "oobinline",
        "opts",
        "orphaned",
        "pacing",
        "port_locked",
        "prot",
        "rcv_mwnd_seq",
        "rcvlowat",
        "recovery",
        "rtx",
        "tp",
        "upcall",
        "urg",
        "user_timeout_us",
    )

    def __init__(self, prot: TcpProt, ca: CongestionOps, tp: Any = None) -> None:
        """Make a socket, or the object of one that has a control block already: ``tp``."""
        self.tp: Any = None
        """struct us_tcp_sock; None once an orphan is over."""
        super().__init__()  # has nobody wait for room, which ``tp`` knows better
        self.tp = tp
        self.prot = prot
        if tp is None:
            self._new_tcb()
        prot.socks[self.handle] = self
        prot.parking.watch()
        self.ca = ca
        self.ca_initialized = False
        self.ca_setsockopt = False
        """TCP_CONGESTION chose ``ca``; otherwise it is the stack's default."""
        self.ca_priv: Any = None
        """What ``ca`` remembers of this connection (inet_csk_ca)."""
        self.rtx: list[TxRec] | None = None
        """What is in flight, once something of it is out of order (scoreboard.py)."""
        self.recovery: Recovery | None = None
        """What loss recovery remembers, once there was any."""
        self.ofo: OutOfOrderQueue | None = None
        """Out-of-order queue, while it holds something."""
        self.duplicate_sack: tuple[int, int] | None = None
        """What came twice, to be reported once (RFC 2883)."""
        self.rcv_mwnd_seq: int | None = None
        """Where the window ended that we have taken back, while it is not offered again."""
        self.oobinline = False
        """SO_OOBINLINE: urgent data stays in the stream."""
        self.urg: UrgentState | None = None
        """Urgent data, once there has been some."""
        self.listen: ListenQueues | None = None
        """SYN queue and accept queue of a listener."""
        self.mtup: MtuProbe | None = None
        """The search for the path MTU, once there is one."""
        self.dst: Route | None = None
        self.bind_addr = 0
        """Address of bind(), 0 for any."""
        self.bind_bucket: BindBucket | None = None
        self.by_connect = False
        """connect() chose the port (SOCK_CONNECT_BIND): others may share it whose four-tuple
        differs."""
        self.port_locked = False
        """bind() named the port: it is kept until close() (SOCK_BINDPORT_LOCK)."""
        self.dead = False
        """The application has closed it (SOCK_DEAD)."""
        self.drops = 0
        """Segments of it that were dropped (sk_drops), as long as it has had an object."""
        self.orphaned = False
        """Closed by the application but not over: counted in orphan_count."""
        self.pacing: Pacing | None = None
        """Set once the socket is paced."""
        self.keepalive_timer: Timer | None = None
        self.opts = NO_OPTIONS
        self.fastopen_req: FastopenRequest | None = None
        """Fast Open, until the SYN-ACK."""
        self.rcvlowat = 1
        self.upcall: Callable[[int, int], None] | None = None
        """Told of what the wait queue is told, and of which handle it is: for a service that
        keeps no object for each of its connections (the kernel's own sk_data_ready)."""
        self.user_timeout_us = 0

    def wake_up(self, events: int) -> None:
        """Announce that ``events`` have come true."""
        if self.upcall is not None:
            self.upcall(self.handle, events)
        self.wq.wake_up(events)

    def set_dst(self, rt: Route | None) -> None:
        """Send along ``rt`` from now on (sk_setup_caps); C touches nothing that is signed."""
        self.dst = rt
        by_c = ip_dont_fragment(self) and not self.opts.md5_keys
        self.tp.dst = self.prot.fast.dst_of(rt if by_c else None)

    @property
    def rcvq(self) -> Any:
        """The receive queue (``struct us_bq *``)."""
        return lib.us_tcp_receive_queue(self.tp)

    @property
    def sndq(self) -> Any:
        """The send queue (``struct us_bq *``)."""
        return lib.us_tcp_write_queue(self.tp)

    @property
    def nospace(self) -> bool:
        """Whether a writer waits for room (SOCK_NOSPACE); C looks at it, too."""
        return self.tp is not None and bool(self.tp.nospace)

    @nospace.setter
    def nospace(self, waits: bool) -> None:
        if self.tp is not None:
            self.tp.nospace = waits

    @property
    def done(self) -> bool:
        """Whether the peer's FIN has come: the stream has an end, whatever happens later."""
        return bool(self.tp.done)

    @property
    def state(self) -> int:
        """TCP_ESTABLISHED ... TCP_CLOSING."""
        return self.tp.state

    @property
    def key(self) -> tuple[int, int, int, int]:
        """The four-tuple: own address and port, the peer's address and port."""
        tp = self.tp
        return (tp.saddr, tp.sport, tp.daddr, tp.dport)

    @property
    def rcv_saddr(self) -> int:
        """The address at which it receives, 0 for any."""
        return int(self.tp.saddr or self.bind_addr)

    def set_state(self, event: TcpEvent) -> int:
        """Move along the transition table and return the new state.

        Raises:
            StateError: the table has no such move: a bug of ours.
        """
        old = self.tp.state
        try:
            new = TRANSITIONS[old, event]
        except KeyError:
            raise StateError(f"no {event.name} in {STATE_NAMES.get(old, old)}") from None
        self.tp.state = new
        prot = self.prot
        if (new in CURR_ESTAB) != (old in CURR_ESTAB):
            prot.mib.CurrEstab += 1 if new in CURR_ESTAB else -1
        if prot.trace_set_state.on:
            prot.trace_set_state(self, old, new)
        if new == TCP_CLOSE:
            if old in CURR_ESTAB:
                prot.mib.EstabResets += 1
            prot.unhash(self)
        return new

    @property
    def handle(self) -> int:
        """The connection's number: no other has or will have it, wherever its memory went."""
        return int(lib.us_tcp_handle(self.tp))

    def reset(self) -> None:
        """Forget a connection that is over, so that the socket can be used again."""
        old = self.tp
        keep = (
            "sk_rcvbuf",
            "sk_sndbuf",
            "rcvbuf_locked",
            "sndbuf_locked",
            "nonagle",
            "tos",
            "ttl",
            "user_mss",
            "notsent_lowat",
            "ts_recent",
            "ts_recent_stamp_us",
        )
        kept = {name: getattr(old, name) for name in keep}
        slow = old.slow & (lib.US_TCP_SLOW_OPTION | lib.US_TCP_SLOW_PACING)
        write_seq = old.write_seq + old.max_window + 2 & SEQ_MASK or 1  # no old segment fits
        place, generation = old.place, old.generation
        self._purge()
        ffi.memmove(old, bytes(ffi.sizeof("struct us_tcp_sock")), ffi.sizeof("struct us_tcp_sock"))
        self._init_tcb(place, generation)
        self.duplicate_sack = None
        self.rcv_mwnd_seq = None
        self.urg = None
        self.mtup = None
        self.fastopen_req = None
        self.sk_err_soft = 0
        for name, value in kept.items():
            setattr(self.tp, name, value)
        self.tp.write_seq = write_seq
        self.tp.slow = slow
        if self.bind_bucket is not None:
            self.tp.sport = self.bind_bucket.port

    def _new_tcb(self) -> None:
        prot = self.prot
        self.tp = prot.tcp_cache.alloc()
        self._init_tcb(lib.us_tcp_place(prot.fast.ptr, self.tp), prot.next_generation())

    def _init_tcb(self, place: int, generation: int) -> None:
        """Fill in a control block that is all zero (tcp_init_sock)."""
        prot = self.prot
        tp = self.tp
        tp.place, tp.generation = place, generation
        tp.state = TCP_CLOSE
        tp.rto_us = tp.mdev_us = TCP_TIMEOUT_INIT_US
        tp.icsk_rto_min_us, tp.icsk_rto_max_us = (
            prot.config.tcp_rto_min_us,
            prot.config.tcp_rto_max_us,
        )
        tp.snd_cwnd = prot.config.init_cwnd
        tp.snd_ssthresh = 0x7FFFFFFF
        tp.mss_cache = 536
        tp.scaling_ratio = 128
        tp.sk_rcvbuf = prot.config.tcp_rmem[1]
        tp.sk_sndbuf = prot.config.tcp_wmem[1]

    def free_memory(self) -> None:
        """Give everything in the arena back (sk_free); ``tp`` is not usable afterwards."""
        self._purge()
        tp = self.tp
        del self.prot.socks[self.handle]
        tp.place = tp.generation = 0
        self.prot.tcp_cache.free(tp)
        self.tp = None

    def _purge(self) -> None:
        tcp_cleanup_congestion_control(self)
        mem = self.prot.mem.ptr
        self.prot.fast.forget(self)
        lib.us_bq_purge(mem, self.rcvq)
        lib.us_bq_purge(mem, self.sndq)
        lib.us_tcp_tx_purge(mem, self.tp)
        if self.recovery is not None:
            self.recovery.tsorted.clear()
        self.rtx = self.recovery = None
