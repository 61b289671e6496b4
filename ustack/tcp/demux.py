"""From IP into TCP: which connection a segment is for (net/ipv4/tcp_ipv4.c).

``tcp_v4_rcv`` is the protocol handler that stack.py registers. It looks in the order
established, TIME_WAIT, request, listener; a segment for nobody is answered with a reset.
``tcp_v4_err`` takes ICMP errors about our own segments.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from ustack.core.skb import (
    CHECKSUM_UNNECESSARY,
    PACKET_HOST,
    Skb,
    consume_skb,
    kfree_skb,
    skb_linearize,
)
from ustack.ipv4.icmp import ICMP_ERR_CONVERT
from ustack.ipv4.input import ip_addrs
from ustack.ipv4.route import ip_rt_update_pmtu
from ustack.lib.drop_reason import DropReason
from ustack.lib.pieces import Pieces
from ustack.lib.seqnum import SEQ_MASK, after, before
from ustack.native.checksum import csum_partial, csum_tcpudp_magic
from ustack.native.lib import lib
from ustack.tcp.ack import tcp_syn_is_unacked
from ustack.tcp.check_req import tcp_check_req
from ustack.tcp.close import tcp_done_with_error
from ustack.tcp.conn_request import tcp_conn_request
from ustack.tcp.cookie_ack import cookie_v4_check
from ustack.tcp.input import tcp_rcv_established, tcp_rcv_state_process
from ustack.tcp.ip_header import ip_dont_fragment
from ustack.tcp.loss import tcp_simple_retransmit
from ustack.tcp.md5 import tcp_inbound_hash
from ustack.tcp.mss import tcp_sync_mss
from ustack.tcp.request_sock import reqsk_drop
from ustack.tcp.reuseport import inet_lookup_listener
from ustack.tcp.states import TCP_ESTABLISHED, TCP_LISTEN, TCP_SYN_RECV, TCP_SYN_SENT
from ustack.tcp.timewait import tcp_timewait_state_process
from ustack.tcp.transmit import tcp_v4_send_reset
from ustack.wire.errors import WireError
from ustack.wire.icmp import (
    ICMP_DEST_UNREACH,
    ICMP_FRAG_NEEDED,
    ICMP_HOST_UNREACH,
    ICMP_NET_UNREACH,
    ICMP_PARAMETERPROB,
    ICMP_TIME_EXCEEDED,
)
from ustack.wire.tcp import ACK, FIN, RST, SYN, Segment, parse_segment

if TYPE_CHECKING:
    from ustack.tcp.protocol import TcpProt
    from ustack.tcp.request_sock import RequestSock
    from ustack.tcp.sock import TcpSock


def tcp_v4_rcv(prot: TcpProt, skb: Skb) -> None:
    """Take one segment from IP (tcp_v4_rcv); it is consumed."""
    prot.mib.InSegs += 1
    if skb.pkt_type != PACKET_HOST:
        kfree_skb(prot.net, skb, DropReason.NOT_SPECIFIED)
        return
    saddr, daddr = ip_addrs(skb)
    if skb.frags and skb.ip_summed != CHECKSUM_UNNECESSARY:
        skb_linearize(prot.net, skb)
    data = skb.data[skb.transport_offset :]
    try:
        seg = parse_segment(skb, data, saddr, daddr)
    except WireError as err:
        prot.mib.InErrs += 1
        kfree_skb(prot.net, skb, err.reason)
        return
    if skb.ip_summed != CHECKSUM_UNNECESSARY and csum_tcpudp_magic(
        saddr, daddr, len(data), 6, csum_partial(data)
    ):
        prot.mib.InCsumErrors += 1
        prot.mib.InErrs += 1
        kfree_skb(prot.net, skb, DropReason.TCP_CSUM)
        return
    if skb.frags:
        _add_frags(prot, skb, seg)
    reason = tcp_v4_demux(prot, seg)
    if reason is None:
        consume_skb(prot.net, skb)
    else:
        kfree_skb(prot.net, skb, reason)


def _add_frags(prot: TcpProt, skb: Skb, seg: Segment) -> None:
    """Let ``seg.payload`` be all of the text where some is in frags, which ``skb`` holds."""
    read_at = prot.net.mem.read_at
    pieces = [read_at(addr, n) for addr, n in skb.frags]
    seg.end_seq = seg.end_seq + sum([len(piece) for piece in pieces]) & SEQ_MASK
    if seg.payload:
        pieces.insert(0, memoryview(bytes(seg.payload)))
    seg.payload = pieces[0] if len(pieces) == 1 else Pieces(pieces)


def tcp_v4_demux(prot: TcpProt, seg: Segment) -> DropReason | None:
    """Find who a valid segment is for and let them have it, if it is signed as they want."""
    key = (seg.daddr, seg.dport, seg.saddr, seg.sport)
    check = prot.md5_needed or seg.md5sig is not None
    sk = prot.ehash.get(key)
    if sk is not None:
        if check and (reason := tcp_inbound_hash(sk, seg)) is not None:
            return reason
        reason = tcp_v4_do_rcv(sk, seg)
        if reason is not None:
            sk.drops += 1
        return reason
    request = prot.reqsk_hash.get(key)
    if request is not None:
        if check and (reason := tcp_inbound_hash(request.lsk, seg)) is not None:
            return reason
        return tcp_v4_rcv_request(request, seg)
    isn = 0
    tw = prot.twhash.get(key)
    lsk = inet_lookup_listener(prot, key)
    if tw is not None:
        verdict = tcp_timewait_state_process(tw, seg, listening=lsk is not None)
        if verdict is None or isinstance(verdict, DropReason):
            return verdict
        isn = verdict
    if lsk is None or lsk.listen is None:
        tcp_v4_send_reset(prot, None, seg)
        return DropReason.NO_SOCKET
    if check and (reason := tcp_inbound_hash(lsk, seg)) is not None:
        return reason
    request = lsk.listen.syn_queue.get(key)
    if request is not None:
        return tcp_v4_rcv_request(request, seg)
    return tcp_rcv_listen(lsk, seg, isn)


def tcp_v4_rcv_request(request: RequestSock, seg: Segment) -> DropReason | None:
    """Hand a segment to a half-open connection; a third ACK goes on to the child it makes."""
    lsk = request.lsk
    child = tcp_check_req(request, seg)
    if child is None:
        return tcp_rcv_listen(lsk, seg, 0)
    if isinstance(child, DropReason):
        return child
    return tcp_child_process(lsk, child, seg)


def tcp_child_process(lsk: TcpSock, child: TcpSock, seg: Segment) -> DropReason | None:
    """Give a new child the segment that made it, and wake who accepts (tcp_child_process)."""
    reason = tcp_v4_do_rcv(child, seg)
    lsk.sk_data_ready()
    return reason


def tcp_v4_do_rcv(sk: TcpSock, seg: Segment) -> DropReason | None:
    """Hand a segment to its connection (tcp_v4_do_rcv)."""
    tcp_segs_in(sk, seg)
    if sk.tp.state == TCP_ESTABLISHED:
        return tcp_rcv_established(sk, seg)
    return tcp_rcv_state_process(sk, seg)


def tcp_segs_in(sk: TcpSock, seg: Segment) -> None:
    """Count what has come, a super-frame as the segments that it is made of (tcp_segs_in)."""
    tp = sk.tp
    length = len(seg.payload)
    gso_size = seg.skb.gso_size if length and seg.skb is not None else 0
    segs = -(-length // gso_size) if gso_size else 1
    tp.segs_in = tp.segs_in + segs & SEQ_MASK
    if length:
        tp.data_segs_in = tp.data_segs_in + segs & SEQ_MASK


def tcp_rcv_listen(lsk: TcpSock, seg: Segment, isn: int) -> DropReason | None:
    """A segment for a listener (RFC 9293 §3.10.7.2), its checks in the RFC's order."""
    # First, check for a RST.
    if seg.flags & RST:
        return DropReason.TCP_RESET
    # Second, check for an ACK: nothing was sent that it could acknowledge, but for a cookie.
    if seg.flags & ACK:
        child = cookie_v4_check(lsk, seg)
        if isinstance(child, DropReason):
            return child
        if child is not None:
            return tcp_child_process(lsk, child, seg)
        tcp_v4_send_reset(lsk.prot, lsk, seg)
        return DropReason.TCP_FLAGS
    # Third, check for a SYN.
    if not seg.flags & SYN:
        return DropReason.TCP_LISTEN_NOT_SYN
    if seg.flags & FIN:
        return DropReason.TCP_FLAGS
    return tcp_conn_request(lsk, seg, isn)


