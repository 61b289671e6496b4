"""Active open: connect(), the SYN, and the answer to it (RFC 9293 §3.10.1, §3.10.7.3).

``tcp_v4_connect`` chooses address, port and ISS and sends the SYN;
``tcp_rcv_synsent_state_process`` takes what comes back, a simultaneous open included.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from ustack.ipv4.fib import RTN_BROADCAST, RTN_MULTICAST
from ustack.ipv4.route import ip_route_output
from ustack.lib.addresses import INADDR_LOOPBACK
from ustack.lib.drop_reason import DropReason
from ustack.lib.seqnum import SEQ_MASK, after, before, seq_add, seq_diff
from ustack.lib.socket_error import socket_error
from ustack.tcp.ack import tcp_ack_of_syn
from ustack.tcp.child import tcp_init_transfer
from ustack.tcp.close import tcp_reset
from ustack.tcp.data import tcp_enter_quickack_mode
from ustack.tcp.delack import inet_csk_in_pingpong_mode, tcp_arm_delack
from ustack.tcp.ecn import TCP_ECN_OK, tcp_ecn_rcv_syn, tcp_ecn_rcv_synack, tcp_ecn_send_syn
from ustack.tcp.fastopen_client import (
    tcp_fastopen_defer_connect,
    tcp_rcv_fastopen_synack,
    tcp_syn_data,
)
from ustack.tcp.hash_connect import inet_hash_connect
from ustack.tcp.mtu_probe import tcp_mtup_init
from ustack.tcp.output import tcp_push_pending_frames
from ustack.tcp.rtt import TCP_TIMEOUT_INIT_US
from ustack.tcp.scoreboard import tcp_rtx_is_ambiguous, tcp_rtx_push, tcp_rtx_restart
from ustack.tcp.states import TCP_SYN_SENT, TcpEvent
from ustack.tcp.timer import (
    ICSK_ACK_SCHED,
    ICSK_ACK_TIMER,
    TCP_DELACK_MAX_US,
    tcp_arm_retransmit,
    tcp_clear_retransmit,
)
from ustack.tcp.transmit import (
    tcp_md5_key,
    tcp_send_ack,
    tcp_transmit_skb,
    tcp_v4_send_reset,
)
from ustack.tcp.tw_recycle import tcp_fetch_timewait_stamp, tcp_recycles
from ustack.tcp.window import tcp_initial_clamp, tcp_select_initial_window
from ustack.wire.tcp import ACK, ECE, IPV4_TCP_HEADERS, RST, SYN, syn_options

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock
    from ustack.wire.tcp import FastopenOption, Segment

TCP_TIMEOUT_MIN_US = 8_000
"""Two ticks at HZ=250: how soon the SYN is repeated after we have reset an answer to another."""


def tcp_v4_connect(sk: TcpSock, daddr: int, dport: int) -> None:
    """Send a SYN to ``daddr:dport`` and go to SYN_SENT.

    Raises:
        OSError: ENETUNREACH, no route or no such kind of address; EINVAL, bound to a loopback
            address and this is none; EADDRNOTAVAIL, no port is free; ENOMEM. The socket stays as
            it was.
    """
    prot = sk.prot
    tp = sk.tp
    if not daddr:
        daddr = INADDR_LOOPBACK  # Linux: connecting to 0.0.0.0 means this host
    if sk.bind_addr >> 24 == INADDR_LOOPBACK >> 24 and not prot.ip.is_local_address(daddr):
        raise socket_error(errno.EINVAL)
    rt = ip_route_output(prot.ip, daddr, sk.bind_addr)
    if rt is None or rt.rt_type in (RTN_BROADCAST, RTN_MULTICAST):
        raise socket_error(errno.ENETUNREACH)
    if tp.ts_recent_stamp_us and tp.daddr != daddr:
        tp.ts_recent = tp.ts_recent_stamp_us = tp.write_seq = 0  # of another connection
    tp.saddr = sk.bind_addr or rt.saddr
    tp.daddr, tp.dport = daddr, dport
    try:
        inet_hash_connect(prot, sk)
    except OSError:
        tp.saddr = tp.daddr = tp.dport = 0
        raise
    sk.set_dst(rt)
    if tcp_recycles(prot):
        tcp_fetch_timewait_stamp(sk)
    tp.inet_id = prot.rng.getrandbits(16)
    tp.iss = tp.write_seq or prot.secure_tcp_seq(tp.saddr, daddr, tp.sport, dport)
    tp.tsoffset = prot.secure_ts_offset(tp.saddr, daddr)
    sk.set_state(TcpEvent.CONNECT)
    if not tcp_fastopen_defer_connect(sk):
        tcp_connect(sk)


def tcp_connect(sk: TcpSock) -> None:
    """Set up the control block for SYN_SENT and send the SYN (tcp_connect)."""
    tp = sk.tp
    prot = sk.prot
    assert sk.dst is not None
    tp.pmtu_mss = sk.dst.mtu - IPV4_TCP_HEADERS
    tcp_mtup_init(sk, tstamps=bool(prot.config.tcp_timestamps))
    tp.advmss = min(sk.dst.mtu - 40, tp.user_mss or 65535)
    window, tp.rcv_wscale = tcp_select_initial_window(
        prot.config, tp.advmss, tp.sk_rcvbuf, tcp_initial_clamp(sk)
    )
    tp.rcv_wnd = tp.rcv_ssthresh = window
    tp.snd_una = tp.snd_nxt = tp.iss
    tp.write_seq = seq_add(tp.iss, 1)
    tp.snd_sml = tp.pushed_seq = tp.cwnd_usage_seq = tp.high_seq = tp.write_seq
    tp.rto_us = TCP_TIMEOUT_INIT_US
    prot.mib.ActiveOpens += 1
    tp.retrans_stamp_us = prot.clock.now_us
    fo = sk.fastopen_req
    if fo is None:
        tcp_send_syn(sk)
    else:
        fo.deferred = False
        tcp_send_syn(sk, tcp_syn_data(sk, fo), fo.option)
    tp.snd_nxt = tp.write_seq
    tcp_rtx_push(sk, tp.iss, tp.snd_nxt, 1, tp.advmss)
    tcp_arm_retransmit(sk, tp.rto_us)


def tcp_send_syn(sk: TcpSock, length: int = 0, fastopen: FastopenOption | None = None) -> None:
    """Send our SYN, or once the peer's has come (simultaneous open) our SYN-ACK.

    Both offer all that is switched on, whatever the peer's SYN had (tcp_syn_options); no
    timestamps beside a signature.

    Args:
        length: bytes of the send queue that go with it, and ``fastopen`` the option that
            lets them: the first time only.
    """
    tp = sk.tp
    config = sk.prot.config
    answering = tp.state != TCP_SYN_SENT
    tstamp = None
    signed = tcp_md5_key(sk) is not None
    if config.tcp_timestamps and not signed:
        tstamp = (sk.prot.tcp_time_stamp() + tp.tsoffset & SEQ_MASK, tp.ts_recent)
    options = syn_options(
        tp.advmss,
        sack_ok=config.tcp_sack,
        tstamp=tstamp,
        wscale=tp.rcv_wscale if config.tcp_window_scaling else None,
        fastopen=fastopen,
        signed=signed,
    )
    if answering:
        flags = SYN | ACK | (ECE if tp.ecn_flags & TCP_ECN_OK else 0)
    else:
        flags = SYN | tcp_ecn_send_syn(sk)
    tcp_transmit_skb(sk, tp.iss, length, flags, options=options)


def tcp_retransmit_syn(sk: TcpSock) -> None:
    """Repeat the SYN or SYN-ACK after its timeout."""
    tp = sk.tp
    tcp_rtx_is_ambiguous(sk)
    tp.total_retrans += 1
    tp.retrans_stamp_us = tp.retrans_stamp_us or sk.prot.clock.now_us
    sk.prot.mib.RetransSegs += 1
    sk.prot.mib_ext.TCPSynRetrans += 1
    tcp_send_syn(sk)


def tcp_rcv_synsent_state_process(sk: TcpSock, seg: Segment) -> DropReason | None:
    """Take a segment in SYN_SENT (RFC 9293 §3.10.7.3), its checks in the RFC's order."""
    tp = sk.tp
    # First, check the ACK bit.
    if seg.flags & ACK:
        reason = _check_ack(sk, seg)
        if reason is not None:
            tcp_v4_send_reset(sk.prot, sk, seg)
            return reason
    # Second, check the RST bit.
    if seg.flags & RST:
        if not seg.flags & ACK:
            return DropReason.TCP_RESET
        tcp_reset(sk)
        return None
    # Third, security: IPv4 without options has none.
    # Fourth, check the SYN bit.
    if not seg.flags & SYN:
        return DropReason.TCP_FLAGS
    if not seg.flags & ACK and _is_old_syn(sk, seg):
        return DropReason.TCP_RFC7323_PAWS
    _take_syn(sk, seg)
    tp.snd_wnd = tp.max_window = seg.window  # a SYN's window is never scaled
    if not seg.flags & ACK:
        tcp_ecn_rcv_syn(sk, seg)
        return _simultaneous_open(sk)
    tcp_ecn_rcv_synack(sk, seg)
    tcp_ack_of_syn(sk, seg)
    tp.bytes_acked += 1  # Linux counts the SYN
    tcp_clear_retransmit(sk)
    tcp_finish_connect(sk)
    tcp_rcv_fastopen_synack(sk, seg)
    if tp.snd_nxt != tp.write_seq:
        tcp_push_pending_frames(sk)
    if tp.last_ack_sent == tp.rcv_nxt:
        return None
    if inet_csk_in_pingpong_mode(sk):
        _wait_for_data_to_carry_the_ack(sk)
    else:
        tcp_send_ack(sk)
    return None


