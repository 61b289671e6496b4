"""``ustack ethtool``: -S, -i, -g and -k of the emulated NIC, in ethtool's layout."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping

from ustack.cli.client import Client
from ustack.daemon.messages import EthtoolRequest, ValueRow

Values = Mapping[str, int | str | bool]

DRVINFO_FIELDS = (
    "driver",
    "version",
    "firmware-version",
    "expansion-rom-version",
    "bus-info",
    "supports-statistics",
    "supports-test",
    "supports-eeprom-access",
    "supports-register-dump",
    "supports-priv-flags",
)
RING_FIELDS = (("RX", "rx"), ("RX Mini", "rx_mini"), ("RX Jumbo", "rx_jumbo"), ("TX", "tx"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ethtool's options."""
    views = parser.add_mutually_exclusive_group(required=True)
    for letter, name, view, text in (
        ("-S", "--statistics", "stats", "the driver's statistics"),
        ("-i", "--driver", "drvinfo", "driver and version"),
        ("-g", "--show-ring", "ring", "descriptors of the rings"),
        ("-k", "--show-features", "features", "offloads"),
    ):
        views.add_argument(letter, name, dest="view", action="store_const", const=view, help=text)
    parser.add_argument("device", metavar="DEVNAME", help="e.g. eth0")


def run(args: argparse.Namespace, client: Client) -> int:
    """Print one view of a device."""
    rows = client.rows(EthtoolRequest(args.device, args.view), ValueRow)
    values = {row.name: row.value for row in rows}
    for line in LAYOUTS[args.view](args.device, values):
        print(line)
    return 0


def statistics_lines(device: str, values: Values) -> Iterator[str]:
    """Yield ``ethtool -S``."""
    if not values:
        yield "no stats available"
        return
    yield "NIC statistics:"
    yield from (f"     {name}: {value}" for name, value in values.items())


def drvinfo_lines(device: str, values: Values) -> Iterator[str]:
    """Yield ``ethtool -i``."""
    for name in DRVINFO_FIELDS:
        value = values.get(name, "no" if name.startswith("supports-") else "")
        yield f"{name}: {value}"


def ring_lines(device: str, values: Values) -> Iterator[str]:
    """Yield ``ethtool -g``."""
    yield f"Ring parameters for {device}:"
    for title, suffix in (
        ("Pre-set maximums:", "_max_pending"),
        ("Current hardware settings:", "_pending"),
    ):
        yield title
        for label, name in RING_FIELDS:
            yield f"{label + ':':<16}{values.get(name + suffix, 'n/a')}"


def feature_lines(device: str, values: Values) -> Iterator[str]:
    """Yield ``ethtool -k``."""
    yield f"Features for {device}:"
    yield from (f"{name}: {'on' if value else 'off'}" for name, value in values.items())


LAYOUTS: dict[str, Callable[[str, Values], Iterator[str]]] = {
    "stats": statistics_lines,
    "drvinfo": drvinfo_lines,
    "ring": ring_lines,
    "features": feature_lines,
}
