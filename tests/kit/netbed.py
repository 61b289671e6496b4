"""The layers below TCP on a device without hardware: frames in, frames out, virtual time.

``Bed()`` has lo (127.0.0.1/8) and eth0 (10.0.0.2/24, no offloads) with ARP, IPv4 and UDP;
``bed.receive(frame)`` is the wire's side, ``bed.sent`` what eth0 was told to send.
"""

from __future__ import annotations

import random
import struct
from dataclasses import replace

from ustack.config import CoreConfig, IpConfig, StackConfig
from ustack.core.ethernet import eth_type_trans
from ustack.core.net import Net
from ustack.core.netdevice import NETDEV_TX_BUSY, NETDEV_TX_OK, NetDevice
from ustack.core.skb import Skb, skb_bytes
from ustack.core.softirq import do_softirq
from ustack.driver.loopback import LoopbackDevice
from ustack.ipv4.protocol import Ipv4
from ustack.lib.addresses import parse_interface, parse_ipv4
from ustack.lib.clock import StackClock
from ustack.link.arp import Arp
from ustack.native.checksum import csum_fold, csum_partial, csum_tcpudp_magic
from ustack.native.mem import Mem
from ustack.udp.mem import udp_init_mem
from ustack.udp.protocol import UdpProt
from ustack.wire.arp import ArpPacket, build_arp, parse_arp
from ustack.wire.ethernet import ETH_P_ARP, ETH_P_IP, build_ethernet, parse_ethernet
from ustack.wire.icmp import build_icmp
from ustack.wire.ipv4 import IPPROTO_ICMP, IPPROTO_UDP, build_ipv4
from ustack.wire.udp import build_udp

OUR_MAC = bytes.fromhex("020000000002")
PEER_MAC = bytes.fromhex("020000000001")
OTHER_MAC = bytes.fromhex("020000000077")
OURS = parse_ipv4("10.0.0.2")
PEER = parse_ipv4("10.0.0.1")
OTHER = parse_ipv4("10.0.0.77")

TEST_CONFIG = StackConfig(core=CoreConfig(arena_bytes=4 << 20))


class FakeDevice(NetDevice):
    """A device that notes what it is told to send; ``room`` makes it refuse."""

    def __init__(self, net: Net, name: str, mac: bytes) -> None:
        super().__init__(net, name, mac)
        self.sent: list[Skb] = []
        self.room: int | None = None

    def ndo_start_xmit(self, skb: Skb) -> int:
        if self.room == 0:
            return NETDEV_TX_BUSY
        if self.room is not None:
            self.room -= 1
        self.sent.append(skb)
        return NETDEV_TX_OK

    @property
    def queue_stopped(self) -> bool:
        return self.room == 0


