"""``ustack ip``: neigh, route, addr, link and tcp_metrics in iproute2's words.

To change there are static neighbours and ``ip link set DEV up|down|mtu N``; the rest only
looks. ``ip route get ADDR`` is in ``route_get``.

Commands and objects may be shortened as in iproute2 (``ip r``, ``ip a s dev lo``).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Literal

from ustack.cli.client import Client, ClientError
from ustack.cli.iproute2 import USAGE, behind_show, rtnetlink_answers
from ustack.cli.route_get import print_route
from ustack.cli.tcp_metrics import run_tcp_metrics
from ustack.daemon.messages import (
    AddressRow,
    EthtoolSetRequest,
    LinkRow,
    LinksRequest,
    NeighbourChange,
    NeighbourRow,
    NeighboursRequest,
    RouteRow,
    RoutesRequest,
)
from ustack.lib.addresses import format_ipv4, format_mac, parse_ipv4, parse_mac

STATS_RX = (
    ("bytes", "rx_bytes"),
    ("packets", "rx_packets"),
    ("errors", "rx_errors"),
    ("dropped", "rx_dropped"),
    ("missed", "rx_missed_errors"),
    ("mcast", "multicast"),
)
STATS_TX = (
    ("bytes", "tx_bytes"),
    ("packets", "tx_packets"),
    ("errors", "tx_errors"),
    ("dropped", "tx_dropped"),
    ("carrier", "tx_carrier_errors"),
    ("collsns", "collisions"),
)
STATS_MIN_WIDTHS = (10, 7, 6, 7, 7, 7)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ip's options."""
    parser.add_argument("-s", "--stats", action="store_true", help="with link: counters")
    parser.add_argument("-d", "--details", action="store_true", help="with link: limits, queues")
    parser.add_argument("-4", dest="ipv4", action="store_true", help="IPv4, as always here")
    parser.add_argument("object", metavar="OBJECT", help="neigh, route, addr, link or tcp_metrics")
    parser.add_argument(
        "words",
        nargs="*",
        metavar="WORD",
        help="show, list; dev NAME; for route: table local, get ADDR [from ADDR]; for link: "
        "set NAME up|down|mtu N; for neigh: add, replace or del ADDR lladdr MAC dev NAME "
        "[nud permanent]",
    )


def run(args: argparse.Namespace, client: Client) -> int:
    """Print one object's list, or change it.

    Raises:
        ClientError: the object or a word is unknown, or the daemon refuses.
    """
    name, words = object_named(args.object), args.words
    if name == "tcp_metrics":
        for line in run_tcp_metrics(client, words):
            print(line)
    elif name == "link" and words[:1] == ["set"]:
        set_link(client, words[1:])
    elif name == "route" and words[:1] == ["get"]:
        print_route(client, words[1:])
    elif name == "neighbour" and (change := parse_change(words)) is not None:
        change_neighbour(client, change)
    else:
        selection = parse_words(words, name)
        if args.details:
            selection["details"] = "on"
        for line in VIEWS[name](client, selection, bool(args.stats)):
            print(line)
    return 0


def object_named(word: str) -> str:
    """Return the object that ``word`` stands for; iproute2 takes the first that begins so.

    Raises:
        ClientError: there is none.
    """
    if word in ("tcp_metrics", "tcpmetrics"):
        return "tcp_metrics"
    for name in VIEWS:
        if name.startswith(word):
            return name
    if "neighbor".startswith(word):
        return "neighbour"
    raise ClientError(f'Object "{word}" is unknown, try neigh, route, addr, link or tcp_metrics.')


def check_device(client: Client, name: str) -> None:
    """Hold that there is a device of this name.

    Raises:
        ClientError: there is none.
    """
    if name not in [link.name for link in client.rows(LinksRequest(), LinkRow)]:
        raise ClientError(f'Cannot find device "{name}"')


