"""Which UDP socket a datagram is for, and which ports are free (struct udp_table).

Sockets hang in chains by their local address and port, the newest first. Of a chain the
socket that says most about the datagram has it (``compute_score``): one connected to its
sender before one that is not, one bound to our address before one bound to any. Sockets
that share by SO_REUSEPORT take turns by the hash of the flow.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ustack.lib.socket_error import socket_error
from ustack.native.siphash import siphash_2u64

if TYPE_CHECKING:
    from ustack.config import TcpConfig
    from ustack.core.net import Rng
    from ustack.udp.sock import UdpSock

NO_MATCH = -1


class UdpTable:
    """The bound UDP sockets of one stack."""

    def __init__(self, rng: Rng) -> None:
        self._rng = rng
        self._secret = b""
        """The key of the flows' hashes, drawn when a group first needs one."""
        self._by_address: dict[tuple[int, int], list[UdpSock]] = {}
        """(rcv_saddr, port) -> chain (hash2)."""
        self._by_port: dict[int, list[UdpSock]] = {}

    def __iter__(self) -> Iterator[UdpSock]:
        for chain in self._by_port.values():
            yield from chain

    def __len__(self) -> int:
        return sum(len(chain) for chain in self._by_port.values())

    def insert(self, sk: UdpSock) -> None:
        """Make a socket with a port findable (udp_lib_get_port's end)."""
        self._by_port.setdefault(sk.sport, []).insert(0, sk)
        self._by_address.setdefault((sk.rcv_saddr, sk.sport), []).insert(0, sk)

    def remove(self, sk: UdpSock) -> None:
        """Take a socket out (udp_lib_unhash)."""
        _drop(self._by_port, sk.sport, sk)
        _drop(self._by_address, (sk.rcv_saddr, sk.sport), sk)

    def move(self, sk: UdpSock, rcv_saddr: int) -> None:
        """Find a socket under another address from now on (udp_lib_rehash)."""
        _drop(self._by_address, (sk.rcv_saddr, sk.sport), sk)
        sk.rcv_saddr = rcv_saddr
        self._by_address.setdefault((rcv_saddr, sk.sport), []).insert(0, sk)

    def lookup(self, saddr: int, sport: int, daddr: int, dport: int) -> UdpSock | None:
        """Find the socket for a datagram from ``saddr`` to us (__udp4_lib_lookup)."""
        for rcv_saddr in (daddr, 0):
            chain = self._by_address.get((rcv_saddr, dport))
            if chain is not None:
                sk = self._best(chain, saddr, sport, daddr, dport)
                if sk is not None:
                    return sk
        return None

    def _best(
        self, chain: list[UdpSock], saddr: int, sport: int, daddr: int, dport: int
    ) -> UdpSock | None:
        """Return the socket of one chain with the highest score (udp4_lib_lookup2)."""
        best, badness = None, NO_MATCH
        for sk in chain:
            score = compute_score(sk, saddr, sport)
            if score > badness:
                best, badness = sk, score
        if best is None or best.connected or not best.reuseport:
            return best
        self._secret = self._secret or self._rng.getrandbits(128).to_bytes(16, "little")
        group = [sk for sk in reversed(chain) if sk.reuseport and not sk.connected]
        digest = siphash_2u64(self._secret, daddr << 32 | saddr, dport << 16 | sport)
        return group[(digest & 0xFFFFFFFF) * len(group) >> 32]

    def lookup_to_many(self, saddr: int, sport: int, daddr: int, dport: int) -> list[UdpSock]:
        """Find every socket for a broadcast or multicast (__udp4_lib_mcast_deliver)."""
        return [
            sk
            for sk in self._by_port.get(dport, ())
            if sk.rcv_saddr in (0, daddr) and compute_score(sk, saddr, sport) != NO_MATCH
        ]

    def udp_lib_get_port(self, sk: UdpSock, port: int, config: TcpConfig) -> None:
        """Give ``sk`` the port, or a random free one if it is 0.

        Raises:
            OSError: EADDRINUSE.
        """
        if port:
            if self._in_use(sk, port):
                raise socket_error(errno.EADDRINUSE)
            sk.sport = port
        else:
            sk.sport = self._find_port(sk, config)
        self.insert(sk)

    def _find_port(self, sk: UdpSock, config: TcpConfig) -> int:
        low, high = config.ip_local_port_range
        span = high - low + 1
        first = self._rng.randrange(span)
        for i in range(span):
            port = low + (first + i) % span
            if port not in config.ip_local_reserved_ports and not self._in_use(sk, port):
                return port
        raise socket_error(errno.EADDRINUSE)

    def _in_use(self, sk: UdpSock, port: int) -> bool:
        """Whether another socket on ``port`` does not let ``sk`` in (udp_lib_lport_inuse)."""
        for other in self._by_port.get(port, ()):
            if other is sk or (sk.reuse and other.reuse):
                continue
            if sk.rcv_saddr != other.rcv_saddr and sk.rcv_saddr and other.rcv_saddr:
                continue
            return not (sk.reuseport and other.reuseport)
        return False


def compute_score(sk: UdpSock, saddr: int, sport: int) -> int:
    """Return how much a socket on the right port and address says about a datagram's sender.

    NO_MATCH: it is connected to somebody else.
    """
    score = 0
    if sk.daddr:
        if sk.daddr != saddr:
            return NO_MATCH
        score += 4
    if sk.dport:
        if sk.dport != sport:
            return NO_MATCH
        score += 4
    return score


def _drop(index: dict[Any, list[UdpSock]], key: Any, sk: UdpSock) -> None:
    chain = index.get(key, [])
    if sk in chain:
        chain.remove(sk)
        if not chain:
            del index[key]
