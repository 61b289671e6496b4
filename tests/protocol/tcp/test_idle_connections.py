"""Idle connections beyond net.ustack.tcp_live_socks are a C control block and nothing else."""

from __future__ import annotations

import contextlib
import errno
from dataclasses import replace
from typing import Any

import pytest

from kit.host import TEST_CONFIG, Host, host
from ustack.config import UstackConfig
from ustack.inet.sockets import MSG_PEEK, InetSocket
from ustack.lib.addresses import parse_ipv4
from ustack.sock.sock import Sock
from ustack.sock.wait import (
    EPOLLERR,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    EPOLLRDHUP,
    EPOLLRDNORM,
    EPOLLWRNORM,
    WaitEntry,
)
from ustack.tcp import fast, park
from ustack.tcp.park import NOTHING, OPTIONS
from ustack.tcp.sendmsg import REF_BYTES
from ustack.tcp.sock import TcpSock

IDLE_US = 2_000_000
NO_OBJECTS = replace(TEST_CONFIG, ustack=UstackConfig(tcp_live_socks=1))
"""But for the listener's."""

MADE_AGAIN = {
    "bind_bucket", "ca_priv", "drops", "dst", "keepalive_timer", "prot", "tp", "wq",
}  # fmt: skip


def parked(count: int = 1) -> tuple[Host, Any, list[Any], list[Any]]:
    """A listener, and connections that have been accepted and then idled."""
    h = host(NO_OBJECTS)
    lsk = h.listen()
    peers = [h.peer(port=40_000 + i) for i in range(count)]
    socks = []
    for peer in peers:
        peer.handshake()
        socks.append(lsk.accept())
    h.advance_us(IDLE_US)
    return h, lsk, peers, socks


def objects(h: Host) -> int:
    """How many sockets have an object: the listener always has."""
    return len(h.stack.tcp.socks)


def test_an_idle_connection_has_no_object_and_no_timer():
    h, _, _, _ = parked(5)
    assert objects(h) == 1
    assert len(h.stack.tcp.ehash) == 5
    assert not h.stack.tcp.parking.watching


def test_those_that_tell_the_same_of_their_events_share_their_options(monkeypatch):
    monkeypatch.setattr(park, "COMBINATIONS_MAX", 2)
    h = host(NO_OBJECTS)
    lsk = h.listen()
    told: list[Any] = []

    def tell(sock: InetSocket, _events: int) -> None:
        told.append(sock.handle)

    peers = [h.peer(port=40_000 + i) for i in range(5)]
    for peer in peers:
        peer.handshake()
        lsk.accept().set_upcall(tell)
    h.advance_us(IDLE_US)
    assert objects(h) == 1
    peers[2].send("P. 1:101(100) ack 1")
    assert len(told) == 1


def test_below_the_limit_all_objects_stay():
    h = host()
    h.listen()
    h.peer().handshake()
    h.advance_us(IDLE_US)
    assert objects(h) == 2
    assert not h.stack.tcp.parking.watching


def test_data_for_it_is_delivered_and_acknowledged_without_an_object():
    h, _, peers, socks = parked(3)
    peers[1].send("P. 1:101(100) ack 1")
    peers[1].expect(". 1:1(0) ack 101")
    assert socks[1].poll() == EPOLLIN | EPOLLRDNORM | EPOLLOUT | EPOLLWRNORM
    assert len(socks[1].recv(50)) == socks[1].recv_into(bytearray(100)) == 50
    assert objects(h) == 1


def test_what_the_application_sends_goes_out_without_an_object():
    h, _, peers, socks = parked(3)
    assert socks[2].send(b"x" * 10) == 10
    peers[2].expect("P. 1:11(10) ack 1")
    peers[2].send(". 1:1(0) ack 11")
    assert objects(h) == 1
    assert socks[2].send_queue_empty()


def test_what_is_not_acknowledged_is_repeated():
    h, _, peers, socks = parked()
    socks[0].send(b"x" * 10)
    peers[0].expect("P. 1:11(10) ack 1")
    peers[0].expect("P. 1:11(10) ack 1", within_us=500_000)
    assert objects(h) == 2
    peers[0].send(". 1:1(0) ack 11")


def test_a_delayed_ack_needs_no_object():
    h, _, peers, socks = parked()
    for start in range(1, 41):  # till the quick ACKs are used up
        peers[0].send(f"P. {start}:{start + 1}(1) ack 1")
        h.advance_us(1000)
    h.advance_us(100_000)
    peers[0].drain()
    assert len(socks[0].recv(1000)) == 40
    peers[0].send("P. 41:42(1) ack 1")
    peers[0].expect_nothing()
    peers[0].expect(". 1:1(0) ack 42", within_us=250_000)
    assert objects(h) == 1


