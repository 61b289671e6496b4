"""SYN cookies: answer a SYN without remembering it (net/ipv4/syncookies.c, RFC 4987 §3.6).

The initial sequence number of the SYN-ACK holds a keyed hash of who asked, the minute, and
which of four MSS values; with timestamps their low six bits hold window scale, SACK and ECN.
What the third ACK brings back is enough to make the connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.lib.seqnum import SEQ_MASK
from ustack.native.siphash import siphash

if TYPE_CHECKING:
    from ustack.tcp.listen import ListenQueues
    from ustack.tcp.protocol import TcpProt
    from ustack.tcp.request_sock import RequestSock
    from ustack.wire.tcp import Segment

COOKIEBITS = 24
COOKIEMASK = (1 << COOKIEBITS) - 1
MAX_SYNCOOKIE_AGE = 2
"""Periods for which a cookie is good."""
TCP_SYNCOOKIE_PERIOD_US = 60_000_000
TCP_SYNCOOKIE_VALID_US = MAX_SYNCOOKIE_AGE * TCP_SYNCOOKIE_PERIOD_US
MSSTAB = (536, 1300, 1440, 1460)
"""Linux's msstab: the commonest values, PPPoE's among them."""

TSBITS = 6
TS_OPT_WSCALE_MASK = 0xF
"""As a window scale: none."""
TS_OPT_SACK = 1 << 4
TS_OPT_ECN = 1 << 5


def _cookie_hash(prot: TcpProt, seg: Segment, count: int, which: int) -> int:
    words = (seg.saddr, seg.daddr, seg.sport << 16 | seg.dport, count & SEQ_MASK, which)
    return siphash(prot.syncookie_secret, b"".join(w.to_bytes(4, "little") for w in words))


def _cookie_time(prot: TcpProt) -> int:
    return prot.clock.now_us // TCP_SYNCOOKIE_PERIOD_US


def secure_tcp_syn_cookie(prot: TcpProt, syn: Segment, data: int) -> int:
    """Return the sequence number that remembers ``data`` (24 bits) for the sender of ``syn``."""
    count = _cookie_time(prot)
    low = _cookie_hash(prot, syn, count, 1) + data & COOKIEMASK
    return _cookie_hash(prot, syn, 0, 0) + syn.seq + (count << COOKIEBITS) + low & SEQ_MASK


def check_tcp_syn_cookie(prot: TcpProt, ack: Segment) -> int | None:
    """Return the data of the cookie that ``ack`` acknowledges, any nonsense if it is none.

    Returns:
        None if the cookie is, or seems, too old.
    """
    cookie = ack.ack - 1 - _cookie_hash(prot, ack, 0, 0) - (ack.seq - 1) & SEQ_MASK
    count = _cookie_time(prot)
    age = count - (cookie >> COOKIEBITS) & SEQ_MASK >> COOKIEBITS
    if age >= MAX_SYNCOOKIE_AGE:
        return None
    return cookie - _cookie_hash(prot, ack, count - age, 1) & COOKIEMASK


def cookie_init_sequence(request: RequestSock, syn: Segment) -> int:
    """Return the cookie for a SYN; the request's MSS becomes the one it can hold."""
    prot = request.prot
    queues = request.lsk.listen
    assert queues is not None
    tcp_synq_overflow(queues, prot.clock.now_us)
    prot.mib_ext.SyncookiesSent += 1
    index = max([i for i, mss in enumerate(MSSTAB) if request.req.mss >= mss], default=0)
    request.req.mss = MSSTAB[index]
    return secure_tcp_syn_cookie(prot, syn, index)


def tcp_synq_overflow(queues: ListenQueues, now_us: int) -> None:
    """Note that a cookie goes out."""
    queues.synq_overflow_us = now_us


def tcp_synq_no_recent_overflow(queues: ListenQueues, now_us: int) -> bool:
    """Whether no cookie of this listener can still be good."""
    last_us = queues.synq_overflow_us
    return last_us is None or now_us - last_us > TCP_SYNCOOKIE_VALID_US


def cookie_init_timestamp(request: RequestSock) -> int:
    """Return the timestamp of a cookie's SYN-ACK: now or less, options in its low six bits."""
    req = request.req
    options = req.snd_wscale if req.wscale_ok else TS_OPT_WSCALE_MASK
    options |= TS_OPT_SACK if req.sack_ok else 0
    options |= TS_OPT_ECN if req.ecn_ok else 0
    now = request.prot.tcp_time_stamp()
    stamp = now >> TSBITS << TSBITS | options
    if stamp > now:
        stamp -= 1 << TSBITS
    return stamp & SEQ_MASK


def cookie_timestamp_decode(request: RequestSock, seg: Segment) -> bool:
    """Take the options out of the echoed timestamp.

    Returns:
        False if it names one that is switched off: then it was none of ours.
    """
    if seg.tsval is None:
        return True
    req = request.req
    config = request.prot.config
    if not config.tcp_timestamps:
        return False
    options = seg.tsecr - (request.req.tsoffset if seg.tsecr else 0) & SEQ_MASK
    req.tstamp_ok = 1
    req.ts_recent = seg.tsval
    req.ecn_ok = bool(options & TS_OPT_ECN)
    req.sack_ok = bool(options & TS_OPT_SACK)
    if req.sack_ok and not config.tcp_sack:
        return False
    if options & TS_OPT_WSCALE_MASK == TS_OPT_WSCALE_MASK:
        return True
    req.wscale_ok = 1
    req.snd_wscale = options & TS_OPT_WSCALE_MASK
    return config.tcp_window_scaling
