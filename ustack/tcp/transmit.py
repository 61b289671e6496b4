"""Put one segment on its way: options, header, pseudo-checksum, down to IP.

``tcp_transmit_skb`` serves a connection; the others answer without one (resets, SYN-ACKs
of a request, ACKs of TIME_WAIT). Payload is not copied: descriptors point into the send
queue. Reference: net/ipv4/tcp_output.c and tcp_ipv4.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.core.skb import CHECKSUM_PARTIAL, Skb, kfree_skb
from ustack.ipv4.output import ip_queue_xmit
from ustack.ipv4.route import ip_route_output, route_is_valid
from ustack.lib.drop_reason import DropReason
from ustack.lib.seqnum import SEQ_MASK, seq_add, seq_diff
from ustack.native.lib import ffi, lib
from ustack.tcp.ecn import ip_dsfield, tcp_ecn_send
from ustack.tcp.ip_header import IpHeader, ip_dont_fragment
from ustack.tcp.md5 import tcp_md5_do_lookup, tcp_md5_is_right, tcp_md5_sign
from ustack.tcp.pacing import tcp_pacing_sent
from ustack.tcp.reuseport import inet_lookup_listener
from ustack.tcp.urgent import tcp_urgent_pointer
from ustack.tcp.window import tcp_select_window
from ustack.wire.tcp import (
    ACK,
    FIN,
    MAX_OPTIONS_LEN,
    MD5SIG_ROOM,
    PSH,
    RST,
    SYN,
    TCP_CSUM_OFFSET,
    TCPOLEN_MD5SIG_ALIGNED,
    TCPOLEN_TSTAMP_ALIGNED,
    URG,
    Segment,
    build_header,
    pseudo_header_sum,
    sack_option,
    tstamp_option,
)

if TYPE_CHECKING:
    from ustack.ipv4.route import Route
    from ustack.tcp.ofo import OutOfOrderQueue
    from ustack.tcp.protocol import TcpProt
    from ustack.tcp.sock import TcpSock

IPPROTO_TCP = 6
ICSK_ACK_SCHED = 1
TCP_ATO_MIN_US = 40_000
INLINE_BYTES = 512
"""Payload up to this size is copied behind the header: cheaper than page references."""
MAX_FRAGS = 64


class TxScratch:
    """Where C writes what a segment's payload is; one per stack."""

    __slots__ = ("acked", "buffer", "frags", "view")

    def __init__(self) -> None:
        self.frags = ffi.new("struct us_frag[]", MAX_FRAGS)
        self.acked = ffi.new("struct us_tx_acked *")
        self.buffer = ffi.new("uint8_t[]", INLINE_BYTES)
        self.view = ffi.buffer(self.buffer)


def tcp_route(sk: TcpSock) -> Route | None:
    """Return the socket's cached route, looked up again if routes have changed."""
    rt = sk.dst
    if rt is None or not route_is_valid(sk.prot.ip, rt):
        tp = sk.tp
        rt = ip_route_output(sk.prot.ip, tp.daddr, tp.saddr)
        sk.set_dst(rt)
    return rt


