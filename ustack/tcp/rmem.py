"""How much a connection may keep for its reader, and what gives way when it is too much.

The receive queue and the out-of-order queue share SO_RCVBUF. A segment that does not fit makes
the buffer grow while tcp_rmem allows it, then costs what lies far beyond the hole, which the
peer must send again; only then is it dropped (tcp_try_rmem_schedule, tcp_prune_queue).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.config import LINUX_310
from ustack.native.lib import lib
from ustack.sock.mem import sk_mem_pages
from ustack.tcp.mem import sk_rmem_schedule
from ustack.tcp.window import tcp_adjust_rcv_ssthresh

if TYPE_CHECKING:
    from ustack.tcp.ofo import OutOfOrderQueue
    from ustack.tcp.sock import TcpSock


def sk_rmem_alloc(sk: TcpSock) -> int:
    """Return the bytes that wait for the reader or for a hole to be filled."""
    held: int = sk.tp.receive_queue.len
    return held + sk.ofo.truesize if sk.ofo is not None else held


def tcp_can_ingest(sk: TcpSock, length: int) -> bool:
    """Whether ``length`` more bytes fit the receive buffer (tcp_can_ingest)."""
    return bool(sk_rmem_alloc(sk) + length <= sk.tp.sk_rcvbuf)


def tcp_try_rmem_schedule(sk: TcpSock, seq: int, length: int) -> bool:
    """Make room for a segment of ``length`` bytes at ``seq``; False if there can be none."""
    held = sk_rmem_alloc(sk)
    if held + length <= sk.tp.sk_rcvbuf and sk_rmem_schedule(sk, length, held):
        return True
    if not tcp_prune_queue(sk, seq, length):
        return False
    while not sk_rmem_schedule(sk, length, sk_rmem_alloc(sk)):
        if not tcp_prune_ofo_queue(sk, seq, length):
            return False
    return True


def tcp_prune_queue(sk: TcpSock, seq: int, length: int) -> bool:
    """Let the buffer grow, pack what is there more tightly, then throw away what is furthest
    beyond the hole (tcp_prune_queue)."""
    mib = sk.prot.mib_ext
    if not sk_rmem_alloc(sk):
        return False
    mib.PruneCalled += 1
    if not tcp_can_ingest(sk, length):
        tcp_clamp_window(sk, length)
    elif sk.prot.pressure.since_us:
        tcp_adjust_rcv_ssthresh(sk)
    if tcp_can_ingest(sk, length):
        return True
    tcp_collapse_ofo_queue(sk)
    if tcp_can_ingest(sk, length):
        return True
    tcp_prune_ofo_queue(sk, seq, length)
    if tcp_can_ingest(sk, length):
        return True
    mib.RcvPruned += 1
    return False


def tcp_clamp_window(sk: TcpSock, length: int) -> None:
    """The peer sends more than we can hold: room up to tcp_rmem[2], then a smaller window."""
    tp = sk.tp
    tp.ack_quick = 0
    most = sk.prot.config.tcp_rmem[2]
    wanted = sk_rmem_alloc(sk) + length
    if tp.sk_rcvbuf < most and not sk.tp.rcvbuf_locked and not sk.prot.pressure.is_near():
        tp.sk_rcvbuf = max(min(wanted, most), tp.sk_rcvbuf)
    if wanted > tp.sk_rcvbuf:
        tp.rcv_ssthresh = min(tp.window_clamp, 2 * tp.advmss)


def tcp_collapse_ofo_queue(sk: TcpSock) -> None:
    """Join what follows each other beyond the hole (tcp_collapse_ofo_queue).

    The receive queue needs none of this: its chunks hold the text of many segments.
    """
    if sk.ofo is not None:
        sk.prot.mib_ext.TCPRcvCollapsed += sk.ofo.collapse()
        tcp_ofo_charge(sk)


def tcp_prune_ofo_queue(sk: TcpSock, seq: int, length: int) -> bool:
    """Drop segments from the end of the out-of-order queue, an eighth of the buffer at a time.

    linux-3.10, whose queue is a list, drops all of it. The SACK blocks are forgotten with
    them: a peer must keep what it sent until it is acknowledged (RFC 2018 §8).
    """
    ofo = sk.ofo
    if ofo is None:
        return False
    if sk.prot.profile == LINUX_310:
        sk.prot.mib_ext.OfoPruned += 1
        tcp_ofo_purge(sk)
        return True
    pruned = _prune_from_the_end(sk, ofo, seq, length)
    if pruned:
        sk.prot.mib_ext.OfoPruned += 1
        ofo.sacks = []
        tcp_ofo_charge(sk)
        if not len(ofo):
            tcp_ofo_purge(sk)
    return pruned


def _prune_from_the_end(sk: TcpSock, ofo: OutOfOrderQueue, seq: int, length: int) -> bool:
    pruned = False
    goal = sk.tp.sk_rcvbuf >> 3
    while (freed := ofo.prune_last(seq)) > 0:
        pruned = True
        goal -= freed
        if goal <= 0 or not len(ofo):
            if tcp_can_ingest(sk, length):
                break
            goal = sk.tp.sk_rcvbuf >> 3
    return pruned


def tcp_ofo_charge(sk: TcpSock) -> None:
    """Let what the out-of-order queue holds now count against tcp_mem (sk_mem_charge)."""
    ofo = sk.ofo
    if ofo is not None:
        pages = sk_mem_pages(ofo.truesize)
        sk.prot.fast.ptr.ofo_pages += pages - ofo.charged_pages
        ofo.charged_pages = pages


def tcp_ofo_purge(sk: TcpSock) -> None:
    """Forget the out-of-order queue and what hangs on it."""
    ofo, sk.ofo = sk.ofo, None
    sk.tp.slow &= ~lib.US_TCP_SLOW_OFO
    if ofo is None:
        return
    sk.prot.fast.ptr.ofo_pages -= ofo.charged_pages
    ofo.charged_pages = 0
    if ofo.compressed_ack_timer is not None:
        sk.prot.timers.del_timer(ofo.compressed_ack_timer)
        ofo.compressed_ack_timer.arg = None
