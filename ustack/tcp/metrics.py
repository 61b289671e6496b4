"""What earlier connections have learnt about a peer (net/ipv4/tcp_metrics.c).

Kept by own address and the peer's: RTT and its variance, cwnd, ssthresh, reordering, and Fast
Open's cookie. The end of a connection adds to it (``tcp_update_metrics``), the next one begins
with it (``tcp_init_metrics``), and a peer with an RTT is one that is known to live
(``tcp_peer_is_proven``). ``ustack ip tcp_metrics`` shows and forgets it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ustack.native.lib import ffi
from ustack.tcp.cong.ops import TCP_CA_OPEN, TCP_INFINITE_SSTHRESH
from ustack.tcp.rtt import TCP_RTO_MIN_US, TCP_TIMEOUT_FALLBACK_US
from ustack.tcp.scoreboard import tcp_recovery, tcp_reordering
from ustack.wire.tcp import FastopenOption

if TYPE_CHECKING:
    from ustack.lib.clock import StackClock
    from ustack.tcp.sock import TcpSock

TCP_METRICS_MAX = 4096
"""Peers that are remembered; a further one takes the place of that least lately added to."""
TCP_METRICS_TIMEOUT_US = 3_600_000_000
"""What was not renewed for so long is no longer believed, but for the cookie."""


class TcpMetricsBlock:
    """What is known about one peer; 0: nothing (struct tcp_metrics_block).

    C adds to ``c``, ``struct us_tcp_metrics``, when it ends a connection itself.
    """

    __slots__ = (
        "c", "cookie", "fo_mss", "last_syn_loss_us", "placed_us", "syn_loss", "try_exp",
        "ts", "ts_stamp_us",
    )  # fmt: skip

    def __init__(self, saddr: int, daddr: int, now_us: int) -> None:
        self.c: Any = ffi.new("struct us_tcp_metrics *")
        self.c.saddr, self.c.daddr = saddr, daddr
        self.placed_us = now_us
        """When it got its place in the table."""
        self.cookie = FastopenOption(b"")
        self.fo_mss = 0
        """MSS of the last SYN-ACK of a Fast Open."""
        self.try_exp = 0
        """1: ask with the experimental option next, 2: that did not help either."""
        self.syn_loss = 0
        """Fast Open's SYNs in a row that seem to have been dropped, and when the last was."""
        self.last_syn_loss_us = 0
        self.ts = self.ts_stamp_us = 0
        """linux-3.10 with tcp_tw_recycle: its last timestamp, and when it came."""
        self.forget(now_us)

    def forget(self, now_us: int) -> None:
        """Know nothing of the path any more (tcpm_suck_dst)."""
        c = self.c
        c.stamp_us = now_us
        c.rtt = c.rttvar = c.ssthresh = c.cwnd = c.reordering = 0


class TcpMetrics:
    """The table of one stack."""

    __slots__ = ("_clock", "blocks")

    def __init__(self, clock: StackClock) -> None:
        self._clock = clock
        self.blocks: dict[tuple[int, int], TcpMetricsBlock] = {}
        """By own address and the peer's; the one added to most recently comes last."""

    def lookup(self, saddr: int, daddr: int) -> TcpMetricsBlock | None:
        """Return what is known about a peer (tcp_get_metrics)."""
        block = self.blocks.get((saddr, daddr))
        now_us = self._clock.now_us
        if block is not None and now_us - block.c.stamp_us > TCP_METRICS_TIMEOUT_US:
            block.forget(now_us)
        return block

    def lookup_or_create(self, saddr: int, daddr: int) -> TcpMetricsBlock:
        """Return what is known about a peer, to add to it; made if there is nothing yet."""
        block = self.lookup(saddr, daddr)
        if block is not None:
            del self.blocks[saddr, daddr]
        elif len(self.blocks) >= TCP_METRICS_MAX:
            self._make_room()
        block = block or TcpMetricsBlock(saddr, daddr, self._clock.now_us)
        self._place(block)
        return block

    def _place(self, block: TcpMetricsBlock) -> None:
        """Put a block at the end."""
        block.placed_us = self._clock.now_us
        self.blocks[block.c.saddr, block.c.daddr] = block

    def _make_room(self) -> None:
        """Forget the first block to which C has not added since it got its place."""
        for key, block in list(self.blocks.items()):
            del self.blocks[key]
            if block.c.stamp_us <= block.placed_us:
                block.c.forgotten = True
                return
            self._place(block)
        self._make_room()

    def clear(self) -> None:
        """Forget all peers."""
        for block in self.blocks.values():
            block.c.forgotten = True
        self.blocks.clear()

    def delete(self, daddr: int) -> bool:
        """Forget a peer, whichever own address; return whether it was known."""
        keys = [key for key in self.blocks if key[1] == daddr]
        for key in keys:
            self.blocks.pop(key).c.forgotten = True
        return bool(keys)


