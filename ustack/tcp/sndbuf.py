"""The send buffer: how much a writer may put in, when it grows, when a writer is woken.

Bytes count, not what the packets around them take. As in Linux the limit is looked at when a
new packet would be begun, so that the last one may go beyond it (net/core/stream.c,
tcp_sndbuf_expand, tcp_check_space).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.lib.seqnum import SEQ_MASK
from ustack.sock.sock import SEND_SHUTDOWN
from ustack.tcp.send_window import tcp_packets_in_flight

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock

TCP_INIT_CWND = 10
MAX_TCP_HEADER = 320
SKB_SHARED_INFO = 320
SKB_SIZE = 256
"""sizeof(struct sk_buff), aligned."""


def tcp_notsent_lowat(sk: TcpSock) -> int:
    """Return how much may wait unsent (TCP_NOTSENT_LOWAT, else net.ipv4.tcp_notsent_lowat)."""
    return int(sk.tp.notsent_lowat) or sk.prot.config.tcp_notsent_lowat


def tcp_stream_memory_free(sk: TcpSock, wake: int) -> bool:
    """Whether a new packet may be begun; with ``wake`` 1 whether a writer is worth waking."""
    tp = sk.tp
    if tp.write_queue.len >= tp.sk_sndbuf:
        return False
    unsent = tp.write_seq - tp.snd_nxt & SEQ_MASK
    return unsent << wake < tcp_notsent_lowat(sk)


def sk_stream_is_writeable(sk: TcpSock) -> bool:
    """Whether at least a third of the buffer is free, and little waits unsent."""
    tp = sk.tp
    queued = tp.write_queue.len
    return tp.sk_sndbuf - queued >= queued >> 1 and tcp_stream_memory_free(sk, 1)


def sk_stream_room(sk: TcpSock, goal: int) -> int:
    """Return how many bytes a write may add now: packets of ``goal`` bytes until it is full.

    What waits unsent ends in a packet that is filled up whatever the limit says. That packet
    was begun below the limit, so the limit is never passed by more than one, although where
    it begins is only reckoned from ``goal``, which follows the pacing rate.
    """
    tp = sk.tp
    unsent = tp.write_seq - tp.snd_nxt & SEQ_MASK
    tail = unsent % goal
    left = min(tp.sk_sndbuf - tp.write_queue.len, tcp_notsent_lowat(sk) - unsent)
    room = max(min(goal - tail, goal + left), 0) if tail else 0
    free = left - room
    if free > 0:
        room += -(-free // goal) * goal
    return int(room)


def sk_stream_write_space(sk: TcpSock) -> None:
    """Wake a writer who waits, if it is worth it (sk_stream_write_space)."""
    if sk.nospace and sk_stream_is_writeable(sk):
        sk.sk_write_space()


def tcp_check_space(sk: TcpSock) -> None:
    """Room may have come about: grow the buffer and wake a writer who waits (tcp_new_space)."""
    if not sk.nospace:
        return
    if tcp_should_expand_sndbuf(sk):
        tcp_sndbuf_expand(sk)
        sk.tp.snd_cwnd_stamp_us = sk.prot.clock.now_us
    sk_stream_write_space(sk)


def tcp_should_expand_sndbuf(sk: TcpSock) -> bool:
    """Not if SO_SNDBUF fixed it, while cwnd is full anyway, or memory is short
    (tcp_should_expand_sndbuf)."""
    tp = sk.tp
    if tp.sndbuf_locked or tp.snd_shutdown & SEND_SHUTDOWN or sk.prot.pressure.is_near():
        return False
    return bool(tcp_packets_in_flight(tp) < tp.snd_cwnd)


def tcp_sndbuf_expand(sk: TcpSock) -> None:
    """Let the buffer hold two congestion windows of packets, up to tcp_wmem[2]."""
    tp = sk.tp
    if tp.sndbuf_locked:
        return
    payload = max(tp.rx_opt_mss, tp.mss_cache)
    per_mss = _roundup_pow_of_two(payload + MAX_TCP_HEADER + SKB_SHARED_INFO) + SKB_SIZE
    segs = max(tp.snd_cwnd, TCP_INIT_CWND, 4)
    wanted = sk.ca.sndbuf_expand(sk) * segs * per_mss
    if wanted > tp.sk_sndbuf:
        tp.sk_sndbuf = min(wanted, sk.prot.config.tcp_wmem[2])


def _roundup_pow_of_two(n: int) -> int:
    return 1 << (n - 1).bit_length()
