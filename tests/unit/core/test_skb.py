"""The packet buffer: headers in front, payload in pages, and who gives pages back."""

from __future__ import annotations

from kit.netbed import Bed
from ustack.core.skb import (
    Skb,
    consume_skb,
    kfree_skb,
    skb_bytes,
    skb_linearize,
)
from ustack.lib.drop_reason import DropReason


def skb_with_page(bed: Bed, payload: bytes) -> Skb:
    page = bed.mem.alloc_pages(0)
    bed.mem.view[page : page + len(payload)] = payload
    skb = Skb(b"head")
    skb.frags = [(page, len(payload))]
    return skb


def test_the_length_counts_pages():
    assert len(skb_with_page(Bed(), b"payload")) == 11


def test_push_moves_the_offsets():
    skb = Skb(b"tcp")
    skb.push(b"ip")
    skb.push(b"eth")
    assert (skb.data, skb.network_offset, skb.transport_offset) == (b"ethiptcp", 5, 5)


def test_own_copies_a_view_once():
    buffer = bytearray(b"frame")
    skb = Skb(memoryview(buffer))
    skb.own()
    buffer[0] = 0
    assert skb.data == b"frame"
    kept = skb.data
    skb.own()
    assert skb.data is kept


def test_a_copy_for_a_tap_leaves_the_packet_as_it_is():
    bed = Bed()
    skb = skb_with_page(bed, b"payload")
    assert skb_bytes(bed.net, skb) == b"headpayload"
    assert len(skb.frags) == 1


def test_pages_are_given_back_by_whoever_ends_the_packet():
    bed = Bed()
    free = bed.mem.free_pages
    skb = skb_with_page(bed, b"payload")
    skb_linearize(bed.net, skb)
    assert skb.data == b"headpayload"
    assert bed.mem.free_pages == free
    consume_skb(bed.net, skb_with_page(bed, b"payload"))
    kfree_skb(bed.net, skb_with_page(bed, b"payload"), DropReason.NOMEM)
    assert bed.mem.free_pages == free
    assert bed.drops == {"NOMEM": 1}
