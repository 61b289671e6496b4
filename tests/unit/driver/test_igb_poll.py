"""A turn of a device in one call into C: two stacks on a pair of descriptors, in virtual time."""

from __future__ import annotations

import socket

import pytest

from kit.pair_of_stacks import FAR, Pair, pair_of
from kit.tcp_invariants import pages_to_spare
from ustack.core.napi import NET_RX_SOFTIRQ


@pytest.fixture
def pair():
    made = pair_of(True)
    yield made
    made.close()


def transfer(pair: Pair, count: int) -> bytes:
    """Send ``count`` bytes of a pattern to the far end; return what arrives."""
    data = bytes(i * 7 & 0xFF for i in range(251)) * (count // 251 + 1)
    got, sent = b"", 0
    for _ in range(1000):
        if sent < count:
            try:
                sent += pair.near.send(data[sent:count])
            except BlockingIOError:
                pass
        pair.settle(1)
        try:
            got += pair.far.recv(1 << 20)
        except BlockingIOError:
            continue
        if len(got) == count:
            break
    assert got == data[:count]
    return got


def test_bytes_arrive_and_c_has_taken_the_frames(pair):
    transfer(pair, 3_000_000)
    assert pair.stacks[1].tcp.fast.ptr.mib.fast_rx > 40
    assert pair.stacks[0].tcp.fast.ptr.mib.fast_tx > 40


def test_super_frames_are_cut_in_c_one_after_the_other():
    pair = pair_of(True, tx_checksum=False, tso=False, large_receive=False)
    tcp = pair.stacks[0].tcp
    try:
        transfer(pair, 3_000_000)
        in_python = tcp.net.mib.ip.OutRequests - tcp.fast.ptr.mib.fast_tx
    finally:
        pair.close()
    assert tcp.fast.ptr.mib.fast_tx > 40 > in_python


def test_its_interrupts_and_packets_are_counted(pair):
    softnet = pair.stacks[1].net.softnet
    irqs, runs, packets = (
        pair.dev.nic.irq_counts[0],
        softnet.softirq_counts[NET_RX_SOFTIRQ],
        softnet.processed,
    )
    received = pair.dev.ethtool_stats()["rx_packets"]
    transfer(pair, 500_000)
    irqs = pair.dev.nic.irq_counts[0] - irqs
    assert irqs > 0
    assert softnet.softirq_counts[NET_RX_SOFTIRQ] - runs >= irqs
    assert softnet.processed - packets == pair.dev.ethtool_stats()["rx_packets"] - received


def test_what_is_not_tcp_goes_up_through_python(pair):
    ping = pair.stacks[0].ip.icmp.ping
    before = pair.stacks[1].net.mib.icmp.InEchos
    ping.send_echo(FAR)
    pair.settle()
    assert pair.stacks[1].net.mib.icmp.InEchos == before + 1


def test_every_page_comes_back(pair):
    pair.settle()
    free = [pages_to_spare(stack) for stack in pair.stacks]
    transfer(pair, 2_000_000)
    pair.settle()
    assert [pages_to_spare(stack) for stack in pair.stacks] == free


def test_a_wire_that_is_gone_is_told(pair):
    lost: list[OSError] = []
    pair.stacks[1].wire_lost = lost.append
    pair.stacks[0].adapters[0].wire.end.shutdown(socket.SHUT_RDWR)
    pair.settle(3)
    assert lost


def test_a_tap_of_the_stack_sees_every_packet(pair):
    seen: list[int] = []
    pair.stacks[1].dev_add_pack(None, lambda skb, dev, outgoing: seen.append(len(skb.data)))
    transfer(pair, 100_000)
    assert sum(seen) > 100_000


def test_the_stream_is_the_same_without_it():
    made = pair_of(False)
    transfer(made, 500_000)
    assert not made.stacks[1].tcp.fast.ptr.mib.fast_rx
    made.close()
