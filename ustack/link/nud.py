"""The states of a neighbour and every way from one to another (neighbour unreachability).

One table: ``Neigh.set_state`` refuses what it lacks. Reference: net/core/neighbour.c, whose
bit values ``ip neigh`` and this module share; RFC 4861 §7.3 describes the same machine.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType

NUD_NONE = 0x00
NUD_INCOMPLETE = 0x01
NUD_REACHABLE = 0x02
NUD_STALE = 0x04
NUD_DELAY = 0x08
NUD_PROBE = 0x10
NUD_FAILED = 0x20
NUD_NOARP = 0x40
NUD_PERMANENT = 0x80

NUD_CONNECTED = NUD_PERMANENT | NUD_NOARP | NUD_REACHABLE
"""Packets go out without a thought: ``Neigh.hh`` is set."""
NUD_SENDS_AT_ONCE = NUD_CONNECTED | NUD_DELAY | NUD_PROBE
"""Packets go out and change nothing, also while the neighbour is in doubt (neigh_event_send)."""
NUD_VALID = NUD_CONNECTED | NUD_STALE | NUD_DELAY | NUD_PROBE
"""The link-layer address is known."""
NUD_IN_TIMER = NUD_INCOMPLETE | NUD_REACHABLE | NUD_DELAY | NUD_PROBE

NUD_NAMES: Mapping[int, str] = MappingProxyType(
    {
        NUD_NONE: "NONE",
        NUD_INCOMPLETE: "INCOMPLETE",
        NUD_REACHABLE: "REACHABLE",
        NUD_STALE: "STALE",
        NUD_DELAY: "DELAY",
        NUD_PROBE: "PROBE",
        NUD_FAILED: "FAILED",
        NUD_NOARP: "NOARP",
        NUD_PERMANENT: "PERMANENT",
    }
)


class NudEvent(enum.Enum):
    """What can happen to a neighbour."""

    SEND = enum.auto()
    """A packet wants to go there."""
    REPLY = enum.auto()
    """It answered our request: reachable both ways."""
    HEARD = enum.auto()
    """It spoke unasked, with an address new to us: it can reach us, no more."""
    CONFIRMED = enum.auto()
    """While we doubted, a protocol above made progress through it."""
    AGED = enum.auto()
    """The reachable time is over and nothing was sent lately."""
    AGED_IN_USE = enum.auto()
    """The reachable time is over and packets are being sent."""
    UNCONFIRMED = enum.auto()
    """The first-probe delay is over without a confirmation."""
    GIVE_UP = enum.auto()
    """The last probe went unanswered."""
    SET_PERMANENT = enum.auto()
    """The administrator says so (``ip neigh add``)."""
    SET_NOARP = enum.auto()
    """There is nothing to resolve: broadcast, multicast, loopback."""


_LEARNING = (
    NUD_NONE,
    NUD_INCOMPLETE,
    NUD_REACHABLE,
    NUD_STALE,
    NUD_DELAY,
    NUD_PROBE,
    NUD_FAILED,
)

TRANSITIONS: Mapping[tuple[int, NudEvent], int] = MappingProxyType(
    {
        (NUD_NONE, NudEvent.SEND): NUD_INCOMPLETE,
        (NUD_FAILED, NudEvent.SEND): NUD_INCOMPLETE,
        (NUD_STALE, NudEvent.SEND): NUD_DELAY,
        (NUD_REACHABLE, NudEvent.AGED): NUD_STALE,
        (NUD_REACHABLE, NudEvent.AGED_IN_USE): NUD_DELAY,
        (NUD_DELAY, NudEvent.CONFIRMED): NUD_REACHABLE,
        (NUD_DELAY, NudEvent.UNCONFIRMED): NUD_PROBE,
        (NUD_PROBE, NudEvent.CONFIRMED): NUD_REACHABLE,
        (NUD_PROBE, NudEvent.GIVE_UP): NUD_FAILED,
        (NUD_INCOMPLETE, NudEvent.GIVE_UP): NUD_FAILED,
        (NUD_NONE, NudEvent.SET_NOARP): NUD_NOARP,
        (NUD_PERMANENT, NudEvent.SET_PERMANENT): NUD_PERMANENT,
        **{(state, NudEvent.REPLY): NUD_REACHABLE for state in _LEARNING},
        **{(state, NudEvent.HEARD): NUD_STALE for state in _LEARNING},
        **{(state, NudEvent.SET_PERMANENT): NUD_PERMANENT for state in _LEARNING},
    }
)
