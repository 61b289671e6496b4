"""Keep-alive: is the peer of an idle connection still there? (RFC 9293 §3.8.4)

Off unless SO_KEEPALIVE; then a probe after ``tcp_keepalive_time`` without a segment, repeated
every ``tcp_keepalive_intvl``, and a reset after ``tcp_keepalive_probes`` of them without an
answer. The same timer limits the FIN_WAIT2 of an orphan (tcp_keepalive_timer).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.tcp.close import tcp_done, tcp_write_err
from ustack.tcp.states import TCP_CLOSE, TCP_FIN_WAIT2, TCP_LISTEN, TCP_SYN_SENT
from ustack.tcp.timer import tcp_arm_keepalive
from ustack.tcp.timewait import TCP_TIMEWAIT_LEN_US, tcp_fin_time, tcp_time_wait
from ustack.tcp.transmit import tcp_send_active_reset, tcp_xmit_probe_skb

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock


def keepalive_time_when(sk: TcpSock) -> int:
    """How long the connection must be idle for a probe, in microseconds."""
    return sk.opts.keepalive_time_us or sk.prot.config.tcp_keepalive_time_us


def keepalive_intvl_when(sk: TcpSock) -> int:
    """The time between two probes, in microseconds."""
    return sk.opts.keepalive_intvl_us or sk.prot.config.tcp_keepalive_intvl_us


def keepalive_probes(sk: TcpSock) -> int:
    """How many probes may go without an answer."""
    return sk.opts.keepalive_probes or sk.prot.config.tcp_keepalive_probes


def keepalive_time_elapsed(sk: TcpSock) -> int:
    """How long nothing has come from the peer, in microseconds."""
    tp = sk.tp
    return int(sk.prot.clock.now_us - max(tp.ack_lrcvtime_us, tp.rcv_tstamp_us))


def tcp_keepalive_timer(sk: TcpSock) -> None:
    """The keepalive timer has expired (tcp_keepalive_timer)."""
    tp = sk.tp
    if tp.state == TCP_FIN_WAIT2 and sk.dead:
        _fin_wait2_is_over(sk)
        return
    if not sk.keepopen or tp.state in (TCP_CLOSE, TCP_LISTEN, TCP_SYN_SENT):
        return
    time_us = keepalive_time_when(sk)
    if tp.snd_una != tp.snd_nxt or tp.snd_nxt != tp.write_seq:
        tcp_arm_keepalive(sk, time_us)  # what is sent must be acknowledged anyway
        return
    idle_us = keepalive_time_elapsed(sk)
    if idle_us < time_us:
        tcp_arm_keepalive(sk, time_us - idle_us)
    elif _peer_is_gone(sk, idle_us):
        tcp_send_active_reset(sk)
        tcp_write_err(sk)
    else:
        sk.prot.mib_ext.TCPKeepAlive += 1
        tcp_xmit_probe_skb(sk)
        tp.probes_out += 1
        tcp_arm_keepalive(sk, keepalive_intvl_when(sk))


def _peer_is_gone(sk: TcpSock, idle_us: int) -> bool:
    """Enough probes without an answer; with TCP_USER_TIMEOUT: that time, and one probe."""
    if sk.user_timeout_us:
        return idle_us >= sk.user_timeout_us and sk.tp.probes_out > 0
    return bool(sk.tp.probes_out >= keepalive_probes(sk))


def _fin_wait2_is_over(sk: TcpSock) -> None:
    """The part of an orphan's wait that is no mini-socket's is over."""
    left_us = tcp_fin_time(sk) - TCP_TIMEWAIT_LEN_US
    if sk.opts.linger2_us >= 0 and left_us > 0:
        tcp_time_wait(sk, TCP_FIN_WAIT2, left_us)
        return
    tcp_send_active_reset(sk)
    tcp_done(sk)
