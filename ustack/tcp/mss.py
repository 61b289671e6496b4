"""How large a segment may be: the path, the peer, options, the peer's largest window.

``tcp_sync_mss`` follows the path MTU, ``tcp_current_mss`` is asked for every flight; what a
super-frame may hold is ``tcp_size_goal``. Reference: net/ipv4/tcp_output.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.core.netdevice import NETIF_F_GSO, NETIF_F_TSO
from ustack.tcp.transmit import tcp_options_len, tcp_route
from ustack.wire.tcp import TCPOLEN_TSTAMP_ALIGNED

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock

MAX_TCP_HEADER = 320
"""Room that a super-frame leaves for every header (Linux's MAX_TCP_HEADER)."""
TCP_MIN_SND_MSS = 48


def tcp_sync_mss(sk: TcpSock, pmtu: int) -> None:
    """Set the segment size for a path MTU (tcp_sync_mss): never above what the peer takes."""
    tp = sk.tp
    mss = min(pmtu - 40, tp.rx_opt_mss or 536)
    if tp.user_mss:
        mss = min(mss, tp.user_mss)
    if tp.tstamp_ok:
        mss -= TCPOLEN_TSTAMP_ALIGNED
    tp.pmtu_mss = pmtu - 40
    tp.mss_cache = max(_bound_to_half_wnd(tp.max_window, mss), TCP_MIN_SND_MSS)


def _bound_to_half_wnd(max_window: int, length: int) -> int:
    """Keep two segments below the largest window ever seen (tcp_bound_to_half_wnd)."""
    cutoff = max_window >> 1 if max_window > 536 else max_window
    return min(length, cutoff) if cutoff and length > cutoff else length


def tcp_current_mss(sk: TcpSock) -> int:
    """Return the payload of a full segment now, SACK blocks taken off (tcp_current_mss)."""
    tp = sk.tp
    rt = tcp_route(sk)
    if rt is not None and rt.mtu - 40 != tp.pmtu_mss:
        tcp_sync_mss(sk, rt.mtu)  # another socket has learnt it, or what was learnt has expired
    mss: int = tp.mss_cache
    if sk.ofo is not None or sk.duplicate_sack is not None:
        mss -= tcp_options_len(sk) - (TCPOLEN_TSTAMP_ALIGNED if tp.tstamp_ok else 0)
    return mss


def tcp_size_goal(sk: TcpSock, mss: int) -> int:
    """Return the payload of a super-frame, a multiple of ``mss`` (tcp_xmit_size_goal)."""
    rt = tcp_route(sk)
    if rt is None or not rt.dev.features & (NETIF_F_TSO | NETIF_F_GSO):
        return mss
    goal = _bound_to_half_wnd(sk.tp.max_window, rt.dev.gso_max_size - 1 - MAX_TCP_HEADER)
    return max(goal - goal % mss, mss)
