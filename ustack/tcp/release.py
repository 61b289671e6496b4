"""close() on a TCP socket (tcp_close): what happens to a connection nobody holds any more.

Unread data: a reset (RFC 2525 §2.17). SO_LINGER 0: a reset. Else a FIN behind the unsent
data; the orphan goes on by itself, and once only waiting is left it becomes a mini-socket.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.native.lib import lib
from ustack.sock.sock import RCV_SHUTDOWN
from ustack.tcp.close import (
    tcp_abort,
    tcp_abort_connect,
    tcp_check_oom,
    tcp_close_state,
    tcp_destroy,
    tcp_done,
)
from ustack.tcp.listen import inet_csk_listen_stop
from ustack.tcp.metrics import tcp_expect_metrics
from ustack.tcp.park import closes_plainly, tcp_has_more
from ustack.tcp.states import (
    CAN_SEND,
    TCP_CLOSE,
    TCP_FIN_WAIT2,
    TCP_LISTEN,
    TCP_SYN_RECV,
    TCP_SYN_SENT,
    TcpEvent,
)
from ustack.tcp.timer import tcp_clear_xmit_timers
from ustack.tcp.timewait import tcp_fin_wait2_orphan
from ustack.tcp.transmit import tcp_send_active_reset

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock


def tcp_close(sk: TcpSock, *, unread: bool = False) -> None:
    """Let go of a socket on the application's behalf; it must not be used afterwards.

    Args:
        unread: the application had not read all that it was given (see ``daemon.join``).
    """
    if not unread and tcp_close_in_c(sk):
        return
    sk.dead = True
    if sk.tp.state == TCP_LISTEN:
        inet_csk_listen_stop(sk)
        tcp_done(sk)
    else:
        _close_connection(sk, unread)
    sk.orphaned = True
    sk.prot.orphan_count += 1
    if sk.tp.state == TCP_FIN_WAIT2 and _limit_fin_wait2(sk):
        return
    if sk.tp.state != TCP_CLOSE and tcp_check_oom(sk):
        _abort_orphan(sk)
        sk.prot.mib_ext.TCPAbortOnMemory += 1
    if sk.tp.state == TCP_CLOSE:
        tcp_destroy(sk)


def tcp_close_in_c(sk: TcpSock) -> bool:
    """Let C send the FIN and keep what is left, if that is all there is to do; ``sk`` is gone then.

    Nothing unread or unsent, and nothing that only the object knows of; it is made again
    (``tcp_unpark``) for whatever C leaves to Python.
    """
    prot = sk.prot
    fast = prot.fast
    dst = sk.dst
    if not fast.on or dst is None or not dst.fast or tcp_has_more(sk):
        return False
    tp = sk.tp
    if not closes_plainly(sk) or sk.ca_priv is not None:
        return False
    if not tp.bind_share or sk in prot.tsq:
        return False
    number = prot.parking.number_of(sk)
    if number is None:
        return False
    if not lib.us_tcp_close(fast.ptr, tp, prot.clock.now_us, prot.ip.fib.genid, number):
        return False
    fast.hold(dst)
    tcp_expect_metrics(tp, prot, dst)
    fast.ring_doorbells()
    del prot.socks[lib.us_tcp_handle(tp)]
    if sk.keepalive_timer is not None:
        sk.keepalive_timer.arg = None
    sk.dead = True
    sk.tp = None
    return True


def _limit_fin_wait2(sk: TcpSock) -> bool:
    """Our FIN is acknowledged already; return whether a mini-socket waits for the peer's."""
    if sk.opts.linger2_us < 0:
        _abort_orphan(sk)
        sk.prot.mib_ext.TCPAbortOnLinger += 1
        return False
    tcp_fin_wait2_orphan(sk)
    return sk.tp is None


def _abort_orphan(sk: TcpSock) -> None:
    tcp_send_active_reset(sk)
    sk.set_state(TcpEvent.ABORT)
    tcp_clear_xmit_timers(sk)


def _close_connection(sk: TcpSock, unread: bool) -> None:
    """Unread text: a reset, as RFC 2525 §2.17 has it. SO_LINGER 0: a reset. Else a FIN."""
    tp = sk.tp
    prot = sk.prot
    unread = unread or bool(tp.receive_queue.len)
    lib.us_bq_purge(prot.mem.ptr, sk.rcvq)
    tp.copied_seq = tp.rcv_nxt
    tp.rcv_shutdown = RCV_SHUTDOWN
    if tp.state == TCP_CLOSE:
        return
    if unread:
        prot.mib_ext.TCPAbortOnClose += 1
        tcp_abort(sk)
    elif sk.linger_s == 0:
        prot.mib_ext.TCPAbortOnData += 1
        _abandon(sk)
    elif tp.state == TCP_SYN_SENT:
        tcp_abort_connect(sk)
    elif tp.state in CAN_SEND or tp.state == TCP_SYN_RECV:
        tcp_close_state(sk)


def _abandon(sk: TcpSock) -> None:
    if sk.tp.state == TCP_SYN_SENT:
        tcp_abort_connect(sk)
    else:
        tcp_abort(sk)
