"""What ``ss`` shows of a datagram socket (udp_diag, raw_diag)."""

from __future__ import annotations

from typing import Any

from ustack.sock.dgram import DgramSock, sk_rmem_alloc_get


def dgram_diag(sk: DgramSock, netid: str) -> dict[str, Any]:
    """Return a socket's record, with the keys of ``tcp_diag``'s."""
    rmem = sk_rmem_alloc_get(sk)
    memory = {"r": rmem, "rb": sk.rcvbuf, "t": 0, "tb": sk.sndbuf, "d": sk.drops}
    return {
        "netid": netid,
        "state": "ESTAB" if sk.connected else "UNCONN",
        "recv_q": rmem,
        "send_q": 0,
        "local": (sk.rcv_saddr, sk.sport),
        "peer": (sk.daddr, sk.dport),
        "timer": None,
        "skmem": memory,
    }
