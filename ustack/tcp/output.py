"""What may be sent now: congestion window, peer's window, Nagle (net/ipv4/tcp_output.c).

``tcp_write_xmit`` runs after every write and every ACK that opens something. The send queue
is a byte queue from SND.UNA on; up to SND.NXT it is in flight, beyond it waits. Segments are
cut here, as super-frames where the route's device can cut them further (TSO).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ustack.lib.seqnum import SEQ_MASK, after, before, seq_diff
from ustack.tcp.cong.ops import (
    CA_EVENT_TX_START,
    TCP_CA_CWR,
    TCP_CA_RECOVERY,
    tcp_ca_event,
)
from ustack.tcp.mss import tcp_current_mss
from ustack.tcp.mtu_probe import PROBE_LATER, MtuProbe, tcp_mtu_probe_size, tcp_mtup_sent
from ustack.tcp.pacing import tcp_pacing_check
from ustack.tcp.scoreboard import tcp_rtx_push
from ustack.tcp.send_window import (
    tcp_cwnd_test,
    tcp_cwnd_validate,
    tcp_fin_ignores_cwnd,
    tcp_packets_in_flight,
    tcp_slow_start_after_idle_check,
    tcp_wnd_end,
)
from ustack.tcp.small_queue import tcp_device_is_full, tcp_small_queue_check
from ustack.tcp.sndbuf import tcp_check_space
from ustack.tcp.sock import ICSK_TIME_LOSS_PROBE
from ustack.tcp.timer import (
    tcp_arm_retransmit,
    tcp_check_probe_timer,
    tcp_rearm_rto,
    tcp_schedule_loss_probe,
)
from ustack.tcp.transmit import tcp_transmit_skb
from ustack.tcp.tso import DEFER_CWND_LIMITED, tcp_tso_segs, tcp_tso_should_defer
from ustack.tcp.urgent import tcp_urg_mode
from ustack.wire.tcp import ACK, FIN, PSH

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock

TCP_NAGLE_OFF = 1
TCP_NAGLE_CORK = 2
TCP_NAGLE_PUSH = 4


def _nagle_holds(sk: TcpSock, length: int, mss: int, nonagle: int) -> bool:
    """Whether a segment of ``length`` waits (tcp_nagle_check; RFC 9293 §3.7.4, Minshall)."""
    if not 0 < length < mss or tcp_urg_mode(sk):
        return False
    if nonagle & TCP_NAGLE_CORK:
        return True
    tp = sk.tp
    if nonagle or tp.snd_nxt == tp.snd_una:
        return False
    return after(tp.snd_sml, tp.snd_una) and not after(tp.snd_sml, tp.snd_nxt)


def _next_length(sk: TcpSock, mss: int, quota: int, nonagle: int) -> int | None:
    """Return how many bytes go into the next segment, None if nothing may go now.

    0 means a FIN alone. This is tcp_snd_wnd_test, tcp_nagle_test and tcp_mss_split_point.
    """
    tp = sk.tp
    data = (tp.write_seq - tp.snd_nxt & SEQ_MASK) - tp.fin_queued
    room = seq_diff(tcp_wnd_end(sk), tp.snd_nxt)
    first = min(data, mss)
    last = tp.fin_queued and data <= mss
    if first + (1 if last else 0) > room:
        return None
    if data == 0:
        return 0
    if data <= mss:
        push = nonagle & TCP_NAGLE_PUSH or last
        return None if not push and _nagle_holds(sk, data, mss, nonagle) else data
    length = min(data, quota * mss, room)
    partial = length % mss
    return length - partial if _nagle_holds(sk, partial, mss, nonagle) else length


def tcp_write_xmit(sk: TcpSock, nonagle: int, *, push_one: int = 0) -> bool:
    """Send what the windows allow (tcp_write_xmit).

    Args:
        push_one: 1: one segment; 2: one even beyond cwnd, a tail loss probe.

    Returns:
        Whether the peer's window alone keeps data here while nothing is in flight: the
        caller then has the window probed.
    """
    tp = sk.tp
    if tp.snd_nxt == tp.write_seq:
        return False
    if sk.prot.sockmap is not None and sk.prot.sockmap.redirect(sk):
        return bool(tp.snd_nxt != tp.write_seq)
    mss = tcp_current_mss(sk)
    is_single = (tp.write_seq - tp.snd_nxt & SEQ_MASK) <= mss or tcp_urg_mode(sk)
    max_segs = 1 if is_single else tcp_tso_segs(sk, mss)
    prior_packets = tp.packets_out
    waits = False
    cwnd_limited = False
    if sk.mtup is not None and not push_one and tcp_mtu_probe(sk, sk.mtup):
        return False
    if not prior_packets:
        tcp_slow_start_after_idle_check(sk)
    while tp.snd_nxt != tp.write_seq:
        if sk.pacing is not None and tcp_pacing_check(sk):
            break
        quota = tcp_cwnd_test(tp)
        if not quota:
            if push_one != 2 and not tcp_fin_ignores_cwnd(sk, mss):
                break
            quota = 1
        length = _next_length(sk, mss, min(quota, max_segs), nonagle)
        if length is None:
            break
        data = (tp.write_seq - tp.snd_nxt & SEQ_MASK) - tp.fin_queued
        if data > mss and max_segs > 1 and not push_one:
            verdict = tcp_tso_should_defer(sk, data, max_segs)
            if verdict:
                cwnd_limited = verdict == DEFER_CWND_LIMITED
                break
        if tcp_small_queue_check(sk, length):
            waits = True
            break
        tcp_send_new(sk, length, mss)
        if push_one:
            break
    sent_pkts = tp.packets_out - prior_packets
    cwnd_limited = cwnd_limited or tcp_packets_in_flight(tp) >= tp.snd_cwnd
    if sent_pkts or cwnd_limited:
        tcp_cwnd_validate(sk, cwnd_limited=cwnd_limited)
    if not sent_pkts:
        return not waits and not prior_packets
    if tp.ca_state in (TCP_CA_CWR, TCP_CA_RECOVERY) and sk.recovery is not None:
        sk.recovery.prr_out += sent_pkts
    if (
        push_one != 2
        and not tcp_schedule_loss_probe(sk, advancing_rto=False)
        and sk.tp.icsk_pending == ICSK_TIME_LOSS_PROBE
    ):
        tcp_rearm_rto(sk)
    return False


def tcp_mtu_probe(sk: TcpSock, mtup: MtuProbe) -> bool:
    """Send a larger segment if it is time for one (tcp_mtu_probe); whether to wait for it."""
    size = tcp_mtu_probe_size(sk, mtup)
    if size > 0:
        tcp_send_new(sk, size, size)
        tcp_mtup_sent(sk, mtup, size)
    return size == PROBE_LATER


def tcp_send_new(sk: TcpSock, length: int, mss: int, flags: int = ACK) -> None:
    """Send ``length`` bytes at SND.NXT and advance it (tcp_event_new_data_sent)."""
    tp = sk.tp
    prot = sk.prot
    seq = tp.snd_nxt
    end_seq = seq + length & SEQ_MASK
    fin = 0
    at_the_end = tp.fin_queued and end_seq == (tp.write_seq - 1) & SEQ_MASK
    if at_the_end and before(end_seq, tcp_wnd_end(sk)):
        flags |= FIN
        fin = 1
    if length and end_seq == tp.pushed_seq:
        flags |= PSH
    was_idle = not tp.packets_out
    if was_idle:
        tcp_ca_event(sk, CA_EVENT_TX_START)
    tcp_transmit_skb(sk, seq, length, flags, gso_size=mss)
    tp.snd_nxt = end_seq + fin & SEQ_MASK
    if length % mss:
        tp.snd_sml = tp.snd_nxt
    pcount = -(-length // mss)
    prot.mib_ext.TCPOrigDataSent += pcount
    tcp_rtx_push(sk, seq, tp.snd_nxt, pcount or 1, mss, psh=bool(flags & PSH))
    if was_idle:
        tcp_arm_retransmit(sk, tp.rto_us, pace_delay=True)
    if sk.nospace:
        tcp_check_space(sk)


def tcp_push_pending_frames(sk: TcpSock) -> None:
    """Send what may be sent; if the peer's window forbids all, see to it that it is probed."""
    if sk.tp.snd_nxt != sk.tp.write_seq and tcp_write_xmit(sk, sk.tp.nonagle):
        tcp_check_probe_timer(sk)


