"""Every key of ``ethtool -S`` and every field of ``ip -s link``, with the frames that raise it.

A key that has no cause here fails, and so does a cause that misses. Keys are those that the
adapter prints.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest

from kit.board import MAC, ethernet
from kit.checksum import checksum
from kit.host import TEST_CONFIG, Host, host
from ustack.config import NicConfig
from ustack.core.netdevice import NetDeviceStats
from ustack.core.skb import CHECKSUM_PARTIAL, Skb
from ustack.core.softirq import do_softirq
from ustack.driver.igb import IgbAdapter
from ustack.lib.addresses import ETH_BROADCAST
from ustack.nic.wire import Wire

GROUP = bytes.fromhex("01005e000001")
FRAME = ethernet(bytes(46))
Cause = Callable[[], Any]


def rig(**nic: Any) -> Host:
    """Return a host with one igb, whose far end is ``net.wire``."""
    return host(replace(TEST_CONFIG, nic=replace(NicConfig(), **nic)))


def softirq(h: Host) -> None:
    """Let the driver poll."""
    while do_softirq(h.stack.net):
        pass


def arrive(*frames: bytes, **nic: Any) -> Cause:
    """Frames arrive before the driver polls once."""

    def cause() -> Any:
        h = rig(**nic)
        assert h.net is not None
        for frame in frames:
            h.net.send_frame(frame)
        while h.adapter.poll_hw():
            pass
        softirq(h)
        while h.adapter.poll_hw():
            softirq(h)
        return h.adapter

    return cause


def send(frame: bytes = FRAME) -> Cause:
    """We send a frame."""

    def cause() -> Any:
        h = rig()
        h.adapter.ndo_start_xmit(Skb(frame, h.adapter))
        softirq(h)
        return h.adapter

    return cause


def send_super_frame() -> Any:
    """The device cuts a super-frame."""
    h = rig()
    frame = bytearray(ethernet(bytes(20 + 32 + 3000)))
    frame[34 + 12] = 0x80
    skb = Skb(bytes(frame), h.adapter)
    skb.ip_summed, skb.transport_offset, skb.csum_offset = CHECKSUM_PARTIAL, 34, 16
    skb.gso_size, skb.gso_segs = 1448, 3
    h.adapter.ndo_start_xmit(skb)
    return h.adapter


def fill_the_ring(h: Host) -> None:
    """Frames are sent to a wire that takes none, until the driver says busy."""
    h.adapter.wire._limit = 0
    while not h.adapter.ndo_start_xmit(Skb(FRAME, h.adapter)):
        pass


def busy() -> Any:
    """The transmit ring is full."""
    h = rig(tx_ring=64)
    fill_the_ring(h)
    return h.adapter


def restarted() -> Any:
    """The transmit ring was full and is empty again."""
    h = rig(tx_ring=64)
    fill_the_ring(h)
    h.adapter.wire._limit = None
    h.adapter.poll_hw()
    softirq(h)
    return h.adapter


def no_memory() -> Any:
    """A frame of several buffers finds no memory for one piece."""
    h = rig(large_receive=False, mtu=9000)
    assert h.net is not None
    mem = h.stack.net.mem
    while mem.free_pages:
        mem.alloc_pages(0)
    h.net.send_frame(ethernet(bytes(9000)))
    h.adapter.poll_hw()
    softirq(h)
    return h.adapter


class DeadTerminal(Wire):
    """A descriptor on which every write is an I/O error, as on a TAP without carrier."""

    def __init__(self) -> None:
        master, self.dma_fd = os.openpty()
        os.close(master)

    def close(self) -> None:
        os.close(self.dma_fd)


def no_carrier() -> Any:
    """We send a frame on a wire that is down."""
    net = rig(large_receive=False).stack.net
    wire = DeadTerminal()
    dev = IgbAdapter(net, "eth1", wire, MAC, NicConfig(large_receive=False))
    net.register_netdev(dev)
    net.dev_open(dev)
    dev.ndo_start_xmit(Skb(FRAME, dev))
    wire.close()
    return dev


def damaged() -> bytes:
    """Return a TCP segment with a wrong checksum."""
    ip = bytes.fromhex("45000028000000004006") + bytes(2) + bytes.fromhex("0a0000010a000002")
    ip = ip[:10] + checksum(ip).to_bytes(2, "big") + ip[12:]
    return ethernet(ip + bytes(12) + b"\x50\x10" + bytes(2) + b"\x12\x34" + bytes(2), MAC, 0x0800)


flood = arrive(*[FRAME] * 66, rx_ring=64, pause=False)
paused = arrive(*[FRAME] * 66, rx_ring=64)
too_long = arrive(ethernet(bytes(1505)), large_receive=False)
too_short = arrive(bytes(13))
ETHTOOL: dict[str, tuple[Cause, int]] = {
    "rx_packets": (arrive(FRAME), 1),
    "tx_packets": (send(), 1),
    "rx_bytes": (arrive(FRAME), 60),
    "tx_bytes": (send(), 60),
    "rx_long_byte_count": (arrive(FRAME), 60),
    "rx_broadcast": (arrive(ethernet(bytes(46), ETH_BROADCAST)), 1),
    "tx_broadcast": (send(ethernet(bytes(46), ETH_BROADCAST)), 1),
    "rx_multicast": (arrive(ethernet(bytes(46), GROUP)), 1),
    "tx_multicast": (send(ethernet(bytes(46), GROUP)), 1),
    "multicast": (arrive(ethernet(bytes(46), GROUP)), 1),
    "rx_no_buffer_count": (flood, 3),
    "rx_missed_errors": (flood, 3),
    "tx_carrier_errors": (no_carrier, 1),
    "rx_long_length_errors": (too_long, 1),
    "rx_short_length_errors": (too_short, 1),
    "tx_tcp_seg_good": (send_super_frame, 1),
    "tx_flow_control_xon": (paused, 1),
    "tx_flow_control_xoff": (paused, 1),
    "rx_errors": (too_long, 1),
    "tx_errors": (no_carrier, 1),
    "tx_dropped": (send(bytes(13)), 1),
    "rx_length_errors": (too_short, 1),
    "rx_fifo_errors": (flood, 3),
    "tx_queue_0_packets": (send(), 1),
    "tx_queue_0_bytes": (send(), 60),
    "tx_queue_0_restart": (restarted, 1),
    "tx_queue_0_busy": (busy, 1),
    "tx_queue_0_descriptors": (send_super_frame, 2),
    "rx_queue_0_packets": (arrive(FRAME), 1),
    "rx_queue_0_bytes": (arrive(FRAME), 60),
    "rx_queue_0_drops": (flood, 3),
    "rx_queue_0_csum_err": (arrive(damaged()), 1),
    "rx_queue_0_alloc_failed": (no_memory, 1),
}
LINK: dict[str, tuple[Cause, int]] = {
    "rx_packets": (arrive(FRAME), 1),
    "rx_bytes": (arrive(FRAME), 60),
    "rx_errors": (too_short, 1),
    "rx_dropped": (arrive(FRAME), 1),
    "rx_missed_errors": (flood, 3),
    "rx_fifo_errors": (flood, 3),
    "rx_length_errors": (too_long, 1),
    "multicast": (arrive(ethernet(bytes(46), GROUP)), 1),
    "tx_packets": (send(), 1),
    "tx_bytes": (send(), 60),
    "tx_errors": (no_carrier, 1),
    "tx_dropped": (send(bytes(13)), 1),
}
NOT_COUNTED_LINK = {"rx_crc_errors": "a column of ip -s -s link; frames come here without FCS"}


@pytest.mark.parametrize("key", ETHTOOL)
def test_a_frame_raises_the_key(key: str):
    cause, times = ETHTOOL[key]
    assert cause().ethtool_stats()[key] == times


@pytest.mark.parametrize("name", LINK)
def test_a_frame_raises_the_field(name: str):
    cause, times = LINK[name]
    assert getattr(cause().stats, name) == times


def test_every_key_is_listed():
    assert rig().adapter.ethtool_stats().keys() == ETHTOOL.keys()


def test_every_field_is_listed():
    assert {f.name for f in fields(NetDeviceStats)} == LINK.keys() | NOT_COUNTED_LINK.keys()


def test_every_figure_of_a_new_adapter_is_zero():
    assert not any(rig().adapter.ethtool_stats().values())
