"""When a reset is sent and when one is believed: RFC 9293 §3.5.2, §3.5.3, RFC 5961."""

from __future__ import annotations

import pytest

RST, ACK = 4, 16


@pytest.mark.rfc("9293", "3.10.7.1")
@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        ("S 0:0(0)", (RST | ACK, 0, 1)),
        ("S 0:10(10)", (RST | ACK, 0, 11)),
        ("F 5:5(0)", (RST | ACK, 0, 6)),
        ("P 5:15(10)", (RST | ACK, 0, 15)),
    ],
)
def test_a_segment_without_ack_to_a_closed_port_is_reset_with_ack(server, sent, answer):
    peer = server.peer(to=81)
    peer.host_iss = 0
    peer.send(sent)
    (rst,) = peer.drain()
    assert (rst.flags, rst.seq, (rst.ack - peer.iss) & 0xFFFFFFFF) == answer


@pytest.mark.rfc("9293", "3.10.7.1")
def test_a_segment_with_ack_to_a_closed_port_is_reset_at_its_ack(server):
    peer = server.peer(to=81)
    peer.host_iss = 1000
    peer.send(". 5:5(0) ack 77")
    (rst,) = peer.drain()
    assert (rst.flags, rst.seq, rst.window, rst.options) == (RST, 1077, 0, ())
    assert server.mib.OutRsts == 1


@pytest.mark.rfc("9293", "3.10.7.1")
@pytest.mark.parametrize("line", ["R 5:5(0)", "R. 5:5(0) ack 9"])
def test_a_reset_is_never_answered(server, line):
    peer = server.peer(to=81)
    peer.host_iss = 0
    peer.send(line)
    peer.expect_nothing()


@pytest.mark.rfc("9293", "3.10.7.2")
@pytest.mark.parametrize("line", [". 5:5(0) ack 9", "S. 5:5(0) ack 9", "P. 5:6(1) ack 9"])
def test_an_ack_to_a_listener_is_reset(server, line):
    server.listen()
    peer = server.peer()
    peer.host_iss = 0
    peer.send(line)
    peer.expect("R 9:9(0)")


@pytest.mark.rfc("9293", "3.10.7.2")
@pytest.mark.parametrize("line", ["R 5:5(0)", "F 5:5(0)", "P 5:6(1)"])
def test_a_listener_ignores_what_is_neither_syn_nor_ack(server, line):
    server.listen()
    peer = server.peer()
    peer.host_iss = 0
    peer.send(line)
    peer.expect_nothing()


def test_a_segment_with_a_wrong_checksum_is_not_answered(server):
    peer = server.peer(to=81)
    peer.send("S 0:0(0)", checksum_ok=False)
    peer.expect_nothing()
    assert server.mib.InCsumErrors == 1


@pytest.mark.rfc("5961", "3.2")
def test_a_reset_at_rcv_nxt_ends_the_connection(server):
    sk, peer = server.established()
    peer.send("R 1:1(0)")
    peer.expect_nothing()
    with pytest.raises(ConnectionResetError):
        sk.recv(10)
    assert sk.recv(10) == b""
    assert server.mib.EstabResets == 1 and server.mib.CurrEstab == 0


@pytest.mark.rfc("5961", "3.2")
@pytest.mark.parametrize("offset", [1, 100, 60_000])
def test_a_reset_elsewhere_in_the_window_gets_a_challenge(server, offset):
    sk, peer = server.established()
    peer.send(f"R {1 + offset}:{1 + offset}(0)")
    peer.expect(". 1:1(0) ack 1")
    assert server.mib.TCPChallengeACK == 1
    with pytest.raises(BlockingIOError):
        sk.recv(10)


@pytest.mark.rfc("5961", "3.2")
def test_a_reset_outside_the_window_is_ignored(server):
    sk, peer = server.established()
    peer.send("R 200000:200000(0)")
    peer.expect_nothing()
    with pytest.raises(BlockingIOError):
        sk.recv(10)


@pytest.mark.rfc("5961", "4.2")
@pytest.mark.parametrize("line", ["S 1:1(0)", "S 0:0(0)", "S 5000:5000(0)", "S. 1:1(0) ack 1"])
def test_a_syn_in_an_established_connection_gets_a_challenge(server, line):
    sk, peer = server.established()
    peer.send(line)
    peer.expect(". 1:1(0) ack 1")
    with pytest.raises(BlockingIOError):
        sk.recv(10)


