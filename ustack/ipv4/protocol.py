"""IPv4 of one stack: its tables and what hangs below and above it (net/ipv4/af_inet.c).

Packets come in through ``ip_rcv`` (registered here for EtherType 0x0800) and go to the
transport protocols that ``inet_add_protocol`` registered; they go out by ``ip_queue_xmit``.
Addresses and routes are kept by ``devinet.py``, ``fib.py`` and ``route.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

from ustack.core.netdevice import NetDevice
from ustack.core.skb import Skb
from ustack.ipv4 import devinet
from ustack.ipv4.fib import Fib, FibEntry
from ustack.ipv4.icmp import Icmp
from ustack.ipv4.input import ip_addrs, ip_rcv
from ustack.ipv4.pmtu import PmtuCache
from ustack.ipv4.reassembly import IpFrags
from ustack.ipv4.route import InputRoute, Route, forget_routes
from ustack.lib.addresses import Ipv4Interface
from ustack.wire.ethernet import ETH_P_IP
from ustack.wire.icmp import ICMP_DEST_UNREACH, ICMP_HOST_UNREACH
from ustack.wire.ipv4 import IPPROTO_ICMP

if TYPE_CHECKING:
    from ustack.config import IpConfig
    from ustack.core.net import Net
    from ustack.link.arp import Arp

RcvHandler = Callable[[Skb], None]
"""``rcv(skb)``: consumes the packet; offsets are set, ``ip_addrs`` gives its addresses."""
ErrHandler = Callable[[int, int, int, int, int, memoryview], None]
"""``err(icmp_type, code, info, saddr, daddr, payload)``: an ICMP error about a packet of ours.

``info`` is the next-hop MTU or the pointer; ``saddr`` (ours) and ``daddr`` are the embedded
packet's; ``payload`` is its transport header, at least eight bytes of it.
"""


class RawSockets(Protocol):
    """Who has whole packets beside their protocols: raw sockets, once there is one."""

    def raw_local_deliver(self, skb: Skb, protocol: int) -> bool:
        """Hand out copies of a received packet; return whether anybody wanted one."""

    def raw_icmp_error(
        self, protocol: int, icmp_type: int, code: int, info: int, saddr: int, daddr: int,
        payload: memoryview,
    ) -> None:  # fmt: skip
        """Tell of an ICMP error about a packet; as an ``ErrHandler``."""


class Ipv4:
    """IPv4 over the devices of ``net``."""

    def __init__(self, net: Net, arp: Arp) -> None:
        self.net = net
        self.arp = arp
        self.config = net.config.ip
        self.mib = net.mib.ip
        self.mib.DefaultTTL = self.config.ip_default_ttl
        self.ext = net.mib.ip_ext
        self.fib = Fib()
        self.interfaces: dict[NetDevice, list[Ipv4Interface]] = {}
        self.local_addresses: frozenset[int] = frozenset()
        self.routes_out: dict[tuple[int, int], Route] = {}
        """(daddr, saddr) -> route."""
        self.routes_in: dict[tuple[NetDevice, int, int], InputRoute] = {}
        """(device, saddr, daddr) -> verdict, as of ``routes_in_genid``."""
        self.routes_in_genid = 0
        self.pmtu = PmtuCache(net, partial(forget_routes, self))
        self.frags = IpFrags(self)
        self.inet_protos: dict[int, tuple[RcvHandler, ErrHandler | None]] = {}
        self.raw: RawSockets | None = None
        self.icmp = Icmp(self)
        self.inet_add_protocol(IPPROTO_ICMP, self.icmp.icmp_rcv, self.icmp.icmp_err)
        net.dev_add_pack(ETH_P_IP, partial(ip_rcv, self))
        net.netdev_notifiers.append(partial(devinet.netdev_event, self))
        arp.set_inet(self)

    def set_config(self, config: IpConfig) -> None:
        """Let ``config`` hold from now on."""
        self.config = self.icmp.limiter.config = config
        self.mib.DefaultTTL = config.ip_default_ttl

    def inet_add_protocol(self, proto: int, rcv: RcvHandler, err: ErrHandler | None) -> None:
        """Register the transport protocol with IP protocol number ``proto``.

        Raises:
            KeyError: the number is taken; a bug of the composition.
        """
        if proto in self.inet_protos:
            raise KeyError(f"protocol {proto} has a handler")
        self.inet_protos[proto] = (rcv, err)

    def inet_del_protocol(self, proto: int) -> None:
        """Take back what ``inet_add_protocol`` registered.

        Raises:
            KeyError: the number has no handler.
        """
        del self.inet_protos[proto]

    # Addresses and routes; details in devinet.py.

    def add_address(self, dev: NetDevice, interface: Ipv4Interface) -> None:
        """Give ``dev`` an address; see ``devinet.add_address``."""
        devinet.add_address(self, dev, interface)

    def del_address(self, dev: NetDevice, interface: Ipv4Interface) -> None:
        """Take an address from ``dev``; see ``devinet.del_address``."""
        devinet.del_address(self, dev, interface)

    def addresses(self, dev: NetDevice | None = None) -> list[devinet.AddressRecord]:
        """Return what ``ip addr`` shows."""
        return devinet.address_records(self, dev)

    def add_route(
        self, network: int, prefix_len: int, gateway: int = 0, dev: NetDevice | None = None
    ) -> FibEntry:
        """Add a unicast route; see ``devinet.add_route``."""
        return devinet.add_route(self, network, prefix_len, gateway=gateway, dev=dev)

    def add_default_gateway(self, gateway: int) -> FibEntry:
        """Send what no other route matches to ``gateway``; see ``devinet.add_route``."""
        return devinet.add_route(self, 0, 0, gateway=gateway)

    def is_local_address(self, addr: int) -> bool:
        """Whether ``addr`` is ours: an address of any device, or in 127.0.0.0/8."""
        return addr in self.local_addresses or addr >> 24 == 127

    def select_addr(self, dev: NetDevice, dest: int) -> int:
        """Return our address on ``dev`` to talk to ``dest`` with, 0 if there is none."""
        return devinet.select_addr(self, dev, dest)

    # What ARP asks.

    def packet_source(self, skb: Skb) -> int:
        """Return the source address of an IP packet."""
        return ip_addrs(skb)[0]

    def link_failure(self, skb: Skb) -> None:
        """Tell our own socket that its packet's neighbour is not there (ipv4_link_failure)."""
        self.icmp.icmp_send(skb, ICMP_DEST_UNREACH, ICMP_HOST_UNREACH, 0)
