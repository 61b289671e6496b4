"""E-TFO, the server's side: connections out of a SYN (RFC 7413 §4, tcp_fastopen.c)."""

from __future__ import annotations

import socket

import pytest

from kit.host import Host, two_hosts
from kit.peer import Peer
from kit.queues import SECOND, kernel, syn_recv, sysctl, times_s
from ustack.config import TcpConfig
from ustack.sock.wait import EPOLLIN, EPOLLOUT
from ustack.tcp.fastopen import tcp_fastopen_cookie_gen
from ustack.tcp.listen_options import IPPROTO_TCP, TCP_FASTOPEN, TCP_FASTOPEN_KEY

ESTAB, SYN_RECV = 1, 3


def fast(qlen: int = 5, *, tcp_fastopen: int = 3, backlog: int = 128, **tcp):
    """Return a host and a listener with a Fast Open queue."""
    server = kernel(tcp_fastopen=tcp_fastopen, **tcp)
    lsk = server.listen(backlog=backlog)
    lsk.setsockopt(IPPROTO_TCP, TCP_FASTOPEN, qlen)
    return server, lsk


def cookie(server: Host, addr: int) -> str:
    """Return the cookie that ``addr`` would be given."""
    return tcp_fastopen_cookie_gen(server.stack.tcp.fastopen, addr, server.addr).hex()


def tfo_syn(server: Host, data: bytes = b"hello", port: int | None = None) -> Peer:
    """Return a peer who has sent a SYN with its cookie and ``data``."""
    peer = server.peer(port=port)
    n = len(data)
    peer.send(f"S 0:{n}({n}) <mss 1460,FO {cookie(server, peer.addr)},nop,nop>", data=data)
    return peer


@pytest.mark.rfc("7413", "4.1.2")
def test_who_asks_gets_a_cookie_and_an_ordinary_handshake():
    server, lsk = fast()
    peer = server.peer()
    peer.send("S 0:0(0) <mss 1460,FO,nop,nop>")
    peer.expect(f"S. 0:0(0) ack 1 <mss 1460,FO {cookie(server, peer.addr)},nop,nop>")
    assert syn_recv(server) == 1 and server.mib.TCPFastOpenCookieReqd == 1
    peer.send(". 1:1(0) ack 1")
    lsk.accept()
    assert server.mib.TCPFastOpenPassive == 0


@pytest.mark.rfc("7413", "4.2.2")
def test_data_in_the_syn_is_readable_before_the_handshake_is_over():
    server, lsk = fast()
    peer = tfo_syn(server)
    peer.expect("S. 0:0(0) ack 6 <mss 1460>")
    sk = lsk.accept()
    assert sk._sk.state == SYN_RECV
    assert sk.poll() & (EPOLLIN | EPOLLOUT) == EPOLLIN | EPOLLOUT
    assert sk.recv(10) == b"hello"
    assert sk.getpeername() == (peer.addr, peer.port)
    assert server.mib.TCPFastOpenPassive == server.mib.PassiveOpens == 1


@pytest.mark.rfc("7413", "4.2.2")
def test_the_answer_may_go_out_before_the_third_ack():
    server, lsk = fast()
    peer = tfo_syn(server)
    peer.expect("S. 0:0(0) ack 6")
    sk = lsk.accept()
    sk.send(b"world")
    server.settle()
    peer.expect("P. 1:6(5) ack 6")
    peer.send(". 6:6(0) ack 6")
    assert sk._sk.state == ESTAB
    assert sk.send_queue_empty()


def test_the_third_ack_establishes_and_the_request_goes():
    server, lsk = fast()
    peer = tfo_syn(server)
    peer.expect("S. 0:0(0) ack 6")
    sk = lsk.accept()
    assert lsk._sk.listen.fastopen.qlen == 1
    server.advance_us(100_000)
    peer.send(". 6:6(0) ack 1")
    assert sk._sk.state == ESTAB and sk._sk.tp.srtt_us == 800_000
    assert lsk._sk.listen.fastopen.qlen == 0
    assert not server.stack.tcp.fastopen_rsk
    assert server.stack.tcp.request_cache.info().active_objs == 0
    peer.expect_nothing(for_us=10 * SECOND)
    peer.send("P. 6:11(5) ack 1", data=b"again")
    assert sk.recv(20) == b"helloagain"


def test_a_syn_with_a_cookie_and_no_data_is_a_connection_too():
    server, lsk = fast()
    peer = tfo_syn(server, b"")
    peer.expect("S. 0:0(0) ack 1")
    lsk.accept().send(b"first")
    server.settle()
    peer.expect("P. 1:6(5) ack 1")


