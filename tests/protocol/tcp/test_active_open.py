"""The active open: RFC 9293 §3.10.1 and §3.10.7.3, Linux's options and patience."""

from __future__ import annotations

import errno

import pytest

from kit.host import TEST_CONFIG, host
from ustack.config import TcpConfig
from ustack.tcp.diag import tcp_diag

SECOND = 1_000_000


def test_the_syn_is_linuxs(server):
    peer = server.peer(port=80, to=None)
    server.connect()
    syn = peer.expect("S 0:0(0) <mss 1460,sackOK,TS val * ecr 0,nop,wscale 7>")
    assert syn.window == 64240
    assert server.mib.ActiveOpens == 1


@pytest.mark.linux("ss -tno: timer:(on,1sec,0)")
def test_the_syns_timer_has_a_second(server):
    server.peer(port=80, to=None)
    server.connect()
    (row,) = tcp_diag(server.stack.tcp)
    assert (row["state"], row["timer"]) == ("SYN-SENT", ("on", SECOND, 0))


def test_the_handshake_completes_and_data_flows(server):
    peer = server.peer(port=80, to=None)
    sk = server.connect()
    peer.answer_syn()
    sk.send(b"GET")
    peer.expect("P. 1:4(3) ack 1")
    peer.send("P. 1:3(2) ack 4", data=b"OK")
    assert sk.recv(10) == b"OK"
    assert sk.getpeername() == (peer.addr, 80)


def test_a_second_connect_says_already_and_then_connected(server):
    peer = server.peer(port=80, to=None)
    sk = server.connect()
    with pytest.raises(BlockingIOError) as again:
        sk.connect(peer.addr, 80)
    assert again.value.errno == errno.EALREADY
    peer.answer_syn()
    sk.connect(peer.addr, 80)  # tells that it has succeeded, once
    with pytest.raises(OSError) as done:
        sk.connect(peer.addr, 80)
    assert done.value.errno == errno.EISCONN


def test_a_reset_refuses(server):
    peer = server.peer(port=80, to=None)
    sk = server.connect()
    peer.expect("S 0:0(0)")
    peer.send("R. 0:0(0) ack 1")
    assert sk.getsockopt(1, 4) == errno.ECONNREFUSED  # SOL_SOCKET, SO_ERROR
    assert server.mib.AttemptFails == 1


@pytest.mark.rfc("9293", "3.10.7.3")
@pytest.mark.parametrize("line", ["R. 0:0(0) ack 99", "R 0:0(0)"])
def test_a_reset_that_does_not_acknowledge_our_syn_is_ignored(server, line):
    peer = server.peer(port=80, to=None)
    sk = server.connect()
    peer.expect("S 0:0(0)")
    peer.send(line)
    assert sk.getsockopt(1, 4) == 0
    peer.expect("S 0:0(0)", within_us=2 * SECOND)


@pytest.mark.rfc("9293", "3.10.7.3")
@pytest.mark.parametrize("line", ["S. 0:0(0) ack 99", ". 0:0(0) ack 99"])
def test_a_wrong_ack_in_syn_sent_is_reset(server, line):
    peer = server.peer(port=80, to=None)
    server.connect()
    peer.expect("S 0:0(0)")
    peer.send(line)
    peer.expect("R 99:99(0)")


@pytest.mark.linux("net.ipv4.tcp_syn_retries, tcp_syn_linear_timeouts")
@pytest.mark.parametrize(
    ("linear", "seconds", "gives_up"),
    [(4, [0, 1, 2, 3, 4, 5, 7, 11, 19, 35, 67], 131), (0, [0, 1, 3, 7, 15, 31, 63], 127)],
)
def test_syns_to_a_silent_host(linear, seconds, gives_up):
    server = host(TEST_CONFIG, tcp=TcpConfig(tcp_syn_linear_timeouts=linear))
    peer = server.peer(port=80, to=None)
    begin = server.world.now_us
    sk = server.connect()
    server.advance_us((gives_up - 2) * SECOND)
    assert [round((s.time_us - begin) / SECOND) for s in peer.drain()] == seconds
    assert sk.getsockopt(1, 4) == 0
    server.advance_us(4 * SECOND)
    assert sk.getsockopt(1, 4) == errno.ETIMEDOUT


