"""What a congestion control is (struct tcp_congestion_ops), and what all of them share.

One object serves every socket that uses it; what it remembers of one connection hangs at
``sk.ca_priv``, made when it is first needed, and the count of segments that one more segment
of window costs stands in ``tp.ca_cnt``: ``tcp_cong_avoid_ai`` grows cwnd by it on each ACK,
while the object recomputes it about once per round trip. Windows are in segments, times in
microseconds. Derive from ``CongestionOps``, override what differs, and hand one object to
``Stack.register_congestion_control``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock

TCP_CA_OPEN = 0
TCP_CA_DISORDER = 1
TCP_CA_CWR = 2
TCP_CA_RECOVERY = 3
TCP_CA_LOSS = 4

CA_EVENT_TX_START = 0
"""The first segment after nothing was in flight."""
CA_EVENT_CWND_RESTART = 1
"""cwnd shrinks because the connection was idle."""
CA_EVENT_COMPLETE_CWR = 2
"""The end of a congestion event."""
CA_EVENT_LOSS = 3
"""A retransmission timeout."""
CA_EVENT_ECN_NO_CE = 4
"""A segment came with ECT but without CE."""
CA_EVENT_ECN_IS_CE = 5
"""A segment came with CE."""

CA_ACK_SLOWPATH = 1
CA_ACK_WIN_UPDATE = 2
CA_ACK_ECE = 4

TCP_CONG_NON_RESTRICTED = 1
"""Every socket may choose it (net.ipv4.tcp_allowed_congestion_control)."""
TCP_CONG_NEEDS_ECN = 2
"""Its sockets negotiate ECN whatever net.ipv4.tcp_ecn says, and mark every segment."""

TCP_CA_NAME_MAX = 16
TCP_INFINITE_SSTHRESH = 0x7FFFFFFF
SND_CWND_CLAMP = 0xFFFFFF


class AckSample(NamedTuple):
    """What one ACK acknowledged (struct ack_sample)."""

    pkts_acked: int
    """Segments that left the network, SACKed ones among them."""
    rtt_us: int
    """Round-trip time, -1 if there is no sample."""
    in_flight: int
    """Segments in flight when the newest of them was sent."""


class RateSample(NamedTuple):
    """What ``cong_control`` learns of one ACK (the part of struct rate_sample that is kept)."""

    acked_sacked: int
    """Segments newly delivered."""
    losses: int
    """Segments newly marked lost."""
    prior_in_flight: int
    """Segments in flight before this ACK."""
    rtt_us: int
    """Round-trip time, -1 if there is no sample."""
    is_ece: bool
    """The ACK echoed a congestion mark."""


class CongestionOps:
    """A congestion control; only ``name`` has no default. This one answers as Reno does."""

    name = ""
    flags = TCP_CONG_NON_RESTRICTED
    cong_control: Callable[[TcpSock, int, RateSample], None] | None = None
    """``(sk, ack, sample)``: instead of ``cong_avoid`` and PRR, on every ACK: sets cwnd itself."""

    def init(self, sk: TcpSock) -> None:
        """Begin with a connection that has just been established, or with its new choice."""

    def release(self, sk: TcpSock) -> None:
        """The connection is over, or has chosen another."""

    def ssthresh(self, sk: TcpSock) -> int:
        """Return the slow-start threshold after a loss: half of cwnd (RFC 5681 §3.1, eq. 4)."""
        return max(sk.tp.snd_cwnd >> 1, 2)

    def cong_avoid(self, sk: TcpSock, ack: int, acked_segs: int) -> None:
        """Grow cwnd for ``acked_segs`` segments delivered by the ACK of ``ack``.

        Nothing grows while cwnd is not what limits the sender (tcp_reno_cong_avoid, RFC 7661).
        """
        tp = sk.tp
        if not tcp_is_cwnd_limited(sk):
            return
        if tcp_in_slow_start(sk):
            acked_segs = tcp_slow_start(sk, acked_segs)
            if not acked_segs:
                return
        tp.ca_cnt = tp.snd_cwnd
        tcp_cong_avoid_ai(sk, tp.snd_cwnd, acked_segs)

    def set_state(self, sk: TcpSock, new_state: int) -> None:
        """``tp.ca_state``, still the old one, becomes ``new_state`` (TCP_CA_*)."""

    def cwnd_event(self, sk: TcpSock, event: int) -> None:
        """One of CA_EVENT_* has happened."""

    def in_ack_event(self, sk: TcpSock, flags: int) -> None:
        """An ACK has come, whatever it acknowledges; CA_ACK_* say what is special about it."""

    def pkts_acked(self, sk: TcpSock, sample: AckSample) -> None:
        """Segments have been acknowledged; comes before ``cong_avoid``."""

    def undo_cwnd(self, sk: TcpSock) -> int:
        """Return the window to go back to when a loss proves to have been none."""
        tp = sk.tp
        return max(tp.snd_cwnd, tp.prior_cwnd)

    def sndbuf_expand(self, sk: TcpSock) -> int:
        """Return how many windows the send buffer should hold."""
        return 2

    def min_tso_segs(self, sk: TcpSock) -> int:
        """Return the fewest segments of a super-frame (net.ipv4.tcp_min_tso_segs)."""
        return sk.prot.config.tcp_min_tso_segs


def tcp_in_slow_start(sk: TcpSock) -> bool:
    """Whether cwnd is below ssthresh (RFC 5681 §3.1)."""
    tp = sk.tp
    return bool(tp.snd_cwnd < tp.snd_ssthresh)


def tcp_slow_start(sk: TcpSock, acked_segs: int) -> int:
    """Grow cwnd by what was acknowledged, up to ssthresh; return the segments left over."""
    tp = sk.tp
    cwnd = min(tp.snd_cwnd + acked_segs, tp.snd_ssthresh)
    left = acked_segs - (cwnd - tp.snd_cwnd)
    tp.snd_cwnd = min(cwnd, SND_CWND_CLAMP)
    return int(left)


def tcp_cong_avoid_ai(sk: TcpSock, window: int, acked_segs: int) -> None:
    """Add one segment to cwnd for each ``window`` segments acknowledged (RFC 5681 §3.1, eq. 3)."""
    tp = sk.tp
    count = tp.snd_cwnd_cnt
    if count >= window:  # credits that piled up while the window was larger
        count = 0
        tp.snd_cwnd += 1
    count += acked_segs
    if count >= window:
        delta = count // window
        count -= delta * window
        tp.snd_cwnd += delta
    tp.snd_cwnd_cnt = count
    if tp.snd_cwnd > SND_CWND_CLAMP:
        tp.snd_cwnd = SND_CWND_CLAMP


def tcp_is_cwnd_limited(sk: TcpSock) -> bool:
    """Whether the last round's sending was held back by cwnd (tcp_is_cwnd_limited).

    In slow start cwnd may grow to twice what was in flight, so that sending can double.
    """
    tp = sk.tp
    if tp.is_cwnd_limited:
        return True
    return tcp_in_slow_start(sk) and bool(tp.snd_cwnd < 2 * tp.max_in_flight)


def tcp_current_ssthresh(sk: TcpSock) -> int:
    """Return ssthresh, never below 3/4 of cwnd outside a reduction (tcp_current_ssthresh)."""
    tp = sk.tp
    if tp.ca_state in (TCP_CA_CWR, TCP_CA_RECOVERY):
        return int(tp.snd_ssthresh)
    cwnd = tp.snd_cwnd
    return int(max(tp.snd_ssthresh, (cwnd >> 1) + (cwnd >> 2)))


def tcp_cong_avoid(sk: TcpSock, ack: int, acked_segs: int) -> None:
    """Let the congestion control grow cwnd (tcp_cong_avoid)."""
    sk.ca.cong_avoid(sk, ack, acked_segs)
    sk.tp.snd_cwnd_stamp_us = sk.prot.clock.now_us


def tcp_set_ca_state(sk: TcpSock, state: int) -> None:
    """Change the state of loss recovery and tell the congestion control (tcp_set_ca_state)."""
    sk.ca.set_state(sk, state)
    sk.tp.ca_state = state


def tcp_ca_event(sk: TcpSock, event: int) -> None:
    """Tell the congestion control what has happened (tcp_ca_event)."""
    sk.ca.cwnd_event(sk, event)