class Bed:
    """One namespace and the wire of its eth0."""

    def __init__(self, config: StackConfig = TEST_CONFIG, *, up: bool = True) -> None:
        config = udp_init_mem(config)
        self.clock = StackClock(1_000_000)
        self.mem = Mem(config.core.arena_bytes)
        self.net = Net(self.clock, random.Random(1), config, self.mem)
        self.arp = Arp(self.net, config.ip.neigh)
        self.ip = Ipv4(self.net, self.arp)
        self.udp = UdpProt(self.net, self.ip)
        self.lo = LoopbackDevice(self.net)
        self.eth0 = FakeDevice(self.net, "eth0", OUR_MAC)
        for dev, address in ((self.lo, "127.0.0.1/8"), (self.eth0, "10.0.0.2/24")):
            self.net.register_netdev(dev)
            if up:
                self.net.dev_open(dev)
            self.ip.add_address(dev, parse_interface(address))

    @property
    def drops(self) -> dict[str, int]:
        """What was dropped, by reason."""
        return self.net.drops.nonzero()

    def take_sent(self) -> list[bytes]:
        """Return the frames that eth0 was told to send since the last call."""
        frames = [skb_bytes(self.net, skb) for skb in self.eth0.sent]
        self.eth0.sent.clear()
        return frames

    def take_arp(self) -> list[ArpPacket]:
        """Return the ARP packets among what was sent; the rest is forgotten."""
        frames = self.take_sent()
        return [parse_arp(f, 14) for f in frames if parse_ethernet(f).proto == ETH_P_ARP]

    def receive(self, frame: bytes, ip_summed: int = 0, dev: NetDevice | None = None) -> None:
        """Let a frame arrive, as a driver's poll would hand it up."""
        skb = Skb(memoryview(frame), dev or self.eth0)
        skb.ip_summed = ip_summed
        eth_type_trans(skb)
        self.net.netif_receive_skb(skb)
        self.settle()

    def receive_ip(self, packet: bytes, dest: bytes = OUR_MAC) -> None:
        """Let an IP packet arrive from the peer."""
        self.receive(build_ethernet(dest, PEER_MAC, ETH_P_IP) + packet)

    def receive_arp(self, arp: ArpPacket, dest: bytes = OUR_MAC) -> None:
        """Let an ARP packet arrive from its sender."""
        self.receive(build_ethernet(dest, arp.sha, ETH_P_ARP) + build_arp(arp) + bytes(18))

    def settle(self) -> None:
        """Run softirqs until none is pending."""
        while do_softirq(self.net):
            pass

    def advance_us(self, delta_us: int) -> None:
        """Let time pass, stopping at every timer on the way."""
        end_us = self.clock.now_us + delta_us
        while (due := self.net.timers.next_us()) is not None and due <= end_us:
            self.clock.now_us = max(due, self.clock.now_us)
            self.net.timers.run(self.clock.now_us)
            self.settle()
        self.clock.now_us = end_us

    def know_peer(self, addr: int = PEER, mac: bytes = PEER_MAC) -> None:
        """Enter a neighbour by hand, so that a test need not resolve it."""
        self.arp.table.set_permanent(self.eth0, addr, mac)


def ip_config(**fields: object) -> StackConfig:
    """Return the test configuration with other IpConfig fields."""
    return replace(TEST_CONFIG, ip=replace(IpConfig(), **fields))  # type: ignore[arg-type]


def neigh_config(**fields: object) -> StackConfig:
    """Return the test configuration with other NeighConfig fields."""
    return ip_config(neigh=replace(IpConfig().neigh, **fields))  # type: ignore[arg-type]


def core_config(**fields: object) -> StackConfig:
    """Return the test configuration with other CoreConfig fields."""
    return replace(TEST_CONFIG, core=replace(TEST_CONFIG.core, **fields))  # type: ignore[arg-type]


def icmp_packet(
    icmp_type: int,
    code: int = 0,
    info: int = 0,
    payload: bytes = b"",
    *,
    saddr: int = PEER,
    daddr: int = OURS,
) -> bytes:
    """Return an ICMP message in an IP packet, checksums right."""
    bare = build_icmp(icmp_type, code, info) + payload
    csum = csum_fold(csum_partial(bare))
    message = build_icmp(icmp_type, code, info, csum) + payload
    return build_ipv4(saddr, daddr, IPPROTO_ICMP, len(message)) + message


def udp_packet(
    payload: bytes, *, saddr: int = PEER, daddr: int = OURS, dport: int = 9, csum: int | None = None
) -> bytes:
    """Return a datagram in an IP packet; ``csum`` replaces the right checksum."""
    datagram = build_udp(4000, dport, len(payload)) + payload
    if csum is None:
        total = csum_partial(datagram)
        csum = csum_tcpudp_magic(saddr, daddr, len(datagram), IPPROTO_UDP, total) or 0xFFFF
    datagram = build_udp(4000, dport, len(payload), csum) + payload
    return build_ipv4(saddr, daddr, IPPROTO_UDP, len(datagram)) + datagram


def with_checksum(header: bytes) -> bytes:
    """Return an IP header, options included, with its checksum put right."""
    bare = header[:10] + b"\0\0" + header[12:]
    return bare[:10] + struct.pack("!H", csum_fold(csum_partial(bare))) + bare[12:]
