"""What came twice is reported (RFC 2883), and which blocks SACK carries: each as Linux 6 does it.

The dialogues were held with a Linux 6.18 listener; ours must give the same answers.
"""

from __future__ import annotations

import pytest

from kit.host import TEST_CONFIG, host
from kit.segment import pattern
from ustack.config import TcpConfig

SACK = "mss 1460,nop,nop,sackOK"

DIALOGUES = {
    "a segment beyond a hole comes twice": [
        (". 101:201(100) ack 1", "ack 1 <nop,nop,sack 101:201>"),
        (". 101:201(100) ack 1", "ack 1 <nop,nop,sack 101:201 101:201>"),
    ],
    "a part of one beyond a hole comes again": [
        (". 101:201(100) ack 1", "ack 1 <nop,nop,sack 101:201>"),
        (". 121:151(30) ack 1", "ack 1 <nop,nop,sack 121:151 101:201>"),
    ],
    "a segment overlaps the one before it": [
        (". 101:201(100) ack 1", "ack 1 <nop,nop,sack 101:201>"),
        (". 301:401(100) ack 1", "ack 1 <nop,nop,sack 301:401 101:201>"),
        (". 151:351(200) ack 1", "ack 1 <nop,nop,sack 151:201 101:401>"),
    ],
    "a segment covers several": [
        (". 101:201(100) ack 1", "ack 1 <nop,nop,sack 101:201>"),
        (". 151:351(200) ack 1", "ack 1 <nop,nop,sack 151:201 101:351>"),
        (". 301:401(100) ack 1", "ack 1 <nop,nop,sack 301:351 101:401>"),
        (". 51:451(400) ack 1", "ack 1 <nop,nop,sack 101:401 51:451>"),
    ],
    "what fills the hole overlaps what was beyond it": [
        (". 51:451(400) ack 1", "ack 1 <nop,nop,sack 51:451>"),
        (". 1:101(100) ack 1", "ack 451 <nop,nop,sack 51:101>"),
    ],
    "what fills the hole overlaps two": [
        (". 101:201(100) ack 1", "ack 1 <nop,nop,sack 101:201>"),
        (". 151:301(150) ack 1", "ack 1 <nop,nop,sack 151:201 101:301>"),
        (". 401:501(100) ack 1", "ack 1 <nop,nop,sack 401:501 101:301>"),
        (". 1:251(250) ack 1", "ack 301 <nop,nop,sack 101:251 401:501>"),
        (". 301:451(150) ack 1", "ack 501 <nop,nop,sack 401:451>"),
    ],
    "what fills the hole covers what was beyond it and more": [
        (". 101:201(100) ack 1", "ack 1 <nop,nop,sack 101:201>"),
        (". 1:301(300) ack 1", "ack 301 <nop,nop,sack 101:201>"),
    ],
    "a segment repeats what is old and brings something new": [
        (". 1:451(450) ack 1", "ack 451 <>"),
        (". 1:501(500) ack 1", "ack 501 <nop,nop,sack 1:451>"),
        (". 1:501(500) ack 1", "ack 501 <nop,nop,sack 1:501>"),
    ],
    "one that joins another and overlaps the next is no duplicate": [
        (". 101:201(100) ack 1", "ack 1 <nop,nop,sack 101:201>"),
        (". 251:301(50) ack 1", "ack 1 <nop,nop,sack 251:301 101:201>"),
        (". 201:281(80) ack 1", "ack 1 <nop,nop,sack 101:301>"),
        (". 1:101(100) ack 1", "ack 301 <>"),
    ],
    "a FIN beyond a hole has a number of its own": [
        ("F. 101:201(100) ack 1", "ack 1 <nop,nop,sack 101:202>"),
        (". 101:201(100) ack 1", "ack 1 <nop,nop,sack 101:201 101:202>"),
        (". 1:101(100) ack 1", "ack 202 <>"),
    ],
    "a FIN alone beyond a hole is reported": [
        ("F. 101:101(0) ack 1", "ack 1 <nop,nop,sack 101:102>"),
        (". 1:101(100) ack 1", "ack 102 <>"),
    ],
    "a FIN that comes twice is a duplicate": [
        ("F. 1:1(0) ack 1", "ack 2"),
        ("F. 1:1(0) ack 1", "ack 2 <nop,nop,sack 1:2>"),
    ],
    "four blocks at most, the oldest is forgotten": [
        (". 201:301(100) ack 1", "ack 1 <nop,nop,sack 201:301>"),
        (". 401:501(100) ack 1", "ack 1 <nop,nop,sack 401:501 201:301>"),
        (". 601:701(100) ack 1", "ack 1 <nop,nop,sack 601:701 401:501 201:301>"),
        (". 801:901(100) ack 1", "ack 1 <nop,nop,sack 801:901 601:701 401:501 201:301>"),
        (". 1001:1101(100) ack 1", "ack 1 <nop,nop,sack 1001:1101 801:901 601:701 401:501>"),
        (". 201:301(100) ack 1", "ack 1 <nop,nop,sack 201:301 201:301 1001:1101 801:901>"),
    ],
    "a duplicate takes the place of the last block": [
        (". 201:301(100) ack 1", "ack 1"),
        (". 401:501(100) ack 1", "ack 1"),
        (". 601:701(100) ack 1", "ack 1"),
        (". 801:901(100) ack 1", "ack 1"),
        (". 601:701(100) ack 1", "ack 1 <nop,nop,sack 601:701 601:701 801:901 401:501>"),
    ],
    "a block grows to both sides and comes first": [
        (". 301:401(100) ack 1", "ack 1"),
        (". 601:701(100) ack 1", "ack 1 <nop,nop,sack 601:701 301:401>"),
        (". 201:301(100) ack 1", "ack 1 <nop,nop,sack 201:401 601:701>"),
        (". 401:501(100) ack 1", "ack 1 <nop,nop,sack 201:501 601:701>"),
        (". 501:601(100) ack 1", "ack 1 <nop,nop,sack 201:701>"),
    ],
    "filling the first hole leaves the others": [
        (". 201:301(100) ack 1", "ack 1"),
        (". 401:501(100) ack 1", "ack 1"),
        (". 1:201(200) ack 1", "ack 301 <nop,nop,sack 401:501>"),
        (". 301:401(100) ack 1", "ack 501 <>"),
    ],
}


