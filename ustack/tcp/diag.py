"""What ``ss`` shows of TCP: one record per socket, request and mini-socket (inet_diag)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ustack.lib.seqnum import SEQ_MASK, seq_diff
from ustack.native.lib import lib
from ustack.tcp.ecn import TCP_ECN_OK, TCP_ECN_SEEN
from ustack.tcp.fastopen import TFO_SYN_DATA_ACKED
from ustack.tcp.mem import sk_mem_held
from ustack.tcp.scoreboard import tcp_reordering
from ustack.tcp.sock import (
    ICSK_TIME_EARLY_RETRANS,
    ICSK_TIME_LOSS_PROBE,
    ICSK_TIME_PROBE0,
    ICSK_TIME_REO_TIMEOUT,
    ICSK_TIME_RETRANS,
)
from ustack.tcp.states import STATE_NAMES, TCP_LISTEN, TCP_SYN_RECV
from ustack.tcp.timer import TCP_DELACK_MAX_US

if TYPE_CHECKING:
    from ustack.tcp.protocol import TcpProt
    from ustack.tcp.request_sock import RequestSock
    from ustack.tcp.sock import TcpSock
    from ustack.tcp.twhash import TimewaitSock


ON_TIMERS = (
    ICSK_TIME_RETRANS,
    ICSK_TIME_EARLY_RETRANS,
    ICSK_TIME_LOSS_PROBE,
    ICSK_TIME_REO_TIMEOUT,
)
"""What ss calls "on"."""
MD5_KEY_BYTES = 128
"""What sock_kmalloc gives for a struct tcp_md5sig_key."""


def tcp_diag(prot: TcpProt) -> Iterator[dict[str, Any]]:
    """Yield every socket of the stack, listeners first.

    Keys: state (as ss prints it), recv_q, send_q (bytes; of a listener: accept queue and its
    limit), local and peer as (address, port), timer ((name, left in us, retries) or None),
    and for a connection what ``ss -i`` prints, under its names or with the unit behind them,
    retrans (in flight, in all), skmem (see ``_skmem``), wscale, options; for a
    listener syn_queue, syn_queue_limit, qlen_young.
    """
    for group in prot.listening_hash.values():
        for lsk in group:
            yield _listener(lsk)
            if lsk.listen is not None:
                for request in lsk.listen.syn_queue.values():
                    yield _request(request)
    for sk in prot.ehash.values():
        yield _connection(sk)
    for tw in prot.twhash.values():
        yield _timewait(tw)


def _listener(lsk: TcpSock) -> dict[str, Any]:
    queues = lsk.listen
    assert queues is not None
    return {
        "state": STATE_NAMES[TCP_LISTEN],
        "recv_q": queues.ack_backlog(),
        "send_q": queues.max_ack_backlog,
        "local": (lsk.bind_addr, lsk.tp.sport),
        "peer": (0, 0),
        "timer": None,
        "syn_queue": len(queues.syn_queue),
        "syn_queue_limit": queues.syn_queue_limit(),
        "qlen_young": queues.qlen_young,
    }


def _request(request: RequestSock) -> dict[str, Any]:
    req = request.req
    return {
        "state": STATE_NAMES[TCP_SYN_RECV],
        "recv_q": 0,
        "send_q": 0,
        "local": (req.loc_addr, req.loc_port),
        "peer": (req.rmt_addr, req.rmt_port),
        "timer": ("on", max(req.expires_us - request.prot.clock.now_us, 0), req.num_timeout),
    }


def _timewait(tw: TimewaitSock) -> dict[str, Any]:
    rec = tw.tw
    return {
        "state": STATE_NAMES[rec.substate],
        "recv_q": 0,
        "send_q": 0,
        "local": (rec.saddr, rec.sport),
        "peer": (rec.daddr, rec.dport),
        "timer": ("timewait", _left_us(tw.prot, tw.expires_us), 0),
    }


def _connection(sk: TcpSock) -> dict[str, Any]:
    tp = sk.tp
    return {
        "state": STATE_NAMES[tp.state],
        "recv_q": tp.receive_queue.len,
        "send_q": tp.write_seq - tp.snd_una & SEQ_MASK,
        "local": (tp.saddr, tp.sport),
        "peer": (tp.daddr, tp.dport),
        "timer": _timer(sk),
        "orphan": sk.dead,
        "rto_us": tp.rto_us,
        "rtt_us": tp.srtt_us >> 3,
        "rttvar_us": tp.mdev_us >> 2,
        "mss": tp.mss_cache,
        "advmss": tp.advmss,
        "rcvmss": tp.ack_rcv_mss,
        "cwnd": tp.snd_cwnd,
        "ssthresh": tp.snd_ssthresh if tp.snd_ssthresh < 0x7FFFFFFF else None,
        "retrans": (tp.retrans_out, tp.total_retrans),
        "unacked": tp.packets_out,
        "lost": tp.lost_out,
        "sacked": tp.sacked_out,
        "backoff": tp.backoff,
        "ato_us": min(tp.ack_ato_us, TCP_DELACK_MAX_US),
        "pmtu": sk.dst.mtu if sk.dst is not None else 0,
        "min_rtt_us": tp.rtt_min_us,
        "rcv_rtt_us": tp.rcv_rtt_us >> 3,
        "rcv_space": tp.rcvq_space,
        "rcv_ssthresh": tp.rcv_ssthresh,
        "reordering": tcp_reordering(sk),
        "rcv_ooopack": tp.rcv_ooopack,
        "lastsnd_us": sk.prot.clock.now_us - tp.lsndtime_us,
        "lastrcv_us": sk.prot.clock.now_us - tp.ack_lrcvtime_us,
        "lastack_us": sk.prot.clock.now_us - tp.rcv_tstamp_us,
        "pacing_rate": tp.sk_pacing_rate,
        "delivered": tp.delivered,
        "data_segs_out": tp.data_segs_out,
        "data_segs_in": tp.data_segs_in,
        "bytes_retrans": tp.bytes_retrans,
        "bytes_sent": tp.bytes_sent,
        "bytes_acked": tp.bytes_acked,
        "bytes_received": tp.bytes_received,
        "segs_out": tp.segs_out,
        "segs_in": tp.segs_in,
        "snd_wnd": tp.snd_wnd,
        "rcv_wnd": tp.rcv_wnd,
        "notsent": max(seq_diff(tp.write_seq, tp.snd_nxt), 0),
        "wscale": (tp.snd_wscale, tp.rcv_wscale) if tp.wscale_ok else None,
        "ts": bool(tp.tstamp_ok),
        "sack": bool(tp.sack_ok),
        "ecn": bool(tp.ecn_flags & TCP_ECN_OK),
        "ecnseen": bool(tp.ecn_flags & TCP_ECN_SEEN),
        "fastopen": bool(tp.syn_fastopen & TFO_SYN_DATA_ACKED),
        "congestion": sk.ca.name,
        "ca_state": tp.ca_state,
        "ofo_bytes": sk.ofo.nbytes if sk.ofo is not None else 0,
        "skmem": _skmem(sk),
    }


def _skmem(sk: TcpSock) -> dict[str, int]:
    """Return what ``ss -m`` prints (sk_get_meminfo), in bytes.

    r, w: memory of what waits for the reader, of what is not acknowledged; t: what of it the
    device still has; f: room that both queues have beyond that; rb, tb: the limits; o: keys of
    signatures; d: segments dropped. There is no backlog (bl): one thread at a time has the stack.
    """
    tp = sk.tp
    mem = sk.prot.mem.ptr
    read_room, write_room = lib.us_bq_room(mem, sk.rcvq), lib.us_bq_room(mem, sk.sndq)
    return {
        "r": sk_mem_held(sk) - tp.write_queue.truesize - read_room,
        "rb": tp.sk_rcvbuf,
        "t": lib.us_bq_lent(mem, sk.sndq),
        "tb": tp.sk_sndbuf,
        "f": read_room + write_room,
        "w": tp.write_queue.truesize - write_room,
        "o": len(sk.opts.md5_keys) * MD5_KEY_BYTES,
        "bl": 0,
        "d": sk.drops,
    }


def _timer(sk: TcpSock) -> tuple[str, int, int] | None:
    prot = sk.prot
    tp = sk.tp
    if tp.icsk_pending in ON_TIMERS:
        return ("on", _left_us(prot, tp.icsk_timeout_us), tp.retransmits)
    if tp.icsk_pending == ICSK_TIME_PROBE0:
        return ("persist", _left_us(prot, tp.icsk_timeout_us), tp.probes_out)
    if sk.keepalive_timer is not None and sk.keepalive_timer.pending:
        return ("keepalive", _left_us(prot, sk.keepalive_timer.expires_us), tp.probes_out)
    return None


def _left_us(prot: TcpProt, expires_us: int) -> int:
    return max(expires_us - prot.clock.now_us, 0)
