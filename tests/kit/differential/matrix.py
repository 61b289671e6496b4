"""Scripts that follow from a table: every state by every segment, option mixes, ways to close.

A cell's name says what it is. Each begins on the shortest way into its state and ends with a
harmless segment, whose answer tells what the cell has left behind.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from kit.differential.script import STATES, Script, parse

SEGMENTS = {
    "RST at the next number": "> R {seq}:{seq}(0)",
    "RST in the window": "> R 500:500(0)",
    "RST outside the window": "> R 900000:900000(0)",
    "RST before the window": "> R {old}:{old}(0)",
    "RST with ACK": "> R. {seq}:{seq}(0) ack {ack}",
    "RST with a wrong ACK": "> R. {seq}:{seq}(0) ack 5000",
    "RST with data": "> R {seq}:{end}(10)",
    "SYN at the next number": "> S {seq}:{seq}(0) win 65535 <mss 1460>",
    "SYN in the window": "> S 500:500(0) win 65535 <mss 1460>",
    "SYN far after": "> S 900000:900000(0) win 65535 <mss 1460>",
    "SYN of before again": "> S 0:0(0) win 65535 <mss 1460>",
    "SYN-ACK": "> S. 0:0(0) ack {ack} win 65535 <mss 1460>",
    "SYN-ACK with a wrong ACK": "> S. 0:0(0) ack 5000 win 65535 <mss 1460>",
    "SYN and FIN": "> SF {seq}:{seq}(0)",
    "SYN and RST": "> SR {seq}:{seq}(0)",
    "no flags": "> P {seq}:{end}(10)",
    "an ACK of nothing new": "> . {seq}:{seq}(0) ack {una}",
    "an ACK of everything": "> . {seq}:{seq}(0) ack {ack}",
    "an ACK of what was never sent": "> . {seq}:{seq}(0) ack 5000",
    "an old ACK": "> . {seq}:{seq}(0) ack 4290000000",
    "data": "> P. {seq}:{end}(10) ack {una}",
    "data that acknowledges everything": "> P. {seq}:{end}(10) ack {ack}",
    "data out of order": "> P. 101:111(10) ack {una}",
    "old data": "> P. {old}:{seq}(1) ack {una}",
    "data outside the window": "> P. 900000:900010(10) ack {una}",
    "FIN": "> F. {seq}:{seq}(0) ack {una}",
    "FIN that acknowledges everything": "> F. {seq}:{seq}(0) ack {ack}",
    "FIN with data": "> F. {seq}:{end}(10) ack {ack}",
    "FIN out of order": "> F. 101:101(0) ack {una}",
    "the FIN of before again": "> F. {old}:{old}(0) ack {ack}",
    "FIN without ACK": "> F {seq}:{seq}(0)",
    "urgent data": "> PU. {seq}:{end}(10) ack {una} urg 10",
    "every flag": "> FSRPU. {seq}:{end}(10) ack {una}",
}
"""What arrives; seq is RCV.NXT, una SND.UNA and ack SND.NXT of the state."""

NUMBERS = {
    "CLOSED": (1, 1, 1),
    "LISTEN": (0, 1, 1),
    "SYN_RECV": (1, 0, 1),
    "SYN_SENT": (0, 0, 1),
    "ESTABLISHED": (1, 1, 1),
    "FIN_WAIT1": (1, 1, 2),
    "FIN_WAIT2": (1, 2, 2),
    "CLOSING": (2, 1, 2),
    "TIME_WAIT": (2, 2, 2),
    "CLOSE_WAIT": (2, 1, 1),
    "LAST_ACK": (2, 1, 2),
    "ORPHAN_FIN_WAIT1": (1, 1, 2),
    "ORPHAN_FIN_WAIT2": (1, 2, 2),
}
"""RCV.NXT, SND.UNA and SND.NXT, relative."""

SYN_MSS = ("", "mss 536", "mss 1460", "mss 9000")
SYN_REST = (
    "",
    "sackOK",
    "nop,wscale 0",
    "nop,wscale 14",
    "nop,wscale 15",
    "TS val 7 ecr 0",
    "sackOK,TS val 7 ecr 0",
    "TS val 7 ecr 0,nop,wscale 7",
    "sackOK,nop,wscale 7",
    "sackOK,TS val 0 ecr 0,nop,wscale 2",
)
ODD_OPTIONS = (
    "mss 0",
    "mss 1",
    "mss 48",
    "mss 65535",
    "mss 1460,mss 536",
    "wscale 3,wscale 5",
    "nop,nop,nop,nop",
    "eol,mss 1460",
    "raw 2 2 0 0",
    "raw 2 40 5 180",
    "raw 2 3 5 180",
    "raw 30 4 1 2",
    "raw 254 2 1 1",
    "raw 3 4 7 0",
    "raw 4 3 0 1",
    "raw 8 9 0 0 0 1 0 0 0 1 1 1",
    "raw 99",
    "raw 99 0 0 0",
    "sackOK,sack 1:2",
    "raw 28 4 0 5",
    "raw 34 2 1 1,mss 1460",
    "mss 1460,raw 34 10 1 2 3 4 5 6 7 8",
)
"""Options that make no sense, lie about their length, or that nobody knows."""

CLOSERS = {
    "close": "close",
    "shutdown for reading": "shutdown r",
    "shutdown for writing": "shutdown w",
    "shutdown of both": "shutdown rw",
    "a hard close": "set SO_LINGER 1,0\nclose",
    "close after shutdown for reading": "shutdown r\nclose",
    "close after shutdown for writing": "shutdown w\nclose",
    "shutdown twice": "shutdown w\nshutdown w",
    "shutdown for reading, then for writing": "shutdown r\nshutdown w",
}
NOTHING, UNREAD = "with nothing in the queues", "with unread data"
BEFORE = {
    NOTHING: "",
    UNREAD: "> P. {seq}:{end}(10) ack {una}\n",
    "with unsent data": "> . {seq}:{seq}(0) ack {una} win 0\nsend 100\n",
    "with unacknowledged data": "send 100\n",
}
AFTER = """
> P. {next}:{more}(10) ack {una}
poll
recv 100
send 10
wait 200
"""


def scripts() -> list[Script]:
    """Return every cell of every table."""
    return [*_states_and_segments(), *_options(), *_closing()]


def _states_and_segments() -> Iterator[Script]:
    for (state, way), (name, line) in itertools.product(STATES.items(), SEGMENTS.items()):
        seq, una, ack = NUMBERS[state]
        text = line.format(seq=seq, end=seq + 10, old=max(seq - 1, 0), una=una, ack=ack)
        if "{old}:{seq}(1)" in line and seq == 0:
            continue
        end = f"> . {seq}:{seq}(0) ack {ack}"
        yield parse(f"states: {name} in {state}", f"{way}\n{text}\n{end}\n")


def _options() -> Iterator[Script]:
    mixes = [",".join(filter(None, pair)) for pair in itertools.product(SYN_MSS, SYN_REST)]
    for mix in [*mixes, *ODD_OPTIONS]:
        ts = " <nop,nop,TS val 8 ecr *>" if "TS" in mix else ""
        passive = f"""listen
            > S 0:0(0) win 8000 <{mix}>
            > . 1:1(0) ack 1 win 8000{ts}
            accept
            get TCP_MAXSEG
            send 2000
            > P. 1:1001(1000) ack 2001 win 8000{ts}
            """
        active = f"""connect
            > S. 0:0(0) ack 1 win 8000 <{mix.replace("ecr 0", "ecr *")}>
            get TCP_MAXSEG
            send 2000
            > P. 1:1001(1000) ack 2001 win 8000{ts}
            """
        yield parse(f"options: a SYN with {mix or 'none'}", passive)
        yield parse(f"options: a SYN-ACK with {mix or 'none'}", active)


def _closing() -> Iterator[Script]:
    ways = {
        "ESTABLISHED": ("passive\n", 1, 1, BEFORE),
        "CLOSE_WAIT": ("passive\n> F. 1:1(0) ack 1\n", 2, 1, BEFORE.keys() - {UNREAD}),
        "SYN_SENT": ("connect\n", 0, 0, {NOTHING}),
    }
    for state, (way, seq, una, possible) in ways.items():
        for (before, first), (how, calls) in itertools.product(BEFORE.items(), CLOSERS.items()):
            if before not in possible:
                continue
            next_seq = seq + (10 if before == UNREAD else 0)
            sizes = {"seq": seq, "end": seq + 10, "una": una, "next": next_seq,
                     "more": next_seq + 10}  # fmt: skip
            body = way + first.format(**sizes) + calls + AFTER.format(**sizes)
            yield parse(f"closing: {how} in {state} {before}", body)
