"""SYN cookies: connections from what the third ACK brings back (RFC 4987 §3.6, syncookies.c)."""

from __future__ import annotations

import pytest

from kit.host import Host
from kit.peer import Peer
from kit.queues import SECOND, flood, kernel, syn_recv, sysctl
from ustack.config import LINUX_6, LINUX_310
from ustack.tcp.cookies import MSSTAB

BOTH = pytest.mark.parametrize("profile", [LINUX_6, LINUX_310])
TS = "nop,nop,TS val 1001 ecr *"


def cookied(server: Host, options: str, port: int = 40_000) -> Peer:
    """Return a peer whose SYN with ``options`` has got a cookie."""
    peer = server.peer(port=port)
    sent = server.mib.SyncookiesSent
    peer.send(f"S 0:0(0) <{options}>")
    peer.expect("S. 0:0(0) ack 1")
    assert server.mib.SyncookiesSent == sent + 1 and syn_recv(server) == 0
    return peer


def always(**tcp) -> Host:
    """Return a host that answers every SYN with a cookie, and listens."""
    server = kernel(tcp_syncookies=2, **tcp)
    return server


@BOTH
def test_a_real_client_still_connects_while_the_syn_queue_is_full(profile):
    server = kernel(profile)
    lsk = server.listen(backlog=8)
    flood(server, 40)
    peer = server.peer(port=50_000)
    peer.handshake()
    peer.send("P. 1:6(5) ack 1", data=b"hello")
    peer.expect(". 1:1(0) ack 6")
    sk = lsk.accept()
    assert sk.recv(10) == b"hello"
    sk.send(b"world")
    peer.expect("P. 1:6(5) ack 6")
    assert server.mib.SyncookiesRecv == 1 and server.mib.SyncookiesFailed == 0
    assert server.mib.PassiveOpens == 1


def test_with_2_every_syn_gets_a_cookie_and_nothing_is_remembered():
    server = always()
    server.listen()
    assert len(flood(server, 50)) == 50
    assert syn_recv(server) == 0
    assert server.stack.tcp.request_cache.info().active_objs == 0
    assert server.mib.SyncookiesSent == server.mib.TCPReqQFullDoCookies == 50


def test_with_0_the_ack_of_a_cookie_is_reset():
    server = always()
    server.listen()
    peer = cookied(server, "mss 1460")
    sysctl(server, "net.ipv4.tcp_syncookies", 0)
    peer.send(". 1:1(0) ack 1")
    peer.expect("R 1:1(0)")
    assert server.mib.SyncookiesRecv == server.mib.SyncookiesFailed == 0


@pytest.mark.linux("msstab")
@pytest.mark.parametrize(
    ("offered", "kept"),
    [(88, 536), (536, 536), (1299, 536), (1300, 1300), (1439, 1300), (1440, 1440), (1459, 1440),
     (1460, 1460), (9000, 1460)],
)  # fmt: skip
def test_the_mss_is_one_of_four(offered, kept):
    assert kept in MSSTAB
    server = always()
    lsk = server.listen()
    peer = cookied(server, f"mss {offered}")
    peer.send(". 1:1(0) ack 1")
    sk = lsk.accept()
    sk.send(bytes(4000))
    assert max(len(seg.payload) for seg in peer.drain()) == kept


@pytest.mark.linux("tcp_conn_request: tcp_clear_options")
def test_without_timestamps_a_cookie_has_no_room_for_options():
    server = always()
    server.listen()
    peer = server.peer()
    peer.send("S 0:0(0) <mss 1460,nop,nop,sackOK,nop,wscale 7>")
    peer.expect("S. 0:0(0) ack 1 <mss 1460>")


