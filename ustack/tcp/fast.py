"""The fast path as Python sees it: what C may do alone, and what is left to do after it.

C (``ustack_c/src/tcp_*.c``) sends segments that Python has decided on, and takes received
ones that are exactly what their connection expects. It is off for packets that somebody wants
to see one by one (taps, a trace), and by ``net.ustack.tcp_fastpath=0``: everything then takes
the way through Python, which does without C's help.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ustack.config import LINUX_6
from ustack.ipv4.fib import RTN_UNICAST
from ustack.lib.seqnum import SEQ_MASK
from ustack.native.lib import ffi, lib
from ustack.native.siphash import KEY_BYTES

if TYPE_CHECKING:
    from ustack.config import StackConfig
    from ustack.core.netdevice import NetDevice
    from ustack.ipv4.route import Route
    from ustack.link.neighbour import Neigh
    from ustack.tcp.metrics import TcpMetricsBlock
    from ustack.tcp.protocol import TcpProt
    from ustack.tcp.sock import TcpSock


SCRATCH_BYTES = 256 * 1024
"""The most that ``tcp_recv_now`` returns."""
ACCEPT_MAX = 64
"""Connections that ``inet_csk_accept_many`` takes at most."""
KEPT_MAX = 4096
"""Routes beyond which those of connections that idle are not kept for them: some MB."""
HELD_MAX = 1024
"""Routes held for orphans before those are looked for that need not be; or twice as many."""


class TcpFast:
    """The C side of one stack's TCP (``struct us_tcp_fast``)."""

    def __init__(self, prot: TcpProt) -> None:
        key = prot.net.rng.getrandbits(8 * KEY_BYTES).to_bytes(KEY_BYTES, "little")
        ptr = lib.us_tcp_fast_create(prot.mem.ptr, key)
        if ptr == ffi.NULL:
            raise MemoryError("no memory for TCP's tables")
        self.prot = prot
        self.ptr: Any = ffi.gc(ptr, lib.us_tcp_fast_destroy)
        self.scratch: Any = ffi.new("uint8_t[]", SCRATCH_BYTES)
        self.scratch_text = ffi.buffer(self.scratch)
        """What ``tcp_recv_now`` reads into: how much there is is only known then."""
        ptr.tcp_cache, ptr.bictcp_cache = prot.tcp_cache.ptr, prot.bictcp_cache.ptr
        ptr.tw_cache = prot.tw_cache.ptr
        ptr.request_cache = prot.request_cache.ptr
        ptr.secret = prot.secret
        self.on = False
        """Whether C may send and receive now."""
        self.puts_headers = False
        """Whether C may put together what Python has decided to send: nobody taps."""
        self.devices: list[NetDevice] = []
        """Those that C sends through."""
        self._held: dict[Any, Route] = {}
        """Routes that C may send by: those of connections that have no object, by ``tp.dst``,
        and those that it may begin one with."""
        self._held_max = HELD_MAX
        self.xmit: Any = ffi.new("struct us_tcp_xmit *")
        self.events: Any = ffi.buffer(ptr.events)
        """``ptr.events``, to be copied: what is done for one of them may bring others."""
        self.timer_event: Any = ffi.new("struct us_tcp_event *")
        self.accepted: Any = ffi.new("struct us_tcp_accepted[]", ACCEPT_MAX)
        prot.net.mib_folds.append(self._fold_mib)
        prot.net.taps_changed = self.update
        self.configure(prot.net.config)

    def configure(self, config: StackConfig) -> None:
        """Take over what C's rules need of the configuration; it has but the usual ones."""
        tcp = config.tcp
        self.ptr.min_rtt_wlen_us = tcp.tcp_min_rtt_wlen_us
        self.ptr.rmem_max = tcp.tcp_rmem[2]
        self.ptr.pingpong_thresh = tcp.tcp_pingpong_thresh
        self.ptr.early_retrans = tcp.tcp_early_retrans in (3, 4)
        self.ptr.pacing_ss_ratio = tcp.tcp_pacing_ss_ratio
        self.ptr.pacing_ca_ratio = tcp.tcp_pacing_ca_ratio
        self.ptr.tso_rtt_log = tcp.tcp_tso_rtt_log
        self.ptr.min_tso_segs = tcp.tcp_min_tso_segs
        self.ptr.tso_win_divisor = tcp.tcp_tso_win_divisor
        self.ptr.notsent_lowat = tcp.tcp_notsent_lowat
        self.ptr.moderate_rcvbuf = tcp.tcp_moderate_rcvbuf
        self.ptr.limit_output_bytes = tcp.tcp_limit_output_bytes & SEQ_MASK
        self.ptr.wmem_max = tcp.tcp_wmem[2]
        self.ptr.timestamps = tcp.tcp_timestamps
        self.ptr.sack = tcp.tcp_sack
        self.ptr.window_scaling = tcp.tcp_window_scaling
        self.ptr.syncookies = tcp.tcp_syncookies
        self.ptr.max_syn_backlog = tcp.tcp_max_syn_backlog
        self.ptr.min_snd_mss = tcp.tcp_min_snd_mss
        self.ptr.app_win = tcp.tcp_app_win
        self.ptr.reordering = tcp.tcp_reordering
        self.ptr.init_cwnd = tcp.init_cwnd
        self.ptr.slow_start_after_idle = tcp.tcp_slow_start_after_idle
        self.ptr.max_orphans = tcp.tcp_max_orphans
        self.ptr.max_tw_buckets = tcp.tcp_max_tw_buckets
        self.ptr.fin_timeout_us = tcp.tcp_fin_timeout_us
        self.ptr.no_metrics_save = tcp.tcp_no_metrics_save
        self.ptr.no_ssthresh_metrics_save = tcp.tcp_no_ssthresh_metrics_save
        self.ptr.mem_limits = [min(pages, SEQ_MASK) for pages in tcp.tcp_mem]
        self._wanted = (
            config.ustack.tcp_fastpath
            and config.ustack.profile == LINUX_6
            and not tcp.tcp_shrink_window
            and not tcp.tcp_workaround_signed_windows
        )
        self.update()

    def update(self) -> None:
        """Taps see each packet in Python, and a trace each change of a state."""
        prot = self.prot
        traced = prot.trace_set_state.on or prot.trace_handshake.on
        self.puts_headers = not prot.net.ptype_all
        self.on = self._wanted and self.puts_headers and not traced
        self.ptr.on = self.on
        self.update_xmit()

    def update_xmit(self) -> None:
        """Let C decide what to send, unless local sockets are joined by a sockmap."""
        self.ptr.may_xmit = self.prot.sockmap is None

    def forget(self, sk: TcpSock) -> None:
        """Have C forget the control block, which will be freed."""
        tp = sk.tp
        lib.us_tcp_forget_timers(self.ptr, tp)
        lib.us_tcp_unhash(self.ptr, tp)

    def dst_of(self, rt: Route | None) -> Any:
        """Return ``rt`` as C sees it (``struct us_tcp_dst *``), NULL if C cannot send there."""
        if rt is None:
            return ffi.NULL
        self.ptr.genid = self.prot.ip.fib.genid
        if rt.fast is None:
            rt.fast = FastDst(self.prot, rt) if _is_reachable(rt) else False
            if rt.fast and rt.dev not in self.devices:
                self.devices.append(rt.dev)
        return rt.fast.dst if rt.fast else ffi.NULL

    def hold(self, rt: Route) -> None:
        """Keep a route that control blocks without an object refer to, until all have let go."""
        dst = rt.fast.dst
        if dst not in self._held and len(self._held) >= self._held_max:
            self._forget_routes()
        self._held[dst] = rt

    def keep_route(self, sk: TcpSock) -> bool:
        """Let C go on sending for ``sk`` without its object; False: it cannot, or has too many."""
        rt = sk.dst
        tp = sk.tp
        if rt is None or not tp.dst or tp.dst.genid != self.prot.ip.fib.genid:
            return False
        if tp.dst not in self._held and len(self._held) >= KEPT_MAX:
            return False
        self.hold(rt)
        tp.dst.refs += 1
        return True

    def _forget_routes(self) -> None:
        for held in [held for held in self._held if not held.refs]:
            lib.us_tcp_dst_unlink(self.ptr, held)
            del self._held[held]
        self._held_max = max(2 * len(self._held), HELD_MAX)

    def begin_by(self, rt: Route) -> None:
        """Let C answer SYNs that come along ``rt``, and make connections of them."""
        dst = self.dst_of(rt)
        if dst:
            rt.fast.update(rt)
            self.hold(rt)
            lib.us_tcp_dst_link(self.ptr, dst)

    def route_of(self, dst: Any) -> Route | None:
        """Return the route that is held by this name, which may be NULL."""
        return self._held.get(dst)

    def let_go(self, tp: Any) -> Route:
        """A control block that C has made or kept has an object now: return its route."""
        dst = tp.dst
        dst.refs -= 1
        return self._held[dst]

    def transmit(
        self, sk: TcpSock, seq: int, length: int, flags: int, window: int, gso: int
    ) -> bool:
        """Let C build and send a segment; False: it cannot now, and nothing has happened."""
        xmit = self.xmit
        xmit.seq, xmit.len, xmit.flags, xmit.window, xmit.gso_size = seq, length, flags, window, gso
        ptr, prot = self.ptr, self.prot
        ptr.now_us, ptr.genid = prot.clock.now_us, prot.ip.fib.genid
        rt = sk.dst
        if lib.us_tcp_transmit(ptr, sk.tp, xmit):
            if rt is not None and rt.fast:
                rt.fast.update(rt)
            return False
        self.ring_doorbells()
        return True

    def ring_doorbells(self) -> None:
        """Have the devices send what C has put into their rings, unless more will follow."""
        ptr = self.ptr
        if ptr.doorbell and not ptr.hold:
            ptr.doorbell = 0
            for dev in self.devices:
                dev.ndo_xmit_flush(0)

    def _fold_mib(self) -> None:
        """Add what C has counted to the stack's counters."""
        counted = self.ptr.mib
        prot = self.prot
        for mib, names in (
            (prot.ip.mib, IP_COUNTERS), (prot.ip.ext, IP_EXT_COUNTERS),
            (prot.mib, TCP_COUNTERS), (prot.mib_ext, TCP_EXT_COUNTERS),
        ):  # fmt: skip
            for name in names:
                count = getattr(counted, name)
                if count:
                    setattr(counted, name, 0)
                    setattr(mib, name, getattr(mib, name) + count)


