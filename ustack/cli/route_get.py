"""``ustack ip route get ADDR [from ADDR]``: the way of one packet, as iproute2 prints it."""

from __future__ import annotations

import os

from ustack.cli.client import Client, ClientError
from ustack.cli.iproute2 import rtnetlink_answers
from ustack.daemon.messages import RouteGetRequest, RouteGetRow
from ustack.lib.addresses import parse_ipv4

CACHE_FLAGS = {"local": "<local> ", "broadcast": "<local,brd> ", "multicast": "<local,mc> "}
"""What iproute2 says of routes that end in this host as well (RTCF_LOCAL ...)."""


def print_route(client: Client, words: list[str]) -> None:
    """Ask for one route and print it.

    Raises:
        ClientError: no address, another word, or there is no way.
    """
    request = parse_get(words)
    with rtnetlink_answers():
        rows = list(client.rows(request, RouteGetRow))
    for row in rows:
        print("\n".join(format_get(row, from_address=request.source)))


def parse_get(words: list[str]) -> RouteGetRequest:
    """Read ``[to] ADDR [from ADDR]``.

    Raises:
        ClientError: it is something else.
    """
    given = {"to": "", "from": ""}
    rest = list(words)
    while rest:
        key = rest.pop(0) if rest[0] in given else "to"
        if not rest or given[key]:
            raise ClientError('ip route get: try "ustack ip route get ADDR [from ADDR]"')
        address = rest.pop(0)
        try:
            parse_ipv4(address)
        except ValueError:
            raise ClientError(
                f'Error: any valid prefix is expected rather than "{address}".'
            ) from None
        given[key] = address
    if not given["to"]:
        raise ClientError("need at least a destination address")
    return RouteGetRequest(given["to"], given["from"])


def format_get(row: RouteGetRow, *, from_address: str) -> list[str]:
    """Write the route, and what the cache knows of it."""
    words = [] if row.type == "unicast" else [row.type]
    words.append(row.destination)
    if from_address:
        words += ["from", from_address]
    if row.gateway:
        words += ["via", row.gateway]
    words += ["dev", row.device]
    if not from_address:
        words += ["src", row.source]
    words += ["uid", str(os.getuid())]
    cache = "    cache " + CACHE_FLAGS.get(row.type, "")
    if row.mtu:
        cache += f"expires {row.expires_s}sec mtu {'lock ' * row.mtu_locked}{row.mtu} "
    return [" ".join(words) + " ", cache]
