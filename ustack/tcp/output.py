"""What may be sent now: congestion window, peer's window, Nagle (net/ipv4/tcp_output.c).

``tcp_write_xmit`` runs after every write and every ACK that opens something. The send queue
is a byte queue from SND.UNA on; up to SND.NXT it is in flight, beyond it waits. Segments are
cut here, as super-frames where the route's device can cut them further (TSO).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ustack.core.netdevice import NETIF_F_GSO, NETIF_F_TSO
from ustack.core.steering import flow_queue_is_stopped
from ustack.lib.seqnum import SEQ_MASK, after, before, seq_diff
from ustack.tcp.cong.ops import (
    CA_EVENT_CWND_RESTART,
    CA_EVENT_TX_START,
    TCP_CA_CWR,
    TCP_CA_OPEN,
    TCP_CA_RECOVERY,
    tcp_ca_event,
    tcp_current_ssthresh,
    tcp_is_cwnd_limited,
)
from ustack.tcp.pacing import MAX_RATE, tcp_pacing_check
from ustack.tcp.push import forced_push, tcp_grow_push, tcp_mark_push, tcp_take_push
from ustack.tcp.rtt import TCP_RTO_MAX_US
from ustack.tcp.scoreboard import tcp_rtx_push
from ustack.tcp.sndbuf import tcp_check_space
from ustack.tcp.sock import ICSK_TIME_LOSS_PROBE
from ustack.tcp.timer import (
    tcp_arm_retransmit,
    tcp_check_probe_timer,
    tcp_rearm_rto,
    tcp_schedule_loss_probe,
)
from ustack.tcp.transmit import tcp_options_len, tcp_route, tcp_transmit_skb
from ustack.tcp.urgent import tcp_urg_mode
from ustack.wire.ipv4 import IPPROTO_TCP
from ustack.wire.tcp import ACK, FIN, PSH, TCPOLEN_TSTAMP_ALIGNED

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock

TCP_NAGLE_OFF = 1
TCP_NAGLE_CORK = 2
TCP_NAGLE_PUSH = 4

MAX_TCP_HEADER = 320
"""Room that a super-frame leaves for every header (Linux's MAX_TCP_HEADER)."""
TCP_MIN_SND_MSS = 48
SK_PACING_SHIFT = 10
"""A super-frame takes 1/1024 of what the pacing rate makes in a second."""
U32_BITS = 32


def tcp_sync_mss(sk: TcpSock, pmtu: int) -> None:
    """Set the segment size for a path MTU (tcp_sync_mss): never above what the peer takes."""
    tp = sk.tp
    mss = min(pmtu - 40, tp.rx_opt_mss or 536)
    if tp.user_mss:
        mss = min(mss, tp.user_mss)
    if tp.tstamp_ok:
        mss -= TCPOLEN_TSTAMP_ALIGNED
    tp.pmtu_mss = pmtu - 40
    tp.mss_cache = max(_bound_to_half_wnd(tp.max_window, mss), TCP_MIN_SND_MSS)


def _bound_to_half_wnd(max_window: int, length: int) -> int:
    """Keep two segments below the largest window ever seen (tcp_bound_to_half_wnd)."""
    cutoff = max_window >> 1 if max_window > 536 else max_window
    return min(length, cutoff) if cutoff and length > cutoff else length


def tcp_current_mss(sk: TcpSock) -> int:
    """Return the payload of a full segment now, SACK blocks taken off (tcp_current_mss)."""
    tp = sk.tp
    rt = tcp_route(sk)
    if rt is not None and rt.mtu - 40 != tp.pmtu_mss:
        tcp_sync_mss(sk, rt.mtu)  # another socket has learnt it, or what was learnt has expired
    mss: int = tp.mss_cache
    if sk.ofo is not None or sk.duplicate_sack is not None:
        mss -= tcp_options_len(sk) - (TCPOLEN_TSTAMP_ALIGNED if tp.tstamp_ok else 0)
    return mss


def tcp_size_goal(sk: TcpSock, mss: int) -> int:
    """Return the payload of a super-frame, a multiple of ``mss`` (tcp_xmit_size_goal)."""
    rt = tcp_route(sk)
    if rt is None or not rt.dev.features & (NETIF_F_TSO | NETIF_F_GSO):
        return mss
    goal = _bound_to_half_wnd(sk.tp.max_window, rt.dev.gso_max_size - 1 - MAX_TCP_HEADER)
    return max(goal - goal % mss, mss)


def tcp_tso_segs(sk: TcpSock, mss: int) -> int:
    """Return how many segments one super-frame may have now (tcp_tso_autosize).

    What the pacing rate makes in a millisecond, so that a slow path gets no bursts, and more
    the shorter the path is: all of 64 KiB below a round trip of 2^tcp_tso_rtt_log us.
    """
    tp = sk.tp
    rt = tcp_route(sk)
    if rt is None or not rt.dev.features & (NETIF_F_TSO | NETIF_F_GSO):
        return 1
    most = rt.dev.gso_max_size - 1 - MAX_TCP_HEADER
    budget = (tp.sk_pacing_rate or MAX_RATE) >> SK_PACING_SHIFT
    halvings = tp.rtt_min_us >> sk.prot.config.tcp_tso_rtt_log
    if tp.rtt_min_us and halvings < U32_BITS:
        budget += most >> halvings
    return int(max(min(budget, most) // mss, sk.ca.min_tso_segs(sk)))


def tcp_cwnd_test(tp: Any) -> int:
    """Return how many segments cwnd allows in one go, so that two can be in flight (tcp_cwnd_test).

    0: none.
    """
    cwnd = tp.snd_cwnd
    free = cwnd - tcp_packets_in_flight(tp)
    return int(min(max(cwnd >> 1, 1), free)) if free > 0 else 0


def tcp_packets_in_flight(tp: Any) -> int:
    """Return how many segments are in the network as far as we know (RFC 6675's pipe).

    What was sent, less what has arrived or is lost, plus what was repeated.
    """
    return int(tp.packets_out - tp.sacked_out - tp.lost_out + tp.retrans_out)


def tcp_wnd_end(sk: TcpSock) -> int:
    """Return the sequence number just beyond the peer's window (tcp_wnd_end)."""
    tp = sk.tp
    return tp.snd_una + tp.snd_wnd & SEQ_MASK


def _nagle_holds(sk: TcpSock, length: int, mss: int, nonagle: int) -> bool:
    """Whether a segment of ``length`` waits (tcp_nagle_check; RFC 9293 §3.7.4, Minshall)."""
    if not 0 < length < mss:
        return False
    if nonagle & TCP_NAGLE_CORK:
        return True
    tp = sk.tp
    if nonagle or tp.snd_nxt == tp.snd_una or tcp_urg_mode(sk):
        return False
    return after(tp.snd_sml, tp.snd_una) and not after(tp.snd_sml, tp.snd_nxt)


def _next_length(sk: TcpSock, mss: int, quota: int, nonagle: int) -> int | None:
    """Return how many bytes go into the next segment, None if nothing may go now.

    0 means a FIN alone; ``quota`` is in segments. This is tcp_snd_wnd_test, tcp_nagle_test
    and tcp_mss_split_point.
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
    length = min(data, room)
    if quota * mss <= length:
        return quota * mss
    partial = length % mss
    return length - partial if _nagle_holds(sk, partial, mss, nonagle) else length


def tcp_write_xmit(sk: TcpSock, nonagle: int, *, push_one: int = 0, written: bool = False) -> bool:
    """Send what the windows allow (tcp_write_xmit).

    Args:
        push_one: 1: one segment; 2: one even beyond cwnd, a tail loss probe.
        written: this follows a write, in the course of which Linux sends packet by packet.

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
    max_segs = 0
    prior_packets = tp.packets_out
    waits = False
    cwnd_limited = False
    if not prior_packets:
        _slow_start_after_idle(sk)
    while tp.snd_nxt != tp.write_seq:
        if sk.pacing is not None and tcp_pacing_check(sk):
            break
        quota = tcp_cwnd_test(tp)
        if not quota:
            cwnd_limited = True
            fin_alone = (tp.write_seq - tp.snd_nxt & SEQ_MASK) == 1 and tp.fin_queued
            if not fin_alone and push_one != 2:
                break
            quota = 1  # neither a FIN alone nor a probe waits for the window
        if tcp_small_queue_check(sk):
            waits = True
            break
        max_segs = max_segs or (1 if tcp_urg_mode(sk) else tcp_tso_segs(sk, mss))
        quota = min(quota, max_segs)
        if not written:
            tcp_grow_push(sk, quota * mss)
        length = _next_length(sk, mss, quota, nonagle)
        if length is None:
            break
        tcp_send_new(sk, length, mss)
        if push_one:
            break
    sent_pkts = tp.packets_out - prior_packets
    if not sent_pkts:
        return not waits and not prior_packets
    tcp_cwnd_validate(sk, cwnd_limited=cwnd_limited)
    if tp.ca_state in (TCP_CA_CWR, TCP_CA_RECOVERY) and sk.recovery is not None:
        sk.recovery.prr_out += sent_pkts
    if (
        push_one != 2
        and not tcp_schedule_loss_probe(sk, advancing_rto=False)
        and sk.icsk_pending == ICSK_TIME_LOSS_PROBE
    ):
        tcp_rearm_rto(sk)
    return False


def tcp_small_queue_check(sk: TcpSock) -> bool:
    """Whether the device has enough of ours for now (tcp_small_queue_check).

    Linux counts each socket's bytes below TCP; here the device's own stopped queue is the
    limit. The socket goes on by ``tcp_tsq_run`` once descriptors are free again.
    """
    if not tcp_device_is_full(sk):
        return False
    sk.prot.tsq[sk] = None
    return True


def tcp_device_is_full(sk: TcpSock) -> bool:
    """Whether the transmit queue that our segments take is stopped; others' do not matter."""
    rt = tcp_route(sk)
    if rt is None or not rt.dev.queue_stopped:
        return False
    tp = sk.tp
    return flow_queue_is_stopped(
        sk.prot.net, rt.dev, IPPROTO_TCP, tp.saddr, tp.sport, tp.daddr, tp.dport
    )


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
    if length and tcp_take_push(sk, end_seq):
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
        tcp_arm_retransmit(sk, min(tp.rto_us, TCP_RTO_MAX_US))
    if sk.nospace:
        tcp_check_space(sk)


def _slow_start_after_idle(sk: TcpSock) -> None:
    """Halve cwnd for each RTO of silence (RFC 2861; tcp_slow_start_after_idle_check)."""
    tp = sk.tp
    idle_us = sk.prot.clock.now_us - tp.lsndtime_us
    if (
        idle_us <= tp.rto_us
        or not sk.prot.config.tcp_slow_start_after_idle
        or sk.ca.cong_control is not None
    ):
        return
    tcp_cwnd_restart(sk, idle_us)


def tcp_cwnd_restart(sk: TcpSock, idle_us: int) -> None:
    """Shrink cwnd towards the initial window, half for each RTO of ``idle_us``."""
    tp = sk.tp
    tcp_ca_event(sk, CA_EVENT_CWND_RESTART)
    tp.snd_ssthresh = tcp_current_ssthresh(sk)
    cwnd = tp.snd_cwnd
    restart = min(sk.prot.config.init_cwnd, cwnd)
    idle_us -= tp.rto_us
    while idle_us > 0 and cwnd > restart:
        cwnd >>= 1
        idle_us -= tp.rto_us
    tp.snd_cwnd = max(cwnd, restart)
    tp.snd_cwnd_stamp_us = sk.prot.clock.now_us
    tp.snd_cwnd_used = 0


def tcp_cwnd_validate(sk: TcpSock, *, cwnd_limited: bool) -> None:
    """Note whether cwnd was what held us back in this round (tcp_cwnd_validate, RFC 7661)."""
    tp = sk.tp
    in_flight = tcp_packets_in_flight(tp)
    cwnd_limited = cwnd_limited or in_flight >= tp.snd_cwnd
    if (
        not before(tp.snd_una, tp.cwnd_usage_seq)
        or cwnd_limited
        or (not tp.is_cwnd_limited and in_flight > tp.max_in_flight)
    ):
        tp.is_cwnd_limited = cwnd_limited
        tp.max_in_flight = in_flight
        tp.cwnd_usage_seq = tp.snd_nxt
    now_us = sk.prot.clock.now_us
    if tcp_is_cwnd_limited(sk):
        tp.snd_cwnd_used = 0
        tp.snd_cwnd_stamp_us = now_us
        return
    if in_flight > tp.snd_cwnd_used:
        tp.snd_cwnd_used = in_flight
    if (
        now_us - tp.snd_cwnd_stamp_us >= tp.rto_us
        and sk.prot.config.tcp_slow_start_after_idle
        and sk.ca.cong_control is None
    ):
        tcp_cwnd_application_limited(sk)


def tcp_cwnd_application_limited(sk: TcpSock) -> None:
    """Let cwnd sink half way to what was used in the last RTO (RFC 2861 §2)."""
    tp = sk.tp
    if tp.ca_state == TCP_CA_OPEN and not sk.nospace:
        win_used = max(tp.snd_cwnd_used, sk.prot.config.init_cwnd)
        if win_used < tp.snd_cwnd:
            tp.snd_ssthresh = tcp_current_ssthresh(sk)
            tp.snd_cwnd = (tp.snd_cwnd + win_used) >> 1
        tp.snd_cwnd_used = 0
    tp.snd_cwnd_stamp_us = sk.prot.clock.now_us


def tcp_push_pending_frames(sk: TcpSock) -> None:
    """Send what may be sent; if the peer's window forbids all, see to it that it is probed."""
    if sk.tp.snd_nxt != sk.tp.write_seq and tcp_write_xmit(sk, sk.tp.nonagle):
        tcp_check_probe_timer(sk)


def tcp_push(sk: TcpSock, goal: int, nonagle: int, *, more: bool) -> None:
    """After a write: mark the end with PSH unless more is announced, and send (tcp_push)."""
    tp = sk.tp
    if tp.snd_nxt == tp.write_seq:
        return
    if not more or forced_push(tp, tp.write_seq):
        tcp_mark_push(sk, tp.write_seq)
    if tcp_should_autocork(sk, goal):
        if sk not in sk.prot.tsq:
            sk.prot.mib_ext.TCPAutoCorking += 1
            sk.prot.tsq[sk] = None
        return
    if tcp_write_xmit(sk, TCP_NAGLE_CORK if more else nonagle, written=True):
        tcp_check_probe_timer(sk)


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
