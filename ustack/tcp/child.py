"""From a request to a socket (tcp_v4_syn_recv_sock), and what establishing sets.

Called with the third ACK by ``tcp_check_req`` and ``cookie_v4_check``, with a Fast Open's SYN by
``tcp_try_fastopen``; ``tcp_init_transfer`` is also the end of an active open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.ipv4.route import ip_route_output
from ustack.lib.drop_reason import DropReason
from ustack.lib.seqnum import SEQ_MASK, seq_add
from ustack.native.lib import lib
from ustack.tcp.close import tcp_destroy
from ustack.tcp.cong.registry import (
    tcp_assign_congestion_control,
    tcp_init_congestion_control,
)
from ustack.tcp.ip_header import tcp_reqsk_tos
from ustack.tcp.md5 import tcp_md5_key_copy
from ustack.tcp.metrics import tcp_init_metrics
from ustack.tcp.mss import tcp_sync_mss
from ustack.tcp.mtu_probe import tcp_mtup_init
from ustack.tcp.pacing import sk_set_max_pacing_rate, tcp_update_pacing_rate
from ustack.tcp.ports import bind_bucket_share
from ustack.tcp.rtt import tcp_ack_update_rtt
from ustack.tcp.sndbuf import tcp_sndbuf_expand
from ustack.tcp.states import TCP_SYN_RECV, TcpEvent
from ustack.tcp.timer import tcp_arm_keepalive
from ustack.tcp.window import tcp_init_buffer_space
from ustack.wire.tcp import TCPOLEN_TSTAMP_ALIGNED

if TYPE_CHECKING:
    from ustack.tcp.request_sock import RequestSock
    from ustack.tcp.sock import TcpSock
    from ustack.wire.tcp import Segment


def tcp_v4_syn_recv_sock(
    request: RequestSock, seg: Segment, *, established: bool = True
) -> TcpSock | DropReason:
    """Make the child of ``request`` if the accept queue has room for it.

    Args:
        seg: the third ACK, or the SYN of a Fast Open.
        established: not so out of a SYN: then the child is in SYN_RECV.

    Returns:
        The child, hashed but on no accept queue yet; or TCP_LISTEN_OVERFLOW (ListenOverflows,
        ListenDrops) or NOMEM (ListenDrops).
    """
    prot = request.prot
    queues = request.lsk.listen
    assert queues is not None
    if queues.accept_queue_is_full():
        prot.mib_ext.ListenOverflows += 1
        prot.mib_ext.ListenDrops += 1
        return DropReason.TCP_LISTEN_OVERFLOW
    try:
        child = tcp_create_openreq_child(request, seg)
    except MemoryError:
        prot.mib_ext.ListenDrops += 1
        return DropReason.NOMEM
    if established:
        sent_us = request.req.snt_synack_us
        if sent_us and not request.req.num_retrans:
            rtt_us = prot.clock.now_us - sent_us
            tcp_ack_update_rtt(child, rtt_us, rtt_us)
        child.tp.delivered = 1  # the SYN-ACK
        child.set_state(TcpEvent.RCV_ACK_OF_SYN)
        tcp_init_transfer(child)
        if prot.trace_handshake.on and sent_us:
            prot.trace_handshake(child, sent_us)
    return child


def tcp_create_openreq_child(request: RequestSock, seg: Segment) -> TcpSock:
    """Make the child of ``request`` in SYN_RECV, in the established hash and on its port.

    Raises:
        MemoryError: the arena is full, or there is none for the port's tables; nothing is left.
    """
    prot = request.prot
    lsk = request.lsk
    child = prot.create()
    _copy_request(child, request)
    tcp_assign_congestion_control(child, lsk)
    child.reuse, child.keepopen, child.linger_s = lsk.reuse, lsk.keepopen, lsk.linger_s
    child.reuseport, child.opts = lsk.reuseport, lsk.opts
    child.upcall = lsk.upcall
    child.rcvlowat, child.oobinline = lsk.rcvlowat, lsk.oobinline
    child.tp.slow = lsk.tp.slow & lib.US_TCP_SLOW_OPTION
    child.tp.rcvbuf_locked = lsk.tp.rcvbuf_locked
    child.tp.sndbuf_locked = lsk.tp.sndbuf_locked
    child.bind_addr = lsk.bind_addr
    tp = child.tp
    tp.sk_rcvbuf, tp.sk_sndbuf = lsk.tp.sk_rcvbuf, lsk.tp.sk_sndbuf
    tp.nonagle, tp.user_mss = lsk.tp.nonagle, lsk.tp.user_mss
    tp.notsent_lowat = lsk.tp.notsent_lowat
    tp.icsk_rto_min_us, tp.icsk_rto_max_us = lsk.tp.icsk_rto_min_us, lsk.tp.icsk_rto_max_us
    tp.tos, tp.ttl = tcp_reqsk_tos(request), lsk.tp.ttl
    child.user_timeout_us = lsk.user_timeout_us
    if lsk.pacing is not None:
        sk_set_max_pacing_rate(child, lsk.pacing.max_rate)
    tp.state = TCP_SYN_RECV
    tp.inet_id = prot.secure_ip_id(tp)
    try:
        child.bind_bucket = bind_bucket_share(prot, child, tp, tp.sport)
    except MemoryError:
        tcp_destroy(child)
        raise
    prot.ehash.insert(child)
    tp.snd_wnd = tp.max_window = seg.window << tp.snd_wscale
    tp.snd_wl1 = seg.seq
    child.set_dst(ip_route_output(prot.ip, tp.daddr, tp.saddr))
    if lsk.opts.md5_keys:
        tcp_md5_key_copy(child)
    tp.advmss = child.dst.mtu - 40 if child.dst is not None else 536
    prot.mib.PassiveOpens += 1
    return child


def _copy_request(child: TcpSock, request: RequestSock) -> None:
    tp = child.tp
    req = request.req
    tp.saddr, tp.sport, tp.daddr, tp.dport = req.loc_addr, req.loc_port, req.rmt_addr, req.rmt_port
    tp.irs, tp.iss = req.rcv_isn, req.snt_isn
    tp.rcv_nxt = tp.rcv_wup = tp.copied_seq = tp.last_ack_sent = seq_add(req.rcv_isn, 1)
    tp.snd_una = tp.snd_nxt = tp.write_seq = tp.snd_sml = seq_add(req.snt_isn, 1)
    tp.pushed_seq = tp.high_seq = tp.cwnd_usage_seq = tp.snd_nxt
    tp.rcv_wnd = tp.rcv_ssthresh = req.rcv_wnd
    tp.window_clamp = request.lsk.tp.window_clamp
    tp.tstamp_ok, tp.sack_ok, tp.wscale_ok = req.tstamp_ok, req.sack_ok, req.wscale_ok
    tp.snd_wscale, tp.rcv_wscale = req.snd_wscale, req.rcv_wscale
    tp.rx_opt_mss = req.mss
    tp.ecn_flags = req.ecn_ok  # TCP_ECN_OK
    tp.ts_recent = req.ts_recent
    tp.ts_recent_stamp_us = request.prot.clock.now_us
    tp.tsoffset = req.tsoffset
    tp.total_retrans = req.num_retrans
    tp.segs_in = 1  # the SYN
    tp.ack_lrcvtime_us = tp.ts_recent_stamp_us


def tcp_init_transfer(sk: TcpSock) -> None:
    """Set what a connection needs from now on that it is established (tcp_init_transfer)."""
    tp = sk.tp
    prot = sk.prot
    mtu = sk.dst.mtu if sk.dst is not None else 576
    tcp_sync_mss(sk, mtu)
    tcp_mtup_init(sk, tstamps=bool(tp.tstamp_ok))
    if tp.tstamp_ok:
        tp.advmss -= TCPOLEN_TSTAMP_ALIGNED
    tp.ack_rcv_mss = max(min(tp.advmss, tp.mss_cache, tp.rcv_wnd >> 1, 536), 88)
    tp.snd_cwnd = prot.config.init_cwnd if tp.total_retrans <= 1 else 1  # RFC 5681 §3.1
    tcp_init_metrics(sk)
    tp.retransmits = tp.backoff = 0
    tp.retrans_stamp_us = 0
    tp.probes_out = 0
    tp.lsndtime_us = prot.clock.now_us
    tp.copied_seq = tp.rcv_nxt & SEQ_MASK
    tp.snd_cwnd_stamp_us = prot.clock.now_us
    if not sk.ca_initialized:
        tcp_init_congestion_control(sk)
    if sk.ca.cong_control is None:
        tcp_update_pacing_rate(sk)
    tcp_init_buffer_space(sk)
    tcp_sndbuf_expand(sk)
    if sk.keepopen:
        tcp_arm_keepalive(sk, sk.opts.keepalive_time_us or prot.config.tcp_keepalive_time_us)
