"""The receive window: what we offer, and that it never shrinks (RFC 9293 §3.8.6).

``tcp_select_window`` is called for every segment that leaves. Room is the part of the receive
buffer that segments of the peer's size fill with text (scaling_ratio), less what waits to be
read; the offer opens only in steps worth having (RFC 9293 §3.8.6.2.2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.config import LINUX_310
from ustack.lib.seqnum import SEQ_MASK, before, seq_diff, seq_max
from ustack.native.lib import lib
from ustack.tcp.rtt import MAX_SAMPLE_US
from ustack.wire.tcp import TCP_MAX_WSCALE

if TYPE_CHECKING:
    from ustack.config import TcpConfig
    from ustack.tcp.sock import TcpSock

U16_MAX = 65535
MAX_TCP_WINDOW = 32767
SOCK_MIN_RCVBUF = 2304
TCP_RMEM_TO_WIN_SCALE = 8
TCP_DEFAULT_SCALING_RATIO = 128
"""Half of a buffer is window until a full segment has shown better."""
FRAME_OVERHEAD = 132
"""Headers with timestamps, and the room in front of them."""
SKB_OVERHEAD = 576
"""struct sk_buff and struct skb_shared_info."""
ICSK_ACK_NOMEM = 32


def tcp_win_from_space(sk: TcpSock, space: int) -> int:
    """Return how much of a buffer of ``space`` bytes is offered as window."""
    if sk.prot.profile == LINUX_310:
        return tcp_win_by_scale(sk.prot.config, space)
    return space * int(sk.tp.scaling_ratio) >> TCP_RMEM_TO_WIN_SCALE


def tcp_win_by_scale(config: TcpConfig, space: int) -> int:
    """Linux's rule before 6.6: a fixed part of the buffer, by tcp_adv_win_scale."""
    scale = config.tcp_adv_win_scale
    return space >> -scale if scale <= 0 else space - (space >> scale)


def tcp_space_from_win(sk: TcpSock, window: int) -> int:
    """Return how large a buffer must be for ``window`` bytes to be offered."""
    if sk.prot.profile == LINUX_310:
        return 2 * window
    return (window << TCP_RMEM_TO_WIN_SCALE) // max(int(sk.tp.scaling_ratio), 1)


def skb_truesize(length: int) -> int:
    """Return what a frame with ``length`` bytes of text costs Linux: headers, room, sk_buff.

    Ours is copied out of the ring at once and costs less, but the window that a peer is
    offered for a given buffer is part of what it sees of us.
    """
    return (length + FRAME_OVERHEAD + 63 & ~63) + SKB_OVERHEAD


