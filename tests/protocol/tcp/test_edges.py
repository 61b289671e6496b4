"""Corners of Linux's TCP: each was measured on a kernel 6.18 or read in the function named."""

from __future__ import annotations

import errno
import gc
import struct

import pytest

from kit.host import TEST_CONFIG, host
from kit.tcp_invariants import leftovers
from ustack.config import TcpConfig
from ustack.lib.drop_reason import DropReason
from ustack.native.lib import lib
from ustack.tcp import ports
from ustack.tcp.diag import tcp_diag
from ustack.tcp.sock import TcpSock

SECOND = 1_000_000
SOL_SOCKET, SO_ERROR, SO_REUSEADDR, SO_RCVBUF, SO_KEEPALIVE, SO_RCVLOWAT = 1, 4, 2, 8, 9, 18
IPPROTO_TCP, TCP_NODELAY, TCP_MAXSEG = 6, 1, 2
ICMP_DEST_UNREACH = 3


@pytest.mark.linux("__tcp_transmit_skb: OutSegs; tcp_retransmit_timer: TCPTimeouts")
def test_what_is_repeated_is_no_segment_out(server):
    sk, peer = server.established()
    before = server.mib.OutSegs
    sk.send(b"x" * 10)
    server.advance_us(2 * SECOND)
    assert len(peer.drain()) == 4
    assert server.mib.OutSegs - before == 1
    assert server.mib.RetransSegs == 3
    assert server.mib.TCPTimeouts == 3


@pytest.mark.linux("tcp_acceptable_seq")
def test_an_ack_stays_inside_a_window_that_has_shrunk(server):
    sk, peer = server.established(win=4000)
    sk.send(bytes(4000))
    peer.drain()
    peer.send(". 1:1(0) ack 1 win 0")  # bad manners, but they happen
    peer.send(". 0:0(0) ack 1 win 0")
    peer.expect(". 1:1(0) ack 1")


@pytest.mark.rfc("9293", "3.8.6")
def test_a_fin_does_not_stick_out_of_the_window(server):
    sk, peer = server.established(win=1000)
    sk.send(bytes(1400))
    assert sum(len(s.payload) for s in peer.drain()) == 1000
    sk.close()
    peer.send(". 1:1(0) ack 1001 win 400")
    server.advance_us(10 * SECOND)
    sent = peer.drain()
    assert sum(len(s.payload) for s in sent[:1]) == 400
    assert not any(s.flags & 1 for s in sent)
    peer.send(". 1:1(0) ack 1401 win 400")
    peer.expect("F. 1401:1401(0) ack 1")


@pytest.mark.rfc("6298", "5.7")
@pytest.mark.rfc("5681", "3.1")
@pytest.mark.linux("tcp_init_metrics, tcp_init_transfer")
def test_a_handshake_that_was_repeated_makes_a_cautious_start(server):
    peer = server.peer(port=80, to=None)
    sk = server.connect()
    server.advance_us(2_300_000)
    assert len(peer.drain()) == 3
    peer.send("S. 0:0(0) ack 1 <mss 1000>")
    peer.expect(". 1:1(0) ack 1")
    sk.send(bytes(10_000))
    peer.expect(". 1:1001(1000) ack 1")
    server.advance_us(2_900_000)
    peer.expect_nothing()
    peer.expect(". 1:1001(1000) ack 1", within_us=200_000)


@pytest.mark.linux("tcp_probe_timer: an orphan's patience ends though the peer answers")
def test_a_peer_cannot_keep_an_orphan_by_a_closed_window(server):
    sk, peer = server.established(win=1000)
    sk.send(bytes(3000))
    peer.drain()
    sk.close()
    peer.send(". 1:1(0) ack 1001 win 0")
    for _ in range(400):
        server.advance_us(SECOND)
        if peer.drain():
            peer.send(". 1:1(0) ack 1001 win 0")
    assert [r["state"] for r in tcp_diag(server.stack.tcp) if r["state"] != "LISTEN"] == []


