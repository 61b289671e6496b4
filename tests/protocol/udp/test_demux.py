"""Which socket has a datagram, and who may share a port (__udp4_lib_lookup, udp_lib_get_port)."""

from __future__ import annotations

import errno
from collections import Counter

import pytest

from kit.dgram_bed import DgramBed
from kit.netbed import OTHER, OURS, PEER, core_config, udp_packet
from ustack.lib.addresses import ETH_BROADCAST, parse_ipv4

BROADCAST = parse_ipv4("10.0.0.255")


@pytest.fixture
def bed() -> DgramBed:
    return DgramBed()


def readable(sock) -> bool:
    return sock.rcv_ready(1)


def test_a_datagram_is_read_with_the_address_of_its_sender(bed):
    sock = bed.bound()
    bed.comes(b"hello")
    assert sock.recvmsg(100)[:3] == (b"hello", 5, (PEER, 4000))
    with pytest.raises(BlockingIOError):
        sock.recv(1)


def test_the_socket_on_the_exact_address_goes_before_the_one_on_any(bed):
    exact, anywhere = bed.bound(addr=OURS, reuse=1), bed.bound(reuse=1)
    bed.comes()
    assert (readable(exact), readable(anywhere)) == (True, False)


def test_a_connected_socket_goes_before_one_that_is_not(bed):
    connected, free = bed.bound(addr=OURS, reuse=1), bed.bound(addr=OURS, reuse=1)
    connected.connect(PEER, 4000)
    bed.comes()
    assert (readable(connected), readable(free)) == (True, False)
    bed.comes(saddr=OTHER)
    assert (len(connected._sk.receive_queue), readable(free)) == (1, True)


def test_a_connected_socket_hears_its_peers_port_only(bed):
    sock = bed.bound()
    sock.connect(PEER, 4001)
    bed.comes()
    assert not readable(sock)
    assert bed.net.mib.udp.NoPorts == 1


def test_of_sockets_that_share_by_reuseaddr_the_newest_has_it(bed):
    old, new = bed.bound(reuse=1), bed.bound(reuse=1)
    bed.comes()
    assert (readable(old), readable(new)) == (False, True)


def test_sockets_that_share_by_reuseport_divide_the_flows_and_keep_each(bed):
    socks = [bed.bound(reuseport=1) for _ in range(4)]
    for _ in range(2):
        for host in range(200):
            bed.comes(saddr=PEER + 100 + host, payload=bytes([host]))
    queues = [[d.data[0] for d in s._sk.receive_queue] for s in socks]
    assert all(25 < len(queue) // 2 < 75 for queue in queues), [len(q) for q in queues]
    assert all(set(Counter(queue).values()) == {2} for queue in queues)


@pytest.mark.parametrize(
    ("first", "second", "allowed"),
    [
        ({}, {}, False),
        ({"reuse": 1}, {}, False),
        ({"reuse": 1}, {"reuse": 1}, True),
        ({"reuseport": 1}, {"reuse": 1}, False),
        ({"reuseport": 1}, {"reuseport": 1}, True),
        ({"addr": OURS}, {"addr": parse_ipv4("127.0.0.1")}, True),
        ({"addr": OURS}, {}, False),
    ],
)
def test_who_may_share_a_port(bed, first, second, allowed):
    bed.bound(**first)
    if allowed:
        bed.bound(**second)
        return
    with pytest.raises(OSError) as caught:
        bed.bound(**second)
    assert caught.value.errno == errno.EADDRINUSE


def test_a_closed_sockets_port_is_free(bed):
    bed.bound().close()
    bed.bound()
    bed.comes()
    assert bed.net.mib.udp.NoPorts == 0


def test_a_port_is_chosen_from_the_range_and_not_twice(bed):
    socks = [bed.bound(0) for _ in range(200)]
    ports = {sock.getsockname()[1] for sock in socks}
    assert len(ports) == 200
    assert all(32768 <= port <= 60999 for port in ports)


def test_a_broadcast_goes_to_every_socket_on_the_port(bed):
    socks = [bed.bound(reuse=1), bed.bound(reuse=1), bed.bound(addr=BROADCAST, reuse=1)]
    exact = bed.bound(addr=OURS, reuse=1)
    bed.receive_ip(udp_packet(b"all", dport=53, daddr=BROADCAST), dest=ETH_BROADCAST)
    assert [readable(sock) for sock in socks] == [True, True, True]
    assert not readable(exact)


def test_a_broadcast_that_nobody_wants_is_counted_and_not_answered(bed):
    bed.receive_ip(udp_packet(b"all", dport=53, daddr=BROADCAST), dest=ETH_BROADCAST)
    assert bed.take_sent() == []
    assert bed.net.mib.udp.IgnoredMulti == 1


def test_binding_twice_and_to_somebody_elses_address_is_refused(bed):
    sock = bed.bound()
    for address, expected in (((0, 54), errno.EINVAL), ((OTHER, 54), errno.EADDRNOTAVAIL)):
        with pytest.raises(OSError) as caught:
            sock.bind(*address)
        assert caught.value.errno == expected


def test_a_full_receive_buffer_drops_what_comes_and_counts_it(bed):
    sock = bed.bound()
    sock.setsockopt(1, 8, 1)
    for _ in range(6):
        bed.comes(b"x")
    udp = bed.net.mib.udp
    assert (len(sock._sk.receive_queue), sock._sk.drops) == (3, 3)  # 2304 / 768
    assert (udp.RcvbufErrors, udp.InErrors, udp.InDatagrams) == (3, 3, 0)
    assert bed.drops == {"SOCKET_RCVBUFF": 3}
    sock.recv(10)
    bed.comes(b"x")
    assert (udp.InDatagrams, udp.RcvbufErrors) == (1, 3)


def test_an_empty_buffer_takes_one_datagram_however_large(bed):
    sock = bed.bound()
    sock.setsockopt(1, 8, 1)
    bed.comes(bytes(30_000))
    bed.comes(b"x")
    assert (len(sock.recv(40_000)), bed.net.mib.udp.RcvbufErrors) == (30_000, 1)


def test_a_new_sockets_buffer_is_rmem_default():
    bed = DgramBed(core_config(rmem_default=5000))
    assert bed.dgram().getsockopt(1, 8) == 5000
    assert DgramBed(core_config(rmem_max=3000)).bound().getsockopt(1, 8) == 212_992


def test_so_rcvbuf_is_doubled_and_limited_by_rmem_max():
    sock = DgramBed(core_config(rmem_max=3000)).dgram()
    sock.setsockopt(1, 8, 100_000)
    assert sock.getsockopt(1, 8) == 6000
