"""``ustack show rqueue|ofo|wqueue|waitq`` of a host whose peers are scripted."""

from __future__ import annotations

import pytest

from kit.host import Host, host
from ustack.daemon.show import show_lines
from ustack.eventpoll.eventpoll import EventPoll
from ustack.sock.wait import EPOLLIN, WaitEntry

SACK = "mss 1460,nop,nop,sackOK"


@pytest.fixture
def server() -> Host:
    return host()


def show(server: Host, what: str, port: int = 0) -> list[str]:
    """Return the table's lines, the names of sockets left out."""
    return [line for line in show_lines(server.stack, what, port) if line.startswith(" ")]


def test_a_socket_with_nothing_on_its_queue_is_not_listed(server: Host):
    server.established()
    assert all(
        not list(show_lines(server.stack, what)) for what in ("rqueue", "ofo", "wqueue", "waitq")
    )


def test_the_receive_queue_has_what_recv_has_not_taken(server: Host):
    sk, peer = server.established()
    peer.send("P. 1:101(100) ack 1")
    sk.recv(30)
    assert list(show_lines(server.stack, "rqueue")) == [
        f"10.0.0.2:80 10.0.0.1:{peer.port}",
        "  31:101(70) memory 4096",
    ]


def test_segments_beyond_a_hole_and_the_blocks_that_report_them(server: Host):
    _, peer = server.established(SACK)
    peer.send(". 101:201(100) ack 1")
    peer.send("F. 301:401(100) ack 1")
    assert show(server, "ofo") == [
        "  rcv_nxt 1",
        "  101:201(100)",
        "  301:402(101) fin",
        "  sack 301:402(101) 101:201(100)",
    ]


def test_the_write_queue_has_what_is_in_flight_and_what_is_not_sent(server: Host):
    sk, peer = server.established(win=2920)
    sk.send(bytes(5000))
    peer.drain()
    server.advance_us(50)
    assert show(server, "wqueue") == [
        "  1:2921(2920) 2 x mss 1460 sent 50 us ago",
        "  2921:5001(2080) not sent",
    ]


def test_the_write_queue_says_what_was_lost_and_what_has_arrived(server: Host):
    sk, peer = server.established(SACK)
    sk.send(bytes(14600))
    peer.drain()
    peer.send(". 1:1(0) ack 1 <nop,nop,sack 1461:2921>")
    peer.send(". 1:1(0) ack 1 <nop,nop,sack 1461:4381>")
    peer.send(". 1:1(0) ack 1 <nop,nop,sack 1461:5841>")
    marks = [line.split(" ago")[1] for line in show(server, "wqueue")]
    assert marks[:2] == [" lost repeated ever repeated", " sacked"]


def test_looking_at_the_write_queue_changes_nothing(server: Host):
    sk, _ = server.established()
    sk.send(bytes(5000))
    before = show(server, "wqueue")
    assert show(server, "wqueue") == before
    assert sk._sk.rtx is None


def test_the_wait_queue_names_the_functions_that_would_be_called(server: Host):
    lsk = server.listen(8000)
    ep = EventPoll()
    ep.add("any key", lsk, EPOLLIN)

    def woken(events: int) -> bool:
        return bool(events)

    lsk.wq.add(WaitEntry(woken, exclusive=True))
    assert [line.split(".")[-1].strip() for line in show(server, "waitq")] == [
        "ep_poll_callback",
        "woken exclusive",
    ]


def test_a_port_chooses_among_the_sockets(server: Host):
    sk, _ = server.established()
    sk.send(b"x")
    assert show(server, "wqueue", 80)
    assert not show(server, "wqueue", 81)
