"""The packet buffer that goes up and down the stack (Linux's struct sk_buff).

Received, ``data`` is the whole frame, Ethernet header first, as a view into the receive
buffer that the driver recycles when its poll returns: whoever keeps the packet longer calls
``own()``. From lo, it is what was sent: all headers in ``data``, payload perhaps in
``frags``. To be sent, ``data`` is what has been built so far (headers are pushed in front)
and ``frags`` are runs of payload in the arena, each holding a page reference that the
transmit clean-up or ``kfree_skb`` gives back.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ustack.core.net import Net
    from ustack.core.netdevice import NetDevice
    from ustack.lib.drop_reason import DropReason

CHECKSUM_NONE = 0
"""Received: nobody has verified it. To send: it is complete in the packet."""
CHECKSUM_UNNECESSARY = 1
"""Received: the device vouches for the transport checksum."""
CHECKSUM_PARTIAL = 3
"""To send: the pseudo-header's sum is in place, the device (or skb_checksum_help) does the rest."""

PACKET_HOST = 0
PACKET_BROADCAST = 1
PACKET_MULTICAST = 2
PACKET_OTHERHOST = 3


class Skb:
    """One packet: a frame, or a TCP super-frame that carries ``gso_segs`` segments."""

    __slots__ = (
        "csum_offset",
        "data",
        "dev",
        "dst",
        "frags",
        "gso_segs",
        "gso_size",
        "hash",
        "ip_summed",
        "network_offset",
        "owner",
        "pkt_type",
        "priority",
        "protocol",
        "queue_mapping",
        "transport_offset",
    )

    def __init__(self, data: bytes | memoryview, dev: NetDevice | None = None) -> None:
        self.data = data
        self.dev = dev
        self.protocol = 0
        """EtherType."""
        self.network_offset = 0
        self.transport_offset = 0
        self.pkt_type = PACKET_HOST
        self.ip_summed = CHECKSUM_NONE
        self.csum_offset = 0
        """Where the checksum goes, from ``transport_offset`` (CHECKSUM_PARTIAL only)."""
        self.gso_size = 0
        """Payload bytes of each segment of a super-frame; 0 for an ordinary packet."""
        self.gso_segs = 1
        self.owner = 0
        """Generation of the TCP connection that sends it (skb->sk), or 0."""
        self.priority = 0
        self.hash = 0
        """The flow's (``skb_get_hash``); 0 while nobody has asked for it."""
        self.queue_mapping = 0
        """The device's queue that it came from, or that it is to be sent with."""
        self.frags: list[tuple[int, int]] = []
        """(arena offset, bytes) of payload behind ``data``."""
        self.dst: Any = None
        """The route, once looked up (struct dst_entry)."""

    def __len__(self) -> int:
        total = len(self.data)
        for _, length in self.frags:
            total += length
        return total

    def push(self, header: bytes) -> None:
        """Put ``header`` in front (skb_push): it becomes the start of the packet."""
        self.data = header + self.data
        self.network_offset += len(header)
        self.transport_offset += len(header)

    def own(self) -> None:
        """Copy the frame out of the receive ring, so that it may outlive the poll."""
        if not isinstance(self.data, bytes):
            self.data = bytes(self.data)


def skb_linearize(net: Net, skb: Skb) -> None:
    """Copy the frags behind the headers and give their pages back (skb_linearize)."""
    if skb.frags:
        read_at = net.mem.read_at
        skb.data = b"".join([skb.data, *[read_at(addr, n) for addr, n in skb.frags]])
        release_frags(net, skb)


def skb_clone(net: Net, skb: Skb) -> Skb:
    """Return a second packet over the same bytes, with page references of its own."""
    twin = copy(skb)
    twin.frags = list(skb.frags)
    for addr, _ in twin.frags:
        net.mem.get_page(addr)
    return twin


def skb_bytes(net: Net, skb: Skb) -> bytes:
    """Return a copy of the whole packet and leave it as it is (skb_copy_bits); for taps."""
    read_at = net.mem.read_at
    return b"".join([skb.data, *[read_at(addr, n) for addr, n in skb.frags]])


def release_frags(net: Net, skb: Skb) -> None:
    """Give back the page references that ``skb`` holds; it keeps no payload."""
    for addr, _ in skb.frags:
        net.mem.put_page(addr)
    skb.frags = []


def kfree_skb(net: Net, skb: Skb, reason: DropReason) -> None:
    """Drop a packet: count why, give back what it holds."""
    net.drops.count(reason)
    if net.trace_drop.on:
        net.trace_drop(skb, reason)
    if skb.frags:
        release_frags(net, skb)


def consume_skb(net: Net, skb: Skb) -> None:
    """Free a packet that has arrived where it should."""
    if skb.frags:
        release_frags(net, skb)
