"""TIME_WAIT and the orphan's FIN_WAIT2 as mini-sockets (tcp_timewait_state_process)."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import Any

import pytest

from kit.host import TEST_CONFIG, Host, host
from kit.peer import Peer
from ustack.config import LINUX_6, LINUX_310, TcpConfig, UstackConfig
from ustack.core.sysctl import with_profile
from ustack.tcp.diag import tcp_diag

SECOND = 1_000_000
TS = "mss 1460,sackOK,TS val 1000 ecr 0"
TCP_LINGER2 = 8


def states(h: Host) -> list[str]:
    """The states of everything but listeners, as ss prints them."""
    return sorted(str(r["state"]) for r in tcp_diag(h.stack.tcp) if r["state"] != "LISTEN")


def with_tcp(profile: str = LINUX_6, **tcp: Any) -> Host:
    config = with_profile(TEST_CONFIG, profile)
    return host(replace(config, tcp=replace(config.tcp, **tcp)))


def time_wait(h: Host, *, ts: bool = False) -> Peer:
    """A connection that we have closed first; the peer's last sequence number is 2."""
    lsk = h.listen()
    peer = h.peer()
    stamp = " <nop,nop,TS val {} ecr *>" if ts else ""
    peer.handshake(TS if ts else "mss 1460", ts=stamp.format(1000)[2:-1] if ts else "")
    lsk.accept().close()
    peer.expect("F. 1:1(0) ack 1")
    peer.send("F. 1:1(0) ack 2" + stamp.format(1001))
    peer.expect(". 2:2(0) ack 2")
    assert states(h) == ["TIME-WAIT"]
    return peer


def fin_wait_2(h: Host, **options: int) -> Peer:
    """An orphan whose FIN is acknowledged."""
    sk, peer = h.established()
    if "linger2" in options:
        sk.setsockopt(6, TCP_LINGER2, options["linger2"])
    sk.close()
    peer.expect("F. 1:1(0) ack 1")
    peer.send(". 1:1(0) ack 2")
    return peer


@pytest.mark.parametrize("fastpath", [False, True])
def test_the_fin_that_it_waits_for_is_counted_whoever_takes_it(fastpath):
    h = host(TEST_CONFIG, ustack=UstackConfig(tcp_fastpath=fastpath))
    peer = fin_wait_2(h)
    names = ("InSegs", "OutSegs", "InReceives", "InDelivers", "InOctets")
    before = [getattr(h.mib, name) for name in names]
    peer.send("F. 1:1(0) ack 2")
    peer.expect(". 2:2(0) ack 2")
    assert states(h) == ["TIME-WAIT"]
    assert [getattr(h.mib, n) - b for n, b in zip(names, before, strict=True)] == [1, 1, 1, 1, 40]


@pytest.mark.linux("TCP_TIMEWAIT_LEN, numbers C4")
def test_it_lasts_a_minute(server):
    time_wait(server)
    server.advance_us(59_900_000)
    assert states(server) == ["TIME-WAIT"]
    server.advance_us(200_000)
    assert states(server) == []


@pytest.mark.linux("__inet_twsk_schedule: LINUX_MIB_TIMEWAITED")
def test_it_is_counted_when_it_begins(server):
    time_wait(server)
    assert server.mib.TW == 1
    server.advance_us(70 * SECOND)
    assert server.mib.TW == 1


@pytest.mark.rfc("9293", "3.10.7.4")
def test_a_bare_ack_starts_the_minute_anew_and_is_not_answered(server):
    peer = time_wait(server)
    server.advance_us(50 * SECOND)
    peer.send(". 2:2(0) ack 2")
    peer.expect_nothing()
    server.advance_us(50 * SECOND)
    assert states(server) == ["TIME-WAIT"]


@pytest.mark.rfc("9293", "3.10.7.4")
@pytest.mark.parametrize("line", ["F. 1:1(0) ack 2", ". 0:0(0) ack 2", "P. 2:12(10) ack 2"])
def test_anything_else_is_answered_with_the_last_ack(server, line):
    peer = time_wait(server)
    peer.send(line)
    peer.expect(". 2:2(0) ack 2")
    assert states(server) == ["TIME-WAIT"]


