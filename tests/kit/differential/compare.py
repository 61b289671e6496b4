"""Holds what ustack did against what the kernel did, event by event.

Equal are: the order of events, every call's result, and of every segment flags, relative
sequence and acknowledgment number, window, urgent pointer, options in their order (without
the timestamp clock), data, TTL, TOS, DF. The time since the event before must be of the same
class (at once, delayed ACK, timer): within ``SLACK_MS`` and an eighth of what has passed since
the host's segment before, because the kernel's timers are the coarser the longer they run.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

COMPARE_WINDOWS = False
"""Not yet: what is offered still differs by Linux's accounting of the receive buffer."""
AT_ONCE_MS = 25
SLACK_MS = 25

Event = Sequence[object]
"""Kind, ms since the start, ms since our event before, text."""


def difference(kernel: Sequence[Event], ours: Sequence[Event]) -> str:
    """Return "" if both are alike, else the two side by side from the first difference on."""
    sent_ms = 0.0
    for i, (theirs, mine) in enumerate(zip(kernel, ours, strict=False)):
        if (theirs[0], _text(theirs)) != (mine[0], _text(mine)):
            return _report(kernel, ours, i)
        if theirs[0] == "<":
            if not _same_time(theirs, mine, sent_ms):
                return _report(kernel, ours, i)
            sent_ms = _ms(mine, 1)
    if len(kernel) != len(ours):
        return _report(kernel, ours, min(len(kernel), len(ours)))
    return ""


def _text(event: Event) -> str:
    text = str(event[3])
    return text if COMPARE_WINDOWS or event[0] != "<" else re.sub(r" win \d+", "", text)


def _ms(event: Event, index: int) -> float:
    return float(str(event[index]))


def _same_time(kernel: Event, ours: Event, sent_ms: float) -> bool:
    real, virtual = _ms(kernel, 2), _ms(ours, 2)
    if real < AT_ONCE_MS and virtual < AT_ONCE_MS:
        return True
    return abs(real - virtual) <= SLACK_MS + (_ms(ours, 1) - sent_ms) / 8


def as_line(event: Event) -> str:
    """Write an event as failures show it."""
    delay = f"{_ms(event, 2):6.0f} ms " if event[0] == "<" else " " * 10
    return f"{delay}{event[0]} {event[3]}"


def _report(kernel: Sequence[Event], ours: Sequence[Event], at: int) -> str:
    both = [f"    {as_line(event)}" for event in kernel[:at]]
    both += [f"  K {as_line(e)}" for e in kernel[at : at + 3]] or ["  K (nothing more)"]
    both += [f"  U {as_line(e)}" for e in ours[at : at + 3]] or ["  U (nothing more)"]
    return "\n".join(both)
