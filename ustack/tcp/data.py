"""Received text: the receive queue, the out-of-order queue, when to acknowledge, FIN.

The seventh and eighth of RFC 9293's checks. Bytes in order are copied once, into the byte
queue that ``recv`` reads; bytes beyond a hole wait in the out-of-order queue and follow when
the hole is filled (tcp_data_queue, tcp_ofo_queue, tcp_fin in net/ipv4/tcp_input.c).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.lib.drop_reason import DropReason
from ustack.lib.pieces import Pieces
from ustack.lib.seqnum import SEQ_MASK, after, before, seq_diff
from ustack.native.lib import ffi, lib
from ustack.sock.sock import RCV_SHUTDOWN
from ustack.tcp.delack import tcp_send_delayed_ack
from ustack.tcp.ofo import OutOfOrderQueue
from ustack.tcp.states import TCP_CLOSING, TCP_TIME_WAIT, TcpEvent
from ustack.tcp.timer import (
    ICSK_ACK_NOW,
    ICSK_ACK_PUSHED,
    ICSK_ACK_SCHED,
    TCP_ATO_MIN_US,
)
from ustack.tcp.timewait import tcp_time_wait
from ustack.tcp.transmit import tcp_send_ack
from ustack.tcp.window import (
    tcp_grow_window,
    tcp_new_window,
    tcp_rcv_rtt_measure,
    tcp_rcv_rtt_update,
    tcp_receive_window,
)
from ustack.wire.tcp import FIN, PSH

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock
    from ustack.wire.tcp import Segment

TCP_MAX_QUICKACKS = 16
TCP_MIN_RCVMSS = 536


def tcp_data_queue(sk: TcpSock, seg: Segment) -> DropReason | None:
    """Take a segment's text where it belongs (RFC 9293 §3.10.7.4, seventh check).

    Returns:
        None if something of it was kept, else why not: TCP_ZEROWINDOW, TCP_OVERWINDOW,
        TCP_OLD_DATA, TCP_RCVQ_DROP, TCP_OFO_DROP.
    """
    tp = sk.tp
    seq = seg.seq
    rcv_nxt = tp.rcv_nxt
    if seq == seg.end_seq:
        return None
    if not after(seg.end_seq, rcv_nxt):
        sk.prot.mib_ext.DelayedACKLost += 1
        tcp_dsack_set(sk, seq, seg.end_seq)
        tcp_enter_quickack_mode(sk)
        tp.ack_pending |= ICSK_ACK_SCHED
        return DropReason.TCP_OLD_DATA
    window = tcp_receive_window(sk)
    if not before(seq, rcv_nxt + window & SEQ_MASK) and (seg.payload or after(seq, rcv_nxt)):
        tcp_enter_quickack_mode(sk)
        tp.ack_pending |= ICSK_ACK_SCHED
        if window == 0 and seq == rcv_nxt:
            sk.prot.mib_ext.TCPZeroWindowDrop += 1
            return DropReason.TCP_ZEROWINDOW
        return DropReason.TCP_OVERWINDOW
    if after(seq, rcv_nxt):
        return tcp_data_queue_ofo(sk, seg, window)
    return _queue_in_order(sk, seg, window)


def _queue_in_order(sk: TcpSock, seg: Segment, window: int) -> DropReason | None:
    tp = sk.tp
    payload = seg.payload
    skip = tp.rcv_nxt - seg.seq & SEQ_MASK
    if skip:
        tcp_dsack_set(sk, seg.seq, tp.rcv_nxt)
        payload = payload[skip:]
    whole = len(payload) <= window
    if not whole:
        payload = payload[:window]
    if payload and not tcp_queue_rcv(sk, payload):
        return DropReason.TCP_RCVQ_DROP
    if payload:
        tcp_event_data_recv(sk, seg)
    if seg.flags & FIN and whole and tp.rcv_nxt == (seg.end_seq - 1) & SEQ_MASK:
        tcp_fin(sk)
    if sk.ofo is not None:
        tcp_ofo_queue(sk)
        if sk.ofo is None and sk.tp is not None:
            tp.ack_pending |= ICSK_ACK_NOW  # a hole filled: RFC 5681 §4.2
    if payload and not sk.dead:
        tcp_data_ready(sk)
    return None


def tcp_dsack_set(sk: TcpSock, seq: int, end_seq: int) -> None:
    """Have the next ACK report that [seq, end_seq) came twice (tcp_dsack_set, RFC 2883)."""
    if not sk.tp.sack_ok:
        return
    if before(seq, sk.tp.rcv_nxt):
        sk.prot.mib_ext.TCPDSACKOldSent += 1
    else:
        sk.prot.mib_ext.TCPDSACKOfoSent += 1
    sk.duplicate_sack = (seq, end_seq)


def tcp_queue_rcv(sk: TcpSock, payload: bytes | memoryview | Pieces) -> bool:
    """Append bytes to the receive queue and advance RCV.NXT; False if there was no room.

    A window that is rounded up to its scale lets a peer creep beyond the buffer: the buffer's
    size is the limit (tcp_try_rmem_schedule). Without room the peer and the reader, who can
    make some, learn it at once.
    """
    tp = sk.tp
    n = len(payload)
    took = 0
    if tp.receive_queue.len <= tp.sk_rcvbuf:
        took = _append(sk, payload)
        tp.rcv_nxt = tp.rcv_nxt + took & SEQ_MASK
        tp.bytes_received += took
    if took == n:
        return True
    sk.prot.mib_ext.TCPRcvQDrop += 1
    tp.ack_pending |= ICSK_ACK_SCHED | ICSK_ACK_NOW
    if not sk.dead:
        sk.sk_data_ready()
    return False


def _append(sk: TcpSock, payload: bytes | memoryview | Pieces) -> int:
    """Copy into the receive queue; return how many bytes the arena had room for."""
    took = 0
    for piece in payload.pieces if type(payload) is Pieces else (payload,):
        got = lib.us_bq_append(sk.prot.mem.ptr, sk.rcvq, ffi.from_buffer(piece), len(piece))
        took += got
        if got != len(piece):
            break
    return took


def tcp_data_ready(sk: TcpSock) -> None:
    """Wake a reader if there is as much as it asked for (SO_RCVLOWAT)."""
    if sk.tp.receive_queue.len >= sk.rcvlowat or sk.tp.rcv_shutdown & RCV_SHUTDOWN:
        sk.sk_data_ready()


def tcp_event_data_recv(sk: TcpSock, seg: Segment) -> None:
    """Data has come in order: learn the peer's segment size and rhythm (tcp_event_data_recv)."""
    tp = sk.tp
    now_us = sk.prot.clock.now_us
    tp.ack_pending |= ICSK_ACK_SCHED
    tcp_measure_rcv_mss(sk, seg)
    tcp_rcv_rtt_measure(sk)
    if not tp.ack_ato_us:
        tcp_incr_quickack(sk)
        tp.ack_ato_us = TCP_ATO_MIN_US
    else:
        gap_us = now_us - tp.ack_lrcvtime_us
        if gap_us <= TCP_ATO_MIN_US // 2:
            tp.ack_ato_us = (tp.ack_ato_us >> 1) + TCP_ATO_MIN_US // 2
        elif gap_us < tp.ack_ato_us:
            tp.ack_ato_us = min((tp.ack_ato_us >> 1) + gap_us, tp.rto_us)
        elif gap_us > tp.rto_us:
            tcp_incr_quickack(sk)
    tp.ack_lrcvtime_us = now_us
    if len(seg.payload) >= 128:
        tcp_grow_window(sk, len(seg.payload))


