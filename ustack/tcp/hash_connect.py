"""The local port of a connect() without bind() (net/ipv4/inet_hashtables.c).

``inet_hash_connect`` looks at one port after another until the four-tuple is free; what it
costs when ports are scarce is counted in ConnectPortProbes. A TIME_WAIT in the way may be
replaced where its timestamps tell old segments from new (RFC 6191, tcp_tw_reuse).
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ustack.config import LINUX_310
from ustack.lib.seqnum import SEQ_MASK
from ustack.lib.socket_error import socket_error
from ustack.native.siphash import siphash_2u64
from ustack.tcp.ports import bind_bucket_share, inet_sk_local_port_range
from ustack.tcp.states import TCP_FIN_WAIT2

if TYPE_CHECKING:
    from ustack.tcp.protocol import TcpProt
    from ustack.tcp.sock import TcpSock
    from ustack.tcp.twhash import TimewaitSock

TABLE_PERTURB_SIZE = 1 << 16
"""Destinations that have a counter of their own (INET_TABLE_PERTURB_SIZE)."""
LOOPBACK_NET = 127
REUSE_NEVER, REUSE_LOOPBACK = 0, 2
"""Values of tcp_tw_reuse; with 1 any TIME_WAIT will do."""


def inet_hash_connect(prot: TcpProt, sk: TcpSock) -> None:
    """Choose the local port of a connecting socket and put it into the established hash.

    Raises:
        OSError: EADDRNOTAVAIL, the port that bind() gave is taken towards this destination,
            or the range is used up.
    """
    if sk.bind_bucket is not None:
        if not inet_check_established(prot, sk, sk.tp.sport, named=True):
            raise socket_error(errno.EADDRNOTAVAIL)
        _hash(prot, sk)
        return
    digest = siphash_2u64(prot.secret, sk.tp.saddr << 32 | sk.tp.daddr, sk.tp.dport)
    low, high = inet_sk_local_port_range(prot, sk)
    own_range = sk.opts.local_port_range != (0, 0)
    choose = _ports_in_a_row if prot.profile == LINUX_310 else _ports_by_parity
    reserved = prot.config.ip_local_reserved_ports
    bhash = prot.bhash
    probes = 0
    for tried, port in choose(prot, digest, low, high, own_range):
        if port in reserved:
            continue
        probes += 1
        bucket = bhash.get(port)
        if bucket is not None and not (
            bucket.by_connect and inet_check_established(prot, sk, port, named=False)
        ):
            continue
        prot.mib_ustack.ConnectPortProbes += probes
        _move_on(prot, digest, tried, 1 if own_range else 2)
        sk.by_connect = True
        try:
            sk.bind_bucket = bind_bucket_share(prot, sk, sk.tp, port)
        except MemoryError:
            sk.by_connect = False
            raise socket_error(errno.ENOMEM) from None
        sk.tp.sport = port
        _hash(prot, sk)
        return
    prot.mib_ustack.ConnectPortProbes += probes
    raise socket_error(errno.EADDRNOTAVAIL)


def _hash(prot: TcpProt, sk: TcpSock) -> None:
    """Put the socket into the established hash, in the place of a TIME_WAIT if there is one."""
    tw = prot.twhash.get(sk.key)
    if tw is not None:
        prot.mib_ext.TWRecycled += 1
        tw.kill()
    prot.ehash.insert(sk)


def inet_check_established(prot: TcpProt, sk: TcpSock, port: int, *, named: bool) -> bool:
    """Whether the four-tuple with this local port is free (__inet_check_established).

    Args:
        named: bind() has given the port: a TIME_WAIT with timestamps gives way at once.
    """
    tp = sk.tp
    key = (tp.saddr, port, tp.daddr, tp.dport)
    if key in prot.ehash:
        return False
    tw = prot.twhash.get(key)
    return tw is None or tcp_twsk_unique(sk, tw, named=named)


def tcp_twsk_unique(sk: TcpSock, tw: TimewaitSock, *, named: bool) -> bool:
    """Whether ``sk`` may take a TIME_WAIT's place (RFC 6191 §2); it goes on from its numbers."""
    config = sk.prot.config
    rec = tw.tw
    if not rec.tstamp_ok or not (
        named or (_reuse_allowed(config.tcp_tw_reuse, tw) and _old_enough(sk.prot, tw))
    ):
        return False
    tp = sk.tp
    tp.write_seq = rec.snd_nxt + 65535 + 2 & SEQ_MASK or 1
    tp.ts_recent = rec.ts_recent
    tp.ts_recent_stamp_us = rec.ts_recent_stamp_us
    return True


def _reuse_allowed(reuse: int, tw: TimewaitSock) -> bool:
    rec = tw.tw
    if rec.substate == TCP_FIN_WAIT2 or reuse == REUSE_NEVER:
        return False
    if reuse == REUSE_LOOPBACK:
        return LOOPBACK_NET in (rec.saddr >> 24, rec.daddr >> 24)
    return True


def _old_enough(prot: TcpProt, tw: TimewaitSock) -> bool:
    """3.10 wants more than one whole second of the clock, since 6.14 it is a knob."""
    now_us = prot.clock.now_us
    if prot.profile == LINUX_310:
        return now_us // 1_000_000 - tw.tw.ts_recent_stamp_us // 1_000_000 > 1
    return tw.age_us >= prot.config.tcp_tw_reuse_delay_us


def _ports_in_a_row(
    prot: TcpProt, digest: int, low: int, high: int, own_range: bool
) -> Iterator[tuple[int, int]]:
    """3.10: one after the other from a keyed offset on, which moves on with every connection."""
    span = high - low + 1
    offset = prot.port_hint + (digest & SEQ_MASK)
    for i in range(1, span + 1):
        yield i, low + (i + offset) % span


def _ports_by_parity(
    prot: TcpProt, digest: int, low: int, high: int, own_range: bool
) -> Iterator[tuple[int, int]]:
    """Since 4.2 the parity of ``low`` first; since 5.12 a counter for each destination (RFC 6056
    §3.3.4) instead of one for all. A range of the socket's own is gone through port by port."""
    span = high + 1 - low
    step = 1 if own_range else 2
    if step == 2 and span > 1:
        span &= ~1
    offset = (prot.table_perturb.get(digest % TABLE_PERTURB_SIZE, 0) + (digest >> 32)) % span
    starts = (offset,) if step == 1 else (offset & ~1, offset | 1) if span > 1 else (0,)
    for start in starts:
        for i in range(0, span, step):
            yield i, low + (start + i) % span


def _move_on(prot: TcpProt, digest: int, tried: int, step: int) -> None:
    """Let the next connection begin behind this one; by up to eight steps more, at random."""
    if prot.profile == LINUX_310:
        prot.port_hint += tried
        return
    index = digest % TABLE_PERTURB_SIZE
    further = max(tried, prot.rng.randrange(8) * step) + step
    prot.table_perturb[index] = prot.table_perturb.get(index, 0) + further & SEQ_MASK
