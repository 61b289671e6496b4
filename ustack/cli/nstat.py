"""``ustack nstat``: counters by their kernel names, as iproute2's nstat prints them.

Values are always since the daemon's start (nstat -a): there is no history file. Names are
table and counter joined, as in ``TcpExtListenOverflows``; patterns select.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from ustack.cli.client import Client
from ustack.daemon.messages import CounterRow, CountersRequest

SETTINGS = frozenset(
    ["IpForwarding", "IpDefaultTTL", "TcpRtoAlgorithm", "TcpRtoMin", "TcpRtoMax", "TcpMaxConn"]
)
"""Not counters: nstat leaves them out."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare nstat's options."""
    flag = parser.add_argument
    flag("-a", "--ignore", action="store_true", help="absolute values, as always here")
    flag("-z", "--zeros", action="store_true", help="counters that are zero too")
    flag("-s", "--noupdate", action="store_true", help="accepted; there is no history")
    flag("-j", "--json", action="store_true", help="as JSON")
    flag("patterns", nargs="*", metavar="PATTERN", help="names, with * and ?")


def run(args: argparse.Namespace, client: Client) -> int:
    """Print the counters that match."""
    values = dict(select(client.rows(CountersRequest(), CounterRow), args.patterns))
    if not args.zeros:
        values = {name: value for name, value in values.items() if value}
    if args.json:
        print(json.dumps({"kernel": values}))
        return 0
    print("#kernel")
    for name, value in values.items():
        print(f"{name:<32}{value:<16} 0.0")
    return 0


def select(rows: Iterable[CounterRow], patterns: list[str]) -> Iterator[tuple[str, int]]:
    """Yield the full names and values that match a pattern, all if there is none."""
    for row in rows:
        name = row.table + row.name
        if name in SETTINGS:
            continue
        if not patterns or any(fnmatchcase(name, pattern) for pattern in patterns):
            yield name, row.value
