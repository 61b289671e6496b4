"""E-RETRY, the server's side: when SYN-ACKs are repeated and when a request is given up.

linux-6: a timer for each request. linux-3.10: one for all, every 200 ms, which looks through
the table's chains in turn.
"""

from __future__ import annotations

from itertools import pairwise

import pytest

from kit.queues import SECOND, SYN, flood, kernel, syn_recv, sysctl, times_s
from ustack.config import LINUX_6, LINUX_310
from ustack.tcp.connect_options import TCP_SYNCNT
from ustack.tcp.options import IPPROTO_TCP

BOTH = pytest.mark.parametrize("profile", [LINUX_6, LINUX_310])


def silence(server, seconds: int) -> list[float]:
    """Let a SYN-ACK go unanswered; return when it was sent and repeated."""
    server.listen()
    peer = server.peer()
    peer.send(SYN)
    server.advance_us(seconds * SECOND)
    return times_s(peer, 1)


@pytest.mark.linux("reqsk_timer_handler: measured on 6.18")
@pytest.mark.parametrize(
    ("retries", "times"),
    [(0, [0]), (1, [0, 1]), (2, [0, 1, 3]), (5, [0, 1, 3, 7, 15, 31])],
)
def test_linux_6_repeats_a_syn_ack_after_one_two_four_seconds(retries, times):
    server = kernel(tcp_synack_retries=retries)
    assert silence(server, times[-1] * 2 + 2) == times
    assert syn_recv(server) == 0
    assert server.mib.TCPSynRetrans == server.mib.RetransSegs == retries
    assert server.mib.TCPTimeouts == retries + 1


@pytest.mark.linux("inet_csk_reqsk_queue_prune of 3.10, TCP_SYNQ_INTERVAL")
def test_310_is_at_most_half_a_second_late():
    times = silence(kernel(LINUX_310), 70)
    assert len(times) == 6
    gaps = [round(b - a, 1) for a, b in pairwise(times)]
    for gap, least in zip(gaps, (1, 2, 4, 8, 16), strict=True):
        assert least <= gap <= least + 0.61


@pytest.mark.linux("inet_csk_reqsk_queue_prune of 3.10: all chains twice a second")
def test_310_repeats_neighbours_at_one_tick():
    server = kernel(LINUX_310)
    server.listen()
    peers = flood(server, 50)
    server.advance_us(2 * SECOND)
    late = {round(peer.drain()[1].time_us - SECOND) for peer in peers}
    assert 1 < len(late) <= 3  # a table of 256 is looked through in three ticks
    assert len({t % 200_000 for t in late}) == 1


@BOTH
@pytest.mark.parametrize(("retries", "gone_s"), [(2, 7), (5, 63)])
def test_a_request_is_gone_after_the_last_syn_acks_time(profile, retries, gone_s):
    server = kernel(profile, tcp_synack_retries=retries)
    server.listen()
    peer = server.peer()
    peer.send(SYN)
    server.advance_us(gone_s * SECOND - 100_000)
    assert syn_recv(server) == 1
    server.advance_us(4 * SECOND)  # in linux-3.10 half a second late each time
    assert syn_recv(server) == 0
    peer.drain()
    peer.send(". 1:1(0) ack 1")
    peer.expect("R 1:1(0)")


def test_synack_retries_is_live():
    server = kernel()
    server.listen()
    peer = server.peer()
    peer.send(SYN)
    server.advance_us(2 * SECOND)
    sysctl(server, "net.ipv4.tcp_synack_retries", 1)
    server.advance_us(2 * SECOND)
    assert syn_recv(server) == 0 and len(peer.drain()) == 2


@pytest.mark.linux("reqsk_timer_handler: half of the room is for young ones")
@pytest.mark.parametrize(("syns", "repeated"), [(5, 5), (6, 2), (9, 2)])
def test_linux_6_repeats_less_often_while_old_requests_clog_the_queue(syns, repeated):
    """Crowded is twice the requests beyond max(8, limit); at five they are not yet."""
    server = kernel(tcp_synack_retries=5, tcp_syncookies=0)
    server.listen(backlog=10)
    peers = flood(server, syns)
    server.advance_us(70 * SECOND)
    assert len(peers[-1].drain()) - 1 >= repeated
    assert (len(peers[0].drain()) - 1 == 2) == (repeated == 2)


