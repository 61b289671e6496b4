"""Fast Open, the side that connects (RFC 7413 §4.2): cookie, data in the SYN, what goes wrong."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from kit.host import TEST_CONFIG, Host, host
from kit.peer import Peer
from kit.segment import pattern
from ustack.config import TcpConfig
from ustack.tcp.metrics import TCP_METRICS_MAX

SECOND = 1_000_000
PEER = 0x0A000001
IPPROTO_TCP, TCP_FASTOPEN_CONNECT = 6, 30
ASKS = "mss 1460,sackOK,TS val * ecr 0,nop,wscale 7,FO,nop,nop"
SHOWS = "mss 1460,sackOK,TS val * ecr 0,nop,wscale 7,FO 0123456789abcdef,nop,nop"
PLAIN = "mss 1460,sackOK,TS val * ecr 0,nop,wscale 7"
COOKIE = "mss 1460,FO 0123456789abcdef,nop,nop"


def begin(h: Host, size: int = 5, port: int = 80) -> tuple[Any, Peer, int]:
    """Send with MSG_FASTOPEN; the socket, the peer, and how many bytes went with the SYN."""
    peer = h.peer(port=port, to=None)
    sk = h.socket()
    try:
        sent = sk.send_fastopen(pattern(0, size), PEER, port)
    except BlockingIOError as error:
        assert error.errno == errno.EINPROGRESS
        sent = 0
    h.settle()
    return sk, peer, sent


def learn(h: Host, options: str = COOKIE) -> None:
    """A first connection, in which the peer gives us a cookie."""
    sk, peer, _ = begin(h, port=79)
    peer.expect(f"S 0:0(0) <{ASKS}>")
    peer.send(f"S. 0:0(0) ack 1 win 65535 <{options}>")
    peer.expect(". 1:1(0) ack 1")
    sk.close()
    peer.drain()
    peer.send("R. 1:1(0) ack 2")


@pytest.mark.rfc("7413", "4.2.2")
def test_the_first_syn_asks_for_a_cookie_and_carries_no_data(server):
    sk, peer, sent = begin(server)
    assert sent == 0
    peer.expect(f"S 0:0(0) <{ASKS}>")
    peer.send(f"S. 0:0(0) ack 1 win 65535 <{COOKIE}>")
    peer.expect(". 1:1(0) ack 1")
    assert sk.established
    assert server.mib.TCPFastOpenActive == 0


@pytest.mark.rfc("7413", "4.2.3")
def test_the_next_shows_it_and_carries_data(server):
    learn(server)
    sk, peer, sent = begin(server)
    assert sent == 5
    peer.expect(f"S 0:5(5) <{SHOWS}>")
    peer.send("S. 0:0(0) ack 6 win 65535 <mss 1460>")
    peer.expect(". 6:6(0) ack 1")
    assert sk.established
    assert server.mib.TCPFastOpenActive == 1
    sk.send(pattern(5, 5))
    peer.expect("P. 6:11(5) ack 1")


@pytest.mark.rfc("7413", "4.2.1")
def test_data_that_the_peer_does_not_take_is_sent_again_at_once(server):
    learn(server)
    _, peer, _ = begin(server)
    peer.expect(f"S 0:5(5) <{SHOWS}>")
    peer.send("S. 0:0(0) ack 1 win 65535 <mss 1460>")
    seg = peer.expect("P. 1:6(5) ack 1")
    assert seg.payload == pattern(0, 5)
    peer.expect_nothing()  # it carried the handshake's ACK
    assert server.mib.TCPFastOpenActiveFail == 1
    assert server.mib.TCPFastOpenActive == 0


@pytest.mark.linux("tcp_send_syn_data: the option and the data go once")
def test_a_repeated_syn_carries_neither_data_nor_option(server):
    learn(server)
    _, peer, _ = begin(server)
    peer.expect(f"S 0:5(5) <{SHOWS}>")
    peer.expect(f"S 0:0(0) <{PLAIN}>", within_us=2 * SECOND)
    peer.send("S. 0:0(0) ack 1 win 65535 <mss 1460>")
    peer.expect("P. 1:6(5) ack 1")
    assert server.mib.TCPFastOpenActiveFail == 1


def test_a_late_answer_to_the_first_syn_acknowledges_its_data(server):
    learn(server)
    sk, peer, _ = begin(server)
    peer.expect(f"S 0:5(5) <{SHOWS}>")
    peer.expect(f"S 0:0(0) <{PLAIN}>", within_us=2 * SECOND)
    peer.send("S. 0:0(0) ack 6 win 65535 <mss 1460>")
    peer.expect(". 6:6(0) ack 1")
    assert sk.send_queue_empty()


@pytest.mark.linux("space = mss - MAX_TCP_OPTION_SPACE")
def test_one_segment_takes_what_fits_beside_forty_bytes_of_options(server):
    learn(server)
    sk, peer, sent = begin(server, 3000)
    assert sent == 1420
    peer.expect(f"S 0:1420(1420) <{SHOWS}>")
    peer.send("S. 0:0(0) ack 1421 win 65535 <mss 1460>")
    peer.expect(". 1421:1421(0) ack 1")
    sk.send(pattern(1420, 1580))
    peer.expect_data(1421, 3001)


@pytest.mark.linux("tcp_fastopen_cache_get: mss")
def test_it_keeps_to_the_mss_that_the_peer_had_last_time(server):
    learn(server, "mss 1000,FO 0123456789abcdef,nop,nop")
    _, _, sent = begin(server, 3000)
    assert sent == 960


def test_data_in_the_syn_ack_is_readable(server):
    learn(server)
    sk, peer, _ = begin(server)
    peer.expect(f"S 0:5(5) <{SHOWS}>")
    peer.send("S. 0:4(4) ack 6 win 65535 <mss 1460>", data=b"fast")
    peer.expect(". 6:6(0) ack 5")
    assert sk.recv(10) == b"fast"


@pytest.mark.rfc("7413", "4.1.3")
def test_a_new_cookie_replaces_the_old_one(server):
    learn(server)
    _, peer, _ = begin(server)
    peer.expect(f"S 0:5(5) <{SHOWS}>")
    peer.send("S. 0:0(0) ack 6 win 65535 <mss 1460,FO fedcba9876543210,nop,nop>")
    _, other, _ = begin(server, port=81)
    other.expect(
        "S 0:5(5) <mss 1460,sackOK,TS val * ecr 0,nop,wscale 7,FO fedcba9876543210,nop,nop>"
    )


def test_a_cookie_that_was_not_asked_for_is_ignored(server):
    peer = server.peer(port=80, to=None)
    server.connect()
    peer.expect(f"S 0:0(0) <{PLAIN}>")
    peer.send(f"S. 0:0(0) ack 1 win 65535 <{COOKIE}>")
    _, other, sent = begin(server, port=81)
    assert sent == 0
    other.expect(f"S 0:0(0) <{ASKS}>")


@pytest.mark.linux("try_exp: the option from before it had a number")
def test_a_peer_without_cookie_is_asked_the_old_way_once(server):
    kinds = []
    for port in (80, 81, 82):
        _, peer, _ = begin(server, port=port)
        syn = peer.expect_next()
        kinds.append([name for name, _ in syn.options if name not in PLAIN.split()][-3:])
        peer.send("S. 0:0(0) ack 1 win 65535 <mss 1460>")
    assert any("FO" in names for names in kinds[0])
    assert not any("FO" in names for names in kinds[1])
    assert any("FO" in names for names in kinds[2])


def test_cookies_are_kept_by_peer(server):
    learn(server)
    peer = server.peer(port=80, addr="10.0.0.3", to=None)
    sk = server.socket()
    with pytest.raises(BlockingIOError):
        sk.send_fastopen(b"hello", 0x0A000003, 80)
    server.settle()
    peer.expect(f"S 0:0(0) <{ASKS}>")


def test_not_more_of_them_than_there_is_room_for(server):
    learn(server)
    cache = server.stack.tcp.metrics.blocks
    (entry,) = cache.values()
    for n in range(TCP_METRICS_MAX - 1):
        cache[(n, n)] = entry
    server.peer(port=80, addr="10.0.0.3", to=None)
    _, peer, _ = begin(server, port=81)
    peer.expect_next()
    del cache[(server.addr, PEER)]
    cache[(1 << 20, 1)] = entry
    peer.send(f"S. 0:0(0) ack 6 win 65535 <{COOKIE}>")
    assert len(cache) == TCP_METRICS_MAX
    assert (0, 0) not in cache


@pytest.mark.linux("net.ipv4.tcp_fastopen bit 1")
def test_switched_off_it_is_not_supported():
    h = host(TEST_CONFIG, tcp=TcpConfig(tcp_fastopen=2))
    sk = h.socket()
    with pytest.raises(OSError) as caught:
        sk.send_fastopen(b"x", PEER, 80)
    assert caught.value.errno == errno.EOPNOTSUPP
    with pytest.raises(OSError) as caught:
        sk.setsockopt(IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
    assert caught.value.errno == errno.EOPNOTSUPP


@pytest.mark.linux("TFO_CLIENT_NO_COOKIE")
def test_data_may_go_without_a_cookie():
    h = host(TEST_CONFIG, tcp=TcpConfig(tcp_fastopen=5))
    _, peer, sent = begin(h)
    assert sent == 5
    peer.expect(f"S 0:5(5) <{PLAIN}>")
    peer.send("S. 0:0(0) ack 6 win 65535 <mss 1460>")
    assert h.mib.TCPFastOpenActive == 1


def test_errors_of_a_second_call(server):
    sk, peer, _ = begin(server)
    with pytest.raises(OSError) as caught:
        sk.send_fastopen(b"x", PEER, 80)
    assert caught.value.errno == errno.EALREADY
    peer.expect_next()
    peer.send(f"S. 0:0(0) ack 1 win 65535 <{COOKIE}>")
    sk.connect(PEER, 80)
    with pytest.raises(OSError) as caught:
        sk.send_fastopen(b"x", PEER, 80)
    assert caught.value.errno == errno.EISCONN


def test_a_refused_attempt_says_so(server):
    learn(server)
    sk, peer, _ = begin(server)
    peer.expect_next()
    peer.send("R. 0:0(0) ack 6")
    assert sk.getsockopt(1, 4) == errno.ECONNREFUSED
    free = server.stack.net.mem.free_pages
    sk.close()
    assert server.stack.net.mem.free_pages >= free


@pytest.mark.rfc("9293", "3.5")
def test_a_crossing_syn_leaves_the_data_for_later(server):
    learn(server)
    sk, peer, _ = begin(server)
    peer.expect(f"S 0:5(5) <{SHOWS}>")
    peer.send("S 0:0(0) win 65535 <mss 1460>")
    peer.expect("S. 0:0(0) ack 1")
    peer.send(". 1:1(0) ack 1")
    assert sk.established
    assert peer.expect("P. 1:6(5) ack 1").payload == pattern(0, 5)


# TCP_FASTOPEN_CONNECT: connect() first, the SYN with the first send().


def deferred(h: Host) -> Any:
    sk = h.socket()
    sk.setsockopt(IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
    sk.connect(PEER, 80)
    return sk


@pytest.mark.linux("tcp_fastopen_defer_connect")
def test_with_a_cookie_connect_waits_for_the_first_send(server):
    learn(server)
    peer = server.peer(port=80, to=None)
    sk = deferred(server)
    peer.expect_nothing(for_us=5 * SECOND)
    assert sk.poll() & 4  # EPOLLOUT
    assert not sk.poll() & 1
    with pytest.raises(OSError) as caught:
        sk.connect(PEER, 80)
    assert caught.value.errno == errno.EISCONN
    assert sk.send(pattern(0, 5)) == 5
    server.settle()
    peer.expect(f"S 0:5(5) <{SHOWS}>")
    assert not sk.poll() & 4
    peer.send("S. 0:0(0) ack 6 win 65535 <mss 1460>")
    peer.expect(". 6:6(0) ack 1")
    assert sk.established


def test_without_one_the_syn_goes_at_once_and_asks(server):
    peer = server.peer(port=80, to=None)
    sk = server.socket()
    sk.setsockopt(IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
    with pytest.raises(BlockingIOError):
        sk.connect(PEER, 80)
    server.settle()
    peer.expect(f"S 0:0(0) <{ASKS}>")


def test_closed_before_the_first_send_nothing_was_ever_sent(server):
    learn(server)
    peer = server.peer(port=80, to=None)
    deferred(server).close()
    peer.expect_nothing(for_us=5 * SECOND)
    assert not server.stack.tcp.ehash
    assert not server.stack.tcp.bhash


def test_the_option_is_for_a_new_socket_and_a_bit(server):
    sk, _ = server.established()
    for value, new in ((1, False), (2, True), (-1, True)):
        target = server.socket() if new else sk
        with pytest.raises(OSError) as caught:
            target.setsockopt(IPPROTO_TCP, TCP_FASTOPEN_CONNECT, value)
        assert caught.value.errno == errno.EINVAL


# Both ends ours.


def test_a_second_connection_over_loopback_carries_its_request():
    h = host(TEST_CONFIG, tcp=TcpConfig(tcp_fastopen=1))
    lsk = h.listen(8080)
    sk = h.socket()
    with pytest.raises(BlockingIOError):
        sk.send_fastopen(b"GET", 0x7F000001, 8080)
    h.settle()
    child = lsk.accept()
    sk.send(b"GET")
    h.settle()
    assert child.recv(10) == b"GET"
