"""How much of one connection may wait below TCP (TCP Small Queues, net/ipv4/tcp_output.c).

``tcp_write_xmit`` and the retransmit queue ask before each packet. A socket that has to wait
goes on by ``tcp_tsq_run``, once the device has sent something. What waits is what the device
has been told of and has not taken: usually nothing, as a wire takes all that it is given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.core.steering import flow_queue_is_stopped
from ustack.tcp.pacing import MAX_RATE
from ustack.tcp.transmit import tcp_route
from ustack.tcp.tso import SK_PACING_SHIFT
from ustack.wire.ipv4 import IPPROTO_TCP

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock


def tcp_small_queue_check(sk: TcpSock, length: int, factor: int = 0) -> bool:
    """Whether the device has enough of ours for now (tcp_small_queue_check).

    A millisecond of the pacing rate, two packets at least, tcp_limit_output_bytes at most;
    frames count as they are on the wire, not by truesize. A stopped queue is enough, too: what
    went into the qdisc behind it would only wait there.

    Args:
        length: payload of the packet that is next.
        factor: 1 for a repetition, which may have twice as much before it.
    """
    if not (tcp_device_is_full(sk) or _is_above_limit(sk, length, factor)):
        return False
    sk.prot.tsq[sk] = None
    return True


def _is_above_limit(sk: TcpSock, length: int, factor: int) -> bool:
    if tcp_rtx_queue_empty_or_single(sk):
        return False
    rt = tcp_route(sk)
    if rt is None:
        return False
    tp = sk.tp
    limit = max(2 * length, (tp.sk_pacing_rate or MAX_RATE) >> SK_PACING_SHIFT)
    limit = min(limit, sk.prot.fast.ptr.limit_output_bytes) << factor
    return rt.dev.ndo_tx_is_above(tp.generation, limit)


def tcp_rtx_queue_empty_or_single(sk: TcpSock) -> bool:
    """Whether at most one packet is in flight: then nobody waits for the device to be done."""
    return (sk.tp.txlog.len if sk.rtx is None else len(sk.rtx)) <= 1


def tcp_device_is_full(sk: TcpSock) -> bool:
    """Whether the transmit queue that our segments take is stopped; others' do not matter."""
    rt = tcp_route(sk)
    if rt is None or not rt.dev.queue_stopped:
        return False
    tp = sk.tp
    return flow_queue_is_stopped(
        sk.prot.net, rt.dev, IPPROTO_TCP, tp.saddr, tp.sport, tp.daddr, tp.dport
    )
