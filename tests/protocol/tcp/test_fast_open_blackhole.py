"""Fast Open's clients pause when something on the way swallows their connections."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from kit.host import TEST_CONFIG, Host, host, two_hosts
from kit.peer import Peer
from kit.segment import pattern
from ustack.config import TcpConfig
from ustack.core.sysctl import sysctl_read, sysctl_write
from ustack.lib.addresses import parse_ipv4
from ustack.tcp.info import LAYOUT, unpack_tcp_info

SECOND = 1_000_000
PEER = parse_ipv4("10.0.0.1")
NAME = "net.ipv4.tcp_fastopen_blackhole_timeout_sec"
PLAIN = "mss 1460,sackOK,TS val * ecr 0,nop,wscale 7"
COOKIE = "mss 1460,FO 0123456789abcdef,nop,nop"


def pausing(seconds: int = 10) -> Host:
    """A host that looks for black holes."""
    return host(TEST_CONFIG, tcp=TcpConfig(tcp_fastopen_blackhole_timeout_us=seconds * SECOND))


def begin(h: Host, port: int) -> tuple[Any, Peer]:
    """Send with MSG_FASTOPEN; the socket and the peer, whose SYN is still to be taken."""
    peer = h.peer(port=port, to=None)
    sk = h.socket()
    with contextlib.suppress(BlockingIOError):
        sk.send_fastopen(pattern(0, 5), PEER, port)
    h.settle()
    return sk, peer


def connect(h: Host, port: int) -> tuple[Any, Peer]:
    """Fast Open in full: with a cookie if there is one."""
    sk, peer = begin(h, port)
    syn = peer.expect_next()
    peer.send(f"S. 0:0(0) ack {1 + len(syn.payload)} win 65535 <{COOKIE}>")
    peer.drain()
    return sk, peer


def swallowed(h: Host, port: int) -> None:
    """Three timeouts in a row of one connection."""
    sk, _ = begin(h, port)
    h.advance_us(int(3.5 * SECOND))
    sk.close()


def asks_for_fast_open(h: Host, port: int) -> bool:
    """Whether a SYN has the option now; the attempt is given up."""
    sk, peer = begin(h, port)
    asked = peer.expect_next().option("FO") is not None
    sk.close()
    return asked


@pytest.mark.linux("tcp_fastopen_active_detect_blackhole: timeouts == 2")
def test_three_timeouts_in_a_row_begin_a_pause():
    h = pausing()
    begin(h, 80)
    h.advance_us(int(2.5 * SECOND))
    assert h.mib.TCPFastOpenBlackhole == 0
    h.advance_us(SECOND)
    assert h.mib.TCPFastOpenBlackhole == h.mib.TCPFastOpenActiveFail == 1
    h.advance_us(3 * SECOND)
    assert h.mib.TCPFastOpenBlackhole == 1  # the fourth tells nothing new
    _, peer = begin(h, 81)
    peer.expect(f"S 0:0(0) <{PLAIN}>")


@pytest.mark.linux("tcp_fastopen_active_detect_blackhole: expired")
def test_so_does_the_last_timeout_if_there_are_fewer():
    h = pausing()
    sk = h.socket()
    sk.setsockopt(6, 18, 1500)  # TCP_USER_TIMEOUT
    h.peer(port=80, to=None)
    with pytest.raises(BlockingIOError):
        sk.send_fastopen(b"hello", PEER, 80)
    h.advance_us(int(2.5 * SECOND))
    assert h.mib.TCPFastOpenBlackhole == 1


@pytest.mark.linux("net.ipv4.tcp_fastopen_blackhole_timeout_sec 0, the default")
def test_by_default_nothing_is_paused(server):
    swallowed(server, 80)
    assert server.mib.TCPFastOpenBlackhole == 0
    assert server.mib.TCPFastOpenActiveFail == 1
    assert asks_for_fast_open(server, 81)


@pytest.mark.linux("tcp_fastopen_active_should_disable")
def test_a_known_cookie_is_not_shown_during_the_pause():
    h = pausing()
    connect(h, 79)
    swallowed(h, 80)
    _, peer = begin(h, 81)
    assert peer.expect("S 0:0(0)").option("FO") is None
    h.advance_us(11 * SECOND)
    _, peer = begin(h, 82)
    assert peer.expect("S 0:5(5)").option("FO") is not None


@pytest.mark.linux("multiplier = 1 << min(tfo_da_times - 1, 6)")
def test_each_pause_is_twice_as_long_up_to_sixty_four_fold():
    h = pausing(1)
    for n in range(9):
        swallowed(h, 1000 + n)
        since_us = SECOND // 2  # the third timeout was that long ago
        pause_us = SECOND << min(n, 6)
        h.advance_us(max(pause_us - since_us - SECOND // 10, 0))
        if pause_us > SECOND:
            assert not asks_for_fast_open(h, 2000 + n)
        h.advance_us(SECOND // 5)
        assert asks_for_fast_open(h, 3000 + n)


@pytest.mark.linux("tcp_validate_incoming: disable TFO if RST is out-of-order")
def test_a_reset_beyond_a_hole_begins_a_pause():
    h = pausing()
    connect(h, 79)
    _, peer = connect(h, 80)
    peer.send("R 100:100(0)")
    assert h.mib.TCPFastOpenBlackhole == 1


def test_not_if_data_has_come_before():
    h = pausing()
    _, peer = connect(h, 80)
    peer.send(". 1:11(10) ack 1")
    peer.send("R 100:100(0)")
    assert h.mib.TCPFastOpenBlackhole == 0


def test_nor_on_a_connection_without_fast_open():
    h = pausing()
    _, peer = h.established()
    peer.send("R 100:100(0)")
    assert h.mib.TCPFastOpenBlackhole == 0


@pytest.mark.linux("tcp_fastopen_active_disable_ofo_check: a FIN alone")
def test_a_fin_beyond_a_hole_begins_one_when_the_connection_ends():
    h = pausing()
    _, peer = connect(h, 80)
    peer.send("F. 100:100(0) ack 1")
    assert h.mib.TCPFastOpenBlackhole == 0
    peer.send("R 1:1(0)")
    assert h.mib.TCPFastOpenBlackhole == 1


def test_nor_do_two():
    h = pausing()
    _, peer = connect(h, 80)
    for at in (100, 200):
        peer.send(f"F. {at}:{at}(0) ack 1")
    peer.send("R 1:1(0)")
    assert h.mib.TCPFastOpenBlackhole == 0


@pytest.mark.linux("tcp_disconnect forgets it")
def test_not_when_the_application_gives_it_up():
    h = pausing()
    sk, peer = connect(h, 80)
    peer.send("F. 100:100(0) ack 1")
    sk.disconnect()
    assert h.mib.TCPFastOpenBlackhole == 0


@pytest.mark.linux("syn_fastopen_ch: tfo_active_disable_times = 0")
def test_data_on_a_connection_after_a_pause_makes_the_next_one_short_again():
    h = pausing(1)
    swallowed(h, 80)
    h.advance_us(2 * SECOND)
    swallowed(h, 81)
    h.advance_us(3 * SECOND)
    _, peer = connect(h, 82)
    peer.send(". 1:11(10) ack 1")
    peer.send("R 11:11(0)")
    assert h.stack.tcp.tfo_active_disable_times == 0


@pytest.mark.linux("IFF_LOOPBACK")
def test_data_over_loopback_proves_nothing():
    h = pausing(1)
    lsk = h.listen(7)
    swallowed(h, 80)
    h.advance_us(2 * SECOND)
    lo = parse_ipv4("127.0.0.1")
    sk = h.socket()
    with pytest.raises(BlockingIOError):
        sk.send_fastopen(b"hello", lo, 7)
    h.settle()
    lsk.accept().send(b"x")
    h.settle()
    assert unpack_tcp_info(sk.getsockopt(6, 11, LAYOUT.size))["data_segs_in"] == 1
    sk.close()  # with unread data: a reset
    assert h.stack.tcp.tfo_active_disable_times == 1


def test_a_new_length_of_the_pause_ends_it():
    h = pausing()
    swallowed(h, 80)
    assert sysctl_read(h.stack.config, NAME) == "10"
    h.stack.set_config(sysctl_write(h.stack.config, NAME, "20"))
    assert asks_for_fast_open(h, 81)


# TCP_FASTOPEN_NO_COOKIE.


def no_cookie(sk: Any) -> Any:
    sk.setsockopt(6, 34, 1)
    return sk


@pytest.mark.linux("tcp_fastopen_no_cookie")
def test_a_socket_may_do_without_a_cookie(server):
    peer = server.peer(port=80, to=None)
    sk = no_cookie(server.socket())
    assert sk.send_fastopen(pattern(0, 5), PEER, 80) == 5
    server.settle()
    peer.expect(f"S 0:5(5) <{PLAIN}>")


def test_a_listener_may_take_data_without_one():
    h = host(TEST_CONFIG, tcp=TcpConfig(tcp_fastopen=2))
    lsk = no_cookie(h.listen())
    lsk.setsockopt(6, 23, 5)
    peer = h.peer()
    peer.send("S 0:5(5) <mss 1460>", pattern(0, 5))
    peer.expect("S. 0:0(0) ack 6")
    assert lsk.accept().recv(10) == pattern(0, 5)


@pytest.mark.linux("do_tcp_setsockopt: TCP_FASTOPEN_NO_COOKIE")
def test_the_option_is_for_sockets_that_are_not_connected(server):
    sk = server.socket()
    assert sk.getsockopt(6, 34) == 0
    assert no_cookie(sk).getsockopt(6, 34) == 1
    with pytest.raises(OSError, match="Invalid"):
        sk.setsockopt(6, 34, 2)
    connected, _ = server.established()
    with pytest.raises(OSError, match="Invalid"):
        no_cookie(connected)


@pytest.mark.linux("TCPI_OPT_SYN_DATA")
def test_tcp_info_tells_of_data_that_a_syn_carried():
    near, far = two_hosts(tcp=TcpConfig(tcp_fastopen=3))
    lsk = no_cookie(far.listen(80))
    lsk.setsockopt(6, 23, 5)
    sk = no_cookie(near.socket())
    sk.send_fastopen(b"hello", far.addr, 80)
    near.settle()
    for one in (sk, lsk.accept()):
        assert one.getsockopt(6, 11, 100)[5] & 32
