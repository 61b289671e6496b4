"""E-ACCQ and E-3ACK: the accept queue, full at the SYN and full at the third ACK."""

from __future__ import annotations

import pytest

from kit.host import Host
from kit.peer import Peer
from kit.queues import SECOND, SYN, flood, kernel, syn_recv, sysctl, times_s
from ustack.config import LINUX_6, LINUX_310

BOTH = pytest.mark.parametrize("profile", [LINUX_6, LINUX_310])


def overflow(server: Host) -> Peer:
    """SYN1 SYN2 ACK1 SYN3 ACK2 ACK3 to a backlog of 1; return the third, who comes too late."""
    first, second, late = (server.peer(port=40_000 + i) for i in range(3))
    for peer in (first, second):
        peer.send(SYN)
        peer.expect("S. 0:0(0) ack 1")
    first.send(". 1:1(0) ack 1")
    late.send(SYN)
    late.expect("S. 0:0(0) ack 1")
    second.send(". 1:1(0) ack 1")
    late.send(". 1:1(0) ack 1")
    return late


def accepted(lsk) -> list[int]:
    """Take all that wait; return their ports."""
    ports = []
    while True:
        try:
            ports.append(lsk.accept().getpeername()[1])
        except BlockingIOError:
            return ports


@pytest.mark.linux("sk_acceptq_is_full: measured on 6.18")
@BOTH
@pytest.mark.parametrize(("backlog", "children"), [(0, 1), (1, 2), (3, 4), (5, 6)])
def test_one_child_more_than_the_limit_waits(profile, backlog, children):
    server = kernel(profile)
    lsk = server.listen(backlog=backlog)
    for i in range(children):
        server.peer(port=40_000 + i).handshake()
    late = server.peer(port=50_000)
    late.send(SYN)
    late.drain()
    late.send(". 1:1(0) ack 1") if late.host_iss else None
    (row,) = [row for row in server.stack.tcp.diag() if row["state"] == "LISTEN"]
    assert (row["recv_q"], row["send_q"]) == (children, backlog)
    assert accepted(lsk) == [40_000 + i for i in range(children)]


@pytest.mark.linux("tcp_conn_request since 4.10")
def test_linux_6_drops_a_syn_whenever_the_accept_queue_is_full():
    server = kernel()
    server.listen(backlog=5)
    for i in range(6):
        server.peer(port=40_000 + i).handshake()
    assert not flood(server, 3)
    assert server.mib.ListenOverflows == server.mib.ListenDrops == 3


@pytest.mark.linux("tcp_v4_conn_request of 3.10: inet_csk_reqsk_queue_young > 1")
def test_310_answers_syns_on_a_full_accept_queue_until_two_are_young():
    server = kernel(LINUX_310)
    server.listen(backlog=5)
    for i in range(6):
        server.peer(port=40_000 + i).handshake()
    assert len(flood(server, 5)) == 2
    assert server.mib.ListenOverflows == server.mib.ListenDrops == 3
    server.advance_us(2 * SECOND)  # their SYN-ACKs are repeated: they are young no more
    assert len(flood(server, 5, 21_000)) == 2
    assert server.mib.ListenOverflows == 6


@pytest.mark.parametrize("fastpath", [0, 1])
def test_what_was_accepted_ahead_of_its_application_counts_until_that_has_it(fastpath):
    server = kernel()
    sysctl(server, "net.ustack.tcp_fastpath", fastpath)
    lsk = server.listen(backlog=2)
    ahead = []
    for i in range(3):
        server.peer(port=40_000 + i).handshake()
        ahead.append(lsk.accept())
        lsk.count_ahead(lambda: len(ahead))
    assert not flood(server, 1)
    assert server.mib.ListenOverflows == 1
    for i in range(4):
        ahead.pop(0)  # nobody says so
        server.peer(port=50_000 + i).handshake()
        ahead.append(lsk.accept())
        lsk.count_ahead(lambda: len(ahead))
    assert not flood(server, 1, 21_000)
    assert server.mib.ListenOverflows == 2


@BOTH
def test_accept_makes_room_for_the_next_syn(profile):
    server = kernel(profile)
    lsk = server.listen(backlog=0)
    server.peer(port=40_000).handshake()
    lsk.accept()
    server.peer(port=40_001).handshake()
    assert accepted(lsk) == [40_001]
    assert server.mib.ListenOverflows == 0


