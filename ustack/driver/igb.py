"""The igb driver: opens the device, programs it, hands packets to its rings (igb_main.c).

The hardware behind is ``nic.igb.IgbNic``: registers, rings, one interrupt a queue. What an
interrupt sets going is in ``igb_vector``; ``igb_rx`` and ``igb_tx`` hold the two halves of
a poll, ``igb_ethtool`` the figures, ``igb_settings`` what can be changed while it runs.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ustack.core.gro import napi_gro_flush
from ustack.core.napi import Napi
from ustack.core.netdevice import (
    IFF_LOWER_UP,
    IFF_RUNNING,
    NETIF_F_GRO,
    NETIF_F_GSO,
    NETIF_F_IP_CSUM,
    NETIF_F_LRO,
    NETIF_F_RXCSUM,
    NETIF_F_SOFT_FEATURES,
    NETIF_F_TSO,
    NetDevice,
    NetDeviceStats,
)
from ustack.core.steering import netif_set_real_num_queues
from ustack.core.timer import Timer
from ustack.core.transmit import netif_wake_queue, qdisc_purge
from ustack.driver import igb_ethtool, igb_settings
from ustack.driver.igb_poll import (
    igb_busy_wait,
    igb_poll_context,
    igb_recv,
    igb_recv_wait,
    igb_turn,
)
from ustack.driver.igb_rx import IgbRxRing, igb_clean_rx_irq, igb_setup_rctl
from ustack.driver.igb_tx import IgbTxRing, igb_clean_tx_irq, igb_xmit_frame
from ustack.driver.igb_vector import ADAPTIVE_SETTINGS, IgbQVector
from ustack.lib.socket_error import socket_error
from ustack.native.lib import ffi, lib
from ustack.nic.igb import MAX_QUEUES, IgbNic
from ustack.nic.wire import VNET_CSUM, VNET_TSO4, Wire

if TYPE_CHECKING:
    from ustack.config import NicConfig
    from ustack.core.net import Net
    from ustack.core.skb import Skb

URGENT_BYTES = 1024
"""With adaptive moderation a shorter frame interrupts at once: somebody waits for it."""
TX_DELAY_US = 245
"""With adaptive moderation completions alone wait so long for a frame (the bulk class)."""
NOT_IN_C = (None, None)
RSS_KEY_BYTES: int = lib.US_IGB_RSSRK_SIZE
RETA_SIZE: int = lib.US_IGB_RETA_SIZE


class IgbAdapter(NetDevice):
    """One igb interface, down until ``Net.dev_open``.

    Args:
        net: The network namespace it will be registered in; its arena holds the rings.
        name: Interface name.
        wire: What the device is plugged into; ``close`` closes it.
        mac: Six bytes.
        config: Queues, ring sizes, moderation, offloads, pause and MTU.
    """

    qdisc_name = "mq"
    num_queues = MAX_QUEUES

    def __init__(self, net: Net, name: str, wire: Wire, mac: bytes, config: NicConfig) -> None:
        self._stats = NetDeviceStats()
        super().__init__(net, name, mac, config.mtu)
        self.config = config
        """As it is now: replaced by every change."""
        self.wire = wire
        self.nic = IgbNic(net.mem, wire)
        self.nic.irq_held = self._irq_held
        self._itr_timer = Timer(self._itr_expired)
        self.xmit_queues = ffi.new("struct us_xmit_queue[]", MAX_QUEUES)
        """What C sends through, for each transmit queue."""
        self.all_vectors = [IgbQVector(self, 0)]
        """Those that are in use and those that have been."""
        self.q_vectors = self.all_vectors
        self.only_vector: IgbQVector | None = self.all_vectors[0]
        """The vector of a device that has but one."""
        self.rss_indir_tbl = bytes(RETA_SIZE)
        self._rss_key = b""
        self.is_running = False
        self._poll: Any = None
        """The device for C (``struct us_igb_poll *``), while it is up and C can poll it."""
        self.turns = 0
        """What such turns of C's have done that left nothing else to do: to be counted yet."""
        self.wire_lost: Callable[[OSError], None] | None = None
        """Told, in the middle of a poll, that the wire is gone (its TAP was deleted)."""
        self.set_queues(config.queues)
        self.set_features()
        wire.features_changed = self.set_features

    def set_queues(self, queues: int) -> None:
        """Have ``queues`` queue pairs, a vector each, and spread flows evenly; while down.

        Raises:
            ValueError: Not from 1 to 8.
        """
        if not 1 <= queues <= MAX_QUEUES:
            raise ValueError(f"{queues} queues: not from 1 to {MAX_QUEUES}")
        for index in range(len(self.all_vectors), queues):
            self.all_vectors.append(IgbQVector(self, index))
        self.q_vectors = self.all_vectors[:queues]
        self.only_vector = self.q_vectors[0] if queues == 1 else None
        self.rss_indir_tbl = bytes(i * queues // RETA_SIZE for i in range(RETA_SIZE))
        netif_set_real_num_queues(self, queues)
        if self.qdisc is not None:
            for qdisc in self.qdisc.leaves[queues:]:
                qdisc_purge(self.net, qdisc)

    def set_features(self) -> None:
        """Offer the stack what the configuration asks for and the wire can carry."""
        config, wire = self.config, self.wire
        features = NETIF_F_RXCSUM if config.rx_checksum else 0
        if config.rx_checksum and config.large_receive and wire.vnet_hdr:
            features |= NETIF_F_LRO
        if config.tx_checksum and wire.features & VNET_CSUM:
            features |= NETIF_F_IP_CSUM
            if config.tso and wire.features & VNET_TSO4:
                features |= NETIF_F_TSO
        self.features = features | self.features & NETIF_F_SOFT_FEATURES
        self.update_xmit_queues()

    def update_xmit_queues(self) -> None:
        """Tell those who send in C what the device does for them."""
        features = self.features
        for queue in range(MAX_QUEUES):
            self.xmit_queues[queue].index = queue
            self.xmit_queues[queue].txq = self.nic.regs.txq + queue
            self.xmit_queues[queue].nic = self.nic.c_nic_on_descriptor or ffi.NULL
            self.xmit_queues[queue].can_sum = bool(features & NETIF_F_IP_CSUM)
            self.xmit_queues[queue].can_cut = bool(features & NETIF_F_TSO)
            self.xmit_queues[queue].gso = bool(features & NETIF_F_GSO)
        if self._poll is not None:
            self._poll.gro = bool(features & NETIF_F_GRO)

    @property
    def has_large_buffers(self) -> bool:
        """Whether a receive buffer should hold a whole super-frame."""
        return bool(self.features & NETIF_F_LRO)

    @property
    def rss_key(self) -> bytes:
        """The hash's key, drawn when it is first needed (netdev_rss_key_fill)."""
        if not self._rss_key:
            self._rss_key = self.net.rng.getrandbits(8 * RSS_KEY_BYTES).to_bytes(RSS_KEY_BYTES)
        return self._rss_key

    @rss_key.setter
    def rss_key(self, key: bytes) -> None:
        self._rss_key = key

    # Bringing the interface up and down.

    def ndo_open(self) -> None:
        """Allocate the rings, request the interrupts, start the device (igb_open).

        Raises:
            MemoryError: The arena has no room for the rings; the device stays down.
            OSError: The wire is gone.
        """
        self.wire.set_offloads(self.config.rx_checksum, self.has_large_buffers)
        try:
            for vector in self.q_vectors:
                vector.setup_resources()
        except (MemoryError, ValueError):
            self._free_resources()
            raise
        self._poll = igb_poll_context(self, self.net.rx_fast) if not self.config.busy_poll else None
        self.update_xmit_queues()
        regs = self.nic.regs
        regs.RAL = int.from_bytes(self.dev_addr[:4], "little")
        regs.RAH = int.from_bytes(self.dev_addr[4:], "little")
        self.write_moderation()
        for vector in self.q_vectors:
            vector.up()
        self.write_rss()
        regs.TCTL = lib.US_E1000_TCTL_EN
        igb_setup_rctl(self)
        vectors = (1 << len(self.q_vectors)) - 1
        regs.EIAC = regs.EIAM = vectors
        self.is_running = True
        if not self.config.busy_poll:
            self.nic.write_eims(vectors)

    def ndo_stop(self) -> None:
        """Stop the device and give everything back (igb_close)."""
        if not self.is_running:
            return
        self.is_running = False
        self._poll = None
        self.nic.write_eimc((1 << MAX_QUEUES) - 1)
        self.net.timers.del_timer(self._itr_timer)
        self.nic.regs.RCTL = 0
        self.nic.regs.TCTL = 0
        for vector in self.q_vectors:
            vector.down()
        self._free_resources()

    def _free_resources(self) -> None:
        for vector in self.all_vectors:
            vector.free_resources()

    def igb_drain(self) -> None:
        """Finish what lies in the rings before they go: frames are handed up, sent ones counted."""
        for vector in self.q_vectors:
            while vector.rx is not None and igb_clean_rx_irq(vector, vector.napi.weight):
                pass
            napi_gro_flush(vector.napi)
            while vector.tx is not None and not igb_clean_tx_irq(vector):
                pass

    def wake_queue(self) -> None:
        """Let the qdiscs go on after the rings were replaced (netif_tx_wake_all_queues)."""
        for vector in self.q_vectors:
            netif_wake_queue(self, vector.index)

    def moderation_changed(self, vector: IgbQVector) -> None:
        """Tell the turn in C whether moderation follows the load."""
        if self._poll is not None:
            self._poll.is_adaptive = vector.is_adaptive

    def write_moderation(self) -> None:
        """Program what the vectors share: adaptive moderation spares whoever is waiting."""
        regs = self.nic.regs
        adaptive = self.config.rx_usecs in ADAPTIVE_SETTINGS
        regs.TIDV = TX_DELAY_US if adaptive else 0
        regs.IMIREXT[0] = URGENT_BYTES | lib.US_E1000_IMIREXT_CTRL_BP
        regs.IMIREXT[1] = (
            lib.US_E1000_IMIREXT_SIZE_BP
            | lib.US_E1000_IMIREXT_CTRL_PSH
            | lib.US_E1000_IMIREXT_CTRL_URG
            | lib.US_E1000_IMIREXT_CTRL_SYN
            | lib.US_E1000_IMIREXT_CTRL_FIN
            | lib.US_E1000_IMIREXT_CTRL_RST
        )
        regs.IMIR[0] = regs.IMIR[1] = lib.US_E1000_IMIR_PORT_IM_EN if adaptive else 0

    def write_rss(self) -> None:
        """Program hash, key and indirection table (igb_setup_mrqc); one queue needs none."""
        regs = self.nic.regs
        if self.only_vector is not None:
            regs.MRQC = 0
            return
        regs.RSSRK = self.rss_key
        regs.RETA = self.rss_indir_tbl
        regs.MRQC = (
            lib.US_E1000_MRQC_ENABLE_RSS
            | lib.US_E1000_MRQC_RSS_FIELD_IPV4
            | lib.US_E1000_MRQC_RSS_FIELD_IPV4_TCP
        )

    def close(self) -> None:
        """Take the interface down, switch the device off, unplug the wire."""
        self.net.dev_close(self)
        self.ndo_stop()
        self.nic.close()
        self.wire.features_changed = None
        self.wire.close()

    # The path of packets.

    def poll_hw(self) -> int:
        """Let the device do its DMA: frames in, and frames out that the wire refused before.

        Returns:
            Whether there may be more: frames taken off the wire, with busy polling also those
            handed up; a turn in C that has left none there is 0.
        """
        if not self.is_running:
            return 0
        net, taken = self.net, None
        poll, fast = self.turns_in_c()
        if poll is not None:
            taken = igb_turn(self, poll, fast)
        if taken is None:
            taken = self.nic.dma(net.clock.now_us)
        if taken < 0:
            self.lose_wire()
            return 0
        if self.config.busy_poll and not self.net.softirq_frozen:
            taken += self._busy_poll()
        return taken

    busy_wait = igb_busy_wait
    ndo_recv_wait = igb_recv_wait

    def turns_in_c(self) -> tuple[Any, Any]:
        """Return (``struct us_igb_poll *``, ``RxFast``) if C can take a turn now, else None."""
        net = self.net
        if net.softnet.softirq_pending or net.softirq_frozen or self.rps_maps:
            return NOT_IN_C
        return self._poll, net.rx_fast

    def ndo_busy_recv(self, tp: Any, buffer: Any, length: int) -> int:
        """Read a connection's text, and poll the device for more of it, in one call into C."""
        poll, fast = self.turns_in_c()
        if poll is None:
            return 0
        self.net.busy_polled_us = self.net.clock.now_us
        return igb_recv(self, poll, fast, tp, buffer, length)

    def _busy_poll(self) -> int:
        """Clean the rings here and now, no interrupt and no softirq between (napi_busy_loop)."""
        net = self.net
        before, work = net.softnet, 0
        for vector in self.q_vectors:
            net.softnet = net.softnets[vector.napi.cpu]
            work += vector.busy_poll()
        net.softnet = before
        if work:
            net.mib.tcp_ext.BusyPollRxPackets += work
        return work

    def wire_deadline_us(self) -> int | None:
        """Return when a timed wire has something to do; None while nothing could be taken."""
        if not self.is_running or self.rx_full or self.nic.wire_error:
            return None
        return self.wire.next_deadline_us()

    def lose_wire(self) -> None:
        """The wire is gone for good: no carrier any more, and whoever polls is told, once."""
        if not self.flags & IFF_LOWER_UP:
            return
        self.flags &= ~(IFF_LOWER_UP | IFF_RUNNING)
        if self.wire_lost is not None:
            name = getattr(self.wire, "name", "")
            self.wire_lost(OSError(errno.ENETDOWN, f"{self.name}: the wire {name} is gone"))

    def ndo_start_xmit(self, skb: Skb) -> int:
        """Send one frame (igb_xmit_frame)."""
        return igb_xmit_frame(self, skb)

    def ndo_xmit_queue(self, queue: int) -> Any:
        """Return what C may send through (``struct us_xmit_queue *``)."""
        return self.xmit_queues + queue

    def ndo_xmit_flush(self, queue: int) -> None:
        """Ring the doorbell of ``queue`` if C has filled descriptors."""
        self.q_vectors[queue].xmit_flush()

    def ndo_tx_is_above(self, owner: int, limit: int) -> bool:
        """Whether more than ``limit`` bytes of one connection are in its ring unsent."""
        return any([one.tx_is_above(owner, limit) for one in self.q_vectors])

    def ndo_poll_controller(self) -> None:
        """Raise every vector by software, as igb's watchdog does."""
        self.nic.write_eics((1 << len(self.q_vectors)) - 1)

    @property
    def queue_stopped(self) -> bool:
        """Whether transmit descriptors ran short in any queue."""
        if self.only_vector is not None:
            return self.tx_queue_stopped(0)
        return any([one.tx is None or one.tx.ring.stopped for one in self.q_vectors])

    def tx_queue_stopped(self, queue: int) -> bool:
        """Whether transmit descriptors ran short in this queue (netif_tx_queue_stopped)."""
        tx = self.q_vectors[queue].tx
        return tx is None or tx.ring.stopped != 0

    @property
    def rx_full(self) -> bool:
        """Whether some ring has no receive descriptor left: poll the softirq before waiting."""
        return self.is_running and any(
            [vector.rxq.RDH == vector.rxq.RDT for vector in self.q_vectors]
        )

    def fileno(self) -> int:
        """Return the descriptor that is readable when frames wait; -1 if none, down or gone."""
        if not self.is_running or self.nic.wire_error:
            return -1
        return self.wire.fileno()

    def filenos(self) -> list[int]:
        """Return the descriptors to watch, one for each of the wire's queues; as ``fileno``."""
        if not self.is_running or self.nic.wire_error:
            return []
        return self.wire.filenos()

    # Interrupt moderation.

    def _irq_held(self, due_us: int) -> None:
        """An interrupt is held back: the stack must be polled when it is due."""
        self.net.timers.mod_timer(self._itr_timer, due_us)

    def _itr_expired(self, arg: object) -> None:
        del arg
        self.nic.expire_itr(self.net.clock.now_us)

    # Of a device with one queue, and of the first of several.

    @property
    def napi(self) -> Napi:
        """Vector 0's NAPI."""
        return self.q_vectors[0].napi

    @property
    def rx(self) -> IgbRxRing | None:
        """Receive queue 0."""
        return self.q_vectors[0].rx

    @property
    def tx(self) -> IgbTxRing | None:
        """Transmit queue 0."""
        return self.q_vectors[0].tx

    # Figures.

    @property
    def stats(self) -> NetDeviceStats:
        """The interface's counters (ip -s link), brought up to date."""
        igb_ethtool.igb_update_stats(self, self._stats)
        return self._stats

    @stats.setter
    def stats(self, stats: NetDeviceStats) -> None:
        """Counters that the stack above keeps stay in this object."""
        self._stats = stats

    def ethtool_stats(self) -> dict[str, int]:
        """Return the statistics of ``ethtool -S``."""
        return igb_ethtool.igb_get_ethtool_stats(self)

    def ethtool_drvinfo(self) -> dict[str, str]:
        """Return the fields of ``ethtool -i``."""
        return igb_ethtool.igb_get_drvinfo(self)

    def ethtool_ringparam(self) -> dict[str, int]:
        """Return the figures of ``ethtool -g``."""
        return igb_ethtool.igb_get_ringparam(self)

    def ethtool_channels(self) -> dict[str, int]:
        """Return the figures of ``ethtool -l``."""
        return igb_ethtool.igb_get_channels(self)

    def ethtool_coalesce(self) -> dict[str, int | bool]:
        """Return the figures of ``ethtool -c``."""
        return igb_ethtool.igb_get_coalesce(self)

    def ethtool_pauseparam(self) -> dict[str, bool]:
        """Return the switches of ``ethtool -a``."""
        return igb_ethtool.igb_get_pauseparam(self)

    def ethtool_rxfh(self) -> dict[str, int | str]:
        """Return what ``ethtool -x`` shows."""
        return igb_ethtool.igb_get_rxfh(self)

    # Changes; the errors are igb_settings'.

    def set_ringparam(self, rx: int | None = None, tx: int | None = None) -> None:
        """Change the rings' sizes (ethtool -G)."""
        igb_settings.igb_set_ringparam(self, rx, tx)

    def set_channels(self, combined: int) -> None:
        """Change the number of queue pairs (ethtool -L)."""
        igb_settings.igb_set_channels(self, combined)

    def set_coalesce(
        self, rx_usecs: int | None = None, adaptive_rx: bool | None = None, tx_usecs: int = 0
    ) -> None:
        """Change interrupt moderation (ethtool -C)."""
        igb_settings.igb_set_coalesce(self, rx_usecs, adaptive_rx, tx_usecs)

    def set_pauseparam(
        self, rx: bool | None = None, tx: bool | None = None, autoneg: bool | None = None
    ) -> None:
        """Switch pause (ethtool -A)."""
        igb_settings.igb_set_pauseparam(self, rx, tx, autoneg)

    def set_offload(self, **switches: bool) -> None:
        """Switch offloads (ethtool -K): rx, tx, tso, lro, gso, gro."""
        igb_settings.igb_set_features(self, switches)

    def set_rxfh(
        self, *, equal: int | None = None, weight: Sequence[int] = (), default: bool = False,
        key: bytes = b"",
    ) -> None:  # fmt: skip
        """Change the hash's key or the indirection table (ethtool -X)."""
        igb_settings.igb_set_rxfh(self, equal=equal, weight=weight, default=default, key=key)

    def ndo_change_mtu(self, mtu: int) -> None:
        """Change the MTU (ip link set mtu)."""
        igb_settings.igb_change_mtu(self, mtu)

    def irq_set_affinity(self, vector: int, mask: int) -> None:
        """Have the first softnet context of ``mask`` serve a vector (smp_affinity).

        Raises:
            OSError: EINVAL, no such vector, or no such context.
        """
        cpus = mask & (1 << len(self.net.softnets)) - 1
        if not 0 <= vector < len(self.q_vectors) or not cpus:
            raise socket_error(errno.EINVAL)
        self.q_vectors[vector].irq_set_affinity((cpus & -cpus).bit_length() - 1)

    def interrupts(self) -> list[tuple[str, list[int]]]:
        """Return each vector's name in /proc/interrupts and its interrupts by softnet context."""
        return [
            (f"{self.name}-TxRx-{vector.index}", vector.irqs_by_cpu()) for vector in self.q_vectors
        ]
