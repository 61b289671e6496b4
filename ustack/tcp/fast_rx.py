"""Received frames that C takes, and what is left to do for their connections.

The driver hands every batch to ``tcp_fast_rx`` before anything else. C consumes the segments
that their connections expect and says, once a connection, what it could not do: wake whoever
reads, set a timer. What it did not take goes on as a packet, in the same order.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any

from ustack.core.netdevice import NETIF_F_GRO
from ustack.native.lib import ffi, lib
from ustack.tcp.data import tcp_data_ready
from ustack.tcp.delack import tcp_send_delayed_ack
from ustack.tcp.transmit import tcp_send_ack

if TYPE_CHECKING:
    from ustack.core.netdevice import NetDevice
    from ustack.tcp.fast import TcpFast

_EVENT = Struct("=II")
"""struct us_tcp_event: handle, what."""
EV_READABLE: int = lib.US_TCP_EV_READABLE
EV_DELACK: int = lib.US_TCP_EV_DELACK
EV_ACK: int = lib.US_TCP_EV_ACK


def tcp_fast_rx(fast: TcpFast, dev: NetDevice, frames: Any, count: int) -> int:
    """Let C take what it can of a batch.

    Args:
        fast: the stack's fast path.
        dev: the device that received it.
        frames: ``struct us_igb_rx_frame *``; those that are left come to stand in front.
        count: how many there are.

    Returns:
        How many are left.
    """
    if not fast.on or dev.rps_maps:
        return count
    ptr = fast.ptr
    ptr.now_us = fast.prot.clock.now_us
    ptr.genid = fast.prot.ip.fib.genid
    ptr.gro = dev.features & NETIF_F_GRO
    left: int = lib.us_tcp_fast_rx(ptr, dev.dev_addr, frames, count)
    if left != count:
        fast.prot.net.softnet.processed += count - left
        _run_events(fast)
    return left


def _run_events(fast: TcpFast) -> None:
    """Do for each connection what C has left, then send what C has put into rings."""
    ptr, socks = fast.ptr, fast.socks
    fast.ring_doorbells()
    for handle, what in _EVENT.iter_unpack(ffi.buffer(ptr.events, ptr.nevents * _EVENT.size)[:]):
        sk = socks.get(handle)
        if sk is None:
            continue  # closed by whoever was woken before it
        if what & EV_ACK:
            tcp_send_ack(sk)
        elif what & EV_DELACK:
            tcp_send_delayed_ack(sk)
        if what & EV_READABLE:
            sk.duplicate_sack = None
            tcp_data_ready(sk)
