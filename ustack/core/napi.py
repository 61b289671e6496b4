"""NAPI: a device is polled, a bounded number of packets at a time, until it is empty.

The hard interrupt only calls ``napi_schedule``; ``net_rx_action`` calls ``poll``; the
driver calls ``napi_complete`` (and unmasks its interrupt) when it found less than its weight.
``napi.cpu`` says in which softnet context that happens (the interrupt's affinity).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ustack.core.gro import GroHeld
    from ustack.core.net import Net
    from ustack.core.netdevice import NetDevice

NAPI_POLL_WEIGHT = 64
"""Packets that one poll may take (netif_napi_add's usual weight)."""


class Napi:
    """One pollable source of packets (struct napi_struct)."""

    __slots__ = ("cpu", "dev", "enabled", "gro_list", "net", "poll", "scheduled", "weight")

    def __init__(
        self,
        net: Net,
        dev: NetDevice | None,
        poll: Callable[[Napi, int], int],
        weight: int = NAPI_POLL_WEIGHT,
        cpu: int = 0,
    ) -> None:
        self.net = net
        self.dev = dev
        """None for the backlog, which serves no single device."""
        self.poll = poll
        """``poll(napi, budget)`` returns the packets it took, at most ``budget``."""
        self.weight = weight
        self.enabled = True
        self.scheduled = False
        """NAPI_STATE_SCHED: on the poll list, or being polled."""
        self.cpu = cpu
        """Index of the softnet context that polls it; a new value counts from the next
        ``napi_schedule`` on."""
        self.gro_list: dict[bytes, GroHeld] = {}
        """Flows that software GRO holds, oldest first; empty between polls."""


def napi_schedule(napi: Napi) -> bool:
    """Put ``napi`` on the poll list of its context and raise NET_RX there.

    Returns:
        False if it is there already or disabled: the interrupt had nothing to do.
    """
    if napi.scheduled or not napi.enabled:
        return False
    napi.scheduled = True
    softnet = napi.net.softnets[napi.cpu]
    softnet.poll_list.append(napi)
    softnet.softirq_pending |= NET_RX_BIT
    return True


def napi_complete(napi: Napi) -> None:
    """The source is empty: net_rx_action will not poll it again until it is scheduled."""
    napi.scheduled = False


def napi_enable(napi: Napi) -> None:
    """Allow ``napi_schedule`` (the driver's open)."""
    napi.enabled = True


def napi_disable(napi: Napi) -> None:
    """Take ``napi`` off the poll list and keep it off (the driver's close)."""
    napi.enabled = False
    napi.scheduled = False
    for softnet in napi.net.softnets:
        if napi in softnet.poll_list:
            softnet.poll_list.remove(napi)


TIMER_SOFTIRQ = 1
"""Linux's vector numbers: HI 0, TIMER 1, NET_TX 2, NET_RX 3."""
NET_TX_SOFTIRQ = 2
NET_RX_SOFTIRQ = 3
NET_TX_BIT = 1 << NET_TX_SOFTIRQ
NET_RX_BIT = 1 << NET_RX_SOFTIRQ