def tcp_push(sk: TcpSock, goal: int, nonagle: int, *, more: bool) -> None:
    """After a write: mark the end with PSH unless more is announced, and send (tcp_push)."""
    tp = sk.tp
    if not more or forced_push(tp):
        tp.pushed_seq = tp.write_seq
    if tcp_should_autocork(sk, goal):
        if sk not in sk.prot.tsq:
            sk.prot.mib_ext.TCPAutoCorking += 1
            sk.prot.tsq[sk] = None
        return
    if tcp_write_xmit(sk, TCP_NAGLE_CORK if more else nonagle):
        tcp_check_probe_timer(sk)


def forced_push(tp: Any) -> bool:
    """Whether half of the largest window has been written without a push (forced_push)."""
    return after(tp.write_seq, tp.pushed_seq + (tp.max_window >> 1) & SEQ_MASK)


def tcp_should_autocork(sk: TcpSock, goal: int) -> bool:
    """Whether a small write waits because the device still has earlier ones to send.

    Linux looks at the socket's bytes below TCP; here a device that takes no more is the sign.
    """
    tp = sk.tp
    if tp.snd_nxt == tp.snd_una or not sk.prot.config.tcp_autocorking:
        return False
    return bool((tp.write_seq - tp.snd_nxt & SEQ_MASK) % goal) and tcp_device_is_full(sk)


def tcp_send_fin(sk: TcpSock) -> None:
    """Queue our FIN behind the data and send what may be sent (tcp_send_fin)."""
    tp = sk.tp
    tp.fin_queued = 1
    tp.write_seq = tp.write_seq + 1 & SEQ_MASK
    if tcp_write_xmit(sk, TCP_NAGLE_OFF):
        tcp_check_probe_timer(sk)