@pytest.mark.rfc("2883", "4")
@pytest.mark.linux("tcp_data_queue_ofo, tcp_ofo_queue, tcp_sack_new_ofo_skb")
@pytest.mark.parametrize("name", DIALOGUES)
def test_duplicates_and_blocks_are_reported_as_linux_does(server, name):
    _, peer = server.established(SACK)
    for line, answer in DIALOGUES[name]:
        peer.send(line)
        peer.expect(f". 1:1(0) {answer}")


@pytest.mark.parametrize("name", [name for name in DIALOGUES if "FIN that" not in name])
def test_the_stream_is_whole_whatever_came_twice(server, name):
    sk, peer = server.established(SACK)
    for line, _ in DIALOGUES[name]:
        peer.send(line)
    peer.send(". 1:1201(1200) ack 1")
    got = sk.recv(5000)
    assert got and got == pattern(0, len(got))


@pytest.mark.parametrize("name", DIALOGUES)
def test_a_peer_without_sack_hears_plain_acks(server, name):
    _, peer = server.established("mss 1460")
    for line, answer in DIALOGUES[name]:
        peer.send(line)
        peer.expect(f". 1:1(0) {answer.partition(' <')[0]} <>")


@pytest.mark.linux("net.ipv4.tcp_dsack")
def test_with_tcp_dsack_0_duplicates_are_not_reported():
    server = host(TEST_CONFIG, tcp=TcpConfig(tcp_dsack=False))
    _, peer = server.established(SACK)
    peer.send(". 101:201(100) ack 1")
    peer.expect(". 1:1(0) ack 1 <nop,nop,sack 101:201>")
    peer.send(". 101:201(100) ack 1")
    peer.expect(". 1:1(0) ack 1 <nop,nop,sack 101:201>")
    assert (server.mib.TCPDSACKOfoSent, server.mib.TCPOFOMerge) == (0, 1)


@pytest.mark.linux("net.ipv4.tcp_sack")
def test_with_tcp_sack_0_no_block_is_sent():
    server = host(TEST_CONFIG, tcp=TcpConfig(tcp_sack=False))
    _, peer = server.established(SACK)
    peer.send(". 101:201(100) ack 1")
    peer.expect(". 1:1(0) ack 1 <>")


def test_what_was_reported_twice_and_what_was_merged_is_counted(server):
    _, peer = server.established(SACK)
    for line, _ in DIALOGUES["a segment covers several"]:
        peer.send(line)
    assert server.mib.TCPOFOQueue == 4 and server.mib.TCPOFOMerge == 3
    assert server.mib.TCPDSACKOfoSent == 3


@pytest.mark.linux("tcp_send_dupack")
def test_a_segment_below_the_window_is_reported_too(server):
    sk, peer = server.established(SACK)
    peer.send("P. 1:101(100) ack 1")
    peer.expect(". 1:1(0) ack 101")
    sk.recv(100)
    peer.send("P. 101:201(100) ack 1")
    peer.expect(". 1:1(0) ack 201")
    peer.send("P. 1:51(50) ack 1")
    peer.expect(". 1:1(0) ack 201 <nop,nop,sack 1:51>")
    assert server.mib.DelayedACKLost == 1


@pytest.mark.rfc("2883", "4")
def test_a_duplicate_is_reported_only_once(server):
    _, peer = server.established(SACK)
    peer.send("P. 1:101(100) ack 1")
    peer.send("P. 1:101(100) ack 1")
    peer.drain()
    peer.send(". 201:301(100) ack 1")
    peer.expect(". 1:1(0) ack 101 <nop,nop,sack 201:301>")


def test_our_data_carries_the_blocks(server):
    sk, peer = server.established(SACK)
    peer.send(". 101:201(100) ack 1")
    peer.drain()
    sk.send(b"x")
    peer.expect("P. 1:2(1) ack 1 <nop,nop,sack 101:201>")
