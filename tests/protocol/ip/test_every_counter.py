"""Every counter and drop reason of ARP, IP, ICMP and UDP, with the packet that raises it.

A counter or reason that has no packet here fails, and so does a packet that misses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import pytest

from kit.fragments import fragment, piece
from kit.netbed import (
    OTHER,
    OTHER_MAC,
    OUR_MAC,
    OURS,
    PEER,
    PEER_MAC,
    TEST_CONFIG,
    Bed,
    icmp_packet,
    ip_config,
    neigh_config,
    udp_packet,
    with_checksum,
)
from ustack.config import StackConfig, UdpConfig
from ustack.core.skb import Skb
from ustack.inet.dgram import DgramSocket
from ustack.ipv4.output import ip_queue_xmit
from ustack.ipv4.route import ip_route_output
from ustack.lib.addresses import ETH_BROADCAST, ETH_ZERO, parse_ipv4
from ustack.lib.counters import IcmpMib, IpExtMib, IpMib, UdpMib
from ustack.lib.drop_reason import DropReason
from ustack.link.neighbour import NeighStats
from ustack.udp import options as udp_options
from ustack.wire.arp import ARPOP_REPLY, ARPOP_REQUEST, ArpPacket
from ustack.wire.ethernet import build_ethernet
from ustack.wire.ipv4 import build_ipv4

PROTO = 200
SECOND_US = 1_000_000
ALL_HOSTS = parse_ipv4("224.0.0.1")
ALL_HOSTS_MAC = bytes.fromhex("01005e000001")
BROADCAST = parse_ipv4("10.0.0.255")
FAR = parse_ipv4("192.0.2.1")
REQUEST = ArpPacket(ARPOP_REQUEST, PEER_MAC, PEER, ETH_ZERO, OURS)


# Packets.


def data(size: int = 8, *, ident: int = 7, **fields: Any) -> bytes:
    """A packet from the peer of a protocol that the bed takes."""
    head = {"saddr": PEER, "daddr": OURS, "protocol": PROTO, "frag": 0, **fields}
    return build_ipv4(payload_bytes=size, ident=ident, **head) + bytes(size)


def tampered(at: int, value: int) -> bytes:
    """A packet with one byte of its header changed, the checksum made right again."""
    packet = data()
    return with_checksum(packet[:at] + bytes([value]) + packet[at + 1 : 20]) + packet[20:]


def optioned(options: bytes) -> bytes:
    """A packet with IP options."""
    head = bytearray(build_ipv4(PEER, OURS, PROTO, len(options) + 8))
    head[0] = 0x45 + len(options) // 4
    return with_checksum(bytes(head) + options) + bytes(8)


BIG = data(4000)
QUOTED = build_ipv4(OURS, PEER, PROTO, 100) + bytes(8)


# What is done to the bed.

Deed = Callable[[Bed], object]


def comes(*packets: bytes, dest: bytes = OUR_MAC) -> Deed:
    """IP packets arrive."""

    def deed(bed: Bed) -> None:
        for packet in packets:
            bed.receive_ip(packet, dest=dest)

    return deed


def frame(proto: int, payload: bytes = bytes(46)) -> Deed:
    """A frame of some EtherType arrives."""
    return lambda bed: bed.receive(build_ethernet(OUR_MAC, PEER_MAC, proto) + payload)


def arps(*packets: ArpPacket, dest: bytes = OUR_MAC) -> Deed:
    """ARP packets arrive."""

    def deed(bed: Bed) -> None:
        for packet in packets:
            bed.receive_arp(packet, dest=dest)

    return deed


def sends(size: int = 8, daddr: int = PEER, times: int = 1, **fields: Any) -> Deed:
    """We send packets."""

    def deed(bed: Bed) -> None:
        for _ in range(times):
            rt = ip_route_output(bed.ip, daddr)
            if rt is not None:
                ip_queue_xmit(bed.ip, Skb(bytes(size)), rt, OURS, daddr, PROTO, **fields)
        bed.settle()

    return deed


def waits(seconds: float) -> Deed:
    """Time passes."""
    return lambda bed: bed.advance_us(int(seconds * SECOND_US))


def pings(bed: Bed) -> None:
    """We ping the peer."""
    bed.ip.icmp.ping.send_echo(PEER)


def socket(use: Callable[[DgramSocket], object], *before: Deed) -> Deed:
    """A UDP socket on port 9 is used, after something else has happened to it."""

    def deed(bed: Bed) -> None:
        sock = DgramSocket(bed.udp.create(), 2, udp_options.SETTERS, udp_options.GETTERS)
        sock.bind(0, 9)
        for happening in before:
            happening(bed)
        use(sock)
        bed.settle()

    return deed


def known(bed: Bed) -> None:
    """The peer's MAC address is known."""
    bed.know_peer()