@pytest.mark.linux("inet_csk_reqsk_queue_prune of 3.10: qlen >> (max_qlen_log - 1)")
def test_310_repeats_less_often_from_half_a_table_on():
    server = kernel(LINUX_310, tcp_syncookies=0)
    server.listen(backlog=5)
    few = flood(server, 7)
    server.advance_us(70 * SECOND)
    assert all(len(peer.drain()) == 6 for peer in few)
    many = flood(server, 8, 21_000)
    server.advance_us(70 * SECOND)
    assert len(many[0].drain()) == 3


def test_young_requests_keep_the_old_ones_alive():
    """Retries fall only while fewer than half of the queue are young."""
    server = kernel(tcp_synack_retries=5, tcp_syncookies=0)
    server.listen(backlog=20)
    flood(server, 4)
    server.advance_us(1_500_000)
    flood(server, 8, 21_000)
    server.advance_us(900_000)
    assert server.stack.tcp.reqsk_hash and syn_recv(server) == 12


@pytest.mark.linux("tcp_check_req: the timer starts anew after a repeated SYN")
@BOTH
def test_a_repeated_syn_is_answered_at_once_and_puts_the_timer_off(profile):
    server = kernel(profile)
    server.listen()
    peer = server.peer()
    peer.send(SYN)
    peer.expect("S. 0:0(0) ack 1")
    server.advance_us(900_000)
    peer.send(SYN)
    again = peer.expect("S. 0:0(0) ack 1")
    later = peer.expect("S. 0:0(0) ack 1", within_us=2 * SECOND)
    least = SECOND if profile == LINUX_6 else 900_000
    assert least <= later.time_us - again.time_us <= least + 600_000


def test_an_answer_to_a_repeated_syn_is_no_timeout():
    server = kernel()
    lsk = server.listen()
    peer = server.peer()
    peer.send(SYN)
    server.advance_us(600_000)
    peer.send(SYN)
    assert lsk._sk.listen.qlen_young == 1
    (row,) = [row for row in server.stack.tcp.diag() if row["state"] == "SYN-RECV"]
    assert row["timer"][2] == 0


@pytest.mark.rfc("6298", "3")
def test_a_repeated_syn_ack_gives_no_rtt_sample():
    server = kernel()
    lsk = server.listen()
    peer = server.peer()
    peer.send(SYN)
    server.advance_us(1_500_000)
    peer.drain()
    peer.send(". 1:1(0) ack 1")
    assert lsk.accept()._sk.tp.srtt_us == 0


@BOTH
def test_nothing_ticks_when_no_request_waits(profile):
    server = kernel(profile)
    server.listen()
    peer = server.peer()
    peer.handshake()
    server.settle()
    timers = [t for _, _, t in server.stack.net.timers._heap if t.pending]
    assert not [t for t in timers if "request_sock" in t.fn.__module__]


@pytest.mark.linux("tcp_retransmit_synack: TCP_SYNCNT of the listener")
def test_a_listeners_own_count_of_retries_comes_first():
    server = kernel(tcp_synack_retries=5)
    lsk = server.listen()
    lsk.setsockopt(IPPROTO_TCP, TCP_SYNCNT, 1)
    peer = server.peer()
    peer.send(SYN)
    server.advance_us(70 * SECOND)
    assert times_s(peer) == [0, 1]


@pytest.mark.linux("tcp_req_err")
@BOTH
def test_an_icmp_error_about_a_syn_ack_removes_the_request(profile):
    server = kernel(profile)
    server.listen()
    peer = server.peer()
    peer.send(SYN)
    syn_ack = peer.expect("S. 0:0(0) ack 1")
    _, err = server.stack.ip.inet_protos[6]
    quoted = (80).to_bytes(2, "big") + peer.port.to_bytes(2, "big")
    err(3, 1, 0, server.addr, peer.addr, quoted + (syn_ack.seq + 1).to_bytes(4, "big"))
    assert syn_recv(server) == 1  # somebody guesses
    err(3, 1, 0, server.addr, peer.addr, quoted + syn_ack.seq.to_bytes(4, "big"))
    assert syn_recv(server) == 0 and server.mib.ListenDrops == 1
