"""``ustack netstat``: -s in net-tools' words, and --drops, packets lost by reason.

The reasons are the kernel's ``enum skb_drop_reason`` where it has the name.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping

from ustack.cli.client import Client, ClientError
from ustack.cli.netstat_texts import ALWAYS, ICMP_INPUT, ICMP_OUTPUT, NOT_SHOWN, TEXTS
from ustack.daemon.messages import CounterRow, CountersRequest, DropsRequest

Tables = Mapping[str, Mapping[str, int]]

PROTOCOLS = {"tcp": ("Tcp", "TcpExt"), "udp": ("Udp",), "raw": ("Ip", "Icmp", "IpExt")}
"""What -t, -u and -w leave of -s."""

TABLES = frozenset(name for names in PROTOCOLS.values() for name in names)
"""Those that net-tools knows."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare netstat's options."""
    flag = parser.add_argument
    flag("-s", "--statistics", action="store_true", help="counters of every protocol")
    flag("--drops", action="store_true", help="packets dropped, by reason")
    flag("-t", "--tcp", action="store_true", help="with -s: only TCP")
    flag("-u", "--udp", action="store_true", help="with -s: only UDP")
    flag("-w", "--raw", action="store_true", help="with -s: only IP and ICMP")


def run(args: argparse.Namespace, client: Client) -> int:
    """Print what was asked for."""
    if not (args.statistics or args.drops):
        raise ClientError("netstat: use -s or --drops; for sockets there is ustack ss")
    if args.statistics:
        tables = tables_of(client.rows(CountersRequest(), CounterRow))
        chosen = [
            name for option, names in PROTOCOLS.items() if vars(args)[option] for name in names
        ]
        for line in statistics_lines(tables, chosen or TABLES):
            print(line)
    if args.drops:
        for line in drop_lines(client.rows(DropsRequest(), CounterRow)):
            print(line)
    return 0


def tables_of(rows: Iterable[CounterRow]) -> dict[str, dict[str, int]]:
    """Sort counters into their tables, in the kernel's order."""
    tables: dict[str, dict[str, int]] = {}
    for row in rows:
        tables.setdefault(row.table, {})[row.name] = row.value
    return tables


def statistics_lines(tables: Tables, chosen: Iterable[str]) -> Iterator[str]:
    """Yield ``netstat -s`` for the chosen tables."""
    wanted = set(chosen)
    for title, counters in tables.items():
        if title not in wanted:
            continue
        yield f"{title}:"
        if title == "Icmp":
            yield from icmp_lines(counters)
        else:
            yield from (f"    {line}" for line in table_lines(title, counters))


def table_lines(title: str, counters: Mapping[str, int]) -> Iterator[str]:
    """Yield one table's lines without indentation."""
    texts = TEXTS.get(title, {})
    always = ALWAYS.get(title, set())
    for name, value in counters.items():
        if name in NOT_SHOWN.get(title, ()) or (not value and name not in always):
            continue
        text = texts.get(name)
        yield text.format(value) if text else f"{name}: {value}"


def icmp_lines(counters: Mapping[str, int]) -> Iterator[str]:
    """Yield the Icmp table: totals each with a histogram by type below."""
    histograms = ICMP_INPUT.keys() | ICMP_OUTPUT.keys()
    totals = {name: n for name, n in counters.items() if name not in histograms}
    received = {name: n for name, n in totals.items() if name.startswith("In")}
    sent = {name: n for name, n in totals.items() if name not in received}
    for direction, part, types in (
        ("input", received, ICMP_INPUT),
        ("output", sent, ICMP_OUTPUT),
    ):
        yield from (f"    {line}" for line in table_lines("Icmp", part))
        yield f"    ICMP {direction} histogram:"
        for name, text in types.items():
            if counters.get(name):
                yield f"        {text}: {counters[name]}"


def drop_lines(rows: Iterable[CounterRow]) -> Iterator[str]:
    """Yield a table of reasons and packets, the most frequent first."""
    drops = sorted(rows, key=lambda row: (-row.value, row.name))
    width = max([len(row.name) for row in drops] + [len("Reason")])
    yield f"{'Reason':<{width}} Packets"
    for row in drops:
        yield f"{row.name:<{width}} {row.value}"
