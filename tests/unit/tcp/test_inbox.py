"""Text that is handed to its reader as it comes, two stacks on one wire in virtual time."""

from __future__ import annotations

import contextlib
import struct
from dataclasses import replace
from typing import Any

import pytest

from kit.host import Host, two_hosts
from kit.transfer import connected
from ustack.config import NicConfig, UstackConfig
from ustack.sock.wait import EPOLLIN
from ustack.tcp.inbox import INBOX_BYTES


class Reader:
    """Keeps what it is given, and how often the wait queue was told."""

    def __init__(self, sock: Any) -> None:
        self.texts: list[bytes] = []
        self.ends = 0
        self.wakes = 0
        sock.set_reader(self)

    def text_received(self, text: bytes) -> None:
        self.texts.append(text)

    def end_received(self) -> None:
        self.ends += 1

    def woken(self, events: int) -> bool:
        self.wakes += bool(events & EPOLLIN)
        return True


@pytest.fixture
def pair() -> tuple[Host, Host, Any, Any]:
    a, b = two_hosts(nic=NicConfig())
    near, far = connected(a, b)
    near.send(b"first")  # until it is acknowledged, Python has the connection
    a.settle()
    a.advance_us(300_000)
    assert far.recv(10) == b"first"
    return a, b, near, far


def test_plainly_received_text_goes_to_the_reader_and_nobody_is_woken(pair):
    a, b, near, far = pair
    reader = Reader(far)
    near.send(b"hello")
    a.settle()
    b.stack.deliver_text()
    assert reader.texts == [b"hello"]
    assert reader.wakes == 0
    assert not far.rcv_ready(1)


def test_text_that_was_there_before_stays_in_the_queue(pair):
    a, b, near, far = pair
    near.send(b"old")
    a.settle()
    reader = Reader(far)
    b.stack.deliver_text()
    assert reader.texts == []
    assert far.recv(10) == b"old"


def test_it_is_acknowledged_as_read_text_is(pair):
    a, b, near, far = pair
    reader = Reader(far)
    for _ in range(50):
        near.send(bytes(20_000))
        a.settle()
        b.stack.deliver_text()
        a.advance_us(50_000)
    assert sum(map(len, reader.texts)) == 1_000_000
    assert near.send_queue_empty()


def test_a_paused_reader_is_left_alone_and_the_queue_has_what_came(pair):
    a, b, near, far = pair
    reader = Reader(far)
    far.pause_reader(True)
    near.send(b"later")
    a.settle()
    b.stack.deliver_text()
    assert reader.texts == []
    assert reader.wakes == 1
    assert far.recv(10) == b"later"
    far.pause_reader(False)
    near.send(b"now")
    a.settle()
    b.stack.deliver_text()
    assert reader.texts == [b"now"]


def test_what_does_not_fit_the_inbox_waits_in_the_queue_behind_it(pair):
    a, b, near, far = pair
    near.setsockopt(1, 7, 1 << 20)  # SO_SNDBUF
    reader = Reader(far)
    sent = bytes(i % 251 for i in range(INBOX_BYTES * 2))
    done = 0
    while done < len(sent):  # nobody delivers meanwhile
        try:
            done += near.send(sent[done:])
        except BlockingIOError:
            break
        a.settle()
        a.advance_us(50_000)
    b.stack.deliver_text()
    text = b"".join(reader.texts)
    assert len(text) <= INBOX_BYTES
    rest = far.recv(len(sent))
    assert rest
    assert reader.wakes > 0
    assert text + rest == sent[: len(text) + len(rest)]


def test_the_end_comes_behind_the_last_text_and_nobody_is_woken(pair):
    a, b, near, far = pair
    reader = Reader(far)
    near.send(b"goodbye")
    near.shutdown(1)
    a.settle()
    b.stack.deliver_text()
    assert (reader.texts, reader.ends, reader.wakes) == ([b"goodbye"], 1, 0)
    assert far.recv(10) == b""


def test_the_end_is_told_once(pair):
    a, b, near, far = pair
    reader = Reader(far)
    near.shutdown(1)
    a.settle()
    b.stack.deliver_text()
    far.send(b"and what I had to say")
    a.settle()
    a.advance_us(50_000)
    b.stack.deliver_text()
    assert reader.ends == 1


def test_a_paused_reader_finds_the_end_himself(pair):
    a, b, near, far = pair
    reader = Reader(far)
    far.pause_reader(True)
    near.shutdown(1)
    a.settle()
    b.stack.deliver_text()
    assert (reader.ends, reader.wakes) == (0, 1)
    assert far.recv(10) == b""


