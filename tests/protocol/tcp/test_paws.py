"""Old duplicates are known by their timestamps (RFC 7323 §5; tcp_paws_check)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kit.host import TEST_CONFIG, Host, host
from kit.peer import Peer
from ustack.config import LINUX_6, LINUX_310, TcpConfig, UstackConfig
from ustack.core.sysctl import with_profile

SECOND = 1_000_000
DAY = 24 * 3600 * SECOND


def start(server: Host, ts: int = 10_000, **fields: object):
    """Return a socket and its peer; TS.Recent is ``ts``."""
    lsk = server.listen()
    peer = server.peer()
    peer.handshake(f"mss 1460,sackOK,TS val {ts} ecr 0", ts=f"nop,nop,TS val {ts} ecr *")
    return lsk.accept(), peer


def say(peer: Peer, line: str, ts: int) -> None:
    peer.send(f"{line} <nop,nop,TS val {ts & 0xFFFFFFFF} ecr *>")


@pytest.mark.rfc("7323", "5.3")
@pytest.mark.parametrize("ts", [9_998, 5_000, 1, 10_000 - (1 << 31) + 1])
def test_text_with_an_old_timestamp_is_dropped(server, ts):
    sk, peer = start(server)
    say(peer, "P. 1:11(10) ack 1", ts)
    peer.expect(". 1:1(0) ack 1 <nop,nop,TS val * ecr 10000>")
    with pytest.raises(BlockingIOError):
        sk.recv(10)
    assert server.mib.PAWSEstab == 1


@pytest.mark.linux("TCP_PAWS_WINDOW")
@pytest.mark.parametrize("ts", [9_999, 10_000, 10_001, 10_000 + (1 << 31) - 1])
def test_text_with_a_timestamp_that_is_as_new_is_taken(server, ts):
    sk, peer = start(server)
    say(peer, "P. 1:11(10) ack 1", ts)
    assert len(sk.recv(20)) == 10


@pytest.mark.linux("tcp_replace_ts_recent: tcp_paws_check(0)")
def test_a_timestamp_one_back_is_tolerated_but_does_not_put_the_clock_back(server):
    _, peer = start(server)
    say(peer, "P. 1:11(10) ack 1", 9_999)
    peer.expect(". 1:1(0) ack 11 <nop,nop,TS val * ecr 10000>")


def test_timestamps_wrap(server):
    sk, peer = start(server, 0xFFFFFFF0)
    say(peer, "P. 1:11(10) ack 1", 0x10)
    peer.expect(". 1:1(0) ack 11 <nop,nop,TS val * ecr 16>")
    say(peer, "P. 11:21(10) ack 1", 0xFFFFFFF0)
    peer.expect(". 1:1(0) ack 11 <nop,nop,TS val * ecr 16>")
    assert len(sk.recv(50)) == 10


@pytest.mark.rfc("7323", "5.5")
@pytest.mark.linux("TCP_PAWS_WRAP")
@pytest.mark.parametrize(("idle_s", "taken"), [(2_000, False), (2_148, True)])
def test_after_half_an_hour_of_silence_an_old_timestamp_proves_nothing(server, idle_s, taken):
    sk, peer = start(server)
    server.advance_us(idle_s * SECOND)
    say(peer, "P. 1:11(10) ack 1", 5_000)
    assert server.mib.PAWSEstab == (not taken)
    assert sk.poll() & 1 == taken
    if taken:
        peer.expect(". 1:1(0) ack 11 <nop,nop,TS val * ecr 5000>")


@pytest.mark.linux("TCP_PAWS_24DAYS (before 6.7)")
@pytest.mark.parametrize(("days", "taken"), [(23, False), (25, True)])
def test_the_old_kernel_believes_a_timestamp_for_24_days(days, taken):
    server = host(replace(TEST_CONFIG, ustack=UstackConfig(profile=LINUX_310)))
    sk, peer = start(server)
    server.advance_us(days * DAY)
    say(peer, "P. 1:11(10) ack 1", 5_000)
    assert sk.poll() & 1 == taken


@pytest.mark.rfc("7323", "5.2")
def test_a_reset_with_an_old_timestamp_counts(server):
    sk, peer = start(server)
    peer.send("R 1:1(0) <nop,nop,TS val 1 ecr *>")
    with pytest.raises(ConnectionResetError):
        sk.recv(1)


@pytest.mark.linux("tcp_disordered_ack_check")
def test_an_ack_that_was_overtaken_is_no_old_duplicate(server):
    """It says nothing new; but it must not look like an attack."""
    _sk, peer = start(server)
    say(peer, ". 1:1(0) ack 1", 9_900)
    peer.expect_nothing()
    assert server.mib.PAWSEstab == 0
    say(peer, "P. 1:11(10) ack 1", 10_000)
    peer.expect(". 1:1(0) ack 11 <nop,nop,TS val * ecr 10000>")


@pytest.mark.linux("tcp_disordered_ack_check: the replay window is 1.2 RTO")
@pytest.mark.parametrize(("older", "dropped"), [(0, False), (1, True)])
def test_an_ack_that_is_older_than_an_rto_is_an_old_duplicate(server, older, dropped):
    sk, peer = start(server)
    say(peer, ". 1:1(0) ack 1", 10_000 - sk._sk.tp.rto_us * 12 // 10_000 - older)
    assert bool(peer.drain()) is dropped
    assert server.mib.PAWSEstab == dropped


def test_an_old_ack_that_would_change_the_window_is_an_old_duplicate(server):
    _, peer = start(server)
    peer.send(". 1:1(0) ack 1 win 0 <nop,nop,TS val 9900 ecr *>")
    assert server.mib.PAWSEstab == 1


def test_an_old_ack_of_something_new_is_an_old_duplicate(server):
    sk, peer = start(server)
    sk.send(b"abc")
    peer.drain()
    say(peer, ". 1:1(0) ack 4", 9_900)
    assert server.mib.PAWSEstab == 1 and sk._sk.tp.snd_una == sk._sk.tp.iss + 1 & 0xFFFFFFFF


@pytest.mark.linux("tcp_disordered_ack_check: TCP_RFC7323_PAWS_ACK")
def test_an_old_ack_below_what_we_have_is_counted_and_not_answered(server):
    _sk, peer = start(server)
    say(peer, "P. 1:11(10) ack 1", 10_001)
    peer.drain()
    say(peer, ". 1:1(0) ack 1", 9_000)
    peer.expect_nothing()
    assert (server.mib.PAWSOldAck, server.mib.PAWSEstab) == (1, 0)


@pytest.mark.rfc("7323", "5.3")
def test_old_text_is_answered_every_time_and_pure_acks_not(server):
    _, peer = start(server)
    for _ in range(3):
        say(peer, "P. 1:11(10) ack 1", 5_000)
    assert len(peer.drain()) == 3
    for _ in range(3):
        say(peer, ". 1:1(0) ack 1", 5_000)
    assert len(peer.drain()) == 1 and server.mib.TCPACKSkippedPAWS == 2


def test_a_peer_that_began_with_timestamp_zero_is_never_old(server):
    sk, peer = start(server, 0)
    say(peer, "P. 1:11(10) ack 1", 0x90000000)
    assert len(sk.recv(20)) == 10


@pytest.mark.linux("tcp_check_req: paws_reject")
def test_a_third_ack_with_an_old_timestamp_opens_nothing(server):
    lsk = server.listen()
    peer = server.peer()
    peer.send("S 0:0(0) <mss 1460,sackOK,TS val 10000 ecr 0>")
    peer.expect("S. 0:0(0) ack 1")
    peer.send(". 1:1(0) ack 1 <nop,nop,TS val 9000 ecr *>")
    peer.expect(". 1:1(0) ack 1")
    assert server.mib.PAWSEstab == 1
    with pytest.raises(BlockingIOError):
        lsk.accept()
    peer.send("R 1:1(0) <nop,nop,TS val 9000 ecr *>")  # a reset is not looked at so closely
    assert server.mib.EmbryonicRsts == 1


@pytest.mark.linux("tcp_check_req: tsecr_reject (6.14)")
@pytest.mark.parametrize(("profile", "opened"), [(LINUX_6, False), (LINUX_310, True)])
def test_a_third_ack_that_echoes_what_was_never_sent_opens_nothing(profile, opened):
    server = host(with_profile(TEST_CONFIG, profile))
    lsk = server.listen()
    peer = server.peer()
    peer.send("S 0:0(0) <mss 1460,sackOK,TS val 10000 ecr 0>")
    peer.expect("S. 0:0(0) ack 1")
    wrong = peer.last_ts_val - 5 & 0xFFFFFFFF
    peer.send(f". 1:1(0) ack 1 <nop,nop,TS val 10001 ecr {wrong}>")
    assert bool(lsk._sk.listen.accept_queue) is opened


@pytest.mark.rfc("7323", "3.2")
def test_a_segment_without_the_option_is_taken_all_the_same(server):
    """Linux is that liberal; RFC 7323 would have it dropped."""
    sk, peer = start(server)
    peer.send("P. 1:11(10) ack 1")
    assert len(sk.recv(20)) == 10


@pytest.mark.linux("tcp_ack: an old ACK does not reach tcp_replace_ts_recent")
def test_an_ack_of_less_than_is_acknowledged_brings_no_timestamp(server):
    sk, peer = start(server)
    sk.send(b"abc")
    peer.drain()
    say(peer, ". 1:1(0) ack 4", 10_010)
    say(peer, ". 1:1(0) ack 2", 10_500)
    sk.send(b"d")
    peer.expect("P. 4:5(1) ack 1 <nop,nop,TS val * ecr 10010>")


@pytest.mark.linux("net.ipv4.tcp_timestamps")
def test_with_tcp_timestamps_0_there_are_none():
    server = host(TEST_CONFIG, tcp=TcpConfig(tcp_timestamps=0))
    server.listen()
    peer = server.peer()
    peer.send("S 0:0(0) <mss 1460,sackOK,TS val 1 ecr 0>")
    assert peer.expect("S. 0:0(0) ack 1").option("TS") is None


@pytest.mark.linux("secure_tcp_ts_off: tcp_timestamps 2")
def test_with_tcp_timestamps_2_the_clock_is_the_same_for_everyone():
    server = host(TEST_CONFIG, tcp=TcpConfig(tcp_timestamps=2))
    server.listen()
    values = set()
    for last in range(3):
        peer = server.peer(addr=f"10.0.0.{last + 20}")
        peer.send("S 0:0(0) <mss 1460,sackOK,TS val 1 ecr 0>")
        values.add(peer.expect("S. 0:0(0) ack 1").option("TS")[0])
    assert values == {server.world.now_us // 1000}
