"""The composition root: one ``Stack`` is one host.

It makes every layer, connects them by the handlers they register, and turns the crank:
``poll(now_us)`` moves frames in, runs the softirq and the timers, and returns. Nothing in
here or below draws a random number of its own or, but for ``busy_poll``, reads a clock or
waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, overload

from ustack.config import StackConfig
from ustack.core.files import files_maxfiles_init
from ustack.core.napi import TIMER_SOFTIRQ
from ustack.core.net import Net, PacketHandler, PacketTap, Rng
from ustack.core.softirq import do_softirq
from ustack.driver.igb import IgbAdapter
from ustack.driver.loopback import LoopbackDevice
from ustack.inet.create import SOCK_STREAM, Inet
from ustack.ipv4.protocol import ErrHandler, Ipv4, RcvHandler
from ustack.lib.addresses import INADDR_LOOPBACK, Ipv4Interface
from ustack.lib.clock import StackClock
from ustack.link.arp import Arp
from ustack.native.lib import lib
from ustack.native.mem import Mem, min_free_pages
from ustack.nic.wrapped import earlier
from ustack.tcp.demux import tcp_v4_err, tcp_v4_rcv
from ustack.tcp.fast_rx import TcpFastRx
from ustack.tcp.mem import tcp_init_mem
from ustack.tcp.protocol import TcpProt
from ustack.tcp.retransmit import tcp_tsq_run
from ustack.tcp.sockmap import SockMap
from ustack.tcp.timeout import tcp_run_timers
from ustack.udp.mem import udp_init_mem
from ustack.udp.protocol import UdpProt
from ustack.wire.ethernet import ETH_P_ALL
from ustack.wire.ipv4 import IPPROTO_ICMP, IPPROTO_UDP

if TYPE_CHECKING:
    from ustack.inet.dgram import DgramSocket
    from ustack.inet.sockets import InetSocket
    from ustack.nic.wire import Wire
    from ustack.tcp.cong.ops import CongestionOps

IPPROTO_TCP = 6
TIMER_NEVER: int = lib.US_TIMER_NEVER
TIMERS_PER_POLL = 1024


def init_limits(config: StackConfig) -> StackConfig:
    """Set by the size of the arena what nobody has set."""
    return files_maxfiles_init(udp_init_mem(tcp_init_mem(config)))


class Stack:
    """A host: devices, IPv4, TCP, sockets."""

    def __init__(self, config: StackConfig | None = None, *, rng: Rng, now_us: int = 0) -> None:
        """Make a stack with a loopback device (127.0.0.1/8) that is up.

        Args:
            config: limits and defaults; None for Linux's.
            rng: the only source of randomness, ``random.Random`` or alike.
            now_us: stack time to begin with.
        """
        self.config = init_limits(config or StackConfig())
        self.rng = rng
        self.clock = StackClock(now_us)
        mem = Mem(self.config.core.arena_bytes)
        mem.min_free = min_free_pages(self.config.core.arena_bytes)
        self.net = Net(self.clock, rng, self.config, mem)
        self.arp = Arp(self.net, self.config.ip.neigh)
        self.ip = Ipv4(self.net, self.arp)
        self.tcp = TcpProt(self.net, self.ip)
        self.net.rx_fast = self._rx_fast = TcpFastRx(self.tcp.fast)
        self.deliver_text = self.tcp.inbox.deliver
        """Hands the text that the last poll has brought to those who read it as it comes."""
        self.send_posted = self.tcp.outbox.flush
        """Sends what was posted while ``deliver_text`` runs: calls must not overtake it."""
        self.udp = UdpProt(self.net, self.ip)
        self.ip.inet_add_protocol(
            IPPROTO_TCP, partial(tcp_v4_rcv, self.tcp), partial(tcp_v4_err, self.tcp)
        )
        self.inet = Inet(self.ip, self.tcp, self.udp)
        self.adapters: list[IgbAdapter] = []
        self._timed: list[IgbAdapter] = []
        """Adapters whose wires hold frames back by time."""
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
        if wire.is_timed:
            self._timed.append(dev)
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
        net, fast = self.net, self._rx_fast
        self.clock.now_us = now_us
        fast.timers_idle = False
        moved = 0
        if self._timed:
            for dev in self._timed:
                moved += dev.wire.flush(now_us)
        for dev in self.adapters:
            moved += dev.poll_hw()
        pending = False
        if net.softnet.softirq_pending or len(net.softnets) > 1:
            fast.timers_idle = False
            pending = do_softirq(net)
        fired = net.timers.run(now_us, TIMERS_PER_POLL)
        if not fast.timers_idle:
            fired += tcp_run_timers(self.tcp, TIMERS_PER_POLL)
        if fired:
            net.softnet.softirq_counts[TIMER_SOFTIRQ] += 1
            pending = do_softirq(net) or pending
        if self.tcp.tsq:
            tcp_tsq_run(self.tcp)
            pending = pending or self.net.softirq_pending
        if self.tcp.pressure.since_us:
            self.tcp.pressure.reclaim()
        if self.net.mem.lent:
            self.net.mem.reap_lent()
        if self.net.softirq_frozen:
            return moved > 0
        return pending or moved > 0

    def busy_poll(self, looks: int, wakefd: int) -> bool | None:
        """Look at the only wire up to ``looks`` times, until ``wakefd`` can be read; take a turn.

        The one call that takes its time, for a runtime that would wait otherwise. What comes
        sets the clock. Softirq and timers are left to ``poll``.

        Returns:
            Whether that is to be called at once; None: nothing has come.
        """
        if len(self.adapters) != 1:
            return None
        more = self.adapters[0].busy_wait(looks, wakefd)
        self.net.busy_polled_us = self.clock.now_us
        tcp = self.tcp
        if more is False and (tcp.tsq or tcp.pressure.since_us or self.net.mem.lent):
            return True
        return more

    @property
    def is_pending(self) -> bool:
        """Whether a softirq waits to be run."""
        net = self.net
        if len(net.softnets) == 1 and not net.softnet.softirq_pending:
            return False
        return not net.softirq_frozen and net.softirq_pending

    def next_deadline_us(self) -> int | None:
        """Return when ``poll`` wants to be called: a past time, at once; None, at a frame."""
        net = self.net
        if (net.softnet.softirq_pending or len(net.softnets) > 1) and self.is_pending:
            return 0
        due_us = net.timers.next_us()
        tcp_us: int = lib.us_tcp_next_timer_us(self.tcp.fast.ptr)
        if tcp_us != TIMER_NEVER and (due_us is None or tcp_us < due_us):
            due_us = tcp_us
        for dev in self._timed:
            due_us = earlier(due_us, dev.wire_deadline_us())
        return due_us

    def set_config(self, config: StackConfig) -> None:
        """Let ``config`` hold from now on (sysctl -w); the NICs keep theirs, see ethtool.

        What a socket took over when it was made, its buffer sizes for instance, stays.
        """
        config = init_limits(config)
        self.tcp.set_config(config)
        self.config = self.net.config = config
        self.arp.table.config = config.ip.neigh
        self.ip.set_config(config.ip)

    def filenos(self) -> list[int]:
        """Return the descriptors of wires to watch for reading."""
        return [fd for dev in self.adapters for fd in dev.filenos()]

    @overload
    def socket(self) -> InetSocket: ...

    @overload
    def socket(
        self, type: int, protocol: int = 0, groups: Iterable[int] = ()
    ) -> InetSocket | DgramSocket: ...

    def socket(
        self, type: int = SOCK_STREAM, protocol: int = 0, groups: Iterable[int] = ()
    ) -> InetSocket | DgramSocket:
        """Make a socket of ``type`` and ``protocol``; see ``inet_create``."""
        return self.inet.inet_create(type, protocol, groups)

    def close(self) -> None:
        """Unplug every wire; connections are not told. The stack is not usable afterwards."""
        for dev in self.adapters:
            self.net.dev_close(dev)
            dev.close()
        self.adapters.clear()
        self._timed.clear()

    # What the application brings of its own.

    def register_congestion_control(self, ops: CongestionOps) -> None:
        """Let sockets use ``ops`` by TCP_CONGESTION, or all new ones by sysctl.

        Args:
            ops: an object of a class derived from ``ustack.tcp.cong.ops.CongestionOps``; one
                serves every socket.

        Raises:
            ValueError: its name is empty, 16 letters or longer, or taken.
        """
        registry = self.tcp.congestion
        registry.register(ops)
        tcp = replace(
            self.config.tcp,
            tcp_available_congestion_control=registry.available,
            tcp_allowed_congestion_control=registry.allowed,
        )
        self.set_config(replace(self.config, tcp=tcp))

    def redirect_sockmap(self, on: bool) -> None:
        """Let sockets that are connected over lo hand each other their bytes, or stop it.

        As a BPF sockmap does: what one sends goes into the other's receive queue without TCP's
        output, IP, the loopback device or the softirq. Windows, buffers, order, readiness, FIN
        and reset are as before; Nagle's rule, corks and congestion windows hold nothing back,
        and taps see nothing. ``SockmapRedirects`` and ``SockmapBytes`` count.
        """
        if not on:
            if self.tcp.sockmap is not None:
                self.tcp.sockmap.stop()
        elif self.tcp.sockmap is None:
            self.tcp.sockmap = SockMap(self.tcp)
            self.tcp.fast.update_xmit()

    def register_protocol(
        self, proto: int, handler: RcvHandler, err_handler: ErrHandler | None = None
    ) -> None:
        """Deliver IPv4 packets of protocol number ``proto`` to ``handler`` (inet_add_protocol).

        ``handler(skb)`` is called in the softirq with each packet for one of our addresses, its
        payload beginning at ``skb.data[skb.transport_offset:]``; the packet is its own from then
        on, but the bytes are the receive ring's: what is kept is copied. It must not block and
        should not raise. Until somebody registers, the sender is told "protocol unreachable".

        Args:
            proto: IP protocol number, 0 to 255.
            handler: Takes the packets.
            err_handler: ``(icmp_type, code, info, saddr, daddr, payload)`` of ICMP errors about
                packets that we sent; None: they are ignored.

        Raises:
            ValueError: no such number.
            KeyError: the number has a handler (ICMP, TCP and UDP have ours).
        """
        if not 0 <= proto <= 255:
            raise ValueError(f"IP protocol number from 0 to 255: {proto}")
        self.ip.inet_add_protocol(proto, handler, err_handler)

    def unregister_protocol(self, proto: int) -> None:
        """Undo ``register_protocol`` (inet_del_protocol).

        Raises:
            KeyError: the number has no handler, or one of the stack's own.
        """
        if proto in (IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP):
            raise KeyError(f"protocol {proto} is the stack's own")
        self.ip.inet_del_protocol(proto)

    def dev_add_pack(self, type: int | None, func: PacketHandler | PacketTap) -> None:
        """Receive every frame of an EtherType, or tap all frames (see ``Net.dev_add_pack``).

        With ``type`` None or ETH_P_ALL ``func(skb, dev, outgoing)`` is a tap: it sees each frame
        received, before its protocol does, and each frame sent, after everything, just before
        the driver; it looks and copies (``ustack.core.skb.skb_bytes``), and changes nothing.
        With an EtherType ``func(skb)`` takes received frames; beside a handler that is there
        already (ARP, IPv4) each gets a packet of its own. Both run in the softirq and must not
        block. A stack without taps does not pay for them.

        Raises:
            ValueError: no EtherType: it is below 0x0600 or above 0xffff.
        """
        if type is not None and type != ETH_P_ALL and not 0x0600 <= type <= 0xFFFF:
            raise ValueError(f"not an EtherType: {type:#06x}")
        self.net.dev_add_pack(type, func)

    def dev_remove_pack(self, type: int | None, func: PacketHandler | PacketTap) -> None:
        """Undo ``dev_add_pack``.

        Raises:
            KeyError: ``func`` is not registered for ``type``.
        """
        self.net.dev_remove_pack(type, func)

    def memory_info(self) -> dict[str, Any]:
        """Return each slab cache's figures by name, as /proc/slabinfo has them."""
        return {cache.name: cache.info() for cache in self.tcp.caches}

    def drop_slab(self) -> int:
        """Give every cache's empty slabs back to the buddy; return how many pages those are."""
        return sum(cache.shrink() for cache in self.tcp.caches)