def test_with_more_routes_than_are_kept_the_object_is_made_for_a_segment(monkeypatch):
    monkeypatch.setattr(fast, "KEPT_MAX", 0)
    h = host(NO_OBJECTS)
    h.stack.tcp.fast.begin_by = lambda _: None
    lsk = h.listen()
    peer = h.peer()
    peer.handshake()
    sock = lsk.accept()
    h.advance_us(IDLE_US)
    assert objects(h) == 1
    peer.send("P. 1:101(100) ack 1")
    peer.expect(". 1:1(0) ack 101")
    assert objects(h) == 2
    assert len(sock.recv(1000)) == 100


def test_it_goes_on_when_the_routes_have_changed():
    h, _, peers, socks = parked()
    h.stack.ip.add_route(parse_ipv4("10.9.0.0"), 16, 0, h.adapter)
    assert socks[0].send(b"x" * 10) == 10
    peers[0].expect("P. 1:11(10) ack 1")
    assert objects(h) == 2


def test_who_peeks_at_an_offset_does_so_afterwards():
    h, _, peers, socks = parked()
    socks[0].setsockopt(1, 42, 1)  # SO_PEEK_OFF
    h.advance_us(IDLE_US)
    assert objects(h) == 1
    peers[0].send("P. 1:4(3) ack 1", data=b"abc")
    assert socks[0].recv(1, MSG_PEEK) == b"b"
    assert socks[0].recv(1, MSG_PEEK) == b"c"


def told_and_parked() -> tuple[Host, Any, Any, list[tuple[Any, int]]]:
    """A connection that idles, and the list of what is told of it."""
    h, _, peers, socks = parked()
    told: list[tuple[Any, int]] = []
    socks[0].set_upcall(lambda sock, events: told.append((sock, events)))
    h.advance_us(IDLE_US)
    assert objects(h) == 1
    return h, peers[0], socks[0], told


def test_who_is_told_of_text_needs_no_object_to_read_answer_and_close():
    h, peer, sock, told = told_and_parked()
    peer.send("P. 1:101(100) ack 1")
    peer.expect(". 1:1(0) ack 101")
    ((other, events),) = told
    assert other.handle == sock.handle and events & EPOLLIN
    assert len(other.recv(1000)) == 100
    other.send(b"x" * 10)
    peer.expect("P. 1:11(10) ack 101")
    peer.send("F. 101:101(0) ack 11")
    other, events = told[1]
    assert len(told) == 2 and events & EPOLLRDHUP
    assert other.recv_into(bytearray(10)) == 0
    other.close()
    peer.expect("F. 11:11(0) ack 102")
    assert objects(h) == 1
    peer.send(". 102:102(0) ack 12")
    assert not h.stack.tcp.ehash
    assert h.stack.tcp.orphan_count == 0


def test_who_waits_for_room_is_told_of_it():
    _, peer, sock, told = told_and_parked()
    left, acked = 300_000, 1
    for _ in range(20):
        with contextlib.suppress(BlockingIOError):
            while left:
                left -= sock.send(bytes(left))
        del told[:]
        acked += sum(len(seg.payload) for seg in peer.drain())
        peer.send(f". 1:1(0) ack {acked}")
        if not left:
            break
        assert acked < 40_000 or any(events & EPOLLOUT for _, events in told)
    assert not left


def other_object(h: Host, sk: Any) -> InetSocket:
    """Another object for the connection of ``sk``, as an upcall brings one each time."""
    return InetSocket(h.stack.tcp, sk.handle)


@pytest.mark.parametrize("idle", [False, True])
def test_an_object_whose_connection_was_closed_through_another_is_closed(idle):
    h, _, peers, socks = parked()
    kept = other_object(h, socks[0])
    peers[0].send("P. 1:101(100) ack 1")  # unread: the close is a reset, and leaves nothing
    socks[0].close()
    assert kept.poll() == EPOLLERR | EPOLLHUP
    assert not kept.established
    if idle:
        h.advance_us(IDLE_US)
    for call in (lambda: kept.send(b"x"), lambda: kept.recv(1), kept.getpeername):
        with pytest.raises(OSError) as error:
            call()
        assert error.value.errno == errno.EBADF
    kept.close()


