"""How large a segment may be: the path, the peer, options, the peer's largest window.

``tcp_sync_mss`` follows the path MTU, ``tcp_current_mss`` is asked for every flight; how many go
as one super-frame tso.py says. Reference: net/ipv4/tcp_output.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ustack.tcp.transmit import tcp_options_len, tcp_route
from ustack.wire.tcp import (
    IPV4_TCP_HEADERS,
    TCP_HEADER_LEN,
    TCP_MSS_DEFAULT,
    TCPOLEN_TSTAMP_ALIGNED,
)

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock

MIN_MTU = 68
"""Of an IPv4 path (RFC 791)."""


def tcp_mss_clamp(tp: Any) -> int:
    """Return the largest payload that the peer, or TCP_MAXSEG, lets us send (mss_clamp)."""
    clamp = tp.rx_opt_mss or TCP_MSS_DEFAULT
    return int(min(clamp, tp.user_mss) if tp.user_mss else clamp)


def tcp_mtu_to_mss(sk: TcpSock, pmtu: int) -> int:
    """Return the payload of a full segment on a path, SACK blocks not counted (tcp_mtu_to_mss).

    However small an MSS the peer asks for, tcp_min_snd_mss bytes with timestamps' are left.
    """
    tp = sk.tp
    mss = min(pmtu - IPV4_TCP_HEADERS, tcp_mss_clamp(tp))
    mss = max(mss, sk.prot.config.tcp_min_snd_mss)
    return int(mss - (TCPOLEN_TSTAMP_ALIGNED if tp.tstamp_ok else 0))


def tcp_mss_to_mtu(sk: TcpSock, mss: int) -> int:
    """Return the size of the packet that carries ``mss`` bytes (tcp_mss_to_mtu)."""
    return mss + IPV4_TCP_HEADERS + (TCPOLEN_TSTAMP_ALIGNED if sk.tp.tstamp_ok else 0)


def tcp_sync_mss(sk: TcpSock, pmtu: int) -> None:
    """Set the segment size for a path MTU (tcp_sync_mss).

    While the path is searched (mtu_probe.py), nothing above what is known to get through.
    """
    tp = sk.tp
    mss = tcp_bound_to_half_wnd(tp, tcp_mtu_to_mss(sk, pmtu))
    tp.pmtu_mss = pmtu - IPV4_TCP_HEADERS
    mtup = sk.mtup
    if mtup is not None:
        mtup.search_high = min(mtup.search_high, pmtu)
        mss = min(mss, tcp_mtu_to_mss(sk, mtup.search_low))
    tp.mss_cache = mss


def tcp_bound_to_half_wnd(tp: Any, length: int) -> int:
    """Keep two segments below the largest window ever seen (tcp_bound_to_half_wnd)."""
    max_window = tp.max_window
    cutoff = max_window >> 1 if max_window > TCP_MSS_DEFAULT else max_window
    if not cutoff or length <= cutoff:
        return length
    least = MIN_MTU - TCP_HEADER_LEN - (TCPOLEN_TSTAMP_ALIGNED if tp.tstamp_ok else 0)
    return int(max(cutoff, least))


def tcp_current_mss(sk: TcpSock) -> int:
    """Return the payload of a full segment now, what few segments have taken off as well.

    SACK blocks, that is, and signatures (tcp_current_mss).
    """
    tp = sk.tp
    rt = tcp_route(sk)
    if rt is not None and rt.mtu - IPV4_TCP_HEADERS != tp.pmtu_mss:
        tcp_sync_mss(sk, rt.mtu)  # another socket has learnt it, or what was learnt has expired
    mss: int = tp.mss_cache
    if sk.ofo is not None or sk.duplicate_sack is not None or sk.opts.md5_keys:
        mss -= tcp_options_len(sk) - (TCPOLEN_TSTAMP_ALIGNED if tp.tstamp_ok else 0)
    return mss