def test_a_wrong_cookie_is_answered_with_the_right_one_and_its_data_is_not_taken():
    server, _ = fast()
    peer = server.peer()
    peer.send("S 0:5(5) <mss 1460,FO 0102030405060708,nop,nop>")
    peer.expect(f"S. 0:0(0) ack 1 <mss 1460,FO {cookie(server, peer.addr)},nop,nop>")
    assert server.mib.TCPFastOpenPassiveFail == 1 and syn_recv(server) == 1


def test_a_cookie_is_for_one_address():
    server, _ = fast()
    peer = server.peer(addr="10.0.0.9")
    peer.send(f"S 0:5(5) <mss 1460,FO {cookie(server, server.addr ^ 3)},nop,nop>")
    peer.expect("S. 0:0(0) ack 1")
    assert server.mib.TCPFastOpenPassiveFail == 1


@pytest.mark.linux("TCPOPT_EXP, TCPOPT_FASTOPEN_MAGIC")
def test_the_experimental_option_is_answered_by_its_like():
    server, _ = fast()
    peer = server.peer()
    peer.send("S 0:0(0) <mss 1460,raw 254 4 249 137>")
    syn_ack = peer.expect("S. 0:0(0) ack 1")
    assert syn_ack.options[1][0] == "kind254"
    assert bytes(syn_ack.options[1][1]).hex() == "f989" + cookie(server, peer.addr)


@pytest.mark.parametrize("bits", [0, 1, 4])
def test_without_the_servers_bit_the_option_is_nothing(bits):
    server, _ = fast(tcp_fastopen=bits)
    peer = server.peer()
    peer.send("S 0:5(5) <mss 1460,FO,nop,nop>")
    peer.expect("S. 0:0(0) ack 1 <mss 1460>")


def test_without_tcp_fastopen_on_the_listener_the_option_is_nothing():
    server, _ = fast(qlen=0)
    peer = tfo_syn(server)
    peer.expect("S. 0:0(0) ack 1 <mss 1460>")
    assert server.mib.TCPFastOpenListenOverflow == 0


@pytest.mark.linux("TFO_SERVER_WO_SOCKOPT1")
def test_a_bit_lets_every_listener_take_part_with_its_backlog():
    server = kernel(tcp_fastopen=0x403)
    lsk = server.listen(backlog=7)
    assert lsk.getsockopt(IPPROTO_TCP, TCP_FASTOPEN) == 7
    tfo_syn(server).expect("S. 0:0(0) ack 6")


@pytest.mark.linux("TFO_SERVER_COOKIE_NOT_REQD")
@pytest.mark.parametrize("option", ["", ",FO,nop,nop", ",FO 01020304,nop,nop"])
def test_a_bit_takes_data_from_anybody(option):
    server, lsk = fast(tcp_fastopen=0x203)
    peer = server.peer()
    peer.send(f"S 0:5(5) <mss 1460{option}>", data=b"hello")
    peer.expect("S. 0:0(0) ack 6 <mss 1460>")
    assert lsk.accept().recv(9) == b"hello"


@pytest.mark.linux("tcp_fastopen_queue_check")
def test_beyond_the_queue_the_handshake_is_ordinary():
    server, lsk = fast(qlen=2)
    for _ in range(2):
        tfo_syn(server).expect("S. 0:0(0) ack 6")
    late = tfo_syn(server)
    late.expect("S. 0:0(0) ack 1 <mss 1460>")
    assert server.mib.TCPFastOpenListenOverflow == 1
    assert server.mib.TCPFastOpenPassive == 2
    late.send("P. 1:6(5) ack 1", data=b"hello")
    for _ in range(3):
        lsk.accept()


def test_a_finished_handshake_makes_room():
    server, _ = fast(qlen=1)
    peer = tfo_syn(server)
    peer.send(". 6:6(0) ack 1") if peer.expect("S. 0:0(0) ack 6") else None
    tfo_syn(server).expect("S. 0:0(0) ack 6")


@pytest.mark.rfc("7413", "5.1")
@pytest.mark.linux("reqsk_fastopen_remove: 60 s for a request that was reset")
def test_a_reset_one_that_was_accepted_counts_for_another_minute():
    server, lsk = fast(qlen=1)
    peer = tfo_syn(server)
    peer.expect("S. 0:0(0) ack 6")
    sk = lsk.accept()
    assert sk.recv(9) == b"hello"
    peer.send("R 6:6(0)")
    with pytest.raises(ConnectionResetError):
        sk.recv(1)
    tfo_syn(server).expect("S. 0:0(0) ack 1")
    server.advance_us(61 * SECOND)
    tfo_syn(server).expect("S. 0:0(0) ack 6")
    assert server.mib.TCPFastOpenListenOverflow == 1


