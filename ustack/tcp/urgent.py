"""Urgent data: one byte out of band in each direction (RFC 9293 §3.8.5, RFC 6093; tcp_urg).

The urgent pointer marks a byte of the stream. That byte is taken out of it for
recv(MSG_OOB), or left in it with SO_OOBINLINE; a read never runs across the mark. The pointer
is the byte behind the urgent one, as everybody but the RFC has it (net.ipv4.tcp_stdurg). The
state is made with the first urgent byte.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from ustack.lib.seqnum import SEQ_MASK, after, before, seq_diff
from ustack.lib.socket_error import socket_error
from ustack.native.lib import lib
from ustack.sock.sock import POLL_READABLE, RCV_SHUTDOWN
from ustack.sock.wait import EPOLLPRI
from ustack.tcp.states import TCP_CLOSE, TCP_LISTEN
from ustack.wire.tcp import SYN, URG

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock
    from ustack.wire.tcp import Segment

TCP_URG_NONE = 0
TCP_URG_NOTYET = 1
"""The mark is known, its byte is not here."""
TCP_URG_VALID = 2
TCP_URG_READ = 3

MSG_PEEK = 0x02
MSG_TRUNC = 0x20


class UrgentState:
    """What a connection knows of urgent data, its own and the peer's."""

    __slots__ = ("byte", "snd_up", "urg_data", "urg_seq")

    def __init__(self) -> None:
        self.urg_data = TCP_URG_NONE
        self.urg_seq = 0
        self.byte = 0
        self.snd_up: int | None = None
        """SND.UP: the byte behind the last urgent one that is not acknowledged."""


def tcp_urg(sk: TcpSock, seg: Segment) -> None:
    """Sixth, check the URG bit: a mark, and its byte if this segment has it (tcp_urg)."""
    if seg.flags & URG:
        tcp_check_urg(sk, seg)
    urg = sk.urg
    if urg is None or urg.urg_data != TCP_URG_NOTYET:
        return
    place = urg.urg_seq - seg.seq - bool(seg.flags & SYN) & SEQ_MASK
    if place < len(seg.payload):
        urg.byte = bytes(seg.payload[place : place + 1])[0]
        urg.urg_data = TCP_URG_VALID
        if not sk.dead:
            sk.wake_up(POLL_READABLE | EPOLLPRI)


def tcp_check_urg(sk: TcpSock, seg: Segment) -> None:
    """Take a new mark: one beyond what we have, and beyond the last (tcp_check_urg)."""
    tp = sk.tp
    pointer = seg.urgent
    if pointer and not sk.prot.config.tcp_stdurg:
        pointer -= 1
    mark = seg.seq + pointer & SEQ_MASK
    if after(tp.copied_seq, mark) or before(mark, tp.rcv_nxt):
        return
    urg = sk.urg
    if urg is None:
        urg = sk.urg = UrgentState()
        sk.tp.slow |= lib.US_TCP_SLOW_URG
    if urg.urg_data and not after(mark, urg.urg_seq):
        return
    at_old_mark = urg.urg_data and urg.urg_seq == tp.copied_seq
    if at_old_mark and not sk.oobinline and tp.receive_queue.len:
        _skip_byte(sk)  # the old urgent byte does not become an ordinary one
    urg.urg_data, urg.urg_seq = TCP_URG_NOTYET, mark


def _skip_byte(sk: TcpSock) -> None:
    tp = sk.tp
    lib.us_bq_drop(sk.prot.mem.ptr, sk.rcvq, 1)
    tp.copied_seq = tp.copied_seq + 1 & SEQ_MASK


