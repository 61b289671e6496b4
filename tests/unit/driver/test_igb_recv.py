"""A reader who polls the device himself: two stacks on a pair of descriptors, in virtual time."""

from __future__ import annotations

import contextlib
import socket

import pytest

from kit.pair_of_stacks import FAR, pair_of
from ustack.sock.wait import WaitEntry
from ustack.tcp import recvmsg

ROOM = 1 << 18
SIOCOUTQ = 0x5411


@pytest.fixture
def pair():
    made = pair_of(True)
    made.settle()
    yield made
    made.close()


def send(pair, data, sock=None):
    """Have the near end put ``data`` on the wire; the far stack is not polled."""
    near, sock = pair.stacks[0], sock or pair.near
    sent = 0
    for _ in range(100):
        pair.now_us += 50
        near.poll(pair.now_us)
        if sent < len(data):
            sent += sock.send(data[sent:])
    assert sent == len(data)


def grow(pair):
    """Open both windows wide enough for the tests."""
    for _ in range(100):
        with contextlib.suppress(BlockingIOError):
            pair.near.send(bytes(ROOM))
        pair.settle(4)
        while pair.far.rcv_ready(1):
            pair.far.recv(ROOM)
    pair.settle()
    while pair.far.rcv_ready(1):
        pair.far.recv(ROOM)
        pair.settle()


def text(count):
    return bytes(i * 7 & 0xFF for i in range(251)) * (count // 251 + 1)


def test_what_is_on_the_wire_is_read_without_a_poll(pair):
    grow(pair)
    data = text(100_000)[:100_000]
    send(pair, data)
    buffer = bytearray(ROOM)
    received = pair.dev.ethtool_stats()["rx_packets"]
    assert not pair.far.rcv_ready(1)
    assert pair.far.recv_busy(buffer) == len(data)
    assert buffer[: len(data)] == data
    assert pair.dev.ethtool_stats()["rx_packets"] > received


def test_what_is_queued_comes_before_what_is_on_the_wire(pair):
    grow(pair)
    data = text(120_000)[:120_000]
    send(pair, data[:50_000])
    pair.settle(4)
    send(pair, data[50_000:])
    buffer = bytearray(ROOM)
    got = 0
    for _ in range(4):
        part = bytearray(ROOM)
        n = pair.far.recv_busy(part)
        buffer[got : got + n] = part[:n]
        got += n
    assert buffer[:got] == data


def test_an_acknowledgement_leaves_with_it(pair):
    grow(pair)
    send(pair, bytes(100_000))
    pair.far.recv_busy(bytearray(ROOM))
    pair.now_us += 50
    pair.stacks[0].poll(pair.now_us)
    assert pair.near.ioctl(SIOCOUTQ) == 0


def test_nothing_to_read_is_zero_and_changes_nothing(pair):
    buffer = bytearray(b"x" * ROOM)
    assert pair.far.recv_busy(buffer) == 0
    assert buffer == b"x" * ROOM


def test_little_room_is_no_business_of_the_device(pair):
    grow(pair)
    send(pair, bytes(5000))
    assert pair.far.recv_busy(bytearray(8192)) == 0
    pair.settle(2)
    assert pair.far.recv_into(bytearray(8192)) == 5000


def test_who_says_that_he_will_not_wait_is_served_by_c_as_well(pair, monkeypatch):
    grow(pair)
    send(pair, bytes(5000))
    pair.settle(2)
    monkeypatch.delattr(recvmsg, "tcp_bytes_read")  # what Python's way ends with
    assert pair.far.recv_into(bytearray(3000), 0, socket.MSG_DONTWAIT) == 3000
    assert len(pair.far.recv(3000, socket.MSG_DONTWAIT)) == 2000


def test_another_connection_is_told_that_its_text_has_come(pair):
    near, far = pair.connect()
    grow(pair)
    send(pair, b"for another", near)
    send(pair, bytes(3000))
    woken = []
    far.wq.add(WaitEntry(woken.append))
    pair.far.recv_busy(bytearray(ROOM))
    assert woken
    assert far.recv(100) == b"for another"


def test_a_packet_for_python_is_left_to_the_softirq(pair):
    before = pair.stacks[1].net.mib.icmp.InEchos
    pair.stacks[0].ip.icmp.ping.send_echo(FAR)
    send(pair, b"")
    pair.far.recv_busy(bytearray(ROOM))
    assert pair.stacks[1].is_pending
    pair.settle(2)
    assert pair.stacks[1].net.mib.icmp.InEchos == before + 1


def test_the_end_of_the_stream_is_told_by_the_next_call(pair):
    grow(pair)
    send(pair, b"the last words")
    pair.near.shutdown(socket.SHUT_WR)
    send(pair, b"")
    buffer = bytearray(ROOM)
    assert pair.far.recv_busy(buffer) in (0, 14)
    pair.settle(2)
    assert pair.far.recv_busy(buffer) == 0


def test_its_packets_are_counted_as_polled(pair):
    grow(pair)
    send(pair, bytes(200_000))
    net = pair.stacks[1].net
    packets, polled = net.softnet.processed, net.mib.tcp_ext.BusyPollRxPackets
    received = pair.dev.ethtool_stats()["rx_packets"]
    pair.far.recv_busy(bytearray(ROOM))
    received = pair.dev.ethtool_stats()["rx_packets"] - received
    assert net.softnet.processed - packets == received > 0
    assert net.mib.tcp_ext.BusyPollRxPackets - polled == received


def test_a_wire_that_is_gone_is_told(pair):
    lost = []
    pair.stacks[1].wire_lost = lost.append
    pair.stacks[0].adapters[0].wire.end.shutdown(socket.SHUT_RDWR)
    assert pair.far.recv_busy(bytearray(ROOM)) == 0
    assert lost


def test_a_stack_that_is_looked_at_reads_in_python():
    made = pair_of(True)
    made.stacks[1].dev_add_pack(None, lambda skb, dev, outgoing: None)
    send(made, bytes(3000))
    assert made.far.recv_busy(bytearray(ROOM)) == 0
    made.settle(2)
    assert made.far.recv_into(bytearray(ROOM)) == 3000
    made.close()
