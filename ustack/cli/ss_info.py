"""The tcp_info line of ``ss -i``, in iproute2's order and units (tcp_stats_print).

The figures come by the names of ``stack.tcp.diag()``. As in ss a figure that is zero or
unknown is left out, except where ss prints it always.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PLAIN = (
    ("mss", "mss"),
    ("pmtu", "pmtu"),
    ("rcvmss", "rcvmss"),
    ("advmss", "advmss"),
    ("cwnd", "cwnd"),
    ("ssthresh", "ssthresh"),
    ("bytes_sent", "bytes_sent"),
    ("bytes_retrans", "bytes_retrans"),
    ("bytes_acked", "bytes_acked"),
    ("bytes_received", "bytes_received"),
    ("segs_out", "segs_out"),
    ("segs_in", "segs_in"),
)
"""ss's name and ours, printed as ``name:value``."""
LAST = (("notsent", "notsent"), ("snd_wnd", "snd_wnd"))


def format_info(info: Mapping[str, Any]) -> str:
    """Write one connection's figures."""
    parts = [name for name in ("ts", "sack") if info.get(name)]
    if info.get("congestion"):
        parts.append(str(info["congestion"]))
    if info.get("wscale"):
        parts.append("wscale:{},{}".format(*info["wscale"]))
    if info.get("rto_us"):
        parts.append(f"rto:{info['rto_us'] / 1000:g}")
    if info.get("rtt_us"):
        parts.append(f"rtt:{info['rtt_us'] / 1000:g}/{info.get('rttvar_us', 0) / 1000:g}")
    parts += _plain(info, PLAIN)
    rate = send_rate_bps(info)
    if rate:
        parts.append(f"send {rate:.0f}bps")
    in_flight, in_all = info.get("retrans") or (0, 0)
    if in_flight or in_all:
        parts.append(f"retrans:{in_flight}/{in_all}")
    return " ".join(parts + _plain(info, LAST))


def send_rate_bps(info: Mapping[str, Any]) -> float:
    """Return what a congestion window per round trip makes, in bits per second."""
    rtt_us = info.get("rtt_us") or 0
    return info.get("mss", 0) * info.get("cwnd", 0) * 8e6 / rtt_us if rtt_us else 0.0


def _plain(info: Mapping[str, Any], names: tuple[tuple[str, str], ...]) -> list[str]:
    return [f"{name}:{info[key]}" for name, key in names if info.get(key)]
