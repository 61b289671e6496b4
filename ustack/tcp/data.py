"""Received text: the receive queue, the out-of-order queue, when to acknowledge, FIN.

The seventh and eighth of RFC 9293's checks. Bytes in order are copied once, into the byte
queue that ``recv`` reads; bytes beyond a hole wait in the out-of-order queue and follow when
the hole is filled (tcp_data_queue, tcp_ofo_queue, tcp_fin in net/ipv4/tcp_input.c).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.lib.drop_reason import DropReason
from ustack.lib.pieces import Pieces
from ustack.lib.seqnum import SEQ_MASK, after, before, seq_diff, seq_min
from ustack.native.lib import ffi, lib
from ustack.sock.sock import RCV_SHUTDOWN
from ustack.tcp.delack import inet_csk_enter_pingpong_mode, tcp_sack_compress_send_ack
from ustack.tcp.ecn import tcp_ecn_accept_cwr, tcp_ecn_check_ce
from ustack.tcp.ofo import OutOfOrderQueue, extend
from ustack.tcp.rmem import tcp_ofo_charge, tcp_ofo_purge, tcp_try_rmem_schedule
from ustack.tcp.states import TCP_CLOSING, TCP_TIME_WAIT, TcpEvent
from ustack.tcp.timer import (
    ICSK_ACK_NOMEM,
    ICSK_ACK_NOW,
    ICSK_ACK_PUSHED,
    ICSK_ACK_PUSHED2,
    ICSK_ACK_SCHED,
    TCP_ATO_MIN_US,
)
from ustack.tcp.timewait import tcp_time_wait
from ustack.tcp.transmit import tcp_send_ack
from ustack.tcp.urgent import tcp_at_mark
from ustack.tcp.window import (
    tcp_grow_window,
    tcp_rcv_rtt_measure,
    tcp_rcv_rtt_update,
    tcp_rcvbuf_grow,
    tcp_receive_window,
    tcp_update_scaling_ratio,
)
from ustack.wire.tcp import (
    CWR,
    FIN,
    PSH,
    SYN,
    TCP_HEADER_LEN,
    TCP_MSS_DEFAULT,
    TCPOLEN_TSTAMP_ALIGNED,
    URG,
)

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock
    from ustack.wire.tcp import Segment

TCP_MAX_QUICKACKS = 16
TCP_MIN_MSS = 88
TCP_REMNANT = FIN | URG | SYN | PSH
"""A segment with none of these has no reason to be smaller than the rest."""
TCP_SACK_BLOCKS_EXPECTED = 2
"""RFC 2018 §4: a block should be in three ACKs; here two, as Linux has it."""


def tcp_data_queue(sk: TcpSock, seg: Segment) -> DropReason | None:
    """Take a segment's text where it belongs (RFC 9293 §3.10.7.4, seventh check).

    Returns:
        None if something of it was kept, else why not: TCP_ZEROWINDOW, TCP_OVERWINDOW,
        TCP_OLD_DATA, TCP_OFOMERGE, PROTO_MEM.
    """
    tp = sk.tp
    seq = seg.seq
    rcv_nxt = tp.rcv_nxt
    if seq == seg.end_seq:
        return None
    if seg.flags & CWR:
        tcp_ecn_accept_cwr(sk)
    sk.duplicate_sack = None
    if seq == rcv_nxt:
        if not tcp_receive_window(sk) and seg.payload:
            return _zero_window(sk)
        return _queue_in_order(sk, seg)
    if not after(seg.end_seq, rcv_nxt):
        sk.prot.mib_ext.DelayedACKLost += 1
        tcp_dsack_set(sk, seq, seg.end_seq)
        return _out_of_window(sk, DropReason.TCP_OLD_DATA)
    window = tcp_receive_window(sk)
    if not before(seq, rcv_nxt + window & SEQ_MASK):
        return _out_of_window(sk, DropReason.TCP_OVERWINDOW)
    if before(seq, rcv_nxt):
        tcp_dsack_set(sk, seq, rcv_nxt)
        return _queue_in_order(sk, seg) if window else _zero_window(sk)
    return tcp_data_queue_ofo(sk, seg)


def _zero_window(sk: TcpSock) -> DropReason:
    sk.prot.mib_ext.TCPZeroWindowDrop += 1
    return _out_of_window(sk, DropReason.TCP_ZEROWINDOW)


def _out_of_window(sk: TcpSock, reason: DropReason) -> DropReason:
    """The peer does not know where we are: tell it at once."""
    tcp_enter_quickack_mode(sk)
    sk.tp.ack_pending |= ICSK_ACK_SCHED
    return reason


def _queue_in_order(sk: TcpSock, seg: Segment) -> DropReason | None:
    """Take text from RCV.NXT on, all of it, with what now follows, and a FIN."""
    tp = sk.tp
    payload = seg.payload
    skip = tp.rcv_nxt - seg.seq & SEQ_MASK
    if skip:
        payload = payload[skip:]
    if payload and not tcp_queue_rcv(sk, payload):
        if sk.ofo is not None:
            tcp_ofo_queue(sk)  # the part that was kept may reach into what waits
        return DropReason.PROTO_MEM
    if seg.payload:
        tcp_event_data_recv(sk, seg)  # old bytes before a new FIN count as well
    if seg.flags & FIN:
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
    if not sk.tp.sack_ok or not sk.prot.config.tcp_dsack:
        return
    if before(seq, sk.tp.rcv_nxt):
        sk.prot.mib_ext.TCPDSACKOldSent += 1
    else:
        sk.prot.mib_ext.TCPDSACKOfoSent += 1
    sk.duplicate_sack = (seq, end_seq)


def tcp_dsack_extend(sk: TcpSock, seq: int, end_seq: int) -> None:
    """Report one more range that came twice, if it touches the one before (tcp_dsack_extend)."""
    if sk.duplicate_sack is None:
        tcp_dsack_set(sk, seq, end_seq)
    else:
        sk.duplicate_sack = extend(sk.duplicate_sack, seq, end_seq)


def tcp_queue_rcv(sk: TcpSock, payload: bytes | bytearray | memoryview | Pieces) -> bool:
    """Append bytes to the receive queue and advance RCV.NXT; False if there was no room.

    The buffer's size is the limit, tcp_mem's and the arena's. Without room the window is closed
    at once (tcp_select_window) and the reader, who can make some, learns it. One who has nothing
    to read gets the text all the same, from the pages that are kept back.
    """
    tp = sk.tp
    n = len(payload)
    took = 0
    if tcp_try_rmem_schedule(sk, tp.rcv_nxt, n):
        took = _append(sk, payload)
    is_short = took < n
    if is_short:
        tp.ack_pending |= ICSK_ACK_SCHED | ICSK_ACK_NOMEM | ICSK_ACK_NOW
        if not tp.receive_queue.len:
            took = _append(sk, payload, forced=True)
    tp.rcv_nxt = tp.rcv_nxt + took & SEQ_MASK
    tp.bytes_received += took
    if is_short and not sk.dead:
        sk.sk_data_ready()
    if took == n:
        return True
    sk.prot.mib_ext.TCPRcvQDrop += 1
    return False


def _append(
    sk: TcpSock, payload: bytes | bytearray | memoryview | Pieces, *, forced: bool = False
) -> int:
    """Copy into the receive queue; return how many bytes the arena had room for."""
    mem = sk.prot.mem.ptr
    took = 0
    for piece in payload.pieces if type(payload) is Pieces else (payload,):
        source = ffi.from_buffer(piece)
        if forced:
            got = lib.us_bq_append_forced(mem, sk.rcvq, source, len(piece), 0)
        else:
            got = lib.us_bq_append(mem, sk.rcvq, source, len(piece))
        took += got
        if got != len(piece):
            break
    return took


def tcp_data_ready(sk: TcpSock) -> None:
    """Wake a reader if there is as much as it asked for (SO_RCVLOWAT), or the end."""
    if tcp_epollin_ready(sk) or sk.done or sk.tp.rcv_shutdown & RCV_SHUTDOWN:
        sk.sk_data_ready()


def tcp_epollin_ready(sk: TcpSock) -> bool:
    """Whether the reader has what it waits for, or no more could come (tcp_epollin_ready)."""
    tp = sk.tp
    available: int = tp.receive_queue.len
    if sk.urg is not None and not sk.oobinline and tcp_at_mark(sk):
        available -= 1  # the urgent byte is not in the stream
    if available <= 0:
        return False
    if available >= sk.rcvlowat or available > tp.sk_rcvbuf - (tp.sk_rcvbuf >> 3):
        return True
    return bool(tcp_receive_window(sk) <= tp.ack_rcv_mss)


def tcp_event_data_recv(sk: TcpSock, seg: Segment) -> None:
    """Data has come in order: learn the peer's segment size and rhythm (tcp_event_data_recv)."""
    tp = sk.tp
    now_us = sk.prot.clock.now_us
    tp.ack_pending |= ICSK_ACK_SCHED
    tcp_measure_rcv_mss(sk, seg)
    tcp_rcv_rtt_measure(sk)
    if tp.ecn_flags and tcp_ecn_check_ce(sk, seg):
        tcp_enter_quickack_mode(sk)
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
    """Estimate the peer's segment size for the ACK rules (tcp_measure_rcv_mss).

    It grows with every larger segment, and falls when two in a row have the same smaller size
    and are no ends of messages. A small one is the end of something: ICSK_ACK_PUSHED.
    """
    tp = sk.tp
    last_size = tp.ack_last_seg_size
    tp.ack_last_seg_size = 0
    length = seg.skb.gso_size if seg.skb is not None and seg.skb.gso_size else len(seg.payload)
    if length >= tp.ack_rcv_mss:
        if length != tp.ack_rcv_mss:
            tcp_update_scaling_ratio(sk, len(seg.payload))
        tp.ack_rcv_mss = min(length, tp.advmss)
        if seg.flags & PSH:
            tp.ack_pending |= ICSK_ACK_PUSHED
        return
    options = 0 if seg.tsval is None else TCPOLEN_TSTAMP_ALIGNED
    with_header = length + TCP_HEADER_LEN + options
    if with_header >= TCP_MSS_DEFAULT + TCP_HEADER_LEN or (
        with_header >= TCP_MIN_MSS + TCP_HEADER_LEN and not seg.flags & TCP_REMNANT
    ):
        tp.ack_last_seg_size = length
        if length == last_size:
            tp.ack_rcv_mss = length
            return
    if tp.ack_pending & ICSK_ACK_PUSHED:
        tp.ack_pending |= ICSK_ACK_PUSHED2
    tp.ack_pending |= ICSK_ACK_PUSHED


