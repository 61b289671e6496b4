"""Type of service, TTL and DF of TCP's packets: IP_TOS, IP_TTL, IP_MTU_DISCOVER (ip_sockglue.c)."""

from __future__ import annotations

import errno
import socket

import pytest

from kit.host import TEST_CONFIG, Host, host
from ustack.core.sysctl import sysctl_write

SOL_IP = socket.IPPROTO_IP
IP_TOS, IP_TTL = socket.IP_TOS, socket.IP_TTL
IP_MTU_DISCOVER, IP_MTU = 10, 14
DONT = 0


def listener(server: Host, *options: tuple[int, int]) -> tuple:
    """Return an accepted connection of a listener with ``options``, its SYN of tos 0x10."""
    lsk = server.listen(80)
    for option, value in options:
        lsk.setsockopt(SOL_IP, option, value)
    peer = server.peer()
    peer.send("S 0:0(0) win 65535 <mss 1460>", tos=0x10)
    syn_ack = peer.expect("S. 0:0(0) ack 1")
    peer.send(". 1:1(0) ack 1", tos=0x10)
    return lsk.accept(), peer, syn_ack


def test_every_packet_of_a_connection_has_what_its_listener_had(server):
    sk, peer, syn_ack = listener(server, (IP_TOS, 0x08), (IP_TTL, 77))
    assert (syn_ack.tos, syn_ack.ttl) == (0x08, 77)
    sk.send(b"data")
    data = peer.expect("P. 1:5(4) ack 1")
    peer.send("P. 1:101(100) ack 5", tos=0x10)
    ack = peer.expect(". 5:5(0) ack 101")
    assert {(seg.tos, seg.ttl) for seg in (data, ack)} == {(0x08, 77)}


def test_without_c_the_same(server):
    server.stack.set_config(sysctl_write(server.stack.config, "net.ustack.tcp_fastpath", "0"))
    sk, peer, _ = listener(server, (IP_TOS, 0x08), (IP_TTL, 77))
    sk.send(b"data")
    data = peer.expect("P. 1:5(4) ack 1")
    assert (data.tos, data.ttl) == (0x08, 77)


def test_a_connection_may_have_its_own(server):
    sk, peer = server.established()
    sk.setsockopt(SOL_IP, IP_TOS, 0x10)
    sk.setsockopt(SOL_IP, IP_TTL, 3)
    sk.send(b"data")
    data = peer.expect("P. 1:5(4) ack 1")
    assert (data.tos, data.ttl) == (0x10, 3)


def test_a_client_marks_its_syn(server):
    sk = server.socket()
    sk.setsockopt(SOL_IP, IP_TOS, 0x20)
    peer = server.peer(to=None, port=80)
    with pytest.raises(BlockingIOError):
        sk.connect(peer.addr, 80)
    assert peer.expect("S 0:0(0)").tos == 0x20


@pytest.mark.linux("tcp_v4_send_reset: arg.tos is the packet's")
def test_a_reset_has_the_type_of_service_of_what_it_answers(server):
    peer = server.peer(to=81)
    peer.send("S 0:0(0)", tos=0x10)
    assert peer.expect_next().tos == 0x10


@pytest.mark.linux("tcp_v4_timewait_ack: tw_tos")
def test_a_time_wait_answers_as_the_connection_did(server):
    sk, peer, _ = listener(server, (IP_TOS, 0x08))
    sk.close()
    peer.expect("F. 1:1(0) ack 1")
    peer.send("F. 1:1(0) ack 2", tos=0x10)
    assert peer.expect(". 2:2(0) ack 2").tos == 0x08
    server.advance_us(2_000_000)
    peer.send("F. 1:1(0) ack 2", tos=0x10)
    assert peer.expect(". 2:2(0) ack 2").tos == 0x08