def _check_ack(sk: TcpSock, seg: Segment) -> DropReason | None:
    """Whether the ACK is of our SYN and not of an earlier one; a reset answers it if not.

    After that reset the SYN is repeated soon: what it ends may have stood in its way.
    """
    tp = sk.tp
    prot = sk.prot
    if not after(seg.ack, tp.snd_una) or after(seg.ack, tp.snd_nxt):
        if not tp.retransmits:
            tcp_arm_retransmit(sk, TCP_TIMEOUT_MIN_US)
        return DropReason.TCP_INVALID_ACK_SEQUENCE
    if seg.tsval is None or not seg.tsecr or not prot.config.tcp_timestamps:
        return None
    first = tp.retrans_stamp_us // 1000 + tp.tsoffset & SEQ_MASK
    now = prot.tcp_time_stamp() + tp.tsoffset & SEQ_MASK
    if not before(seg.tsecr, first) and not after(seg.tsecr, now):
        return None
    prot.mib_ext.PAWSActive += 1
    return DropReason.TCP_RFC7323_PAWS


def _is_old_syn(sk: TcpSock, seg: Segment) -> bool:
    """Whether a crossing SYN is older than the connection whose place we took (RFC 6191)."""
    tp = sk.tp
    return bool(
        tp.ts_recent_stamp_us
        and seg.tsval is not None
        and tp.ts_recent
        and seq_diff(tp.ts_recent, seg.tsval) > 0
    )


