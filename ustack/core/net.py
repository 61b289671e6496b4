"""One network namespace: its devices, its softirq state, its counters (struct net).

``Stack`` makes one and hands it to every layer. Drivers register devices here, protocols
register the EtherTypes they take (``dev_add_pack``), and captures the taps that see all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from ustack.core.debug import Faults
from ustack.core.netdevice import (
    IFF_LOOPBACK,
    IFF_LOWER_UP,
    IFF_RUNNING,
    IFF_UP,
    NETIF_F_SOFT_FEATURES,
    NetDevice,
)
from ustack.core.qdisc import MqQdisc, Qdisc
from ustack.core.receive import netif_receive_skb
from ustack.core.skb import Skb, skb_clone
from ustack.core.softirq import SoftnetData
from ustack.core.timer import TimerQueue
from ustack.core.transmit import qdisc_purge
from ustack.lib.counters import NetMib
from ustack.lib.drop_reason import DropCounters
from ustack.lib.trace import TracePoint
from ustack.wire.ethernet import ETH_P_ALL

if TYPE_CHECKING:
    from ustack.config import StackConfig
    from ustack.lib.clock import StackClock
    from ustack.native.mem import Mem

PacketHandler = Callable[[Skb], None]
PacketTap = Callable[[Skb, NetDevice, bool], None]
"""``tap(skb, dev, outgoing)``; a tap that keeps the packet copies it (``skb_bytes``)."""


class Rng(Protocol):
    """The randomness that the edge injects."""

    def getrandbits(self, n: int, /) -> int:
        """Return ``n`` random bits."""

    def randrange(self, start: int, /) -> int:
        """Return a number from 0 to ``start`` - 1."""


class RxFast(Protocol):
    """A fast path in C, as the drivers see it."""

    ptr: Any
    """``struct us_tcp_fast *``"""
    timers_idle: bool
    """A driver's turn in C has found that none of its timers is due."""

    @property
    def genid(self) -> int:
        """Generation of the routing table."""

    def rx(self, dev: NetDevice, frames: Any, count: int, /) -> int:
        """Take some of a batch; return how many are left, which then stand in front."""

    def run_events(self) -> None:
        """Do what C has left to do for connections."""


