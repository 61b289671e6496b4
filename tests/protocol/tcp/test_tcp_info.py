"""getsockopt(TCP_INFO): every member that this stack fills (tcp_get_info)."""

from __future__ import annotations

import socket
import struct

import pytest

from kit.flight import Flight
from kit.host import TEST_CONFIG, host
from kit.segment import pattern
from ustack.config import TcpConfig, UstackConfig
from ustack.tcp.cong.ops import TCP_CA_DISORDER, TCP_CA_LOSS, TCP_CA_OPEN, TCP_CA_RECOVERY
from ustack.tcp.info import FIELDS, LAYOUT, unpack_tcp_info
from ustack.tcp.states import (
    TCP_CLOSE,
    TCP_CLOSE_WAIT,
    TCP_ESTABLISHED,
    TCP_FIN_WAIT1,
    TCP_LISTEN,
    TCP_SYN_SENT,
)

TCP = socket.IPPROTO_TCP
TCP_INFO = 11
INFINITE_SSTHRESH = 0x7FFFFFFF
NO_LIMIT = 0xFFFFFFFFFFFFFFFF
NO_RTT = 0xFFFFFFFF

MEASURED_NOWHERE = (
    "flags", "fackets", "last_ack_sent", "delivery_rate", "busy_time", "rwnd_limited",
    "sndbuf_limited", "delivered_ce", "rehash", "total_rto", "total_rto_recoveries",
    "total_rto_time", "received_ce", "accecn_fail_mode",
)  # fmt: skip


def info(sk) -> dict[str, int]:
    return unpack_tcp_info(sk.getsockopt(TCP, TCP_INFO, 1000))


@pytest.fixture
def f(server) -> Flight:
    """Ten segments of 1000 bytes in flight, 100 ms from the peer."""
    return Flight(server)


# The call.


def test_the_structure_is_as_long_as_linux_618s(server):
    assert len(server.socket().getsockopt(TCP, TCP_INFO, 1000)) == LAYOUT.size == 280


def test_a_shorter_buffer_gets_the_beginning(server):
    sk, _ = server.established()
    whole = sk.getsockopt(TCP, TCP_INFO, 280)
    assert sk.getsockopt(TCP, TCP_INFO, 104) == whole[:104]
    assert sk.getsockopt(TCP, TCP_INFO, 1) == whole[:1]


def test_without_a_buffer_it_is_the_first_int(server):
    sk, _ = server.established()
    assert (
        sk.getsockopt(TCP, TCP_INFO) == struct.unpack_from("i", sk.getsockopt(TCP, TCP_INFO, 4))[0]
    )


def test_it_cannot_be_set(server):
    with pytest.raises(OSError, match="not available"):
        server.socket().setsockopt(TCP, TCP_INFO, b"\0" * 280)


@pytest.mark.parametrize(
    ("name", "offset", "size"),
    [("state", 0, 1), ("options", 5, 1), ("rto", 8, 4), ("unacked", 24, 4), ("pmtu", 60, 4),
     ("rtt", 68, 4), ("snd_cwnd", 80, 4), ("total_retrans", 100, 4), ("pacing_rate", 104, 8),
     ("bytes_acked", 120, 8), ("segs_out", 136, 4), ("min_rtt", 148, 4), ("delivery_rate", 160, 8),
     ("delivered", 192, 4), ("bytes_sent", 200, 8), ("dsack_dups", 216, 4), ("snd_wnd", 228, 4),
     ("rcv_wnd", 232, 4), ("total_rto", 240, 2), ("received_ce", 248, 4),
     ("accecn_opt_seen", 278, 2)],
)  # fmt: skip
def test_a_member_lies_where_linux_has_it(name: str, offset: int, size: int):
    packed = bytearray(LAYOUT.size)
    packed[offset : offset + size] = b"\x11" * size
    found = {member: value for member, value in unpack_tcp_info(bytes(packed)).items() if value}
    assert found == {name: int.from_bytes(b"\x11" * size, "little")}


def test_what_is_not_measured_is_zero(f):
    f.ack(0, (2, 5))
    f.wait(3_000_000)
    figures = info(f.sk)
    assert not any(figures[name] for name in MEASURED_NOWHERE)
    assert set(figures) == set(FIELDS)


# States.