def test_an_orphan_cannot_be_reached_through_an_object_that_was_kept():
    h, _, _, socks = parked()
    kept = other_object(h, socks[0])
    socks[0].close()  # FIN_WAIT1: the protocol's socket lives on
    with pytest.raises(OSError) as error:
        kept.send(b"x")
    assert error.value.errno == errno.EBADF
    kept.close()
    assert h.stack.tcp.orphan_count == 1


def test_an_object_that_was_kept_does_not_reach_who_has_the_memory_now():
    h, lsk, peers, socks = parked()
    kept = other_object(h, socks[0])
    peers[0].send("R. 1:1(0) ack 1")
    place = socks[0]._sk.tp.place
    socks[0].close()
    late = h.peer(port=41_000)
    late.handshake()
    heir = lsk.accept()
    assert heir._sk.tp.place == place
    assert heir.handle != kept.handle
    with pytest.raises(OSError) as error:
        kept.send(b"x")
    assert error.value.errno == errno.EBADF
    kept.close()
    heir.send(b"x")
    late.expect("P. 1:2(1) ack 1")


def test_text_that_waits_for_its_reader_waits_in_c():
    h, _, peers, socks = parked()
    peers[0].send("P. 1:101(100) ack 1")
    h.advance_us(IDLE_US)
    assert objects(h) == 1
    assert socks[0].poll() & EPOLLIN
    assert len(socks[0].recv(1000)) == 100


def test_who_reads_into_a_buffer_of_his_own_needs_no_object_either():
    h, _, peers, socks = parked()
    buffer = bytearray(1000)
    assert socks[0].recv_into_now(buffer) == 0
    peers[0].send("P. 1:101(100) ack 1")
    assert socks[0].recv_into_now(buffer) == 100
    assert objects(h) == 1


def test_much_that_cannot_change_is_sent_from_where_it_lies_without_an_object():
    h, _, _, socks = parked()
    assert socks[0].send(bytes(REF_BYTES)) == REF_BYTES
    assert objects(h) == 1
    assert (h.stack.tcp.ref_bytes, h.stack.tcp.copied_bytes) == (REF_BYTES, 0)


def test_a_writer_who_waits_for_room_is_woken_by_an_object_that_is_made_meanwhile():
    h, _, peers, socks = parked()
    socks[0].send(bytes(1 << 20))
    assert not socks[0].poll() & EPOLLOUT
    woken: list[int] = []
    socks[0].wq.add(WaitEntry(woken.append))
    assert objects(h) == 1
    assert socks[0]._sk.nospace
    assert objects(h) == 2
    peers[0].send(f". 1:1(0) ack {1 + 10 * 1460}")
    assert any(events & EPOLLOUT for events in woken)


def test_a_connection_that_nobody_has_accepted_idles_as_well():
    h = host(NO_OBJECTS)
    lsk = h.listen()
    peer = h.peer()
    peer.handshake()
    h.advance_us(IDLE_US)
    assert objects(h) == 1
    assert lsk.accept().getpeername() == (peer.addr, peer.port)


def test_a_reset_is_the_error_of_the_next_call():
    _, _, peers, socks = parked()
    peers[0].send("R 1:1(0)")
    with pytest.raises(ConnectionResetError):
        socks[0].recv(1)


def test_a_fin_is_the_end_of_the_stream():
    h, _, peers, socks = parked()
    peers[0].send("F. 1:1(0) ack 1")
    peers[0].expect(". 1:1(0) ack 2")
    h.advance_us(IDLE_US)
    assert objects(h) == 1  # CLOSE_WAIT idles, too
    assert socks[0].recv(1) == b""
    socks[0].close()
    peers[0].expect("F. 1:1(0) ack 2")
    peers[0].send(". 2:2(0) ack 2")
    assert not h.stack.tcp.ehash


def test_its_options_are_as_they_were():
    h, _, _, socks = parked(2)
    socks[0].setsockopt(1, 18, 7)  # SO_RCVLOWAT
    socks[0].setsockopt(6, 18, 30_000)  # TCP_USER_TIMEOUT
    h.advance_us(IDLE_US)
    assert objects(h) == 1
    assert socks[0].getsockopt(1, 18) == 7
    assert socks[0].getsockopt(6, 18) == 30_000
    assert socks[1].getsockopt(1, 18) == 1


