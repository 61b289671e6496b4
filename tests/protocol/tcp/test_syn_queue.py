"""E-SYNQ: how many half-open connections a listener holds (inet_csk_listen_start).

linux-6: the accept queue's limit, plus one. linux-3.10: reqsk_queue_alloc's table.
"""

from __future__ import annotations

import pytest

from kit.queues import SECOND, SYN, flood, kernel, syn_recv, sysctl
from ustack.config import LINUX_6, LINUX_310

BOTH = pytest.mark.parametrize("profile", [LINUX_6, LINUX_310])


@pytest.mark.linux("reqsk_queue_alloc of 3.10")
@pytest.mark.parametrize(
    ("backlog", "somaxconn", "max_syn_backlog", "length"),
    [
        (1, 128, 8192, 16),
        (5, 128, 8192, 16),
        (8, 128, 8192, 16),
        (15, 128, 8192, 16),
        (16, 128, 8192, 32),
        (127, 128, 8192, 128),
        (128, 128, 8192, 256),
        (512, 128, 8192, 256),
        (1000, 1024, 64, 128),
    ],
)
def test_a_310_listener_answers_as_many_syns_as_its_table_holds(
    backlog, somaxconn, max_syn_backlog, length
):
    server = kernel(LINUX_310, somaxconn=somaxconn, tcp_max_syn_backlog=max_syn_backlog)
    sysctl(server, "net.ipv4.tcp_syncookies", 0)
    sysctl(server, "net.ipv4.tcp_max_syn_backlog", 8192)  # the last quarter is another rule
    lsk = server.listen(backlog=1)
    lsk.close()
    sysctl(server, "net.ipv4.tcp_max_syn_backlog", max_syn_backlog)
    server.listen(backlog=backlog)
    sysctl(server, "net.ipv4.tcp_max_syn_backlog", 8192)
    assert len(flood(server, length + 20)) == length
    assert syn_recv(server) == length
    assert server.mib.ListenDrops == server.mib.TCPReqQFullDrop == 20
    assert server.mib.ListenOverflows == 0


@pytest.mark.linux("inet_csk_reqsk_queue_is_full: measured on 6.18")
@pytest.mark.parametrize(("backlog", "answered"), [(0, 1), (8, 9), (64, 65)])
def test_a_linux_6_listener_answers_one_syn_more_than_its_limit(backlog, answered):
    server = kernel(tcp_syncookies=0)
    server.listen(backlog=backlog)
    assert len(flood(server, 120)) == answered
    assert syn_recv(server) == answered
    assert server.mib.TCPReqQFullDrop == server.mib.ListenDrops == 120 - answered


@pytest.mark.linux("tcp_conn_request: measured on 6.18")
@BOTH
def test_without_cookies_the_last_quarter_of_max_syn_backlog_stays_free(profile):
    server = kernel(profile, tcp_syncookies=0, tcp_max_syn_backlog=32)
    server.listen(backlog=64)
    assert len(flood(server, 120)) == 25  # three quarters of 32, plus one
    assert server.mib.ListenDrops == 95
    assert server.mib.TCPReqQFullDrop == 0


@BOTH
def test_with_cookies_there_is_no_last_quarter(profile):
    server = kernel(profile, tcp_syncookies=1, tcp_max_syn_backlog=32)
    server.listen(backlog=64)
    assert len(flood(server, 64)) == 64
    assert server.mib.SyncookiesSent == 0


@BOTH
def test_with_cookies_every_syn_is_answered_and_the_queue_stays_as_long_as_it_is(profile):
    server = kernel(profile, tcp_syncookies=1)
    server.listen(backlog=8)
    held = 9 if profile == LINUX_6 else 16
    assert len(flood(server, 120)) == 120
    assert syn_recv(server) == held
    assert server.mib.SyncookiesSent == server.mib.TCPReqQFullDoCookies == 120 - held
    assert server.mib.ListenDrops == 0


@BOTH
def test_a_backlog_beyond_somaxconn_is_cut_to_it(profile):
    server = kernel(profile, somaxconn=3, tcp_syncookies=0)
    for backlog in (-1, 4, 1000):
        lsk = server.listen(backlog=backlog)
        assert lsk._sk.listen.max_ack_backlog == 3
        lsk.close()


def test_the_profiles_have_their_own_somaxconn():
    for profile, somaxconn in ((LINUX_6, 4096), (LINUX_310, 128)):
        lsk = kernel(profile).listen(backlog=-1)
        assert lsk._sk.listen.max_ack_backlog == somaxconn


