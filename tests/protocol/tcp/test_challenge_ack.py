"""Blind attacks are answered with a question, and not often (RFC 5961)."""

from __future__ import annotations

import pytest

from kit.host import TEST_CONFIG, host
from ustack.config import TcpConfig

SACK = "mss 1460,nop,nop,sackOK"
SECOND = 1_000_000


@pytest.mark.rfc("5961", "3.2")
@pytest.mark.linux("tcp_validate_incoming: max_sack")
def test_a_reset_at_the_end_of_the_last_block_is_the_peers(server):
    """It does not know of the hole: its SND.NXT lies behind everything."""
    sk, peer = server.established(SACK)
    peer.send(". 101:201(100) ack 1")
    peer.send(". 301:401(100) ack 1")
    peer.send(". 201:251(50) ack 1")
    peer.drain()
    peer.send("R 401:401(0)")
    with pytest.raises(ConnectionResetError):
        sk.recv(1)


@pytest.mark.parametrize("seq", [101, 201, 251, 400, 402])
def test_a_reset_elsewhere_among_the_blocks_is_challenged(server, seq):
    _, peer = server.established(SACK)
    for line in (". 101:201(100) ack 1", ". 301:401(100) ack 1"):
        peer.send(line)
    peer.drain()
    peer.send(f"R {seq}:{seq}(0)")
    peer.expect(". 1:1(0) ack 1")
    assert server.mib.TCPChallengeACK == 1


def test_without_sack_the_last_block_proves_nothing(server):
    _, peer = server.established()
    peer.send(". 101:201(100) ack 1")
    peer.drain()
    peer.send("R 201:201(0)")
    peer.expect(". 1:1(0) ack 1")


