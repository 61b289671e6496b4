"""ARP: who has this IPv4 address (RFC 826; net/ipv4/arp.c; probes: RFC 5227).

``netif_receive_skb`` calls ``arp_rcv``; what it learns goes to ``NeighTable``, which has
requests sent from here (arp_solicit). Which addresses are ours is IPv4's business: it registers
itself with ``set_inet``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ustack.core.netdevice import IFF_LOOPBACK, NetDevice
from ustack.core.skb import PACKET_HOST, PACKET_OTHERHOST, Skb, kfree_skb
from ustack.core.timer import Timer
from ustack.core.transmit import dev_queue_xmit
from ustack.lib.addresses import (
    ETH_BROADCAST,
    ETH_ZERO,
    INADDR_BROADCAST,
    is_loopback,
    is_multicast,
    is_zeronet,
)
from ustack.lib.drop_reason import DropReason
from ustack.link.neigh_table import LOCKTIME_US, NeighTable
from ustack.link.neighbour import Neigh
from ustack.link.nud import NudEvent
from ustack.wire.arp import ARPOP_REPLY, ARPOP_REQUEST, ArpPacket, build_arp, parse_arp
from ustack.wire.errors import WireError
from ustack.wire.ethernet import ETH_HLEN, ETH_P_ARP, ETH_ZLEN, build_ethernet

if TYPE_CHECKING:
    from collections.abc import Callable

    from ustack.config import NeighConfig
    from ustack.core.net import Net

PROBE_NUM = 3
"""RFC 5227 §1.1: probes before an address counts as free."""
PROBE_INTERVAL_US = 100_000
"""Between two probes; the RFC's 1 to 2 s is for links slower than a TAP."""
DEFEND_INTERVAL_US = 10_000_000
"""RFC 5227 §1.1: least time between two defences of one address."""
PROBE_WAIT_US = 200_000
"""From the last probe to the verdict."""


class Inet(Protocol):
    """What ARP asks of IPv4."""

    def is_local_address(self, addr: int) -> bool:
        """Whether ``addr`` is one of ours."""

    def select_addr(self, dev: NetDevice, dest: int) -> int:
        """Return our address on ``dev`` to talk to ``dest`` with, 0 if there is none."""

    def packet_source(self, skb: Skb) -> int:
        """Return the source address of an IP packet that waits."""

    def link_failure(self, skb: Skb) -> None:
        """The neighbour of this outgoing packet does not answer (ipv4_link_failure)."""


class ArpProbe:
    """Asks whether an address is taken before we take it (RFC 5227 §2.1.1)."""

    __slots__ = ("addr", "conflict", "dev", "done", "on_done", "sent", "timer")

    def __init__(
        self, dev: NetDevice, addr: int, on_done: Callable[[ArpProbe], None] | None
    ) -> None:
        self.dev = dev
        self.addr = addr
        self.conflict: bytes | None = None
        """The MAC of whoever has the address."""
        self.done = False
        """Somebody answered, or nobody did in time."""
        self.on_done = on_done
        self.sent = 0
        self.timer: Timer | None = None