def tcp_sack_blocks(sk: TcpSock) -> list[tuple[int, int]]:
    """Return the SACK blocks that fit: a duplicate first (RFC 2883 §4), then the newest."""
    if not sk.tp.sack_ok or (sk.ofo is None and sk.duplicate_sack is None):
        return []
    blocks = [sk.duplicate_sack] if sk.duplicate_sack is not None else []
    if sk.ofo is not None:
        blocks += sk.ofo.sacks
    room = MAX_OPTIONS_LEN - TCPOLEN_TSTAMP_ALIGNED * sk.tp.tstamp_ok
    if tcp_md5_key(sk) is not None:
        room -= TCPOLEN_MD5SIG_ALIGNED  # beside timestamps it leaves none
    return blocks[: (room - 4) // 8]


def tcp_md5_key(sk: TcpSock) -> bytes | None:
    """Return the key with which ``sk``'s segments are signed, None: they are not."""
    return tcp_md5_do_lookup(sk, sk.tp.daddr) if sk.opts.md5_keys else None


def tcp_established_options(sk: TcpSock) -> bytes:
    """Build the options of a segment of a synchronised connection."""
    tp = sk.tp
    options = b"" if tcp_md5_key(sk) is None else MD5SIG_ROOM
    if tp.tstamp_ok:
        tsval = sk.prot.clock.now_us // 1000 + tp.tsoffset & SEQ_MASK
        options += tstamp_option(tsval, tp.ts_recent)
    if blocks := tcp_sack_blocks(sk):
        options += sack_option(blocks)
        sk.duplicate_sack = None
    return options


def tcp_options_len(sk: TcpSock) -> int:
    """Return how many bytes ``tcp_established_options`` will take."""
    length = TCPOLEN_TSTAMP_ALIGNED if sk.tp.tstamp_ok else 0
    if tcp_md5_key(sk) is not None:
        length += TCPOLEN_MD5SIG_ALIGNED
    if blocks := tcp_sack_blocks(sk):
        length += 4 + 8 * len(blocks)
    return length


def tcp_transmit_skb(
    sk: TcpSock,
    seq: int,
    length: int,
    flags: int,
    *,
    options: bytes | None = None,
    gso_size: int = 0,
) -> DropReason | None:
    """Send ``length`` bytes of the send queue from ``seq`` on, with ``flags``.

    Args:
        options: those of a SYN; by default the connection's.
        gso_size: payload per segment if this is to be cut by the device, else 0.

    Returns:
        None, or why it went no further than our own output: TCP treats it as lost.
    """
    tp = sk.tp
    prot = sk.prot
    window = tp.rcv_wnd if flags & SYN else tcp_select_window(sk)
    ecn = 0
    if not gso_size or length <= gso_size:
        gso_size = 0
    else:
        flags |= PSH  # so that the other end's GRO hands a super-frame on at once
    if tp.ecn_flags:
        ecn_bits, ecn = tcp_ecn_send(sk, seq, length, flags)
        flags |= ecn_bits
    segs = -(-length // gso_size) if gso_size else 1
    reason = None
    if not (
        options is None
        and prot.fast.puts_headers
        and sk.ofo is None
        and sk.duplicate_sack is None
        and not ecn
        and sk.urg is None
        and prot.fast.transmit(sk, seq, length, flags, window, gso_size)
    ):
        skb = _build_skb(sk, seq, length, flags, window, options)
        if gso_size:
            skb.gso_size, skb.gso_segs = gso_size, segs
        header = IpHeader(tp.tos | ecn, tp.ttl, ip_dont_fragment(sk), tp.inet_id)
        reason = _queue_xmit(prot, skb, tcp_route(sk), tp.saddr, tp.daddr, header)
        tp.inet_id = tp.inet_id + segs & 0xFFFF
    if length:
        tp.bytes_sent += length
        tp.data_segs_out = tp.data_segs_out + segs & SEQ_MASK
        if sk.pacing is not None:
            tcp_pacing_sent(sk, sk.pacing, length)
        tcp_event_data_sent(sk)
    if flags & ACK:
        tcp_event_ack_sent(sk)
    tp.segs_out = tp.segs_out + segs & SEQ_MASK
    if seq == tp.snd_nxt or not (length or flags & (SYN | FIN)):
        prot.mib.OutSegs += segs  # what is repeated counts in RetransSegs only
    return reason


def _build_skb(
    sk: TcpSock, seq: int, length: int, flags: int, window: int, options: bytes | None
) -> Skb:
    tp = sk.tp
    if options is None:
        options = tcp_established_options(sk)
    csum = pseudo_header_sum(tp.saddr, tp.daddr, 20 + len(options) + length)
    ack = tp.rcv_nxt if flags & ACK else 0
    urgent = tcp_urgent_pointer(sk, seq) if sk.urg is not None else 0
    if urgent:
        flags |= URG
    skb = Skb(build_header(tp.sport, tp.dport, seq, ack, flags, window, options, csum, urgent))
    skb.owner = tp.generation
    if length:
        _attach_payload(sk, skb, seq, length)
    key = tcp_md5_key(sk)
    if key is not None:
        tcp_md5_sign(sk.prot, skb, key, tp.saddr, tp.daddr)
    return skb


def _attach_payload(sk: TcpSock, skb: Skb, seq: int, length: int) -> None:
    tp = sk.tp
    offset = seq - tp.snd_una & SEQ_MASK
    scratch = sk.prot.scratch
    mem = sk.prot.mem.ptr
    if length <= INLINE_BYTES:
        got = lib.us_bq_peek(mem, sk.sndq, offset, scratch.buffer, length)
        assert got == length, "the send queue is shorter than SND.NXT says"
        skb.data += scratch.view[:length]
        return
    n = lib.us_bq_frags(mem, sk.sndq, offset, length, scratch.frags, MAX_FRAGS)
    if n == -1:  # in too many pieces, each sent without a copy: copy them now
        linear = ffi.new("uint8_t[]", length)
        lib.us_bq_peek(mem, sk.sndq, offset, linear, length)
        skb.data += ffi.buffer(linear)[:]
        return
    assert n > 0, "the send queue is shorter than SND.NXT says"
    frags = scratch.frags
    skb.frags = [(frags[i].addr, frags[i].len) for i in range(n)]


def _queue_xmit(
    prot: TcpProt,
    skb: Skb,
    rt: Route | None,
    saddr: int,
    daddr: int,
    header: IpHeader,
) -> DropReason | None:
    skb.ip_summed = CHECKSUM_PARTIAL
    skb.csum_offset = TCP_CSUM_OFFSET
    if rt is None:
        prot.net.mib.ip.OutNoRoutes += 1
        kfree_skb(prot.net, skb, DropReason.IP_OUTNOROUTES)
        return DropReason.IP_OUTNOROUTES
    return ip_queue_xmit(
        prot.ip, skb, rt, saddr, daddr, IPPROTO_TCP,
        tos=header.tos, ttl=header.ttl, df=header.df, ident=header.ident,
    )  # fmt: skip


def tcp_event_data_sent(sk: TcpSock) -> None:
    """Note that data leaves: ping-pong mode if it answers what just came in."""
    tp = sk.tp
    now_us = sk.prot.clock.now_us
    tp.lsndtime_us = now_us
    if now_us - tp.ack_lrcvtime_us < tp.ack_ato_us and tp.ack_pingpong < 255:
        tp.ack_pingpong += 1


def tcp_event_ack_sent(sk: TcpSock) -> None:
    """Note that an ACK leaves: nothing is owed any more (tcp_event_ack_sent)."""
    tp = sk.tp
    if sk.ofo is not None and sk.ofo.compressed_ack:
        _end_compression(sk, sk.ofo)
    if tp.ack_quick and tp.ack_pending & ICSK_ACK_SCHED:
        tp.ack_quick -= 1
        if not tp.ack_quick:
            tp.ack_ato_us = TCP_ATO_MIN_US  # leaving quick-ACK mode
    tp.ack_pending = 0
    tp.last_ack_sent = tp.rcv_nxt
    tp.icsk_ack_timeout_us = 0


def _end_compression(sk: TcpSock, ofo: OutOfOrderQueue) -> None:
    """This ACK stands for those that were held back."""
    sk.prot.mib_ext.TCPAckCompressed += ofo.compressed_ack
    ofo.compressed_ack = 0
    if ofo.compressed_ack_timer is not None:
        sk.prot.timers.del_timer(ofo.compressed_ack_timer)


def tcp_send_ack(sk: TcpSock) -> None:
    """Send a pure ACK (tcp_send_ack)."""
    tcp_transmit_skb(sk, tcp_acceptable_seq(sk), 0, ACK)


def tcp_acceptable_seq(sk: TcpSock) -> int:
    """Return SND.NXT, or the end of a window that has shrunk below it (tcp_acceptable_seq).

    A scaled window may have lost less than a unit of its scale.
    """
    tp = sk.tp
    beyond = seq_diff(tp.snd_nxt, tp.snd_una + tp.snd_wnd & SEQ_MASK)
    if beyond <= 0 or (tp.wscale_ok and beyond < 1 << tp.rcv_wscale):
        return int(tp.snd_nxt)
    return int(tp.snd_una + tp.snd_wnd & SEQ_MASK)


def tcp_xmit_probe_skb(sk: TcpSock, *, urgent: bool = False) -> None:
    """Ask for an ACK with an old sequence number (tcp_xmit_probe_skb): a window probe.

    Args:
        urgent: at SND.UNA, to tell of urgent data.
    """
    tcp_transmit_skb(sk, seq_add(sk.tp.snd_una, 0 if urgent else -1), 0, ACK)


def tcp_send_active_reset(sk: TcpSock) -> None:
    """Tell the peer that the connection is gone (tcp_send_active_reset)."""
    sk.prot.mib.OutRsts += 1
    tcp_transmit_skb(sk, tcp_acceptable_seq(sk), 0, ACK | RST)


def tcp_v4_send_reset(prot: TcpProt, sk: TcpSock | None, seg: Segment) -> None:
    """Answer a segment that its connection does not want, or that has none (RFC 9293 §3.10.7.1).

    With ACK set: <SEQ=SEG.ACK><CTL=RST>; without: <SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>.
    A reset is never answered by one, nor is what is signed with who knows which key.

    Args:
        sk: the connection or the listener that it was for: its peer's key signs the reset.
    """
    if seg.flags & RST:
        return
    if sk is not None:
        key = tcp_md5_do_lookup(sk, seg.saddr)
    elif seg.md5sig is not None:
        key = _key_of_a_lost_connection(prot, seg)
        if key is None:
            return
    else:
        key = None
    if seg.flags & ACK:
        seq, ack, flags = seg.ack, 0, RST
    else:
        seq, ack, flags = 0, seg.end_seq, RST | ACK
    prot.mib.OutRsts += 1
    options = b"" if key is None else MD5SIG_ROOM
    tcp_v4_send_bare(prot, seg, seq, ack, flags, 0, options, key)


def _key_of_a_lost_connection(prot: TcpProt, seg: Segment) -> bytes | None:
    """Return the key that signed a segment for nobody, if a listener on the peer's port has it.

    So a router tells its peer of a connection that it no longer knows: both listen on one port.
    """
    lsk = inet_lookup_listener(prot, (seg.daddr, seg.sport, seg.saddr, seg.sport))
    key = tcp_md5_do_lookup(lsk, seg.saddr) if lsk is not None else None
    return key if key is not None and tcp_md5_is_right(seg, key) else None


def tcp_v4_send_bare(
    prot: TcpProt,
    seg: Segment,
    seq: int,
    ack: int,
    flags: int,
    window: int,
    options: bytes,
    key: bytes | None = None,
    ip_header: IpHeader | None = None,
    rt: Route | None = None,
) -> None:
    """Answer ``seg`` on behalf of no full socket (ip_send_unicast_reply).

    Args:
        key: signs the answer, whose options have room for that.
        ip_header: by default the answer has the type of service of what it answers.
        rt: the way back, where it is known and still valid.
    """
    csum = pseudo_header_sum(seg.daddr, seg.saddr, 20 + len(options))
    skb = Skb(build_header(seg.dport, seg.sport, seq, ack, flags, window, options, csum))
    if key is not None:
        tcp_md5_sign(prot, skb, key, seg.daddr, seg.saddr)
    prot.mib.OutSegs += 1
    if rt is None or not route_is_valid(prot.ip, rt):
        rt = ip_route_output(prot.ip, seg.saddr, seg.daddr)
    ip_header = ip_header or IpHeader(tos=ip_dsfield(seg))
    _queue_xmit(prot, skb, rt, seg.daddr, seg.saddr, ip_header)