def tcp_rcv_rtt_measure_ts(sk: TcpSock, seg: Segment) -> None:
    """Take an RTT sample of a receiver from the echoed timestamp (tcp_rcv_rtt_measure_ts).

    Once for each echo, and only of a full segment: a small one may have been waiting.
    """
    tp = sk.tp
    if not tp.tstamp_ok or not seg.tsecr or seg.tsecr == tp.rcv_rtt_last_tsecr:
        return
    tp.rcv_rtt_last_tsecr = seg.tsecr
    if seg.end_seq - seg.seq & SEQ_MASK < tp.ack_rcv_mss:
        return
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


def tcp_data_queue_ofo(sk: TcpSock, seg: Segment) -> DropReason | None:
    """Keep text that lies beyond a hole, and report it with SACK (tcp_data_queue_ofo)."""
    tp = sk.tp
    mib = sk.prot.mib_ext
    payload = seg.payload
    if tp.ecn_flags and tcp_ecn_check_ce(sk, seg):
        tcp_enter_quickack_mode(sk)
    if not tcp_try_rmem_schedule(sk, seg.seq, len(payload)):
        mib.TCPOFODrop += 1
        if not sk.dead:
            sk.sk_data_ready()
        return DropReason.PROTO_MEM
    tcp_measure_rcv_mss(sk, seg)
    tp.ack_pending |= ICSK_ACK_SCHED
    mib.TCPOFOQueue += 1  # whatever of it is new, as Linux counts
    tp.rcv_ooopack += 1
    ofo = sk.ofo
    if ofo is None:
        ofo = sk.ofo = OutOfOrderQueue(tp.rcv_nxt)
        tp.slow |= lib.US_TCP_SLOW_OFO
    result = ofo.insert(seg.seq, payload, fin=bool(seg.flags & FIN))
    mib.TCPOFOMerge += result.merged
    for duplicate in result.duplicates:
        tcp_dsack_extend(sk, *duplicate)
    if tp.sack_ok:
        tcp_sack_new_ofo_skb(sk, seg.seq, seg.end_seq)
    if not result.kept:
        return DropReason.TCP_OFOMERGE
    tcp_ofo_charge(sk)
    if tp.sack_ok:
        tcp_grow_window(sk, len(payload))  # without SACK a changed window is no duplicate ACK
    if not sk.dead:
        tcp_rcvbuf_grow(sk, tp.rcvq_space)
    return None


