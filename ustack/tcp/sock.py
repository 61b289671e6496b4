"""A connection: the C control block and what only some connections need.

``sk.tp`` is the ``struct us_tcp_sock`` that C and Python share; everything here beside it is
either per-socket policy or made on first use. Made by ``TcpProt.create`` (socket()) or by
``tcp_check_req`` (the third ACK), freed by ``tcp_done`` and the last close.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ustack.core.timer import Timer
from ustack.lib.errors import StateError
from ustack.native.lib import ffi, lib
from ustack.sock.sock import Sock
from ustack.tcp.states import (
    STATE_NAMES,
    TCP_CLOSE,
    TCP_CLOSE_WAIT,
    TCP_ESTABLISHED,
    TRANSITIONS,
    TcpEvent,
)

if TYPE_CHECKING:
    from ustack.inet.sockets import InetSocket
    from ustack.ipv4.route import Route
    from ustack.tcp.cong.reno import CongestionOps
    from ustack.tcp.listen import ListenQueues
    from ustack.tcp.ofo import OutOfOrderQueue
    from ustack.tcp.ports import BindBucket
    from ustack.tcp.protocol import TcpProt

ICSK_TIME_NONE = 0
ICSK_TIME_RETRANS = 1
ICSK_TIME_PROBE0 = 3

CURR_ESTAB = (TCP_ESTABLISHED, TCP_CLOSE_WAIT)


class TcpSock(Sock):
    """One TCP socket, whatever its state."""

    __slots__ = (
        "bind_addr",
        "bind_bucket",
        "ca",
        "dead",
        "delack_timer",
        "dst",
        "icsk_pending",
        "keepalive_timer",
        "listen",
        "ofo",
        "orphaned",
        "prot",
        "rcvbuf_locked",
        "rcvlowat",
        "rcvq",
        "retransmit_timer",
        "sndbuf_locked",
        "sndq",
        "socket",
        "tp",
        "user_timeout_us",
    )

    def __init__(self, prot: TcpProt, ca: CongestionOps) -> None:
        super().__init__()
        self.prot = prot
        self.tp: Any = prot.tcp_cache.alloc()
        self.tp.state = TCP_CLOSE
        self.tp.generation = prot.next_generation()
        self.rcvq: Any = ffi.addressof(self.tp, "receive_queue")
        self.sndq: Any = ffi.addressof(self.tp, "write_queue")
        self.ca = ca
        self.ofo: OutOfOrderQueue | None = None
        """Out-of-order queue, while it holds something."""
        self.listen: ListenQueues | None = None
        """SYN queue and accept queue of a listener."""
        self.dst: Route | None = None
        self.bind_addr = 0
        """Address of bind(), 0 for any."""
        self.bind_bucket: BindBucket | None = None
        self.socket: InetSocket | None = None
        """The application's handle; None for an orphan and for a child nobody accepted."""
        self.dead = False
        """The application has closed it (SOCK_DEAD)."""
        self.orphaned = False
        """Closed by the application but not over: counted in orphan_count."""
        self.icsk_pending = ICSK_TIME_NONE
        self.retransmit_timer: Timer | None = None
        self.delack_timer: Timer | None = None
        self.keepalive_timer: Timer | None = None
        self.rcvlowat = 1
        self.rcvbuf_locked = False
        """SO_RCVBUF was set: no autotuning."""
        self.sndbuf_locked = False
        """SO_SNDBUF was set: no autotuning."""
        self.user_timeout_us = 0

    @property
    def state(self) -> int:
        """TCP_ESTABLISHED ... TCP_CLOSING."""
        return self.tp.state  # type: ignore[no-any-return]

    @property
    def key(self) -> tuple[int, int, int, int]:
        """The four-tuple: own address and port, the peer's address and port."""
        tp = self.tp
        return (tp.saddr, tp.sport, tp.daddr, tp.dport)

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
            prot.unhash(self)
        return new

    def free_memory(self) -> None:
        """Give everything in the arena back (sk_free); ``tp`` is not usable afterwards."""
        mem = self.prot.mem.ptr
        lib.us_bq_purge(mem, self.rcvq)
        lib.us_bq_purge(mem, self.sndq)
        self.prot.tcp_cache.free(self.tp)
        self.tp = self.rcvq = self.sndq = None
