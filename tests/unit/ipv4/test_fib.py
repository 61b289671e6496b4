"""Routing tables: longest prefix, local before main, metrics, and what addresses bring."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.netbed import OURS, PEER, Bed, FakeDevice, ip_config
from ustack.ipv4 import devinet
from ustack.ipv4.fib import (
    RT_TABLE_LOCAL,
    RTN_LOCAL,
    RTN_NAMES,
    RTN_UNICAST,
    RTN_UNREACHABLE,
    Fib,
    FibEntry,
    FibTable,
)
from ustack.lib.addresses import format_ipv4, parse_interface, parse_ipv4, prefix_mask

ADDRS = st.integers(0, 0xFFFFFFFF)


def entry(text: str, **fields) -> FibEntry:
    interface = parse_interface(text)
    return FibEntry(interface.network, interface.prefix_len, RTN_UNICAST, None, **fields)


def listing(bed: Bed, table: int | None = None) -> list[str]:
    return [
        f"{RTN_NAMES[e.rt_type]} {format_ipv4(e.network)}/{e.prefix_len} {e.dev.name}"
        for e in bed.ip.fib.entries()
        if table is None or e.table == table
    ]


@given(st.lists(st.tuples(ADDRS, st.integers(0, 32)), max_size=30), ADDRS)
def test_lookup_finds_the_longest_match(prefixes, addr):
    table = FibTable()
    inserted = []
    for network, length in prefixes:
        e = FibEntry(network & prefix_mask(length), length, RTN_UNICAST, None)
        if not table.has_alike(e):
            table.insert(e)
            inserted.append(e)
    matches = [e for e in inserted if addr & prefix_mask(e.prefix_len) == e.network]
    best = max(matches, key=lambda e: e.prefix_len, default=None)
    assert table.lookup(addr) == best
    for e in inserted:
        table.remove(e)
    assert table.lookup(addr) is None
    assert table.entries() == []


def test_the_lowest_metric_is_used():
    table = FibTable()
    table.insert(entry("10.0.0.0/8", metric=20))
    table.insert(entry("10.0.0.0/8", metric=10))
    assert table.lookup(PEER).metric == 10
    table.remove(entry("10.0.0.0/8", metric=10))
    assert table.lookup(PEER).metric == 20


def test_a_route_cannot_be_there_twice_nor_removed_twice():
    table = FibTable()
    table.insert(entry("10.0.0.0/8"))
    with pytest.raises(KeyError):
        table.insert(entry("10.0.0.0/8"))
    table.remove(entry("10.0.0.0/8"))
    with pytest.raises(KeyError):
        table.remove(entry("10.0.0.0/8"))


def test_the_local_table_is_asked_first_and_every_change_is_counted():
    fib = Fib()
    fib.insert(entry("10.0.0.2/32"))
    local = FibEntry(parse_ipv4("10.0.0.0"), 8, RTN_LOCAL, None, table=RT_TABLE_LOCAL)
    fib.insert(local)
    assert fib.lookup(OURS) is local
    assert fib.genid == 2
    fib.remove(local)
    assert (fib.lookup(OURS), fib.genid) == (entry("10.0.0.2/32"), 3)


def test_addresses_bring_their_routes():
    assert listing(Bed()) == [
        "local 10.0.0.2/32 eth0",
        "broadcast 10.0.0.255/32 eth0",
        "local 127.0.0.0/8 lo",
        "local 127.0.0.1/32 lo",
        "broadcast 127.255.255.255/32 lo",
        "unicast 10.0.0.0/24 eth0",
    ]


@pytest.mark.parametrize(
    ("address", "routes"),
    [
        ("192.0.2.1/32", ["local 192.0.2.1/32 eth0"]),
        ("192.0.2.0/31", ["local 192.0.2.0/32 eth0", "unicast 192.0.2.0/31 eth0"]),
    ],
)
def test_short_networks_have_no_broadcast(address, routes):
    bed = Bed()
    before = listing(bed)
    bed.ip.add_address(bed.eth0, parse_interface(address))
    assert [r for r in listing(bed) if r not in before] == routes


def test_a_promoted_second_address_keeps_the_networks_routes():
    bed = Bed(ip_config(promote_secondaries=True))
    first, second = parse_interface("10.0.0.2/24"), parse_interface("10.0.0.3/24")
    bed.ip.add_address(bed.eth0, second)
    assert [r.secondary for r in bed.ip.addresses(bed.eth0)] == [False, True]
    assert listing(bed).count("unicast 10.0.0.0/24 eth0") == 1
    bed.ip.del_address(bed.eth0, first)
    assert not bed.ip.is_local_address(first.addr)
    assert listing(bed).count("unicast 10.0.0.0/24 eth0") == 1
    assert bed.ip.fib.lookup(PEER).prefsrc == second.addr
    bed.ip.del_address(bed.eth0, second)
    assert [r for r in listing(bed) if "10.0.0" in r] == []


def test_with_the_first_address_of_a_network_go_its_secondary_ones():
    bed = Bed()
    for text in ("10.0.0.3/24", "10.0.0.4/24", "192.0.2.1/24", "10.0.0.5/25"):
        bed.ip.add_address(bed.eth0, parse_interface(text))
    secondary = [r.secondary for r in bed.ip.addresses(bed.eth0)]
    assert secondary == [False, True, True, False, False]
    bed.ip.del_address(bed.eth0, parse_interface("10.0.0.3/24"))
    bed.ip.del_address(bed.eth0, parse_interface("10.0.0.2/24"))
    left = [str(r.interface) for r in bed.ip.addresses(bed.eth0)]
    assert left == ["192.0.2.1/24", "10.0.0.5/25"]
    assert "unicast 10.0.0.0/24 eth0" not in listing(bed)


def test_an_address_is_given_and_taken_once():
    bed = Bed()
    with pytest.raises(FileExistsError):
        bed.ip.add_address(bed.eth0, parse_interface("10.0.0.2/16"))
    with pytest.raises(OSError) as caught:
        bed.ip.del_address(bed.eth0, parse_interface("10.0.0.4/24"))
    assert caught.value.errno == errno.EADDRNOTAVAIL


@pytest.mark.parametrize("address", ["0.0.0.0/8", "224.0.0.1/4", "255.255.255.255/32"])
def test_no_host_has_such_an_address(address):
    bed = Bed()
    with pytest.raises(OSError) as caught:
        bed.ip.add_address(bed.eth0, parse_interface(address))
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_addresses_are_listed_with_broadcast_and_scope():
    bed = Bed()
    lo, eth0 = bed.ip.addresses()
    assert (lo.dev, str(lo.interface), lo.broadcast) == ("lo", "127.0.0.1/8", 0)
    assert (eth0.dev, str(eth0.interface)) == ("eth0", "10.0.0.2/24")
    assert format_ipv4(eth0.broadcast) == "10.0.0.255"
    assert [r.dev for r in bed.ip.addresses(bed.lo)] == ["lo"]


def test_a_device_that_goes_down_keeps_only_its_local_addresses():
    bed = Bed()
    bed.ip.add_default_gateway(PEER)
    bed.net.dev_close(bed.eth0)
    assert [r for r in listing(bed) if "eth0" in r] == ["local 10.0.0.2/32 eth0"]
    bed.net.dev_open(bed.eth0)
    assert "unicast 10.0.0.0/24 eth0" in listing(bed)


def test_an_address_given_to_a_device_that_is_down_gets_its_network_later():
    bed = Bed(up=False)
    assert listing(bed) == ["local 10.0.0.2/32 eth0", "local 127.0.0.1/32 lo"]
    bed.net.dev_open(bed.eth0)
    assert "unicast 10.0.0.0/24 eth0" in listing(bed)


def test_a_default_route_needs_a_gateway_on_a_link():
    bed = Bed()
    with pytest.raises(OSError) as caught:
        bed.ip.add_default_gateway(parse_ipv4("192.0.2.1"))
    assert caught.value.errno == errno.ENETUNREACH
    route = bed.ip.add_default_gateway(PEER)
    assert (route.dev, route.gateway, route.prefix_len) == (bed.eth0, PEER, 0)
    with pytest.raises(FileExistsError):
        bed.ip.add_default_gateway(parse_ipv4("10.0.0.9"))
    devinet.del_route(bed.ip, 0, 0)
    with pytest.raises(ProcessLookupError):
        devinet.del_route(bed.ip, 0, 0)


def test_what_ip_route_add_refuses():
    bed = Bed()
    net = parse_ipv4("192.0.2.0")
    other = FakeDevice(bed.net, "eth1", bytes(6))
    for code, call in (
        (errno.EINVAL, lambda: bed.ip.add_route(net + 1, 24, dev=bed.eth0)),
        (errno.EINVAL, lambda: bed.ip.add_route(net, 24)),
        (errno.EINVAL, lambda: devinet.add_route(bed.ip, net, 24, dev=bed.eth0, prefsrc=PEER)),
        (errno.ENETDOWN, lambda: bed.ip.add_route(net, 24, dev=other)),
        (errno.ENETUNREACH, lambda: bed.ip.add_route(net, 24, gateway=PEER, dev=other)),
        (errno.ENETUNREACH, lambda: bed.ip.add_route(net, 24, gateway=OURS)),
    ):
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == code


def test_an_unreachable_route_needs_no_device():
    bed = Bed()
    route = devinet.add_route(bed.ip, parse_ipv4("192.0.2.0"), 24, rt_type=RTN_UNREACHABLE)
    assert route.dev is None
    assert route in bed.ip.fib.entries()


def test_deleting_a_route_by_gateway_spares_the_others():
    bed = Bed()
    bed.ip.add_default_gateway(PEER)
    bed.ip.add_route(parse_ipv4("192.0.2.0"), 24, gateway=PEER)
    with pytest.raises(ProcessLookupError):
        devinet.del_route(bed.ip, 0, 0, gateway=OURS)
    devinet.del_route(bed.ip, 0, 0, gateway=PEER)
    assert [e.prefix_len for e in bed.ip.fib.entries() if e.gateway] == [24]