def tcp_sack_new_ofo_skb(sk: TcpSock, seq: int, end_seq: int) -> None:
    """Report a block; what duplicate ACKs held back is sent before it would be pushed out."""
    ofo = sk.ofo
    assert ofo is not None
    if ofo.sack_new(seq, end_seq) >= TCP_SACK_BLOCKS_EXPECTED:
        tcp_sack_compress_send_ack(sk)


def tcp_ofo_queue(sk: TcpSock) -> None:
    """Move what now follows in order to the receive queue (tcp_ofo_queue)."""
    tp = sk.tp
    ofo = sk.ofo
    assert ofo is not None
    dsack_high = tp.rcv_nxt
    while (taken := ofo.take(tp.rcv_nxt)) is not None:
        tcp_ofo_charge(sk)
        seq, end_seq, entry = taken
        if before(seq, dsack_high):
            tcp_dsack_extend(sk, seq, seq_min(end_seq, dsack_high))
        if not after(end_seq, tp.rcv_nxt):
            continue
        skip = seq_diff(tp.rcv_nxt, seq)
        data = memoryview(entry.data)[skip:]
        if data and not tcp_queue_rcv(sk, data):
            tcp_ofo_purge(sk)  # reneged on (RFC 2018 §8): what was taken out is lost
            return
        if entry.fin:
            tcp_fin(sk)
            return
    ofo.sack_remove(tp.rcv_nxt)
    if not len(ofo):
        tcp_ofo_purge(sk)


def tcp_fin(sk: TcpSock) -> None:
    """Take the peer's FIN, which stands at RCV.NXT (RFC 9293 §3.10.7.4, eighth check).

    One that comes after another is no end of anything.
    """
    tp = sk.tp
    if tp.done:
        tcp_enter_quickack_mode(sk)
        tp.ack_pending |= ICSK_ACK_SCHED
        return
    tp.rcv_nxt = tp.rcv_nxt + 1 & SEQ_MASK
    tp.ack_pending |= ICSK_ACK_SCHED
    tp.rcv_shutdown |= RCV_SHUTDOWN
    tp.done = 1
    new = sk.set_state(TcpEvent.RCV_FIN)
    if new in (TCP_CLOSING, TCP_TIME_WAIT):
        tcp_send_ack(sk)  # our FIN is out: nothing will carry the ACK
    else:
        inet_csk_enter_pingpong_mode(sk)  # our own FIN may carry the ACK
    if new == TCP_TIME_WAIT:
        tcp_time_wait(sk)
        return
    tcp_ofo_purge(sk)
    sk.duplicate_sack = None
    if not sk.dead:
        sk.sk_state_change()
