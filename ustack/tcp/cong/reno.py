"""Reno: slow start, and one segment a round trip beyond it (RFC 5681; Linux's tcp_reno).

All of it is what ``CongestionOps`` answers by default.
"""

from __future__ import annotations

from ustack.tcp.cong.ops import CongestionOps


class Reno(CongestionOps):
    """RFC 5681 as Linux computes it: half of cwnd on a loss, one segment a round trip."""

    name = "reno"