def test_a_reset_one_that_waits_is_accepted_with_its_error():
    server, lsk = fast(qlen=1)
    peer = tfo_syn(server)
    peer.expect("S. 0:0(0) ack 6")
    peer.send("R 6:6(0)")
    assert lsk._sk.listen.fastopen.qlen == 0
    sk = lsk.accept()
    assert sk.recv(9) == b"hello"
    with pytest.raises(ConnectionResetError):
        sk.recv(1)


@pytest.mark.linux("tcp_fastopen_synack_timer: one retry more")
def test_its_syn_ack_is_repeated_with_the_same_acknowledgment():
    server, lsk = fast(tcp_synack_retries=2)
    peer = tfo_syn(server)
    sk = lsk.accept()
    server.advance_us(30 * SECOND)
    segments = list(peer.inbox)
    assert times_s(peer) == [0, 1, 3, 7]
    assert {(seg.flags, seg.ack - peer.iss & 0xFFFFFFFF) for seg in segments} == {(18, 6)}
    sk.recv(9)
    with pytest.raises(TimeoutError):
        sk.recv(1)
    assert lsk._sk.listen.fastopen.qlen == 0
    assert server.mib.TCPTimeouts == 4 and server.mib.TCPSynRetrans == 3


def test_a_repeated_syn_is_answered_again_and_its_data_not_taken_twice():
    server, lsk = fast()
    peer = tfo_syn(server)
    peer.expect("S. 0:0(0) ack 6")
    peer.send(f"S 0:5(5) <mss 1460,FO {cookie(server, peer.addr)},nop,nop>", data=b"hello")
    peer.expect("S. 0:0(0) ack 6")
    peer.expect_nothing()
    assert server.mib.AttemptFails == 0
    assert lsk.accept().recv(20) == b"hello"


def test_a_segment_outside_the_window_is_answered_and_nothing_else():
    server, lsk = fast()
    peer = tfo_syn(server)
    peer.expect("S. 0:0(0) ack 6")
    sk = lsk.accept()
    peer.send("P. 900000:900005(5) ack 1")
    peer.expect(". 1:1(0) ack 6")
    assert sk._sk.state == SYN_RECV


def test_the_clients_data_behind_the_syn_comes_with_the_third_ack():
    server, lsk = fast()
    peer = tfo_syn(server)
    peer.expect("S. 0:0(0) ack 6")
    peer.send("P. 6:11(5) ack 1", data=b"world")
    assert lsk.accept().recv(20) == b"helloworld"


@pytest.mark.linux("tcp_check_req: a SYN for a Fast Open child never ends it")
def test_another_syn_is_reset_and_the_connection_lives():
    server, lsk = fast()
    peer = tfo_syn(server)
    peer.expect("S. 0:0(0) ack 6")
    sk = lsk.accept()
    peer.send("S 6:6(0) <mss 1460>")
    assert peer.expect_next().flags & 4
    assert sk.recv(9) == b"hello" and sk._sk.state == SYN_RECV


@pytest.mark.parametrize("ack", [0, 2, 1000])
def test_a_wrong_ack_is_reset(ack):
    server, lsk = fast()
    peer = tfo_syn(server)
    peer.expect("S. 0:0(0) ack 6")
    sk = lsk.accept()
    peer.send(f". 6:6(0) ack {ack}")
    peer.expect(f"R {ack}:{ack}(0)")
    assert sk._sk.state == SYN_RECV


def test_closing_before_the_third_ack_sends_the_fin():
    server, lsk = fast()
    peer = tfo_syn(server)
    peer.expect("S. 0:0(0) ack 6")
    sk = lsk.accept()
    sk.recv(9)
    sk.send(b"bye")
    sk.close()
    server.settle()
    sent = peer.drain()
    assert b"".join(seg.payload for seg in sent) == b"bye" and sent[-1].flags & 1
    peer.send("F. 6:6(0) ack 5")
    assert server.stack.tcp.twhash and not server.stack.tcp.fastopen_rsk
    assert lsk._sk.listen.fastopen.qlen == 0


@pytest.mark.linux("tcp_rcv_state_process: sk_shutdown & SEND_SHUTDOWN")
def test_a_shutdown_before_the_third_ack_waits_for_it():
    server, lsk = fast()
    peer = tfo_syn(server)
    peer.expect("S. 0:0(0) ack 6")
    sk = lsk.accept()
    sk.send(b"bye")
    peer.expect("P. 1:4(3) ack 6")
    sk.shutdown(socket.SHUT_WR)
    peer.expect_nothing()
    peer.send(". 6:6(0) ack 1")
    peer.expect("F. 4:4(0) ack 6")