@pytest.mark.linux("tcp_oow_rate_limited: data is always answered")
def test_answers_to_what_is_no_data_are_limited_whatever_data_came_between(server):
    peer = time_wait(server)
    peer.send("P. 2:12(10) ack 2")
    peer.expect(". 2:2(0) ack 2")
    peer.send("P. 2:12(10) ack 2")
    peer.expect(". 2:2(0) ack 2")
    peer.send(". 0:0(0) ack 2")  # data did not use the allowance up
    peer.expect(". 2:2(0) ack 2")
    peer.send(". 0:0(0) ack 2")
    peer.expect_nothing()
    assert server.mib.TCPACKSkippedTimeWait == 1
    server.advance_us(500_000)
    peer.send(". 0:0(0) ack 2")
    peer.expect(". 2:2(0) ack 2")


@pytest.mark.rfc("1337", "2")
def test_a_reset_ends_it(server):
    peer = time_wait(server)
    peer.send("R 2:2(0)")
    assert states(server) == []


@pytest.mark.rfc("1337", "3")
@pytest.mark.linux("net.ipv4.tcp_rfc1337")
def test_a_reset_does_not_end_it_where_rfc_1337_holds():
    h = with_tcp(tcp_rfc1337=True)
    peer = time_wait(h)
    h.advance_us(30 * SECOND)
    peer.send("R 2:2(0)")
    peer.expect_nothing()
    h.advance_us(29 * SECOND)
    assert states(h) == ["TIME-WAIT"]
    h.advance_us(2 * SECOND)  # nor does it begin anew
    assert states(h) == []


def test_a_reset_that_is_not_exactly_in_place_is_ignored(server):
    peer = time_wait(server)
    peer.send("R 3:3(0)")
    peer.send("R 1:1(0)")
    peer.expect_nothing()
    assert states(server) == ["TIME-WAIT"]


@pytest.mark.linux("tcp_paws_reject: TCP_PAWS_MSL")
@pytest.mark.parametrize(("refreshed", "left"), [(True, ["TIME-WAIT"]), (False, [])])
def test_an_old_timestamp_keeps_a_reset_out_for_a_minute_after_the_last_new_one(refreshed, left):
    h = with_tcp()
    peer = time_wait(h, ts=True)
    h.advance_us(50 * SECOND)
    stamp = " <nop,nop,TS val 1005 ecr *>" if refreshed else ""
    peer.send(". 2:2(0) ack 2" + stamp)
    h.advance_us(50 * SECOND)
    peer.send("R 2:2(0) <nop,nop,TS val 1000 ecr *>")
    assert states(h) == left


# A new connection of the same two ends.


@pytest.mark.rfc("6191", "2")
def test_a_syn_with_a_higher_number_opens_a_new_connection(server):
    peer = time_wait(server)
    old_iss = peer.host_iss
    peer.send("S 100000:100000(0) <mss 1460>")
    peer.expect("S. 0:0(0) ack 100001")
    assert (peer.host_iss - old_iss) & 0xFFFFFFFF == 2 + 65535 + 2
    assert "TIME-WAIT" not in states(server)


def test_a_syn_with_a_lower_number_is_acknowledged(server):
    peer = time_wait(server)
    peer.send("S 4294867296:4294867296(0) <mss 1460>")
    peer.expect(". 2:2(0) ack 2")
    assert states(server) == ["TIME-WAIT"]


@pytest.mark.rfc("6191", "2")
def test_unless_its_timestamp_is_newer(server):
    peer = time_wait(server, ts=True)
    peer.send("S 4294867296:4294867296(0) <mss 1460,sackOK,TS val 1002 ecr 0>")
    peer.expect("S. 0:0(0) ack 4294867297")


@pytest.mark.rfc("6191", "2")
def test_an_old_timestamp_refuses_a_syn_with_a_higher_number(server):
    peer = time_wait(server, ts=True)
    peer.send("S 100000:100000(0) <mss 1460,sackOK,TS val 1000 ecr 0>")
    peer.expect(". 2:2(0) ack 2")
    assert server.mib.PAWSTimewait == 1


