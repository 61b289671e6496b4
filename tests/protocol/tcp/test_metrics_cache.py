"""What earlier connections have learnt about a peer, and what the next one makes of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kit.host import TEST_CONFIG, Host, host
from kit.peer import Peer
from kit.segment import pattern
from ustack.config import TcpConfig
from ustack.lib.addresses import parse_ipv4
from ustack.tcp.cong.ops import TCP_INFINITE_SSTHRESH
from ustack.tcp.metrics import TCP_METRICS_TIMEOUT_US, TcpMetricsBlock, tcp_update_metrics
from ustack.tcp.scoreboard import tcp_recovery, tcp_reordering
from ustack.wire.tcp import FastopenOption

SECOND = 1_000_000
PEER = parse_ipv4("10.0.0.1")


def connection(h: Host, rtt_us: int = 0, repeats: int = 0) -> tuple[Any, Peer]:
    """Connect to a peer that takes ``rtt_us`` to answer, the SYN after ``repeats`` more."""
    peer = h.peer(port=80, to=None)
    peer.port += len(h.net.peers)
    sk = h.connect(port=peer.port)
    peer.expect("S 0:0(0)")
    for _ in range(repeats):
        peer.expect("S 0:0(0)", within_us=3 * SECOND)
    h.advance_us(rtt_us)
    peer.send("S. 0:0(0) ack 1 win 65535 <mss 1000>")
    peer.expect(". 1:1(0) ack 1")
    return sk, peer


def end(sk: Any, peer: Peer, at: int = 1, rtt_us: int = 0) -> None:
    """The peer closes first and acknowledges our FIN: LAST_ACK is over."""
    peer.send(f"F. 1:1(0) ack {at}")
    sk.close()
    peer.drain()
    peer.host.advance_us(rtt_us)
    peer.send(f". 2:2(0) ack {at + 1}")


def known(h: Host) -> TcpMetricsBlock | None:
    return h.stack.tcp.metrics.lookup(h.addr, PEER)


def exactly(h: Host) -> TcpMetricsBlock:
    block = known(h)
    assert block is not None
    return block


@pytest.mark.linux("tcp_update_metrics: TCP_METRIC_RTT, RTTVAR, CWND")
def test_a_connection_that_ends_leaves_its_figures(server):
    sk, peer = connection(server, 80_000)
    assert known(server) is None
    end(sk, peer, rtt_us=80_000)
    block = exactly(server)
    assert (block.c.rtt >> 3, block.c.cwnd, block.c.ssthresh, block.c.reordering) == (
        80_000,
        10,
        0,
        0,
    )
    assert block.c.rttvar == block.c.rtt >> 1
    following, _ = connection(server)
    assert tcp_reordering(following._sk) == 3


@pytest.mark.linux("tcp_time_wait")
def test_so_does_one_that_goes_to_time_wait(server):
    sk, peer = connection(server, 80_000)
    sk.close()
    peer.expect("F. 1:1(0) ack 1")
    server.advance_us(80_000)
    peer.send("F. 1:1(0) ack 2")
    assert exactly(server).c.rtt >> 3 == 80_000


def test_not_one_that_is_reset(server):
    sk, peer = connection(server, 80_000)
    peer.send("R 1:1(0)")
    sk.close()
    assert known(server) is None


@pytest.mark.linux("tcp_no_metrics_save")
def test_nothing_is_remembered_if_that_is_not_wanted():
    h = host(TEST_CONFIG, tcp=TcpConfig(tcp_no_metrics_save=True))
    end(*connection(h, 80_000))
    assert known(h) is None


@pytest.mark.linux("tcp_update_metrics: rtt -= m >> 3, var -= (var - m) >> 2")
@pytest.mark.parametrize(
    ("before", "then"),
    [
        ((0, 0), (8000, 4000)),
        ((4000, 100), (8000, 2000)),  # longer: believed at once
        ((16_000, 100), (15_000, 4000)),  # shorter: an eighth of the way
        ((8000, 5000), (8000, 4000)),  # the deviation sinks by a quarter of the difference
    ],
)
def test_a_longer_rtt_is_believed_at_once_and_a_shorter_one_by_an_eighth(server, before, then):
    sk, _ = connection(server)
    block = server.stack.tcp.metrics.lookup_or_create(server.addr, PEER)
    block.c.rtt, block.c.rttvar = before
    sk._sk.tp.srtt_us, sk._sk.tp.mdev_us = 8000, 1000
    tcp_update_metrics(sk._sk)
    assert (block.c.rtt, block.c.rttvar) == then


@pytest.mark.linux("tcp_update_metrics: icsk_backoff || !srtt_us")
@pytest.mark.parametrize("field", ["backoff", "srtt_us"])
def test_a_connection_without_an_rtt_makes_it_unknown_again(server, field: str):
    sk, _ = connection(server, 80_000)
    block = server.stack.tcp.metrics.lookup_or_create(server.addr, PEER)
    block.c.rtt, block.c.cwnd = 8000, 77
    setattr(sk._sk.tp, field, 1 if field == "backoff" else 0)
    tcp_update_metrics(sk._sk)
    assert (block.c.rtt, block.c.cwnd) == (0, 77)


@pytest.mark.linux("tcp_init_metrics: crtt > srtt_us")
def test_a_remembered_rtt_makes_the_first_rto_longer(server):
    block = server.stack.tcp.metrics.lookup_or_create(server.addr, PEER)
    block.c.rtt = 300_000 << 3
    sk, _ = connection(server, 10_000)
    assert sk._sk.tp.rto_us == 900_000
    assert sk._sk.tp.srtt_us == 10_000 << 3
    block.c.rtt = 9_000 << 3
    sk, _ = connection(server, 10_000)
    assert sk._sk.tp.rto_us == 210_000


@pytest.mark.linux("tcp_init_metrics: crtt stands in for the handshake's sample")
def test_it_stands_in_for_a_handshake_that_measured_nothing(server):
    sk, _ = connection(server, repeats=1)
    assert sk._sk.tp.rto_us == 3 * SECOND
    block = server.stack.tcp.metrics.lookup_or_create(server.addr, PEER)
    block.c.rtt = 50_000 << 3
    sk, _ = connection(server, repeats=1)
    assert sk._sk.tp.rto_us == 250_000


@pytest.mark.linux("tcp_no_ssthresh_metrics_save 1, the default")
@pytest.mark.parametrize(("forgets", "ssthresh"), [(True, TCP_INFINITE_SSTHRESH), (False, 20)])
def test_ssthresh_is_taken_over_only_if_that_is_wanted(forgets: bool, ssthresh: int):
    h = host(TEST_CONFIG, tcp=TcpConfig(tcp_no_ssthresh_metrics_save=forgets))
    h.stack.tcp.metrics.lookup_or_create(h.addr, PEER).c.ssthresh = 20
    sk, _ = connection(h)
    assert sk._sk.tp.snd_ssthresh == ssthresh


@pytest.mark.linux("tcp_update_metrics: three cases of cwnd and ssthresh")
@pytest.mark.parametrize(
    ("cwnd", "ssthresh", "state", "then"),
    [
        (100, TCP_INFINITE_SSTHRESH, 0, (100, 50)),  # still in its first slow start
        (30, TCP_INFINITE_SSTHRESH, 0, (40, 30)),
        (60, 50, 0, (50, 50)),  # congestion avoidance
        (20, 50, 0, (45, 50)),  # slow start again
        (60, 50, 3, (45, 50)),  # recovery
    ],
)
def test_cwnd_and_ssthresh_are_kept_as_far_as_they_mean_something(cwnd, ssthresh, state, then):
    h = host(TEST_CONFIG, tcp=TcpConfig(tcp_no_ssthresh_metrics_save=False))
    sk, _ = connection(h)
    block = h.stack.tcp.metrics.lookup_or_create(h.addr, PEER)
    block.c.cwnd, block.c.ssthresh = 40, 30
    tp = sk._sk.tp
    tp.snd_cwnd, tp.snd_ssthresh, tp.ca_state = cwnd, ssthresh, state
    tcp_update_metrics(sk._sk)
    assert (block.c.cwnd, block.c.ssthresh) == then


@pytest.mark.linux("TCP_METRIC_REORDERING")
def test_reordering_that_was_met_is_expected_of_the_next(server):
    sk, peer = connection(server)
    sk.send(pattern(0, 8000))
    peer.drain()
    peer.send(". 1:1(0) ack 1")
    tcp_recovery(sk._sk).reordering = 7
    peer.send(". 1:1(0) ack 8001")
    end(sk, peer, 8001)
    assert exactly(server).c.reordering == 7
    sk, _ = connection(server)
    assert tcp_reordering(sk._sk) == 7


@pytest.mark.linux("tcpm_check_stamp: TCP_METRICS_TIMEOUT")
def test_after_an_hour_only_the_cookie_is_believed(server):
    block = server.stack.tcp.metrics.lookup_or_create(server.addr, PEER)
    block.c.rtt, block.c.cwnd, block.fo_mss = 8000, 20, 1460
    server.advance_us(TCP_METRICS_TIMEOUT_US)
    assert exactly(server).c.rtt == 8000
    server.advance_us(1)
    assert (exactly(server).c.rtt, exactly(server).c.cwnd, block.fo_mss) == (0, 0, 1460)


@pytest.mark.linux("tcp_peer_is_proven")
def test_the_syn_queues_last_quarter_is_for_peers_that_have_answered_before():
    tcp = TcpConfig(tcp_syncookies=0, tcp_max_syn_backlog=8)
    h = host(replace(TEST_CONFIG, tcp=tcp))
    h.listen()
    for n in range(7):
        h.peer(addr=f"10.0.0.{20 + n}").send("S 0:0(0)")
    late = h.peer()
    late.send("S 0:0(0)")
    late.expect_nothing()
    h.stack.tcp.metrics.lookup_or_create(h.addr, PEER).c.rtt = 8
    late.send("S 0:0(0)")
    late.expect("S. 0:0(0) ack 1")


@pytest.mark.linux("tcp_rcv_fastopen_synack: syn_drop")
def test_fast_open_counts_syns_that_seem_to_have_been_dropped(server):
    block = server.stack.tcp.metrics.lookup_or_create(server.addr, PEER)
    block.cookie = FastopenOption(bytes(8))
    peer = server.peer(port=80, to=None)
    sk = server.socket()
    sk.send_fastopen(b"hello", PEER, 80)
    peer.expect("S 0:5(5)", within_us=1)
    peer.expect("S 0:0(0)", within_us=2 * SECOND)
    peer.send("S. 0:0(0) ack 1 win 65535 <mss 1460>")
    assert (block.syn_loss, block.last_syn_loss_us) == (1, server.world.now_us)
