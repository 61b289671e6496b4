"""A congestion control in the hands of a test: a real socket, ACKs made up, virtual time.

``AckClock`` says to the congestion control of one established connection what ``tcp_ack``
would: so many segments have arrived, the RTT was so long, cwnd was used up. Nothing is on
any wire, so that minutes at thousands of segments a round trip cost milliseconds.
"""

from __future__ import annotations

from typing import Any

from kit.host import Host, host
from ustack.tcp.cong.ops import (
    TCP_CA_LOSS,
    TCP_CA_OPEN,
    TCP_CA_RECOVERY,
    AckSample,
    tcp_ca_event,
    tcp_cong_avoid,
    tcp_set_ca_state,
)
from ustack.tcp.cong.registry import tcp_set_congestion_control


class AckClock:
    """One connection whose ACKs the test makes up."""

    def __init__(self, control: str, *, rtt_us: int = 100_000, on: Host | None = None) -> None:
        self.host = on or host()
        sk, self.peer = self.host.established("mss 1000,nop,wscale 7")
        self.sk: Any = sk._sk
        tcp_set_congestion_control(self.sk, control)
        self.tp = self.sk.tp
        self.tp.is_cwnd_limited = 1
        self.tp.sk_pacing_rate = 0
        self.rtt_us = rtt_us

    @property
    def now_us(self) -> int:
        """Stack time."""
        return int(self.sk.prot.clock.now_us)

    @property
    def mib_ext(self) -> Any:
        """The stack's TcpExt counters."""
        return self.sk.prot.mib_ext

    @property
    def cwnd(self) -> int:
        """The window, in segments."""
        return int(self.tp.snd_cwnd)

    def advance_us(self, delta_us: int) -> None:
        """Let time pass without an ACK."""
        self.sk.prot.clock.now_us += delta_us

    def ack(self, segs: int = 1, rtt_us: int | None = None) -> None:
        """One ACK of ``segs`` segments, all of which have been measured."""
        tp = self.tp
        tp.snd_nxt = tp.snd_una + tp.snd_cwnd * 1000 & 0xFFFFFFFF
        tp.snd_una = tp.snd_una + segs * 1000 & 0xFFFFFFFF
        sample = AckSample(segs, self.rtt_us if rtt_us is None else rtt_us, tp.snd_cwnd)
        self.sk.ca.pkts_acked(self.sk, sample)
        tcp_cong_avoid(self.sk, tp.snd_una, segs)

    def round(self, segs_per_ack: int = 1, *, rtt_us: int | None = None) -> int:
        """A round trip: a window's worth of ACKs, evenly spaced; return cwnd after it."""
        rtt = self.rtt_us if rtt_us is None else rtt_us
        start_us, acks = self.now_us, max(self.cwnd // segs_per_ack, 1)
        for i in range(acks):
            self.sk.prot.clock.now_us = start_us + rtt * (i + 1) // acks
            self.ack(segs_per_ack, rtt)
        return self.cwnd

    def fast_recovery(self) -> None:
        """A loss that fast retransmit repairs at once."""
        tp = self.tp
        tp.prior_cwnd = tp.snd_cwnd
        tp.snd_ssthresh = self.sk.ca.ssthresh(self.sk)
        tcp_set_ca_state(self.sk, TCP_CA_RECOVERY)
        tp.snd_cwnd = tp.snd_ssthresh
        tp.snd_cwnd_cnt = 0
        tcp_set_ca_state(self.sk, TCP_CA_OPEN)

    def timeout(self) -> None:
        """A retransmission timeout, after which all is acknowledged again."""
        tp = self.tp
        tp.prior_cwnd = tp.snd_cwnd
        tp.snd_ssthresh = self.sk.ca.ssthresh(self.sk)
        tcp_set_ca_state(self.sk, TCP_CA_LOSS)
        tp.snd_cwnd = 1
        tcp_set_ca_state(self.sk, TCP_CA_OPEN)

    def event(self, event: int) -> None:
        """One of CA_EVENT_*."""
        tcp_ca_event(self.sk, event)
