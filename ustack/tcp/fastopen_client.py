"""Fast Open, the side that connects: data in the SYN for a peer whose cookie we have.

``tcp_send_syn_data`` sends it, ``tcp_rcv_fastopen_synack`` looks what has become of it (RFC 7413
§4.2.2, §4.2.3, tcp_fastopen.c). Without a cookie the SYN asks for one, and the data goes the
usual way; so it does when the peer does not take it, or when the SYN must be repeated.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from ustack.lib.seqnum import SEQ_MASK
from ustack.lib.socket_error import socket_error
from ustack.native.lib import ffi, lib
from ustack.tcp.data import tcp_queue_rcv
from ustack.tcp.fastopen import (
    TFO_CLIENT_ENABLE,
    TFO_CLIENT_NO_COOKIE,
    TFO_SYN_DATA,
    TFO_SYN_DATA_ACKED,
    TFO_SYN_OPTION,
)
from ustack.tcp.fastopen_blackhole import tcp_fastopen_active_should_disable
from ustack.tcp.scoreboard import tcp_rtx_restart
from ustack.wire.tcp import MAX_OPTIONS_LEN, FastopenOption

if TYPE_CHECKING:
    from ustack.tcp.protocol import TcpProt
    from ustack.tcp.sock import TcpSock
    from ustack.wire.tcp import Segment

TRY_EXP_NEXT, TRY_EXP_NO_MORE = 1, 2


class FastopenRequest:
    """What a connect() with data wants (struct tcp_fastopen_request), until the SYN-ACK."""

    __slots__ = ("copied", "data", "deferred", "option")

    def __init__(self, data: bytes | bytearray | memoryview = b"", *, deferred: bool = False):
        self.data = data
        """What may go with the SYN; the caller's, so only until it has gone."""
        self.deferred = deferred
        """connect() has said yes, but the SYN waits for the first send() (DEFER_CONNECT)."""
        self.copied = 0
        """Bytes that went with the SYN."""
        self.option: FastopenOption | None = None
        """The SYN's option, if it had one."""


def tcp_fastopen_client_enabled(prot: TcpProt) -> bool:
    """Whether net.ipv4.tcp_fastopen lets clients."""
    return bool(prot.config.tcp_fastopen & TFO_CLIENT_ENABLE)


def tcp_fastopen_cookie_check(sk: TcpSock) -> tuple[bool, FastopenOption | None, int]:
    """Return whether data may go with the SYN, the SYN's option, and the peer's MSS or 0."""
    prot = sk.prot
    known = prot.metrics.lookup(sk.tp.saddr, sk.tp.daddr)
    mss = known.fo_mss if known is not None else 0
    if tcp_fastopen_active_should_disable(sk):
        return False, None, mss
    if prot.config.tcp_fastopen & TFO_CLIENT_NO_COOKIE or sk.opts.fastopen_no_cookie:
        return True, None, mss
    if known is None:
        return False, FastopenOption(b""), 0
    if known.cookie.cookie:
        return True, known.cookie, mss
    return False, FastopenOption(b"", known.try_exp == TRY_EXP_NEXT), mss


def tcp_fastopen_defer_connect(sk: TcpSock) -> bool:
    """TCP_FASTOPEN_CONNECT: whether connect() leaves the SYN to the first send().

    Only with a cookie; without, the SYN goes at once and asks for one.
    """
    if not sk.opts.fastopen_connect or sk.fastopen_req is not None:
        return False
    allowed, _, _ = tcp_fastopen_cookie_check(sk)
    sk.fastopen_req = FastopenRequest(deferred=allowed)
    return allowed


