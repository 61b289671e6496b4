"""TCP_INFO: a connection's figures in the layout of Linux 6.18's ``struct tcp_info``.

``tcp_get_info`` fills what this stack knows. Always 0, because nothing here measures it:
fackets, last_ack_sent (so in Linux), delivery_rate and delivery_rate_app_limited, busy_time,
rwnd_limited and sndbuf_limited, delivered_ce, rehash, fastopen_client_fail, total_rto,
total_rto_recoveries and total_rto_time, everything of AccECN, and of the options USEC_TS and
TFO_CHILD.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from ustack.lib.seqnum import SEQ_MASK, seq_diff
from ustack.tcp.ecn import TCP_ECN_OK, TCP_ECN_SEEN
from ustack.tcp.fastopen import TFO_SYN_DATA_ACKED
from ustack.tcp.pacing import MAX_RATE
from ustack.tcp.scoreboard import tcp_reordering
from ustack.tcp.states import TCP_LISTEN
from ustack.tcp.timer import TCP_DELACK_MAX_US

if TYPE_CHECKING:
    from ustack.tcp.sock import TcpSock

TCPI_OPT_TIMESTAMPS = 1
TCPI_OPT_SACK = 2
TCPI_OPT_WSCALE = 4
TCPI_OPT_ECN = 8
TCPI_OPT_ECN_SEEN = 16
TCPI_OPT_SYN_DATA = 32

NO_RTT = 0xFFFFFFFF
"""tcpi_min_rtt before the first sample (~0U)."""

BYTES = ("state", "ca_state", "retransmits", "probes", "backoff", "options", "wscale", "flags")
"""wscale: snd in the low four bits, rcv in the high; flags: two bit fields that stay 0."""
WORDS = (
    "rto", "ato", "snd_mss", "rcv_mss", "unacked", "sacked", "lost", "retrans", "fackets",
    "last_data_sent", "last_ack_sent", "last_data_recv", "last_ack_recv", "pmtu",
    "rcv_ssthresh", "rtt", "rttvar", "snd_ssthresh", "snd_cwnd", "advmss", "reordering",
    "rcv_rtt", "rcv_space", "total_retrans",
)  # fmt: skip
RATES = ("pacing_rate", "max_pacing_rate", "bytes_acked", "bytes_received")
SEGMENTS = (
    "segs_out", "segs_in", "notsent_bytes", "min_rtt", "data_segs_in", "data_segs_out",
)  # fmt: skip
CHRONO = ("delivery_rate", "busy_time", "rwnd_limited", "sndbuf_limited")
DELIVERED = ("delivered", "delivered_ce")
SENT = ("bytes_sent", "bytes_retrans")
LATER = (
    "dsack_dups", "reord_seen", "rcv_ooopack", "snd_wnd", "rcv_wnd", "rehash",
)  # fmt: skip
RTO = ("total_rto", "total_rto_recoveries", "total_rto_time")
ACCECN = (
    "received_ce", "delivered_e1_bytes", "delivered_e0_bytes", "delivered_ce_bytes",
    "received_e1_bytes", "received_e0_bytes", "received_ce_bytes", "accecn_fail_mode",
    "accecn_opt_seen",
)  # fmt: skip

FIELDS = (
    *BYTES, *WORDS, *RATES, *SEGMENTS, *CHRONO, *DELIVERED, *SENT, *LATER, *RTO, *ACCECN,
)  # fmt: skip
"""The members in their order, without ``tcpi_``."""
LAYOUT = struct.Struct("=8B24I4Q6I4Q2I2Q6I2HI7I2H")
assert LAYOUT.size == 280, "struct tcp_info of Linux 6.18"


def tcp_info(sk: TcpSock, buflen: int = 0) -> int | bytes:
    """Return getsockopt(TCP_INFO): at most ``buflen`` bytes, without it their first int."""
    figures = tcp_get_info(sk)
    packed = LAYOUT.pack(*[figures.get(name, 0) for name in FIELDS])
    return packed[:buflen] if buflen else int(struct.unpack_from("i", packed)[0])


def unpack_tcp_info(packed: bytes) -> dict[str, int]:
    """Return the members by name; what a shorter ``packed`` does not have is 0."""
    return dict(zip(FIELDS, LAYOUT.unpack(packed.ljust(LAYOUT.size, b"\0")), strict=True))


def tcp_get_info(sk: TcpSock) -> dict[str, int]:
    """Return the members that are not always 0 (tcp_get_info).

    A listener has few, and two of them mean something else: unacked is the length of its
    accept queue, sacked the limit of that.
    """
    tp = sk.tp
    max_rate = sk.pacing.max_rate if sk.pacing is not None else MAX_RATE
    figures = {
        "state": tp.state,
        "pacing_rate": min(tp.sk_pacing_rate or MAX_RATE, max_rate),
        "max_pacing_rate": max_rate,
        "reordering": tcp_reordering(sk),
        "snd_cwnd": tp.snd_cwnd,
    }
    if tp.state == TCP_LISTEN:
        assert sk.listen is not None
        figures["unacked"] = sk.listen.ack_backlog()
        figures["sacked"] = sk.listen.max_ack_backlog
        return figures
    return figures | _header(sk) | _in_flight(sk) | _metrics(sk) | _counts(sk)


def _header(sk: TcpSock) -> dict[str, int]:
    tp = sk.tp
    options = TCPI_OPT_TIMESTAMPS if tp.tstamp_ok else 0
    options |= TCPI_OPT_SACK if tp.sack_ok else 0
    options |= TCPI_OPT_WSCALE if tp.wscale_ok else 0
    options |= TCPI_OPT_ECN if tp.ecn_flags & TCP_ECN_OK else 0
    options |= TCPI_OPT_ECN_SEEN if tp.ecn_flags & TCP_ECN_SEEN else 0
    options |= TCPI_OPT_SYN_DATA if tp.syn_fastopen & TFO_SYN_DATA_ACKED else 0
    return {
        "ca_state": tp.ca_state,
        "retransmits": tp.retransmits,
        "probes": tp.probes_out,
        "backoff": tp.backoff,
        "options": options,
        "wscale": tp.snd_wscale | tp.rcv_wscale << 4 if tp.wscale_ok else 0,
    }


def _in_flight(sk: TcpSock) -> dict[str, int]:
    tp = sk.tp
    return {
        "unacked": tp.packets_out,
        "sacked": tp.sacked_out,
        "lost": tp.lost_out,
        "retrans": tp.retrans_out,
        "last_data_sent": _ms_since(sk, tp.lsndtime_us),
        "last_data_recv": _ms_since(sk, tp.ack_lrcvtime_us),
        "last_ack_recv": _ms_since(sk, tp.rcv_tstamp_us),
    }


def _metrics(sk: TcpSock) -> dict[str, int]:
    tp = sk.tp
    return {
        "rto": tp.rto_us,
        "ato": min(tp.ack_ato_us, TCP_DELACK_MAX_US),
        "snd_mss": tp.mss_cache,
        "rcv_mss": tp.ack_rcv_mss,
        "pmtu": sk.dst.mtu if sk.dst is not None else 0,
        "rcv_ssthresh": tp.rcv_ssthresh,
        "rtt": tp.srtt_us >> 3,
        "rttvar": tp.mdev_us >> 2,
        "snd_ssthresh": tp.snd_ssthresh,
        "advmss": tp.advmss,
        "rcv_rtt": tp.rcv_rtt_us >> 3,
        "rcv_space": tp.rcvq_space,
        "min_rtt": tp.rtt_min_us or NO_RTT,
        "snd_wnd": tp.snd_wnd,
        "rcv_wnd": tp.rcv_wnd,
    }


def _counts(sk: TcpSock) -> dict[str, int]:
    tp = sk.tp
    recovery = sk.recovery
    return {
        "total_retrans": tp.total_retrans,
        "bytes_acked": tp.bytes_acked,
        "bytes_received": tp.bytes_received,
        "segs_out": tp.segs_out & SEQ_MASK,
        "segs_in": tp.segs_in & SEQ_MASK,
        "data_segs_in": tp.data_segs_in & SEQ_MASK,
        "data_segs_out": tp.data_segs_out & SEQ_MASK,
        "notsent_bytes": max(seq_diff(tp.write_seq, tp.snd_nxt), 0) if tp.iss else 0,
        "delivered": tp.delivered,
        "bytes_sent": tp.bytes_sent,
        "bytes_retrans": tp.bytes_retrans,
        "dsack_dups": recovery.dsack_dups if recovery is not None else 0,
        "reord_seen": recovery.reord_seen if recovery is not None else 0,
        "rcv_ooopack": tp.rcv_ooopack,
    }


def _ms_since(sk: TcpSock, stamp_us: int) -> int:
    return (sk.prot.clock.now_us - stamp_us) // 1000 & SEQ_MASK
