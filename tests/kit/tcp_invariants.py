"""What holds of every connection of a stack at rest, whatever its peer and its application did.

``check_stack`` goes through the tables after every step; ``leftovers`` says what a stack
holds whose sockets are all closed and whose timers have run out.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from ustack.lib.seqnum import SEQ_MASK, seq_diff
from ustack.native.lib import ffi, lib
from ustack.native.mem import PAGE_SIZE
from ustack.stack import Stack
from ustack.tcp.cong.ops import TCP_CA_LOSS, TCP_CA_OPEN, TCP_CA_RECOVERY
from ustack.tcp.diag import ON_TIMERS
from ustack.tcp.rtt import TCP_RTO_MAX_US
from ustack.tcp.scoreboard import TCPCB_LOST, TCPCB_SACKED_ACKED, TCPCB_SACKED_RETRANS
from ustack.tcp.sock import ICSK_TIME_NONE, ICSK_TIME_PROBE0
from ustack.tcp.states import (
    TCP_CLOSE,
    TCP_CLOSE_WAIT,
    TCP_CLOSING,
    TCP_ESTABLISHED,
    TCP_LAST_ACK,
    TCP_LISTEN,
    TCP_SYN_SENT,
    TCP_TIME_WAIT,
)

ICSK_ACK_SCHED = 1
NO_MEMORY = -1
"""Where ``edges`` remembers how often text was refused: only then may a window be closed."""


def check_stack(stack: Stack, edges: dict[Any, int]) -> None:
    """Hold every invariant against every connection.

    Args:
        edges: right edge of each connection's window by handle and IRS; kept between calls.
    """
    tcp = stack.tcp
    for key, sk in tcp.ehash.items():
        assert sk.tp is not None, "a freed connection is still in the table"
        assert sk.key == key
        assert sk.tp.state not in (TCP_CLOSE, TCP_LISTEN, TCP_TIME_WAIT)
        assert sk.bind_bucket is tcp.bhash[sk.tp.sport]
        _send_side(sk)
        _receive_side(sk, edges)
        _timers(sk)
        _recovery(sk)
    for key, tw in tcp.twhash.items():
        assert tw.key == key and tw.tw.timer.pprev and key not in tcp.ehash
    for lsk in [lsk for group in tcp.listening_hash.values() for lsk in group]:
        assert lsk.listen is not None
        for key, request in lsk.listen.syn_queue.items():
            assert request.key == key
            if request.req.in_table:
                assert lsk.listen.table.timer.pending
            else:
                assert request.req.timer.pprev and tcp.reqsk_hash[key] == request
        young = sum(not r.req.num_timeout for r in lsk.listen.syn_queue.values())
        assert lsk.listen.qlen_young == young
        assert len(lsk.listen.accept_queue) <= lsk.listen.max_ack_backlog + 1
    edges[NO_MEMORY] = tcp.mib_ext.TCPRcvQDrop
    socks = list(tcp.ehash.values())
    assert stack.net.mib.tcp.CurrEstab == sum(
        s.tp.state in (TCP_ESTABLISHED, TCP_CLOSE_WAIT) for s in socks
    )
    assert tcp.orphan_count == sum(s.orphaned for s in socks)
    _memory(tcp, socks)


def _memory(tcp: Any, socks: list[Any]) -> None:
    """What counts against tcp_mem is what the queues hold."""
    every = {*tcp.socks.values(), *socks}
    queues = [queue for sk in every for queue in (sk.tp.write_queue, sk.tp.receive_queue)]
    held = sum(queue.truesize for queue in queues) // PAGE_SIZE
    assert held == lib.us_mem_queue_pages(tcp.mem.ptr), "queues' pages are miscounted"
    pages = [-(-sk.ofo.truesize // PAGE_SIZE) for sk in every if sk.ofo is not None]
    assert sum(pages) == tcp.fast.ptr.ofo_pages, "out-of-order queues' pages are miscounted"


def _memory_is_short(tcp: Any) -> bool:
    """Whether text may have been refused, or taken with the window closed for a moment."""
    return tcp.mem.free_pages <= tcp.mem.min_free or tcp.pressure.is_near()


def _send_side(sk: Any) -> None:
    tp = sk.tp
    in_flight = seq_diff(tp.snd_nxt, tp.snd_una)
    unsent = seq_diff(tp.write_seq, tp.snd_nxt)
    assert in_flight >= 0 and unsent >= 0, "SND.UNA <= SND.NXT <= write_seq"
    syn = int(tp.snd_una == tp.iss and not tp.bytes_acked)
    fin = int(tp.fin_queued and tp.snd_una != tp.write_seq)
    assert tp.write_queue.len == in_flight + unsent - syn - fin, "the send queue is out of step"
    assert tp.mss_cache > 0 and tp.snd_cwnd > 0
    assert 0 < tp.rto_us <= TCP_RTO_MAX_US


def _receive_side(sk: Any, edges: dict[Any, int]) -> None:
    tp = sk.tp
    if tp.state == TCP_SYN_SENT:
        return
    assert seq_diff(tp.rcv_nxt, tp.rcv_wup) >= 0
    unread = seq_diff(tp.rcv_nxt, tp.copied_seq)
    if not sk.dead:
        fin = bool(unread and sk.done)  # read with the end of the stream
        assert tp.receive_queue.len == unread - fin, "the receive queue is out of step"
    else:
        assert tp.receive_queue.len == 0 or sk.orphaned
    edge = tp.rcv_wup + tp.rcv_wnd & SEQ_MASK
    connection = (sk.handle, tp.irs)
    before = edges.get(connection, edge)
    starved = sk.prot.mib_ext.TCPRcvQDrop != edges.get(NO_MEMORY, 0)
    starved = starved or _memory_is_short(sk.prot)
    assert seq_diff(edge, before) >= 0 or starved, "the window has shrunk"
    edges[connection] = edge
    if sk.ofo is not None:
        entries = sk.ofo._entries
        assert entries, "an out-of-order queue with nothing in it"
        assert sk.ofo.nbytes == sum(len(entry.data) for entry in entries)
        assert sk.ofo._starts == [entry.start for entry in entries]
        assert all(e.end - e.start == len(e.data) + e.fin for e in entries)
        assert all(a.start < b.start and a.end < b.end for a, b in pairwise(entries))
        assert seq_diff(sk.ofo._base, tp.rcv_nxt) + entries[0].start > 0, "what is in order waits"
        assert bool(sk.ofo.compressed_ack) <= _pending(sk.ofo.compressed_ack_timer)
        if tp.state in (TCP_CLOSE_WAIT, TCP_LAST_ACK, TCP_CLOSING):
            raise AssertionError("an out-of-order queue behind the peer's FIN")


def _timers(sk: Any) -> None:
    tp = sk.tp
    assert bool(tp.icsk_timeout_us) == (tp.icsk_pending != ICSK_TIME_NONE)
    if tp.snd_una != tp.snd_nxt or sk in sk.prot.fastopen_rsk:
        assert tp.icsk_pending in ON_TIMERS, "in flight and no retransmission timer"
    elif tp.snd_nxt != tp.write_seq:
        assert tp.icsk_pending == ICSK_TIME_PROBE0 or sk in sk.prot.tsq, "a window unprobed"
    else:
        assert tp.icsk_pending == ICSK_TIME_NONE, "a timer with nothing to send"
    if tp.ack_pending & ICSK_ACK_SCHED:
        compressed = sk.ofo is not None and _pending(sk.ofo.compressed_ack_timer)
        assert tp.icsk_ack_timeout_us or compressed, "an ACK owed for ever"


def _pending(timer: Any) -> bool:
    return timer is not None and timer.pending


def _recovery(sk: Any) -> None:
    tp = sk.tp
    assert (tp.packets_out == 0) == (tp.snd_una == tp.snd_nxt)
    assert tp.sacked_out + tp.lost_out <= tp.packets_out, "more has left than was sent"
    assert tp.retrans_out <= tp.packets_out
    if tp.ca_state == TCP_CA_OPEN:
        assert tp.sacked_out == tp.lost_out == tp.retrans_out == 0
    if tp.ca_state in (TCP_CA_RECOVERY, TCP_CA_LOSS) and tp.packets_out:
        assert seq_diff(tp.snd_nxt, tp.high_seq) >= 0
    if sk.rtx is None:
        _log(sk)
    else:
        _scoreboard(sk)


def _log(sk: Any) -> None:
    """Without a scoreboard nothing is marked, and the log counts every segment."""
    tp = sk.tp
    assert tp.lost_out == tp.retrans_out == 0
    assert not tp.sack_ok or not tp.sacked_out
    raw = ffi.new("struct us_tx_rec[]", tp.txlog.len + 1)
    count = lib.us_tcp_tx_copy(sk.prot.mem.ptr, tp, raw, tp.txlog.len)
    assert count == tp.txlog.len
    assert tp.packets_out == sum(rec.pcount & ~lib.US_TX_PSH for rec in raw[0:count])
    end = tp.snd_una
    for rec in raw[0:count]:
        assert seq_diff(rec.end_seq, end) > 0
        end = rec.end_seq
    assert end == tp.snd_nxt or not count


def _scoreboard(sk: Any) -> None:
    """The counts are those of the marks; records follow each other from SND.UNA to SND.NXT."""
    tp = sk.tp
    recs = sk.rtx
    assert tp.txlog.len == 0 and recs
    assert seq_diff(recs[0].seq, tp.snd_una) <= 0 < seq_diff(recs[0].end_seq, tp.snd_una)
    assert recs[-1].end_seq == tp.snd_nxt
    for one, following in pairwise(recs):
        assert one.end_seq == following.seq
    marked = {
        mark: sum(rec.pcount for rec in recs if rec.sacked & mark)
        for mark in (TCPCB_SACKED_ACKED, TCPCB_LOST, TCPCB_SACKED_RETRANS)
    }
    assert tp.packets_out == sum(rec.pcount for rec in recs)
    assert tp.lost_out == marked[TCPCB_LOST]
    assert tp.retrans_out == marked[TCPCB_SACKED_RETRANS]
    if tp.sack_ok:
        assert tp.sacked_out == marked[TCPCB_SACKED_ACKED]
    times = [(rec.sent_us) for rec in sk.recovery.tsorted]
    assert times == sorted(times), "not in the order of sending"
    assert all(not rec.sacked & TCPCB_SACKED_ACKED for rec in sk.recovery.tsorted)


def leftovers(stack: Stack, *, listening: bool = False) -> dict[str, Any]:
    """Return what is left of TCP in ``stack``: nothing, if all is closed and waited for.

    Args:
        listening: one listener is to be there.
    """
    tcp = stack.tcp
    left: dict[str, Any] = {
        "ehash": list(tcp.ehash),
        "twhash": list(tcp.twhash),
        "listeners": list(tcp.listening_hash)[listening:],
        "ports": list(tcp.bhash)[listening:],
        "orphans": tcp.orphan_count,
        "CurrEstab": stack.net.mib.tcp.CurrEstab,
        "waiting for the device": list(tcp.tsq),
        "pages": tcp.pressure.allocated,
        "pressure": tcp.pressure.since_us,
        "timers": [t for _, _, t in stack.net.timers._heap if t.pending and _is_tcp(t)],
    }
    for name, info in stack.memory_info().items():
        left[name] = info.active_objs - (listening and name == "TCP")
    return {name: value for name, value in left.items() if value}


def pages_to_spare(stack: Stack) -> int:
    """Return the free pages of the arena, those that slab caches keep counted as free."""
    slabs = stack.memory_info().values()
    return stack.net.mem.free_pages + sum(info.num_slabs * info.pagesperslab for info in slabs)


def _is_tcp(timer: Any) -> bool:
    """Whether a connection's timer; the one that looks for idle sockets is the stack's."""
    return str(timer.fn.__module__).startswith("ustack.tcp") and timer.fn.__name__ != "_look"
