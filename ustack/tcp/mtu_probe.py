"""Finding the path MTU without ICMP: RFC 4821, packetization layer path MTU discovery.

Where a router drops what is too large and says nothing, timeouts are the only sign: then, or
with ``tcp_mtu_probing`` 2 from the start, segments begin small (``tcp_base_mss``) and a single
larger one probes upwards, between ``search_low``, which works, and ``search_high``. A probe
that is lost is no sign of congestion. The state hangs off the socket once it is needed.
``tcp_write_xmit`` probes, ``tcp_ack`` says what became of it. Reference: tcp_mtu_probe and
tcp_mtu_probing in net/ipv4/tcp_output.c and tcp_timer.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.lib.seqnum import SEQ_MASK, after
from ustack.native.lib import lib
from ustack.tcp.cong.ops import TCP_CA_CWR, TCP_CA_OPEN, tcp_current_ssthresh
from ustack.tcp.mss import (
    tcp_current_mss,
    tcp_mss_clamp,
    tcp_mss_to_mtu,
    tcp_mtu_to_mss,
    tcp_sync_mss,
)
from ustack.tcp.pacing import tcp_pacing_check
from ustack.tcp.scoreboard import tcp_reordering
from ustack.tcp.send_window import tcp_packets_in_flight, tcp_wnd_end
from ustack.wire.tcp import IPV4_TCP_HEADERS, TCPOLEN_TSTAMP_ALIGNED

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock

PROBE_LATER = 0
"""There will be room for a probe soon: nothing else is sent meanwhile."""
NO_PROBE = -1
MIN_CWND = 11
"""With a smaller window the loss of a probe would be felt (RFC 4821 §7.3)."""


class MtuProbe:
    """The search for the path MTU (icsk_mtup); sizes are of whole IP packets, in bytes."""

    __slots__ = ("probe_size", "search_high", "search_low", "seq_end", "seq_start", "stamp_us")

    def __init__(self, sk: TcpSock, *, tstamps: bool) -> None:
        tp = sk.tp
        self.search_high = tcp_mss_clamp(tp) + IPV4_TCP_HEADERS
        self.search_low = sk.prot.config.tcp_base_mss + IPV4_TCP_HEADERS
        if tstamps:
            self.search_low += TCPOLEN_TSTAMP_ALIGNED
        self.probe_size = 0
        """Of the probe in flight; 0: there is none."""
        self.seq_start = self.seq_end = 0
        """What that probe carries."""
        self.stamp_us = sk.prot.clock.now_us
        """When the search began."""


def tcp_mtup_init(sk: TcpSock, *, tstamps: bool) -> None:
    """Begin a connection: with tcp_mtu_probing 2 it searches from the start (tcp_mtup_init).

    Args:
        tstamps: whether segments have, or as long as the peer has not answered may get,
            timestamps.
    """
    always = sk.prot.config.tcp_mtu_probing > 1
    sk.mtup = MtuProbe(sk, tstamps=tstamps) if always else None
    if always:
        sk.tp.slow |= lib.US_TCP_SLOW_MTUP


def tcp_mtu_probing(sk: TcpSock) -> None:
    """Take a row of timeouts for a black hole: smaller segments (tcp_mtu_probing, RFC 4821 §7.7).

    The first time ``tcp_base_mss``, then half of what was tried last, down to the floor.
    """
    config = sk.prot.config
    if not config.tcp_mtu_probing:
        return
    mtup = sk.mtup
    if mtup is None:
        sk.mtup = MtuProbe(sk, tstamps=bool(sk.tp.tstamp_ok))
        sk.tp.slow |= lib.US_TCP_SLOW_MTUP
    else:
        mss = min(tcp_mtu_to_mss(sk, mtup.search_low) >> 1, config.tcp_base_mss)
        mss = max(mss, config.tcp_mtu_probe_floor, config.tcp_min_snd_mss)
        mtup.search_low = tcp_mss_to_mtu(sk, mss)
    tcp_sync_mss(sk, sk.tp.pmtu_mss + IPV4_TCP_HEADERS)


def tcp_mtu_probe_size(sk: TcpSock, mtup: MtuProbe) -> int:
    """Return the payload of a probe that may go now, PROBE_LATER or NO_PROBE (tcp_mtu_probe).

    There must be data for it and for enough segments behind it that its loss is noticed, in
    the send queue and in both windows (RFC 4821 §7.4).
    """
    tp = sk.tp
    if mtup.probe_size or tp.ca_state != TCP_CA_OPEN or tp.snd_cwnd < MIN_CWND:
        return NO_PROBE
    if sk.ofo is not None or sk.duplicate_sack is not None:
        return NO_PROBE  # SACK blocks change the size of headers
    tcp_current_mss(sk)
    size = tcp_mtu_to_mss(sk, (mtup.search_high + mtup.search_low) >> 1)
    needed = size + (tcp_reordering(sk) + 1) * tp.mss_cache
    interval = mtup.search_high - mtup.search_low
    too_large = size > tcp_mtu_to_mss(sk, mtup.search_high)
    if too_large or interval < sk.prot.config.tcp_probe_threshold:
        tcp_mtu_check_reprobe(sk, mtup)
        return NO_PROBE
    if (tp.write_seq - tp.snd_nxt & SEQ_MASK) < needed or tp.snd_wnd < needed:
        return NO_PROBE
    if after(tp.snd_nxt + needed & SEQ_MASK, tcp_wnd_end(sk)):
        return PROBE_LATER
    in_flight = tcp_packets_in_flight(tp)
    if in_flight + 2 > tp.snd_cwnd:
        return PROBE_LATER if in_flight else NO_PROBE
    if sk.pacing is not None and tcp_pacing_check(sk):
        return NO_PROBE
    return size


def tcp_mtu_check_reprobe(sk: TcpSock, mtup: MtuProbe) -> None:
    """Search anew once tcp_probe_interval is over: the path may have changed (RFC 4821 §7.5).

    Up to the route's MTU at most, which in Linux every probe beyond it is dropped for.
    """
    now_us = sk.prot.clock.now_us
    if now_us - mtup.stamp_us < sk.prot.config.tcp_probe_interval_us:
        return
    mtup.search_high = min(tcp_mss_clamp(sk.tp), sk.tp.pmtu_mss) + IPV4_TCP_HEADERS
    mtup.search_low = tcp_mss_to_mtu(sk, tcp_current_mss(sk))
    mtup.stamp_us = now_us


def tcp_mtup_sent(sk: TcpSock, mtup: MtuProbe, size: int) -> None:
    """Note that the ``size`` bytes below SND.NXT are a probe; it counts as two segments."""
    tp = sk.tp
    tp.snd_cwnd -= 1
    mtup.probe_size = tcp_mss_to_mtu(sk, size)
    mtup.seq_start = tp.snd_nxt - size & SEQ_MASK
    mtup.seq_end = tp.snd_nxt


def tcp_mtup_acked(sk: TcpSock, mtup: MtuProbe) -> None:
    """SND.UNA has moved: perhaps beyond the probe (tcp_clean_rtx_queue)."""
    if mtup.probe_size and not after(mtup.seq_end, sk.tp.snd_una):
        tcp_mtup_probe_success(sk, mtup)


def tcp_mtup_probe_success(sk: TcpSock, mtup: MtuProbe) -> None:
    """The path takes the probe's size: segments are as large now (tcp_mtup_probe_success).

    cwnd counts segments, so it shrinks in proportion; the bytes stay the same.
    """
    tp = sk.tp
    tp.prior_ssthresh = tcp_current_ssthresh(sk)
    tp.snd_cwnd = max(tp.snd_cwnd * tcp_mss_to_mtu(sk, tp.mss_cache) // mtup.probe_size, 1)
    tp.snd_cwnd_cnt = 0
    tp.snd_cwnd_stamp_us = sk.prot.clock.now_us
    tp.snd_ssthresh = tcp_current_ssthresh(sk)
    mtup.search_low = mtup.probe_size
    mtup.probe_size = 0
    tcp_sync_mss(sk, tp.pmtu_mss + IPV4_TCP_HEADERS)
    sk.prot.mib_ext.TCPMTUPSuccess += 1


def tcp_mtup_probe_is_lost(sk: TcpSock) -> bool:
    """Whether what is lost is the probe, and cwnd not being reduced already."""
    mtup = sk.mtup
    if mtup is None or not mtup.probe_size:
        return False
    tp = sk.tp
    return bool(tp.ca_state < TCP_CA_CWR and tp.snd_una == mtup.seq_start)


def tcp_mtup_probe_failed(sk: TcpSock) -> None:
    """The probe was lost: it was too large, cwnd gets its segment back (tcp_mtup_probe_failed)."""
    mtup = sk.mtup
    assert mtup is not None
    mtup.search_high = mtup.probe_size - 1
    mtup.probe_size = 0
    sk.tp.snd_cwnd += 1
    sk.prot.mib_ext.TCPMTUPFail += 1