@pytest.mark.parametrize(("value", "shown"), [(0x10, 0x10), (3, 0), (256, 0), (-1, 252)])
def test_ip_tos_leaves_tcp_its_two_bits(server, value, shown):
    sk = server.socket()
    sk.setsockopt(SOL_IP, IP_TOS, value)
    assert sk.getsockopt(SOL_IP, IP_TOS) == shown


def test_ip_ttl_of_minus_one_is_the_default_again(server):
    sk = server.socket()
    sk.setsockopt(SOL_IP, IP_TTL, 7)
    assert sk.getsockopt(SOL_IP, IP_TTL) == 7
    sk.setsockopt(SOL_IP, IP_TTL, -1)
    assert sk.getsockopt(SOL_IP, IP_TTL) == 64


@pytest.mark.parametrize(
    ("option", "value"),
    [(IP_TTL, 0), (IP_TTL, 256), (IP_TTL, -2), (IP_MTU_DISCOVER, -1), (IP_MTU_DISCOVER, 6)],
)
def test_other_values_are_invalid(server, option, value):
    with pytest.raises(OSError) as error:
        server.socket().setsockopt(SOL_IP, option, value)
    assert error.value.errno == errno.EINVAL


def test_tcp_reflect_tos_takes_it_from_the_syn():
    server = host()
    server.stack.set_config(sysctl_write(server.stack.config, "net.ipv4.tcp_reflect_tos", "1"))
    sk, peer, syn_ack = listener(server, (IP_TOS, 0x08))
    assert syn_ack.tos == 0x10
    sk.send(b"data")
    assert peer.expect("P. 1:5(4) ack 1").tos == 0x10


def test_a_cookie_takes_it_from_the_ack():
    server = host()
    config = sysctl_write(TEST_CONFIG, "net.ipv4.tcp_reflect_tos", "1")
    server.stack.set_config(sysctl_write(config, "net.ipv4.tcp_syncookies", "2"))
    sk, peer, syn_ack = listener(server)
    assert syn_ack.tos == 0x10
    sk.send(b"data")
    assert peer.expect("P. 1:5(4) ack 1").tos == 0x10


def test_packets_forbid_fragments_until_told_otherwise(server):
    sk, peer, syn_ack = listener(server)
    assert syn_ack.df
    sk.setsockopt(SOL_IP, IP_MTU_DISCOVER, DONT)
    sk.send(b"data")
    assert not peer.expect("P. 1:5(4) ack 1").df
    assert sk.getsockopt(SOL_IP, IP_MTU_DISCOVER) == DONT


def test_ip_no_pmtu_disc_is_for_all_who_did_not_choose():
    server = host()
    server.stack.set_config(sysctl_write(server.stack.config, "net.ipv4.ip_no_pmtu_disc", "1"))
    sk, peer, syn_ack = listener(server)
    assert not syn_ack.df
    sk.setsockopt(SOL_IP, IP_MTU_DISCOVER, 1)
    sk.send(b"data")
    assert peer.expect("P. 1:5(4) ack 1").df


def test_ip_mtu_is_the_routes(server):
    sk, _ = server.established()
    assert sk.getsockopt(SOL_IP, IP_MTU) == 1500
    with pytest.raises(OSError) as error:
        server.socket().getsockopt(SOL_IP, IP_MTU)
    assert error.value.errno == errno.ENOTCONN


def test_ip_nonlocal_bind_takes_any_address(server):
    with pytest.raises(OSError) as error:
        server.socket().bind(0x0A090909, 80)
    assert error.value.errno == errno.EADDRNOTAVAIL
    server.stack.set_config(sysctl_write(server.stack.config, "net.ipv4.ip_nonlocal_bind", "1"))
    server.socket().bind(0x0A090909, 80)


def test_so_rcvbuf_is_cut_to_rmem_max(server):
    server.stack.set_config(sysctl_write(server.stack.config, "net.core.rmem_max", "50000"))
    sk = server.socket()
    sk.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 10_000_000)
    assert sk.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 100_000