@pytest.mark.linux("cookie_init_timestamp, cookie_timestamp_decode")
@pytest.mark.parametrize("sack", [False, True])
@pytest.mark.parametrize("wscale", [None, 0, 3, 7, 14])
def test_timestamps_carry_window_scale_and_sack(sack, wscale):
    server = always()
    lsk = server.listen()
    lead = "sackOK" if sack else "nop,nop"
    scale = "" if wscale is None else f",nop,wscale {wscale}"
    peer = cookied(server, f"mss 1460,{lead},TS val 1000 ecr 0{scale}")
    peer.send(f". 1:1(0) ack 1 win 500 <{TS}>")
    tp = lsk.accept()._sk.tp
    assert bool(tp.sack_ok) == sack
    assert (tp.wscale_ok, tp.snd_wscale) == ((0, 0) if wscale is None else (1, wscale))
    assert tp.snd_wnd == 500 << (wscale or 0)
    assert tp.tstamp_ok and tp.ts_recent == 1001


def test_the_options_lower_a_timestamp_by_63_ms_at_most():
    server = always()
    server.listen()
    server.advance_us(10 * SECOND + 123_000)
    peer = server.peer()
    peer.send("S 0:0(0) <mss 1460,sackOK,TS val 7 ecr 0,nop,wscale 14>")
    stamp = peer.expect("S. 0:0(0) ack 1").option("TS")[0]
    offset = server.stack.tcp.secure_ts_offset(server.addr, peer.addr)
    behind = server.stack.tcp.tcp_time_stamp() - (stamp - offset & 0xFFFFFFFF)
    assert 0 <= behind < 64


def test_a_syn_ack_of_a_cookie_is_sent_once():
    server = always()
    server.listen()
    peer = cookied(server, "mss 1460")
    peer.expect_nothing(for_us=70 * SECOND)


@pytest.mark.parametrize(("ack", "seq"), [(2, 1), (1, 0), (4097, 1)])
def test_a_number_beside_the_cookie_is_reset(ack, seq):
    server = always()
    server.listen()
    peer = cookied(server, "mss 1460")
    peer.send(f". {seq}:{seq}(0) ack {ack}")
    peer.expect(f"R {ack}:{ack}(0)")
    assert server.mib.SyncookiesFailed == 1 and server.mib.SyncookiesRecv == 0


def test_a_cookie_is_for_one_four_tuple():
    server = always()
    server.listen()
    peer = cookied(server, "mss 1460")
    other = server.peer(port=41_000)
    other.iss, other.host_iss = peer.iss, peer.host_iss
    other.send(". 1:1(0) ack 1")
    other.expect("R 1:1(0)")
    assert server.mib.SyncookiesFailed == 1


@pytest.mark.linux("MAX_SYNCOOKIE_AGE, TCP_SYNCOOKIE_PERIOD")
@pytest.mark.parametrize(("age_s", "good"), [(0, True), (59, True), (121, False), (600, False)])
def test_a_cookie_is_good_for_one_to_two_minutes(age_s, good):
    server = always()
    lsk = server.listen()
    peer = cookied(server, "mss 1460")
    server.advance_us(age_s * SECOND)
    flood(server, 1)  # cookies go out all the time
    peer.send(". 1:1(0) ack 1")
    if good:
        assert lsk.accept().getpeername()[1] == peer.port
    else:
        peer.expect("R 1:1(0)")
        assert server.mib.SyncookiesFailed == 1


def test_a_cookie_is_good_however_long_the_stack_runs():
    """The count of minutes in it is the low eight bits of a clock."""
    server = always()
    lsk = server.listen()
    server.advance_us(300 * 60 * SECOND)
    peer = cookied(server, "mss 1460")
    server.advance_us(30 * SECOND)
    peer.send(". 1:1(0) ack 1")
    assert lsk.accept().getpeername()[1] == peer.port


@pytest.mark.linux("tcp_synq_no_recent_overflow")
def test_without_a_recent_cookie_an_ack_is_not_even_looked_at():
    server = kernel()
    server.listen()
    stranger = server.peer()
    stranger.host_iss = 0
    stranger.send(". 1:1(0) ack 1")
    stranger.expect("R 1:1(0)")
    assert server.mib.SyncookiesFailed == 0