def test_without_a_listener_a_new_syn_is_acknowledged():
    h = with_tcp()
    lsk = h.listen()
    peer = h.peer()
    peer.handshake()
    lsk.accept().close()
    lsk.close()
    peer.expect("F. 1:1(0) ack 1")
    peer.send("F. 1:1(0) ack 2")
    peer.expect(". 2:2(0) ack 2")
    for _ in range(2):  # without a limit
        peer.send("S 100000:100000(0) <mss 1460>")
        peer.expect(". 2:2(0) ack 2")


@pytest.mark.rfc("7323", "5.2")
def test_its_ack_carries_timestamps_if_the_connection_had_them(server):
    peer = time_wait(server, ts=True)
    peer.send("F. 1:1(0) ack 2 <nop,nop,TS val 1005 ecr *>")
    peer.expect(". 2:2(0) ack 2 <nop,nop,TS val * ecr 1001>")


@pytest.mark.linux("tcp_time_wait: tcp_receive_window")
def test_its_window_is_what_the_connection_had_offered(server):
    sk, peer = server.established()
    peer.send("P. 1:1001(1000) ack 1")
    ack = peer.expect(". 1:1(0) ack 1001")
    sk.recv(1000)
    sk.close()
    fin = peer.expect("F. 1:1(0) ack 1001")
    peer.send("F. 1001:1001(0) ack 2")
    last = peer.expect(". 2:2(0) ack 1002")
    assert fin.window >= ack.window
    peer.send("F. 1001:1001(0) ack 2")
    assert peer.expect(". 2:2(0) ack 1002").window <= last.window


# The orphan's FIN_WAIT2.


def test_an_orphans_fin_wait_2_is_a_mini_socket(server):
    fin_wait_2(server)
    slabs = server.stack.memory_info()
    assert len(server.stack.tcp.twhash) == 1
    assert len(server.stack.tcp.ehash) == 0
    assert set(slabs) >= {"TCP", "tw_sock_TCP"}


def test_the_peers_fin_makes_it_time_wait(server):
    peer = fin_wait_2(server)
    server.advance_us(30 * SECOND)
    peer.send("F. 1:1(0) ack 2")
    peer.expect(". 2:2(0) ack 2")
    server.advance_us(59 * SECOND)
    assert states(server) == ["TIME-WAIT"]


@pytest.mark.linux("TCP_TW_RST: no TCPAbortOnData, as measured on 6.18")
def test_text_for_it_is_reset(server):
    peer = fin_wait_2(server)
    peer.send("P. 1:11(10) ack 2")
    peer.expect("R 2:2(0)")
    assert states(server) == []
    assert server.mib.TCPAbortOnData == 0


def test_text_with_the_fin_is_reset_too(server):
    peer = fin_wait_2(server)
    peer.send("FP. 1:11(10) ack 2")
    peer.expect("R 2:2(0)")
    assert states(server) == []


def test_a_syn_in_its_window_is_reset(server):
    peer = fin_wait_2(server)
    peer.send("S 1:1(0) <mss 1460>")
    assert peer.expect_next().flags == 0x14
    assert states(server) == []


def test_what_is_out_of_its_window_is_acknowledged_at_a_limited_rate(server):
    peer = fin_wait_2(server)
    peer.send(". 200000:200000(0) ack 2")
    peer.expect(". 2:2(0) ack 1")
    peer.send(". 200000:200000(0) ack 2")
    peer.expect_nothing()
    assert server.mib.TCPACKSkippedFinWait2 == 1


def test_a_bare_ack_does_not_make_it_live_longer(server):
    peer = fin_wait_2(server)
    server.advance_us(59 * SECOND)
    peer.send(". 1:1(0) ack 2")
    peer.expect_nothing()
    server.advance_us(2 * SECOND)
    assert states(server) == []


