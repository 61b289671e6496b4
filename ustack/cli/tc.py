"""``ustack tc -s qdisc show dev eth0``: the queue disciplines in iproute2's words.

Only looks: a device has the discipline that Linux gives it by default.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from ustack.cli.client import Client, ClientError
from ustack.cli.iproute2 import USAGE, behind_show
from ustack.daemon.messages import QdiscRow, QdiscsRequest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare tc's options."""
    parser.add_argument("-s", "--stats", "-statistics", action="store_true", help="counters")
    parser.add_argument("object", metavar="OBJECT", help="qdisc")
    parser.add_argument("words", nargs="*", metavar="WORD", help="show, list; dev NAME")


def run(args: argparse.Namespace, client: Client) -> int:
    """Print the list.

    Raises:
        ClientError: the object or a word is unknown.
    """
    if not "qdisc".startswith(args.object):
        raise ClientError(f'Object "{args.object}" is unknown, try "tc qdisc".', USAGE)
    device = parse_device(args.words)
    for row in client.rows(QdiscsRequest(device), QdiscRow):
        for line in qdisc_lines(row, with_device=not device, with_stats=args.stats):
            print(line)
    return 0


def parse_device(words: list[str]) -> str:
    """Read ``show dev eth0``; empty for all devices.

    Raises:
        ClientError: a word means nothing here.
    """
    rest = behind_show(words)
    if not rest:
        return ""
    if len(rest) != 2 or rest[0] != "dev":
        raise ClientError(f'What is "{rest[0]}"? Try "tc qdisc show dev NAME".', USAGE)
    return rest[1]


def qdisc_lines(row: QdiscRow, *, with_device: bool, with_stats: bool) -> Iterator[str]:
    """Yield a qdisc as print_qdisc does, trailing spaces included."""
    line = f"qdisc {row.kind} 0: "
    if with_device:
        line += f"dev {row.device} "
    line += f"parent {row.parent} " if row.parent else "root "
    if row.refcnt != 1:
        line += f"refcnt {row.refcnt} "
    yield line + row.options
    if with_stats:
        yield (
            f" Sent {row.sent_bytes} bytes {row.sent_packets} pkt (dropped {row.dropped}, "
            f"overlimits {row.overlimits} requeues {row.requeues}) "
        )
        yield f" backlog {format_size(row.backlog)} {row.qlen}p requeues {row.requeues}"


def format_size(size: int) -> str:
    """Return bytes as iproute2 shortens them (sprint_size)."""
    megabytes, kilobytes = round(size / (1 << 20)), round(size / 1024)
    if size >= 1 << 20 and abs((megabytes << 20) - size) < 1024:
        return f"{megabytes}Mb"
    if size >= 1024 and abs((kilobytes << 10) - size) < 16:
        return f"{kilobytes}Kb"
    return f"{size}b"