def tcp_measure_rcv_mss(sk: TcpSock, seg: Segment) -> None:
    """Estimate the peer's segment size for the ACK rules (tcp_measure_rcv_mss)."""
    tp = sk.tp
    length = seg.skb.gso_size if seg.skb is not None and seg.skb.gso_size else len(seg.payload)
    if length >= tp.ack_rcv_mss:
        tp.ack_rcv_mss = min(length, tp.advmss)
        if seg.flags & PSH and len(seg.payload) > length:
            tp.ack_pending |= ICSK_ACK_PUSHED
    elif seg.flags & PSH:
        tp.ack_pending |= ICSK_ACK_PUSHED
    if seg.tsval is not None and seg.tsecr and length >= tp.ack_rcv_mss and tp.tstamp_ok:
        delta_ms = sk.prot.clock.now_us // 1000 + tp.tsoffset - seg.tsecr & SEQ_MASK
        if delta_ms < 1_000_000:
            tcp_rcv_rtt_update(sk, max(delta_ms, 1) * 1000, window_based=False)


def tcp_incr_quickack(sk: TcpSock) -> None:
    """Acknowledge the next segments at once, half a window's worth (tcp_incr_quickack)."""
    tp = sk.tp
    quick = max(tp.rcv_wnd // (2 * max(tp.ack_rcv_mss, 1)), 2)
    quick = min(quick, TCP_MAX_QUICKACKS)
    if quick > tp.ack_quick:
        tp.ack_quick = quick


def tcp_enter_quickack_mode(sk: TcpSock) -> None:
    """Acknowledge at once from now on: something is amiss (tcp_enter_quickack_mode)."""
    tcp_incr_quickack(sk)
    sk.tp.ack_pingpong = 0
    sk.tp.ack_ato_us = TCP_ATO_MIN_US


def tcp_ack_snd_check(sk: TcpSock) -> None:
    """Send the ACK that is owed, now or later (__tcp_ack_snd_check).

    At once: more than one full segment has come and the window may move on, in quick-ACK
    mode, or something is out of order (RFC 5681 §4.2).
    """
    tp = sk.tp
    pending = tp.ack_pending
    if not pending & ICSK_ACK_SCHED:
        return
    unacked = tp.rcv_nxt - tp.rcv_wup & SEQ_MASK
    if (
        (unacked > tp.ack_rcv_mss and tcp_new_window(sk) >= tp.rcv_wnd)
        or (tp.ack_quick and not tp.ack_pingpong)
        or pending & ICSK_ACK_NOW
        or sk.ofo is not None
    ):
        tcp_send_ack(sk)
    else:
        tcp_send_delayed_ack(sk)


def tcp_data_queue_ofo(sk: TcpSock, seg: Segment, window: int) -> DropReason | None:
    """Keep text that lies beyond a hole, and report it with SACK (tcp_data_queue_ofo)."""
    tp = sk.tp
    mib = sk.prot.mib_ext
    tp.ack_pending |= ICSK_ACK_SCHED | ICSK_ACK_NOW
    tcp_enter_quickack_mode(sk)
    ofo = sk.ofo
    if ofo is None:
        ofo = sk.ofo = OutOfOrderQueue(tp.rcv_nxt)
    elif ofo.truesize > tp.sk_rcvbuf:
        mib.TCPOFODrop += 1
        return DropReason.TCP_OFO_DROP
    mib.TCPOFOQueue += 1  # whatever of it is new, as Linux counts
    payload = seg.payload
    room = window - seq_diff(seg.seq, tp.rcv_nxt)
    whole = len(payload) <= room
    if not whole:
        payload = payload[:room]
    if seg.flags & FIN and whole:
        ofo.fin_seq = (seg.end_seq - 1) & SEQ_MASK
    if not payload:
        return None
    if not ofo.insert(seg.seq, payload):
        mib.TCPOFOMerge += 1
        tcp_dsack_set(sk, seg.seq, seg.end_seq)
        return DropReason.TCP_OFOMERGE
    return None


def tcp_ofo_queue(sk: TcpSock) -> None:
    """Move what now follows in order to the receive queue (tcp_ofo_queue)."""
    tp = sk.tp
    ofo = sk.ofo
    if ofo is None:
        return
    while (data := ofo.take(tp.rcv_nxt)) is not None:
        if not tcp_queue_rcv(sk, data):
            sk.ofo = None  # reneged on (RFC 2018 §8): what was taken out is lost
            return
    if ofo.fin_seq is not None and ofo.fin_seq == tp.rcv_nxt:
        tcp_fin(sk)
    elif not len(ofo) and (ofo.fin_seq is None or before(ofo.fin_seq, tp.rcv_nxt)):
        sk.ofo = None


def tcp_fin(sk: TcpSock) -> None:
    """Take the peer's FIN, which stands at RCV.NXT (RFC 9293 §3.10.7.4, eighth check)."""
    tp = sk.tp
    tp.rcv_nxt = tp.rcv_nxt + 1 & SEQ_MASK
    tp.ack_pending |= ICSK_ACK_SCHED
    tp.rcv_shutdown |= RCV_SHUTDOWN
    sk.done = True
    sk.ofo = None
    new = sk.set_state(TcpEvent.RCV_FIN)
    if new == TCP_TIME_WAIT:
        tcp_send_ack(sk)
        tcp_time_wait(sk)
        return
    if new == TCP_CLOSING:
        tp.ack_pending |= ICSK_ACK_NOW  # our FIN is out: nothing will carry the ACK
    else:
        tp.ack_pingpong = 1  # our own FIN may carry the ACK
    if not sk.dead:
        sk.sk_state_change()