def test_a_new_socket_is_closed_and_has_linuxs_first_values(server):
    figures = info(server.socket())
    assert figures["state"] == TCP_CLOSE
    assert (figures["rto"], figures["rttvar"], figures["snd_mss"]) == (1_000_000, 250_000, 536)
    assert (figures["snd_cwnd"], figures["snd_ssthresh"]) == (10, INFINITE_SSTHRESH)
    assert figures["min_rtt"] == NO_RTT


@pytest.mark.linux("tcp_get_info: listeners aliased fields")
def test_a_listener_tells_its_accept_queue_in_unacked_and_sacked(server):
    lsk = server.listen(backlog=7)
    assert info(lsk)["unacked"] == 0
    for _ in range(2):
        server.peer().handshake()
    figures = info(lsk)
    assert (figures["state"], figures["unacked"], figures["sacked"]) == (TCP_LISTEN, 2, 7)


def test_a_listener_has_no_figures_of_a_connection(server):
    figures = info(server.listen())
    told = {name for name, value in figures.items() if value}
    assert told == {"state", "sacked", "snd_cwnd", "reordering", "pacing_rate", "max_pacing_rate"}


def test_syn_sent_while_the_syn_is_out(server):
    assert info(server.connect())["state"] == TCP_SYN_SENT


def test_the_state_follows_the_connection(server):
    sk, peer = server.established()
    assert info(sk)["state"] == TCP_ESTABLISHED
    peer.send("F. 1:1(0) ack 1")
    assert info(sk)["state"] == TCP_CLOSE_WAIT


def test_fin_wait1_after_shutdown(server):
    sk, _ = server.established()
    sk.shutdown(socket.SHUT_WR)
    assert info(sk)["state"] == TCP_FIN_WAIT1


# What the handshake agreed on.


@pytest.mark.parametrize(
    ("offered", "options"),
    [("mss 1460", 0), ("mss 1460,nop,nop,sackOK", 2), ("mss 1460,nop,wscale 3", 4),
     ("mss 1460,nop,nop,TS val 1 ecr 0", 1), ("mss 1460,sackOK,TS val 1 ecr 0,nop,wscale 3", 7)],
)  # fmt: skip
def test_options_are_those_of_both_ends(server, offered: str, options: int):
    lsk = server.listen()
    peer = server.peer()
    ts = "<nop,nop,TS val 1 ecr *>" if "TS" in offered else ""
    peer.send(f"S 0:0(0) win 65535 <{offered}>")
    peer.expect("S. 0:0(0) ack 1")
    peer.send(f". 1:1(0) ack 1 win 1000 {ts}")
    assert info(lsk.accept())["options"] == options


def test_the_scales_are_ours_in_the_high_and_the_peers_in_the_low_bits(server):
    sk, _ = server.established("mss 1460,nop,wscale 3")
    assert info(sk)["wscale"] == 3 | sk._sk.tp.rcv_wscale << 4
    assert info(sk)["wscale"] >> 4


def test_ecn_is_an_option():
    server = host(TEST_CONFIG, tcp=TcpConfig(tcp_ecn=1))
    lsk = server.listen()
    peer = server.peer()
    peer.send("SEC 0:0(0) win 65535 <mss 1460>")
    peer.expect_next()
    peer.send(". 1:1(0) ack 1 win 1000")
    assert info(lsk.accept())["options"] == 8


def test_segment_sizes_both_ways(server):
    sk, _ = server.established("mss 1000")
    figures = info(sk)
    assert (figures["snd_mss"], figures["advmss"], figures["rcv_mss"]) == (1000, 1460, 536)
    assert figures["pmtu"] == 1500


def test_rcv_mss_learns_what_the_peer_sends(server):
    sk, peer = server.established()
    peer.send(". 1:1201(1200) ack 1")
    assert info(sk)["rcv_mss"] == 1200


# What is in flight.


def test_segments_in_flight_are_unacked(f):
    assert info(f.sk)["unacked"] == 10
    f.ack(4)
    assert info(f.sk)["unacked"] == 6


@pytest.mark.rfc("2018")
def test_sacked_segments_are_counted_and_the_state_is_disorder(f):
    f.ack(0, (2, 3))
    figures = info(f.sk)
    assert (figures["sacked"], figures["ca_state"]) == (1, TCP_CA_DISORDER)


