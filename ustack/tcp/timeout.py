"""What happens when a TCP timer expires (net/ipv4/tcp_timer.c).

``TcpProt`` names these as its timer handlers; ``timer.py`` arms them. When a peer stays
silent for too long the connection ends with ETIMEDOUT (RFC 9293 §3.8.3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.lib.seqnum import SEQ_MASK, seq_diff
from ustack.native.lib import lib
from ustack.tcp.ack import tcp_syn_is_unacked
from ustack.tcp.close import tcp_check_oom, tcp_done, tcp_write_err
from ustack.tcp.cong.ops import TCP_CA_DISORDER, TCP_CA_LOSS, TCP_CA_RECOVERY, TCP_INFINITE_SSTHRESH
from ustack.tcp.connect import tcp_retransmit_syn
from ustack.tcp.delack import tcp_delack_timer
from ustack.tcp.fastopen import tcp_fastopen_request
from ustack.tcp.fastopen_blackhole import tcp_fastopen_active_detect_blackhole
from ustack.tcp.fastopen_passive import tcp_fastopen_synack_timer
from ustack.tcp.loss import tcp_enter_loss
from ustack.tcp.mss import tcp_current_mss
from ustack.tcp.mtu_probe import tcp_mtu_probing
from ustack.tcp.output import tcp_send_new
from ustack.tcp.ports import bind_buckets_reap
from ustack.tcp.recovery_timer import tcp_rack_reo_timeout, tcp_resume_early_retransmit
from ustack.tcp.request_sock import reqsk_run_timers
from ustack.tcp.retransmit import tcp_retransmit_skb
from ustack.tcp.rtt import TCP_RTO_MAX_US, TCP_RTO_MIN_US, TCP_TIMEOUT_INIT_US, tcp_set_rto
from ustack.tcp.send_window import tcp_wnd_end
from ustack.tcp.sock import (
    ICSK_TIME_EARLY_RETRANS,
    ICSK_TIME_LOSS_PROBE,
    ICSK_TIME_NONE,
    ICSK_TIME_PROBE0,
    ICSK_TIME_REO_TIMEOUT,
    ICSK_TIME_RETRANS,
)
from ustack.tcp.states import (
    TCP_CLOSE,
    TCP_ESTABLISHED,
    TCP_LISTEN,
    TCP_SYN_RECV,
    TCP_SYN_SENT,
)
from ustack.tcp.timer import (
    tcp_arm_retransmit,
    tcp_head_sent_us,
    tcp_probed_for_us,
    tcp_rearm_probe0,
)
from ustack.tcp.timewait import TCP_TIMEWAIT_LEN_US
from ustack.tcp.tlp import tcp_send_loss_probe
from ustack.tcp.transmit import tcp_send_active_reset, tcp_xmit_probe_skb
from ustack.tcp.urgent import tcp_urgent_is_near
from ustack.wire.tcp import ACK, PSH

if TYPE_CHECKING:
    from ustack.tcp.protocol import TcpProt
    from ustack.tcp.sock import TcpSock

EV_WRITE_TIMER: int = lib.US_TCP_EV_WRITE_TIMER
EV_DELACK_TIMER: int = lib.US_TCP_EV_DELACK_TIMER
TICK_US = 1000
TCP_THIN_PACKETS = 4
TCP_THIN_LINEAR_RETRIES = 6


def tcp_run_timers(prot: TcpProt, limit: int) -> int:
    """Run what is due of all connections' timers, ``limit`` at most; return how many.

    C has them (``tcp_timer.c``), and does itself what is plain: a delayed ACK.
    """
    fast = prot.fast
    ptr, event = fast.ptr, fast.timer_event
    if not lib.us_tcp_timers_due(ptr, prot.clock.now_us):
        return 0
    fired = 0
    while fired < limit and lib.us_tcp_timer_expired(ptr, event):
        fired += 1
        sk = prot.sock_of(event.handle)
        what = event.what
        if what & EV_DELACK_TIMER:
            tcp_delack_timer(sk)
        if what & EV_WRITE_TIMER and sk.tp is not None:
            tcp_write_timer(sk)
    fired += reqsk_run_timers(prot, limit)
    fired += lib.us_twsk_expire(ptr, limit)
    fast.ring_doorbells()
    if ptr.emptied_shares:
        bind_buckets_reap(prot)
    return fired


def tcp_write_timer(sk: TcpSock) -> None:
    """The shared timer has expired: do what was pending (tcp_write_timer_handler)."""
    what = sk.tp.icsk_pending
    if sk.tp.state in (TCP_CLOSE, TCP_LISTEN):
        sk.tp.icsk_pending = ICSK_TIME_NONE
        return
    if what == ICSK_TIME_LOSS_PROBE:
        tcp_send_loss_probe(sk)
    elif what == ICSK_TIME_REO_TIMEOUT:
        tcp_rack_reo_timeout(sk)
    elif what == ICSK_TIME_EARLY_RETRANS:
        tcp_resume_early_retransmit(sk)
    else:
        sk.tp.icsk_pending = ICSK_TIME_NONE
        if what == ICSK_TIME_RETRANS:
            tcp_retransmit_timer(sk)
        elif what == ICSK_TIME_PROBE0:
            tcp_probe_timer(sk)


def tcp_retransmit_timer(sk: TcpSock) -> None:
    """The retransmission timeout (RFC 6298 §5.4-5.7, tcp_retransmit_timer)."""
    tp = sk.tp
    request = tcp_fastopen_request(sk)
    if request is not None:
        if not tcp_fastopen_synack_timer(sk, request):
            tcp_write_err(sk)
        return
    if not tp.packets_out:
        return
    sk.prot.mib_ext.TCPTimeouts += 1
    if tcp_syn_is_unacked(sk):
        if tcp_write_timeout(sk):
            return
        tp.retransmits = min(tp.retransmits + 1, 255)
        tcp_retransmit_syn(sk)
    elif not tp.snd_wnd and not sk.dead and tp.state != TCP_SYN_RECV:
        if _closed_window_timed_out(sk):
            tcp_write_err(sk)
            return
        tcp_enter_loss(sk)  # the window has shrunk to nothing: this is a window probe
        tcp_retransmit_skb(sk, 0, 1)
        sk.set_dst(None)
    else:
        if tcp_write_timeout(sk):
            return
        if not tp.retransmits:
            _count_failure(sk)
        tcp_enter_loss(sk)
        tp.retransmits = min(tp.retransmits + 1, 255)
        tcp_retransmit_skb(sk, 0, 1)
    linear = sk.prot.config.tcp_syn_linear_timeouts
    if tcp_stream_repeats_linearly(sk):
        tp.backoff = 0
        tcp_set_rto(sk)
    elif tp.state != TCP_SYN_SENT or tp.retransmits > linear:
        tp.backoff = min(tp.backoff + 1, 255)
        tp.rto_us = min(tp.rto_us << 1, tp.icsk_rto_max_us)
    tcp_arm_retransmit(sk, tcp_clamp_rto_to_user_timeout(sk))


def tcp_stream_repeats_linearly(sk: TcpSock) -> bool:
    """Whether a thin stream's RTO stays as it is: too little is out for anything but timeouts.

    With tcp_thin_linear_timeouts or TCP_THIN_LINEAR_TIMEOUTS, and for the first six times only
    (tcp_stream_is_thin).
    """
    tp = sk.tp
    return bool(
        (sk.prot.config.tcp_thin_linear_timeouts or sk.opts.thin_lto)
        and tp.state == TCP_ESTABLISHED
        and tp.packets_out < TCP_THIN_PACKETS
        and tp.snd_ssthresh < TCP_INFINITE_SSTHRESH
        and tp.retransmits <= TCP_THIN_LINEAR_RETRIES
    )


def tcp_clamp_rto_to_user_timeout(sk: TcpSock) -> int:
    """Return the RTO, but no more than is left of TCP_USER_TIMEOUT (RFC 5482 §3)."""
    tp = sk.tp
    if not sk.user_timeout_us:
        return int(tp.rto_us)
    since_us = sk.prot.clock.now_us - tp.retrans_stamp_us
    return int(min(tp.rto_us, max(sk.user_timeout_us - since_us, TICK_US)))


def _closed_window_timed_out(sk: TcpSock) -> bool:
    """Whether the peer has been silent for four minutes (tcp_rtx_probe0_timed_out).

    Or for TCP_USER_TIMEOUT; nor do answers help then that acknowledge nothing.
    """
    tp = sk.tp
    now_us = sk.prot.clock.now_us
    limit_us = 2 * tp.icsk_rto_max_us
    since_us = now_us - (tp.retrans_stamp_us or tcp_head_sent_us(sk))
    if sk.user_timeout_us:
        if since_us > sk.user_timeout_us:
            return True
        limit_us = min(limit_us, sk.user_timeout_us)
    return bool(now_us - tp.rcv_tstamp_us > limit_us and since_us > limit_us)


def _count_failure(sk: TcpSock) -> None:
    """Count what the timeout puts an end to."""
    tp = sk.tp
    mib = sk.prot.mib_ext
    if tp.ca_state == TCP_CA_RECOVERY:
        if tp.sack_ok:
            mib.TCPSackRecoveryFail += 1
        else:
            mib.TCPRenoRecoveryFail += 1
    elif tp.ca_state == TCP_CA_LOSS:
        mib.TCPLossFailures += 1
    elif tp.ca_state == TCP_CA_DISORDER or tp.sacked_out:
        if tp.sack_ok:
            mib.TCPSackFailures += 1
        else:
            mib.TCPRenoFailures += 1


def tcp_model_timeout_us(
    boundary: int, rto_base_us: int = TCP_RTO_MIN_US, rto_max_us: int = TCP_RTO_MAX_US
) -> int:
    """Return how long ``boundary`` doublings from ``rto_base_us`` last (tcp_model_timeout)."""
    doublings = min(boundary, (rto_max_us // rto_base_us).bit_length() - 1)
    return ((2 << doublings) - 1) * rto_base_us + (boundary - doublings) * rto_max_us


def tcp_write_timeout(sk: TcpSock) -> bool:
    """Give up if the peer has been silent for too long (RFC 9293 §3.8.3, R2)."""
    tp = sk.tp
    if tp.state in (TCP_SYN_SENT, TCP_SYN_RECV):
        expired, retries = tcp_syn_is_hopeless(sk)
    else:
        retries = sk.prot.config.tcp_retries2
        expired = False
        if sk.dead:
            alive = tp.rto_us < tp.icsk_rto_max_us
            retries = tcp_orphan_retries(sk, alive=alive)
            if tcp_out_of_resources(
                sk, do_reset=alive or not retransmits_timed_out(sk, retries, 0)
            ):
                return True
        if retransmits_timed_out(sk, sk.prot.config.tcp_retries1, 0):
            tcp_mtu_probing(sk)
            sk.set_dst(None)  # RFC 9293 §3.8.3, R1: perhaps there is another way
    expired = expired or retransmits_timed_out(sk, retries, sk.user_timeout_us)
    tcp_fastopen_active_detect_blackhole(sk, expired=expired)
    if expired:
        tcp_write_err(sk)
    return expired


def tcp_syn_is_hopeless(sk: TcpSock) -> tuple[bool, int]:
    """Whether the SYN has been repeated often enough, and how often that is.

    The retries at a constant second come in addition, but the time is that of the others.
    """
    config = sk.prot.config
    retries = sk.opts.syn_retries or config.tcp_syn_retries
    most = retries
    if sk.tp.state == TCP_SYN_SENT:
        most += config.tcp_syn_linear_timeouts
    return sk.tp.retransmits >= most, retries


def retransmits_timed_out(sk: TcpSock, boundary: int, timeout_us: int) -> bool:
    """Whether the peer has not answered for ``boundary`` doublings, or for ``timeout_us``."""
    tp = sk.tp
    if not tp.retransmits or not tp.retrans_stamp_us:
        return False
    if not timeout_us:
        opening = tp.state in (TCP_SYN_SENT, TCP_SYN_RECV)
        base_us = TCP_TIMEOUT_INIT_US if opening else TCP_RTO_MIN_US
        timeout_us = tcp_model_timeout_us(boundary, base_us, tp.icsk_rto_max_us)
    return bool(sk.prot.clock.now_us - tp.retrans_stamp_us >= timeout_us)


def tcp_orphan_retries(sk: TcpSock, *, alive: bool) -> int:
    """How often an orphan repeats what is not acknowledged (tcp_orphan_retries).

    Zero, the default, means 8 for a peer that may still be there: over 100 s. One of whom ICMP
    has said that it is not there is given up at once.
    """
    retries = sk.prot.config.tcp_orphan_retries
    if sk.sk_err_soft and not alive:
        retries = 0
    return 8 if not retries and alive else retries


def tcp_out_of_resources(sk: TcpSock, *, do_reset: bool) -> bool:
    """End an orphan if there are too many (tcp_out_of_resources); one that is silent counts
    double, one of whom ICMP has said something bad double again."""
    tp = sk.tp
    prot = sk.prot
    silent_us = prot.clock.now_us - tp.lsndtime_us
    shift = int(silent_us > 2 * tp.icsk_rto_max_us or not do_reset) + bool(sk.sk_err_soft)
    if not tcp_check_oom(sk, shift):
        return False
    window_closed = not tp.snd_wnd and tp.snd_una == tp.snd_nxt
    if do_reset or silent_us <= TCP_TIMEWAIT_LEN_US or window_closed:
        tcp_send_active_reset(sk)
    prot.mib_ext.TCPAbortOnMemory += 1
    tcp_done(sk)
    return True


def tcp_probe_timer(sk: TcpSock) -> None:
    """Probe a closed window (RFC 9293 §3.8.6.1, tcp_probe_timer, tcp_send_probe0)."""
    tp = sk.tp
    if tp.snd_una != tp.snd_nxt or tp.snd_nxt == tp.write_seq:
        tp.probes_out = tp.icsk_probes_tstamp_ms = 0
        return
    if not tp.icsk_probes_tstamp_ms:
        tp.icsk_probes_tstamp_ms = sk.prot.tcp_time_stamp() or 1
    elif sk.user_timeout_us and tcp_probed_for_us(sk) >= sk.user_timeout_us:
        tcp_write_err(sk)  # whether the peer answers or not
        return
    config = sk.prot.config
    limit = config.tcp_retries2
    if sk.dead:
        alive = tp.rto_us << tp.backoff < tp.icsk_rto_max_us
        limit = tcp_orphan_retries(sk, alive=alive)
        if not alive and tp.backoff >= limit:
            tcp_write_err(sk)  # an orphan goes though the peer answers: nobody waits for it
            return
        if tcp_out_of_resources(sk, do_reset=True):
            return
    if tp.probes_out >= limit:
        tcp_write_err(sk)
        return
    tcp_write_wakeup(sk)
    sk.prot.mib_ext.TCPWinProbe += 1
    if tp.snd_una == tp.snd_nxt:
        tp.backoff = min(tp.backoff + 1, config.tcp_retries2)
        tp.probes_out += 1
        tcp_rearm_probe0(sk)
    else:
        tp.icsk_probes_tstamp_ms = 0


def tcp_write_wakeup(sk: TcpSock) -> None:
    """Send the sliver that fits the window, or an empty probe (tcp_write_wakeup).

    A further probe tells of urgent data, since what has it cannot go (RFC 9293 §3.8.5).
    """
    tp = sk.tp
    room = seq_diff(tcp_wnd_end(sk), tp.snd_nxt)
    data = (tp.write_seq - tp.snd_nxt & SEQ_MASK) - tp.fin_queued
    length = min(room, data, tcp_current_mss(sk))
    if length > 0:
        tcp_send_new(sk, length, tcp_current_mss(sk), ACK | PSH)
        return
    if tcp_urgent_is_near(sk):
        tcp_xmit_probe_skb(sk, urgent=True)
    tcp_xmit_probe_skb(sk)