def tcp_update_scaling_ratio(sk: TcpSock, length: int) -> None:
    """Offer as much of the buffer as segments of this size can fill (tcp_measure_rcv_mss)."""
    tp = sk.tp
    if sk.prot.profile == LINUX_310:
        return
    ratio = max((length << TCP_RMEM_TO_WIN_SCALE) // skb_truesize(length), 1)
    if ratio != tp.scaling_ratio:
        tp.scaling_ratio = min(ratio, 255)
        tcp_set_window_clamp(sk, tcp_win_from_space(sk, tp.sk_rcvbuf))
        tp.rcvq_space = min(tp.rcvq_space, tp.window_clamp)


def tcp_set_window_clamp(sk: TcpSock, value: int) -> None:
    """Never offer more than ``value`` bytes from now on (tcp_set_window_clamp)."""
    tp = sk.tp
    old = tp.window_clamp
    new = max(value, SOCK_MIN_RCVBUF // 2)
    tp.window_clamp = new
    if new < old:
        tp.rcv_ssthresh = min(tp.rcv_ssthresh, new)
    else:
        tp.rcv_ssthresh = max(min(tp.rcv_wnd, new), tp.rcv_ssthresh)


def tcp_initial_clamp(sk: TcpSock) -> int:
    """Return what bounds the first window: TCP_WINDOW_CLAMP or SO_RCVBUF, 0 if neither was set.

    A buffer that autotuning must leave alone needs no scale for more (tcp_connect_init).
    """
    clamp = int(sk.tp.window_clamp)
    if not sk.tp.rcvbuf_locked:
        return clamp
    space = sk.tp.sk_rcvbuf * TCP_DEFAULT_SCALING_RATIO >> TCP_RMEM_TO_WIN_SCALE
    return min(clamp or space, space)


def tcp_select_initial_window(
    config: TcpConfig, mss: int, rcvbuf: int, clamp: int = 0
) -> tuple[int, int]:
    """Return the first window in bytes and the scale for it (tcp_select_initial_window).

    The scale is chosen for the largest buffer that autotuning can reach; the window of a SYN
    is never scaled (RFC 7323 §2.2).

    Args:
        clamp: what bounds it, 0 if nothing does (tcp_initial_clamp).
    """
    clamp = clamp or U16_MAX << TCP_MAX_WSCALE
    space = rcvbuf * TCP_DEFAULT_SCALING_RATIO >> TCP_RMEM_TO_WIN_SCALE
    window = space = min(space, clamp)
    if window > mss:
        window -= window % mss
    if config.tcp_workaround_signed_windows:
        window = min(window, MAX_TCP_WINDOW)
    wscale = 0
    if config.tcp_window_scaling:
        largest = min(max(config.tcp_rmem[2], space), clamp)
        wscale = min(max(largest.bit_length() - 1 - 15, 0), TCP_MAX_WSCALE)
    return min(window, U16_MAX), wscale


def tcp_space(sk: TcpSock) -> int:
    """Return the free part of the receive buffer, in bytes of window; may be negative."""
    return tcp_win_from_space(sk, sk.tp.sk_rcvbuf) - _used_space(sk)


def _used_space(sk: TcpSock) -> int:
    used: int = sk.tp.receive_queue.len
    return used if sk.ofo is None else used + sk.ofo.nbytes


def tcp_receive_window(sk: TcpSock) -> int:
    """Return what is left of the window that we last advertised (tcp_receive_window)."""
    tp = sk.tp
    return max(seq_diff(tp.rcv_wup + tp.rcv_wnd & SEQ_MASK, tp.rcv_nxt), 0)


def tcp_max_receive_window(sk: TcpSock) -> int:
    """Return what is left of the largest window that we have advertised (RFC 7323 §2.4).

    Whoever fills a window that was taken back later sends from beyond its end: what such a
    segment acknowledges counts, or two ends that have both taken theirs back would never hear
    of each other again.
    """
    window = tcp_receive_window(sk)
    if sk.rcv_mwnd_seq is not None:
        window = max(window, seq_diff(sk.rcv_mwnd_seq, sk.tp.rcv_nxt))
    return window


def _note_edge(sk: TcpSock, old: int) -> None:
    """Remember the window's end, ``old`` until now, if it is taken back."""
    tp = sk.tp
    edge = tp.rcv_wup + tp.rcv_wnd & SEQ_MASK
    most = old if sk.rcv_mwnd_seq is None else seq_max(old, sk.rcv_mwnd_seq)
    if before(edge, most):
        sk.rcv_mwnd_seq = most
        tp.slow |= lib.US_TCP_SLOW_RETRACTED
    elif sk.rcv_mwnd_seq is not None:
        sk.rcv_mwnd_seq = None
        tp.slow &= ~lib.US_TCP_SLOW_RETRACTED


def tcp_new_window(sk: TcpSock) -> int:
    """Return the window that the buffer's state calls for (__tcp_select_window)."""
    tp = sk.tp
    allowed_space = tcp_win_from_space(sk, tp.sk_rcvbuf)
    full_space = min(tp.window_clamp, allowed_space)
    mss = min(tp.ack_rcv_mss, full_space)
    if mss <= 0:
        return 0
    free_space = allowed_space - _used_space(sk)
    scale = tp.rcv_wscale
    may_shrink = _may_shrink(sk)
    if free_space < full_space >> 1 or may_shrink:
        free_space = max(free_space, 0) >> scale << scale
    if free_space < full_space >> 1:
        tp.ack_quick = 0
        if sk.prot.pressure.since_us:
            tcp_adjust_rcv_ssthresh(sk)
        if free_space < allowed_space >> 4 or free_space < mss:
            return 0
        if may_shrink and free_space < 1 << scale:
            return 0
    free_space = min(free_space, tp.rcv_ssthresh)
    if scale:
        return -(-free_space >> scale) << scale
    return _unscaled_window(sk, free_space, full_space, mss)


def _unscaled_window(sk: TcpSock, free_space: int, full_space: int, mss: int) -> int:
    """Offer whole segments, and leave an offer alone that is nearly what it should be."""
    window: int = sk.tp.rcv_wnd
    if window <= free_space - mss or window > free_space:
        return free_space - free_space % mss
    if mss == full_space and free_space > window + (full_space >> 1):
        return free_space
    return window


def _may_shrink(sk: TcpSock) -> bool:
    """Whether a window may be taken back (tcp_shrink_window): only a scaled one."""
    return bool(sk.prot.config.tcp_shrink_window and sk.tp.rcv_wscale)


def tcp_select_window(sk: TcpSock) -> int:
    """Choose the window to advertise, note it, and return the 16-bit field of the header.

    What was offered stays offered (RFC 9293 §3.8.6.2.1), unless there is no memory to keep
    what comes: then the window is closed at once.
    """
    tp = sk.tp
    mib = sk.prot.mib_ext
    old = tp.rcv_wnd
    tp_rcv_nxt = tp.rcv_nxt
    edge = tp.rcv_wup + old & SEQ_MASK
    if tp.ack_pending & ICSK_ACK_NOMEM:
        tp.rcv_wnd = 0
        tp.rcv_wup = tp_rcv_nxt
        _note_edge(sk, edge)
        return 0
    current = tcp_receive_window(sk)
    scale = tp.rcv_wscale
    new = tcp_new_window(sk)
    if new < current and not _may_shrink(sk):
        if new == 0:
            mib.TCPWantZeroWindowAdv += 1
        new = -(-current >> scale) << scale
    tp.rcv_wnd = new
    tp.rcv_wup = tp_rcv_nxt
    if new < current or sk.rcv_mwnd_seq is not None:
        _note_edge(sk, edge)
    if not scale and sk.prot.config.tcp_workaround_signed_windows:
        new = min(new, MAX_TCP_WINDOW)
    field = min(new, U16_MAX << scale) >> scale
    if field == 0:
        if old:
            mib.TCPToZeroWindowAdv += 1
    elif old == 0:
        mib.TCPFromZeroWindowAdv += 1
    return field


def tcp_grow_window(sk: TcpSock, length: int) -> None:
    """Let the offer grow with segments that fill their memory well (tcp_grow_window)."""
    tp = sk.tp
    if tp.rcv_ssthresh >= tp.window_clamp:
        return  # it has grown as far as it may
    room = min(tp.window_clamp, tcp_space(sk)) - tp.rcv_ssthresh
    if room <= 0:
        return
    if sk.prot.pressure.since_us:
        tcp_adjust_rcv_ssthresh(sk)
        return
    truesize = skb_truesize(length)
    if tcp_win_from_space(sk, truesize) <= length:
        increase = 2 * tp.advmss
    else:
        increase = _grow_for_small(sk, length, truesize)
    if increase:
        tp.rcv_ssthresh += min(room, max(increase, 2 * length))
        tp.ack_quick |= 1


def tcp_adjust_rcv_ssthresh(sk: TcpSock) -> None:
    """Under memory pressure four segments are offered at most (tcp_adjust_rcv_ssthresh)."""
    sk.tp.rcv_ssthresh = min(sk.tp.rcv_ssthresh, 4 * sk.tp.advmss)


def _grow_for_small(sk: TcpSock, length: int, truesize: int) -> int:
    """A small segment lets the offer grow only while it is small itself (__tcp_grow_window)."""
    tp = sk.tp
    truesize = tcp_win_from_space(sk, truesize) >> 1
    window = tcp_win_from_space(sk, sk.prot.config.tcp_rmem[2]) >> 1
    while tp.rcv_ssthresh <= window:
        if truesize <= length:
            return int(2 * tp.ack_rcv_mss)
        truesize >>= 1
        window >>= 1
    return 0


def tcp_init_buffer_space(sk: TcpSock) -> None:
    """Set up the window of a connection that has just been established (tcp_init_buffer_space)."""
    tp = sk.tp
    most = tcp_win_from_space(sk, tp.sk_rcvbuf)
    app_win = sk.prot.config.tcp_app_win
    clamp = min(tp.window_clamp or U16_MAX << TCP_MAX_WSCALE, U16_MAX << tp.rcv_wscale)
    if clamp >= most:
        clamp = most
        if app_win and most > 4 * tp.advmss:
            clamp = max(most - (most >> app_win), 4 * tp.advmss)
    if app_win and clamp > 2 * tp.advmss and clamp + tp.advmss > most:
        clamp = max(2 * tp.advmss, most - tp.advmss)  # one segment is kept back
    tp.window_clamp = clamp
    tp.rcv_ssthresh = min(tp.rcv_wnd, clamp)
    tp.rcvq_space = min(tp.rcv_ssthresh, tp.rcv_wnd, 10 * tp.advmss)
    tp.rcvq_space_seq = tp.copied_seq
    tp.rcvq_space_time_us = sk.prot.clock.now_us


def tcp_rcv_space_adjust(sk: TcpSock) -> None:
    """Once per round trip: what has the application read since (tcp_rcv_space_adjust)?"""
    tp = sk.tp
    now_us = sk.prot.clock.now_us
    if now_us - tp.rcvq_space_time_us < (tp.rcv_rtt_us >> 3) or not tp.rcv_rtt_us:
        return
    copied = seq_diff(tp.copied_seq, tp.rcvq_space_seq)
    copied -= seq_diff(tp.rcv_nxt, tp.copied_seq)
    if copied > tp.rcvq_space:
        tcp_rcvbuf_grow(sk, copied)
    tp.rcvq_space_seq = tp.copied_seq
    tp.rcvq_space_time_us = now_us


def tcp_rcvbuf_grow(sk: TcpSock, copied: int) -> None:
    """Let the buffer hold what two round trips bring, at the pace at which that grows.

    Dynamic right-sizing (tcp_rcvbuf_grow): twice what was read in the last round trip, more
    while a sender doubles its rate, and what lies beyond a hole; tcp_rmem[2] at most.
    """
    tp = sk.tp
    config = sk.prot.config
    old, tp.rcvq_space = tp.rcvq_space, copied
    if not config.tcp_moderate_rcvbuf or sk.tp.rcvbuf_locked:
        return
    window = copied << 1
    if old:
        window += window * (copied - old) // old << 1
    if sk.ofo is not None:
        window += sk.ofo.end_after(tp.rcv_nxt)
    rcvbuf = min(tcp_space_from_win(sk, window), config.tcp_rmem[2])
    if rcvbuf > tp.sk_rcvbuf:
        tp.sk_rcvbuf = rcvbuf
        tp.window_clamp = tcp_win_from_space(sk, rcvbuf)


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
    """Take a sample into the receiver's RTT (<< 3).

    A smaller one counts at once. Window-based ones only lower it, and while something waits
    to be read a sample shows the reader's pace, not the path's.
    """
    tp = sk.tp
    sample_us = min(max(sample_us, 1), MAX_SAMPLE_US)
    if not tp.rcv_rtt_us or sample_us << 3 < tp.rcv_rtt_us:
        tp.rcv_rtt_us = sample_us << 3
    elif not window_based and tp.rcv_nxt == tp.copied_seq:
        tp.rcv_rtt_us += sample_us - (tp.rcv_rtt_us >> 3)