def test_congestion_control_remembers():
    h, _, peers, socks = parked()
    socks[0].send(b"x" * 10)
    peers[0].expect("P. 1:11(10) ack 1")
    h.advance_us(20_000)
    peers[0].send(". 1:1(0) ack 11")
    known = socks[0]._sk.tp.bictcp.delay_min_us
    assert known
    h.advance_us(2_000_000)
    assert objects(h) == 1
    assert socks[0]._sk.tp.bictcp.delay_min_us == known


def test_who_waits_for_it_is_woken_without_an_object_and_with_one():
    h, _, peers, socks = parked(2)
    woken: list[int] = []
    entry = WaitEntry(lambda events: bool(woken.append(events)))
    socks[0].wq.add(entry)
    peers[0].send("P. 1:2(1) ack 1")
    assert objects(h) == 1
    assert len(woken) == 1 and woken[0] & EPOLLIN
    socks[0].setsockopt(1, 9, 1)  # SO_KEEPALIVE makes it
    assert objects(h) == 2
    peers[0].send("P. 2:3(1) ack 1")
    assert len(woken) == 2
    socks[0].wq.remove(entry)
    peers[0].send("P. 3:4(1) ack 1")
    assert len(woken) == 2


def test_who_waits_is_told_of_a_reset_too():
    _, _, peers, socks = parked()
    woken: list[int] = []
    socks[0].wq.add(WaitEntry(lambda events: bool(woken.append(events))))
    peers[0].send("R 1:1(0)")
    assert woken[-1] & EPOLLERR or woken[-1] & EPOLLHUP


def test_names_and_the_usual_options_need_no_object():
    h, _, peers, socks = parked()
    assert socks[0].getpeername() == (peers[0].addr, peers[0].port)
    assert socks[0].getsockname()[0] == h.addr
    assert socks[0].linger_s is None
    socks[0].setsockopt(6, 1, 1)  # TCP_NODELAY
    assert objects(h) == 1
    assert socks[0].getsockopt(6, 1) == 1


def test_the_end_of_the_stream_needs_no_object():
    h, _, peers, socks = parked()
    peers[0].send("FP. 1:4(3) ack 1", data=b"end")
    assert socks[0].poll() == (EPOLLIN | EPOLLRDNORM | EPOLLRDHUP | EPOLLOUT | EPOLLWRNORM)
    assert socks[0].recv(10) == b"end"
    assert socks[0].recv(10) == b""
    assert objects(h) == 1


def test_with_a_timer_or_data_in_flight_the_object_stays():
    h, _, peers, socks = parked(3)
    socks[0].setsockopt(1, 9, 1)  # SO_KEEPALIVE
    socks[1].send(b"x")
    h.advance_us(IDLE_US)
    assert objects(h) == 3
    peers[1].expect("P. 1:2(1) ack 1")


def test_the_port_is_taken_while_a_connection_idles():
    h, lsk, _, socks = parked()
    lsk.close()
    with pytest.raises(OSError) as refused:
        h.listen()
    assert refused.value.errno == errno.EADDRINUSE
    socks[0].close()


def test_so_reuseaddr_of_a_connection_counts_as_it_is_now():
    h, lsk, _, socks = parked()
    lsk.close()
    again = h.socket()
    again.setsockopt(1, 2, 1)
    with pytest.raises(OSError):
        again.bind(0, 80)
    socks[0].setsockopt(1, 2, 1)
    again.bind(0, 80)


def test_ss_shows_it():
    h, _, _, _ = parked(2)
    rows = [row for row in h.stack.tcp.diag() if row["state"] == "ESTAB"]
    assert len(rows) == 2
    assert {row["congestion"] for row in rows} == {"cubic"}


def test_objects_that_came_again_go_again():
    h, _, peers, _ = parked(4)
    for peer in peers:
        peer.send("P. 2:3(1) ack 1")  # something is missing before it
        peer.send("P. 1:2(1) ack 1")
    assert objects(h) == 5
    h.advance_us(IDLE_US)
    assert objects(h) == 1


def test_those_that_cannot_go_are_looked_at_less_and_less_often():
    h, _, _, socks = parked(2)
    for sk in socks:
        sk.wq.add(WaitEntry(lambda _: False))
    h.advance_us(10_000_000)
    looked = h.stack.tcp.parking.passes
    h.advance_us(60_000_000)
    assert h.stack.tcp.parking.passes - looked <= 3


def test_every_attribute_of_the_object_is_accounted_for():
    slots = {name for cls in (TcpSock, Sock) for name in cls.__slots__}
    assert slots == {*OPTIONS, *NOTHING, *MADE_AGAIN}
