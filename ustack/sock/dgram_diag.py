"""What ``ss`` shows of a datagram socket (udp_diag, raw_diag)."""

from __future__ import annotations

from typing import Any

from ustack.sock.dgram import DgramSock


def dgram_diag(sk: DgramSock, netid: str) -> dict[str, Any]:
    """Return a socket's record, with the keys of ``tcp_diag``'s."""
    memory = {"r": sk.rmem_alloc, "rb": sk.rcvbuf, "t": 0, "tb": sk.sndbuf, "d": sk.drops}
    return {
        "netid": netid,
        "state": "ESTAB" if sk.connected else "UNCONN",
        "recv_q": sk.rmem_alloc,
        "send_q": 0,
        "local": (sk.rcv_saddr, sk.sport),
        "peer": (sk.daddr, sk.dport),
        "timer": None,
        "skmem": memory,
    }