def test_each_listener_remembers_for_itself_that_cookies_went_out():
    server = always()
    server.listen(80)
    server.listen(81)
    cookied(server, "mss 1460")
    stranger = server.peer(to=81)
    stranger.host_iss = 0
    stranger.send(". 1:1(0) ack 1")
    stranger.expect("R 1:1(0)")
    assert server.mib.SyncookiesFailed == 0


@BOTH
def test_a_cookie_for_a_full_accept_queue_is_dropped_in_silence(profile):
    """Measured on 6.18: neither a reset nor EmbryonicRsts, whatever tcp_abort_on_overflow says."""
    server = kernel(profile, tcp_syncookies=2, tcp_abort_on_overflow=True)
    lsk = server.listen(backlog=0)
    first, second = (cookied(server, "mss 1460", 40_000 + i) for i in range(2))
    first.send(". 1:1(0) ack 1")
    second.send(". 1:1(0) ack 1")
    second.expect_nothing(for_us=5 * SECOND)
    assert server.mib.ListenOverflows == server.mib.ListenDrops == 1
    assert server.mib.SyncookiesRecv == 2 and server.mib.EmbryonicRsts == 0
    lsk.accept()
    second.send("P. 1:6(5) ack 1", data=b"still")
    second.expect(". 1:1(0) ack 6")
    assert lsk.accept().recv(9) == b"still"


def test_a_cookie_does_not_come_back_by_a_reset_or_a_syn():
    server = always()
    server.listen()
    peer = cookied(server, "mss 1460")
    peer.send("R. 1:1(0) ack 1")
    peer.expect_nothing()
    peer.send("S. 0:0(0) ack 1 <mss 1460>")
    peer.expect("R 1:1(0)")
    assert server.mib.SyncookiesRecv == server.mib.SyncookiesFailed == 0


@pytest.mark.parametrize("name", ["tcp_timestamps", "tcp_sack", "tcp_window_scaling"])
def test_an_option_that_was_switched_off_since_spoils_the_cookie(name):
    server = always()
    server.listen()
    peer = cookied(server, "mss 1460,sackOK,TS val 1000 ecr 0,nop,wscale 7")
    sysctl(server, f"net.ipv4.{name}", 0)
    peer.send(f". 1:1(0) ack 1 <{TS}>")
    peer.expect("R 1:1(0)")
    assert server.mib.SyncookiesRecv == 1


def test_a_peer_from_time_wait_gets_no_cookie():
    server = always()
    lsk = server.listen()
    peer = cookied(server, "mss 1460")
    peer.send(". 1:1(0) ack 1")
    lsk.accept().close()
    peer.expect("F. 1:1(0) ack 1")
    peer.send("F. 1:1(0) ack 2")
    peer.expect(". 2:2(0) ack 2")
    peer.send("S 100000:100000(0) <mss 1460>")
    peer.expect("S. 0:0(0) ack 100001")
    assert syn_recv(server) == 1 and server.mib.SyncookiesSent == 1


def test_the_first_rtt_is_not_measured_by_a_cookie():
    server = always()
    lsk = server.listen()
    peer = cookied(server, "mss 1460")
    server.advance_us(200_000)
    peer.send(". 1:1(0) ack 1")
    assert lsk.accept()._sk.tp.srtt_us == 0


def test_cookies_go_out_only_while_the_queue_is_full():
    server = kernel(tcp_synack_retries=1)
    server.listen(backlog=4)
    flood(server, 10)
    assert server.mib.SyncookiesSent == 5
    server.advance_us(4 * SECOND)
    flood(server, 3, 21_000)
    assert server.mib.SyncookiesSent == 5 and syn_recv(server) == 3


def test_the_isn_differs_by_peer_and_by_stack():
    isns = set()
    for _ in range(2):
        server = always()
        server.stack.tcp._syncookie_secret = bytes([len(isns)]) * 16
        server.listen()
        isns |= {peer.inbox[0].seq - peer.iss & 0xFFFFFFFF for peer in flood(server, 20)}
    assert len(isns) == 40