@pytest.mark.rfc("5961", "4.2")
def test_the_challenge_is_an_ack_of_what_we_have(server):
    sk, peer = server.established()
    sk.send(b"abc")
    peer.drain()
    peer.send("P. 1:11(10) ack 1")
    peer.drain()
    server.advance_us(SECOND // 4)
    peer.drain()
    peer.send("S 77:77(0)")
    peer.expect(". 4:4(0) ack 11")


@pytest.mark.rfc("5961", "4.2")
def test_a_peer_that_has_forgotten_us_answers_the_challenge_with_a_reset(server):
    sk, peer = server.established()
    peer.send("S 5000:5000(0)")
    peer.expect(". 1:1(0) ack 1")
    peer.send("R 1:1(0)")
    with pytest.raises(ConnectionResetError):
        sk.recv(1)


@pytest.mark.linux("tcp_validate_incoming: syn_challenge")
def test_a_syn_counts_as_an_error_and_as_a_challenge_even_if_it_is_not_answered(server):
    _, peer = server.established()
    for _ in range(3):
        peer.send("S 1:1(0)")
    assert len(peer.drain()) == 1
    assert (server.mib.TCPSYNChallenge, server.mib.InErrs) == (3, 3)
    assert (server.mib.TCPChallengeACK, server.mib.TCPACKSkippedChallenge) == (1, 2)


@pytest.mark.linux("tcp_validate_incoming: syn_challenge before PAWS")
def test_a_syn_with_an_old_timestamp_is_challenged(server):
    server.listen()
    peer = server.peer()
    peer.handshake("mss 1460,sackOK,TS val 9000 ecr 0", ts="nop,nop,TS val 9000 ecr *")
    peer.send("S 1:1(0) <mss 1460,sackOK,TS val 5 ecr 0>")
    peer.expect(". 1:1(0) ack 1")
    assert (server.mib.TCPSYNChallenge, server.mib.PAWSEstab) == (1, 0)


@pytest.mark.rfc("5961", "7")
@pytest.mark.parametrize("limit_ms", [0, 100, 2000])
def test_tcp_invalid_ratelimit_is_the_time_between_two(limit_ms):
    server = host(TEST_CONFIG, tcp=TcpConfig(tcp_invalid_ratelimit_us=limit_ms * 1000))
    _, peer = server.established()
    for _ in range(2):
        peer.send("S 1:1(0)")
    assert len(peer.drain()) == (1 if limit_ms else 2)
    server.advance_us(limit_ms * 1000)
    peer.send("S 1:1(0)")
    assert len(peer.drain()) == 1


@pytest.mark.rfc("5961", "7")
@pytest.mark.linux("tcp_send_challenge_ack: tcp_challenge_ack_limit")
def test_the_whole_stack_sends_about_as_many_challenges_a_second_as_it_may():
    """Half to one and a half times: a fixed number would be a side channel (CVE-2016-5696)."""
    config = TcpConfig(tcp_challenge_ack_limit=10, tcp_invalid_ratelimit_us=0)
    server = host(TEST_CONFIG, tcp=config)
    _, peer = server.established()
    counts = []
    for _ in range(8):
        server.advance_us(SECOND)
        for _ in range(40):
            peer.send("S 1:1(0)")
        counts.append(len(peer.drain()))
    assert all(5 <= count <= 15 for count in counts)
    assert len(set(counts)) > 1


def test_by_default_the_whole_stack_has_no_limit():
    server = host(TEST_CONFIG, tcp=TcpConfig(tcp_invalid_ratelimit_us=0))
    _, peer = server.established()
    for _ in range(2000):
        peer.send("S 1:1(0)")
    assert len(peer.drain()) == 2000


def test_a_challenge_for_one_connection_costs_another_nothing(server):
    server.listen()
    peers = [server.peer(), server.peer()]
    for peer in peers:
        peer.handshake()
    for peer in peers:
        peer.send("S 1:1(0)")
        peer.expect(". 1:1(0) ack 1")


@pytest.mark.rfc("5961", "5.2")
@pytest.mark.parametrize("behind", [70_000, 1 << 30])
def test_an_ack_from_long_ago_is_challenged_and_one_from_lately_is_not(server, behind):
    sk, peer = server.established(win=60_000)
    sent = 0
    while sent < 100_000:
        sent += sk.send(bytes(10_000))
        server.settle()
        edge = max(seg.end for seg in peer.drain()) - peer.host_iss & 0xFFFFFFFF
        peer.send(f". 1:1(0) ack {edge} win 60000")
    peer.drain()
    peer.send(f"P. 1:6(5) ack {edge - 50_000}")
    assert len(sk.recv(10)) == 5
    peer.drain()
    server.advance_us(SECOND)
    peer.drain()
    peer.send(f"P. 6:11(5) ack {edge - behind & 0xFFFFFFFF}")
    assert server.mib.TCPChallengeACK == 1
    with pytest.raises(BlockingIOError):
        sk.recv(10)


@pytest.mark.rfc("9293", "3.10.7.4")
def test_a_segment_far_beyond_the_window_is_counted_and_answered(server):
    _, peer = server.established()
    peer.send("P. 200001:200011(10) ack 1")
    peer.expect(". 1:1(0) ack 1")
    assert server.mib.BeyondWindow == 1


@pytest.mark.linux("tcp_sequence: TCP_INVALID_END_SEQUENCE")
def test_a_segment_that_ends_beyond_the_window_is_taken_only_by_an_empty_queue(server):
    sk, peer = server.established("mss 1460")
    edge = 64_240
    at = 1
    while at + 1000 < edge:
        peer.send(f". {at}:{at + 1000}(1000) ack 1")
        at += len(sk.recv(1000))
    server.advance_us(SECOND)
    peer.drain()
    peer.send(f". {at}:{at + 10}(10) ack 1")
    peer.expect_next(within_us=SECOND)
    edge = at + 10 + sk._sk.tp.rcv_wnd
    start = edge - 100
    peer.send(f". {start}:{start + 1400}(1400) ack 1")  # something waits to be read
    assert server.mib.BeyondWindow == 1
    sk.recv(10)
    peer.send(f". {start}:{start + 1400}(1400) ack 1")
    assert server.mib.TCPOFOQueue == 1


def test_a_fin_needs_no_room_in_the_window(server):
    sk, peer = server.established()
    tp = sk._sk.tp
    edge = 1 + tp.rcv_wnd
    peer.send(". 1:11(10) ack 1")
    peer.drain()
    peer.send(f"F. {edge - 5}:{edge}(5) ack 1")
    assert server.mib.BeyondWindow == 0 and server.mib.TCPOFOQueue == 1
