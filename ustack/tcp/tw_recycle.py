"""tcp_tw_recycle, which linux-3.10 has and Linux 4.12 took away: TIME_WAIT for 3.5 RTOs only.

The last timestamp of a peer is kept with what is known of it (``metrics``), so that PAWS can
go on refusing its old segments without a mini-socket: a SYN with an older one is dropped for a
minute. That is why it is gone: the hosts behind one NAT address have clocks of their own.
Called by ``timewait``, ``conn_request`` and ``connect`` (net/ipv4/tcp_metrics.c of 3.10).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.config import LINUX_310
from ustack.lib.seqnum import seq_diff
from ustack.tcp.paws import TCP_PAWS_WINDOW

if TYPE_CHECKING:
    from ustack.tcp.protocol import TcpProt
    from ustack.tcp.sock import TcpSock
    from ustack.wire.tcp import Segment

TCP_PAWS_MSL_US = 60_000_000
"""How long a peer's old segments are feared (TCP_PAWS_MSL)."""


def tcp_recycles(prot: TcpProt) -> bool:
    """Whether TIME_WAIT is cut short: linux-3.10, if it is told to; linux-6 never."""
    return bool(prot.profile == LINUX_310 and prot.config.tcp_tw_recycle)


def tcp_remember_stamp(
    prot: TcpProt, saddr: int, daddr: int, ts_recent: int, stamp_us: int
) -> None:
    """Keep the latest timestamp of a peer, and when it came (tcp_remember_stamp)."""
    block = prot.metrics.lookup_or_create(saddr, daddr)
    too_old = prot.clock.now_us - block.ts_stamp_us > TCP_PAWS_MSL_US
    if seq_diff(block.ts, ts_recent) <= 0 or (too_old and block.ts_stamp_us <= stamp_us):
        block.ts, block.ts_stamp_us = ts_recent, stamp_us


def tcp_syn_is_old(prot: TcpProt, seg: Segment) -> bool:
    """Whether a SYN's timestamp is older than the peer's last (tcp_peer_is_proven, paws_check)."""
    block = prot.metrics.lookup(seg.daddr, seg.saddr)
    if block is None or seg.tsval is None or not block.ts_stamp_us:
        return False
    is_fresh = prot.clock.now_us - block.ts_stamp_us < TCP_PAWS_MSL_US
    return is_fresh and seq_diff(block.ts, seg.tsval) > TCP_PAWS_WINDOW


def tcp_fetch_timewait_stamp(sk: TcpSock) -> None:
    """Begin a connection with the peer's last timestamp (tcp_fetch_timewait_stamp)."""
    prot = sk.prot
    tp = sk.tp
    block = prot.metrics.lookup(tp.saddr, tp.daddr)
    if block is None or tp.ts_recent_stamp_us or not block.ts_stamp_us:
        return
    if prot.clock.now_us - block.ts_stamp_us <= TCP_PAWS_MSL_US:
        tp.ts_recent, tp.ts_recent_stamp_us = block.ts, block.ts_stamp_us