def deletes(bed: Bed) -> None:
    """The peer's entry is deleted."""
    bed.arp.table.neigh_delete(bed.eth0, PEER)


@dataclass(frozen=True)
class Case:
    """What raises one counter or reason."""

    deeds: tuple[Deed, ...]
    config: StackConfig = TEST_CONFIG
    least: int = 1

    def bed(self) -> Bed:
        """Do it all to a new bed."""
        bed = Bed(self.config)
        bed.ip.inet_add_protocol(PROTO, lambda skb: None, lambda *args: None)
        for deed in self.deeds:
            deed(bed)
        bed.settle()
        return bed


def case(*deeds: Deed, config: StackConfig = TEST_CONFIG, least: int = 1) -> Case:
    """Shorten the tables."""
    return Case(deeds, config, least)


def hears(icmp_type: int, *, code: int = 0, info: int = 0, payload: bytes = bytes(12)) -> Case:
    """An ICMP message arrives from a peer that is known."""
    return case(known, comes(icmp_packet(icmp_type, code, info, payload)))


IP = {
    "InReceives": case(comes(data())),
    "InHdrErrors": case(comes(tampered(0, 0x65))),
    "InAddrErrors": case(comes(data(daddr=OTHER))),
    "InUnknownProtos": case(comes(data(protocol=99))),
    "InDelivers": case(comes(data())),
    "OutRequests": case(known, sends()),
    "OutDiscards": case(known, sends(65_516)),
    "OutNoRoutes": case(sends(daddr=FAR)),
    "ReasmTimeout": case(comes(fragment(BIG)[1]), waits(30)),
    "ReasmReqds": case(comes(fragment(BIG)[0])),
    "ReasmOKs": case(comes(*fragment(BIG))),
    "ReasmFails": case(comes(piece(BIG, 0, 800), piece(BIG, 792, 1600))),
    "FragOKs": case(known, sends(3000, df=False)),
    "FragFails": case(known, sends(3000)),
    "FragCreates": case(known, sends(3000, df=False), least=3),
    "OutTransmits": case(known, sends()),
}
NOT_COUNTED_IP = {
    "Forwarding": "a setting: 2, not forwarding",
    "DefaultTTL": "a setting",
    "ForwDatagrams": "we do not forward",
    "InDiscards": "Linux counts packets here that it has no memory for; Python would raise",
}
IP_EXT = {
    "InTruncatedPkts": case(comes(data()[:-1])),
    "InMcastPkts": case(comes(data(daddr=ALL_HOSTS), dest=ALL_HOSTS_MAC)),
    "InMcastOctets": case(comes(data(daddr=ALL_HOSTS), dest=ALL_HOSTS_MAC), least=28),
    "InBcastPkts": case(comes(data(daddr=BROADCAST), dest=ETH_BROADCAST)),
    "InBcastOctets": case(comes(data(daddr=BROADCAST), dest=ETH_BROADCAST), least=28),
    "OutMcastPkts": case(lambda bed: bed.ip.add_default_gateway(PEER), sends(daddr=ALL_HOSTS)),
    "OutMcastOctets": case(
        lambda bed: bed.ip.add_default_gateway(PEER), sends(daddr=ALL_HOSTS), least=28
    ),
    "OutBcastPkts": case(sends(daddr=BROADCAST, times=2), least=2),
    "OutBcastOctets": case(sends(daddr=BROADCAST, times=2), least=56),
    "InOctets": case(comes(data()), least=28),
    "OutOctets": case(known, sends(), least=28),
    "InCsumErrors": case(comes(data()[:10] + b"\0\0" + data()[12:])),
    "ReasmOverlaps": case(comes(piece(BIG, 0, 800), piece(BIG, 792, 1600))),
}
ICMP = {
    "InMsgs": hears(8),
    "InErrors": hears(99),
    "InCsumErrors": case(comes(icmp_packet(8)[:-1] + b"\1")),
    "InDestUnreachs": hears(3, code=3, payload=QUOTED),
    "InTimeExcds": hears(11, payload=QUOTED),
    "InParmProbs": hears(12, payload=QUOTED),
    "InSrcQuenchs": hears(4, payload=QUOTED),
    "InRedirects": hears(5, payload=QUOTED),
    "InEchos": hears(8),
    "InEchoReps": hears(0),
    "InTimestamps": hears(13),
    "InTimestampReps": hears(14),
    "InAddrMasks": hears(17),
    "InAddrMaskReps": hears(18),
    "OutMsgs": hears(8),
    "OutErrors": case(comes(icmp_packet(8, saddr=FAR))),
    "OutRateLimitGlobal": case(  # fifty at once are free
        known,
        lambda bed: bed.ip.add_default_gateway(PEER),
        comes(*[udp_packet(b"x", saddr=FAR + n) for n in range(51)]),
    ),
    "OutRateLimitHost": case(known, comes(*[udp_packet(b"x")] * 7)),
    "OutDestUnreachs": case(known, comes(udp_packet(b"x"))),
    "OutTimeExcds": case(known, comes(fragment(BIG)[0]), waits(30)),
    "OutParmProbs": case(known, comes(optioned(b"\x07\x09\x04\0"))),
    "OutEchos": case(known, pings),
    "OutEchoReps": hears(8),
    "OutTimestampReps": hears(13),
}
UDP = {
    "NoPorts": case(known, comes(udp_packet(b"x"))),
    "InErrors": case(comes(udp_packet(b"x", csum=1))),
    "InCsumErrors": case(comes(udp_packet(b"x", csum=1))),
    "InDatagrams": case(socket(lambda sock: sock.recv(1), comes(udp_packet(b"x")))),
    "OutDatagrams": case(known, socket(lambda sock: sock.sendmsg(b"x", to=(PEER, 9)))),
    "RcvbufErrors": case(socket(lambda sock: None, comes(*[udp_packet(b"x")] * 300))),
    "MemErrors": case(
        socket(lambda sock: None, comes(*[udp_packet(b"x")] * 20)),
        config=replace(TEST_CONFIG, udp=UdpConfig((1, 1, 1))),
    ),
    "SndbufErrors": case(
        known,
        lambda bed: setattr(bed.eth0, "room", 0),
        socket(lambda sock: [sock.sendmsg(b"x", to=(PEER, 9)) for _ in range(1002)]),
    ),
    "IgnoredMulti": case(comes(udp_packet(b"x", daddr=BROADCAST), dest=ETH_BROADCAST)),
}
NEIGH = {
    "allocs": case(sends()),
    "destroys": case(known, deletes),
    "lookups": case(sends()),
    "hits": case(known, sends()),
    "res_failed": case(sends(), waits(3)),
    "rcv_probes_mcast": case(arps(REQUEST, dest=ETH_BROADCAST)),
    "rcv_probes_ucast": case(arps(REQUEST)),
    "periodic_gc_runs": case(sends(), waits(60), config=neigh_config(gc_thresh1=1)),
    "forced_gc_runs": case(
        sends(daddr=PEER), sends(daddr=OTHER), config=neigh_config(gc_thresh3=1)
    ),
    "unres_discards": case(sends(1000, times=3), config=neigh_config(unres_qlen_bytes=3500)),
    "table_fulls": case(sends(daddr=PEER), sends(daddr=OTHER), config=neigh_config(gc_thresh3=1)),
}
DROPS = {
    "NO_SOCKET": hears(0),
    "PKT_TOO_SMALL": case(comes(data()[:-1])),
    "OTHERHOST": case(comes(data(), dest=OTHER_MAC)),
    "UNHANDLED_PROTO": case(frame(0x86DD)),
    "HDR_TRUNC": case(comes(data()[:19])),
    "IP_CSUM": case(comes(data()[:10] + b"\0\0" + data()[12:])),
    "IP_INHDR": case(comes(tampered(0, 0x65))),
    "IP_NOPROTO": case(comes(data(protocol=99))),
    "IP_INADDRERRORS": case(comes(data(daddr=OTHER))),
    "IP_INVALID_SOURCE": case(comes(data(saddr=OURS))),
    "IP_OPTIONS": case(comes(optioned(b"\x83\x07\x04" + bytes(5)))),
    "DUP_FRAG": case(comes(fragment(BIG)[0], fragment(BIG)[0])),
    "FRAG_REASM_TIMEOUT": case(comes(*fragment(BIG)[:2]), waits(30), least=2),
    "FRAG_TOO_FAR": case(
        comes(fragment(BIG)[0], *[fragment(data(4000, ident=n))[0] for n in range(100, 102)]),
        comes(fragment(BIG)[1]),
        config=ip_config(ipfrag_max_dist=2),
    ),
    "FRAG_OVERLAP": case(comes(piece(BIG, 0, 800), piece(BIG, 792, 1600)), least=2),
    "FRAG_INVALID": case(comes(piece(BIG, 0, 0, more=True))),
    "FRAG_NOMEM": case(comes(*fragment(BIG)), config=ip_config(ipfrag_high_thresh=2000)),
    "PKT_TOO_BIG": case(known, sends(3000)),
    "NEIGH_CREATEFAIL": case(
        sends(daddr=PEER), sends(daddr=OTHER), config=neigh_config(gc_thresh3=1)
    ),
    "NEIGH_FAILED": case(sends(), waits(3)),
    "NEIGH_QUEUEFULL": case(sends(1000, times=3), config=neigh_config(unres_qlen_bytes=3500)),
    "NEIGH_DEAD": case(sends(), deletes),
    "ARP_MALFORMED": case(frame(0x0806, bytes(10))),
    "ARP_NOT_FOR_US": case(arps(ArpPacket(ARPOP_REPLY, PEER_MAC, PEER, OUR_MAC, OURS))),
    "ICMP_CSUM": case(comes(icmp_packet(8)[:-1] + b"\1")),
    "ICMP_MALFORMED": hears(3, payload=bytes(4)),
    "ICMP_IGNORED": hears(17),
    "SOCKET_RCVBUFF": case(socket(lambda sock: None, comes(*[udp_packet(b"x")] * 300))),
    "UDP_CSUM": case(comes(udp_packet(b"x", csum=1))),
}
OF_OTHER_LAYERS = {
    "NOT_SPECIFIED", "DEV_READY", "FULL_RING", "NOMEM", "CPU_BACKLOG", "QDISC_DROP",
    "IP_OUTNOROUTES", "PROTO_MEM",
}  # fmt: skip
"""Raised by devices, queues and TCP (whose own reasons but PROTO_MEM begin with TCP_)."""