@pytest.mark.rfc("5961", "7")
def test_challenges_are_limited_in_rate(server):
    _, peer = server.established()
    for _ in range(5):
        peer.send("S 1:1(0)")
    assert len(peer.drain()) == 1
    server.advance_us(600_000)
    peer.send("S 1:1(0)")
    assert len(peer.drain()) == 1


@pytest.mark.rfc("5961", "5.2")
@pytest.mark.parametrize("ack", [1001, 3_000_000_000])
def test_an_ack_of_what_was_never_sent_is_answered_and_its_text_dropped(server, ack):
    sk, peer = server.established()
    peer.send(f"P. 1:6(5) ack {ack}", data=b"wrong")
    peer.expect(". 1:1(0) ack 1")
    with pytest.raises(BlockingIOError):
        sk.recv(10)


@pytest.mark.rfc("9293", "3.10.7.4")
def test_a_segment_without_ack_is_dropped_in_a_connection(server):
    sk, peer = server.established()
    peer.send("P 1:6(5)", data=b"noack")
    peer.expect_nothing()
    with pytest.raises(BlockingIOError):
        sk.recv(10)


def test_a_write_after_a_reset_says_reset_then_broken_pipe(server):
    sk, peer = server.established()
    peer.send("R 1:1(0)")
    with pytest.raises(ConnectionResetError):
        sk.send(b"x")
    with pytest.raises(BrokenPipeError):
        sk.send(b"x")


@pytest.mark.linux("tcp_reset_check")
@pytest.mark.parametrize("ours", [False, True])
def test_a_reset_that_stands_where_the_fin_did_ends_the_connection(server, ours):
    sk, peer = server.established()
    peer.send("F. 1:1(0) ack 1")
    if ours:
        sk.shutdown(1)
    peer.drain()
    peer.send("R 1:1(0)")
    with pytest.raises(ConnectionResetError if ours else BrokenPipeError):
        sk.send(b"x")
    assert sk.poll() & 0x10  # EPOLLHUP: it is over


@pytest.mark.linux("tcp_oow_rate_limited: TCPACKSkippedSeq")
def test_pure_acks_out_of_the_window_are_answered_at_a_limited_rate(server):
    """Two ends that disagree would otherwise acknowledge each other for ever."""
    _, peer = server.established()
    for _ in range(3):
        peer.send(". 200000:200000(0) ack 1")
    assert len(peer.drain()) == 1
    assert server.mib.TCPACKSkippedSeq == 2
    peer.send("P. 200000:200010(10) ack 1")  # data makes no loop
    peer.expect(". 1:1(0) ack 1")


@pytest.mark.linux("tcp_oow_rate_limited: TCPACKSkippedPAWS")
def test_old_timestamps_are_answered_at_a_limited_rate(server):
    server.listen()
    peer = server.peer()
    peer.handshake("mss 1460,sackOK,TS val 1000 ecr 0", ts="nop,nop,TS val 9000 ecr *")
    for _ in range(3):
        peer.send(". 1:1(0) ack 1 <nop,nop,TS val 900 ecr *>")
    assert len(peer.drain()) == 1
    assert (server.mib.PAWSEstab, server.mib.TCPACKSkippedPAWS) == (3, 2)


def test_challenges_that_are_not_sent_are_counted(server):
    _, peer = server.established()
    for _ in range(3):
        peer.send("S 1:1(0)")
    assert server.mib.TCPACKSkippedChallenge == 2


@pytest.mark.linux("tcp_ack: min(max_window, bytes_acked)")
@pytest.mark.rfc("5961", "5.2")
def test_an_ack_from_below_our_first_byte_is_challenged_and_its_text_dropped(server):
    sk, peer = server.established()
    peer.send("P. 1:6(5) ack 4294966796", data=b"blind")
    peer.expect(". 1:1(0) ack 1")
    assert server.mib.TCPChallengeACK == 1
    with pytest.raises(BlockingIOError):
        sk.recv(10)


@pytest.mark.linux("tcp_rcv_state_process: LISTEN")
def test_a_syn_with_fin_opens_nothing(server):
    lsk = server.listen()
    peer = server.peer()
    peer.send("SF 0:0(0)")
    peer.expect_nothing()
    assert not lsk._sk.listen.syn_queue


@pytest.mark.rfc("5961", "3.2")
def test_a_reset_elsewhere_in_the_window_of_a_request_gets_a_challenge(server):
    lsk = server.listen(80)
    peer = server.peer()
    peer.send("S 0:0(0) <mss 1460>")
    peer.expect("S. 0:0(0) ack 1")
    peer.send("R 100:100(0)")
    peer.expect(". 1:1(0) ack 1")
    peer.send(". 1:1(0) ack 1")
    lsk.accept()
