"""TCP Fast Open: data in the SYN for a peer that has shown a cookie before (RFC 7413).

The bits of net.ipv4.tcp_fastopen, the cookies of the server side and a listener's account of
connections that run ahead of their handshake. A cookie is SipHash over both addresses with a
key that only we know, as in Linux (net/ipv4/tcp_fastopen.c): two hosts with the same
tcp_fastopen_key give the same cookies.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import TYPE_CHECKING

from ustack.native.siphash import siphash
from ustack.tcp.states import TCP_FIN_WAIT1, TCP_LISTEN, TCP_SYN_RECV

if TYPE_CHECKING:
    from ustack.core.net import Rng
    from ustack.tcp.request_sock import RequestSock
    from ustack.tcp.sock import TcpSock

TFO_CLIENT_ENABLE = 0x1
TFO_SERVER_ENABLE = 0x2
TFO_CLIENT_NO_COOKIE = 0x4
"""Send data in the SYN though no cookie is known."""
TFO_SERVER_COOKIE_NOT_REQD = 0x200
"""Accept data in any SYN."""
TFO_SERVER_WO_SOCKOPT1 = 0x400
"""Every listener takes part, its backlog being its Fast Open queue's length."""

TFO_SYN_OPTION = 0x1
"""tcb.syn_fastopen: our SYN had the option (syn_fastopen)."""
TFO_SYN_CHECK = 0x2
"""It was sent after a pause: if data comes in, the pause was enough (syn_fastopen_ch)."""
TFO_SYN_DATA = 0x4
"""It had data (syn_data)."""
TFO_SYN_DATA_ACKED = 0x8
"""A SYN's or SYN-ACK's data has arrived, ours or the peer's (syn_data_acked)."""

TCP_FASTOPEN_KEY_LENGTH = 16
FASTOPEN_RST_TIME_US = 60_000_000
"""How long a connection that was reset before its handshake was over counts as pending."""


class FastopenContext:
    """The keys of a stack's, or a listener's, cookies (struct tcp_fastopen_context)."""

    __slots__ = ("_keys", "_rng")

    def __init__(self, text: str, rng: Rng) -> None:
        """Take the keys as the sysctl writes them.

        Args:
            text: four hexadecimal words; zeros for a random key. Behind a comma may follow a
                second key, whose cookies are still good but no longer given.
        """
        keys = [[int(word, 16) for word in key.split("-")] for key in text.split(",")]
        self._keys = [struct.pack("<4I", *words) for words in keys] if any(keys[0]) else []
        self._rng = rng

    @property
    def keys(self) -> list[bytes]:
        """One or two keys; a random one is drawn when first asked for."""
        if not self._keys:  # tcp_fastopen_init_key_once
            self._keys = [self._rng.getrandbits(128).to_bytes(16, "little")]
        return self._keys

    def set_keys(self, data: bytes) -> None:
        """Take one or two keys as TCP_FASTOPEN_KEY gives them, 16 bytes each."""
        step = TCP_FASTOPEN_KEY_LENGTH
        self._keys = [data[at : at + step] for at in range(0, len(data), step)]


def tcp_fastopen_cookie_gen(
    context: FastopenContext, saddr: int, daddr: int, key_index: int = 0
) -> bytes:
    """Return the cookie for a client (__tcp_fastopen_cookie_gen_cipher).

    Args:
        saddr: source of the SYN, the client.
        daddr: its destination, an address of ours.
    """
    digest = siphash(context.keys[key_index], struct.pack(">II", saddr, daddr))
    return struct.pack("<Q", digest)


class FastopenQueue:
    """A listener's pending Fast Open connections (struct fastopen_queue)."""

    __slots__ = ("context", "max_qlen", "qlen", "rst_expires_us")

    def __init__(self, max_qlen: int) -> None:
        self.max_qlen = max_qlen
        """TCP_FASTOPEN: connections that may run ahead of their handshake."""
        self.qlen = 0
        self.rst_expires_us: deque[int] = deque()
        """Of those counted though they were reset: until when."""
        self.context: FastopenContext | None = None
        """TCP_FASTOPEN_KEY: keys of this listener alone."""

    def has_room(self, now_us: int) -> bool:
        """Whether one more may be pending; the oldest reset one makes room once it is due."""
        if self.qlen < self.max_qlen:
            return True
        if not self.rst_expires_us or self.rst_expires_us[0] > now_us:
            return False
        self.rst_expires_us.popleft()
        self.qlen -= 1
        return True

    def forget_resets(self) -> None:
        """The listener goes."""
        self.qlen -= len(self.rst_expires_us)
        self.rst_expires_us.clear()


def tcp_fastopen_request(sk: TcpSock) -> RequestSock | None:
    """Return the request of a connection that runs ahead of its handshake (tp->fastopen_rsk)."""
    if sk.tp.state not in (TCP_SYN_RECV, TCP_FIN_WAIT1):
        return None
    return sk.prot.fastopen_rsk.get(sk)


def tcp_passive_fastopen(sk: TcpSock) -> bool:
    """Whether ``sk`` may send and be read though it is in SYN_RECV (tcp_passive_fastopen)."""
    return bool(sk.tp.state == TCP_SYN_RECV and sk in sk.prot.fastopen_rsk)


def reqsk_fastopen_remove(sk: TcpSock, request: RequestSock, *, reset: bool) -> None:
    """The handshake of ``sk`` is over, one way or the other (reqsk_fastopen_remove).

    Args:
        reset: by the peer. If the application has the socket already, it counts as pending for
            another minute: whoever forges SYNs with a cookie that he saw gets the resets of
            his victim counted, and Fast Open stops by itself (RFC 7413 §5.1).
    """
    prot = sk.prot
    del prot.fastopen_rsk[sk]
    lsk = request.lsk
    queue = lsk.listen.fastopen if lsk.listen is not None else None
    accepted = request.sk is None
    prot.request_cache.free(request.req)
    request.req = None
    if queue is None:
        return
    listening = lsk.tp is not None and lsk.tp.state == TCP_LISTEN
    if reset and accepted and listening:
        queue.rst_expires_us.append(prot.clock.now_us + FASTOPEN_RST_TIME_US)
    else:
        queue.qlen -= 1
