"""ARP as arp_process does it: whom we answer, what we learn, what we refuse."""

from __future__ import annotations

import pytest

from kit.netbed import OTHER, OTHER_MAC, OUR_MAC, OURS, PEER, PEER_MAC, Bed, FakeDevice
from ustack.lib.addresses import ETH_BROADCAST, ETH_ZERO, parse_interface, parse_ipv4
from ustack.wire.arp import ARPOP_REPLY, ARPOP_REQUEST, ArpPacket, build_arp
from ustack.wire.ethernet import ETH_P_ARP, build_ethernet

REQUEST = ArpPacket(ARPOP_REQUEST, PEER_MAC, PEER, ETH_ZERO, OURS)
REPLY = ArpPacket(ARPOP_REPLY, PEER_MAC, PEER, OUR_MAC, OURS)


def neigh_state(bed: Bed, addr: int = PEER) -> str | None:
    return next((r.state for r in bed.arp.table.records() if r.addr == addr), None)


def lladdr(bed: Bed, addr: int = PEER) -> bytes | None:
    return next((r.lladdr for r in bed.arp.table.records() if r.addr == addr), None)


def test_a_request_for_our_address_is_answered_and_its_sender_learnt():
    bed = Bed()
    bed.receive_arp(REQUEST, dest=ETH_BROADCAST)
    (frame,) = bed.take_sent()
    assert frame == (
        build_ethernet(PEER_MAC, OUR_MAC, ETH_P_ARP)
        + build_arp(ArpPacket(ARPOP_REPLY, OUR_MAC, OURS, PEER_MAC, PEER))
        + bytes(18)
    )
    assert (neigh_state(bed), lladdr(bed)) == ("STALE", PEER_MAC)
    stats = bed.arp.table.stats
    assert (stats.rcv_probes_mcast, stats.rcv_probes_ucast) == (1, 0)
    bed.receive_arp(REQUEST)
    assert stats.rcv_probes_ucast == 1
    assert bed.drops == {}


def test_a_request_for_somebody_else_is_not_answered():
    bed = Bed()
    bed.receive_arp(ArpPacket(ARPOP_REQUEST, PEER_MAC, PEER, ETH_ZERO, OTHER), dest=ETH_BROADCAST)
    assert bed.take_sent() == []
    assert bed.arp.table.records() == []
    assert bed.drops == {"ARP_NOT_FOR_US": 1}


def test_a_request_for_somebody_else_refreshes_whom_we_know():
    bed = Bed()
    bed.receive_arp(REQUEST)
    bed.advance_us(2_000_000)
    moved = ArpPacket(ARPOP_REQUEST, OTHER_MAC, PEER, ETH_ZERO, OTHER)
    bed.receive_arp(moved, dest=ETH_BROADCAST)
    assert lladdr(bed) == OTHER_MAC


def test_an_unasked_reply_makes_no_entry():
    bed = Bed()
    bed.receive_arp(REPLY)
    assert bed.arp.table.records() == []
    assert bed.drops == {"ARP_NOT_FOR_US": 1}


def test_a_reply_within_the_locktime_does_not_replace_an_address():
    bed = Bed()
    bed.receive_arp(REQUEST)
    rival = ArpPacket(ARPOP_REPLY, OTHER_MAC, PEER, OUR_MAC, OURS)
    bed.receive_arp(rival)
    assert (lladdr(bed), neigh_state(bed)) == (PEER_MAC, "STALE")
    bed.advance_us(1_000_001)
    bed.receive_arp(rival)
    assert (lladdr(bed), neigh_state(bed)) == (OTHER_MAC, "REACHABLE")


@pytest.mark.parametrize("op", [ARPOP_REQUEST, ARPOP_REPLY])
def test_a_gratuitous_packet_updates_at_once(op):
    bed = Bed()
    bed.receive_arp(REQUEST)
    bed.receive_arp(ArpPacket(op, OTHER_MAC, PEER, OTHER_MAC, PEER), dest=ETH_BROADCAST)
    assert (lladdr(bed), neigh_state(bed)) == (OTHER_MAC, "STALE")


