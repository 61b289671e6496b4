"""Waiting for a frame by looking at the wire: the turn of what comes follows in the same call."""

from __future__ import annotations

import os

import pytest

from kit.pair_of_stacks import FAR, pair_of
from ustack.core.napi import NET_RX_SOFTIRQ
from ustack.runtime.clock import monotonic_us
from ustack.sock.wait import WaitEntry

LOOKS = 100


@pytest.fixture
def pair():
    made = pair_of(True, rx_usecs=0)
    be_in_the_present(made)
    for _ in range(4):  # from now on answers acknowledge questions
        made.near.send(b"question")
        made.settle(2)
        made.far.send(made.far.recv(100))
        made.settle(2)
    yield made
    made.close()


def be_in_the_present(pair):
    """Go on a little before the present, which is what such a wait sets the clock to."""
    pair.now_us = monotonic_us() - 500_000
    pair.settle(5)


def busy_poll(pair, wakefd=-1, looks=LOOKS):
    return pair.stacks[1].busy_poll(looks, wakefd)


def test_text_that_is_on_the_wire_can_be_read_afterwards(pair):
    pair.near.send(b"question")
    assert busy_poll(pair) is not None
    assert pair.far.recv(100) == b"question"
    assert busy_poll(pair) is None


def test_who_waits_for_it_is_woken(pair):
    woken: list[int] = []
    pair.far.wq.add(WaitEntry(lambda events: bool(woken.append(events))))
    pair.near.send(b"question")
    busy_poll(pair)
    assert len(woken) == 1


def test_nothing_comes_and_nothing_is_done(pair):
    before = pair.stacks[1].clock.now_us
    assert busy_poll(pair) is None
    assert pair.stacks[1].clock.now_us == before


def test_the_present_is_when_it_came(pair):
    before = monotonic_us()
    pair.near.send(b"question")
    busy_poll(pair)
    assert before <= pair.stacks[1].clock.now_us <= monotonic_us()


def test_a_descriptor_ends_it(pair):
    reader, writer = os.pipe()
    os.write(writer, b"x")
    before = monotonic_us()
    assert busy_poll(pair, reader, 1 << 31) is None
    assert monotonic_us() - before < 60_000_000
    os.close(reader)
    os.close(writer)


def counts(pair):
    """Return the frames received, how many were processed, interrupts and the softirq's runs."""
    softnet = pair.stacks[1].net.softnet
    return (
        pair.dev.ethtool_stats()["rx_packets"],
        softnet.processed,
        pair.dev.nic.irq_counts[0],
        softnet.softirq_counts[NET_RX_SOFTIRQ],
    )


def exchange(pair, take):
    """Have five questions answered, whose text ``take`` returns; return what was counted then."""
    before = counts(pair)
    for _ in range(5):
        pair.near.send(b"question")
        pair.far.send(take())
        pair.stacks[0].poll(monotonic_us())
    assert busy_poll(pair) is None
    return [after - was for after, was in zip(counts(pair), before, strict=True)]


def test_its_interrupts_and_packets_are_counted_at_the_latest_when_nothing_comes(pair):
    def take():
        assert busy_poll(pair) is not None
        return pair.far.recv(100)

    received, processed, irqs, runs = exchange(pair, take)
    assert received == processed >= 5
    assert runs >= irqs >= 5


def test_what_is_pythons_is_left_to_a_poll(pair):
    before = pair.stacks[1].net.mib.icmp.InEchos
    pair.stacks[0].ip.icmp.ping.send_echo(FAR)
    assert busy_poll(pair) is True
    pair.stacks[1].poll(pair.stacks[1].clock.now_us)
    assert pair.stacks[1].net.mib.icmp.InEchos == before + 1


def test_a_poll_is_called_for_when_a_buffer_has_been_given_back(pair):
    data = memoryview(bytes(100_000))
    given_back: list[bool] = []
    stack = pair.stacks[1]
    stack.net.mem.dma_map(data, lambda: given_back.append(True))
    pair.near.send(b"question")
    assert busy_poll(pair) is True