@pytest.mark.linux("tcp_v4_syn_recv_sock: exit_overflow")
@BOTH
def test_a_third_ack_on_a_full_accept_queue_is_ignored_and_so_is_the_data(profile):
    server = kernel(profile)
    lsk = server.listen(backlog=1)
    late = overflow(server)
    late.send("P. 1:6(5) ack 1", data=b"hello")
    late.expect_nothing()
    assert server.mib.ListenOverflows == server.mib.ListenDrops == 2  # with and without data
    assert syn_recv(server) == 1
    assert len(accepted(lsk)) == 2
    late.send("P. 1:6(5) ack 1", data=b"hello")
    late.expect(". 1:1(0) ack 6")
    assert lsk.accept().recv(10) == b"hello"


@pytest.mark.linux("tcp_check_req: acked")
@BOTH
def test_the_syn_ack_is_repeated_until_there_is_room(profile):
    server = kernel(profile)
    server.listen(backlog=1)
    late = overflow(server)
    server.advance_us(8 * SECOND)
    if profile == LINUX_6:
        assert times_s(late) == [0, 2, 6]  # one, three and seven seconds after the first
    else:
        assert len(late.drain()) == 3  # within half a second of it


@pytest.mark.linux("tcp_check_req: tcp_abort_on_overflow")
@BOTH
def test_abort_on_overflow_resets_instead(profile):
    server = kernel(profile, tcp_abort_on_overflow=True)
    lsk = server.listen(backlog=1)
    late = overflow(server)
    late.expect("R 1:1(0)")
    assert server.mib.EmbryonicRsts == 1 and syn_recv(server) == 0
    assert server.mib.ListenOverflows == server.mib.ListenDrops == 1
    assert server.mib.AttemptFails == 0
    assert len(accepted(lsk)) == 2


def test_abort_on_overflow_is_looked_at_when_the_ack_comes():
    server = kernel()
    server.listen(backlog=1)
    late = overflow(server)
    late.expect_nothing()
    sysctl(server, "net.ipv4.tcp_abort_on_overflow", 1)
    late.send(". 1:1(0) ack 1")
    late.expect("R 1:1(0)")


@BOTH
def test_a_second_listen_with_a_larger_backlog_lets_them_in(profile):
    server = kernel(profile)
    lsk = server.listen(backlog=1)
    late = overflow(server)
    lsk.listen(2)
    late.send(". 1:1(0) ack 1")
    assert accepted(lsk) == [40_000, 40_001, 40_002]


def test_a_smaller_backlog_takes_nobody_away():
    server = kernel()
    lsk = server.listen(backlog=5)
    for i in range(4):
        server.peer(port=40_000 + i).handshake()
    lsk.listen(0)
    assert not flood(server, 1)
    assert len(accepted(lsk)) == 4


def test_the_child_exists_before_it_is_accepted():
    server = kernel()
    server.listen()
    before = server.stack.tcp.tcp_cache.info().active_objs
    server.peer().handshake()
    assert server.stack.tcp.tcp_cache.info().active_objs == before + 1


def test_a_child_that_the_peer_has_reset_is_still_accepted():
    """Linux leaves it on the queue; the application learns it from the socket."""
    server = kernel()
    lsk = server.listen()
    peer = server.peer()
    peer.handshake()
    peer.send("R 1:1(0)")
    with pytest.raises(ConnectionResetError):
        lsk.accept().recv(1)


def test_a_child_that_has_closed_before_accept_has_its_data():
    server = kernel()
    lsk = server.listen()
    peer = server.peer()
    peer.handshake()
    peer.send("FP. 1:6(5) ack 1", data=b"hello")
    sk = lsk.accept()
    assert (sk.recv(10), sk.recv(10)) == (b"hello", b"")


@BOTH
def test_a_listener_that_shuts_down_resets_its_children(profile):
    server = kernel(profile)
    lsk = server.listen()
    peer = server.peer()
    peer.handshake()
    lsk.shutdown(2)
    peer.expect("R. 1:1(0) ack 1")
    with pytest.raises(OSError, match="Invalid argument"):
        lsk.accept()
    assert server.mib.CurrEstab == 0


def test_a_refused_third_ack_leaves_no_socket_behind():
    server = kernel()
    server.listen(backlog=1)
    late = overflow(server)
    before = server.stack.tcp.tcp_cache.info().active_objs
    late.send(". 1:1(0) ack 1")
    assert server.stack.tcp.tcp_cache.info().active_objs == before == 3