def tcp_recv_urg(sk: TcpSock, length: int, flags: int) -> bytes:
    """Return the urgent byte (tcp_recv_urg); this call never waits.

    Raises:
        OSError: EINVAL, there is none, or it is in line, or it was read already; EAGAIN, it is
            on its way; ENOTCONN (all the application's).
    """
    tp = sk.tp
    urg = sk.urg
    if tp.state == TCP_LISTEN:
        raise socket_error(errno.ENOTCONN)
    if sk.oobinline or urg is None or urg.urg_data in (TCP_URG_NONE, TCP_URG_READ):
        raise socket_error(errno.EINVAL)
    if tp.state == TCP_CLOSE and not sk.done:
        raise socket_error(errno.ENOTCONN)
    if urg.urg_data == TCP_URG_VALID:
        if not flags & MSG_PEEK:
            urg.urg_data = TCP_URG_READ
        return bytes([urg.byte]) if length else b""
    if tp.state == TCP_CLOSE or tp.rcv_shutdown & RCV_SHUTDOWN:
        return b""
    raise socket_error(errno.EAGAIN)


def tcp_read_limit(sk: TcpSock, wanted: int, offset: int = 0) -> int:
    """Return how much of ``wanted`` may be read at once: up to the mark.

    At the mark itself the urgent byte is stepped over, unless it is in line
    (tcp_recvmsg_locked).

    Args:
        offset: where a peek begins, behind the next byte to be read.
    """
    tp = sk.tp
    urg = sk.urg
    if urg is None or not urg.urg_data:
        return wanted
    distance = seq_diff(urg.urg_seq, tp.copied_seq) - offset
    if distance == offset == 0 and not sk.oobinline and tp.receive_queue.len:
        _skip_byte(sk)
        tcp_urg_passed(sk)
        return min(wanted, int(tp.receive_queue.len))
    return distance if 0 < distance < wanted else wanted


def tcp_urg_passed(sk: TcpSock) -> None:
    """Forget a mark that has been read past."""
    urg = sk.urg
    if urg is not None and urg.urg_data and after(sk.tp.copied_seq, urg.urg_seq):
        urg.urg_data = TCP_URG_NONE


def tcp_at_mark(sk: TcpSock) -> bool:
    """Whether the next byte to be read is the urgent one (SIOCATMARK)."""
    urg = sk.urg
    return urg is not None and bool(urg.urg_data) and urg.urg_seq == sk.tp.copied_seq


def tcp_urgent_waits(sk: TcpSock) -> bool:
    """Whether recv(MSG_OOB) would give something: EPOLLPRI."""
    return sk.urg is not None and sk.urg.urg_data == TCP_URG_VALID


# The sender's side.


def tcp_mark_urg(sk: TcpSock) -> None:
    """What was written last ends with an urgent byte (tcp_mark_urg)."""
    if sk.urg is None:
        sk.urg = UrgentState()
        sk.tp.slow |= lib.US_TCP_SLOW_URG
    sk.urg.snd_up = sk.tp.write_seq


def tcp_urg_mode(sk: TcpSock) -> bool:
    """Whether an urgent byte of ours is not acknowledged yet: Nagle does not hold it up."""
    urg = sk.urg
    if urg is None or urg.snd_up is None:
        return False
    if not after(urg.snd_up, sk.tp.snd_una):
        urg.snd_up = None
        return False
    return True


def tcp_urgent_is_near(sk: TcpSock) -> bool:
    """Whether the pointer of a segment at SND.UNA would reach our urgent byte."""
    if not tcp_urg_mode(sk):
        return False
    assert sk.urg is not None and sk.urg.snd_up is not None
    return seq_diff(sk.urg.snd_up, sk.tp.snd_una) <= 0xFFFF


def tcp_urgent_pointer(sk: TcpSock, seq: int) -> int:
    """Return the urgent pointer of a segment at ``seq``, 0 if it has none (tcp_transmit_skb)."""
    if not tcp_urg_mode(sk):
        return 0
    assert sk.urg is not None and sk.urg.snd_up is not None
    distance = seq_diff(sk.urg.snd_up, seq)
    if distance <= 0:
        return 0
    if distance < 0x10000:
        return distance
    return 0xFFFF if after(seq + 0xFFFF & SEQ_MASK, sk.tp.snd_nxt) else 0
