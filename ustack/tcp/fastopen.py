"""TCP Fast Open: data in the SYN for a peer that has shown a cookie before (RFC 7413).

The bits of net.ipv4.tcp_fastopen and the cookies of the server side. A cookie is SipHash over
both addresses with a key that only we know, as in Linux (net/ipv4/tcp_fastopen.c): two hosts
with the same tcp_fastopen_key give the same cookies.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from ustack.native.siphash import siphash

if TYPE_CHECKING:
    from ustack.core.net import Rng

TFO_CLIENT_ENABLE = 0x1
TFO_SERVER_ENABLE = 0x2
TFO_CLIENT_NO_COOKIE = 0x4
"""Send data in the SYN though no cookie is known."""
TFO_SERVER_COOKIE_NOT_REQD = 0x200
"""Accept data in any SYN."""
TFO_SERVER_WO_SOCKOPT1 = 0x400
"""Every listener takes part, its backlog being its Fast Open queue's length."""

TCP_FASTOPEN_COOKIE_SIZE = 8


class FastopenContext:
    """The key of a stack's cookies (struct tcp_fastopen_context)."""

    __slots__ = ("_key", "_rng")

    def __init__(self, text: str, rng: Rng) -> None:
        """Take the key as the sysctl writes it: four hexadecimal words, zeros for a random one."""
        words = [int(word, 16) for word in text.split("-")]
        self._key = struct.pack("<4I", *words) if any(words) else b""
        self._rng = rng

    @property
    def key(self) -> bytes:
        """The key; a random one is drawn when first asked for (tcp_fastopen_init_key_once)."""
        if not self._key:
            self._key = self._rng.getrandbits(128).to_bytes(16, "little")
        return self._key


def tcp_fastopen_cookie_gen(context: FastopenContext, saddr: int, daddr: int) -> bytes:
    """Return the cookie for a client (__tcp_fastopen_cookie_gen_cipher).

    Args:
        saddr: source of the SYN, the client.
        daddr: its destination, an address of ours.
    """
    digest = siphash(context.key, struct.pack(">II", saddr, daddr))
    return struct.pack("<Q", digest)
