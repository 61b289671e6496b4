"""SYN queue and accept queue under pressure. RFC 9293 has no backlog: Linux specifies."""

from __future__ import annotations

import pytest


@pytest.mark.linux("tcp_v4_syn_recv_sock, sk_acceptq_is_full")
def test_third_ack_is_ignored_until_accept_makes_room(server):
    lsk = server.listen(backlog=1)  # Linux admits backlog + 1 children
    late = server.peer(port=40002)
    late.send("S 0:0(0) <mss 1460>")
    late.expect("S. 0:0(0) ack 1")
    for port in (40000, 40001):
        server.peer(port=port).handshake()  # they take both places

    late.send(". 1:1(0) ack 1")
    late.expect_nothing()  # neither RST nor child
    assert server.mib.ListenOverflows == 1
    assert server.mib.ListenDrops == 1

    lsk.accept()
    late.expect("S. 0:0(0) ack 1", within_us=1_100_000)  # the SYN-ACK timer
    late.send(". 1:1(0) ack 1")
    lsk.accept()
    assert lsk.accept().getpeername() == (late.addr, late.port)


@pytest.mark.linux("tcp_conn_request")
def test_a_syn_to_a_full_accept_queue_is_dropped(server):
    lsk = server.listen(backlog=1)
    for port in (40001, 40002):
        server.peer(port=port).handshake()
    third = server.peer(port=40003)
    third.send("S 0:0(0) <mss 1460>")
    third.expect_nothing(for_us=500_000)
    assert server.mib.ListenOverflows == 1 and server.mib.ListenDrops == 1
    lsk.accept()
    third.send("S 0:0(0) <mss 1460>")
    third.expect("S. 0:0(0) ack 1")


def test_children_are_accepted_in_the_order_of_their_third_ack(server):
    lsk = server.listen(backlog=10)
    peers = [server.peer(port=41000 + i) for i in range(3)]
    for peer in peers:
        peer.send("S 0:0(0) <mss 1460>")
        peer.expect("S. 0:0(0) ack 1")
    for peer in reversed(peers):
        peer.send(". 1:1(0) ack 1")
    ports = [lsk.accept().getpeername()[1] for _ in peers]
    assert ports == [41002, 41001, 41000]


def test_a_closed_listener_resets_the_children_that_nobody_accepted(server):
    lsk = server.listen()
    waiting, taken = server.peer(port=43001), server.peer(port=43002)
    taken.handshake()
    sk = lsk.accept()
    waiting.handshake()
    lsk.close()
    server.settle()
    waiting.expect("R. 1:1(0) ack 1")
    sk.send(b"still here")
    taken.expect("P. 1:11(10) ack 1")
    late = server.peer(port=43003)
    late.send("S 0:0(0) <mss 1460>")
    late.expect("R. 0:0(0) ack 1")
    assert server.stack.tcp.tcp_cache.info().active_objs == 1  # what was taken


def test_data_that_comes_before_accept_is_kept(server):
    lsk = server.listen()
    peer = server.peer()
    peer.handshake()
    peer.send("P. 1:6(5) ack 1", data=b"early")
    peer.expect(". 1:1(0) ack 6")
    assert lsk.accept().recv(10) == b"early"
