"""How many ICMP errors we send (RFC 1812 §4.3.2.8): token buckets, as Linux has them.

One for all errors (icmp_global_allow, net.ipv4.icmp_msgs_per_sec) and one for each host
that provokes them (inet_peer_xrlim_allow, net.ipv4.icmp_ratelimit). ``icmp_send`` asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.core.netdevice import IFF_LOOPBACK
from ustack.wire.icmp import ICMP_DEST_UNREACH, ICMP_FRAG_NEEDED

if TYPE_CHECKING:
    from ustack.config import IpConfig
    from ustack.core.net import Net
    from ustack.ipv4.route import Route

ICMP_MSGS_BURST = 50
"""net.ipv4.icmp_msgs_burst: errors that may be sent at once."""
XRLIM_BURST_FACTOR = 6
"""Errors that one host may provoke at once."""
PEERS_MAX = 4096
"""Hosts that are remembered; the one seen first is forgotten for a new one."""
_SECOND_US = 1_000_000


class IcmpLimiter:
    """The token buckets of one stack."""

    def __init__(self, net: Net, config: IpConfig) -> None:
        self._net = net
        self.config = config
        self._credit = float(ICMP_MSGS_BURST)
        self._credit_us = 0
        self._peers: dict[int, tuple[int, int]] = {}
        """daddr -> (tokens in microseconds, when they were counted)."""

    def allow(self, rt: Route, icmp_type: int, code: int) -> bool:
        """Whether an error may be sent along ``rt``; takes the tokens and counts refusals.

        Path MTU discovery must not be held up, and our own host may hear everything.
        """
        if icmp_type == ICMP_DEST_UNREACH and code == ICMP_FRAG_NEEDED:
            return True
        if rt.dev.flags & IFF_LOOPBACK:
            return True
        mib = self._net.mib.icmp
        if not self._global_allow():
            mib.OutRateLimitGlobal += 1
            return False
        if not self._peer_allow(rt.daddr):
            mib.OutRateLimitHost += 1
            return False
        return True

    def _global_allow(self) -> bool:
        now_us = self._net.clock.now_us
        earned = (now_us - self._credit_us) * self.config.icmp_msgs_per_sec / _SECOND_US
        self._credit = min(ICMP_MSGS_BURST, self._credit + earned)
        self._credit_us = now_us
        if self._credit < 1:
            return False
        self._credit -= 1
        return True

    def _peer_allow(self, daddr: int) -> bool:
        timeout_us = self.config.icmp_ratelimit_us
        if timeout_us == 0:
            return True
        now_us = self._net.clock.now_us
        most_us = XRLIM_BURST_FACTOR * timeout_us
        tokens_us, counted_us = self._peers.get(daddr, (most_us, now_us))
        tokens_us = min(most_us, tokens_us + now_us - counted_us)
        allowed = tokens_us >= timeout_us
        if allowed:
            tokens_us -= timeout_us
        if daddr not in self._peers and len(self._peers) >= PEERS_MAX:
            del self._peers[next(iter(self._peers))]
        self._peers[daddr] = (tokens_us, now_us)
        return allowed
