"""Listeners that share a port: SO_REUSEPORT (net/core/sock_reuseport.c)."""

from __future__ import annotations

from collections import Counter

import pytest

from kit.host import Host
from kit.queues import SYN, kernel, syn_recv
from ustack.config import LINUX_6, LINUX_310
from ustack.tcp.connect_options import SO_REUSEPORT
from ustack.tcp.options import SO_REUSEADDR, SOL_SOCKET

BOTH = pytest.mark.parametrize("profile", [LINUX_6, LINUX_310])


def shared(server: Host, reuseport: bool = True):
    """Return a socket bound to port 80."""
    sk = server.socket()
    sk.setsockopt(SOL_SOCKET, SO_REUSEPORT, int(reuseport))
    sk.bind(0, 80)
    return sk


def group(server: Host, count: int) -> list:
    """Return ``count`` listeners on port 80."""
    listeners = [shared(server) for _ in range(count)]
    for lsk in listeners:
        lsk.listen(1000)
    return listeners


def waiting(lsk) -> list[int]:
    """Return the ports of the peers on a listener's accept queue."""
    return [lsk._sk.prot.sock_of(child).tp.dport for child in lsk._sk.listen.accept_queue]


def test_five_listeners_share_a_hundred_connections():
    server = kernel()
    listeners = group(server, 5)
    for port in range(40_000, 40_100):
        server.peer(port=port).handshake()
    counts = [len(waiting(lsk)) for lsk in listeners]
    assert sum(counts) == 100
    assert all(8 <= count <= 35 for count in counts), counts


def test_a_flow_meets_the_same_listener_again():
    server = kernel()
    listeners = group(server, 4)
    found = Counter()
    peer = server.peer()
    for _ in range(2):
        peer.handshake()
        (index,) = [i for i, lsk in enumerate(listeners) if waiting(lsk)]
        found[index] += 1
        listeners[index].accept()
        peer.send("R 1:1(0)")
    assert list(found.values()) == [2]


def test_two_stacks_distribute_differently():
    """The hash is keyed: nobody outside can aim at one listener."""
    placed = []
    for secret in (b"a" * 16, b"b" * 16):
        server = kernel()
        server.stack.tcp.secret = secret
        listeners = group(server, 4)
        for port in range(40_000, 40_032):
            server.peer(port=port).handshake()
        placed.append([waiting(lsk) for lsk in listeners])
    assert placed[0] != placed[1]


@pytest.mark.parametrize(("first", "second"), [(False, False), (True, False), (False, True)])
def test_all_must_have_asked_for_it(first, second):
    server = kernel()
    shared(server, first).listen(5)
    with pytest.raises(OSError, match="Address already in use"):
        shared(server, second)


def test_the_exact_address_is_a_group_of_its_own():
    server = kernel()
    (anyone,) = group(server, 1)
    exact = server.socket()
    exact.setsockopt(SOL_SOCKET, SO_REUSEPORT, 1)
    exact.bind(server.addr, 80)
    exact.listen(5)
    server.peer().handshake()
    assert len(waiting(exact)) == 1 and not waiting(anyone)


@pytest.mark.linux("reuseport_detach_sock; net.ipv4.tcp_migrate_req is 0")
def test_a_member_that_closes_takes_its_own_connections_along_and_no_others():
    server = kernel()
    listeners = group(server, 3)
    peers = {port: server.peer(port=port) for port in range(40_000, 40_030)}
    for peer in peers.values():
        peer.handshake()
    lost = set(waiting(listeners[0]))
    listeners[0].close()
    reset = {port for port, peer in peers.items() if any(seg.flags & 4 for seg in peer.drain())}
    assert reset == lost and 0 < len(lost) < 30
    server.peer(port=50_000).handshake()
    assert sum(len(waiting(lsk)) for lsk in listeners[1:]) == 30 - len(lost) + 1


def test_new_flows_go_to_those_that_are_left():
    server = kernel()
    listeners = group(server, 3)
    listeners[1].close()
    for port in range(40_000, 40_040):
        server.peer(port=port).handshake()
    counts = [len(waiting(listeners[i])) for i in (0, 2)]
    assert sum(counts) == 40 and min(counts) > 5


