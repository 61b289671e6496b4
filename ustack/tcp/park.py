"""Connections without a Python object: what idles is its C control block alone.

A stack keeps the ``TcpSock`` objects of ``net.ustack.tcp_live_socks`` sockets. Beyond that a
timer looks for connections that have been idle for a quarter of a second and have nothing
that only Python knows: no timer, no waiter, nothing in flight or out of order. Their
objects go (``ParkingLot.park``), and C goes on with them alone: text is taken and acknowledged,
and the application reads and answers it (``parked.py``). Whatever is out of the ordinary makes
the object again (``tcp_unpark``). What their socket options say is one of a few combinations,
which is kept once for all that have it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from ustack.core.timer import Timer
from ustack.ipv4.route import ip_route_output
from ustack.native.lib import ffi, lib
from ustack.sock.sock import POLL_READABLE, POLL_STATE, POLL_WRITABLE
from ustack.sock.wait import WaitEntry, WaitQueue
from ustack.tcp.sock import CURR_ESTAB, TcpSock

if TYPE_CHECKING:
    from ustack.tcp.protocol import TcpProt

EV_FIN: int = lib.US_TCP_EV_FIN
EV_READABLE: int = lib.US_TCP_EV_READABLE
EV_SPACE: int = lib.US_TCP_EV_SPACE
TELLING = EV_FIN | EV_READABLE | EV_SPACE
"""What C says of a connection for somebody to be told, and no more."""
IDLE_US = 250_000
LOOK_MAX_US = 64_000_000
LOOKS_AT_ONCE = 256
"""Sockets looked at in one go: less than a millisecond."""
COMBINATIONS_MAX = 1024

OPTIONS = (
    "bind_addr", "by_connect", "ca", "ca_initialized", "ca_setsockopt", "keepopen",
    "linger_s", "oobinline", "opts", "port_locked", "rcvlowat", "reuse",
    "reuseport", "upcall", "user_timeout_us",
)  # fmt: skip
"""Attributes of a ``TcpSock`` that its control block remembers by ``sockopts``."""
NOTHING = (
    "dead", "duplicate_sack", "fastopen_req", "listen", "mtup", "nospace", "ofo", "orphaned",
    "pacing", "rcv_mwnd_seq", "recovery", "rtx", "sk_err", "sk_err_soft", "urg",
)  # fmt: skip
"""Attributes that must be false: whoever has them keeps its object."""
_options_of = attrgetter(*OPTIONS)
_UPCALL = OPTIONS.index("upcall")
_LINGER = OPTIONS.index("linger_s")
_RCVLOWAT = OPTIONS.index("rcvlowat")
_nothing_of = attrgetter(*NOTHING)


class ParkingLot:
    """What a stack remembers of its parked connections beside their control blocks."""

    def __init__(self, prot: TcpProt) -> None:
        self._prot = prot
        self._combinations: list[tuple[Any, ...]] = []
        self._numbers: dict[tuple[Any, ...], int] = {}
        self._last: tuple[Any, ...] = ()
        """The combination that was asked for last, which saves its hash."""
        self._last_number = 0
        self.ca_priv: dict[int, Any] = {}
        """What congestion control remembers of them, by handle, where it does."""
        self.wqs: dict[int, WaitQueue] = {}
        """Who waits for them, where anybody does."""
        self._timer = Timer(self._look)
        self._pass: Iterator[int] | None = None
        """The sockets that are still to be looked at."""
        self._parked = 0
        """Since the pass began."""
        self._enough = 0
        """How many of them were worth the pass."""
        self._interval_us = IDLE_US
        self.passes = 0
        """How often all objects were looked at."""

    @property
    def watching(self) -> bool:
        """Whether the timer runs."""
        return self._timer.pending

    def watch(self) -> None:
        """There is one object more: begin to look for idle ones if that is too many."""
        prot = self._prot
        if not self._timer.pending and len(prot.socks) > prot.live_socks:
            prot.timers.mod_timer(self._timer, prot.clock.now_us + self._interval_us)

    def _look(self, _arg: object) -> None:
        """Look at some; after a pass wait, the longer the less came of it."""
        prot = self._prot
        excess = len(prot.socks) - prot.live_socks
        if excess <= 0:
            self._pass, self._interval_us = None, IDLE_US
            return
        if self._pass is None:
            handles = list(prot.socks)
            self._pass, self._parked, self._enough = iter(handles), 0, len(handles) // 8
        batch = list(islice(self._pass, LOOKS_AT_ONCE))
        idle = filter(self._park_one, batch)
        self._parked += sum(1 for _ in islice(idle, excess))
        delay_us = 1
        if len(batch) < LOOKS_AT_ONCE:
            self._pass = None
            self.passes += 1
            longer_us = min(2 * self._interval_us, LOOK_MAX_US)
            delay_us = self._interval_us = IDLE_US if self._parked > self._enough else longer_us
        prot.timers.mod_timer(self._timer, prot.clock.now_us + delay_us)

    def _park_one(self, handle: int) -> bool:
        sk = self._prot.socks.get(handle)
        return sk is not None and self.park(sk)

    def park(self, sk: TcpSock) -> bool:
        """Let go of the object of ``sk`` if that loses nothing; return whether it is gone."""
        number = self.number_of(sk) if tcp_may_park(sk) else None
        if number is None:
            return False
        tp = sk.tp
        tp.sockopts = number
        tp.told = tp.inbox or sk.upcall is not None
        tp.ends_plainly = sk.ca_priv is None and closes_plainly(sk)
        if sk.opts.peek_off >= 0 or not sk.prot.fast.keep_route(sk):
            tp.slow |= lib.US_TCP_SLOW_PARKED
            tp.dst = ffi.NULL
        if sk.ca_priv is not None:
            self.ca_priv[sk.handle] = sk.ca_priv
        lib.us_tcp_forget_timers(sk.prot.fast.ptr, tp)
        if sk.keepalive_timer is not None:
            sk.keepalive_timer.arg = None  # its entry may stay in the heap: not so the socket
        del sk.prot.socks[sk.handle]
        return True

    def number_of(self, sk: TcpSock) -> int | None:
        """Return the number of ``sk``'s combination of options; None: there are too many."""
        combination: tuple[Any, ...] = _options_of(sk)
        if combination == self._last:
            return self._last_number
        number = self._numbers.get(combination)
        if number is None and len(self._combinations) < COMBINATIONS_MAX:
            self._combinations.append(combination)
            number = self._numbers[combination] = len(self._combinations)
        if number is not None:
            self._last, self._last_number = combination, number
        return number

    def options_of(self, tp: Any) -> tuple[Any, ...]:
        """Return the values of ``OPTIONS`` of a connection without an object."""
        return self._combinations[tp.sockopts - 1]

    def tell(self, handle: int, what: int) -> bool:
        """Tell whoever wants to know what C says of a connection without an object.

        Returns:
            Whether that was all: otherwise the object has to be made.
        """
        if what & ~TELLING:
            return False
        tp = lib.us_tcp_sock_at(self._prot.fast.ptr, handle)
        if not tp or not tp.told:
            return False
        if what & (EV_FIN | EV_READABLE):
            self._announce(handle, tp, POLL_STATE if what & EV_FIN else POLL_READABLE)
        if what & EV_SPACE:
            self._announce(handle, tp, POLL_WRITABLE)
        return True

    def _announce(self, handle: int, tp: Any, events: int) -> None:
        """Tell that ``events`` have come true, as ``TcpSock.wake_up``."""
        upcall = self.options_of(tp)[_UPCALL]
        if upcall is not None:
            upcall(handle, events)
        reader = self._prot.inbox.reader_of(tp)
        if reader is not None:
            reader.woken(events)
        wq = self.wqs.get(handle)
        if wq is not None:
            wq.wake_up(events)

    def wq_of(self, handle: int) -> WaitQueue:
        """Return the wait queue of a connection without an object, made if it has none.

        Raises:
            KeyError: it is over.
        """
        wq = self.wqs.get(handle)
        if wq is None:
            tp = lib.us_tcp_sock_at(self._prot.fast.ptr, handle)
            if not tp or not tp.sockopts:
                raise KeyError(handle)
            tp.told = True
            wq = self.wqs[handle] = WaitQueue()
        return wq

    def linger_s(self, tp: Any) -> int | None:
        """Return SO_LINGER's seconds of a connection without an object."""
        linger_s: int | None = self.options_of(tp)[_LINGER]
        return linger_s

    def rcvlowat(self, tp: Any) -> int:
        """Return SO_RCVLOWAT of a connection without an object."""
        return int(self.options_of(tp)[_RCVLOWAT])


