"""Options of a UDP socket: its own beside those of every datagram socket (udp_lib_setsockopt)."""

from __future__ import annotations

from typing import Any

from ustack.sock import dgram_options
from ustack.sock.dgram_options import Getters, Setters

SOL_UDP = 17
UDP_CORK = 1


def _set_cork(sk: Any, value: int) -> None:
    """Hold back and join what is sent from now on; 0: send it as one datagram."""
    sk.cork = bool(value)
    if not value:
        sk.push_pending_frames()


SETTERS: Setters = {**dgram_options.SETTERS, (SOL_UDP, UDP_CORK): _set_cork}
GETTERS: Getters = {**dgram_options.GETTERS, (SOL_UDP, UDP_CORK): lambda sk: int(sk.cork)}