def test_a_broadcast_reply_proves_one_direction_only():
    bed = Bed()
    bed.receive_arp(REQUEST)
    bed.advance_us(2_000_000)
    bed.receive_arp(ArpPacket(ARPOP_REPLY, OTHER_MAC, PEER, OUR_MAC, OURS), dest=ETH_BROADCAST)
    assert (lladdr(bed), neigh_state(bed)) == (OTHER_MAC, "STALE")


@pytest.mark.rfc("5227", "2.1.1")
def test_a_probe_for_our_address_is_answered_but_not_learnt():
    bed = Bed()
    bed.receive_arp(ArpPacket(ARPOP_REQUEST, PEER_MAC, 0, ETH_ZERO, OURS), dest=ETH_BROADCAST)
    (reply,) = bed.take_arp()
    assert (reply.op, reply.sip, reply.tip, reply.tha) == (ARPOP_REPLY, OURS, 0, PEER_MAC)
    assert bed.arp.table.records() == []


def test_a_probe_for_another_address_is_not_for_us():
    bed = Bed()
    bed.receive_arp(ArpPacket(ARPOP_REQUEST, PEER_MAC, 0, ETH_ZERO, OTHER), dest=ETH_BROADCAST)
    assert bed.take_sent() == []
    assert bed.drops == {"ARP_NOT_FOR_US": 1}


CLAIM = ArpPacket(ARPOP_REQUEST, OTHER_MAC, OURS, ETH_ZERO, OURS)


@pytest.mark.rfc("5227", "2.4")
def test_our_address_is_defended_against_who_claims_it_but_not_too_often():
    bed = Bed()
    announcement = ArpPacket(ARPOP_REQUEST, OUR_MAC, OURS, ETH_ZERO, OURS)
    bed.receive_arp(CLAIM, dest=ETH_BROADCAST)
    assert bed.take_arp() == [announcement]
    for _ in range(9):
        bed.advance_us(1_000_000)
        bed.receive_arp(CLAIM, dest=ETH_BROADCAST)
    assert bed.take_arp() == []
    bed.advance_us(1_000_000)
    bed.receive_arp(CLAIM, dest=ETH_BROADCAST)
    assert bed.take_arp() == [announcement]
    assert bed.arp.conflicts == 11
    assert bed.drops == {"ARP_NOT_FOR_US": 11}
    assert len(bed.arp.table) == 0  # and is not believed


def test_each_address_is_defended_for_itself():
    bed = Bed()
    second = parse_interface("10.0.0.3/24")
    bed.ip.add_address(bed.eth0, second)
    for addr in (OURS, second.addr):
        bed.receive_arp(ArpPacket(ARPOP_REPLY, OTHER_MAC, addr, OUR_MAC, addr))
    assert [arp.sip for arp in bed.take_arp()] == [OURS, second.addr]


def test_our_other_device_on_the_same_link_is_no_conflict():
    bed = Bed()
    bed.net.register_netdev(FakeDevice(bed.net, "eth1", OTHER_MAC))
    bed.receive_arp(CLAIM, dest=ETH_BROADCAST)
    assert bed.arp.conflicts == 0
    assert bed.take_arp() == []


@pytest.mark.parametrize(
    "arp",
    [
        ArpPacket(ARPOP_REQUEST, ETH_BROADCAST, PEER, ETH_ZERO, OURS),
        ArpPacket(ARPOP_REQUEST, ETH_ZERO, PEER, ETH_ZERO, OURS),
        ArpPacket(ARPOP_REQUEST, PEER_MAC, 0xE0000005, ETH_ZERO, OURS),
        ArpPacket(ARPOP_REQUEST, PEER_MAC, 0xFFFFFFFF, ETH_ZERO, OURS),
        ArpPacket(ARPOP_REQUEST, PEER_MAC, PEER, ETH_ZERO, 0xE0000001),
        ArpPacket(ARPOP_REQUEST, PEER_MAC, PEER, ETH_ZERO, parse_ipv4("127.0.0.1")),
    ],
    ids=[
        "broadcast sender",
        "zero sender",
        "multicast IP",
        "broadcast IP",
        "for multicast",
        "for loopback",
    ],
)
def test_what_no_host_can_say_is_refused(arp):
    bed = Bed()
    bed.receive_arp(arp, dest=ETH_BROADCAST)
    assert bed.take_sent() == []
    assert bed.arp.table.records() == []
    assert bed.drops == {"ARP_MALFORMED": 1}