@pytest.mark.linux("tcp_timewait_state_process: if (!th->ack ...) return TCP_TW_SUCCESS")
@pytest.mark.parametrize("line", ["F 1:1(0)", "P 1:11(10)"])
def test_what_has_no_ack_changes_nothing(server, line):
    peer = fin_wait_2(server)
    peer.send(line)
    peer.expect_nothing()
    assert states(server) == ["FIN-WAIT-2"]


@pytest.mark.linux("net.ipv4.tcp_fin_timeout")
def test_it_waits_for_tcp_fin_timeout():
    h = with_tcp(tcp_fin_timeout_us=20 * SECOND)
    fin_wait_2(h)
    h.advance_us(19 * SECOND)
    assert states(h) == ["FIN-WAIT-2"]
    h.advance_us(2 * SECOND)
    assert states(h) == []


@pytest.mark.linux("tcp_keepalive_timer: tmo > 0")
def test_a_wait_that_has_become_too_long_meanwhile_ends_with_a_reset():
    h = with_tcp(tcp_fin_timeout_us=100 * SECOND)
    peer = fin_wait_2(h)
    tcp = replace(h.stack.config.tcp, tcp_fin_timeout_us=60 * SECOND)
    h.stack.set_config(replace(h.stack.config, tcp=tcp))
    h.advance_us(41 * SECOND)
    peer.expect("R. 2:2(0) ack 1")
    assert states(h) == []


@pytest.mark.linux("tcp_rcv_state_process: tmo > TCP_TIMEWAIT_LEN comes before th->fin")
@pytest.mark.parametrize(("linger2", "answers_s"), [(50, 50), (70, 20)])
def test_an_old_fin_with_the_ack_of_ours_keeps_the_full_socket_for_up_to_a_minute(
    server, linger2, answers_s
):
    """Of more than that the minute is a mini-socket's, which Linux counts last or not at all."""
    sk, peer = server.established()
    sk.setsockopt(6, 8, linger2)
    sk.close()
    peer.expect("F. 1:1(0) ack 1")
    peer.send("F. 0:0(0) ack 2")
    server.advance_us((answers_s - 1) * SECOND)
    assert states(server) == ["FIN-WAIT-2"]
    server.advance_us(2 * SECOND)
    assert states(server) == []


@pytest.mark.linux("TCP_LINGER2")
def test_or_as_long_as_the_socket_says(server):
    fin_wait_2(server, linger2=10)
    server.advance_us(11 * SECOND)
    assert states(server) == []


@pytest.mark.linux("tcp_keepalive_timer: tmo > TCP_TIMEWAIT_LEN")
@pytest.mark.parametrize(("linger2", "seconds"), [(90, 60), (120, 120)])
def test_beyond_a_minute_it_begins_as_a_full_socket(server, linger2, seconds):
    """What exceeds the minute is counted twice and the minute not at all: Linux has it so."""
    fin_wait_2(server, linger2=linger2)
    assert len(server.stack.tcp.ehash) == 1
    server.advance_us((linger2 - 59) * SECOND)
    assert len(server.stack.tcp.ehash) == 0
    assert states(server) == ["FIN-WAIT-2"]
    server.advance_us((seconds - linger2 + 58) * SECOND)
    assert states(server) == ["FIN-WAIT-2"]
    server.advance_us(2 * SECOND)
    assert states(server) == []
    assert server.stack.tcp.orphan_count == 0