def set_link(client: Client, words: list[str]) -> None:
    """Do ``ip link set [dev] DEVICE up|down|mtu N``.

    Raises:
        ClientError: another word, no number, or the device refuses.
    """
    match words[1:] if words[:1] == ["dev"] else words:
        case [device, "up" | "down" as state]:
            request = EthtoolSetRequest(device, "link", {"up": state == "up"})
        case [device, "mtu", mtu] if mtu.isdigit():
            request = EthtoolSetRequest(device, "mtu", {"mtu": int(mtu)})
        case [_, "mtu", mtu]:
            raise ClientError(f'Error: argument "{mtu}" is wrong: Invalid "mtu" value', USAGE)
        case _:
            raise ClientError('try "ustack ip link set DEVICE up|down|mtu NUMBER"', USAGE)
    check_device(client, device)
    with rtnetlink_answers():
        client.ask(request)


def parse_words(words: list[str], name: str) -> dict[str, str]:
    """Read ``show dev eth0 table local`` into ``{"dev": ..., "table": ...}``.

    Raises:
        ClientError: a command that is not there, or a word that means nothing here.
    """
    rest = behind_show(words)
    keywords = ("dev", "table") if name == "route" else ("dev",)
    selection: dict[str, str] = {}
    while rest:
        word = rest.pop(0)
        if word in keywords and rest:
            selection[word] = rest.pop(0)
        elif name in ("address", "link") and "dev" not in selection and word not in keywords:
            selection["dev"] = word
        else:
            text = f'ip {name}: "{word}" is not supported (try "ustack ip {name} show")'
            raise ClientError(text, USAGE)
    return selection


def parse_change(words: list[str]) -> NeighbourChange | None:
    """Read ``add ADDR lladdr MAC dev NAME [nud permanent]``; None if it begins otherwise.

    Raises:
        ClientError: it begins so and does not go on so.
    """
    action = next((a for w in words[:1] for a in ACTIONS if w and a.startswith(w)), None)
    if action is None:
        return None
    given: dict[str, str] = {}
    rest = words[1:]
    while rest:
        word = rest.pop(0)
        key = word if word in ("dev", "lladdr", "nud") else "to"
        if word in ("dev", "lladdr", "nud", "to"):
            if not rest:
                raise ClientError("ip neigh: Command line is not complete.", USAGE)
            word = rest.pop(0)
        if key in given:
            raise ClientError(f'ip neigh: duplicate "{key}": "{word}" is the second value.', USAGE)
        given[key] = word
    if "dev" not in given or "to" not in given:
        raise ClientError("ip neigh: Device and destination are required arguments.", USAGE)
    if given.get("nud", "permanent") != "permanent" and action != "delete":
        raise ClientError(f'ip neigh: nud "{given["nud"]}" is not supported, only permanent')
    try:
        address = format_ipv4(parse_ipv4(given["to"]))
        mac = format_mac(parse_mac(given["lladdr"])) if "lladdr" in given else ""
    except ValueError as error:
        raise ClientError(f"ip neigh: {error}") from None
    if not mac and action != "delete":
        raise ClientError("ip neigh: lladdr MAC is required")
    return NeighbourChange(ACTIONS[action], address, given["dev"], mac)


def change_neighbour(client: Client, change: NeighbourChange) -> None:
    """Make or delete an entry.

    Raises:
        ClientError: the daemon refuses, in rtnetlink's words.
    """
    check_device(client, change.device)
    with rtnetlink_answers():
        client.ask(change)


def neighbour_lines(client: Client, selection: dict[str, str], stats: bool) -> Iterator[str]:
    """Yield ``ip neigh``; entries without need of resolution are not shown."""
    if "dev" in selection:
        check_device(client, selection["dev"])
    for neigh in client.rows(NeighboursRequest(), NeighbourRow):
        if neigh.state != "NOARP" and selection.get("dev") in (None, neigh.device):
            yield format_neighbour(neigh)


def format_neighbour(neigh: NeighbourRow) -> str:
    """Write ``10.0.0.1 dev eth0 lladdr 02:... REACHABLE``."""
    lladdr = f"lladdr {neigh.mac} " if neigh.mac else ""
    return f"{neigh.address} dev {neigh.device} {lladdr}{neigh.state} "


def route_lines(client: Client, selection: dict[str, str], stats: bool) -> Iterator[str]:
    """Yield ``ip route`` of one table."""
    table = selection.get("table", "main")
    if "dev" in selection:
        check_device(client, selection["dev"])
    for route in client.rows(RoutesRequest(table), RouteRow):
        if selection.get("dev") in (None, route.device):
            yield format_route(route)


