"""Short answers that leave together, two stacks on one wire in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kit.host import two_hosts
from kit.transfer import connected
from ustack.config import NicConfig
from ustack.tcp.outbox import LETTER_BYTES, LETTERS

Answer = Callable[["Sender", bytes], None]


class Sender:
    """Reads one connection's text and answers; keeps what comes back."""

    def __init__(self, sock: Any, answer: Answer) -> None:
        self.sock = sock
        self.answer = answer
        self.left: list[bytes] = []
        sock.set_reader(self)

    def text_received(self, text: bytes) -> None:
        self.answer(self, text)

    def end_received(self) -> None:
        """Nobody here closes."""

    def woken(self, events: int) -> bool:
        return True

    def text_left(self, text: bytes) -> None:
        self.left.append(text)


def echo(sender: Sender, text: bytes) -> None:
    assert sender.sock.send_soon(text, sender) == len(text)


class Bed:
    """Some connections whose text is answered by ``answer``."""

    def __init__(self, count: int, answer: Answer = echo) -> None:
        self.a, self.b = two_hosts(nic=NicConfig())
        pairs = [connected(self.a, self.b, port=80 + i) for i in range(count)]
        for near, far in pairs:  # until something is acknowledged, Python has the connection
            near.send(b"warm")
            far.send(b"warm")
        self.a.settle()
        self.a.advance_us(300_000)
        for sock in (sock for pair in pairs for sock in pair):
            assert sock.recv(10) == b"warm"
        self.nears = [near for near, _ in pairs]
        self.senders = [Sender(far, answer) for _, far in pairs]

    @property
    def sent(self) -> int:
        """Frames that have left the answering device."""
        return int(self.b.adapter.nic.regs.GPTC)

    def ask(self, count: int | None = None) -> None:
        """Let each of the first ``count`` connections have text of its own."""
        for i, near in enumerate(self.nears[:count]):
            near.send(b"text %d" % i)
        self.a.settle()

    def deliver(self) -> None:
        self.b.stack.deliver_text()
        self.a.settle()


def calls(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return what grows by the number of letters of each call into C."""
    made: list[int] = []
    outbox = bed.b.stack.tcp.outbox
    send = outbox._send
    monkeypatch.setattr(outbox, "_send", lambda h, t: (made.append(len(h)), send(h, t))[1])
    return made


def test_answers_of_one_delivery_go_in_one_call(monkeypatch):
    bed = Bed(5)
    made = calls(bed, monkeypatch)
    bed.ask()
    bed.deliver()
    assert made == [5]
    assert [near.recv(100) for near in bed.nears] == [b"text %d" % i for i in range(5)]


def test_no_more_of_them_wait_than_one_call_takes(monkeypatch):
    bed = Bed(LETTERS + 3)
    made = calls(bed, monkeypatch)
    bed.ask()
    bed.deliver()
    assert made == [LETTERS, 3]
    assert [near.recv(100) for near in bed.nears] == [b"text %d" % i for i in range(LETTERS + 3)]


def test_the_answer_to_a_single_letter_does_not_wait():
    bed = Bed(2)
    left_at_once = []

    def answer(sender: Sender, text: bytes) -> None:
        before = bed.sent
        echo(sender, text)
        left_at_once.append(bed.sent - before)

    bed.senders[0].answer = answer
    bed.ask(1)
    bed.deliver()
    assert left_at_once == [1]


def test_several_answers_of_one_connection_stay_in_order():
    def answer(sender: Sender, text: bytes) -> None:
        for piece in (b"one", b"two", bytes(LETTER_BYTES + 1), b"three"):
            assert sender.sock.send_soon(piece, sender) == len(piece)

    bed = Bed(2, answer)
    bed.ask()
    bed.deliver()
    for near in bed.nears:
        assert near.recv(100_000) == b"onetwo" + bytes(LETTER_BYTES + 1) + b"three"


def test_what_finds_no_room_and_all_behind_it_is_its_senders_again():
    def answer(sender: Sender, text: bytes) -> None:
        if sender is bed.senders[1]:
            full(sender.sock)
        sender.sock.send_soon(b"first", sender)
        sender.sock.send_soon(b"second", sender)

    def full(sock: Any) -> None:
        with pytest.raises(BlockingIOError):
            while True:
                sock.send(bytes(1 << 20))

    bed = Bed(3, answer)
    bed.ask()
    bed.b.stack.deliver_text()
    both = [b"first", b"second"]
    assert [sender.left for sender in bed.senders] == [[], both, both]
