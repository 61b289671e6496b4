"""Received frames that C takes, and what is left to do for their connections.

The driver hands every batch to ``TcpFastRx.rx`` before anything else. C consumes the segments
that their connections expect and says, once a connection, what it could not do: wake whoever
reads, set a timer. What it did not take goes on as a packet, in the same order.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any

from ustack.core.netdevice import NETIF_F_GRO
from ustack.native.lib import lib
from ustack.tcp.ack import tcp_acked_in_order
from ustack.tcp.delack import tcp_ack_snd_check
from ustack.tcp.input import is_over, tcp_ack_of_fin
from ustack.tcp.output import tcp_push_pending_frames
from ustack.tcp.sndbuf import tcp_check_space
from ustack.tcp.states import TCP_CLOSE, TCP_LISTEN, TCP_SYN_SENT
from ustack.tcp.transmit import tcp_send_ack

if TYPE_CHECKING:
    from ustack.core.netdevice import NetDevice
    from ustack.tcp.fast import TcpFast
    from ustack.tcp.sock import TcpSock

_EVENT = Struct("=QIII4xq")
"""struct us_tcp_event: handle, what, pkts_acked, prior_packets, rtt_us."""
CALL_MORE: int = lib.US_TCP_CALL_MORE
"""From here on what send(), recv() and close() in C return says that something is left to do."""
UNCONNECTED = (TCP_CLOSE, TCP_LISTEN, TCP_SYN_SENT)
EV_ACKED: int = lib.US_TCP_EV_ACKED
EV_READABLE: int = lib.US_TCP_EV_READABLE
EV_ACK: int = lib.US_TCP_EV_ACK
EV_XMIT: int = lib.US_TCP_EV_XMIT
EV_SPACE: int = lib.US_TCP_EV_SPACE
EV_FIN: int = lib.US_TCP_EV_FIN
EV_ACCEPT: int = lib.US_TCP_EV_ACCEPT


class TcpFastRx:
    """The receive side for the drivers (``core.net.RxFast``)."""

    def __init__(self, fast: TcpFast) -> None:
        self._fast = fast
        self._fib = fast.prot.ip.fib
        self.ptr = fast.ptr
        self.timers_idle = False

    @property
    def genid(self) -> int:
        """Generation of the routing table."""
        return self._fib.genid

    def run_events(self) -> None:
        """Do what C has left to do for connections."""
        run_events(self._fast)

    def rx(self, dev: NetDevice, frames: Any, count: int) -> int:
        """Let C take what it can of a batch.

        Args:
            dev: the device that received it.
            frames: ``struct us_igb_rx_frame *``; those that are left come to stand in front.
            count: how many there are.

        Returns:
            How many are left.
        """
        fast = self._fast
        if not fast.on or dev.rps_maps:
            return count
        ptr = fast.ptr
        ptr.now_us = fast.prot.clock.now_us
        ptr.genid = fast.prot.ip.fib.genid
        ptr.gro = dev.features & NETIF_F_GRO
        left: int = lib.us_tcp_fast_rx(ptr, dev.dev_addr, frames, count)
        if left != count:
            fast.prot.net.softnet.processed += count - left
            run_events(fast)
        return left


def run_rest(fast: TcpFast, result: int) -> int:
    """Do what a call into C has left to do, and return its result without US_TCP_CALL_MORE."""
    run_events(fast)
    return result - CALL_MORE


def run_events(fast: TcpFast) -> None:
    """Do for each connection what C has left, then send what C has put into rings."""
    ptr, prot = fast.ptr, fast.prot
    fast.ring_doorbells()
    if not ptr.nevents:
        return
    events = fast.events[: ptr.nevents * _EVENT.size]
    for handle, what, pkts, prior_packets, rtt_us in _EVENT.iter_unpack(events):
        sk = prot.socks.get(handle)
        if sk is None:
            if prot.parking.tell(handle, what):
                continue
            sk = prot.sock_of_event(handle)
        if what & EV_ACCEPT and sk is not None and sk.tp.state == TCP_LISTEN:
            sk.sk_data_ready()
        if sk is None or sk.tp.state in UNCONNECTED:
            continue  # by whoever was woken before it
        if what & (EV_ACKED | EV_XMIT):
            _acked(sk, what, pkts, prior_packets, rtt_us)
            continue
        if what & EV_ACK:
            tcp_send_ack(sk)
        if what & EV_SPACE:
            sk.sk_write_space()
        _text(sk, what)


def _text(sk: TcpSock, what: int) -> None:
    """Text has come, or the end of it: wake whoever reads."""
    if sk.dead:
        return
    if what & (EV_READABLE | EV_FIN):
        sk.duplicate_sack = None
    if what & EV_FIN:
        sk.sk_state_change()
    elif what & EV_READABLE:
        sk.sk_data_ready()  # C takes text only for those who want any


def _acked(sk: TcpSock, what: int, pkts: int, prior_packets: int, rtt_us: int) -> None:
    """New data was acknowledged, perhaps by text: the end of tcp_rcv_state_process."""
    if pkts:
        tcp_acked_in_order(sk, pkts, rtt_us, prior_packets)
    _text(sk, what)
    if is_over(sk):
        return
    if what & EV_SPACE:
        sk.sk_write_space()
    if sk.tp.fin_queued:
        tcp_ack_of_fin(sk, fin=bool(what & EV_FIN))
        if is_over(sk):
            return
    tcp_push_pending_frames(sk)
    tcp_check_space(sk)
    if what & EV_ACK:
        tcp_send_ack(sk)
    else:
        tcp_ack_snd_check(sk)