@pytest.mark.linux("tcp_fin_time: at least 3.5 RTO")
def test_it_waits_for_a_repeated_fin_at_least():
    h = with_tcp(tcp_fin_timeout_us=0)
    sk, peer = h.established()
    rto_us = h.stack.tcp.ehash[(h.addr, 80, peer.addr, peer.port)].tp.rto_us
    sk.close()
    peer.expect("F. 1:1(0) ack 1")
    peer.send(". 1:1(0) ack 2")
    assert states(h) == ["FIN-WAIT-2"]
    h.advance_us(rto_us * 7 // 2 - 1000)
    assert states(h) == ["FIN-WAIT-2"]
    h.advance_us(2000)
    assert states(h) == []


@pytest.mark.linux("linger2 < 0 in FIN_WAIT1: TCPAbortOnData and a reset")
def test_a_negative_linger2_waits_for_no_fin(server):
    peer = fin_wait_2(server, linger2=-1)
    peer.expect("R 2:2(0)")
    assert states(server) == []
    assert server.mib.TCPAbortOnData == 1


@pytest.mark.linux("tcp_close: LINUX_MIB_TCPABORTONLINGER")
def test_and_if_the_fin_was_acknowledged_before_close_resets(server):
    sk, peer = server.established()
    sk.setsockopt(6, TCP_LINGER2, -1)
    sk.shutdown(1)
    peer.expect("F. 1:1(0) ack 1")
    peer.send(". 1:1(0) ack 2")
    sk.close()
    server.settle()
    peer.expect("R. 2:2(0) ack 1")
    assert server.mib.TCPAbortOnLinger == 1
    assert server.stack.tcp.orphan_count == 0


def test_a_crossing_fin_of_an_orphan_needs_no_timer(server):
    sk, peer = server.established()
    sk.close()
    peer.expect("F. 1:1(0) ack 1")
    peer.send("F. 1:1(0) ack 2")
    peer.expect(". 2:2(0) ack 2")
    assert states(server) == ["TIME-WAIT"]
    server.advance_us(61 * SECOND)
    assert states(server) == []


# Taking a TIME_WAIT's place with connect().


def client_in_time_wait(
    profile: str = LINUX_6, *, ts: bool = True, reuse: bool = False, **tcp: Any
) -> tuple[Host, Peer]:
    """We had one connection from the one port there is, closed it, and are in TIME_WAIT."""
    h = with_tcp(profile, ip_local_port_range=(4000, 4000), **tcp)
    peer = h.peer(port=80, to=None)
    sk = h.connect()
    peer.answer_syn(TS if ts else "mss 1460")
    sk.setsockopt(1, 2, reuse)
    sk.close()
    peer.expect("F. 1:1(0) ack 1")
    peer.send("F. 1:1(0) ack 2" + (" <nop,nop,TS val 1001 ecr *>" if ts else ""))
    peer.expect(". 2:2(0) ack 2")
    return h, peer


def connects(h: Host) -> bool:
    sk = h.socket()
    try:
        sk.connect(0x0A000001, 80)
    except BlockingIOError:
        h.settle()
        return True
    except OSError as error:
        assert error.errno == errno.EADDRNOTAVAIL
    return False


@pytest.mark.linux("tcp_tw_reuse, numbers C5")
def test_with_tcp_tw_reuse_its_place_is_taken_after_a_second():
    h, peer = client_in_time_wait(tcp_tw_reuse=1)
    old_iss = peer.host_iss
    assert not connects(h)
    h.advance_us(SECOND)
    assert connects(h)
    peer.expect("S 0:0(0) <mss 1460,sackOK,TS val * ecr 1001,nop,wscale 7>")
    assert (peer.host_iss - old_iss) & 0xFFFFFFFF == 2 + 65535 + 2
    assert h.mib.TWRecycled == 1
    assert states(h) == ["SYN-SENT"]


@pytest.mark.linux("tcp_twsk_unique: if (!tp->write_seq) tp->write_seq = 1")
def test_the_new_connection_never_begins_at_number_0():
    h, peer = client_in_time_wait(tcp_tw_reuse=1)
    (tw,) = h.stack.tcp.twhash.values()
    tw.tw.snd_nxt = -(65535 + 2) & 0xFFFFFFFF
    h.advance_us(SECOND)
    assert connects(h)
    peer.expect("S 0:0(0)")
    assert peer.host_iss == 1


def test_the_new_connection_works_and_closes():
    h, peer = client_in_time_wait(tcp_tw_reuse=1)
    h.advance_us(SECOND)
    sk = h.connect()
    peer.expect("S 0:0(0)")
    peer.send("S. 70000:70000(0) ack 1 <mss 1460,sackOK,TS val 3000 ecr *>")
    peer.expect(". 1:1(0) ack 70001")
    sk.send(b"again")
    peer.expect("P. 1:6(5) ack 70001")


@pytest.mark.rfc("7323", "5.3")
def test_an_old_syn_ack_for_it_is_refused_by_its_timestamp():
    """The peer is still in LAST_ACK or TIME_WAIT and repeats its ACK: we reset it."""
    h, peer = client_in_time_wait(tcp_tw_reuse=1)
    h.advance_us(SECOND)
    assert connects(h)
    peer.expect("S 0:0(0)")
    peer.send(". 2:2(0) ack 4294901761")
    seg = peer.expect_next()
    assert seg.flags & 4
    peer.expect("S 0:0(0)", within_us=20_000)  # and ask again at once


@pytest.mark.parametrize("reuse", [0, 2])
def test_by_default_not_outside_of_loopback(reuse):
    h, _ = client_in_time_wait(tcp_tw_reuse=reuse)
    h.advance_us(30 * SECOND)
    assert not connects(h)
    h.advance_us(31 * SECOND)
    assert connects(h)


def test_on_loopback_it_is_reused_by_default():
    h = with_tcp(ip_local_port_range=(4000, 4000))
    lsk = h.listen(8080)
    sk = h.connect("127.0.0.1", 8080)
    h.settle()
    child = lsk.accept()
    sk.close()
    h.settle()
    child.close()
    h.settle()
    assert states(h) == ["TIME-WAIT"]
    h.advance_us(1_100_000)
    again = h.connect("127.0.0.1", 8080)
    h.settle()
    assert again.established
    assert h.mib.TWRecycled == 1


def test_without_timestamps_never():
    h, _ = client_in_time_wait(ts=False, tcp_tw_reuse=1)
    h.advance_us(50 * SECOND)
    assert not connects(h)


@pytest.mark.linux("net.ipv4.tcp_tw_reuse_delay")
def test_the_second_is_a_knob():
    h, _ = client_in_time_wait(tcp_tw_reuse=1, tcp_tw_reuse_delay_us=5 * SECOND)
    h.advance_us(4 * SECOND)
    assert not connects(h)
    h.advance_us(SECOND)
    assert connects(h)


@pytest.mark.linux("tcp_twsk_unique in 3.10: get_seconds() - stamp > 1")
def test_the_old_kernel_counts_whole_seconds():
    h, _ = client_in_time_wait(LINUX_310, tcp_tw_reuse=1)
    h.advance_us(1_900_000)
    assert not connects(h)
    h.advance_us(200_000)
    assert connects(h)


@pytest.mark.linux("tcp_twsk_unique: twp is NULL")
def test_who_names_the_port_takes_its_place_at_once():
    h, peer = client_in_time_wait(reuse=True)
    sk = h.socket()
    sk.setsockopt(1, 2, 1)
    sk.bind(0, 4000)
    with pytest.raises(BlockingIOError):
        sk.connect(peer.addr, 80)
    assert h.mib.TWRecycled == 1


# How many.


@pytest.mark.linux("net.ipv4.tcp_max_tw_buckets")
def test_beyond_the_limit_connections_are_gone_at_once():
    h = host(TEST_CONFIG, tcp=TcpConfig(tcp_max_tw_buckets=2))
    lsk = h.listen()
    for n in range(5):
        peer = h.peer()
        peer.handshake()
        lsk.accept().close()
        peer.expect("F. 1:1(0) ack 1")
        peer.send("F. 1:1(0) ack 2")
        peer.expect(". 2:2(0) ack 2")  # the FIN is acknowledged all the same
        assert len(states(h)) == min(n + 1, 2)
    assert h.mib.TCPTimeWaitOverflow == 3
    h.advance_us(61 * SECOND)
    assert states(h) == []
    assert h.stack.tcp.orphan_count == 0
    assert list(h.stack.tcp.bhash) == [80]


def test_its_port_is_free_when_it_is_over():
    h, _ = client_in_time_wait()
    assert 4000 in h.stack.tcp.bhash
    h.advance_us(61 * SECOND)
    assert not h.stack.tcp.bhash
    assert connects(h)
