"""Route lookups both ways: source selection, own addresses, martians, path MTU."""

from __future__ import annotations

import pytest

from kit.netbed import OURS, PEER, PEER_MAC, Bed
from ustack.core.skb import Skb
from ustack.ipv4 import devinet
from ustack.ipv4.fib import RTN_BROADCAST, RTN_LOCAL, RTN_MULTICAST, RTN_UNICAST, RTN_UNREACHABLE
from ustack.ipv4.output import ip_queue_xmit
from ustack.ipv4.pmtu import PMTU_CACHE_MAX
from ustack.ipv4.route import (
    ROUTE_CACHE_MAX,
    ip_route_output,
    ip_rt_update_pmtu,
    route_is_valid,
)
from ustack.lib.addresses import (
    INADDR_BROADCAST,
    INADDR_LOOPBACK,
    parse_interface,
    parse_ipv4,
)

FAR = parse_ipv4("192.0.2.7")


def test_a_host_on_the_link_is_sent_to_directly():
    bed = Bed()
    rt = ip_route_output(bed.ip, PEER)
    assert (rt.dev, rt.gateway, rt.saddr, rt.rt_type) == (bed.eth0, 0, OURS, RTN_UNICAST)
    assert rt.mtu == 1500


def test_without_a_route_there_is_none_and_it_is_counted():
    bed = Bed()
    assert ip_route_output(bed.ip, FAR) is None
    assert bed.net.mib.ip.OutNoRoutes == 1


def test_a_distant_host_is_reached_through_the_gateway():
    bed = Bed()
    bed.ip.add_default_gateway(PEER)
    bed.know_peer()
    rt = ip_route_output(bed.ip, FAR)
    assert (rt.gateway, rt.saddr) == (PEER, OURS)
    ip_queue_xmit(bed.ip, Skb(b"x"), rt, OURS, FAR, 200)
    (frame,) = bed.take_sent()
    assert frame[:6] == PEER_MAC


@pytest.mark.parametrize("daddr", [OURS, INADDR_LOOPBACK, parse_ipv4("127.8.9.1"), 0])
def test_own_addresses_go_through_lo(daddr):
    bed = Bed()
    rt = ip_route_output(bed.ip, daddr)
    assert (rt.dev, rt.rt_type) == (bed.lo, RTN_LOCAL)
    assert rt.saddr == (OURS if daddr == OURS else INADDR_LOOPBACK)


def test_destination_zero_with_a_source_is_that_source():
    rt = ip_route_output(Bed().ip, 0, OURS)
    assert (rt.daddr, rt.saddr) == (OURS, OURS)


def test_broadcasts_and_groups_have_their_types():
    bed = Bed()
    bed.ip.add_default_gateway(PEER)
    directed = ip_route_output(bed.ip, parse_ipv4("10.0.0.255"))
    assert (directed.rt_type, directed.dev, directed.saddr) == (RTN_BROADCAST, bed.eth0, OURS)
    assert ip_route_output(bed.ip, INADDR_BROADCAST).rt_type == RTN_BROADCAST
    group = ip_route_output(bed.ip, parse_ipv4("239.1.2.3"))
    assert (group.rt_type, group.gateway) == (RTN_MULTICAST, 0)
    ip_queue_xmit(bed.ip, Skb(b"x"), group, OURS, group.daddr, 200)
    assert bed.take_sent()[0][:6] == bytes.fromhex("01005e010203")


def test_a_source_that_is_not_ours_is_refused():
    bed = Bed()
    assert ip_route_output(bed.ip, PEER, FAR) is None


@pytest.mark.rfc("1122", "3.2.1.3")
def test_a_loopback_source_does_not_leave_the_host():
    assert ip_route_output(Bed().ip, PEER, INADDR_LOOPBACK) is None


def test_zeronet_and_unreachable_routes_have_no_way():
    bed = Bed()
    bed.ip.add_default_gateway(PEER)
    devinet.add_route(bed.ip, parse_ipv4("192.0.2.0"), 24, rt_type=RTN_UNREACHABLE)
    assert ip_route_output(bed.ip, parse_ipv4("0.0.0.9")) is None
    assert ip_route_output(bed.ip, FAR) is None


def test_the_source_is_the_address_in_the_network_of_the_next_hop():
    bed = Bed()
    bed.ip.add_address(bed.eth0, parse_interface("172.16.0.2/16"))
    assert ip_route_output(bed.ip, parse_ipv4("172.16.5.5")).saddr == parse_ipv4("172.16.0.2")
    bed.ip.add_default_gateway(parse_ipv4("172.16.0.1"))
    assert ip_route_output(bed.ip, FAR).saddr == parse_ipv4("172.16.0.2")


