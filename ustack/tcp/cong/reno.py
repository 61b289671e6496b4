"""Reno: slow start, and one segment a round trip beyond it (RFC 5681; Linux's tcp_reno).

All of it is what ``CongestionOps`` answers by default.
"""

from __future__ import annotations

from ustack.native.lib import lib
from ustack.tcp.cong.ops import CongestionOps


class Reno(CongestionOps):
    """RFC 5681 as Linux computes it: half of cwnd on a loss, one segment a round trip."""

    name = "reno"
    in_c: int = lib.US_TCP_CA_RENO
    """C knows this arithmetic (``tcp_cong.c``)."""