def closes_plainly(sk: TcpSock) -> bool:
    """Whether its options leave close() a FIN that nothing but time follows."""
    return not sk.keepopen and sk.linger_s != 0 and not sk.opts.linger2_us


def tcp_has_more(sk: TcpSock) -> bool:
    """Whether the object of ``sk`` holds anything beside its options."""
    return any(_nothing_of(sk))


def tcp_may_park(sk: TcpSock) -> bool:
    """Whether ``sk`` is an idle connection whose object holds nothing of its own."""
    tp = sk.tp
    if not tp.is_hashed or tp.state not in CURR_ESTAB:
        return False
    idle_since = max(tp.lsndtime_us, tp.ack_lrcvtime_us, tp.rcv_tstamp_us)
    if sk.prot.clock.now_us - idle_since < IDLE_US:
        return False
    if tp.packets_out or tp.write_queue.len or tp.snd_shutdown or len(sk.wq):
        return False
    if tcp_has_more(sk):
        return False
    if not tp.bind_share:
        return False
    if tp.icsk_timeout_us or tp.icsk_ack_timeout_us:
        return False
    return sk.keepalive_timer is None or not sk.keepalive_timer.pending


def tcp_unpark(prot: TcpProt, handle: int) -> TcpSock:
    """Make the object of a parked connection again, or of one that C has made.

    Raises:
        KeyError: it is over.
    """
    tp = lib.us_tcp_sock_at(prot.fast.ptr, handle)
    if not tp or not tp.sockopts:
        raise KeyError(handle)
    sk = TcpSock(prot, prot.congestion.default, tp)
    lot = prot.parking
    (
        sk.bind_addr,
        sk.by_connect,
        sk.ca,
        sk.ca_initialized,
        sk.ca_setsockopt,
        sk.keepopen,
        sk.linger_s,
        sk.oobinline,
        sk.opts,
        sk.port_locked,
        sk.rcvlowat,
        sk.reuse,
        sk.reuseport,
        sk.upcall,
        sk.user_timeout_us,
    ) = lot.options_of(tp)  # in OPTIONS' order: this is every accept()
    sk.bind_bucket = prot.bhash.get(tp.sport)
    if handle in lot.wqs:
        sk.wq = lot.wqs.pop(handle)
    reader = prot.inbox.reader_of(tp)
    if reader is not None:
        sk.wq.add(WaitEntry(reader.woken))
    if lot.ca_priv:
        sk.ca_priv = lot.ca_priv.pop(handle, None)
    if tp.slow:
        tp.slow &= ~lib.US_TCP_SLOW_PARKED
    tp.sockopts = tp.told = 0
    if tp.dead:
        tp.dead = 0
        sk.dead = sk.orphaned = True
    if tp.dst:
        sk.dst = prot.fast.let_go(tp)
    else:
        sk.set_dst(ip_route_output(prot.ip, tp.daddr, tp.saddr))
    return sk