def test_a_device_without_address_borrows_one():
    bed = Bed()
    bed.ip.add_route(parse_ipv4("192.0.2.0"), 24, dev=bed.eth0)
    bed.ip.del_address(bed.eth0, parse_interface("10.0.0.2/24"))
    assert ip_route_output(bed.ip, FAR).saddr == 0
    bed.ip.add_address(bed.eth0, parse_interface("10.9.9.9/32"))
    assert ip_route_output(bed.ip, FAR).saddr == parse_ipv4("10.9.9.9")


def test_a_preferred_source_is_used():
    bed = Bed()
    bed.ip.add_address(bed.lo, parse_interface("10.9.9.9/32"))
    prefsrc = parse_ipv4("10.9.9.9")
    devinet.add_route(bed.ip, parse_ipv4("192.0.2.0"), 24, dev=bed.eth0, prefsrc=prefsrc)
    assert ip_route_output(bed.ip, FAR).saddr == prefsrc


def test_routes_are_shared_until_the_tables_change():
    bed = Bed()
    rt = ip_route_output(bed.ip, PEER)
    assert ip_route_output(bed.ip, PEER) is rt
    assert route_is_valid(bed.ip, rt)
    bed.ip.add_default_gateway(PEER)
    assert not route_is_valid(bed.ip, rt)
    assert ip_route_output(bed.ip, PEER) is not rt


def test_the_caches_of_decisions_are_bounded():
    bed = Bed()
    bed.ip.add_default_gateway(PEER)
    bed.know_peer()
    for n in range(ROUTE_CACHE_MAX + 10):
        ip_route_output(bed.ip, 0x0B000000 + n)
    assert len(bed.ip.routes_out) <= ROUTE_CACHE_MAX


@pytest.mark.rfc("1191", "3")
def test_a_learnt_path_mtu_holds_for_ten_minutes():
    bed = Bed()
    rt = ip_route_output(bed.ip, PEER)
    assert ip_rt_update_pmtu(bed.ip, PEER, 1000) == 1000
    assert not route_is_valid(bed.ip, rt)
    assert ip_route_output(bed.ip, PEER).mtu == 1000
    assert ip_rt_update_pmtu(bed.ip, PEER, 1200) == 1000  # never raised by a message
    bed.advance_us(599_999_999)
    held = ip_route_output(bed.ip, PEER)
    assert held.mtu == 1000
    bed.advance_us(1)
    assert not route_is_valid(bed.ip, held)
    assert ip_route_output(bed.ip, PEER).mtu == 1500
    assert bed.net.timers.next_us() is None


def test_a_message_that_says_it_again_prolongs_what_is_known():
    bed = Bed()
    ip_rt_update_pmtu(bed.ip, PEER, 1000)
    rt = ip_route_output(bed.ip, PEER)
    bed.advance_us(500_000_000)
    assert ip_rt_update_pmtu(bed.ip, PEER, 1000) == 1000
    assert route_is_valid(bed.ip, rt)
    bed.advance_us(500_000_000)
    assert ip_route_output(bed.ip, PEER).mtu == 1000
    bed.advance_us(100_000_000)
    assert ip_route_output(bed.ip, PEER).mtu == 1500


def test_the_devices_own_mtu_is_nothing_to_remember():
    bed = Bed()
    assert ip_rt_update_pmtu(bed.ip, PEER, 1500) == 1500
    assert ip_rt_update_pmtu(bed.ip, PEER, 9000) == 1500
    assert len(bed.ip.pmtu) == 0


def test_a_tiny_path_mtu_is_not_believed_but_the_path_may_fragment():
    bed = Bed()
    assert ip_rt_update_pmtu(bed.ip, PEER, 68) == 552
    rt = ip_route_output(bed.ip, PEER)
    assert (rt.mtu, rt.mtu_locked) == (552, True)


def test_no_more_paths_are_remembered_than_the_cache_holds():
    bed = Bed()
    bed.ip.add_default_gateway(PEER)
    for n in range(PMTU_CACHE_MAX + 3):
        ip_rt_update_pmtu(bed.ip, 0x0B000000 + n, 1000)
    assert len(bed.ip.pmtu) == PMTU_CACHE_MAX
    assert ip_route_output(bed.ip, 0x0B000000).mtu == 1500
    assert ip_route_output(bed.ip, 0x0B000003).mtu == 1000
