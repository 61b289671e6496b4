"""Complete a transport checksum in software (skb_checksum_help, net/core/dev.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ustack.core.skb import CHECKSUM_NONE, Skb, skb_linearize
from ustack.native.checksum import csum_fold, csum_partial

if TYPE_CHECKING:
    from ustack.core.net import Net


def skb_checksum_help(net: Net, skb: Skb) -> None:
    """Do what CHECKSUM_PARTIAL asks of the device: sum the transport header and payload.

    The pseudo-header's sum already stands in the checksum field; the whole is summed over
    it, so that the field's place is not special.
    """
    skb_linearize(net, skb)
    at = skb.transport_offset + skb.csum_offset
    frame = bytearray(skb.data)
    csum = csum_fold(csum_partial(memoryview(frame)[skb.transport_offset :])) or 0xFFFF
    frame[at] = csum >> 8
    frame[at + 1] = csum & 0xFF
    skb.data = bytes(frame)
    skb.ip_summed = CHECKSUM_NONE