class Arp:
    """ARP on all Ethernet devices of one stack."""

    def __init__(self, net: Net, config: NeighConfig) -> None:
        self.net = net
        self.table = NeighTable(net, config, self._solicit, self._error_report)
        self.conflicts = 0
        """Packets of others that claimed an address of ours."""
        self._defended_us: dict[tuple[NetDevice, int], int] = {}
        """When each address that was claimed has last been defended."""
        self._inet: Inet | None = None
        self._probes: list[ArpProbe] = []
        net.dev_add_pack(ETH_P_ARP, self.arp_rcv)
        net.netdev_notifiers.append(self._netdev_event)

    def set_inet(self, inet: Inet | None) -> None:
        """Let IPv4 say which addresses are ours."""
        self._inet = inet

    # Receiving.

    def arp_rcv(self, skb: Skb) -> None:
        """Take an ARP frame."""
        dev = skb.dev
        assert dev is not None
        if skb.pkt_type == PACKET_OTHERHOST:
            kfree_skb(self.net, skb, DropReason.OTHERHOST)
            return
        if dev.flags & IFF_LOOPBACK:
            kfree_skb(self.net, skb, DropReason.ARP_NOT_FOR_US)
            return
        try:
            arp = parse_arp(skb.data, ETH_HLEN)
        except WireError as error:
            kfree_skb(self.net, skb, error.reason)
            return
        reason = self._arp_process(dev, arp, skb.pkt_type == PACKET_HOST)
        if reason is not None:
            kfree_skb(self.net, skb, reason)

    def _arp_process(self, dev: NetDevice, arp: ArpPacket, to_us: bool) -> DropReason | None:
        """Learn, answer or refuse (arp_process); return why the packet was of no use."""
        # RFC 1812 §3.3.2: nobody's own address is a broadcast or multicast one.
        if arp.sha[0] & 1 or arp.sha == ETH_ZERO:
            return DropReason.ARP_MALFORMED
        if is_multicast(arp.tip) or is_loopback(arp.tip):
            return DropReason.ARP_MALFORMED
        if self._probes:
            self._check_probes(dev, arp)
        inet = self._inet
        if inet is None:
            return DropReason.ARP_NOT_FOR_US
        for_us = inet.is_local_address(arp.tip)
        if arp.sip == 0:  # a duplicate address detection: answer it, learn nothing
            if arp.op == ARPOP_REQUEST and for_us:
                self._reply(dev, arp)
                return None
            return DropReason.ARP_NOT_FOR_US
        if is_loopback(arp.sip):
            return DropReason.ARP_MALFORMED
        if inet.is_local_address(arp.sip):
            self._check_conflict(dev, arp)
            return DropReason.ARP_NOT_FOR_US
        if not _is_unicast(arp.sip):
            return DropReason.ARP_MALFORMED
        if arp.op == ARPOP_REQUEST and for_us:
            self._learn_from_request(dev, arp, to_us)
            self._reply(dev, arp)
            return None
        return self._learn(dev, arp, to_us)

    def _check_conflict(self, dev: NetDevice, arp: ArpPacket) -> None:
        """Somebody speaks with an address of ours: say whose it is (RFC 5227 §2.4 (c)).

        At most once in DEFEND_INTERVAL: two hosts that both insist must not fill the link.
        Another device of ours on the same link is no conflict.
        """
        if any(arp.sha == own.dev_addr for own in self.net.devices.values()):
            return
        self.conflicts += 1
        now_us = self.net.clock.now_us
        last_us = self._defended_us.get((dev, arp.sip))
        if last_us is None or now_us - last_us >= DEFEND_INTERVAL_US:
            self._defended_us[dev, arp.sip] = now_us
            self.arp_announce(dev, arp.sip)

    def _learn_from_request(self, dev: NetDevice, arp: ArpPacket, to_us: bool) -> None:
        """Whoever asks will want to talk: make an entry (neigh_event_ns)."""
        stats = self.table.stats
        if to_us:
            stats.rcv_probes_ucast += 1
        else:
            stats.rcv_probes_mcast += 1
        neigh = self.table.create(dev, arp.sip)
        if neigh is not None:
            self.table.neigh_update(neigh, arp.sha, NudEvent.HEARD, override=True)

    def _learn(self, dev: NetDevice, arp: ArpPacket, to_us: bool) -> DropReason | None:
        """Update an entry that exists; one is never made for an unasked packet (arp_accept 0)."""
        neigh = self.table.lookup(dev, arp.sip)
        if neigh is None:
            return DropReason.ARP_NOT_FOR_US
        is_garp = arp.tip == arp.sip and (arp.op == ARPOP_REQUEST or arp.tha == arp.sha)
        event = NudEvent.REPLY if arp.op == ARPOP_REPLY and to_us else NudEvent.HEARD
        override = is_garp or self.net.clock.now_us > neigh.updated_us + LOCKTIME_US
        self.table.neigh_update(neigh, arp.sha, event, override=override)
        return None

    # Sending.

    def arp_send(
        self, dev: NetDevice, op: int, sip: int, tha: bytes, tip: int, dest: bytes
    ) -> None:
        """Send an ARP packet in a frame to the MAC ``dest``."""
        arp = build_arp(ArpPacket(op, dev.dev_addr, sip, tha, tip))
        frame = build_ethernet(dest, dev.dev_addr, ETH_P_ARP) + arp
        skb = Skb(frame.ljust(ETH_ZLEN, b"\0"), dev)
        skb.protocol = ETH_P_ARP
        skb.network_offset = ETH_HLEN
        skb.transport_offset = ETH_HLEN
        dev_queue_xmit(self.net, skb)

    def arp_announce(self, dev: NetDevice, addr: int) -> None:
        """Tell all that ``addr`` is here (gratuitous ARP, RFC 5227 §2.3)."""
        self.arp_send(dev, ARPOP_REQUEST, addr, ETH_ZERO, addr, ETH_BROADCAST)

    def _reply(self, dev: NetDevice, arp: ArpPacket) -> None:
        self.arp_send(dev, ARPOP_REPLY, arp.tip, arp.sha, arp.sip, arp.sha)

    def _solicit(self, neigh: Neigh, skb: Skb | None) -> None:
        """Ask for ``neigh``: the known address first, then everybody (arp_solicit)."""
        if self._inet is None:
            return
        source = self._inet.packet_source(skb) if skb is not None else 0
        if not self._inet.is_local_address(source):
            source = self._inet.select_addr(neigh.dev, neigh.addr)
        ucast = neigh.probes <= self.table.config.ucast_solicit
        dest = neigh.ha if ucast and neigh.ha != ETH_ZERO else ETH_BROADCAST
        tha = ETH_ZERO if dest == ETH_BROADCAST else dest
        self.arp_send(neigh.dev, ARPOP_REQUEST, source, tha, neigh.addr, dest)

    def _error_report(self, skb: Skb) -> None:
        if self._inet is not None:
            self._inet.link_failure(skb)

    def _netdev_event(self, dev: NetDevice, up: bool) -> None:
        if not up:
            self.table.flush_dev(dev)

    # Address conflict detection.

    def arp_probe(
        self, dev: NetDevice, addr: int, on_done: Callable[[ArpProbe], None] | None = None
    ) -> ArpProbe:
        """Begin to ask whether anybody on ``dev`` has ``addr``.

        The caller polls the stack until ``done``: at once after an answer, else PROBE_WAIT_US
        after the last of PROBE_NUM probes. ``addr`` should not be ours yet.

        Returns:
            The probe; ``conflict`` is the MAC address of who has it, None if nobody has.
        """
        probe = ArpProbe(dev, addr, on_done)
        probe.timer = Timer(self._probe_timer, probe)
        self._probes.append(probe)
        self._probe_timer(probe)
        return probe

    def _probe_timer(self, probe: ArpProbe) -> None:
        if probe.sent == PROBE_NUM:
            self._end_probe(probe)
            return
        probe.sent += 1
        last = probe.sent == PROBE_NUM
        wait_us = PROBE_WAIT_US if last else PROBE_INTERVAL_US
        assert probe.timer is not None
        self.net.timers.mod_timer(probe.timer, self.net.clock.now_us + wait_us)
        self.arp_send(probe.dev, ARPOP_REQUEST, 0, ETH_ZERO, probe.addr, ETH_BROADCAST)

    def _check_probes(self, dev: NetDevice, arp: ArpPacket) -> None:
        """RFC 5227 §2.1.1: any packet from the address, or a probe for it, is a conflict."""
        if arp.sha == dev.dev_addr:
            return
        for probe in tuple(self._probes):
            claims = arp.sip == probe.addr or (arp.sip == 0 and arp.tip == probe.addr)
            if probe.dev is dev and claims:
                probe.conflict = arp.sha
                self._end_probe(probe)

    def _end_probe(self, probe: ArpProbe) -> None:
        self._probes.remove(probe)
        assert probe.timer is not None
        self.net.timers.del_timer(probe.timer)
        probe.done = True
        if probe.on_done is not None:
            probe.on_done(probe)


def _is_unicast(addr: int) -> bool:
    """Whether a host can have ``addr``."""
    return not (
        is_multicast(addr) or is_loopback(addr) or is_zeronet(addr) or addr == INADDR_BROADCAST
    )