@pytest.mark.parametrize("accepted", [False, True])
def test_a_listener_that_closes_leaves_no_request_behind(accepted):
    server, lsk = fast()
    peer = tfo_syn(server)
    peer.expect("S. 0:0(0) ack 6")
    sk = lsk.accept() if accepted else None
    lsk.close()
    server.settle()
    if sk is None:
        assert peer.expect_next().flags & 4
        assert not server.stack.tcp.ehash
    else:
        peer.send(". 6:6(0) ack 1")
        assert sk._sk.state == ESTAB and sk.recv(9) == b"hello"
    assert not server.stack.tcp.fastopen_rsk
    assert server.stack.tcp.request_cache.info().active_objs == 0


def test_a_full_accept_queue_drops_the_syn():
    server, _ = fast(backlog=0)
    server.peer().handshake()
    peer = tfo_syn(server)
    peer.expect_nothing()
    assert server.mib.ListenOverflows == server.mib.ListenDrops == 1


def test_no_fast_open_while_cookies_answer_for_the_queue():
    server, lsk = fast(tcp_syncookies=2)
    peer = tfo_syn(server)
    peer.expect("S. 0:0(0) ack 1 <mss 1460>")
    with pytest.raises(BlockingIOError):
        lsk.accept()


def test_the_old_keys_cookies_are_good_and_replaced():
    server, lsk = fast()
    lsk.setsockopt(IPPROTO_TCP, TCP_FASTOPEN_KEY, b"A" * 16)
    peer = server.peer()
    peer.send("S 0:0(0) <mss 1460,FO,nop,nop>")
    old = bytes(peer.expect("S. 0:0(0) ack 1").option("FO"))
    lsk.setsockopt(IPPROTO_TCP, TCP_FASTOPEN_KEY, b"B" * 16 + b"A" * 16)
    again = server.peer()
    again.send(f"S 0:5(5) <mss 1460,FO {old.hex()},nop,nop>")
    new = bytes(again.expect("S. 0:0(0) ack 6").option("FO"))
    assert new != old and server.mib.TCPFastOpenPassiveAltKey == 1
    third = server.peer()
    third.send(f"S 0:5(5) <mss 1460,FO {new.hex()},nop,nop>")
    third.expect("S. 0:0(0) ack 6 <mss 1460>")


@pytest.mark.parametrize("key", [b"", b"A" * 15, b"A" * 33])
def test_a_key_has_16_bytes_or_two_keys_32(key):
    _, lsk = fast()
    with pytest.raises(OSError, match="Invalid argument"):
        lsk.setsockopt(IPPROTO_TCP, TCP_FASTOPEN_KEY, key)


def test_the_queue_is_at_most_somaxconn_and_not_for_connections():
    server, lsk = fast()
    sysctl(server, "net.core.somaxconn", 10)
    lsk.setsockopt(IPPROTO_TCP, TCP_FASTOPEN, 50)
    assert lsk.getsockopt(IPPROTO_TCP, TCP_FASTOPEN) == 10
    server.peer().handshake()
    with pytest.raises(OSError, match="Invalid argument"):
        lsk.accept().setsockopt(IPPROTO_TCP, TCP_FASTOPEN, 5)


def test_another_key_of_the_stack_makes_other_cookies():
    server, _ = fast()
    peer = server.peer()
    old = cookie(server, peer.addr)
    sysctl(server, "net.ipv4.tcp_fastopen_key", "1-2-3-4")
    assert cookie(server, peer.addr) != old
    peer.send(f"S 0:5(5) <mss 1460,FO {old},nop,nop>")
    peer.expect("S. 0:0(0) ack 1")


def test_two_stacks_open_fast_the_second_time():
    client, server = two_hosts(tcp=TcpConfig(tcp_fastopen=3))
    lsk = server.listen()
    lsk.setsockopt(IPPROTO_TCP, TCP_FASTOPEN, 5)
    with pytest.raises(BlockingIOError):
        client.socket().send_fastopen(b"hello", server.addr, 80)
    server.settle()
    lsk.accept()
    assert client.socket().send_fastopen(b"hello", server.addr, 80) == 5
    server.settle()
    assert lsk.accept().recv(10) == b"hello"
    mib = server.stack.net.mib.tcp_ext
    assert (mib.TCPFastOpenCookieReqd, mib.TCPFastOpenPassive) == (1, 1)
