"""The ends of a connection: close, shutdown, abort, reset (net/ipv4/tcp.c).

``tcp_done`` is where every connection ends up: state CLOSE, out of the tables, no timer.
Memory goes when the application has let go as well. What close() does with unread or unsent
data is the table of RFC 9293 §3.10.4 with RFC 2525 §2.17's reset.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from ustack.config import LINUX_310
from ustack.native.lib import lib
from ustack.sock.sock import RCV_SHUTDOWN, SEND_SHUTDOWN
from ustack.tcp.fastopen import reqsk_fastopen_remove, tcp_fastopen_request
from ustack.tcp.fastopen_blackhole import tcp_fastopen_active_disable_ofo_check
from ustack.tcp.mem import tcp_out_of_memory
from ustack.tcp.output import tcp_send_fin
from ustack.tcp.rmem import tcp_ofo_purge
from ustack.tcp.states import (
    CAN_SEND,
    SYNCHRONIZED,
    TCP_CLOSE,
    TCP_CLOSE_WAIT,
    TCP_CLOSING,
    TCP_LAST_ACK,
    TCP_SYN_RECV,
    TCP_SYN_SENT,
    TcpEvent,
)
from ustack.tcp.timer import tcp_clear_xmit_timers
from ustack.tcp.transmit import tcp_send_active_reset

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock


def tcp_done(sk: TcpSock) -> None:
    """End a connection (tcp_done): CLOSE, no timer, in no table; readers and writers learn it."""
    tp = sk.tp
    request = tcp_fastopen_request(sk)
    if tp.state in (TCP_SYN_SENT, TCP_SYN_RECV):
        sk.prot.mib.AttemptFails += 1
    tcp_clear_xmit_timers(sk)
    if request is not None:
        reqsk_fastopen_remove(sk, request, reset=False)
    if tp.state != TCP_CLOSE:
        sk.set_state(TcpEvent.ABORT)
    tp.rcv_shutdown = RCV_SHUTDOWN
    tp.snd_shutdown = SEND_SHUTDOWN
    tcp_fastopen_active_disable_ofo_check(sk)
    tcp_ofo_purge(sk)
    sk.set_dst(None)
    lib.us_bq_purge(sk.prot.mem.ptr, sk.sndq)
    if not sk.dead:
        sk.sk_state_change()
    elif sk.orphaned:
        tcp_destroy(sk)


def tcp_abort_connect(sk: TcpSock) -> None:
    """The application gives up a connect(): no failed attempt, nothing is sent (tcp_disconnect)."""
    sk.set_state(TcpEvent.CLOSE)
    tcp_done(sk)
    sk.tp.rcv_shutdown = sk.tp.snd_shutdown = 0


def tcp_destroy(sk: TcpSock) -> None:
    """Free an orphan that is over (inet_csk_destroy_sock)."""
    if sk.orphaned:
        sk.orphaned = False
        sk.prot.orphan_count -= 1
    sk.prot.put_port(sk)
    tcp_ofo_purge(sk)
    sk.free_memory()


def tcp_done_with_error(sk: TcpSock, err: int) -> None:
    """End a connection and tell the application why (tcp_done_with_error)."""
    sk.sk_err = err
    wake = not sk.dead
    tcp_done(sk)
    if wake:
        sk.sk_error_report()


def tcp_write_err(sk: TcpSock) -> None:
    """The peer does not answer any more: ETIMEDOUT, or what ICMP said (tcp_write_err)."""
    sk.prot.mib_ext.TCPAbortOnTimeout += 1
    tcp_done_with_error(sk, sk.sk_err_soft or errno.ETIMEDOUT)


def tcp_check_oom(sk: TcpSock, shift: int = 0) -> bool:
    """Whether an orphan must give way (tcp_check_oom).

    Orphans are more than tcp_max_orphans, each counted ``1 << shift`` times, or TCP holds more
    than tcp_mem lets it and this one has its part in that.
    """
    prot = sk.prot
    return prot.orphan_count << shift > prot.config.tcp_max_orphans or tcp_out_of_memory(sk)


def tcp_reset(sk: TcpSock) -> None:
    """The peer has reset the connection (tcp_reset; RFC 9293 §3.10.7.4, second check)."""
    state = sk.tp.state
    if state == TCP_SYN_SENT:
        err = errno.ECONNREFUSED
    elif state == TCP_CLOSE_WAIT:
        err = errno.EPIPE
    else:
        err = errno.ECONNRESET
    tcp_done_with_error(sk, err)


def tcp_abort(sk: TcpSock) -> None:
    """End with a reset if the peer takes us for connected (RFC 9293 §3.10.5)."""
    if tcp_need_reset(sk):
        tcp_send_active_reset(sk)
    tcp_done(sk)


def tcp_need_reset(sk: TcpSock) -> bool:
    """Whether the peer must be told of an abort (tcp_disconnect): not in TIME_WAIT's company."""
    tp = sk.tp
    if tp.state in (TCP_CLOSING, TCP_LAST_ACK):
        return bool(tp.snd_nxt != tp.write_seq)
    return tp.state in SYNCHRONIZED or tp.state == TCP_SYN_RECV


def tcp_disconnect(sk: TcpSock) -> None:
    """Forget the connection, so that the socket can have another (connect() to AF_UNSPEC).

    The peer gets a reset where it must, the application ECONNRESET at its next call.
    """
    tp = sk.tp
    if tp.state == TCP_CLOSE:
        return
    if tcp_need_reset(sk) or tp.state == TCP_SYN_SENT:
        sk.sk_err = errno.ECONNRESET
    if tcp_need_reset(sk):
        tcp_send_active_reset(sk)
    tp.syn_fastopen = 0
    sk.set_state(TcpEvent.ABORT)
    tcp_done(sk)
    lib.us_bq_purge(sk.prot.mem.ptr, sk.rcvq)
    tp.rcv_shutdown = tp.snd_shutdown = 0  # as a new socket's: it may connect again
    sk.sk_error_report()


def tcp_shutdown_write(sk: TcpSock) -> None:
    """Send our FIN behind what is queued (tcp_shutdown with SEND_SHUTDOWN).

    In SYN_RECV it waits until the connection is open; in linux-3.10 it does not.
    """
    tp = sk.tp
    tp.snd_shutdown = SEND_SHUTDOWN
    if tp.state in CAN_SEND or (tp.state == TCP_SYN_RECV and sk.prot.profile == LINUX_310):
        tcp_close_state(sk)


def tcp_close_state(sk: TcpSock) -> None:
    """Go to the state in which our FIN is out, and send it (tcp_close_state)."""
    sk.tp.snd_shutdown = SEND_SHUTDOWN
    sk.set_state(TcpEvent.CLOSE)
    tcp_send_fin(sk)