def format_route(route: RouteRow) -> str:
    """Write one route; the type is left out where it is unicast."""
    words = [] if route.type == "unicast" else [route.type]
    words.append(route.destination)
    for keyword, value in (
        ("via", route.gateway),
        ("dev", route.device),
        ("proto", route.protocol),
        ("scope", route.scope),
        ("src", route.source),
    ):
        if value:
            words += [keyword, value]
    return " ".join(words) + " "


def address_lines(client: Client, selection: dict[str, str], stats: bool) -> Iterator[str]:
    """Yield ``ip addr``."""
    for link in chosen_links(client, selection):
        yield from link_header(link)
        for address in link.addresses:
            yield format_address(address, link.name)
            yield "       valid_lft forever preferred_lft forever"


def format_address(address: AddressRow, device: str) -> str:
    """Write one ``inet`` line."""
    broadcast = f" brd {address.broadcast}" if address.broadcast else ""
    return (
        f"    inet {address.address}/{address.prefix_len}{broadcast} scope {address.scope} {device}"
    )


def link_lines(client: Client, selection: dict[str, str], stats: bool) -> Iterator[str]:
    """Yield ``ip link``, with ``-s`` its counters."""
    for link in chosen_links(client, selection):
        details = "details" in selection
        yield from link_header(link, mode=" mode DEFAULT", details=details)
        if stats:
            yield from statistics_lines("RX", STATS_RX, link.stats)
            yield from statistics_lines("TX", STATS_TX, link.stats)


def chosen_links(client: Client, selection: dict[str, str]) -> list[LinkRow]:
    """Return the devices that were asked for.

    Raises:
        ClientError: there is none of that name.
    """
    links = list(client.rows(LinksRequest(), LinkRow))
    name = selection.get("dev")
    chosen = [link for link in links if name in (None, link.name)]
    if name and not chosen:
        raise ClientError(f'Device "{name}" does not exist.')
    return chosen


def link_header(link: LinkRow, mode: str = "", details: bool = False) -> Iterator[str]:
    """Yield the two lines that begin a device."""
    if "UP" not in link.flags:
        state = "DOWN"
    else:
        state = "UNKNOWN" if link.loopback else "UP"
    yield (
        f"{link.ifindex}: {link.name}: <{','.join(link.flags)}> mtu {link.mtu} "
        f"qdisc {link.qdisc} state {state}{mode} group default qlen {link.qlen}"
    )
    kind, broadcast = (
        ("loopback", "00:00:00:00:00:00") if link.loopback else ("ether", "ff:ff:ff:ff:ff:ff")
    )
    extra = format_details(link.details) if details else ""
    yield f"    link/{kind} {link.mac} brd {broadcast}{extra}"


def format_details(details: dict[str, int]) -> str:
    """Write what ``-d`` adds, with iproute2's two blanks behind the promiscuity."""
    words = [f"{name} {value}" + " " * (name == "promiscuity") for name, value in details.items()]
    return f" {' '.join(words)} " if words else ""


def statistics_lines(
    direction: str, columns: tuple[tuple[str, str], ...], stats: dict[str, int]
) -> Iterator[str]:
    """Yield the heading and the numbers of one direction, right-aligned below it."""
    titles = [title for title, _ in columns]
    values = [str(stats.get(name, 0)) for _, name in columns]
    widths = [
        max(len(title), len(value), least)
        for title, value, least in zip(titles, values, STATS_MIN_WIDTHS, strict=True)
    ]
    titles[0] = f"{direction}:" + titles[0].rjust(widths[0] - len(direction) - 1)
    for cells in (titles, values):
        line = " ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        yield f"    {line} "


ACTIONS: dict[str, Literal["add", "replace", "del"]] = {
    "add": "add",
    "replace": "replace",
    "delete": "del",
}
"""What changes a neighbour's entry; may be shortened."""

View = Callable[[Client, dict[str, str], bool], Iterator[str]]

VIEWS: dict[str, View] = {
    "address": address_lines,
    "route": route_lines,
    "neighbour": neighbour_lines,
    "link": link_lines,
}
"""By iproute2's full names, in its order of preference for abbreviations."""
