"""Timestamps: echoed as RFC 7323 says, and used to throw old duplicates away (PAWS)."""

from __future__ import annotations

import pytest

TS = "mss 1460,sackOK,TS val 1000 ecr 0,nop,wscale 7"


def start(server):
    """Return an accepted socket and its peer, timestamps in use."""
    lsk = server.listen()
    peer = server.peer()
    peer.handshake(TS, ts="nop,nop,TS val 1001 ecr *")
    return lsk.accept(), peer


@pytest.mark.rfc("7323", "3.2")
def test_every_segment_carries_our_clock_and_echoes_the_peers(server):
    sk, peer = start(server)
    peer.send("P. 1:11(10) ack 1 <nop,nop,TS val 1005 ecr *>")
    peer.expect(". 1:1(0) ack 11 <nop,nop,TS val * ecr 1005>")
    sk.send(b"x")
    peer.expect("P. 1:2(1) ack 11 <nop,nop,TS val * ecr 1005>")


@pytest.mark.linux("tcp_time_stamp: 1 ms")
def test_the_clock_ticks_once_a_millisecond(server):
    _, peer = start(server)
    peer.send("P. 1:11(10) ack 1 <nop,nop,TS val 1005 ecr *>")
    first = peer.expect(". 1:1(0) ack 11").option("TS")[0]
    server.advance_us(250_000)
    peer.send("P. 11:21(10) ack 1 <nop,nop,TS val 1010 ecr *>")
    later = peer.expect(". 1:1(0) ack 21", within_us=1).option("TS")[0]
    assert later - first == 250


@pytest.mark.rfc("7323", "4.3")
def test_the_echo_is_of_the_segment_that_is_acknowledged(server):
    """Not of one beyond a hole: the RTT would come out too short."""
    _, peer = start(server)
    peer.send(". 101:201(100) ack 1 <nop,nop,TS val 1020 ecr *>")
    assert peer.expect(". 1:1(0) ack 1").option("TS")[1] == 1001
    peer.send(". 1:101(100) ack 1 <nop,nop,TS val 1010 ecr *>")
    assert peer.expect(". 1:1(0) ack 201").option("TS")[1] == 1010


@pytest.mark.rfc("7323", "5.3")
def test_an_old_duplicate_is_dropped_and_answered(server):
    sk, peer = start(server)
    peer.send("P. 1:11(10) ack 1 <nop,nop,TS val 5000 ecr *>")
    peer.expect(". 1:1(0) ack 11")
    sk.recv(100)
    peer.send("P. 11:21(10) ack 1 <nop,nop,TS val 4000 ecr *>")
    peer.expect(". 1:1(0) ack 11 <nop,nop,TS val * ecr 5000>")
    with pytest.raises(BlockingIOError):
        sk.recv(10)
    assert server.mib.PAWSEstab == 1


@pytest.mark.rfc("7323", "5.2")
def test_a_reset_is_not_held_up_by_its_timestamp(server):
    sk, peer = start(server)
    peer.send("P. 1:11(10) ack 1 <nop,nop,TS val 5000 ecr *>")
    peer.expect(". 1:1(0) ack 11")
    peer.send("R 11:11(0) <nop,nop,TS val 1 ecr *>")
    sk.recv(10)
    with pytest.raises(ConnectionResetError):
        sk.recv(10)


@pytest.mark.rfc("7323", "5.4")
def test_the_clock_starts_elsewhere_for_another_peer(server):
    server.listen()
    values = set()
    for last in (1, 5, 6):
        peer = server.peer(addr=f"10.0.0.{last + 10}")
        peer.send(f"S 0:0(0) <{TS}>")
        values.add(peer.expect("S. 0:0(0) ack 1").option("TS")[0])
    assert len(values) == 3