@pytest.mark.linux("tcp_keepalive_timer")
def test_keepalive_outlives_the_closing_states():
    config = TcpConfig(tcp_keepalive_time_us=10 * SECOND, tcp_keepalive_intvl_us=SECOND)
    server = host(TEST_CONFIG, tcp=config)
    sk, peer = server.established()
    sk.setsockopt(SOL_SOCKET, SO_KEEPALIVE, 1)
    server.advance_us(9_900_000)
    sk.shutdown(1)
    peer.expect("F. 1:1(0) ack 1")
    server.advance_us(150_000)  # the timer fires in FIN_WAIT1
    peer.send(". 1:1(0) ack 2")
    peer.expect(". 1:1(0) ack 1", within_us=30 * SECOND)
    server.advance_us(20 * SECOND)
    assert sk.getsockopt(SOL_SOCKET, SO_ERROR) == errno.ETIMEDOUT


@pytest.mark.linux("__tcp_sock_set_nodelay")
def test_nodelay_pushes_in_close_wait_too(server):
    sk, peer = server.established()
    peer.send("F. 1:1(0) ack 1")
    peer.drain()
    sk.send(b"one")
    peer.expect("P. 1:4(3) ack 2")
    sk.send(b"two")
    peer.expect_nothing()
    sk.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
    peer.expect("P. 4:7(3) ack 2")


@pytest.mark.linux("tcp_set_rcvlowat")
def test_a_low_water_mark_is_never_above_what_the_window_can_become(server):
    sk, _ = server.established()
    sk.setsockopt(SOL_SOCKET, SO_RCVLOWAT, 1_000_000)
    assert sk.getsockopt(SOL_SOCKET, SO_RCVLOWAT) == 1_000_000
    assert sk.getsockopt(SOL_SOCKET, SO_RCVBUF) == 2_000_000
    sk.setsockopt(SOL_SOCKET, SO_RCVBUF, 4096)
    sk.setsockopt(SOL_SOCKET, SO_RCVLOWAT, 100_000)
    assert sk.getsockopt(SOL_SOCKET, SO_RCVLOWAT) == 4096


def test_a_reader_that_wants_more_than_the_first_window_gets_it(server):
    sk, peer = server.established("mss 1460,nop,wscale 7")
    sk.setsockopt(SOL_SOCKET, SO_RCVLOWAT, 200_000)
    seq = 1
    while seq < 200_001:
        peer.send(f"P. {seq}:{seq + 1000}(1000) ack 1")
        seq += 1000
    assert sk.poll() & 1


@pytest.mark.linux("inet_shutdown: TCP_SYN_SENT, tcp_disconnect")
def test_shutdown_in_syn_sent_disconnects_and_another_connect_may_follow(server):
    peer = server.peer(port=80, to=None)
    sk = server.connect()
    peer.expect("S 0:0(0)")
    sk.shutdown(1)
    peer.expect_nothing(for_us=5 * SECOND)
    assert sk.getsockopt(SOL_SOCKET, SO_ERROR) == errno.ECONNRESET
    assert server.mib.AttemptFails == 0
    with pytest.raises(BlockingIOError):
        sk.connect(peer.addr, 81)


@pytest.mark.linux("tcp_set_state: SOCK_BINDPORT_LOCK")
def test_a_port_that_bind_named_outlives_a_refused_connection(server):
    first, second = server.peer(port=80), server.peer(port=81)
    sk = server.socket()
    sk.bind(0, 4321)
    for peer in (first, second):
        peer.to = 4321
        with pytest.raises(BlockingIOError):
            sk.connect(peer.addr, peer.port)
        peer.expect("S 0:0(0)")
        peer.send("R. 0:0(0) ack 1")
        with pytest.raises(ConnectionRefusedError):
            sk.connect(peer.addr, peer.port)
    sk.close()
    server.socket().bind(0, 4321)


