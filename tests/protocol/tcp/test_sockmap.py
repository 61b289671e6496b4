"""The shortcut between two sockets of one stack: as TCP to both, but without a packet."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest

from kit.host import TEST_CONFIG, Host, host, two_hosts
from kit.segment import pattern
from kit.tcp_invariants import pages_to_spare
from kit.transfer import Transfer, connected
from ustack.config import CoreConfig
from ustack.eventpoll.eventpoll import EventPoll
from ustack.lib.addresses import INADDR_LOOPBACK
from ustack.sock.wait import EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP
from ustack.tcp.diag import tcp_diag

SECOND = 1_000_000
MB = 1 << 20


class Pair:
    """Two connected sockets of one host."""

    def __init__(self, on: bool = True, addr: int | None = None, h: Host | None = None) -> None:
        self.host = h or host()
        self.stack = self.host.stack
        self.lsk = self.host.listen(80)
        self.near = self.host.connect(addr or self.host.addr, 80)
        self.far = self.lsk.accept()
        self.host.settle()
        self.host.advance_us(SECOND)
        self.stack.redirect_sockmap(on)
        self.before = self.stack.lo.stats.tx_packets

    @property
    def packets(self) -> int:
        """Those that went over lo since the switch."""
        return self.stack.lo.stats.tx_packets - self.before

    @property
    def redirects(self) -> tuple[int, int]:
        mib = self.stack.net.mib.ustack
        return mib.SockmapRedirects, mib.SockmapBytes

    def fill(self) -> int:
        """Write until there is no room; return how much that was."""
        sent = 0
        while True:
            try:
                sent += self.near.send(pattern(sent, 10_000))
            except BlockingIOError:
                return sent

    def drain(self, sk: Any, at_once: int = 65536) -> bytes:
        """Read all that is there now."""
        got = b""
        while True:
            try:
                data = sk.recv(at_once)
            except BlockingIOError:
                return got
            if not data:
                return got
            got += data


@pytest.fixture
def pair() -> Pair:
    return Pair()


# What goes which way.


def test_it_is_off_by_default():
    pair = Pair(on=False)
    pair.near.send(b"hello")
    with pytest.raises(BlockingIOError):
        pair.far.recv(10)
    pair.host.settle()
    assert pair.far.recv(10) == b"hello"
    assert (pair.packets > 0, pair.redirects) == (True, (0, 0))


@pytest.mark.parametrize("addr", [INADDR_LOOPBACK, None], ids=["127.0.0.1", "own"])
def test_bytes_are_there_when_send_returns_and_no_packet_was_made(addr):
    pair = Pair(addr=addr)
    segments = pair.host.mib.OutSegs
    for one, other in ((pair.near, pair.far), (pair.far, pair.near)):
        assert one.send(b"hello") == 5
        assert other.recv(10) == b"hello"
    pair.host.advance_us(SECOND)
    assert (pair.packets, pair.host.mib.OutSegs - segments) == (0, 0)
    assert pair.redirects == (2, 10)


def test_there_is_nothing_to_be_acknowledged_or_repeated(pair):
    pair.near.send(b"hello")
    tp = pair.near._sk.tp
    assert tp.snd_una == tp.snd_nxt == tp.write_seq == pair.far._sk.tp.rcv_nxt
    assert tp.write_queue.len == 0
    pair.host.advance_us(100 * SECOND)
    assert (pair.packets, pair.host.mib.RetransSegs) == (0, 0)


def test_a_connection_to_another_host_goes_by_the_wire():
    a, b = two_hosts()
    a.stack.redirect_sockmap(True)
    near, far = connected(a, b)
    near.send(b"hello")
    a.settle()
    assert far.recv(10) == b"hello"
    assert a.stack.net.mib.ustack.SockmapRedirects == 0


def test_what_is_in_flight_when_it_is_switched_on_comes_first():
    pair = Pair(on=False)
    pair.near.send(b"one ")
    pair.stack.redirect_sockmap(True)
    pair.near.send(b"two ")
    pair.host.settle()
    pair.near.send(b"three")
    assert pair.far.recv(100) == b"one two three"
    assert pair.redirects == (2, 9), "the first went as a packet, and the second waited for it"


def test_order_holds_while_it_is_switched_on_and_off():
    pair = Pair()
    transfer = Transfer(pair.near, pair.far, 8 * MB, chunk=10_000, read=7_000)
    switched = 0

    class Switch:
        def next_deadline_us(self) -> int | None:
            return None

        def pump(self, now_us: int) -> bool:
            nonlocal switched
            if transfer.finished:
                return False
            switched += 1
            pair.stack.redirect_sockmap(switched % 2 == 0)
            return False

    pair.host.world.moving += [transfer, Switch()]
    assert pair.host.world.run_until(lambda: transfer.finished)
    assert transfer.equal
    assert switched > 4
    assert pair.packets > 0 and 0 < pair.redirects[1] < 8 * MB


def test_lost_packets_are_the_stacks_business_and_come_before_anything_else():
    """A backlog that drops: what is in flight is repeated, then the shortcut goes on."""
    config = CoreConfig(arena_bytes=32 << 20, netdev_max_backlog=0)
    pair = Pair(on=False, h=host(core=config))
    first = pattern(0, 200_000)
    sent = pair.near.send(first)
    pair.stack.redirect_sockmap(True)
    transfer = Transfer(pair.near, pair.far, MB)
    got = b""
    while len(got) < sent:
        pair.host.advance_us(SECOND)
        got += pair.drain(pair.far)
    assert got == first[:sent]
    assert pair.redirects[1] < sent
    pair.host.advance_us(100 * SECOND)
    pair.host.world.moving.append(transfer)
    assert pair.host.world.run_until(lambda: transfer.received == MB)
    assert transfer._want.digest() == transfer._have.digest()
    assert pair.redirects[1] >= MB


def test_a_child_that_nobody_has_accepted_yet_gets_its_bytes():
    h = host()
    h.stack.redirect_sockmap(True)
    lsk = h.listen(80)
    near = h.connect(h.addr, 80)
    near.send(b"early")
    assert lsk.accept().recv(10) == b"early"


def test_bytes_that_are_sent_by_reference_are_given_back_at_once(pair):
    returned: list[bool] = []
    data = bytearray(pattern(0, 20_000))
    taken, copied = pair.near.send_ref(data, lambda: returned.append(True))
    assert (taken, copied) == (20_000, False)
    assert pair.far.recv(20_000) == pattern(0, 20_000)
    pair.host.settle()
    assert returned == [True]


def test_many_small_writes_are_one_stream(pair):
    got = b""
    for i in range(500):
        pair.near.send(pattern(7 * i, 7))
        if i % 90 == 0:
            got += pair.drain(pair.far)
    assert got + pair.drain(pair.far) == pattern(0, 3500)


# Back-pressure.


def test_a_reader_that_does_not_read_stops_the_writer(pair):
    sent = pair.fill()
    far, near = pair.far._sk.tp, pair.near._sk.tp
    assert far.receive_queue.len + near.write_queue.len == sent
    assert far.receive_queue.len <= far.sk_rcvbuf
    assert near.write_queue.len >= near.sk_sndbuf
    assert near.snd_wnd == 0 and pair.redirects[1] == far.receive_queue.len


def test_reading_lets_the_rest_follow_without_a_packet(pair):
    sent = pair.fill()
    assert pair.drain(pair.far) == pattern(0, sent)
    assert pair.packets == 0
    assert pair.redirects[1] == sent
    pair.host.advance_us(10 * SECOND)
    assert (pair.packets, pair.host.mib.TCPWinProbe) == (0, 0), "no probe is left behind"


def test_a_closed_window_is_probed_by_the_stack_and_nothing_is_lost(pair):
    sent = pair.fill()
    pair.host.advance_us(30 * SECOND)
    assert pair.host.mib.TCPWinProbe > 3
    assert pair.drain(pair.far) == pattern(0, sent)


def test_bulk_with_a_slow_reader_arrives_whole(pair):
    transfer = Transfer(pair.near, pair.far, 20 * MB, read=3_000)
    pair.host.world.moving.append(transfer)
    assert pair.host.world.run_until(lambda: transfer.finished)
    assert transfer.equal
    assert pair.redirects[1] == 20 * MB
    assert pair.packets <= 6, "the FIN, its ACK, and window updates while it is under way"


def test_switched_off_the_rest_goes_over_the_stack(pair):
    sent = pair.fill()
    pair.stack.redirect_sockmap(False)
    by_shortcut = pair.redirects[1]
    got = b""
    while len(got) < sent:
        pair.host.advance_us(SECOND)
        got += pair.drain(pair.far)
    assert got == pattern(0, sent)
    assert pair.redirects[1] == by_shortcut
    assert pair.packets > 0


def test_without_memory_for_the_reader_tcp_tries_again(pair):
    mem = pair.stack.net.mem
    mem.min_free = 0  # nothing is kept back for the reader
    held = []
    while mem.free_pages > 1:
        held.append(mem.alloc_pages(0))
    pair.near.send(b"x")  # the last page
    with pytest.raises(BlockingIOError):
        pair.far.recv(10)
    for page in held:
        mem.put_page(page)
    pair.host.advance_us(5 * SECOND)
    assert pair.far.recv(10) == b"x"


# Waking.


def test_a_reader_is_woken_by_the_send_itself(pair):
    ep = EventPoll()
    ep.add("far", pair.far, EPOLLIN | EPOLLET)
    assert ep.collect(10) == []
    pair.near.send(b"hello")
    assert ep.collect(10) == [("far", EPOLLIN)]
    assert ep.collect(10) == [], "edge-triggered: once"
    pair.near.send(b"again")
    assert ep.collect(10) == [("far", EPOLLIN)]


def test_a_writer_is_woken_by_the_read_that_makes_room(pair):
    pair.fill()
    ep = EventPoll()
    ep.add("near", pair.near, EPOLLOUT)
    assert ep.collect(10) == []
    pair.drain(pair.far)
    assert ep.collect(10) == [("near", EPOLLOUT)]


def test_so_rcvlowat_holds_the_wake_back(pair):
    pair.far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 10)
    ep = EventPoll()
    ep.add("far", pair.far, EPOLLIN)
    pair.near.send(b"hello")
    assert ep.collect(10) == []
    pair.near.send(b"world")
    assert ep.collect(10) == [("far", EPOLLIN)]


# The ends.


def test_a_fin_goes_by_the_stack_behind_the_last_byte(pair):
    ep = EventPoll()
    ep.add("far", pair.far, EPOLLIN | EPOLLRDHUP)
    pair.near.send(b"last")
    pair.near.shutdown(1)
    assert ep.collect(10) == [("far", EPOLLIN)]
    pair.host.settle()
    assert ep.collect(10) == [("far", EPOLLIN | EPOLLRDHUP)]
    assert (pair.far.recv(10), pair.far.recv(10)) == (b"last", b"")
    assert pair.packets >= 1


def test_a_fin_waits_for_bytes_that_wait_for_the_reader(pair):
    sent = pair.fill()
    pair.near.shutdown(1)
    pair.host.settle()
    got = pair.drain(pair.far)
    assert got == pattern(0, sent)
    pair.host.settle()
    assert pair.far.recv(10) == b""
    assert pair.redirects[1] == sent


def test_half_closed_the_other_way_goes_on(pair):
    pair.near.shutdown(1)
    pair.host.settle()
    assert pair.far.recv(10) == b""
    before = pair.packets
    pair.far.send(b"answer")
    assert pair.near.recv(10) == b"answer"
    assert pair.packets == before
    with pytest.raises(BrokenPipeError):
        pair.near.send(b"x")


def test_close_on_both_sides_ends_the_connection_and_gives_everything_back(pair):
    free = pages_to_spare(pair.stack)
    pair.near.send(pattern(0, 50_000))
    assert len(pair.drain(pair.far)) == 50_000
    pair.near.close()
    pair.host.settle()
    pair.far.close()
    pair.host.advance_us(70 * SECOND)
    states = {row["state"] for row in tcp_diag(pair.stack.tcp)}
    assert states == {"LISTEN"}
    assert pages_to_spare(pair.stack) == free
    assert pair.host.mib.OutRsts == 0


def test_closing_with_unread_bytes_resets(pair):
    pair.near.send(b"unread")
    pair.far.close()
    pair.host.settle()
    with pytest.raises(ConnectionResetError):
        pair.near.recv(10)
    assert pair.host.mib.TCPAbortOnClose == 1


def test_writing_to_a_peer_that_has_closed_is_answered_with_a_reset(pair):
    pair.far.close()
    pair.host.settle()
    assert pair.near.send(b"x") == 1
    pair.host.settle()
    assert pair.redirects == (0, 0), "nobody would read it: the stack says so"
    with pytest.raises(BrokenPipeError):
        pair.near.send(b"x")


def test_linger_zero_resets_and_drops_what_waits(pair):
    pair.fill()
    pair.near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    pair.near.close()
    pair.host.settle()
    with pytest.raises(OSError) as error:
        pair.far.recv(10)
        pair.drain(pair.far)
        pair.far.recv(10)
    assert error.value.errno == errno.ECONNRESET


def test_a_reader_that_was_shut_is_the_stacks_business(pair):
    pair.far.shutdown(0)
    pair.near.send(b"x")
    assert pair.redirects == (0, 0)


def test_a_paced_socket_keeps_its_rate(pair):
    pair.near.setsockopt(socket.SOL_SOCKET, 47, 1_000_000)  # SO_MAX_PACING_RATE
    pair.near.send(b"x")
    assert pair.redirects == (0, 0)


def test_switching_twice_changes_nothing(pair):
    one = pair.stack.tcp.sockmap
    pair.stack.redirect_sockmap(True)
    assert pair.stack.tcp.sockmap is one
    pair.stack.redirect_sockmap(False)
    pair.stack.redirect_sockmap(False)
    assert pair.stack.tcp.sockmap is None


def test_a_socket_connected_to_itself_goes_over_the_stack():
    h = host(TEST_CONFIG)
    h.stack.redirect_sockmap(True)
    sk = h.socket()
    sk.bind(INADDR_LOOPBACK, 4000)
    with pytest.raises(BlockingIOError):
        sk.connect(INADDR_LOOPBACK, 4000)
    h.settle()
    sk.send(b"me")
    h.settle()
    assert sk.recv(10) == b"me"
    assert h.stack.net.mib.ustack.SockmapRedirects == 0


def test_urgent_data_goes_by_the_stack_and_the_rest_follows(pair):
    pair.near.send(b"before")
    pair.near.send(b"!", socket.MSG_OOB)
    pair.near.send(b"after")
    pair.host.settle()
    assert pair.far.recv(100) == b"before"
    assert pair.far.recv(1, socket.MSG_OOB) == b"!"
    assert pair.far.recv(100) == b"after"
    before = pair.packets
    pair.near.send(b"and on")
    assert pair.far.recv(100) == b"and on"
    assert pair.packets == before