@pytest.mark.rfc("6675")
def test_lost_and_repeated_segments_in_recovery(f):
    f.ack(0, (1, 3), (4, 10))
    f.wait(100_000)
    figures = info(f.sk)
    assert figures["ca_state"] == TCP_CA_RECOVERY
    assert (figures["lost"], figures["retrans"], figures["total_retrans"]) == (2, 2, 2)
    assert figures["bytes_retrans"] == 2000
    assert figures["bytes_sent"] == 12_000
    assert figures["snd_ssthresh"] == 5


def test_after_recovery_nothing_is_lost_but_the_total_stays(f):
    f.ack(0, (1, 3), (4, 10))
    f.wait(100_000)
    f.ack(10)
    figures = info(f.sk)
    assert (figures["lost"], figures["retrans"], figures["sacked"]) == (0, 0, 0)
    assert (figures["total_retrans"], figures["ca_state"]) == (2, TCP_CA_OPEN)


@pytest.mark.rfc("6298", "5.5")
def test_timeouts_show_in_retransmits_backoff_and_rto(server):
    f = Flight(server, sack=False)
    rto_us = info(f.sk)["rto"]
    f.wait(rto_us + 1000)
    figures = info(f.sk)
    assert (figures["retransmits"], figures["backoff"]) == (1, 1)
    assert (figures["ca_state"], figures["rto"]) == (TCP_CA_LOSS, 2 * rto_us)
    assert figures["snd_cwnd"] == 1
    f.wait(2 * rto_us)
    assert (info(f.sk)["retransmits"], info(f.sk)["backoff"]) == (2, 2)


@pytest.mark.linux("tcp_ack_update_rtt: only reset backoff on valid RTT measurement")
def test_an_ack_ends_the_retransmits_and_the_next_rtt_the_backoff(server):
    f = Flight(server, sack=False)
    f.wait(info(f.sk)["rto"] + 1000)
    f.ack(10)
    assert (info(f.sk)["retransmits"], info(f.sk)["backoff"]) == (0, 1)
    f.write(1)
    f.ack(11)
    assert (info(f.sk)["retransmits"], info(f.sk)["backoff"]) == (0, 0)


def test_window_probes_are_counted_until_one_is_answered(server):
    sk, peer = server.established("mss 1000")
    peer.send(". 1:1(0) ack 1 win 0")
    sk.send(bytes(500))
    server.advance_us(300_000)
    figures = info(sk)
    assert (figures["probes"], figures["backoff"]) == (1, 1)
    assert (figures["snd_wnd"], figures["notsent_bytes"]) == (0, 500)
    peer.send(". 1:1(0) ack 1 win 1000")
    assert (info(sk)["probes"], info(sk)["notsent_bytes"]) == (0, 0)


def test_what_the_congestion_window_holds_is_not_sent(f):
    f.write(3)
    assert info(f.sk)["notsent_bytes"] == 3000
    f.ack(10)
    assert info(f.sk)["notsent_bytes"] == 0


# Times.


def test_rtt_and_min_rtt_are_those_of_the_path(f):
    f.ack(10)
    figures = info(f.sk)
    assert figures["rtt"] == figures["min_rtt"] == 100_000
    assert 0 < figures["rttvar"] <= 50_000
    assert figures["rto"] >= 300_000


def test_a_longer_round_trip_moves_rtt_by_an_eighth_and_leaves_the_least(f):
    f.wait(80_000)
    f.ack(10)
    figures = info(f.sk)
    assert (figures["rtt"], figures["min_rtt"]) == (110_000, 100_000)


@pytest.mark.rfc("6298", "2.2")
@pytest.mark.parametrize("fastpath", [False, True])
def test_after_a_repeated_syn_ack_the_first_round_trip_is_that_of_text(fastpath):
    h = host(ustack=UstackConfig(tcp_fastpath=fastpath))
    lsk, peer = h.listen(), h.peer()
    peer.send("S 0:0(0) win 65535 <mss 1000>")
    h.advance_us(1_100_000)
    peer.send(". 1:1(0) ack 1 win 65535")
    sk = lsk.accept()
    assert info(sk)["rtt"] == 0
    peer.drain()
    sk.setsockopt(TCP, socket.TCP_NODELAY, 1)
    sk.send(b"x")
    sk.send(b"y")
    h.advance_us(300_000)
    peer.send(". 1:1(0) ack 2 win 65535")
    figures = info(sk)
    assert (figures["rtt"], figures["rttvar"], figures["rto"]) == (300_000, 150_000, 900_000)
    peer.send(". 1:1(0) ack 3 win 65535")
    assert (info(sk)["rttvar"], sk._sk.tp.mdev_max_us) == (112_500, 600_000)  # the same round
    sk.send(b"z")
    h.advance_us(100_000)
    peer.send(". 1:1(0) ack 4 win 65535")
    assert info(sk)["rttvar"] == (450_000 + (200_000 - 112_500 >> 3)) >> 2


