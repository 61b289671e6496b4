"""ICMP errors about datagrams of ours, and how a socket learns of them (__udp4_lib_err)."""

from __future__ import annotations

import errno
import struct

import pytest

from kit.dgram_bed import DgramBed
from kit.netbed import PEER
from ustack.sock.wait import EPOLLERR, EPOLLIN

IP, RECVERR, MTU_DISCOVER, MTU = 0, 11, 10, 14
MSG_ERRQUEUE = 0x2000
SO_ERROR = (1, 4)


@pytest.fixture
def bed() -> DgramBed:
    return DgramBed()


def connected(bed: DgramBed):
    sock = bed.bound(5000)
    sock.connect(PEER, 9)
    sock.send(b"hi")
    return sock


@pytest.mark.rfc("1122", "4.1.3.3")
def test_a_connected_socket_is_told_once_that_the_port_is_closed(bed):
    sock = connected(bed)
    bed.refuses(5000)
    assert sock.poll() & EPOLLERR
    assert sock.rcv_ready(1)
    with pytest.raises(ConnectionRefusedError):
        sock.recv(1)
    assert not sock.poll() & EPOLLERR
    with pytest.raises(BlockingIOError):
        sock.recv(1)


def test_a_send_reports_it_too(bed):
    sock = connected(bed)
    bed.refuses(5000)
    with pytest.raises(ConnectionRefusedError):
        sock.send(b"again")
    assert sock.send(b"again") == 5


def test_so_error_reads_and_clears_it(bed):
    sock = connected(bed)
    bed.refuses(5000)
    assert sock.getsockopt(*SO_ERROR) == errno.ECONNREFUSED
    assert sock.getsockopt(*SO_ERROR) == 0


def test_who_is_not_connected_is_not_told(bed):
    sock = bed.bound(5000)
    sock.sendmsg(b"hi", to=(PEER, 9))
    bed.refuses(5000)
    assert sock.poll() & EPOLLERR == 0


def test_an_error_about_another_peers_datagram_is_none_of_ours(bed):
    sock = connected(bed)
    bed.refuses(5000, dport=10)
    assert not sock.poll() & EPOLLERR


@pytest.mark.parametrize(
    ("icmp_type", "code", "expected"),
    [(3, 0, 0), (3, 1, 0), (3, 2, errno.ENOPROTOOPT), (3, 3, errno.ECONNREFUSED),
     (3, 10, errno.EHOSTUNREACH), (3, 13, errno.EHOSTUNREACH), (11, 0, 0), (12, 0, errno.EPROTO)],
)  # fmt: skip
def test_only_what_is_fatal_is_reported(bed, icmp_type, code, expected):
    sock = connected(bed)
    bed.refuses(5000, icmp_type=icmp_type, code=code)
    assert sock.getsockopt(*SO_ERROR) == expected


def test_a_narrower_path_is_learnt_and_reported(bed):
    sock = connected(bed)
    assert sock.getsockopt(IP, MTU) == 1500
    bed.refuses(5000, code=4, info=1000)
    assert sock.getsockopt(*SO_ERROR) == errno.EMSGSIZE
    assert sock.getsockopt(IP, MTU) == 1000
    bed.take_sent()
    sock.send(bytes(1200))
    assert len(bed.take_sent()) == 2


def test_with_ip_recverr_errors_are_queued_with_what_they_are_about(bed):
    sock = bed.bound(5000)
    sock.setsockopt(IP, RECVERR, 1)
    sock.sendmsg(b"hi", to=(PEER, 9))
    bed.refuses(5000)
    assert sock.poll() & (EPOLLERR | EPOLLIN) == EPOLLERR
    with pytest.raises(ConnectionRefusedError):
        sock.recv(1)
    message = sock.recvmsg(100, MSG_ERRQUEUE)
    assert (message.data, message.address) == (b"hi", (PEER, 9))
    assert message.flags == MSG_ERRQUEUE
    ((level, kind, value),) = message.ancillary
    assert (level, kind) == (IP, RECVERR)
    assert struct.unpack("=IBBBB", value[:8]) == (errno.ECONNREFUSED, 2, 3, 3, 0)
    assert value[16:24] == struct.pack("=HH", 2, 0) + PEER.to_bytes(4, "big")
    assert not sock.poll() & EPOLLERR
    with pytest.raises(BlockingIOError):
        sock.recvmsg(100, MSG_ERRQUEUE)


def test_with_ip_recverr_a_passing_trouble_is_reported_too(bed):
    sock = bed.bound(5000)
    sock.setsockopt(IP, RECVERR, 1)
    sock.sendmsg(b"hi", to=(PEER, 9))
    bed.refuses(5000, code=1)
    assert sock.getsockopt(*SO_ERROR) == errno.EHOSTUNREACH


def test_our_own_refusal_of_what_is_too_long_is_queued_too(bed):
    sock = bed.bound(5000)
    sock.setsockopt(IP, RECVERR, 1)
    sock.setsockopt(IP, MTU_DISCOVER, 2)
    with pytest.raises(OSError, match="too long"):
        sock.sendmsg(bytes(2000), to=(PEER, 9))
    value = sock.recvmsg(100, MSG_ERRQUEUE).ancillary[0][2]
    assert struct.unpack("=IBBBBI", value[:12]) == (errno.EMSGSIZE, 1, 0, 0, 0, 1500)


def test_switching_ip_recverr_off_empties_the_queue(bed):
    sock = bed.bound(5000)
    sock.setsockopt(IP, RECVERR, 1)
    sock.sendmsg(b"hi", to=(PEER, 9))
    bed.refuses(5000)
    sock.getsockopt(*SO_ERROR)
    sock.setsockopt(IP, RECVERR, 0)
    assert not sock.poll() & EPOLLERR
