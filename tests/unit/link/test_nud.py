"""The transition table of neighbours, against an independent list (net/core/neighbour.c)."""

from __future__ import annotations

import pytest

from ustack.core.netdevice import NetDevice
from ustack.core.timer import Timer
from ustack.lib.errors import StateError
from ustack.link.neighbour import Neigh
from ustack.link.nud import NUD_CONNECTED, NUD_NAMES, NUD_VALID, TRANSITIONS, NudEvent

ARROWS = {
    "NONE SEND INCOMPLETE",
    "FAILED SEND INCOMPLETE",
    "STALE SEND DELAY",
    "REACHABLE AGED STALE",
    "REACHABLE AGED_IN_USE DELAY",
    "DELAY CONFIRMED REACHABLE",
    "DELAY UNCONFIRMED PROBE",
    "PROBE CONFIRMED REACHABLE",
    "PROBE GIVE_UP FAILED",
    "INCOMPLETE GIVE_UP FAILED",
    "NONE SET_NOARP NOARP",
    "PERMANENT SET_PERMANENT PERMANENT",
}
LEARNING = ("NONE", "INCOMPLETE", "REACHABLE", "STALE", "DELAY", "PROBE", "FAILED")
for state in LEARNING:
    ARROWS |= {
        f"{state} REPLY REACHABLE",
        f"{state} HEARD STALE",
        f"{state} SET_PERMANENT PERMANENT",
    }


def test_the_table_has_these_transitions_and_no_others():
    table = {
        f"{NUD_NAMES[old]} {event.name} {NUD_NAMES[new]}"
        for (old, event), new in TRANSITIONS.items()
    }
    assert table == ARROWS


@pytest.mark.parametrize(("key", "new"), TRANSITIONS.items(), ids=str)
def test_the_cached_header_exists_in_connected_states_only(key, new):
    old, event = key
    neigh = Neigh(NetDevice(None, "eth0", bytes(6)), 1, 0, Timer(lambda neigh: None))
    neigh.nud_state = old
    neigh.set_lladdr(b"\2\0\0\0\0\1")
    assert (neigh.hh is not None) == bool(old & NUD_CONNECTED)
    neigh.set_state(event)
    assert neigh.nud_state == new
    assert (neigh.hh is not None) == bool(new & NUD_CONNECTED)
    if neigh.hh is not None:
        assert new & NUD_VALID


def test_a_transition_that_is_not_in_the_table_is_a_bug():
    neigh = Neigh(NetDevice(None, "eth0", bytes(6)), 1, 0, Timer(lambda neigh: None))
    with pytest.raises(StateError, match="NONE: GIVE_UP"):
        neigh.set_state(NudEvent.GIVE_UP)
