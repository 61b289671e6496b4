"""The tcp_info line of ``ss -i``, in iproute2's order and units (tcp_stats_print).

The figures come by the names of ``stack.tcp.diag()``. As in ss a figure that is zero or
unknown is left out, except where ss prints it always.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FLAGS = ("ts", "sack", "ecn", "ecnseen", "fastopen")
PLAIN = (
    "mss", "pmtu", "rcvmss", "advmss", "cwnd", "ssthresh", "bytes_sent", "bytes_retrans",
    "bytes_acked", "bytes_received", "segs_out", "segs_in", "data_segs_out", "data_segs_in",
)  # fmt: skip
"""Printed as ``name:value``."""
AGES = ("lastsnd", "lastrcv", "lastack")
LOSSES = ("lost", "sacked")
LAST = ("rcv_space", "rcv_ssthresh", "notsent")
DEFAULT_REORDERING = 3


def format_info(info: Mapping[str, Any]) -> str:
    """Write one connection's figures."""
    parts = [name for name in FLAGS if info.get(name)]
    if info.get("congestion"):
        parts.append(str(info["congestion"]))
    if info.get("wscale"):
        parts.append("wscale:{},{}".format(*info["wscale"]))
    parts += _milliseconds(info, "rto", "rto_us") + _plain(info, ("backoff",))
    if info.get("rtt_us"):
        parts.append(f"rtt:{info['rtt_us'] / 1000:g}/{info.get('rttvar_us', 0) / 1000:g}")
    parts += _milliseconds(info, "ato", "ato_us") + _plain(info, PLAIN)
    rate = send_rate_bps(info)
    if rate:
        parts.append(f"send {rate:.0f}bps")
    parts += [
        f"{age}:{info[age + '_us'] // 1000}" for age in AGES if info.get(age + "_us", 0) >= 1000
    ]
    if info.get("pacing_rate"):
        parts.append(f"pacing_rate {8 * info['pacing_rate']}bps")
    parts += _plain(info, ("delivered", "unacked"))
    in_flight, in_all = info.get("retrans") or (0, 0)
    if in_flight or in_all:
        parts.append(f"retrans:{in_flight}/{in_all}")
    parts += _plain(info, LOSSES)
    if info.get("reordering", DEFAULT_REORDERING) != DEFAULT_REORDERING:
        parts.append(f"reordering:{info['reordering']}")
    parts += _milliseconds(info, "rcv_rtt", "rcv_rtt_us") + _plain(info, LAST)
    parts += _milliseconds(info, "minrtt", "min_rtt_us") + _plain(info, ("rcv_ooopack", "snd_wnd"))
    return " ".join(parts)


def _milliseconds(info: Mapping[str, Any], name: str, key: str) -> list[str]:
    return [f"{name}:{info[key] / 1000:g}"] if info.get(key) else []


def send_rate_bps(info: Mapping[str, Any]) -> float:
    """Return what a congestion window per round trip makes, in bits per second."""
    rtt_us = info.get("rtt_us") or 0
    return info.get("mss", 0) * info.get("cwnd", 0) * 8e6 / rtt_us if rtt_us else 0.0


def _plain(info: Mapping[str, Any], names: tuple[str, ...]) -> list[str]:
    return [f"{name}:{info[name]}" for name in names if info.get(name)]
