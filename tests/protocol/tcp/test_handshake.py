"""The passive open: RFC 9293 §3.5 and §3.10.7.2, options as Linux writes them."""

from __future__ import annotations

import pytest

from kit.host import TEST_CONFIG, host
from ustack.config import TcpConfig

LINUX_SYN = "mss 1460,sackOK,TS val 7 ecr 0,nop,wscale 7"


@pytest.mark.rfc("9293", "MUST-10")
def test_a_syn_is_answered_and_the_third_ack_makes_the_child(server):
    lsk = server.listen()
    peer = server.peer()
    peer.send("S 0:0(0) win 65535 <mss 1460>")
    peer.expect("S. 0:0(0) ack 1 <mss 1460>")
    with pytest.raises(BlockingIOError):
        lsk.accept()
    peer.send(". 1:1(0) ack 1")
    peer.expect_nothing()
    child = lsk.accept()
    assert child.getpeername() == (peer.addr, peer.port)
    assert child.getsockname() == (server.addr, 80)
    assert server.mib.PassiveOpens == 1 and server.mib.CurrEstab == 1


@pytest.mark.linux("tcp_synack_options")
def test_the_syn_ack_has_linuxs_options_in_linuxs_order(server):
    server.listen()
    peer = server.peer()
    peer.send(f"S 0:0(0) win 65535 <{LINUX_SYN}>")
    peer.expect("S. 0:0(0) ack 1 <mss 1460,sackOK,TS val * ecr 7,nop,wscale 7>")


@pytest.mark.linux("tcp_synack_options")
@pytest.mark.parametrize(
    ("offered", "answered"),
    [
        ("", "mss 1460"),
        ("mss 1460,nop,wscale 5", "mss 1460,nop,wscale 7"),
        ("mss 1460,nop,nop,sackOK", "mss 1460,nop,nop,sackOK"),
        ("mss 1460,nop,nop,TS val 9 ecr 0", "mss 1460,nop,nop,TS val * ecr 9"),
        ("mss 1460,sackOK,TS val 9 ecr 0", "mss 1460,sackOK,TS val * ecr 9"),
    ],
)
def test_only_what_the_peer_offered_is_used(server, offered, answered):
    server.listen()
    peer = server.peer()
    peer.send(f"S 0:0(0) <{offered}>")
    peer.expect(f"S. 0:0(0) ack 1 <{answered}>")


@pytest.mark.parametrize(
    ("switched_off", "answered"),
    [
        ({"tcp_timestamps": False}, "mss 1460,nop,nop,sackOK,nop,wscale 7"),
        ({"tcp_sack": False}, "mss 1460,nop,nop,TS val * ecr 7,nop,wscale 7"),
        ({"tcp_window_scaling": False}, "mss 1460,sackOK,TS val * ecr 7"),
    ],
)
def test_an_option_that_is_switched_off_is_not_answered(switched_off, answered):
    server = host(TEST_CONFIG, tcp=TcpConfig(**switched_off))
    server.listen()
    peer = server.peer()
    peer.send(f"S 0:0(0) <{LINUX_SYN}>")
    peer.expect(f"S. 0:0(0) ack 1 <{answered}>")


@pytest.mark.rfc("7323", "2.2")
def test_the_window_of_a_syn_ack_is_not_scaled_and_later_ones_are(server):
    server.listen()
    peer = server.peer()
    syn_ack = peer.handshake("mss 1460,nop,wscale 7")
    assert syn_ack.window == 64240  # 44 * 1460, the most that fits 16 bits
    peer.send("P. 1:101(100) ack 1")
    ack = peer.expect(". 1:1(0) ack 101")
    assert 64240 - 256 <= ack.window << 7 <= 65536


@pytest.mark.rfc("9293", "MUST-14")
def test_a_peer_without_mss_option_gets_segments_of_536(server):
    lsk = server.listen()
    peer = server.peer()
    peer.handshake("")
    lsk.accept().send(bytes(2000))
    assert max(len(s.payload) for s in peer.drain()) == 536


@pytest.mark.rfc("9293", "MUST-16")
@pytest.mark.parametrize("mss", [88, 536, 1000, 1460, 9000])
def test_no_segment_is_longer_than_the_peers_mss_or_our_mtu(server, mss):
    sk, peer = server.established(f"mss {mss}")
    sk.send(bytes(10_000))
    assert max(len(s.payload) for s in peer.drain()) == min(mss, 1460)


@pytest.mark.rfc("9293", "MUST-7")
@pytest.mark.parametrize("junk", ["raw 2 4 5", "raw 8 2", "raw 3 0", "raw 253 4 1 2", "eol,mss 9"])
def test_malformed_and_unknown_options_do_no_harm(server, junk):
    server.listen()
    peer = server.peer()
    peer.send(f"S 0:0(0) <{junk}>")
    peer.expect("S. 0:0(0) ack 1")


