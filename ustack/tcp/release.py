"""close() on a TCP socket (tcp_close): what happens to a connection nobody holds any more.

Unread data: a reset (RFC 2525 §2.17). SO_LINGER 0: a reset. Else a FIN behind the unsent
data; the orphan goes on by itself, and once only waiting is left it becomes a mini-socket.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.native.lib import lib
from ustack.sock.sock import RCV_SHUTDOWN, SEND_SHUTDOWN
from ustack.tcp.close import tcp_abort, tcp_abort_connect, tcp_destroy, tcp_done, tcp_shutdown_write
from ustack.tcp.listen import inet_csk_listen_stop
from ustack.tcp.output import TCP_NAGLE_OFF, tcp_push_pending_frames
from ustack.tcp.rmem import tcp_ofo_purge
from ustack.tcp.states import (
    CAN_SEND,
    TCP_CLOSE,
    TCP_FIN_WAIT2,
    TCP_LISTEN,
    TCP_SYN_RECV,
    TCP_SYN_SENT,
)
from ustack.tcp.timewait import tcp_time_wait
from ustack.tcp.transmit import tcp_send_active_reset

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock


def tcp_close(sk: TcpSock) -> None:
    """Let go of a socket on the application's behalf; it must not be used afterwards."""
    tp = sk.tp
    prot = sk.prot
    sk.dead = True
    if tp.state == TCP_LISTEN:
        inet_csk_listen_stop(sk)
        tcp_done(sk)
    else:
        _close_connection(sk)
    tp = sk.tp
    if tp.state == TCP_FIN_WAIT2:
        prot.orphan_count += 1
        sk.orphaned = True
        tcp_time_wait(sk, TCP_FIN_WAIT2, prot.config.tcp_fin_timeout_us)
    elif tp.state == TCP_CLOSE:
        tcp_destroy(sk)
    elif prot.orphan_count >= prot.config.tcp_max_orphans:
        prot.mib_ext.TCPAbortOnMemory += 1
        tcp_send_active_reset(sk)
        tcp_done(sk)
        tcp_destroy(sk)
    else:
        prot.orphan_count += 1
        sk.orphaned = True


def _close_connection(sk: TcpSock) -> None:
    tp = sk.tp
    prot = sk.prot
    unread = tp.receive_queue.len
    lib.us_bq_purge(prot.mem.ptr, sk.rcvq)
    tcp_ofo_purge(sk)
    was_sending = tp.state in CAN_SEND or tp.state == TCP_SYN_RECV
    tp.rcv_shutdown = RCV_SHUTDOWN
    if tp.state in (TCP_CLOSE, TCP_SYN_SENT):
        if tp.state == TCP_SYN_SENT:
            tcp_abort_connect(sk)
        return
    if unread:
        prot.mib_ext.TCPAbortOnClose += 1
        tcp_abort(sk)
    elif sk.linger_s == 0:
        prot.mib_ext.TCPAbortOnData += 1
        tcp_abort(sk)
    elif was_sending:
        tp.nonagle |= TCP_NAGLE_OFF
        tcp_shutdown_write(sk)
    else:
        tp.snd_shutdown = SEND_SHUTDOWN
        tcp_push_pending_frames(sk)