@pytest.mark.linux("tcp_update_rtt_min, net.ipv4.tcp_min_rtt_wlen")
@pytest.mark.parametrize("fastpath", [False, True])
@pytest.mark.parametrize(("seconds", "least_ms"), [(299, 100), (301, 150)])
def test_the_least_round_trip_is_that_of_the_last_five_minutes(fastpath, seconds, least_ms):
    f = Flight(host(ustack=UstackConfig(tcp_fastpath=fastpath)), 1)
    f.ack(1)
    f.wait(seconds * 1_000_000)
    f.write(1)
    f.wait(150_000)
    f.ack(2)
    assert info(f.sk)["min_rtt"] == least_ms * 1000


@pytest.mark.rfc("7323")
def test_a_receiver_learns_the_round_trip_from_echoed_timestamps(server):
    f = Flight(server, segments=1, ts=True)
    f.wait(50_000)
    f.peer.send(". 1:1001(1000) ack 1001 <nop,nop,TS val 2 ecr *>")
    assert info(f.sk)["rcv_rtt"] == 150_000


def test_times_since_data_and_acks_are_in_milliseconds(server):
    sk, peer = server.established()
    server.advance_us(7_000)
    sk.send(b"x")
    server.advance_us(5_000)
    peer.send(". 1:1(0) ack 2")
    server.advance_us(3_000)
    peer.send("P. 1:2(1) ack 2", data=b"y")
    server.advance_us(1_000)
    figures = info(sk)
    assert figures["last_data_sent"] == 9
    assert figures["last_ack_recv"] == 4
    assert figures["last_data_recv"] == 1


def test_an_idle_connection_counts_from_its_beginning(server):
    sk, _ = server.established()
    server.advance_us(50_000)
    figures = info(sk)
    assert figures["last_data_sent"] == figures["last_data_recv"] == figures["last_ack_recv"] == 50


def test_ato_is_there_once_data_has_come(server):
    sk, peer = server.established()
    assert info(sk)["ato"] == 0
    peer.send("P. 1:2(1) ack 1", data=b"y")
    assert info(sk)["ato"] == 40_000


# Windows and rates.


def test_windows_are_in_bytes_scaled(server):
    sk, peer = server.established("mss 1460,nop,wscale 4", win=1000)
    figures = info(sk)
    assert figures["snd_wnd"] == 16_000
    assert figures["rcv_wnd"] == sk._sk.tp.rcv_wnd > 0
    peer.send(". 1:1(0) ack 1 win 2000")
    assert info(sk)["snd_wnd"] == 32_000


def test_the_receive_window_shrinks_with_what_waits(server):
    sk, peer = server.established()
    before = info(sk)
    peer.send(". 1:1461(1460) ack 1")
    assert 0 < before["rcv_ssthresh"] <= before["rcv_wnd"]
    assert before["rcv_space"] == 14_600
    assert info(sk)["rcv_ssthresh"] >= before["rcv_ssthresh"]


def test_slow_start_opens_the_congestion_window(f):
    assert (info(f.sk)["snd_cwnd"], info(f.sk)["snd_ssthresh"]) == (10, INFINITE_SSTHRESH)
    f.ack(10)
    assert info(f.sk)["snd_cwnd"] == 20


def test_the_pacing_rate_is_twice_cwnd_per_round_trip(f):
    f.ack(10)
    figures = info(f.sk)
    assert figures["pacing_rate"] == 2 * 20 * 1000 * 10
    assert figures["max_pacing_rate"] == NO_LIMIT


