"""Fast Open's clients pause where something on the way swallows their connections (RFC 7413 §7.5).

Signs are a third timeout in a row, or a FIN or reset beyond a hole of a connection that has had
no data: a middle box lets the end through but not the beginning. The pause is the whole stack's,
``tcp_fastopen_blackhole_timeout_sec`` long, and doubles each time up to 64-fold, until data has
come in again on a connection opened after one (tcp_fastopen.c).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.core.netdevice import IFF_LOOPBACK
from ustack.tcp.fastopen import (
    TFO_SYN_CHECK,
    TFO_SYN_DATA,
    TFO_SYN_DATA_ACKED,
    TFO_SYN_OPTION,
)
from ustack.tcp.states import TCP_ESTABLISHED

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock

MAX_DOUBLINGS = 6


def tcp_fastopen_active_disable(sk: TcpSock) -> None:
    """Begin a pause, or a longer one."""
    prot = sk.prot
    if not prot.config.tcp_fastopen_blackhole_timeout_us:
        return
    prot.tfo_active_disable_stamp_us = prot.clock.now_us
    prot.tfo_active_disable_times += 1
    prot.mib_ext.TCPFastOpenBlackhole += 1


def tcp_fastopen_active_should_disable(sk: TcpSock) -> bool:
    """Whether there is a pause now; a connection after one is to tell whether it was enough."""
    prot = sk.prot
    timeout_us = prot.config.tcp_fastopen_blackhole_timeout_us
    times = prot.tfo_active_disable_times
    if not timeout_us or not times:
        return False
    end_us = prot.tfo_active_disable_stamp_us + (timeout_us << min(times - 1, MAX_DOUBLINGS))
    if prot.clock.now_us < end_us:
        return True
    sk.tp.syn_fastopen |= TFO_SYN_CHECK
    return False


def tcp_fastopen_active_detect_blackhole(sk: TcpSock, *, expired: bool) -> None:
    """Look at a timeout: the third in a row, or the last there is, is a sign."""
    tp = sk.tp
    if not tp.syn_fastopen & (TFO_SYN_OPTION | TFO_SYN_DATA | TFO_SYN_DATA_ACKED):
        return
    if tp.retransmits == 2 or (tp.retransmits < 2 and expired):
        tcp_fastopen_active_disable(sk)
        sk.prot.mib_ext.TCPFastOpenActiveFail += 1


def tcp_fastopen_active_reset_check(sk: TcpSock) -> None:
    """Look at a reset that stands beyond a hole (tcp_validate_incoming)."""
    tp = sk.tp
    if tp.syn_fastopen & TFO_SYN_OPTION and not tp.data_segs_in and tp.state == TCP_ESTABLISHED:
        tcp_fastopen_active_disable(sk)


def tcp_fastopen_active_disable_ofo_check(sk: TcpSock) -> None:
    """Look at a connection that ends: nothing but a FIN beyond a hole has come; or data has."""
    tp = sk.tp
    prot = sk.prot
    if not tp.syn_fastopen & TFO_SYN_OPTION:
        return
    if not tp.data_segs_in:
        if sk.ofo is not None and [fin for _, _, fin in sk.ofo.ranges()] == [True]:
            tcp_fastopen_active_disable(sk)
    elif tp.syn_fastopen & TFO_SYN_CHECK and not _is_to_ourselves(sk):
        prot.tfo_active_disable_times = 0


def _is_to_ourselves(sk: TcpSock) -> bool:
    return sk.dst is not None and bool(sk.dst.dev.flags & IFF_LOOPBACK)
