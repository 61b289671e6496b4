"""The receive window: what we offer, and that it never shrinks (RFC 9293 §3.8.6).

``tcp_select_window`` is called for every segment that leaves. Room is half of the receive
buffer (net.ipv4.tcp_adv_win_scale 1) less what waits to be read; the offer opens only in
steps worth having (silly-window avoidance, RFC 9293 §3.8.6.2.2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.lib.seqnum import SEQ_MASK, seq_diff
from ustack.tcp.rtt import MAX_SAMPLE_US
from ustack.wire.tcp import TCP_MAX_WSCALE

if TYPE_CHECKING:
    from ustack.config import TcpConfig
    from ustack.tcp.sock import TcpSock

U16_MAX = 65535


def tcp_win_from_space(space: int) -> int:
    """Return how much of a buffer of ``space`` bytes is offered as window."""
    return space >> 1


def tcp_select_initial_window(config: TcpConfig, mss: int, space: int) -> tuple[int, int]:
    """Return the first window in bytes and the scale for it (tcp_select_initial_window).

    The scale is chosen for the largest buffer that autotuning can reach; the window of a SYN
    is never scaled (RFC 7323 §2.2).
    """
    window = tcp_win_from_space(space)
    if window > mss:
        window -= window % mss
    wscale = 0
    if config.tcp_window_scaling:
        largest = max(config.tcp_rmem[2], space)
        wscale = min(max(largest.bit_length() - 1 - 15, 0), TCP_MAX_WSCALE)
    if window > U16_MAX:
        window = U16_MAX - U16_MAX % mss
    return window, wscale


def tcp_space(sk: TcpSock) -> int:
    """Return the free part of the receive buffer, in bytes of window; may be negative."""
    tp = sk.tp
    used = tp.receive_queue.len + (sk.ofo.nbytes if sk.ofo is not None else 0)
    return tcp_win_from_space(tp.sk_rcvbuf) - used


def tcp_receive_window(sk: TcpSock) -> int:
    """Return what is left of the window that we last advertised (tcp_receive_window)."""
    tp = sk.tp
    return max(seq_diff(tp.rcv_wup + tp.rcv_wnd & SEQ_MASK, tp.rcv_nxt), 0)


def tcp_new_window(sk: TcpSock) -> int:
    """Return the window that the buffer's state calls for (__tcp_select_window)."""
    tp = sk.tp
    full_space = min(tp.window_clamp, tcp_win_from_space(tp.sk_rcvbuf))
    mss = min(tp.ack_rcv_mss, full_space)
    free_space = tcp_space(sk)
    if free_space < full_space >> 1:
        tp.ack_quick = 0
        if free_space < full_space >> 4 or free_space < mss:
            return 0
    free_space = min(free_space, tp.rcv_ssthresh)
    scale = tp.rcv_wscale
    if scale:
        return -(-free_space >> scale) << scale
    window: int = tp.rcv_wnd
    if window <= free_space - mss or window > free_space:
        return free_space - free_space % mss if mss else free_space
    if mss == full_space and free_space > window + (full_space >> 1):
        return free_space
    return window


def tcp_select_window(sk: TcpSock) -> int:
    """Choose the window to advertise, note it, and return the 16-bit field of the header."""
    tp = sk.tp
    mib = sk.prot.mib_ext
    old = tp.rcv_wnd
    current = tcp_receive_window(sk)
    scale = tp.rcv_wscale
    new = tcp_new_window(sk)
    if new < current:
        if new == 0:
            mib.TCPWantZeroWindowAdv += 1
        new = -(-current >> scale) << scale
    new = min(new, U16_MAX << scale)
    tp.rcv_wnd = new
    tp.rcv_wup = tp.rcv_nxt
    if new == 0:
        if old:
            mib.TCPToZeroWindowAdv += 1
    elif old == 0:
        mib.TCPFromZeroWindowAdv += 1
    return new >> scale


def tcp_grow_window(sk: TcpSock, length: int) -> None:
    """Let the offer grow with data that arrives (tcp_grow_window): two segments a packet."""
    tp = sk.tp
    room = min(tp.window_clamp, tcp_space(sk)) - tp.rcv_ssthresh
    if room > 0:
        tp.rcv_ssthresh += min(room, max(2 * tp.advmss, length))
        tp.ack_quick |= 1


def tcp_init_buffer_space(sk: TcpSock) -> None:
    """Set the clamps of a connection that has just been established (tcp_init_buffer_space)."""
    tp = sk.tp
    full = tcp_win_from_space(tp.sk_rcvbuf)
    tp.window_clamp = max(full, tp.rcv_wnd)
    tp.rcv_ssthresh = min(max(tp.rcv_ssthresh, tp.rcv_wnd), tp.window_clamp)
    tp.rcvq_space = min(tp.rcv_wnd, 10 * tp.advmss)
    tp.rcvq_space_seq = tp.copied_seq
    tp.rcvq_space_time_us = sk.prot.clock.now_us


def tcp_rcv_space_adjust(sk: TcpSock) -> None:
    """Grow the receive buffer to what the application reads in a round trip.

    Dynamic right-sizing as in Linux: once per RTT, the buffer becomes room for twice what
    was copied, with headroom for slow start, up to tcp_rmem[2].
    """
    tp = sk.tp
    now_us = sk.prot.clock.now_us
    if now_us - tp.rcvq_space_time_us < (tp.rcv_rtt_us >> 3) or not tp.rcv_rtt_us:
        return
    copied = seq_diff(tp.copied_seq, tp.rcvq_space_seq)
    if copied > tp.rcvq_space:
        window = (copied << 1) + 16 * tp.advmss
        window += window * (copied - tp.rcvq_space) // tp.rcvq_space * 2
        rcvbuf = min(2 * window, sk.prot.config.tcp_rmem[2])
        if rcvbuf > tp.sk_rcvbuf and not sk.rcvbuf_locked:
            tp.sk_rcvbuf = rcvbuf
            tp.window_clamp = tcp_win_from_space(rcvbuf)
        tp.rcvq_space = copied
    tp.rcvq_space_seq = tp.copied_seq
    tp.rcvq_space_time_us = now_us


def tcp_rcv_rtt_measure(sk: TcpSock) -> None:
    """Estimate the RTT of a pure receiver: the time to receive one window (DRS)."""
    tp = sk.tp
    now_us = sk.prot.clock.now_us
    if tp.rcv_rtt_time_us:
        if seq_diff(tp.rcv_nxt, tp.rcv_rtt_seq) < 0:
            return
        tcp_rcv_rtt_update(sk, now_us - tp.rcv_rtt_time_us, window_based=True)
    tp.rcv_rtt_seq = tp.rcv_nxt + tp.rcv_wnd & SEQ_MASK
    tp.rcv_rtt_time_us = now_us


def tcp_rcv_rtt_update(sk: TcpSock, sample_us: int, *, window_based: bool) -> None:
    """Take a sample into the receiver's RTT (<< 3); window-based ones only lower it."""
    tp = sk.tp
    sample_us = min(max(sample_us, 1), MAX_SAMPLE_US)
    if not tp.rcv_rtt_us:
        tp.rcv_rtt_us = sample_us << 3
    elif window_based:
        tp.rcv_rtt_us = min(tp.rcv_rtt_us, sample_us << 3)
    else:
        tp.rcv_rtt_us += sample_us - (tp.rcv_rtt_us >> 3)