class FastDst:
    """A route for C, and the neighbour whose header it uses."""

    __slots__ = ("dst", "metrics", "neigh")

    def __init__(self, prot: TcpProt, rt: Route) -> None:
        dst = self.dst = ffi.new("struct us_tcp_dst *")
        self.neigh: Neigh | None = None
        self.metrics: TcpMetricsBlock | None = None
        dst.queue = rt.dev.ndo_xmit_queue(0)
        dst.genid = rt.genid
        dst.mtu = rt.mtu
        dst.gso_max_size = rt.dev.gso_max_size
        dst.ttl = prot.ip.config.ip_default_ttl
        dst.saddr, dst.daddr = rt.saddr, rt.daddr
        known = prot.metrics.lookup(rt.saddr, rt.daddr)
        if known is not None:
            self.remember(known)
        self.update(rt)

    def update(self, rt: Route) -> None:
        """Take notice of a new neighbour: the old one may have been forgotten meanwhile."""
        if rt.neigh is not None and rt.neigh is not self.neigh and rt.genid >= 0:
            self.neigh = rt.neigh
            self.dst.hh = rt.neigh.hh_cache

    def remember(self, block: TcpMetricsBlock) -> None:
        """Let C add to what is known about the peer."""
        self.metrics = block
        self.dst.metrics = block.c


def _is_reachable(rt: Route) -> bool:
    """Whether C can send along ``rt``: by a device with one queue that it can fill."""
    dev = rt.dev
    return (
        rt.rt_type == RTN_UNICAST
        and not rt.mtu_locked
        and dev.real_num_tx_queues == 1
        and dev.ndo_xmit_queue(0) is not None
    )


IP_COUNTERS = ("InReceives", "InDelivers", "OutRequests", "OutTransmits")
IP_EXT_COUNTERS = ("InOctets", "OutOctets")
TCP_COUNTERS = ("InSegs", "OutSegs", "CurrEstab", "PassiveOpens")
TCP_EXT_COUNTERS = (
    "TCPHPHits", "TCPHPAcks", "TCPPureAcks", "TCPDelivered", "TCPOrigDataSent",
    "TCPWantZeroWindowAdv", "TCPToZeroWindowAdv", "TCPFromZeroWindowAdv",
    "DelayedACKs", "BusyPollRxPackets", "TW", "TWKilled", "TCPTimeWaitOverflow",
)  # fmt: skip