class Net:
    """Everything that belongs to one stack below the protocols."""

    def __init__(self, clock: StackClock, rng: Any, config: StackConfig, mem: Mem) -> None:
        self.clock = clock
        self.rng: Rng = rng
        self.config = config
        self.mem = mem
        self.busy_polled_us = 0
        """When a reader last polled a device itself (NetDevice.ndo_busy_recv)."""
        self._mib = NetMib()
        self.mib_folds: list[Callable[[], None]] = []
        """Each adds to the counters what C has counted since it was last called."""
        self.drops = DropCounters()
        self.timers = TimerQueue()
        self.softirq_frozen = False
        """Held up on purpose (``faults``)."""
        self.faults = Faults(self)
        self.devices: dict[str, NetDevice] = {}
        """By name, in the order of registration."""
        self.loopback_dev: NetDevice | None = None
        self.netdev_notifiers: list[Callable[[NetDevice, bool], None]] = []
        """``notifier(dev, up)`` after a device went up, or before it goes down."""
        self.ptype_base: dict[int, PacketHandler] = {}
        """EtherType -> what takes its frames; ``ptype_specific`` has who registered."""
        self.ptype_specific: dict[int, tuple[PacketHandler, ...]] = {}
        self.ptype_all: tuple[PacketTap, ...] = ()
        self.rx_fast: RxFast | None = None
        """What takes some of the received frames before all else (TCP's)."""
        self.taps_changed: Callable[[], None] | None = None
        """Told when ``ptype_all`` has changed."""
        self.trace_drop = TracePoint("kfree_skb")
        """Fires with (skb, reason) at every drop."""
        self.rps_needed = False
        """Whether some queue of some device spreads its packets over CPUs."""
        self.softnets = [SoftnetData(self, cpu) for cpu in range(max(config.core.nr_cpus, 1))]
        """One for each CPU that the stack pretends to have."""
        self.softnet = self.softnets[0]
        """Of the CPU we are on: do_softirq's while it runs, else CPU 0, as for every call of
        an application."""

    netif_receive_skb = netif_receive_skb

    @property
    def mib(self) -> NetMib:
        """The counters, with what C has counted."""
        for fold in self.mib_folds:
            fold()
        return self._mib

    def register_netdev(self, dev: NetDevice) -> None:
        """Add ``dev`` (down) and give it its ifindex, from 1; GSO and GRO are switched on.

        Raises:
            KeyError: there is a device of this name; the caller chose it.
        """
        if dev.name in self.devices:
            raise KeyError(f"device {dev.name} exists")
        dev.ifindex = len(self.devices) + 1
        dev.features |= NETIF_F_SOFT_FEATURES
        self.devices[dev.name] = dev
        if dev.flags & IFF_LOOPBACK:
            self.loopback_dev = dev

    @property
    def softirq_pending(self) -> bool:
        """Whether any context has a softirq to run."""
        return any([softnet.softirq_pending for softnet in self.softnets])

    def dev_open(self, dev: NetDevice) -> None:
        """Bring ``dev`` up (``ip link set up``); nothing happens if it is."""
        if dev.is_up:
            return
        if dev.qdisc is None and dev.qdisc_name != "noqueue":
            dev.qdisc = MqQdisc(dev) if dev.num_queues > 1 else Qdisc(dev, dev.tx_queue_len)
        dev.ndo_open()
        dev.flags |= IFF_UP | IFF_RUNNING | IFF_LOWER_UP
        for notifier in self.netdev_notifiers:
            notifier(dev, True)

    def dev_close(self, dev: NetDevice) -> None:
        """Bring ``dev`` down; what waits in its queue is dropped."""
        if not dev.is_up:
            return
        for notifier in self.netdev_notifiers:
            notifier(dev, False)
        dev.flags &= ~(IFF_UP | IFF_RUNNING | IFF_LOWER_UP)
        if dev.qdisc is not None:
            for qdisc in dev.qdisc.leaves:
                qdisc_purge(self, qdisc)
        dev.ndo_stop()

    def dev_add_pack(self, ptype: int | None, func: Any) -> None:
        """Register a handler of an EtherType, or a tap (None or ETH_P_ALL).

        Several handlers of one EtherType each get a packet of their own, in order.
        """
        if ptype is None or ptype == ETH_P_ALL:
            self._set_taps((*self.ptype_all, func))
            return
        handlers = self.ptype_specific[ptype] = (*self.ptype_specific.get(ptype, ()), func)
        self.ptype_base[ptype] = self._deliver_to(handlers)

    def dev_remove_pack(self, ptype: int | None, func: Any) -> None:
        """Take back what ``dev_add_pack`` registered.

        Raises:
            KeyError: it did not.
        """
        tap = ptype is None or ptype == ETH_P_ALL
        registered = self.ptype_all if tap else self.ptype_specific.get(ptype or 0, ())
        if func not in registered:
            raise KeyError("no such packet handler")
        index = registered.index(func)
        left = (*registered[:index], *registered[index + 1 :])
        if tap:
            self._set_taps(left)
        elif left:
            self.ptype_specific[ptype or 0] = left
            self.ptype_base[ptype or 0] = self._deliver_to(left)
        else:
            del self.ptype_specific[ptype or 0], self.ptype_base[ptype or 0]

    def _set_taps(self, taps: tuple[PacketTap, ...]) -> None:
        self.ptype_all = taps
        if self.taps_changed is not None:
            self.taps_changed()

    def _deliver_to(self, handlers: tuple[PacketHandler, ...]) -> PacketHandler:
        """Return what netif_receive_skb calls: a lone handler itself (deliver_skb)."""
        *others, last = handlers
        if not others:
            return last

        def deliver_skb(skb: Skb) -> None:
            for handler in others:
                handler(skb_clone(self, skb))
            last(skb)

        return deliver_skb
