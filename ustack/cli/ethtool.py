"""``ustack ethtool``: the emulated NIC's figures and switches, in ethtool's words.

``-S -i -g -l -c -a -k -x DEVNAME`` show; the capital letters change, live, with the words
that ethtool takes: ``-G eth0 rx 512``, ``-C eth0 rx-usecs 50``, ``-K eth0 tso off``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping

from ustack.cli.client import Client, ClientError
from ustack.daemon.messages import EthtoolRequest, EthtoolSetRequest, ValueRow

Values = Mapping[str, int | str | bool]
Changes = dict[str, int | bool | str | list[int]]

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
CHANNEL_FIELDS = (("RX", "rx"), ("TX", "tx"), ("Other", "other"), ("Combined", "combined"))
COALESCE_BLOCKS = (
    ("stats-block-usecs", "sample-interval", "pkt-rate-low", "pkt-rate-high"),
    ("rx-usecs", "rx-frames", "rx-usecs-irq", "rx-frames-irq"),
    ("tx-usecs", "tx-frames", "tx-usecs-irq", "tx-frames-irq"),
    ("rx-usecs-low", "rx-frame-low", "tx-usecs-low", "tx-frame-low"),
    ("rx-usecs-high", "rx-frame-high", "tx-usecs-high", "tx-frame-high"),
)
COALESCE_NAMES = {"rx-usecs": "rx_coalesce_usecs", "tx-usecs": "tx_coalesce_usecs"}
"""What this device has of it."""

FEATURE_WORDS = {
    "rx": "rx-checksumming",
    "tx": "tx-checksumming",
    "tso": "tcp-segmentation-offload",
    "gso": "generic-segmentation-offload",
    "gro": "generic-receive-offload",
    "lro": "large-receive-offload",
}
"""ethtool -K's short names, and the long ones of -k, which it takes as well."""