def tcp_syn_data(sk: TcpSock, fo: FastopenRequest) -> int:
    """Put what may go with the SYN into the send queue and choose the option; return how much.

    One segment takes the data, with room for 40 bytes of options that others may add.
    """
    tp = sk.tp
    allowed, fo.option, mss = tcp_fastopen_cookie_check(sk)
    if allowed and fo.data:
        space = min(tp.pmtu_mss, mss or tp.advmss, tp.user_mss or 65535) - MAX_OPTIONS_LEN
        n = min(len(fo.data), max(space, 0))
        source = fo.data if type(fo.data) is bytes else ffi.from_buffer(fo.data)
        fo.copied = lib.us_bq_append(sk.prot.mem.ptr, sk.sndq, source, n)
        tp.write_seq = tp.pushed_seq = tp.write_seq + fo.copied & SEQ_MASK
        sk.prot.mib_ext.TCPOrigDataSent += 1 if fo.copied else 0
    fo.data = b""
    tp.syn_fastopen |= TFO_SYN_OPTION if fo.option is not None else 0
    tp.syn_fastopen |= TFO_SYN_DATA if fo.copied else 0
    return fo.copied


def tcp_rcv_fastopen_synack(sk: TcpSock, seg: Segment) -> None:
    """Learn the peer's cookie, and send data again that the SYN-ACK does not acknowledge."""
    tp = sk.tp
    fo, sk.fastopen_req = sk.fastopen_req, None
    if fo is None:
        return
    cookie = seg.fastopen if fo.option is not None else None  # unasked for: ignored
    try_exp = 0
    if fo.option is not None and cookie is None and not fo.copied and not tp.total_retrans:
        try_exp = TRY_EXP_NO_MORE if fo.option.exp else TRY_EXP_NEXT
    untaken = bool(fo.copied) and tp.snd_una != tp.snd_nxt
    syn_drop = untaken and cookie is None and fo.option is not None and tp.total_retrans > 0
    tcp_fastopen_cache_set(sk, cookie, try_exp, syn_drop=syn_drop)
    if untaken:
        sk.prot.mib_ext.TCPFastOpenActiveFail += 1
        tcp_fastopen_resend(sk)
        sk.prot.mib.RetransSegs += 1
        tp.total_retrans += 1
        return
    if fo.copied:
        sk.prot.mib_ext.TCPFastOpenActive += 1
        tp.syn_fastopen |= TFO_SYN_DATA_ACKED
    if fo.option is not None and seg.payload:
        tcp_queue_rcv(sk, seg.payload)
        tp.syn_fastopen |= TFO_SYN_DATA_ACKED


def tcp_fastopen_resend(sk: TcpSock) -> None:
    """Let the SYN's data be unsent again: the peer has not taken it."""
    tp = sk.tp
    tp.snd_nxt = tp.snd_una
    tcp_rtx_restart(sk)


def tcp_fastopen_cache_set(
    sk: TcpSock, cookie: FastopenOption | None, try_exp: int, *, syn_drop: bool
) -> None:
    """Remember what the SYN-ACK said, and whether the SYN before it got lost."""
    prot = sk.prot
    known = prot.metrics.lookup_or_create(sk.tp.saddr, sk.tp.daddr)
    known.fo_mss = sk.tp.rx_opt_mss
    if cookie is not None and cookie.cookie:
        known.cookie = cookie
    elif not known.cookie.cookie:
        known.try_exp = max(known.try_exp, try_exp)
    known.syn_loss = known.syn_loss + 1 if syn_drop else 0
    if syn_drop:
        known.last_syn_loss_us = prot.clock.now_us


def tcp_fastopen_connect_allowed(sk: TcpSock, *, closed: bool, value: int) -> None:
    """Check TCP_FASTOPEN_CONNECT's value.

    Raises:
        OSError: EINVAL, not 0 or 1 or not a new socket; EOPNOTSUPP, switched off.
    """
    if value not in (0, 1):
        raise socket_error(errno.EINVAL)
    if not tcp_fastopen_client_enabled(sk.prot):
        raise socket_error(errno.EOPNOTSUPP)
    if not closed:
        raise socket_error(errno.EINVAL)
