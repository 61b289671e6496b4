"""``ustackd --impair``: a bad wire between the TAP and the NIC, for real clients to try.

The text is a list of netem's words, ``loss=1%,delay=10ms,seed=7``. Frames pass through Python
then and are bare segments, as on a real wire: with super-frames one loss would cost 44 segments
and a wrong bit would go unnoticed, because partial checksums vouch for nothing.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ustack.lib.clock import StackClock
from ustack.nic.impair import ImpairedWire
from ustack.nic.wire import Wire

LIMIT_PKTS = 1000
"""netem's default: frames held in each direction."""
WAYS = {"both": (True, True), "sent": (True, False), "received": (False, True)}

_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)([a-z%]*)\Z")
_TIME_UNITS = {"us": 1, "ms": 1000, "s": 1_000_000, "": 1000}
_RATE_UNITS = {"bit": 1, "kbit": 1000, "mbit": 10**6, "gbit": 10**9}
_SIZE_UNITS = {"": 1, "b": 1, "kb": 1024, "mb": 1 << 20}


@dataclass(frozen=True)
class ImpairOptions:
    """What the wire does, and to which directions."""

    faults: dict[str, Any]
    """``Impairment``'s fields."""
    sent: bool = True
    received: bool = True
    seed: int | None = None
    """None: another run each time."""


def parse_impairment(text: str) -> ImpairOptions:
    """Read ``loss=1%,delay=10ms,...``.

    Raises:
        ValueError: an unknown word, or a value that is not of its kind.
    """
    faults: dict[str, Any] = {"limit_pkts": LIMIT_PKTS}
    way, seed = "both", None
    for item in text.split(","):
        word, _, value = item.strip().partition("=")
        if word == "way" and value in WAYS:
            way = value
        elif word == "seed" and value.isascii() and value.isdigit():
            seed = int(value)
        elif word in _FAULTS:
            field, parse = _FAULTS[word]
            faults[field] = parse(value)
        else:
            raise ValueError(f"no such impairment: {item.strip()!r}")
    sent, received = WAYS[way]
    return ImpairOptions(faults, sent, received, seed)


def impaired(wire: Wire, clock: StackClock, options: ImpairOptions | None) -> Wire:
    """Wrap ``wire`` as told, each direction with a generator of its own."""
    if options is None:
        return wire
    seeds = random.Random(options.seed)
    rngs = [random.Random(seeds.getrandbits(64)) for _ in range(2)]
    if options.received:
        wire = ImpairedWire(wire, clock, rngs[0], received=True, **options.faults)
    if options.sent:
        wire = ImpairedWire(wire, clock, rngs[1], **options.faults)
    return wire


def _amount(text: str, units: dict[str, int], what: str) -> float:
    match = _AMOUNT.match(text)
    if match is None or match[2] not in units:
        raise ValueError(f"not a {what}: {text!r}")
    return float(match[1]) * units[match[2]]


def _probability(text: str) -> float:
    match = _AMOUNT.match(text)
    value = float(match[1]) / (100 if match[2] == "%" else 1) if match else 2.0
    if match is None or match[2] not in ("", "%") or not 0 <= value <= 1:
        raise ValueError(f"not a probability: {text!r}")
    return value


def _time_us(text: str) -> int:
    return round(_amount(text, _TIME_UNITS, "time (us, ms, s)"))


def _rate(text: str) -> int:
    rate = round(_amount(text, _RATE_UNITS, "rate (kbit, mbit, gbit)"))
    if not rate:
        raise ValueError(f"not a rate: {text!r}")
    return rate


def _size(text: str) -> int:
    return round(_amount(text, _SIZE_UNITS, "size (b, kb, mb)"))


def _count(text: str) -> int:
    return round(_amount(text, {"": 1}, "number"))


_FAULTS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "loss": ("loss", _probability),
    "duplicate": ("duplicate", _probability),
    "reorder": ("reorder", _probability),
    "corrupt": ("corrupt", _probability),
    "delay": ("delay_us", _time_us),
    "jitter": ("jitter_us", _time_us),
    "rate": ("rate_bps", _rate),
    "queue": ("queue_bytes", _size),
    "limit": ("limit_pkts", _count),
}