def test_a_syn_with_data_is_acknowledged_without_it(server):
    """RFC 9293 §3.10.7.2 allows queueing it; Linux without Fast Open does not."""
    lsk = server.listen()
    peer = server.peer()
    peer.send("S 0:4(4) <mss 1460>", data=b"data")
    peer.expect("S. 0:0(0) ack 1")
    peer.send(". 1:1(0) ack 1")
    peer.send("P. 1:5(4) ack 1", data=b"DATA")
    assert lsk.accept().recv(10) == b"DATA"


def test_data_on_the_third_ack_is_taken(server):
    lsk = server.listen()
    peer = server.peer()
    peer.send("S 0:0(0) <mss 1460>")
    peer.expect("S. 0:0(0) ack 1")
    peer.send("P. 1:6(5) ack 1", data=b"hello")
    peer.expect(". 1:1(0) ack 6")
    assert lsk.accept().recv(100) == b"hello"


@pytest.mark.rfc("7323", "4.3")
def test_a_timestamp_beyond_a_hole_is_not_the_one_that_is_echoed(server):
    """The third ACK was lost, and the data before this (tcp_check_req)."""
    server.listen()
    peer = server.peer()
    peer.send("S 0:0(0) <mss 1460,sackOK,TS val 100 ecr 0>")
    peer.expect("S. 0:0(0) ack 1")
    peer.send("P. 101:201(100) ack 1 <nop,nop,TS val 150 ecr *>")
    peer.expect(". 1:1(0) ack 1 <nop,nop,TS val * ecr 100,nop,nop,sack 101:201>")


def test_a_repeated_syn_gets_the_same_syn_ack(server):
    server.listen()
    peer = server.peer()
    peer.send("S 0:0(0) <mss 1460>")
    first = peer.expect("S. 0:0(0) ack 1")
    server.advance_us(600_000)
    peer.send("S 0:0(0) <mss 1460>")
    assert peer.expect("S. 0:0(0) ack 1").seq == first.seq


@pytest.mark.linux("inet_rtx_syn_ack, net.ipv4.tcp_synack_retries")
def test_a_silent_peer_gets_six_syn_acks_with_growing_pauses(server):
    server.listen()
    peer = server.peer()
    peer.send("S 0:0(0) <mss 1460>")
    server.advance_us(70_000_000)
    times = [s.time_us for s in peer.drain()]
    seconds = [round((t - times[0]) / 1e6) for t in times]
    assert seconds == [0, 1, 3, 7, 15, 31]
    peer.send(". 1:1(0) ack 1")
    peer.expect("R 1:1(0)")  # the request is gone


@pytest.mark.rfc("9293", "3.10.7.4")
def test_a_wrong_third_ack_is_reset_and_the_request_lives_on(server):
    lsk = server.listen()
    peer = server.peer()
    peer.send("S 0:0(0) <mss 1460>")
    peer.expect("S. 0:0(0) ack 1")
    peer.send(". 1:1(0) ack 77")
    peer.expect("R 77:77(0)")
    peer.send(". 1:1(0) ack 1")
    lsk.accept()


def test_a_reset_in_syn_received_takes_the_request_away(server):
    lsk = server.listen()
    peer = server.peer()
    peer.send("S 0:0(0) <mss 1460>")
    peer.expect("S. 0:0(0) ack 1")
    peer.send("R 1:1(0)")
    peer.expect_nothing(for_us=10_000_000)
    with pytest.raises(BlockingIOError):
        lsk.accept()
    assert server.mib.AttemptFails == 1


@pytest.mark.rfc("6528", "3")
def test_initial_sequence_numbers_differ_between_connections_and_stacks(server):
    isns = set()
    for seed in (1, 2):
        one = host(seed=seed)
        one.listen()
        for port in range(50_000, 50_020):
            isns.add(one.peer(port).handshake().seq)
    assert len(isns) == 40


def test_the_handshake_gives_the_first_rtt_sample(server):
    """RFC 6298 §2.2: RTO = SRTT + 4 * RTTVAR, here 100 + 4 * 50 ms."""
    lsk = server.listen()
    peer = server.peer()
    peer.send("S 0:0(0) <mss 1460>")
    peer.expect("S. 0:0(0) ack 1")
    server.advance_us(100_000)
    peer.send(". 1:1(0) ack 1")
    sk = lsk.accept()
    sk.send(b"x")
    first = peer.expect("P. 1:2(1) ack 1")
    again = peer.expect("P. 1:2(1) ack 1", within_us=1_000_000)
    assert again.time_us - first.time_us == pytest.approx(300_000, abs=5_000)