def test_a_truncated_packet_is_refused():
    bed = Bed()
    bed.receive(build_ethernet(OUR_MAC, PEER_MAC, ETH_P_ARP) + build_arp(REQUEST)[:27])
    assert bed.drops == {"ARP_MALFORMED": 1}


def test_a_frame_for_another_station_is_ignored():
    bed = Bed()
    bed.receive_arp(REQUEST, dest=OTHER_MAC)
    assert bed.take_sent() == []
    assert bed.drops == {"OTHERHOST": 1}


def test_nobody_resolves_on_lo():
    bed = Bed()
    frame = build_ethernet(ETH_BROADCAST, ETH_ZERO, ETH_P_ARP) + build_arp(REQUEST)
    bed.receive(frame, dev=bed.lo)
    assert bed.drops == {"ARP_NOT_FOR_US": 1}


def test_before_ip_has_registered_nothing_is_ours():
    bed = Bed()
    bed.arp.set_inet(None)
    bed.receive_arp(REQUEST)
    assert bed.take_sent() == []
    assert bed.drops == {"ARP_NOT_FOR_US": 1}


def test_an_announcement_names_our_address_twice():
    bed = Bed()
    bed.arp.arp_announce(bed.eth0, OURS)
    (arp,) = bed.take_arp()
    assert arp == ArpPacket(ARPOP_REQUEST, OUR_MAC, OURS, ETH_ZERO, OURS)


NEW = parse_ipv4("10.0.0.9")


@pytest.mark.rfc("5227", "2.1.1")
def test_an_address_that_nobody_answers_for_is_free_after_three_probes():
    bed = Bed()
    ended = []
    probe = bed.arp.arp_probe(bed.eth0, NEW, ended.append)
    bed.advance_us(399_999)
    assert not probe.done
    assert bed.take_arp() == [ArpPacket(ARPOP_REQUEST, OUR_MAC, 0, ETH_ZERO, NEW)] * 3
    bed.advance_us(1)
    assert (probe.done, probe.conflict, ended) == (True, None, [probe])
    assert bed.net.timers.next_us() is None


@pytest.mark.parametrize(
    "arp",
    [
        ArpPacket(ARPOP_REPLY, OTHER_MAC, NEW, OUR_MAC, 0),
        ArpPacket(ARPOP_REQUEST, OTHER_MAC, NEW, ETH_ZERO, PEER),
        ArpPacket(ARPOP_REQUEST, OTHER_MAC, 0, ETH_ZERO, NEW),
    ],
    ids=["reply", "request from it", "somebody probes for it too"],
)
def test_an_address_that_somebody_has_or_wants_is_a_conflict(arp):
    bed = Bed()
    ended = []
    probe = bed.arp.arp_probe(bed.eth0, NEW, ended.append)
    bed.receive_arp(arp, dest=ETH_BROADCAST)
    assert (probe.done, probe.conflict, ended) == (True, OTHER_MAC, [probe])
    assert bed.net.timers.next_us() is None


def test_our_own_probe_coming_back_is_no_conflict():
    bed = Bed()
    probe = bed.arp.arp_probe(bed.eth0, NEW)
    bed.receive_arp(ArpPacket(ARPOP_REQUEST, OUR_MAC, 0, ETH_ZERO, NEW), dest=ETH_BROADCAST)
    assert not probe.done


def test_any_address_of_the_host_is_answered_for_on_any_link():
    bed = Bed()
    bed.ip.add_address(bed.lo, parse_interface("192.0.2.1/32"))
    addr = parse_ipv4("192.0.2.1")
    bed.receive_arp(ArpPacket(ARPOP_REQUEST, PEER_MAC, PEER, ETH_ZERO, addr), dest=ETH_BROADCAST)
    (reply,) = bed.take_arp()
    assert reply.sip == addr