@pytest.mark.linux("__tcp_close: tcp_close_state")
def test_giving_up_a_connect_is_no_failed_attempt(server):
    peer = server.peer(port=80, to=None)
    server.connect().close()
    peer.expect("S 0:0(0)")
    assert (server.mib.ActiveOpens, server.mib.AttemptFails) == (1, 0)


@pytest.mark.linux("inet_csk_listen_start: get_port")
def test_two_listeners_do_not_overlap_even_with_reuse(server):
    one, two = server.socket(), server.socket()
    for sk, addr in ((one, 0), (two, server.addr)):
        sk.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        sk.bind(addr, 90)
    one.listen()
    with pytest.raises(OSError) as taken:
        two.listen()
    assert taken.value.errno == errno.EADDRINUSE


@pytest.mark.linux("tcp_req_err")
@pytest.mark.parametrize(("code", "stays"), [(0, False), (1, False), (3, True), (4, True)])
def test_only_an_unreachable_host_or_network_drops_a_request(server, code, stays):
    lsk = server.listen()
    peer = server.peer()
    peer.send("S 0:0(0) <mss 1460>")
    syn_ack = peer.expect("S. 0:0(0) ack 1")
    quoted = struct.pack(">HHI", 80, peer.port, syn_ack.seq)
    _, err = server.stack.ip.inet_protos[6]
    err(ICMP_DEST_UNREACH, code, 600, server.addr, peer.addr, quoted)
    assert bool(lsk._sk.listen.syn_queue) == stays


def test_a_closed_connection_is_not_kept_by_its_keepalive_timer(server):
    sk, peer = server.established()
    sk.setsockopt(SOL_SOCKET, SO_KEEPALIVE, 1)
    peer.send("R 1:1(0)")
    sk.close()
    del sk
    gc.collect()
    left = [o for o in gc.get_objects() if isinstance(o, TcpSock) and o.prot is server.stack.tcp]
    assert [o.tp is not None and o.listen is not None for o in left] == [True]


@pytest.mark.linux("tcp_make_synack: user_mss")
def test_a_listeners_maxseg_is_what_its_syn_ack_advertises(server):
    lsk = server.listen()
    lsk.setsockopt(IPPROTO_TCP, TCP_MAXSEG, 600)
    peer = server.peer()
    peer.send("S 0:0(0) <mss 1460>")
    peer.expect("S. 0:0(0) ack 1 <mss 600>")


@pytest.mark.linux("inet_rtx_syn_ack")
def test_an_answer_to_a_repeated_syn_counts_as_repeated(server):
    server.listen()
    peer = server.peer()
    peer.send("S 0:0(0) <mss 1460>")
    peer.send("S 0:0(0) <mss 1460>")
    assert len(peer.drain()) == 2
    assert (server.mib.RetransSegs, server.mib.TCPSynRetrans, server.mib.OutSegs) == (1, 1, 2)


@pytest.mark.linux("tcp_conn_request: a TIME_WAIT is converted without limits")
def test_a_peer_from_time_wait_passes_a_full_syn_queue():
    server = host(TEST_CONFIG, tcp=TcpConfig(tcp_syncookies=0))
    lsk = server.listen(backlog=0)
    peer = server.peer()
    peer.handshake()
    lsk.accept().close()
    peer.expect("F. 1:1(0) ack 1")
    peer.send("F. 1:1(0) ack 2")
    peer.expect(". 2:2(0) ack 2")
    for port in (50_001, 50_002):
        server.peer(port=port).send("S 0:0(0) <mss 1460>")
    assert server.mib.TCPReqQFullDrop == 1
    peer.send("S 100000:100000(0) <mss 1460>")
    peer.expect("S. 0:0(0) ack 100001")


