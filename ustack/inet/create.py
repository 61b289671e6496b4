"""Which socket socket(2) makes: types, protocols and their errors (inet_create, inetsw)."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ustack.inet import raw
from ustack.inet.dgram import DgramSocket
from ustack.inet.ping import PingProt
from ustack.inet.raw import RawProt
from ustack.inet.sockets import InetSocket
from ustack.lib.socket_error import socket_error
from ustack.sock import dgram_options
from ustack.sock.dgram_diag import dgram_diag
from ustack.udp import options as udp_options
from ustack.wire.ipv4 import IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP

if TYPE_CHECKING:
    from ustack.ipv4.protocol import Ipv4
    from ustack.sock.dgram import DgramSock
    from ustack.tcp.protocol import TcpProt
    from ustack.udp.protocol import UdpProt

SOCK_STREAM = 1
SOCK_DGRAM = 2
SOCK_RAW = 3
SOCK_MAX = 11
IPPROTO_MAX = 256


class Inet:
    """AF_INET of one stack: what its sockets are made of."""

    def __init__(self, ip: Ipv4, tcp: TcpProt, udp: UdpProt) -> None:
        self.ip = ip
        self.tcp = tcp
        self.udp = udp
        self.raw = RawProt(ip.net, ip)
        self.ping = PingProt(ip.net, ip)

    def inet_create(
        self, type: int, protocol: int, groups: Iterable[int] = ()
    ) -> InetSocket | DgramSocket:
        """Make a socket.

        Args:
            type: SOCK_STREAM, SOCK_DGRAM or SOCK_RAW.
            protocol: 0 for the type's own: TCP, UDP; of raw sockets 1 to 255.
            groups: of the application, for ``ping_group_range``.

        Raises:
            OSError: ESOCKTNOSUPPORT, EPROTONOSUPPORT, EINVAL; EACCES, a ping socket and none
                of the groups may have one; ENOBUFS, the arena is full.
        """
        if not 0 <= type < SOCK_MAX or not 0 <= protocol < IPPROTO_MAX:
            raise socket_error(errno.EINVAL)
        if type == SOCK_STREAM and protocol in (0, IPPROTO_TCP):
            try:
                return InetSocket(self.tcp)
            except MemoryError:
                raise socket_error(errno.ENOBUFS) from None
        if type == SOCK_DGRAM and protocol in (0, IPPROTO_UDP):
            return DgramSocket(self.udp.create(), type, udp_options.SETTERS, udp_options.GETTERS)
        if type == SOCK_DGRAM and protocol == IPPROTO_ICMP:
            return self._ping_socket(groups)
        if type == SOCK_RAW and protocol:
            return DgramSocket(self.raw.create(protocol), type, raw.SETTERS, raw.GETTERS)
        if type in (SOCK_STREAM, SOCK_DGRAM, SOCK_RAW):
            raise socket_error(errno.EPROTONOSUPPORT)
        raise socket_error(errno.ESOCKTNOSUPPORT)

    def diag(self, netids: Iterable[str] = ("tcp",)) -> list[dict[str, Any]]:
        """Return what ``ss`` shows of the transports named: raw, udp, tcp."""
        found: list[dict[str, Any]] = []
        for netid in netids:
            if netid == "tcp":
                found += self.tcp.diag()
            else:
                found += [dgram_diag(sk, netid) for sk in self.dgram_socks(netid)]
        return found

    def dgram_socks(self, netid: str) -> list[DgramSock]:
        """Return the sockets of "udp" or "raw" that have a port, lowest port first.

        Raises:
            LookupError: another transport.
        """
        if netid == "udp":
            return sorted(self.udp.table, key=lambda sk: sk.sport)
        if netid == "raw":
            return [sk for protocol in sorted(self.raw.socks) for sk in self.raw.socks[protocol]]
        raise LookupError(f"no such transport: {netid}")

    def inuse(self) -> dict[str, int]:
        """Return how many datagram sockets there are, as sockstat counts them."""
        return {"UDP": len(self.udp.table), "RAW": sum(map(len, self.raw.socks.values()))}

    def _ping_socket(self, groups: Iterable[int]) -> DgramSocket:
        low, high = self.ip.config.ping_group_range
        if not any(low <= group <= high for group in groups):
            raise socket_error(errno.EACCES)
        return DgramSocket(
            self.ping.create(), SOCK_DGRAM, dgram_options.SETTERS, dgram_options.GETTERS
        )