def test_a_request_that_is_given_up_makes_room():
    server = kernel(tcp_syncookies=0, tcp_synack_retries=1)
    server.listen(backlog=0)
    assert len(flood(server, 2)) == 1
    server.advance_us(4 * SECOND)
    assert syn_recv(server) == 0
    assert len(flood(server, 2, 21_000)) == 1


def test_a_reset_makes_room():
    server = kernel(tcp_syncookies=0)
    server.listen(backlog=0)
    (peer,) = flood(server, 2)
    peer.send("R 1:1(0)")
    assert len(flood(server, 2, 21_000)) == 1


@BOTH
def test_requests_come_from_their_slab_and_go_back(profile):
    server = kernel(profile)
    cache = server.stack.tcp.request_cache
    server.listen(backlog=100)
    assert cache.info().active_objs == 0
    flood(server, 30)
    assert cache.info().active_objs == 30
    server.advance_us(70 * SECOND)
    assert cache.info().active_objs == 0


@pytest.mark.linux("inet_listen: a second call only changes sk_max_ack_backlog")
@pytest.mark.linux("inet_csk_reqsk_queue_hash_add: TCP_NEW_SYN_RECV since 4.4")
@pytest.mark.parametrize(("profile", "in_ehash"), [(LINUX_6, 1), (LINUX_310, 0)])
def test_a_request_stands_in_the_common_hash_or_in_310_in_its_listeners(profile, in_ehash):
    server = kernel(profile)
    lsk = server.listen()
    server.peer().send(SYN)
    table = lsk._sk.listen.table
    assert len(server.stack.tcp.reqsk_hash) == in_ehash
    assert (sum(map(len, table.syn_table)) if table else 0) == 1 - in_ehash


def test_a_second_listen_changes_the_length_at_once():
    server = kernel(tcp_syncookies=0)
    lsk = server.listen(backlog=0)
    assert len(flood(server, 3)) == 1
    lsk.listen(2)
    assert len(flood(server, 5, 21_000)) == 2
    lsk.listen(0)
    assert len(flood(server, 5, 22_000)) == 0


@pytest.mark.linux("reqsk_queue_alloc is for the first listen() alone")
def test_a_second_listen_leaves_a_310_syn_queue_as_it_was():
    server = kernel(LINUX_310, tcp_syncookies=0)
    lsk = server.listen(backlog=5)
    lsk.listen(100)
    assert lsk._sk.listen.max_ack_backlog == 100
    assert len(flood(server, 40)) == 16


def test_ss_shows_both_queues_and_the_young_requests():
    server = kernel(LINUX_310)
    server.listen(backlog=512)
    flood(server, 3)
    server.advance_us(2 * SECOND)
    flood(server, 1, 21_000)
    server.peer(port=30_000).handshake()
    (row,) = [row for row in server.stack.tcp.diag() if row["state"] == "LISTEN"]
    assert (row["syn_queue"], row["syn_queue_limit"], row["qlen_young"]) == (4, 256, 1)
    assert (row["recv_q"], row["send_q"]) == (1, 128)


@BOTH
def test_a_listener_that_closes_forgets_its_requests(profile):
    server = kernel(profile)
    lsk = server.listen(backlog=100)
    answered = flood(server, 10)
    for peer in answered:
        peer.drain()
    lsk.close()
    assert server.stack.tcp.request_cache.info().active_objs == 0
    answered[0].send(". 1:1(0) ack 1")
    answered[0].expect("R 1:1(0)")
    answered[1].expect_nothing(for_us=10 * SECOND)


@BOTH
def test_a_listener_that_shuts_down_forgets_its_requests_and_may_listen_again(profile):
    server = kernel(profile)
    lsk = server.listen(backlog=100)
    (peer,) = flood(server, 1)
    peer.drain()
    lsk.shutdown(0)
    peer.send(". 1:1(0) ack 1")
    peer.expect("R 1:1(0)")
    lsk.listen(5)
    other = server.peer(port=30_000)
    other.handshake()
    assert lsk.accept().getpeername() == (other.addr, other.port)


def test_a_syn_with_fin_is_no_syn(server):
    server.listen()
    peer = server.peer()
    peer.send("SF 0:0(0) <mss 1460>")
    peer.expect_nothing()
    assert syn_recv(server) == 0


@BOTH
def test_a_request_shows_the_time_that_its_syn_ack_has_left(profile):
    server = kernel(profile)
    server.listen()
    server.peer().send(SYN)
    server.advance_us(SECOND // 4)
    (row,) = [row for row in server.stack.tcp.diag() if row["state"] == "SYN-RECV"]
    assert row["timer"] == ("on", 3 * SECOND // 4, 0)
