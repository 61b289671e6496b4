"""TCP_DEFER_ACCEPT: a connection is nobody's business until its data is there (tcp(7))."""

from __future__ import annotations

import pytest

from kit.host import Host
from kit.peer import Peer
from kit.queues import SECOND, SYN, kernel, syn_recv, times_s
from ustack.config import LINUX_6, LINUX_310
from ustack.tcp.listen_options import IPPROTO_TCP, TCP_DEFER_ACCEPT

BOTH = pytest.mark.parametrize("profile", [LINUX_6, LINUX_310])


def deferred(seconds: int, profile: str = LINUX_6, **tcp) -> tuple[Host, object, Peer]:
    """Return a listener that waits for data, and a peer who has sent a bare third ACK."""
    server = kernel(profile, **tcp)
    lsk = server.listen()
    lsk.setsockopt(IPPROTO_TCP, TCP_DEFER_ACCEPT, seconds)
    peer = server.peer()
    peer.handshake()
    return server, lsk, peer


@BOTH
def test_a_bare_third_ack_makes_no_child(profile):
    server, lsk, peer = deferred(5, profile)
    with pytest.raises(BlockingIOError):
        lsk.accept()
    assert syn_recv(server) == 1 and server.mib.TCPDeferAcceptDrop == 1
    assert server.stack.tcp.tcp_cache.info().active_objs == 1
    peer.expect_nothing()


@BOTH
def test_data_makes_it(profile):
    _, lsk, peer = deferred(5, profile)
    peer.send("P. 1:6(5) ack 1", data=b"hello")
    peer.expect(". 1:1(0) ack 6")
    assert lsk.accept().recv(10) == b"hello"


def test_data_with_the_third_ack_is_not_deferred():
    server = kernel()
    lsk = server.listen()
    lsk.setsockopt(IPPROTO_TCP, TCP_DEFER_ACCEPT, 5)
    peer = server.peer()
    peer.send(SYN)
    peer.expect("S. 0:0(0) ack 1")
    peer.send("P. 1:6(5) ack 1", data=b"hello")
    assert lsk.accept().recv(10) == b"hello"
    assert server.mib.TCPDeferAcceptDrop == 0


def test_a_fin_is_worth_as_much_as_data():
    _, lsk, peer = deferred(5)
    peer.send("F. 1:1(0) ack 1")
    assert lsk.accept().recv(1) == b""


@pytest.mark.linux("syn_ack_recalc: nothing is repeated while data is waited for")
@pytest.mark.parametrize(("seconds", "again_s"), [(1, 1), (3, 3), (7, 7), (15, 15)])
def test_one_syn_ack_more_at_the_end_of_the_time(seconds, again_s):
    """The timeout that ends the period is spent on a last chance: at 1, 1 + 2, 1 + 2 + 4 ..."""
    server, lsk, peer = deferred(seconds)
    syn_ack_at = server.world.now_us
    server.advance_us(again_s * SECOND + 1000)
    last = peer.drain()
    assert [round((seg.time_us - syn_ack_at) / SECOND) for seg in last] == [again_s]
    peer.send(". 1:1(0) ack 1")
    lsk.accept()


def test_without_data_and_without_an_ack_the_syn_ack_is_repeated_as_ever():
    server = kernel()
    lsk = server.listen()
    lsk.setsockopt(IPPROTO_TCP, TCP_DEFER_ACCEPT, 5)
    peer = server.peer()
    peer.send(SYN)
    server.advance_us(70 * SECOND)
    assert times_s(peer) == [0, 1, 3, 7, 15, 31]
    assert syn_recv(server) == 0


def test_a_deferral_longer_than_the_retries_keeps_an_acknowledged_request():
    server, lsk, peer = deferred(60, tcp_synack_retries=1)
    server.advance_us(20 * SECOND)
    assert syn_recv(server) == 1
    peer.drain()
    peer.send("P. 1:6(5) ack 1")
    lsk.accept()


def test_who_never_says_anything_is_forgotten_at_last():
    server, _, peer = deferred(3, tcp_synack_retries=2)
    server.advance_us(60 * SECOND)
    assert syn_recv(server) == 0
    peer.drain()
    peer.send("P. 1:6(5) ack 1")
    peer.expect("R 1:1(0)")


@pytest.mark.linux("secs_to_retrans, retrans_to_secs")
@pytest.mark.parametrize(
    ("asked", "got"),
    [(0, 0), (-5, 0), (1, 1), (2, 3), (3, 3), (4, 7), (8, 15), (100, 127), (128, 247)],
)
def test_the_time_is_rounded_up_to_whole_timeouts(asked, got):
    lsk = kernel().socket()
    lsk.setsockopt(IPPROTO_TCP, TCP_DEFER_ACCEPT, asked)
    assert lsk.getsockopt(IPPROTO_TCP, TCP_DEFER_ACCEPT) == got


def test_it_may_be_set_before_listen_and_taken_back():
    server = kernel()
    lsk = server.socket()
    lsk.setsockopt(IPPROTO_TCP, TCP_DEFER_ACCEPT, 5)
    lsk.bind(0, 80)
    lsk.listen(5)
    server.peer().handshake()
    assert server.mib.TCPDeferAcceptDrop == 1
    lsk.setsockopt(IPPROTO_TCP, TCP_DEFER_ACCEPT, 0)
    server.peer().handshake()
    lsk.accept()
    assert server.mib.TCPDeferAcceptDrop == 1


@BOTH
@pytest.mark.linux("tcp_check_req: listen_overflow: inet_rsk(req)->acked = 1")
def test_who_was_turned_away_for_want_of_room_has_acknowledged(profile):
    """So his SYN-ACK is repeated at the end of the time alone."""
    server = kernel(profile)
    lsk = server.listen(backlog=0)
    lsk.setsockopt(IPPROTO_TCP, TCP_DEFER_ACCEPT, 3)
    late = server.peer(port=40_002)
    late.send(SYN)
    late.expect("S. 0:0(0) ack 1")
    first = server.peer(port=40_001)
    first.handshake()
    first.send("P. 1:2(1) ack 1", data=b"x")  # takes the only place
    late.send("P. 1:2(1) ack 1", data=b"x")
    server.advance_us(2_900_000)
    late.expect_nothing()
    server.advance_us(1_000_000)
    late.expect("S. 0:0(0) ack 1")