def tcp_peer_is_proven(metrics: TcpMetrics, saddr: int, daddr: int) -> bool:
    """Whether a peer has answered before: its SYN gets the queue's last places."""
    block = metrics.lookup(saddr, daddr)
    return block is not None and block.c.rtt > 0


def tcp_init_metrics(sk: TcpSock) -> None:
    """Begin with what is known about the peer (tcp_init_metrics).

    A remembered RTT only makes the first RTO longer; the estimator goes by its own samples.
    Without one, and without a sample of the handshake, the RTO is three seconds (RFC 6298 §5.7).
    """
    tp = sk.tp
    prot = sk.prot
    tp.snd_ssthresh = TCP_INFINITE_SSTHRESH
    block = prot.metrics.lookup(tp.saddr, tp.daddr) if sk.dst is not None else None
    known_rtt = 0
    if block is not None:
        if block.c.ssthresh and not prot.config.tcp_no_ssthresh_metrics_save:
            tp.snd_ssthresh = block.c.ssthresh
        if block.c.reordering and block.c.reordering != tcp_reordering(sk):
            tcp_recovery(sk).reordering = block.c.reordering
        known_rtt = block.c.rtt
    if known_rtt > tp.srtt_us:
        rtt_us = known_rtt >> 3
        tp.rto_us = rtt_us + max(2 * rtt_us, TCP_RTO_MIN_US)
    elif not tp.srtt_us:
        tp.rto_us = tp.rttvar_us = tp.mdev_us = tp.mdev_max_us = TCP_TIMEOUT_FALLBACK_US


def tcp_update_metrics(sk: TcpSock) -> None:
    """Remember what a connection that ends in order has learnt (tcp_update_metrics)."""
    tp = sk.tp
    metrics = sk.prot.metrics
    if sk.prot.config.tcp_no_metrics_save or sk.dst is None:
        return
    if tp.backoff or not tp.srtt_us:
        block = metrics.lookup(tp.saddr, tp.daddr)
        if block is not None:
            block.c.rtt = 0  # no answer in time: what we knew is wrong
        return
    known = metrics.lookup_or_create(tp.saddr, tp.daddr)
    if sk.dst.fast:
        sk.dst.fast.remember(known)
    block = known.c
    _update_rtt(sk, block)
    _update_window(sk, block)
    reordering = tcp_reordering(sk)
    if block.reordering < reordering != sk.prot.config.tcp_reordering:
        block.reordering = reordering
    block.stamp_us = sk.prot.clock.now_us


def _update_rtt(sk: TcpSock, block: Any) -> None:
    """A longer RTT is believed at once, a shorter one by an eighth: too long is never wrong."""
    tp = sk.tp
    shorter_by = block.rtt - tp.srtt_us
    if shorter_by <= 0:
        block.rtt = tp.srtt_us
    else:
        block.rtt -= shorter_by >> 3
    deviation = max(abs(shorter_by) >> 1, tp.mdev_us)
    if deviation >= block.rttvar:
        block.rttvar = deviation
    else:
        block.rttvar -= (block.rttvar - deviation) >> 2


def _update_window(sk: TcpSock, block: Any) -> None:
    """Take cwnd and, if that is wanted, ssthresh, as far as they mean something."""
    tp = sk.tp
    save_ssthresh = not sk.prot.config.tcp_no_ssthresh_metrics_save
    if tp.snd_ssthresh >= TCP_INFINITE_SSTHRESH:  # slow start has not ended yet
        if save_ssthresh and block.ssthresh and tp.snd_cwnd >> 1 > block.ssthresh:
            block.ssthresh = tp.snd_cwnd >> 1
        block.cwnd = max(block.cwnd, tp.snd_cwnd)
    elif tp.snd_cwnd >= tp.snd_ssthresh and tp.ca_state == TCP_CA_OPEN:
        if save_ssthresh:
            block.ssthresh = max(tp.snd_cwnd >> 1, tp.snd_ssthresh)
        block.cwnd = (block.cwnd + tp.snd_cwnd) >> 1
    else:  # cwnd is on its way somewhere
        block.cwnd = (block.cwnd + tp.snd_ssthresh) >> 1
        if save_ssthresh and block.ssthresh and tp.snd_ssthresh > block.ssthresh:
            block.ssthresh = tp.snd_ssthresh