def _wait_for_data_to_carry_the_ack(sk: TcpSock) -> None:
    """TCP_QUICKACK is off: the request may take the handshake's ACK along."""
    tp = sk.tp
    tcp_enter_quickack_mode(sk)
    tp.ack_pending |= ICSK_ACK_SCHED | ICSK_ACK_TIMER
    tcp_arm_delack(sk, TCP_DELACK_MAX_US)


def _take_syn(sk: TcpSock, seg: Segment) -> None:
    """Take the peer's ISN and options into the control block."""
    tp = sk.tp
    config = sk.prot.config
    tp.irs = seg.seq
    tp.rcv_nxt = tp.rcv_wup = tp.copied_seq = seq_add(seg.seq, 1)
    tp.last_ack_sent = seg.seq
    tp.snd_wl1 = seg.seq
    tp.rx_opt_mss = min(seg.mss or 536, 65535)
    tp.sack_ok = seg.sack_ok and config.tcp_sack
    if seg.tsval is not None and config.tcp_timestamps:
        tp.tstamp_ok = 1
        tp.ts_recent = seg.tsval
        tp.ts_recent_stamp_us = sk.prot.clock.now_us
    if seg.wscale is not None and config.tcp_window_scaling:
        tp.wscale_ok = 1
        tp.snd_wscale = seg.wscale
    elif seg.flags & ACK:
        tp.rcv_wscale = 0
        tp.window_clamp = min(tp.window_clamp, 65535)


def tcp_finish_connect(sk: TcpSock) -> None:
    """SYN_SENT is over: ESTABLISHED, writers may write (tcp_finish_connect)."""
    sk.set_state(TcpEvent.RCV_SYN_ACK)
    if sk.prot.trace_handshake.on:
        sk.prot.trace_handshake(sk, sk.tp.retrans_stamp_us)
    sk.tp.ack_lrcvtime_us = sk.prot.clock.now_us
    tcp_init_transfer(sk)
    sk.sk_state_change()


def _simultaneous_open(sk: TcpSock) -> DropReason | None:
    """Both sides sent a SYN: answer with SYN-ACK (RFC 9293 §3.5, figure 8).

    The SYN's timer goes on, for the SYN-ACK now.
    """
    tp = sk.tp
    sk.set_state(TcpEvent.RCV_SYN)
    if sk.fastopen_req is not None:
        sk.fastopen_req = None
        tp.snd_nxt = seq_add(tp.iss, 1)  # the SYN's data goes the usual way
    tcp_rtx_restart(sk)
    tcp_rtx_push(sk, tp.iss, tp.snd_nxt, 1, tp.advmss)
    tcp_rtx_is_ambiguous(sk)
    tcp_send_syn(sk)
    return None
