"""Mini-sockets: what is left of a connection in TIME_WAIT, or of an orphan in FIN_WAIT2.

They are C's, table, timers and all (``ustack_c/src/tcp_timewait.c``): a million of them need no
object here. ``TimewaitSock`` is a view of one, made when somebody asks; what a segment means
for it is said in ``timewait.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ustack.lib.seqnum import SEQ_MASK
from ustack.native.lib import ffi, lib
from ustack.tcp.md5 import tcp_md5_do_lookup
from ustack.tcp.ports import Sharer, bind_bucket_share, bind_buckets_reap
from ustack.tcp.window import tcp_receive_window

if TYPE_CHECKING:
    from ustack.tcp.protocol import FlowKey, TcpProt
    from ustack.tcp.sock import TcpSock


class TimewaitSock:
    """A view of a mini-socket: ``tw`` is ``struct us_timewait_sock *``, None once it is killed."""

    __slots__ = ("prot", "tw")

    def __init__(self, prot: TcpProt, tw: Any) -> None:
        self.prot = prot
        self.tw = tw

    @property
    def key(self) -> FlowKey:
        """The four-tuple: own address and port, the peer's address and port."""
        tw = self.tw
        return (tw.saddr, tw.sport, tw.daddr, tw.dport)

    @property
    def state(self) -> int:
        """TCP_FIN_WAIT2 or TCP_TIME_WAIT."""
        return int(self.tw.substate)

    @property
    def expires_us(self) -> int:
        """When its time is over."""
        return int(self.tw.timer.expires_us)

    @property
    def age_us(self) -> int:
        """For how long it has been what it is, to the millisecond (tw_entry_stamp)."""
        return (self.prot.clock.now_us // 1000 - int(self.tw.entry_ms) & SEQ_MASK) * 1000

    @property
    def last_oow_ack_us(self) -> int:
        """When a segment that does not fit was last answered, to the millisecond; 0: never."""
        now_ms = self.prot.clock.now_us // 1000
        last_ms: int = self.tw.last_oow_ack_ms
        return (now_ms - (now_ms - last_ms & SEQ_MASK)) * 1000 if last_ms else 0

    @last_oow_ack_us.setter
    def last_oow_ack_us(self, now_us: int) -> None:
        self.tw.last_oow_ack_ms = now_us // 1000 & SEQ_MASK or 1

    @property
    def md5_key(self) -> bytes | None:
        """Signs its ACKs."""
        return self.prot.twhash.md5_keys[self.key] if self.tw.has_key else None

    @property
    def timeout_us(self) -> int:
        """How long its TIME_WAIT lasts if that is cut short (tcp_tw_recycle), else 0."""
        return self.prot.twhash.timeouts.get(self.key, 0)

    def become(self, substate: int) -> None:
        """Go on in another state, from now on."""
        self.tw.substate = substate
        self.tw.entry_ms = self.prot.clock.now_us // 1000 & SEQ_MASK

    def reschedule(self, timeout_us: int) -> None:
        """Live for ``timeout_us`` from now on (inet_twsk_reschedule)."""
        prot = self.prot
        lib.us_twsk_schedule(prot.fast.ptr, self.tw, prot.clock.now_us + timeout_us)

    def kill(self) -> None:
        """Forget it (inet_twsk_deschedule_put)."""
        lib.us_twsk_kill(self.prot.fast.ptr, self.tw)
        self.tw = None
        bind_buckets_reap(self.prot)


class TimewaitHash:
    """All mini-sockets of one stack; reads like a mapping, who goes first comes first."""

    __slots__ = ("_prot", "md5_keys", "timeouts")

    def __init__(self, prot: TcpProt) -> None:
        self._prot = prot
        self.md5_keys: dict[FlowKey, bytes] = {}
        """Keys of those that sign; some may be gone."""
        self.timeouts: dict[FlowKey, int] = {}
        """``timeout_us`` of those that have one; some may be gone."""

    def get(self, key: FlowKey) -> TimewaitSock | None:
        """Return the mini-socket with this four-tuple."""
        prot = self._prot
        tw = lib.us_twsk_lookup(prot.fast.ptr, *key)
        return TimewaitSock(prot, tw) if tw else None

    def add(self, sk: TcpSock, substate: int) -> TimewaitSock | None:
        """Make a mini-socket that takes over from ``sk``; None: there is no memory."""
        prot = self._prot
        tp = sk.tp
        rec = lib.us_twsk_alloc(prot.fast.ptr, *sk.key)
        if not rec:
            return None
        tw = TimewaitSock(prot, rec)
        self.timeouts.pop(tw.key, None)
        rec.rcv_nxt, rec.snd_nxt, rec.rcv_wnd = tp.rcv_nxt, tp.snd_nxt, tcp_receive_window(sk)
        rec.ts_recent, rec.ts_recent_stamp_us = tp.ts_recent, tp.ts_recent_stamp_us
        rec.tstamp_ok, rec.rcv_wscale, rec.tos = tp.tstamp_ok, tp.rcv_wscale, tp.tos
        rec.tsoffset = tp.tsoffset
        tw.become(substate)
        by_connect = sk.by_connect or sk.bind_bucket is None
        try:
            bind_bucket_share(
                prot, Sharer(tp.saddr, sk.reuse, sk.reuseport, by_connect), rec, tp.sport
            )
        except MemoryError:
            tw.kill()
            return None
        if tp.dst and sk.dst is not None:
            prot.fast.hold(sk.dst)
            rec.dst = tp.dst
            rec.dst.refs += 1
        md5_key = tcp_md5_do_lookup(sk, tp.daddr)
        if md5_key is not None:
            rec.has_key = 1
            self._note(self.md5_keys, tw.key, md5_key)
        return tw

    def shorten(self, key: FlowKey, timeout_us: int) -> None:
        """Let the TIME_WAIT of this mini-socket last no longer."""
        self._note(self.timeouts, key, timeout_us)

    def _note(self, table: dict[FlowKey, Any], key: FlowKey, value: Any) -> None:
        """Remember what few of them have; those that are gone are seen to now and then."""
        if len(table) > 2 * len(self) + 16:
            for gone in [old for old in table if old not in self]:
                del table[gone]
        table[key] = value

    def values(self) -> Iterator[TimewaitSock]:
        """Yield all of them."""
        ptr = self._prot.fast.ptr
        count = lib.us_twsk_count(ptr)
        found = ffi.new("struct us_timewait_sock *[]", count)
        lib.us_twsk_list(ptr, found, count)
        for tw in sorted(found, key=lambda tw: (tw.timer.expires_us, tw.daddr, tw.dport)):
            yield TimewaitSock(self._prot, tw)

    def items(self) -> Iterator[tuple[FlowKey, TimewaitSock]]:
        """Yield four-tuples and mini-sockets."""
        return ((tw.key, tw) for tw in self.values())

    def __contains__(self, key: FlowKey) -> bool:
        return bool(lib.us_twsk_lookup(self._prot.fast.ptr, *key))

    def __len__(self) -> int:
        return int(lib.us_twsk_count(self._prot.fast.ptr))

    def __iter__(self) -> Iterator[FlowKey]:
        return (tw.key for tw in self.values())