VIEWS = (
    ("-S", "--statistics", "stats", "the driver's statistics"),
    ("-i", "--driver", "drvinfo", "driver and version"),
    ("-g", "--show-ring", "ring", "descriptors of the rings"),
    ("-l", "--show-channels", "channels", "queue pairs"),
    ("-c", "--show-coalesce", "coalesce", "interrupt moderation"),
    ("-a", "--show-pause", "pause", "pause"),
    ("-x", "--show-rxfh", "rxfh", "hash key and indirection table"),
    ("-k", "--show-features", "features", "offloads"),
)
SETTERS = (
    ("-G", "--set-ring", "ring", "rx N, tx N"),
    ("-L", "--set-channels", "channels", "combined N"),
    ("-C", "--coalesce", "coalesce", "rx-usecs N, tx-usecs 0, adaptive-rx on|off"),
    ("-A", "--pause", "pause", "rx on|off, tx on|off"),
    ("-X", "--rxfh", "rxfh", "equal N, weight W0 W1 ..., default, hkey KEY"),
    ("-K", "--features", "features", "rx, tx, tso, gso, gro, lro on|off"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ethtool's options."""
    views = parser.add_mutually_exclusive_group(required=True)
    for letter, name, view, text in VIEWS:
        views.add_argument(letter, name, dest="view", action="store_const", const=view, help=text)
    for letter, name, setting, text in SETTERS:
        views.add_argument(
            letter, name, dest="setting", action="store_const", const=setting, help=f"set {text}"
        )
    parser.add_argument("device", metavar="DEVNAME", help="e.g. eth0")
    parser.add_argument("words", metavar="WORD", nargs="*", help="for a change: names and values")


def run(args: argparse.Namespace, client: Client) -> int:
    """Print one view of a device, or change it.

    Raises:
        ClientError: a word that means nothing, or the device refuses.
    """
    if args.setting:
        for line in change(client, args.device, args.setting, args.words):
            print(line)
        return 0
    if args.words:
        raise ClientError(f"unexpected parameter '{args.words[0]}'")
    values = view_of(client, args.device, args.view)
    for line in LAYOUTS[args.view](args.device, values):
        print(line)
    return 0


def view_of(client: Client, device: str, view: str) -> Values:
    """Ask for one view of a device."""
    rows = client.rows(EthtoolRequest(device, view), ValueRow)
    return {row.name: row.value for row in rows}


# Changing.


def change(client: Client, device: str, setting: str, words: list[str]) -> Iterator[str]:
    """Change a device; yield what ethtool says about it, mostly nothing."""
    values = PARSERS[setting](words)
    if setting != "features":
        client.ask(EthtoolSetRequest(device, setting, values))
        return
    before = view_of(client, device, setting)
    client.ask(EthtoolSetRequest(device, setting, values))
    after = view_of(client, device, setting)
    yield from actual_changes(values, before, after)


def actual_changes(values: Changes, before: Values, after: Values) -> Iterator[str]:
    """Yield what ``ethtool -K`` says if the outcome is not what was asked for.

    Raises:
        ClientError: nothing changed although something should have.
    """
    wanted = {FEATURE_WORDS[word]: value for word, value in values.items()}
    changed = {name: value for name, value in after.items() if value != before.get(name)}
    if not changed and any(after.get(name) != value for name, value in wanted.items()):
        raise ClientError("Could not change any device features")
    if all(after.get(name) == value for name, value in wanted.items()) and changed.keys() <= (
        wanted.keys()
    ):
        return
    yield "Actual changes:"
    for name, value in changed.items():
        yield f"{name}: {on_off(value)}{'' if name in wanted else ' [not requested]'}"


def pairs(words: list[str], kinds: Mapping[str, Callable[[str], int | bool]]) -> Changes:
    """Read ``rx 512 tx 256``.

    Raises:
        ClientError: no words, an unknown name, or a value that is none.
    """
    if not words:
        raise ClientError("no parameters changed")
    values: Changes = {}
    for at in range(0, len(words), 2):
        name = words[at]
        if name not in kinds:
            raise ClientError(f"unknown parameter '{name}'")
        if at + 1 == len(words):
            raise ClientError(f"no value for parameter '{name}'")
        try:
            values[name] = kinds[name](words[at + 1])
        except ValueError:
            raise ClientError(f"invalid value '{words[at + 1]}' for parameter '{name}'") from None
    return values


def number(word: str) -> int:
    """Read an unsigned number, hexadecimal perhaps.

    Raises:
        ValueError: it is none.
    """
    value = int(word, 0)
    if value < 0:
        raise ValueError(word)
    return value


def switch(word: str) -> bool:
    """Read on or off.

    Raises:
        ValueError: it is neither.
    """
    if word not in ("on", "off"):
        raise ValueError(word)
    return word == "on"


def coalesce_words(words: list[str]) -> Changes:
    """Read -C's words.

    igb declares the times alone (ETHTOOL_COALESCE_USECS): frames, rates and the rest are refused
    as ethtool's core does; adaptive-rx is ours.
    """
    names = {name for block in COALESCE_BLOCKS for name in block} | {"adaptive-tx"}
    for name in words[::2]:
        if name in names - {"rx-usecs", "tx-usecs"}:
            raise ClientError("netlink error: Operation not supported")
    values = pairs(words, {"rx-usecs": number, "tx-usecs": number, "adaptive-rx": switch})
    return {name.replace("-", "_"): value for name, value in values.items()}


def feature_words(words: list[str]) -> Changes:
    """Read -K's words, short or long."""
    short = {long: name for name, long in FEATURE_WORDS.items()}
    names = [short.get(word, word) if at % 2 == 0 else word for at, word in enumerate(words)]
    for name in names[::2]:
        if name not in FEATURE_WORDS:
            raise ClientError("bad command line argument(s)")
    return pairs(names, dict.fromkeys(FEATURE_WORDS, switch))


def rxfh_words(words: list[str]) -> Changes:
    """Read -X's words: ``equal 4``, ``weight 6 2``, ``default``, ``hkey aa:bb:...``."""
    values: Changes = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "default":
            values["default"] = True
        elif word == "equal" and rest:
            values |= pairs([word, rest.pop(0)], {"equal": number})
        elif word == "hkey" and rest:
            values["key"] = rest.pop(0)
        elif word == "weight" and rest:
            values["weight"] = [int(w) for w in rest if w.isdigit()]
            rest = [w for w in rest if not w.isdigit()]
        else:
            raise ClientError("bad command line argument(s)")
    if not values:
        raise ClientError("bad command line argument(s)")
    return values


PARSERS: dict[str, Callable[[list[str]], Changes]] = {
    "ring": lambda words: pairs(words, {"rx": number, "tx": number}),
    "channels": lambda words: pairs(words, {"combined": number}),
    "coalesce": coalesce_words,
    "pause": lambda words: pairs(words, {"autoneg": switch, "rx": switch, "tx": switch}),
    "rxfh": rxfh_words,
    "features": feature_words,
}


# Showing.


def on_off(value: int | str | bool | None) -> str:
    """Write a switch; what the device does not have is n/a."""
    return "n/a" if value is None else "on" if value else "off"


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
            yield tabbed(label, values.get(name + suffix, "n/a"))


def channel_lines(device: str, values: Values) -> Iterator[str]:
    """Yield ``ethtool -l``."""
    yield f"Channel parameters for {device}:"
    yield "Pre-set maximums:"
    for label, name in CHANNEL_FIELDS:
        yield tabbed(label, values.get(f"max_{name}", "n/a"))
    yield "Current hardware settings:"
    for label, name in CHANNEL_FIELDS:
        yield tabbed(label, values.get(f"{name}_count", "n/a"))


def tabbed(label: str, value: int | str | bool) -> str:
    """Write a label and a value in the column that ethtool's tabs make."""
    return f"{label + ':':<16}{value}"


def coalesce_lines(device: str, values: Values) -> Iterator[str]:
    """Yield ``ethtool -c``."""
    yield f"Coalesce parameters for {device}:"
    yield f"Adaptive RX: {on_off(values.get('use_adaptive_rx'))}  TX: n/a"
    for block in COALESCE_BLOCKS:
        for name in block:
            yield f"{name}: {values.get(COALESCE_NAMES.get(name, ''), 'n/a')}"
        yield ""


def pause_lines(device: str, values: Values) -> Iterator[str]:
    """Yield ``ethtool -a``."""
    yield f"Pause parameters for {device}:"
    for label, name in (("Autonegotiate", "autoneg"), ("RX", "rx_pause"), ("TX", "tx_pause")):
        yield tabbed(label, on_off(values.get(name)))
    yield ""


def rxfh_lines(device: str, values: Values) -> Iterator[str]:
    """Yield ``ethtool -x``."""
    rings = values["rings"]
    yield f"RX flow hash indirection table for {device} with {rings} RX ring(s):"
    table = str(values["indirection"]).split()
    for at in range(0, len(table), 8):
        yield f"{at:5}: " + "".join(f" {ring:>5}" for ring in table[at : at + 8])
    yield "RSS hash key:"
    yield str(values["key"])
    yield "RSS hash function:"
    yield from ("    toeplitz: on", "    xor: off", "    crc32: off")


def feature_lines(device: str, values: Values) -> Iterator[str]:
    """Yield ``ethtool -k``."""
    yield f"Features for {device}:"
    yield from (f"{name}: {on_off(value)}" for name, value in values.items())


LAYOUTS: dict[str, Callable[[str, Values], Iterator[str]]] = {
    "stats": statistics_lines,
    "drvinfo": drvinfo_lines,
    "ring": ring_lines,
    "channels": channel_lines,
    "coalesce": coalesce_lines,
    "pause": pause_lines,
    "rxfh": rxfh_lines,
    "features": feature_lines,
}
