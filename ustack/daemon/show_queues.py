"""``ustack show rqueue|ofo|wqueue|waitq``: what lies on the queues of each socket, and who waits.

Sequence numbers are relative, as tcpdump prints them: a connection's first byte is number 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ustack.lib.addresses import format_ipv4
from ustack.lib.seqnum import SEQ_MASK
from ustack.tcp.scoreboard import (
    TCPCB_EVER_RETRANS,
    TCPCB_LOST,
    TCPCB_RETRANS,
    TCPCB_SACKED_ACKED,
    tcp_tx_log,
)

if TYPE_CHECKING:
    from ustack.sock.wait import WaitEntry
    from ustack.stack import Stack
    from ustack.tcp.scoreboard import TxRec
    from ustack.tcp.sock import TcpSock


def rqueue(sk: TcpSock) -> Iterator[str]:
    """Yield the bytes that wait for recv()."""
    tp = sk.tp
    held = tp.receive_queue
    if held.len:
        start = tp.rcv_nxt - held.len
        yield f"  {_range(start, tp.rcv_nxt, tp.irs)} memory {held.truesize}"


def ofo(sk: TcpSock) -> Iterator[str]:
    """Yield what waits beyond a hole, and the SACK blocks that report it, latest first."""
    if sk.ofo is None:
        return
    irs = sk.tp.irs
    yield f"  rcv_nxt {sk.tp.rcv_nxt - irs & SEQ_MASK}"
    for start, end, fin in sk.ofo.ranges():
        yield f"  {_range(start, end, irs)}{' fin' if fin else ''}"
    yield f"  sack {' '.join(_range(start, end, irs) for start, end in sk.ofo.sacks)}".rstrip()


def wqueue(sk: TcpSock) -> Iterator[str]:
    """Yield each transmission that is in flight, and the bytes that were not sent yet."""
    tp = sk.tp
    now_us = sk.prot.clock.now_us
    for rec in tcp_tx_log(sk) if sk.rtx is None else sk.rtx:
        sent = f" sent {now_us - rec.sent_us} us ago" if rec.sent_us else ""
        yield (
            f"  {_range(rec.seq, rec.end_seq, tp.iss)} "
            f"{rec.pcount} x mss {rec.mss}{sent}{_marks(rec)}"
        )
    if tp.write_seq != tp.snd_nxt:
        yield f"  {_range(tp.snd_nxt, tp.write_seq, tp.iss)} not sent"


def waitq(sk: TcpSock) -> Iterator[str]:
    """Yield the entries of the wait queue, in the order in which they are woken."""
    for entry in sk.wq:
        yield f"  {_function(entry)}{' exclusive' if entry.exclusive else ''}"


SHOWN: dict[str, Callable[[TcpSock], Iterator[str]]] = {
    "ofo": ofo,
    "rqueue": rqueue,
    "waitq": waitq,
    "wqueue": wqueue,
}


def show_lines(stack: Stack, what: str, port: int) -> Iterator[str]:
    """Yield one queue of every socket that has something on it; ``port`` 0: whatever its port."""
    for sk in _sockets(stack):
        tp = sk.tp
        if port and port not in (tp.sport, tp.dport):
            continue
        lines = list(SHOWN[what](sk))
        if lines:
            yield f"{_name(sk.rcv_saddr, tp.sport)} {_name(tp.daddr, tp.dport)}"
            yield from lines


def _sockets(stack: Stack) -> Iterator[TcpSock]:
    for group in stack.tcp.listening_hash.values():
        yield from group
    yield from stack.tcp.ehash.values()


def _name(addr: int, port: int) -> str:
    return f"{format_ipv4(addr)}:{port or '*'}"


def _range(start: int, end: int, isn: int) -> str:
    """Return "start:end(bytes)"."""
    return f"{start - isn & SEQ_MASK}:{end - isn & SEQ_MASK}({end - start & SEQ_MASK})"


def _marks(rec: TxRec) -> str:
    """Return what became of it, in words."""
    words = (
        (TCPCB_SACKED_ACKED, "sacked"),
        (TCPCB_LOST, "lost"),
        (TCPCB_RETRANS & ~TCPCB_EVER_RETRANS, "repeated"),
        (TCPCB_EVER_RETRANS, "ever repeated"),
    )
    return "".join(f" {word}" for bit, word in words if rec.sacked & bit)


def _function(entry: WaitEntry) -> str:
    """Return the name of what an entry calls, as Linux's entries are known by theirs."""
    return getattr(entry.func, "__qualname__", repr(entry.func))
