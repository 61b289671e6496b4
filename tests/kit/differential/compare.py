"""Holds what ustack did against what the kernel did, event by event.

Equal are: the order of events, every call's result, and of every segment flags, relative
sequence and acknowledgment number, window, urgent pointer, options in their order (without
the timestamp clock), data, TTL, TOS, DF. The time since the event before must be of the same
class (at once, delayed ACK, timer): within ``SLACK_MS`` and an eighth of what has passed since
the host last sent what needs an ACK, because the kernel's timers are the coarser the longer
they run.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

AT_ONCE_MS = 25
SLACK_MS = 25
PURE_ACK = re.compile(r"\.U? \d+:\d+\(0\)")

Event = Sequence[object]
"""Kind, ms since the start, ms since our event before, text."""


def difference(kernel: Sequence[Event], ours: Sequence[Event], end_ms: float) -> str:
    """Return "" if both are alike, else the two side by side from the first difference on.

    What only one side did so late that the other may have been about to at ``end_ms``, when
    the script was over, is no difference.
    """
    sent_ms = 0.0
    for i, (theirs, mine) in enumerate(zip(kernel, ours, strict=False)):
        if (theirs[0], theirs[3]) != (mine[0], mine[3]):
            return _report(kernel, ours, i)
        if theirs[0] == "<":
            if not _same_time(theirs, mine, sent_ms):
                return _report(kernel, ours, i)
            if not PURE_ACK.match(str(mine[3])):
                sent_ms = _ms(mine, 1)
    both = min(len(kernel), len(ours))
    for late in (*kernel[both:], *ours[both:]):
        if _ms(late, 1) < end_ms - _slack_ms(late, sent_ms):
            return _report(kernel, ours, both)
    return ""


def _slack_ms(ours: Event, sent_ms: float) -> float:
    return SLACK_MS + (_ms(ours, 1) - sent_ms) / 8


def _ms(event: Event, index: int) -> float:
    return float(str(event[index]))


def _same_time(kernel: Event, ours: Event, sent_ms: float) -> bool:
    real, virtual = _ms(kernel, 2), _ms(ours, 2)
    if real < AT_ONCE_MS and virtual < AT_ONCE_MS:
        return True
    return abs(real - virtual) <= _slack_ms(ours, sent_ms)


def as_line(event: Event) -> str:
    """Write an event as failures show it."""
    delay = f"{_ms(event, 2):6.0f} ms " if event[0] == "<" else " " * 10
    return f"{delay}{event[0]} {event[3]}"


def _report(kernel: Sequence[Event], ours: Sequence[Event], at: int) -> str:
    both = [f"    {as_line(event)}" for event in kernel[:at]]
    both += [f"  K {as_line(e)}" for e in kernel[at : at + 3]] or ["  K (nothing more)"]
    both += [f"  U {as_line(e)}" for e in ours[at : at + 3]] or ["  U (nothing more)"]
    return "\n".join(both)
