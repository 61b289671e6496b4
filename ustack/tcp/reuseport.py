"""Several listeners on one address and port: SO_REUSEPORT (net/core/sock_reuseport.c).

``listening_hash`` holds, for each address and port, the listeners there: one, or a group whose
members all asked for SO_REUSEPORT. A keyed hash of the four-tuple picks the member, so that a
flow's SYN and third ACK meet the same one while the group stays as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.native.siphash import siphash_2u64

if TYPE_CHECKING:
    from ustack.tcp.protocol import FlowKey, TcpProt
    from ustack.tcp.sock import TcpSock


def inet_hash(sk: TcpSock) -> None:
    """Make a listener findable (__inet_hash); a further one joins the group."""
    sk.prot.listening_hash.setdefault((sk.bind_addr, sk.tp.sport), []).append(sk)


def inet_unhash(sk: TcpSock) -> None:
    """Take a listener away (reuseport_detach_sock): the group's last one gets its place."""
    key = (sk.bind_addr, sk.tp.sport)
    group = sk.prot.listening_hash.get(key, [])
    if sk not in group:
        return
    group[group.index(sk)] = group[-1]
    group.pop()
    if not group:
        del sk.prot.listening_hash[key]


def inet_lookup_listener(prot: TcpProt, key: FlowKey) -> TcpSock | None:
    """Find the listener for a segment (__inet_lookup_listener): the exact address first.

    Args:
        key: own address and port, the peer's address and port.
    """
    group = inet_listener_group(prot, key[0], key[1])
    if not group:
        return None
    return group[0] if len(group) == 1 else reuseport_select_sock(prot, group, key)


def inet_listener_group(prot: TcpProt, addr: int, port: int) -> list[TcpSock]:
    """Return who listens at ``addr`` and ``port``: several share it by SO_REUSEPORT."""
    table = prot.listening_hash
    return table.get((addr, port)) or table.get((0, port)) or []


def reuseport_select_sock(prot: TcpProt, group: list[TcpSock], key: FlowKey) -> TcpSock:
    """Choose a flow's member of a group: its hash, scaled to their number."""
    digest = siphash_2u64(prot.secret, key[0] << 32 | key[2], 2 << 32 | key[1] << 16 | key[3])
    return group[(digest & 0xFFFFFFFF) * len(group) >> 32]
