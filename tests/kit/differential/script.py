"""The notation of differential scripts: what the peer sends and what the application calls.

One step a line. ``> S 0:0(0) win 65535 <mss 1460>`` is a segment from the scripted peer
(kit.segment's grammar; ``b>`` is a second peer), ``wait 300`` lets milliseconds pass, any other
line is a call of the application (kit.differential.app). Every step takes ``SLOT_MS``, within
which its answers come; a line that ends with ``&`` takes none. ``iss N`` and ``sysctl NAME
VALUE`` stand before the first step. In a file a script begins with ``== its name`` and
``passive``, ``active`` and ``in STATE`` stand for the steps that lead there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

SLOT_MS = 80
"""Two delayed ACKs; and no multiple of it is a first RTO after a round trip of one slot."""

SYN_OPTIONS = {
    "": ("mss 1460", ""),
    "sack": ("mss 1460,nop,nop,sackOK", ""),
    "ws": ("mss 1460,nop,wscale 7", ""),
    "ts": ("mss 1460,nop,nop,TS val 100 ecr 0", "nop,nop,TS val 101 ecr *"),
    "all": (
        "mss 1460,sackOK,TS val 100 ecr 0,nop,wscale 7",
        "nop,nop,TS val 101 ecr *",
    ),
}
"""Names for what the peer's SYN carries, and its other segments."""

STATES = {
    "CLOSED": "",
    "LISTEN": "listen",
    "SYN_RECV": "listen\n> S 0:0(0) win 65535 <mss 1460>",
    "SYN_SENT": "connect",
    "ESTABLISHED": "passive",
    "FIN_WAIT1": "passive\nshutdown w",
    "FIN_WAIT2": "passive\nshutdown w\n> . 1:1(0) ack 2",
    "CLOSING": "passive\nshutdown w\n> F. 1:1(0) ack 1",
    "TIME_WAIT": "passive\nclose\n> F. 1:1(0) ack 2",
    "CLOSE_WAIT": "passive\n> F. 1:1(0) ack 1",
    "LAST_ACK": "passive\n> F. 1:1(0) ack 1\nclose",
    "ORPHAN_FIN_WAIT1": "passive\nclose",
    "ORPHAN_FIN_WAIT2": "passive\nclose\n> . 1:1(0) ack 2",
}
"""The shortest way into every state; our FIN is sent but not acknowledged in FIN_WAIT1."""


@dataclass(frozen=True)
class Step:
    """One line: ``kind`` is "send", "wait" or "call"."""

    kind: str
    text: str
    at_ms: int
    """When it happens, from the script's start."""
    peer: str = "a"


@dataclass(frozen=True)
class Script:
    """A script ready to be played."""

    name: str
    lines: tuple[str, ...]
    steps: tuple[Step, ...]
    end_ms: int
    iss: int
    sysctls: tuple[tuple[str, str], ...]
    slot_ms: int = SLOT_MS


def parse(name: str, text: str, slot_ms: int = SLOT_MS) -> Script:
    """Read a script's text; macros are expanded."""
    lines = tuple(_expanded(text))
    steps: list[Step] = []
    sysctls: list[tuple[str, str]] = []
    iss, at_ms = 0x10000000, 0
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == "iss":
            iss = int(rest)
            continue
        if word == "sysctl":
            key, _, value = rest.partition(" ")
            sysctls.append((key, value.strip()))
            continue
        if word == "wait":
            at_ms += int(rest)
            continue
        body = line.removesuffix("&").strip()
        if match := re.fullmatch(r"([a-d]?)>\s*(.*)", body):
            steps.append(Step("send", match[2], at_ms, match[1] or "a"))
        else:
            steps.append(Step("call", body, at_ms))
        at_ms += 0 if line.endswith("&") else slot_ms
    return Script(name, lines, tuple(steps), at_ms, iss, tuple(sorted(sysctls)), slot_ms)


def _expanded(text: str) -> list[str]:
    out: list[str] = []
    for raw in text.splitlines():
        line = raw.split("#")[0].strip()
        if not line:
            continue
        word, _, rest = line.partition(" ")
        if word == "in":
            out += _expanded(STATES[rest.strip()])
        elif word in ("passive", "active"):
            out += _opened(word, rest.strip())
        else:
            out.append(line)
    return out


def _opened(side: str, which: str) -> list[str]:
    syn, later = SYN_OPTIONS[which]
    if side == "active":
        syn = syn.replace("ecr 0", "ecr *")
        return ["connect", f"> S. 0:0(0) ack 1 win 65535 <{syn}>"]
    third = "> . 1:1(0) ack 1 win 65535" + (f" <{later}>" if later else "")
    return ["listen", f"> S 0:0(0) win 65535 <{syn}>", third, "accept"]


def read_file(path: Path) -> list[Script]:
    """Read every script of a file; its topic stands before each name."""
    parts = re.split(r"^==[ \t]*(.*)$", path.read_text(), flags=re.MULTILINE)[1:]
    return [
        parse(f"{path.stem}: {name.strip()}", body)
        for name, body in zip(parts[::2], parts[1::2], strict=True)
    ]
