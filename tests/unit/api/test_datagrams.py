"""Datagram sockets through the API: addresses, waiting, buffers, ancillary data."""

from __future__ import annotations

import struct

import pytest

from ustack import select, socket

IP_RECVTTL = 12
"""The standard module does not have it."""


def test_who_waits_has_the_datagram_that_comes_later(udp, calls):
    reader = calls(udp.recvfrom, 100)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"later", udp.getsockname())
        assert reader.wait() == (b"later", ("127.0.0.1", sender.getsockname()[1]))


def test_timeout_and_nonblocking(udp):
    udp.settimeout(0.001)
    with pytest.raises(TimeoutError):
        udp.recvfrom(1)
    udp.setblocking(False)
    for call in (udp.recv, udp.recvfrom, udp.recvmsg):
        with pytest.raises(BlockingIOError):
            call(1)


def test_shutdown_ends_a_wait(udp, calls):
    udp.connect(udp.getsockname())
    reader = calls(udp.recvfrom, 100)
    udp.shutdown(socket.SHUT_RD)
    assert reader.wait() == (b"", None)


def test_every_receiving_call_cuts_to_its_buffer(udp):
    here = udp.getsockname()
    for _ in range(6):
        udp.sendto(b"abcdef", here)
    buffer = bytearray(4)
    assert udp.recv(4) == b"abcd"
    assert udp.recvfrom_into(buffer) == (4, here)
    assert udp.recv_into(buffer, 2) == 2
    assert udp.recvfrom_into(buffer, 0, socket.MSG_TRUNC) == (6, here)
    assert udp.recvmsg(4) == (b"abcd", [], socket.MSG_TRUNC, here)
    pieces = [bytearray(1), bytearray(9)]
    assert udp.recvmsg_into(pieces) == (6, [], 0, here)
    assert pieces == [b"a", b"bcdef\0\0\0\0"]


def test_peeking_leaves_the_datagram(udp):
    udp.sendto(b"x", udp.getsockname())
    assert udp.recv(9, socket.MSG_PEEK) == udp.recv(9) == b"x"


def test_sendmsg_joins_pieces_and_carries_ancillary_data(udp):
    udp.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
    ttl = (socket.IPPROTO_IP, socket.IP_TTL, struct.pack("i", 9))
    assert udp.sendmsg([b"a", bytearray(b"bc")], [ttl], 0, udp.getsockname()) == 3
    assert udp.recvmsg(10, socket.CMSG_SPACE(4))[:2] == (b"abc", [ttl])


def test_ancillary_data_without_room_is_cut_and_said_to_be(udp):
    udp.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
    for room, expected in ((0, []), (socket.CMSG_LEN(1), [(0, socket.IP_TTL, b"\x40")])):
        udp.sendto(b"x", udp.getsockname())
        assert udp.recvmsg(10, room)[1:3] == (expected, socket.MSG_CTRUNC)


def test_sendto_takes_flags_in_the_middle_and_checks_its_arguments(udp):
    udp.sendto(b"x", socket.MSG_DONTWAIT, udp.getsockname())
    assert udp.recv(1) == b"x"
    for arguments in ((), (b"x",), (b"x", 0, udp.getsockname(), 0)):
        with pytest.raises(TypeError):
            udp.sendto(*arguments)


def test_epoll_sees_a_datagram(udp):
    with select.epoll() as epoll:
        epoll.register(udp, select.EPOLLIN)
        assert epoll.poll(0) == []
        udp.sendto(b"x", udp.getsockname())
        assert epoll.poll(60) == [(udp.fileno(), select.EPOLLIN)]


def test_what_only_a_stream_can_do_is_refused(udp):
    for call in (udp.accept, udp.listen):
        with pytest.raises(OSError, match="not supported"):
            call()
    with pytest.raises(ValueError, match="SOCK_STREAM"):
        udp.sendfile(None)


def test_a_datagram_socket_says_what_it_is(udp):
    assert (udp.type, udp.proto) == (socket.SOCK_DGRAM, 0)
    assert udp.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL) == socket.IPPROTO_UDP
    assert udp.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_DGRAM