@pytest.mark.linux("tcp_data_queue_ofo: TCPOFODrop")
def test_single_bytes_beyond_a_hole_cost_what_they_take():
    server = host(TEST_CONFIG, tcp=TcpConfig(tcp_rmem=(4096, 131_072, 131_072)))
    sk, peer = server.established()
    for at in range(3, 3000, 2):
        peer.send(f". {at}:{at + 1}(1) ack 1")
    assert server.mib.TCPOFODrop > 0
    assert server.stack.net.drops[DropReason.PROTO_MEM] == server.mib.TCPOFODrop
    assert sk._sk.ofo.truesize <= sk._sk.tp.sk_rcvbuf + 300


def _starve(server):
    mem = server.stack.net.mem
    taken = []
    while mem.free_pages:
        taken.append(mem.alloc_pages(0))
    return taken


def test_without_memory_nothing_is_reported_that_is_not_kept(server):
    sk, peer = server.established("mss 1460,sackOK")
    for at in range(1001, 6001, 1000):
        peer.send(f"P. {at}:{at + 1000}(1000) ack 1")
    peer.drain()
    taken = _starve(server)
    server.stack.net.mem.put_page(taken.pop())
    peer.send("P. 1:1001(1000) ack 1")
    answers = peer.drain()
    assert answers and all(seg.option("sack") is None for seg in answers)
    assert server.mib.TCPRcvQDrop > 0
    for addr in taken:
        server.stack.net.mem.put_page(addr)
    at = answers[-1].ack - peer.iss & 0xFFFFFFFF
    assert 1001 < at < 6001 and answers[-1].window == 0
    got = len(sk.recv(9000))  # the window is closed until there is memory
    while at < 6001:
        end = min(at + 1000, 6001)
        peer.send(f"P. {at}:{end}({end - at}) ack 1")
        at = end
    assert got + len(sk.recv(9000)) == 6000


def test_without_memory_a_syn_a_third_ack_and_a_socket_fail_softly(server):
    lsk = server.listen()
    early = server.peer()
    early.send("S 0:0(0) <mss 1460>")
    early.expect("S. 0:0(0) ack 1")
    taken = _starve(server)
    hogs = []
    with pytest.raises(OSError) as full:
        while True:
            hogs.append(server.socket())
    assert full.value.errno == errno.ENOBUFS
    early.send(". 1:1(0) ack 1")
    for port in range(100):
        server.peer(port=20_000 + port).send("S 0:0(0) <mss 1460>")
    assert server.mib.ListenDrops >= 1
    for addr in taken:
        server.stack.net.mem.put_page(addr)
    early.send(". 1:1(0) ack 1")
    assert lsk.accept().getpeername() == (early.addr, early.port)


class NoMoreShares:
    """The C layer, when there is no memory for another kind of connections on a port."""

    def __getattr__(self, name):
        return getattr(lib, name)

    def us_bind_share_alloc(self, fast, port):
        return 0


def test_a_child_without_a_share_of_the_port_leaves_nothing_behind(server, monkeypatch):
    lsk = server.listen()
    peer = server.peer()
    peer.send("S 0:0(0) <mss 1460>")
    peer.expect("S. 0:0(0) ack 1")
    with monkeypatch.context() as starved:
        starved.setattr(ports, "lib", NoMoreShares())
        peer.send(". 1:1(0) ack 1")
        peer.expect_nothing()
    assert server.mib.ListenDrops == 1
    left = leftovers(server.stack, listening=True)
    assert left.keys() == {"request_sock_TCP"}
    peer.send(". 1:1(0) ack 1")
    assert lsk.accept().getpeername() == (peer.addr, peer.port)


def test_connect_without_a_share_of_the_port_leaves_nothing_behind(server, monkeypatch):
    sk = server.socket()
    peer = server.peer()
    with monkeypatch.context() as starved:
        starved.setattr(ports, "lib", NoMoreShares())
        with pytest.raises(OSError) as full:
            sk.connect(peer.addr, peer.port)
    assert full.value.errno == errno.ENOMEM
    assert leftovers(server.stack).keys() == {"TCP"}
    with pytest.raises(BlockingIOError):
        sk.connect(peer.addr, peer.port)