def half_open(server: Host) -> list:
    """Return peers whose SYN is answered."""
    peers = [server.peer(port=40_000 + i) for i in range(40)]
    for peer in peers:
        peer.send(SYN)
        peer.expect("S. 0:0(0) ack 1")
    return peers


@pytest.mark.linux("TCP_NEW_SYN_RECV since 4.4: requests are in the established hash")
def test_linux_6_finds_a_request_though_the_group_has_grown():
    server = kernel()
    listeners = group(server, 2)
    peers = half_open(server)
    for _ in range(3):
        more = shared(server)
        more.listen(1000)
    for peer in peers:
        peer.send(". 1:1(0) ack 1")
        peer.expect_nothing()
    assert sum(len(waiting(lsk)) for lsk in listeners) == 40


@pytest.mark.linux("tcp_v4_hnd_req of 3.10: requests are in the listener's own table")
def test_310_resets_handshakes_that_a_grown_group_sends_elsewhere():
    server = kernel(LINUX_310)
    listeners = group(server, 2)
    peers = half_open(server)
    for _ in range(3):
        more = shared(server)
        more.listen(1000)
    for peer in peers:
        peer.send(". 1:1(0) ack 1")
    resets = sum(any(seg.flags & 4 for seg in peer.drain()) for peer in peers)
    assert 0 < resets < 40
    assert sum(len(waiting(lsk)) for lsk in listeners) == 40 - resets


@pytest.mark.linux("reuseport_migrate_sock: not without tcp_migrate_req")
@BOTH
def test_the_requests_of_a_member_that_closes_are_not_handed_on(profile):
    server = kernel(profile)
    listeners = group(server, 2)
    peers = half_open(server)
    lost = {key[3] for key in listeners[0]._sk.listen.syn_queue}
    listeners[0].close()
    assert syn_recv(server) == 40 - len(lost)
    for peer in peers:
        if peer.port in lost:
            peer.send(". 1:1(0) ack 1")
            peer.expect("R 1:1(0)")


def test_the_last_one_that_closes_frees_the_port():
    server = kernel()
    for lsk in group(server, 3):
        lsk.close()
    assert not server.stack.tcp.listening_hash and not server.stack.tcp.bhash
    peer = server.peer()
    peer.send(SYN)
    peer.expect("R. 0:0(0) ack 1")
    shared(server, reuseport=False).listen(5)


def test_each_has_queues_of_its_own():
    server = kernel(tcp_syncookies=0)
    for lsk in (shared(server), shared(server)):
        lsk.listen(2)
    answered = 0
    for port in range(40_000, 40_060):
        peer = server.peer(port=port)
        peer.send(SYN)
        answered += bool(peer.drain())
    assert answered == 6  # three for each


def test_a_port_may_be_bound_again_beside_children_that_live_on():
    server = kernel()
    (lsk,) = group(server, 1)
    peer = server.peer()
    peer.handshake()
    child = lsk.accept()
    lsk.close()
    group(server, 1)
    child.send(b"x")
    peer.expect("P. 1:2(1) ack 1")


def test_the_option_reads_back():
    sk = kernel().socket()
    assert sk.getsockopt(SOL_SOCKET, SO_REUSEPORT) == 0
    sk.setsockopt(SOL_SOCKET, SO_REUSEPORT, 7)
    assert sk.getsockopt(SOL_SOCKET, SO_REUSEPORT) == 1


@pytest.mark.linux("inet_csk_listen_start asks inet_csk_get_port again")
def test_who_may_only_bind_beside_it_may_not_listen_beside_it():
    server = kernel()
    socks = []
    for reuseport in (False, True):
        sk = server.socket()
        sk.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        sk.setsockopt(SOL_SOCKET, SO_REUSEPORT, int(reuseport))
        sk.bind(0, 80)
        socks.append(sk)
    socks[0].listen(5)
    with pytest.raises(OSError, match="Address already in use"):
        socks[1].listen(5)