def tcp_v4_err(
    prot: TcpProt,
    icmp_type: int,
    code: int,
    info: int,
    saddr: int,
    daddr: int,
    payload: bytes | memoryview,
) -> None:
    """Take an ICMP error about a segment that we sent (tcp_v4_err, RFC 5927 §4).

    Args:
        info: the next hop's MTU of a fragmentation-needed, else 0.
        saddr: source of the embedded packet, an address of ours.
        payload: at least its first eight transport bytes: ports and sequence number.
    """
    sport = int.from_bytes(payload[0:2], "big")
    dport = int.from_bytes(payload[2:4], "big")
    seq = int.from_bytes(payload[4:8], "big")
    key = (saddr, sport, daddr, dport)
    sk = prot.ehash.get(key)
    if sk is None:
        if icmp_type != ICMP_DEST_UNREACH or code in (ICMP_NET_UNREACH, ICMP_HOST_UNREACH):
            _err_for_request(prot, key, seq)
        return
    tp = sk.tp
    if before(seq, tp.snd_una) or after(seq, tp.snd_nxt):
        return  # not about anything in flight: a guess
    if icmp_type == ICMP_DEST_UNREACH and code == ICMP_FRAG_NEEDED:
        tcp_v4_mtu_reduced(sk, info)
        return
    if icmp_type == ICMP_DEST_UNREACH:
        err, _ = ICMP_ERR_CONVERT.get(code, (errno.EHOSTUNREACH, False))
    elif icmp_type == ICMP_TIME_EXCEEDED:
        err = errno.EHOSTUNREACH
    elif icmp_type == ICMP_PARAMETERPROB:
        err = errno.EPROTO
    else:
        return
    if tp.state in (TCP_SYN_SENT, TCP_SYN_RECV):
        tcp_done_with_error(sk, err)
    else:
        sk.sk_err_soft = err
        tp.slow |= lib.US_TCP_SLOW_ERR


def _err_for_request(prot: TcpProt, key: tuple[int, int, int, int], seq: int) -> None:
    request = prot.reqsk_hash.get(key)
    if request is None:
        lsk = inet_lookup_listener(prot, key)
        request = lsk.listen.syn_queue.get(key) if lsk is not None and lsk.listen else None
    if request is not None and request.req.snt_isn == seq:
        prot.mib_ext.ListenDrops += 1
        reqsk_drop(request)


def tcp_v4_mtu_reduced(sk: TcpSock, mtu: int) -> None:
    """Fit segments to a smaller path MTU and repeat what did not fit (RFC 1191 §6.4)."""
    tp = sk.tp
    if not ip_dont_fragment(sk):
        return
    if tp.state == TCP_LISTEN or mtu < 68 or mtu - 40 >= tp.pmtu_mss:
        return
    tcp_sync_mss(sk, ip_rt_update_pmtu(sk.prot.ip, tp.daddr, mtu))
    if tp.snd_una != tp.snd_nxt and not tcp_syn_is_unacked(sk):
        tcp_simple_retransmit(sk)