def test_without_the_fast_path_a_frame_waits_for_the_poll():
    made = pair_of(False)
    be_in_the_present(made)
    made.near.send(b"question")
    stack = made.stacks[1]
    assert busy_poll(made) is True
    assert not made.far.rcv_ready(1)
    stack.poll(stack.clock.now_us)
    assert made.far.recv(100) == b"question"
    made.close()


def test_a_tap_of_the_stack_sees_what_comes(pair):
    seen: list[int] = []
    pair.stacks[1].dev_add_pack(None, lambda skb, dev, outgoing: seen.append(len(skb.data)))
    pair.near.send(b"question")
    assert busy_poll(pair) is True
    pair.stacks[1].poll(pair.stacks[1].clock.now_us)
    assert pair.far.recv(100) == b"question"
    assert seen
    assert busy_poll(pair) is None


def test_a_wire_that_is_gone_is_told(pair):
    lost: list[OSError] = []
    pair.stacks[1].wire_lost = lost.append
    pair.stacks[0].close()
    for _ in range(3):
        busy_poll(pair)
    assert len(lost) == 1


def recv_wait(pair, looks=LOOKS, wakefd=-1):
    return pair.far.recv_wait(100, looks, wakefd)


def test_a_reader_gets_the_text_that_comes_while_he_looks_and_nobody_is_woken(pair):
    woken: list[int] = []
    pair.far.wq.add(WaitEntry(lambda events: bool(woken.append(events))))
    pair.near.send(b"question")
    assert recv_wait(pair) == b"question"
    assert not woken
    assert recv_wait(pair) is None


def test_a_reader_gets_the_text_that_is_there_before_he_looks(pair):
    pair.near.send(b"question")
    busy_poll(pair)
    before = pair.dev.ethtool_stats()["rx_packets"]
    pair.stacks[0].ip.icmp.ping.send_echo(FAR)
    assert recv_wait(pair) == b"question"
    assert pair.dev.ethtool_stats()["rx_packets"] == before


def test_a_reader_who_takes_a_part_has_the_others_woken(pair):
    woken: list[int] = []
    pair.far.wq.add(WaitEntry(lambda events: bool(woken.append(events))))
    pair.near.send(b"question")
    assert pair.far.recv_wait(3, LOOKS, -1) == b"que"
    assert len(woken) == 1
    assert recv_wait(pair, 0) == b"stion"


def test_a_reader_who_does_not_look_takes_nothing_off_the_wire(pair):
    pair.near.send(b"question")
    assert recv_wait(pair, 0) is None
    assert recv_wait(pair) == b"question"


def test_a_reader_is_told_nothing_of_what_comes_for_others(pair):
    near, far = pair.connect()
    be_in_the_present(pair)
    woken: list[int] = []
    far.wq.add(WaitEntry(lambda events: bool(woken.append(events))))
    near.send(b"question")
    assert recv_wait(pair) is None
    assert len(woken) == 1
    assert far.recv(100) == b"question"


def test_the_end_of_the_stream_is_no_text(pair):
    pair.near.shutdown(1)
    assert recv_wait(pair) is None
    pair.stacks[1].poll(monotonic_us())  # the FIN may have been left to Python
    assert pair.far.recv(100) == b""


def test_a_readers_turns_are_counted_too(pair):
    received, processed, irqs, runs = exchange(pair, lambda: recv_wait(pair))
    assert received == processed >= 5
    assert runs >= irqs >= 5


def test_a_reader_without_the_fast_path_gets_what_is_there():
    made = pair_of(False)
    be_in_the_present(made)
    made.near.send(b"question")
    assert recv_wait(made) is None
    be_in_the_present(made)
    assert recv_wait(made) == b"question"
    made.close()