@pytest.mark.rfc("9293", "3.5")
def test_simultaneous_open(server):
    peer = server.peer(port=80, to=None)
    sk = server.connect()
    peer.expect("S 0:0(0)")
    peer.send("S 0:0(0) win 65535 <mss 1460>")
    peer.expect("S. 0:0(0) ack 1")
    peer.send("S. 0:0(0) ack 1 <mss 1460>")
    peer.drain()
    peer.send("P. 1:3(2) ack 1", data=b"hi")
    assert sk.recv(10) == b"hi"


@pytest.mark.linux("tcp_send_synack arms no timer: that of the SYN goes on")
def test_the_syn_ack_of_a_simultaneous_open_is_repeated_when_the_syn_would_have_been(server):
    peer = server.peer(port=80, to=None)
    server.connect()
    peer.expect("S 0:0(0)")
    begin = server.world.now_us
    server.advance_us(600_000)
    peer.send("S 0:0(0) win 65535 <mss 1460>")
    peer.expect("S. 0:0(0) ack 1")
    server.advance_us(3 * SECOND)
    assert [(s.time_us - begin) // 10_000 for s in peer.drain()] == [100, 300]


@pytest.mark.rfc("9293", "3.5")
def test_the_syn_acks_of_a_simultaneous_open_cross(server):
    """Each is the ACK that the other side waits for (figure 8): no challenge is needed."""
    peer = server.peer(port=80, to=None)
    sk = server.connect()
    peer.expect("S 0:0(0)")
    peer.send("S 0:0(0) win 65535 <mss 1460,nop,wscale 3>")
    peer.expect("S. 0:0(0) ack 1")
    peer.send("S. 0:0(0) ack 1 win 1000 <mss 1460,nop,wscale 3>")
    assert sk.established
    assert server.mib.TCPSYNChallenge == 0
    assert sk._sk.tp.snd_wnd == 1000  # the window of a SYN is not scaled


@pytest.mark.rfc("9293", "3.10.7.4")
@pytest.mark.parametrize("ack", [0, 2])
def test_in_syn_received_only_the_ack_of_our_syn_establishes(server, ack):
    peer = server.peer(port=80, to=None)
    sk = server.connect()
    peer.expect("S 0:0(0)")
    peer.send("S 0:0(0) win 65535 <mss 1460>")
    peer.expect("S. 0:0(0) ack 1")
    peer.send(f". 1:1(0) ack {ack}")
    peer.expect(f"R {ack}:{ack}(0)")
    peer.expect_nothing()
    assert not sk.established
    peer.send(". 1:1(0) ack 1")
    assert sk.established


def test_a_socket_can_connect_to_itself(server):
    sk = server.socket()
    sk.bind(0x7F000001, 4567)
    with pytest.raises(BlockingIOError):
        sk.connect(0x7F000001, 4567)
    server.settle()
    sk.send(b"self")
    server.settle()
    assert sk.recv(10) == b"self"


def test_an_address_that_does_not_answer_arp_is_unreachable(server):
    server.peer(port=80, addr="10.0.0.9", to=None)
    server.net.silent.add(0x0A000009)
    sk = server.connect("10.0.0.9")
    server.advance_us(4 * SECOND)
    assert sk.getsockopt(1, 4) == errno.EHOSTUNREACH


def test_an_address_without_route_is_unreachable_at_once(server):
    sk = server.socket()
    with pytest.raises(OSError) as no_route:
        sk.connect(0xC0000201, 80)
    assert no_route.value.errno == errno.ENETUNREACH


def test_the_port_is_of_the_local_range_and_even_as_in_linux(server):
    ports = set()
    for _ in range(20):
        peer = server.peer(port=server.world.now_us % 1000 + 2000, to=None)
        sk = server.connect(port=peer.port)
        ports.add(sk.getsockname()[1])
        server.advance_us(1)
    assert all(32768 <= p <= 60999 and p % 2 == 0 for p in ports)
    assert len(ports) > 10


def test_a_stack_can_connect_to_itself_over_loopback(server):
    lsk = server.listen(8080)
    sk = server.connect("127.0.0.1", 8080)
    child = lsk.accept()
    sk.send(b"round")
    server.settle()
    assert child.recv(10) == b"round"
    own = server.connect("10.0.0.2", 8080)
    server.settle()
    assert own.getpeername() == (server.addr, 8080)
    assert not [c for c in server.net.other if c.frame[12:14] == b"\x08\x00"]