def test_one_who_closes_on_his_last_text_does_not_hear_of_the_end(pair):
    a, b, near, far = pair
    reader = Closer(far, far)
    near.send(b"goodbye")
    near.shutdown(1)
    a.settle()
    b.stack.deliver_text()
    assert reader.ends == 0
    a.settle()
    assert near.recv(10) == b""


def test_accepted_for_readers_they_say_at_once_what_they_have_said_before(pair):
    a, b, _near, _far = pair
    listener, clients = waiting(a, b, 3)
    clients[0].send(b"early")
    clients[1].shutdown(1)
    a.settle()
    accepted = listener.accept_many(64)
    readers = [Reader(sock) for sock, *_ in accepted]
    b.stack.deliver_text()
    assert [(r.texts, r.ends) for r in readers] == [([b"early"], 0), ([], 1), ([], 0)]
    assert not any(left for *_, left in accepted)
    clients[2].send(b"late")
    a.settle()
    b.stack.deliver_text()
    assert readers[2].texts == [b"late"]
    assert [r.wakes for r in readers] == [0, 0, 0]


def test_accepted_for_readers_they_come_with_both_addresses_in_order_and_no_more_than_asked(pair):
    a, b, _near, _far = pair
    listener, clients = waiting(a, b, 3)
    accepted = listener.accept_many(2) + listener.accept_many(64)
    assert [peer for _, _, peer, _ in accepted] == [client.getsockname() for client in clients]
    assert [local for _, local, _, _ in accepted] == [client.getpeername() for client in clients]
    assert listener.accept_many(64) == []


def test_one_that_was_reset_while_it_waited_is_said_to_have_something_left(pair):
    a, b, _near, _far = pair
    listener, (client,) = waiting(a, b, 1)
    client.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SO_LINGER
    client.close()
    a.settle()
    ((sock, _, _, left),) = listener.accept_many(64)
    assert left
    with pytest.raises(ConnectionResetError):
        sock.recv(10)


def test_accepted_for_a_reader_it_needs_no_object_from_its_first_text_to_its_end(pair):
    a, b, _near, _far = pair
    listener, (client,) = waiting(a, b, 1)
    objects = len(b.stack.tcp.socks)
    client.send(b"question")
    a.settle()
    ((sock, *_),) = listener.accept_many(64)
    reader = Reader(sock)
    b.stack.deliver_text()
    assert reader.texts == [b"question"]
    assert sock.send_now(b"answer") == 6
    a.settle()
    client.shutdown(1)
    a.settle()
    b.stack.deliver_text()
    assert reader.ends == 1
    sock.close()
    a.settle()
    assert client.recv(10) == b"answer"
    assert client.recv(10) == b""
    assert len(b.stack.tcp.socks) == objects
    with pytest.raises(OSError, match="Bad file descriptor"):
        sock.send(b"more")


def test_one_who_is_reset_is_woken_though_it_had_no_object(pair):
    a, b, _near, _far = pair
    listener, (client,) = waiting(a, b, 1)
    ((sock, *_),) = listener.accept_many(64)
    reader = Reader(sock)
    client.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SO_LINGER
    client.close()
    a.settle()
    assert reader.wakes
    with pytest.raises(ConnectionResetError):
        sock.recv(10)


def test_without_an_object_what_finds_no_room_in_the_inbox_wakes_the_reader(pair):
    a, b, _near, _far = pair
    listener, (client,) = waiting(a, b, 1)
    ((sock, *_),) = listener.accept_many(64)
    reader = Reader(sock)
    b.stack.tcp.fast.ptr.inbox_size = 3
    client.send(b"four")
    a.settle()
    b.stack.deliver_text()
    assert (reader.texts, reader.wakes) == ([b"fou"], 1)
    assert sock.recv(10) == b"r"


def test_options_of_the_listener_decide_how_it_ends_without_an_object_too(pair):
    a, b, _near, _far = pair
    listener, (first, second) = waiting(a, b, 2)
    listener.setsockopt(1, 13, struct.pack("ii", 1, 0))  # too late for these two
    for sock, *_ in listener.accept_many(64):
        sock.close()
    a.settle()
    assert first.recv(10) == second.recv(10) == b""
    later = [a.stack.socket() for _ in range(3)]
    for client in later:
        with contextlib.suppress(BlockingIOError):
            client.connect(b.addr, 90)
        a.settle()
    for sock, *_ in listener.accept_many(64):
        sock.close()
    a.settle()
    for client in later:
        with pytest.raises(ConnectionResetError):
            client.recv(10)