TABLES: list[tuple[str, dict[str, Case], Callable[[Bed], Any]]] = [
    ("Ip", IP, lambda bed: bed.net.mib.ip),
    ("IpExt", IP_EXT, lambda bed: bed.net.mib.ip_ext),
    ("Icmp", ICMP, lambda bed: bed.net.mib.icmp),
    ("Udp", UDP, lambda bed: bed.net.mib.udp),
    ("arp_cache", NEIGH, lambda bed: bed.arp.table.stats),
]


@pytest.mark.parametrize(
    ("table", "name"), [(t, name) for t, cases, _ in TABLES for name in cases], ids=str
)
def test_a_packet_raises_the_counter(table: str, name: str):
    _, cases, row = next(entry for entry in TABLES if entry[0] == table)
    one = cases[name]
    bed = one.bed()
    assert getattr(row(bed), name) >= one.least


@pytest.mark.parametrize("name", DROPS)
def test_a_packet_is_dropped_for_the_reason(name: str):
    one = DROPS[name]
    assert one.bed().drops.get(name, 0) >= one.least


@pytest.mark.parametrize(
    ("row", "listed"),
    [
        (IpMib, IP.keys() | NOT_COUNTED_IP.keys()),
        (IpExtMib, IP_EXT.keys()),
        (IcmpMib, ICMP.keys()),
        (UdpMib, UDP.keys()),
        (NeighStats, NEIGH.keys()),
    ],
)
def test_every_counter_is_listed(row: Any, listed: set[str]):
    assert {f.name for f in fields(row)} == listed


def test_every_reason_is_listed():
    ours = {r.name for r in DropReason if not r.name.startswith("TCP_")} - OF_OTHER_LAYERS
    assert ours == DROPS.keys()


def test_claims_of_our_address_are_counted():
    claim = ArpPacket(ARPOP_REQUEST, OTHER_MAC, OURS, ETH_ZERO, OURS)
    assert case(arps(claim, dest=ETH_BROADCAST)).bed().arp.conflicts == 1


@pytest.mark.parametrize("proto", [0x86DD, 0x88CC, 0x9999], ids=["IPv6", "LLDP", "unknown"])
def test_what_is_neither_ip_nor_arp_is_counted_and_answered_by_nobody(proto: int):
    bed = case(frame(proto)).bed()
    assert bed.drops == {"UNHANDLED_PROTO": 1}
    assert bed.eth0.stats.rx_dropped == 1
    assert bed.take_sent() == []
