"""The composition root: one ``Stack`` is one host.

It makes every layer, connects them by the handlers they register, and turns the crank:
``poll(now_us)`` moves frames in, runs the softirq and the timers, and returns. Nothing in
here or below reads a clock, draws a random number of its own or waits.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ustack.config import StackConfig
from ustack.core.napi import TIMER_SOFTIRQ
from ustack.core.net import Net, Rng
from ustack.core.softirq import do_softirq
from ustack.driver.igb import IgbAdapter
from ustack.driver.loopback import LoopbackDevice
from ustack.inet.sockets import SOCK_STREAM, InetSocket
from ustack.ipv4.protocol import Ipv4
from ustack.lib.addresses import INADDR_LOOPBACK, Ipv4Interface
from ustack.lib.clock import StackClock
from ustack.lib.socket_error import socket_error
from ustack.link.arp import Arp
from ustack.native.mem import Mem
from ustack.tcp.demux import tcp_v4_err, tcp_v4_rcv
from ustack.tcp.output import tcp_tsq_run
from ustack.tcp.protocol import TcpProt
from ustack.udp.protocol import UdpProt

if TYPE_CHECKING:
    from ustack.nic.wire import Wire

IPPROTO_TCP = 6
TIMERS_PER_POLL = 1024


class Stack:
    """A host: devices, IPv4, TCP, sockets."""

    def __init__(self, config: StackConfig | None = None, *, rng: Rng, now_us: int = 0) -> None:
        """Make a stack with a loopback device (127.0.0.1/8) that is up.

        Args:
            config: limits and defaults; None for Linux's.
            rng: the only source of randomness, ``random.Random`` or alike.
            now_us: stack time to begin with.
        """
        self.config = config or StackConfig()
        self.rng = rng
        self.clock = StackClock(now_us)
        self.net = Net(self.clock, rng, self.config, Mem(self.config.core.arena_bytes))
        self.arp = Arp(self.net, self.config.ip.neigh)
        self.ip = Ipv4(self.net, self.arp)
        self.tcp = TcpProt(self.net, self.ip)
        self.udp = UdpProt(self.net, self.ip)
        self.ip.inet_add_protocol(
            IPPROTO_TCP, partial(tcp_v4_rcv, self.tcp), partial(tcp_v4_err, self.tcp)
        )
        self.adapters: list[IgbAdapter] = []
        self.wire_lost: Callable[[OSError], None] | None = None
        """Told, in the middle of ``poll``, that a wire is gone; the runtime's."""
        self.lo = LoopbackDevice(self.net)
        self.net.register_netdev(self.lo)
        self.net.dev_open(self.lo)
        self.ip.add_address(self.lo, Ipv4Interface(INADDR_LOOPBACK, 8))

    def add_igb(
        self,
        wire: Wire,
        name: str = "eth0",
        *,
        mac: bytes | None = None,
        address: Ipv4Interface | None = None,
        gateway: int | None = None,
    ) -> IgbAdapter:
        """Plug an emulated igb NIC into ``wire`` and bring it up.

        Args:
            mac: six bytes; None for a random locally administered address.
            gateway: next hop of the default route.

        Raises:
            OSError: ENETUNREACH, the gateway is on no network of this device.
        """
        if mac is None:
            mac = bytes((0x02, *self.rng.getrandbits(40).to_bytes(5, "big")))
        dev = IgbAdapter(self.net, name, wire, mac, self.config.nic)
        self.net.register_netdev(dev)
        self.net.dev_open(dev)
        dev.wire_lost = self._wire_lost
        self.adapters.append(dev)
        if address is not None:
            self.ip.add_address(dev, address)
        if gateway is not None:
            self.ip.add_default_gateway(gateway)
        return dev

    def _wire_lost(self, error: OSError) -> None:
        if self.wire_lost is not None:
            self.wire_lost(error)

    def set_mtu(self, dev: IgbAdapter, mtu: int) -> None:
        """Change a device's MTU; routes are looked up again (ip link set mtu).

        Raises:
            OSError: EINVAL, the device cannot.
        """
        dev.ndo_change_mtu(mtu)
        self.ip.fib.genid += 1

    def poll(self, now_us: int) -> bool:
        """Do a bounded amount of work: frames in, softirq, timers.

        Returns:
            Whether there is more to do at once.
        """
        self.clock.now_us = now_us
        moved = 0
        for dev in self.adapters:
            moved += dev.poll_hw()
        pending = do_softirq(self.net)
        if self.net.timers.run(now_us, TIMERS_PER_POLL):
            self.net.softnet.softirq_counts[TIMER_SOFTIRQ] += 1
            pending = do_softirq(self.net) or pending
        if self.tcp.tsq:
            tcp_tsq_run(self.tcp)
            pending = pending or self.net.softirq_pending
        return pending or moved > 0

    def next_deadline_us(self) -> int | None:
        """Return when ``poll`` wants to be called: a past time, at once; None, at a frame."""
        for softnet in self.net.softnets:
            if softnet.softirq_pending:
                return 0
        return self.net.timers.next_us()

    def set_config(self, config: StackConfig) -> None:
        """Let ``config`` hold from now on (sysctl -w); the NICs keep theirs, see ethtool.

        What a socket took over when it was made, its buffer sizes for instance, stays.
        """
        self.config = self.net.config = config
        self.arp.table.config = config.ip.neigh
        self.ip.set_config(config.ip)
        self.tcp.config = config.tcp
        self.tcp.somaxconn = config.core.somaxconn

    def filenos(self) -> list[int]:
        """Return the descriptors of wires to watch for reading."""
        return [dev.fileno() for dev in self.adapters if dev.fileno() >= 0]

    def socket(self, type: int = SOCK_STREAM, protocol: int = 0) -> InetSocket:
        """Make an unconnected socket.

        Raises:
            OSError: ESOCKTNOSUPPORT, not a stream; EPROTONOSUPPORT, not TCP; ENOBUFS, the
                arena is full.
        """
        if type != SOCK_STREAM:
            raise socket_error(errno.ESOCKTNOSUPPORT)
        if protocol not in (0, IPPROTO_TCP):
            raise socket_error(errno.EPROTONOSUPPORT)
        try:
            return InetSocket(self.tcp)
        except MemoryError:
            raise socket_error(errno.ENOBUFS) from None

    def close(self) -> None:
        """Unplug every wire; connections are not told. The stack is not usable afterwards."""
        for dev in self.adapters:
            self.net.dev_close(dev)
            dev.close()
        self.adapters.clear()

    def memory_info(self) -> dict[str, Any]:
        """Return each slab cache's figures by name, as /proc/slabinfo has them."""
        caches = (self.tcp.tcp_cache, self.tcp.request_cache, self.tcp.tw_cache)
        return {cache.name: cache.info() for cache in caches}
