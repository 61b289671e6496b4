"""ioctl() on a TCP socket: SIOCINQ, SIOCOUTQ, SIOCOUTQNSD, SIOCATMARK (tcp_ioctl)."""

from __future__ import annotations

import errno
import socket
import termios

import pytest

from kit.flight import Flight
from ustack.tcp.ioctl import SIOCATMARK, SIOCINQ, SIOCOUTQ, SIOCOUTQNSD

QUEUES = (SIOCINQ, SIOCOUTQ, SIOCOUTQNSD)


def test_the_numbers_are_linuxs():
    assert (SIOCINQ, SIOCOUTQ) == (termios.FIONREAD, termios.TIOCOUTQ)


def test_siocinq_is_what_can_be_read(server):
    sk, peer = server.established()
    assert sk.ioctl(SIOCINQ) == 0
    peer.send("P. 1:101(100) ack 1")
    assert sk.ioctl(SIOCINQ) == 100
    sk.recv(30)
    assert sk.ioctl(SIOCINQ) == 70


def test_siocinq_does_not_count_what_lies_beyond_a_hole(server):
    sk, peer = server.established()
    peer.send("P. 101:201(100) ack 1")
    assert sk.ioctl(SIOCINQ) == 0
    peer.send("P. 1:101(100) ack 1")
    assert sk.ioctl(SIOCINQ) == 200


@pytest.mark.linux("tcp_inq: Subtract 1, if FIN was received")
def test_a_fin_is_not_to_be_read(server):
    sk, peer = server.established()
    peer.send("FP. 1:11(10) ack 1")
    assert sk.ioctl(SIOCINQ) == 10
    sk.recv(10)
    assert sk.ioctl(SIOCINQ) == 0


def test_siocinq_ends_at_the_urgent_byte(server):
    sk, peer = server.established()
    peer.send("PU. 1:9(8) ack 1 urg 4", data=b"abcdefgh")
    assert sk.ioctl(SIOCINQ) == 3
    sk.recv(100)
    assert sk.ioctl(SIOCINQ) == 0
    sk.recv(100)
    assert sk.ioctl(SIOCINQ) == 0


def test_siocinq_counts_all_when_urgent_data_is_in_line(server):
    sk, peer = server.established()
    sk.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    peer.send("PU. 1:9(8) ack 1 urg 4", data=b"abcdefgh")
    assert sk.ioctl(SIOCINQ) == 8


def test_siocatmark_is_true_at_the_mark_only(server):
    sk, peer = server.established()
    peer.send("PU. 1:9(8) ack 1 urg 4", data=b"abcdefgh")
    assert sk.ioctl(SIOCATMARK) == 0
    sk.recv(100)
    assert sk.ioctl(SIOCATMARK) == 1
    sk.recv(100)
    assert sk.ioctl(SIOCATMARK) == 0


def test_siocoutq_is_what_is_not_acknowledged(server):
    f = Flight(server)
    assert f.sk.ioctl(SIOCOUTQ) == 10_000
    f.ack(4)
    assert f.sk.ioctl(SIOCOUTQ) == 6000


def test_siocoutqnsd_is_what_is_not_sent(server):
    f = Flight(server)
    f.write(3)
    assert (f.sk.ioctl(SIOCOUTQ), f.sk.ioctl(SIOCOUTQNSD)) == (13_000, 3000)
    f.ack(10)
    assert (f.sk.ioctl(SIOCOUTQ), f.sk.ioctl(SIOCOUTQNSD)) == (3000, 0)


@pytest.mark.linux("tcp_ioctl")
def test_our_fin_counts_as_a_byte_until_it_is_acknowledged(server):
    sk, peer = server.established()
    sk.shutdown(socket.SHUT_WR)
    assert (sk.ioctl(SIOCOUTQ), sk.ioctl(SIOCOUTQNSD)) == (1, 0)
    peer.send(". 1:1(0) ack 2")
    assert sk.ioctl(SIOCOUTQ) == 0


@pytest.mark.parametrize("request_", QUEUES)
def test_a_connection_that_opens_has_empty_queues(server, request_: int):
    assert server.connect().ioctl(request_) == 0


@pytest.mark.parametrize("request_", QUEUES)
def test_a_new_socket_has_empty_queues(server, request_: int):
    assert server.socket().ioctl(request_) == 0


@pytest.mark.parametrize("request_", QUEUES)
def test_a_listener_has_no_queues_of_bytes(server, request_: int):
    with pytest.raises(OSError) as caught:
        server.listen().ioctl(request_)
    assert caught.value.errno == errno.EINVAL


def test_a_listener_is_not_at_the_mark(server):
    assert server.listen().ioctl(SIOCATMARK) == 0


def test_another_request_is_not_for_a_socket_of_tcp(server):
    with pytest.raises(OSError) as caught:
        server.socket().ioctl(0x5413)
    assert caught.value.errno == errno.ENOTTY


def test_a_closed_socket_is_a_bad_descriptor(server):
    sk, _ = server.established()
    sk.close()
    with pytest.raises(OSError) as caught:
        sk.ioctl(SIOCINQ)
    assert caught.value.errno == errno.EBADF