@pytest.mark.linux("tcp_update_pacing_rate: snd_cwnd < snd_ssthresh / 2")
@pytest.mark.parametrize(("ssthresh", "percent"), [(42, 200), (40, 120), (25, 120)])
def test_from_half_of_ssthresh_on_it_is_a_fifth_more_than_cwnd(f, ssthresh, percent):
    f.tp.snd_ssthresh = ssthresh
    f.ack(10)
    figures = info(f.sk)
    assert figures["snd_cwnd"] == 20
    assert figures["pacing_rate"] == percent * 20 * 1000 * 10 // 100


def test_a_limit_of_the_pacing_rate_is_told(f):
    f.sk.setsockopt(socket.SOL_SOCKET, 47, 50_000)
    figures = info(f.sk)
    assert figures["max_pacing_rate"] == 50_000
    assert figures["pacing_rate"] <= 50_000


def test_reordering_is_the_sysctls_until_more_is_seen():
    server = host(TEST_CONFIG, tcp=TcpConfig(tcp_reordering=5))
    sk, _ = server.established()
    assert info(sk)["reordering"] == 5


# Counts.


def test_an_accepted_connection_begins_with_the_segments_of_its_handshake(server):
    """Linux counts the SYN and the third ACK, but not the SYN-ACK, which no socket sent."""
    sk, _ = server.established()
    figures = info(sk)
    assert (figures["segs_in"], figures["segs_out"], figures["delivered"]) == (2, 0, 1)
    assert (figures["bytes_acked"], figures["bytes_received"]) == (0, 0)


def test_a_connection_that_we_opened_has_its_syn_acknowledged(server):
    peer = server.peer(port=80, to=None)
    sk = server.connect()
    peer.answer_syn()
    figures = info(sk)
    assert (figures["segs_in"], figures["segs_out"], figures["delivered"]) == (1, 2, 1)
    assert figures["bytes_acked"] == 1


def test_bytes_and_segments_that_were_sent(f):
    figures = info(f.sk)
    assert (figures["bytes_sent"], figures["bytes_acked"]) == (10_000, 0)
    assert (figures["data_segs_out"], figures["segs_out"]) == (10, 10)
    f.ack(3)
    figures = info(f.sk)
    assert (figures["bytes_acked"], figures["delivered"]) == (3000, 4)
    assert (figures["segs_in"], figures["data_segs_in"]) == (3, 0)


def test_bytes_and_segments_that_came(server):
    sk, peer = server.established()
    peer.send("P. 1:101(100) ack 1")
    peer.send("P. 101:151(50) ack 1")
    peer.send(". 151:151(0) ack 1")
    figures = info(sk)
    assert (figures["bytes_received"], figures["data_segs_in"], figures["segs_in"]) == (150, 2, 5)


def test_the_fast_path_counts_as_python_does():
    counts = []
    for fastpath in (True, False):
        server = host(TEST_CONFIG)
        server.stack.tcp.fast.on = fastpath and server.stack.tcp.fast.on
        sk, peer = server.established()
        for start in range(1, 3001, 1000):
            peer.send(f". {start}:{start + 1000}(1000) ack 1", data=pattern(start - 1, 1000))
        figures = info(sk)
        counts.append((figures["segs_in"], figures["data_segs_in"], figures["bytes_received"]))
    assert counts == [(5, 3, 3000)] * 2


def test_a_repetition_that_was_not_needed_counts_as_segment_but_not_as_bytes(server):
    sk, peer = server.established()
    for _ in range(2):
        peer.send("P. 1:101(100) ack 1")
    figures = info(sk)
    assert (figures["bytes_received"], figures["data_segs_in"]) == (100, 2)


def test_segments_out_of_order_are_counted(server):
    sk, peer = server.established()
    peer.send(". 101:201(100) ack 1")
    peer.send(". 301:401(100) ack 1")
    peer.send(". 1:101(100) ack 1")
    assert info(sk)["rcv_ooopack"] == 2


@pytest.mark.rfc("2883")
def test_duplicate_sacks_are_counted(f):
    f.ack(0, (1, 3), (4, 10))
    f.wait(100_000)
    f.ack(10, (0, 1))
    assert info(f.sk)["dsack_dups"] == 1


@pytest.mark.linux("tcp_check_sack_reordering")
def test_overtaking_is_seen_and_measured(f):
    f.ack(0, (3, 6))
    f.ack(0, (3, 6), (1, 2))
    figures = info(f.sk)
    assert figures["reord_seen"] == 1
    assert figures["reordering"] > 3