def waiting(a: Host, b: Host, count: int) -> tuple[Any, list[Any]]:
    """Return a listener of ``b`` and so many that have connected to it, one having been taken."""
    listener = b.stack.socket()
    listener.bind(0, 90)
    listener.listen(10)
    clients = []
    for _ in range(count + 1):
        clients.append(a.stack.socket())
        with contextlib.suppress(BlockingIOError):
            clients[-1].connect(b.addr, 90)
        a.settle()
        if len(clients) == 1:
            listener.accept()
    return listener, clients[1:]


def test_without_a_reader_nothing_is_taken_out_of_the_queue(pair):
    a, b, near, far = pair
    far.pause_reader(True)
    far.pause_reader(False)
    near.send(b"text")
    a.settle()
    b.stack.deliver_text()
    assert far.recv(10) == b"text"


def test_a_reader_who_is_gone_gets_nothing(pair):
    a, b, near, far = pair
    reader = Reader(far)
    near.send(b"too late")
    a.settle()
    far.set_reader(None)
    far.close()
    b.stack.deliver_text()
    assert reader.texts == []


def test_close_before_the_text_was_handed_out_resets_as_unread_text_does(pair):
    a, b, near, far = pair
    Reader(far)
    near.send(b"unread")
    a.settle()
    far.close()
    a.settle()
    assert b.stack.net.mib.snapshot()["TcpExt"]["TCPAbortOnClose"] == 1
    with pytest.raises(ConnectionResetError):
        near.recv(10)


def test_close_after_the_text_was_handed_out_does_not(pair):
    a, b, near, far = pair
    Reader(far)
    near.send(b"read")
    a.settle()
    b.stack.deliver_text()
    far.close()
    a.settle()
    assert near.recv(10) == b""


class Closer(Reader):
    """Closes the other one when it gets its text."""

    def __init__(self, sock: Any, other: Any) -> None:
        super().__init__(sock)
        self.other = other

    def text_received(self, text: bytes) -> None:
        self.other.close()


def test_closing_one_whose_text_comes_behind_in_the_batch_resets_it_and_not_one_before(pair):
    a, b, near, far = pair
    near2, far2 = connected(a, b, port=81)
    near2.send(b"warm")
    a.settle()
    a.advance_us(300_000)
    far2.recv(10)
    Closer(far, far2)
    Closer(far2, far)
    near.send(b"closes the other")
    near2.send(b"is not handed out")
    a.settle()
    b.stack.deliver_text()
    a.settle()
    with pytest.raises(ConnectionResetError):
        near2.recv(10)
    far.close()
    a.settle()
    assert near.recv(10) == b""


def test_without_the_fast_path_the_wait_queue_tells(pair):
    a, b, near, far = pair
    reader = Reader(far)
    config = b.stack.config
    b.stack.set_config(replace(config, ustack=UstackConfig(tcp_fastpath=False)))
    near.send(b"slowly")
    a.settle()
    b.stack.deliver_text()
    assert (reader.texts, reader.wakes) == ([], 1)
    assert far.recv(10) == b"slowly"


class Echo(Reader):
    """Answers at once, and looks how much has left the device by then."""

    def __init__(self, sock: Any, host: Host) -> None:
        super().__init__(sock)
        self.sock, self.host = sock, host
        self.sent_by_then: list[int] = []

    def text_received(self, text: bytes) -> None:
        self.sock.send(text)
        self.sent_by_then.append(self.host.adapter.nic.regs.GPTC)


def test_answers_given_while_several_are_handed_their_text_leave_together(pair):
    a, b, near, far = pair
    nears, fars = zip((near, far), connected(a, b, port=81), strict=True)
    for sock in (*nears, *fars):
        sock.send(b"warm")
        a.settle()
    a.advance_us(50_000)
    for sock in fars:
        sock.recv(10)
    echoes = [Echo(sock, b) for sock in fars]
    for sock in nears:
        sock.send(b"text")
    a.settle()
    before = b.adapter.nic.regs.GPTC
    b.stack.deliver_text()
    assert [echo.sent_by_then for echo in echoes] == [[before], [before]]
    assert before + 2 == b.adapter.nic.regs.GPTC
